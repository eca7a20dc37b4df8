//! What the doctor says of the protections around models.

use serin_protocol::frame::Sandbox;
use serin_protocol::target::KernelFeature;

use super::checkup::CheckLine;

/// Of what the active release's worker has around it, if there is one, on a kernel that has these `features`.
pub(super) fn sandbox(sandbox: Option<Sandbox>, features: &[KernelFeature]) -> CheckLine {
    let has = |feature| features.contains(&feature);
    let says = |feature| if has(feature) { "yes" } else { "no" };
    let kernel = format!(
        "seccomp: {}, memory groups delegated: {}",
        says(KernelFeature::Seccomp),
        says(KernelFeature::CgroupV2)
    );
    if !sandbox.map_or(has(KernelFeature::Landlock), |sandbox| sandbox.files_closed) {
        let remedy = "use a kernel of 5.13 or later with Landlock (CONFIG_SECURITY_LANDLOCK, lsm=landlock)";
        let finding = format!("the kernel has no Landlock: workers have limits only ({kernel})");
        return CheckLine::warn("sandbox", finding, remedy);
    }
    let lacks: Vec<&str> = match &sandbox {
        Some(sandbox) => sandbox.lacks().collect(),
        None if has(KernelFeature::Seccomp) => Vec::new(),
        None => vec!["seccomp"],
    };
    if !lacks.is_empty() {
        let remedy = "a hijacked worker can do more than it should: where that matters say models.sandbox = \"require\", \
                      and run Serin where the kernel has all of it; filters for system calls are known for x86-64, ARM64 \
                      and 64-bit RISC-V";
        let finding =
            format!("workers reach no file but their model, but they lack {} ({kernel})", lacks.join(", "));
        return CheckLine::warn("sandbox", finding, remedy);
    }
    let finding = match sandbox {
        Some(_) => "workers reach no file but their model, and no network",
        None => "no worker runs; the kernel can keep one from files and network",
    };
    CheckLine::ok("sandbox", format!("{finding} ({kernel})"))
}

/// Nothing is missing.
#[cfg(test)]
pub(super) const WHOLE: Sandbox =
    Sandbox { no_new_privileges: true, files_closed: true, memory_limited: true, calls_filtered: true };

#[cfg(test)]
mod tests {
    use super::*;
    use crate::field::checkup::Level;

    #[test]
    fn whatever_a_worker_lacks_is_said() {
        assert_eq!(sandbox(Some(WHOLE), &KernelFeature::ALL).level, Level::Ok);
        let open = sandbox(Some(Sandbox { files_closed: false, ..WHOLE }), &KernelFeature::ALL);
        assert_eq!(open.level, Level::Warn);
        let unfiltered = sandbox(Some(Sandbox { calls_filtered: false, ..WHOLE }), &KernelFeature::ALL);
        assert!(
            unfiltered.level == Level::Warn && unfiltered.finding.contains("lack seccomp"),
            "{unfiltered:?}"
        );
    }

    #[test]
    fn the_kernel_is_asked_even_when_no_worker_runs() {
        use KernelFeature::{CgroupV2, Landlock, Seccomp};
        assert_eq!(sandbox(None, &[Landlock, Seccomp]).level, Level::Ok);
        assert_eq!(sandbox(None, &[Seccomp, CgroupV2]).level, Level::Warn);
        assert_eq!(sandbox(None, &[Landlock, CgroupV2]).level, Level::Warn);
    }
}
