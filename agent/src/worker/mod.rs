//! One process per loaded model: what it does inside its sandbox, and how the supervisor starts, asks,
//! watches and ends it. Model files are untrusted input, and only this process ever parses them.
//!
//! | module | side | what lives there |
//! |---|---|---|
//! | [`serve`] | worker | the process: confine, load, answer frames |
//! | `limits`, `sandbox`, `calls` | worker | resource limits; files and network out of reach; system calls |
//! | `engine`, `answer` | worker | one request: the declared steps (`serin-pipeline`), the model (`serin-model`); its answer |
//! | `heap` | worker | memory given back |
//! | [`process`] | supervisor | the handle: start, ask, stop, learn of its death |
//! | `driver`, `wire`, `stderr` | supervisor | its task: one run at a time, deadlines, reaping |
//! | `queue`, `join` | supervisor | who is next; which requests that wait are run together (pure) |
//! | `awake` | supervisor | waiting for what comes at once |
//! | [`death`] | supervisor | which end a process came to (pure) |
//! | [`group`] | both | memory groups, where they are delegated |
//! | [`golden`], `requalify` | supervisor | golden vectors against a live worker, once and again |
//! | [`prepare`] | worker | what is rewritten, told to the packer, and the second form for it |
//! | [`qualify`], [`verdict`], `second_form` | supervisor | the same with measurements, as a command for the packer; what it prints |

mod answer;
mod awake;
mod calls;
pub mod death;
mod driver;
mod engine;
pub mod golden;
pub mod group;
mod heap;
mod join;
mod limits;
mod predictions;
pub mod prepare;
pub mod process;
pub mod qualify;
mod queue;
mod requalify;
mod sandbox;
mod second_form;
pub mod serve;
mod stderr;
pub mod verdict;
mod wire;

use serin_protocol::target::KernelFeature;

/// The decoders that this agent was built with.
pub fn decoders() -> serin_protocol::release::Decoders {
    serin_pipeline::decoders()
}

/// What this kernel has to confine workers with; whether memory groups were delegated is known.
pub fn kernel_features(memory_groups: bool) -> Vec<KernelFeature> {
    let has = |feature: &KernelFeature| match feature {
        KernelFeature::Landlock => sandbox::files_can_be_closed(),
        KernelFeature::Seccomp => calls::can_be_filtered(),
        KernelFeature::CgroupV2 => memory_groups,
    };
    KernelFeature::ALL.into_iter().filter(has).collect()
}

pub(crate) use requalify::requalify;

pub use process::{Company, InferError, Inferred, StartFault, Worker, WorkerSpec};
pub use serin_model::nnef::RUNTIME as SECOND_FORM_RUNTIME;
pub use serin_model::panics::are_caught as panics_are_caught;
