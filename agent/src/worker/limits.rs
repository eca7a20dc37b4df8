//! Limits a worker sets on itself before it touches a byte of the model: memory, files, privileges,
//! priority, and that it ends with its supervisor.

use rustix::process::{Resource, Rlimit, Signal, nice, set_parent_process_death_signal, setrlimit};
use rustix::thread::{set_name, set_no_new_privs};
use serin_protocol::ids::ByteCount;

/// Open files: three standard streams, the socket, and one release file at a time.
const MAX_FILES: u64 = 16;
/// Below the supervisor, which must get through when every core computes; still above batch work.
const NICENESS: i32 = 5;

/// What could be set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limits {
    /// The data segment is limited.
    pub(super) memory: bool,
    /// No new privileges can be gained.
    pub(super) no_new_privileges: bool,
}

/// Limits this process to `memory` bytes of private writable memory ([`u64::MAX`]: no limit), and
/// takes from it what a computation does not need. What the system refuses is told in the result,
/// except for the death signal: a worker that could outlive its supervisor must not start.
///
/// `RLIMIT_DATA`, not `RLIMIT_AS`: the latter also charges the program and its libraries, some 25 MiB.
pub(super) fn apply(memory: ByteCount) -> Result<Limits, rustix::io::Errno> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    let no_new_privileges = set_no_new_privs(true).is_ok();
    // A core file would hold inputs.
    let _ = setrlimit(Resource::Core, exactly(0));
    let _ = setrlimit(Resource::Fsize, exactly(0));
    let _ = setrlimit(Resource::Nofile, exactly(MAX_FILES));
    // When the system runs out of memory, models go first, never the supervisor. Best effort: the
    // kernel may be built without it.
    let _ = std::fs::write("/proc/self/oom_score_adj", "1000");
    let _ = nice(NICENESS);
    // Otherwise the process list shows "exe".
    let _ = set_name(c"serin-worker");
    let memory = memory.0 != u64::MAX && setrlimit(Resource::Data, exactly(memory.0)).is_ok();
    Ok(Limits { memory, no_new_privileges })
}

const fn exactly(value: u64) -> Rlimit {
    Rlimit { current: Some(value), maximum: Some(value) }
}
