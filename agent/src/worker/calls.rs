//! The system calls of a worker (seccomp). From its start on, those that only a hijacked one makes end it; once the
//! model is loaded, only those are left that computing and answering take.

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch,
};

/// What no worker does, loading or not: run programs, open connections, look into or signal other processes, reach
/// around files and limits. The kernel kills it, and the supervisor knows why.
const DEADLY: &[i64] = &[
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_socket,
    libc::SYS_socketpair,
    libc::SYS_connect,
    libc::SYS_bind,
    libc::SYS_listen,
    libc::SYS_accept,
    libc::SYS_accept4,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_pidfd_open,
    libc::SYS_kill,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_io_uring_setup,
    libc::SYS_userfaultfd,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_mount,
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_open_by_handle_at,
    libc::SYS_memfd_create,
];

/// What a loaded worker is left with: frames on its socket, words on standard error, memory, its own signals, its
/// end. Anything else fails with `EPERM`, as a library that looks around is no reason to lose the model.
const LEFT: &[i64] = &[
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_recvfrom,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_sendto,
    libc::SYS_close,
    libc::SYS_fcntl,
    libc::SYS_fstat,
    libc::SYS_brk,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_futex,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_getrandom,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_restart_syscall,
    libc::SYS_exit,
    libc::SYS_exit_group,
];

/// Ends this process when it makes a call that no worker makes.
///
/// # Errors
/// The kernel does not filter calls, or this processor's numbers are not known.
pub(super) fn forbid_the_deadly() -> Result<(), seccompiler::Error> {
    let rules = DEADLY.iter().map(|call| (*call, Vec::new())).collect();
    install(rules, SeccompAction::Allow, SeccompAction::KillProcess)
}

/// Leaves this process what a loaded worker needs: no new executable memory, no signal to anybody else.
///
/// # Errors
/// As [`forbid_the_deadly`].
pub(super) fn leave_only_what_answering_takes() -> Result<(), seccompiler::Error> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = LEFT.iter().map(|call| (*call, Vec::new())).collect();
    let not_executable =
        SeccompCondition::new(2, SeccompCmpArgLen::Dword, SeccompCmpOp::MaskedEq(libc::PROT_EXEC as u64), 0);
    let not_executable = SeccompRule::new(vec![not_executable?])?;
    rules.insert(libc::SYS_mmap, vec![not_executable.clone()]);
    rules.insert(libc::SYS_mprotect, vec![not_executable]);
    // An abort signals its own thread.
    let own = u64::from(std::process::id());
    let to_itself = SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, own)?;
    rules.insert(libc::SYS_tgkill, vec![SeccompRule::new(vec![to_itself])?]);
    install(rules, SeccompAction::Errno(libc::EPERM as u32), SeccompAction::Allow)
}

/// Whether a filter is known for this processor, and the kernel takes one.
pub(super) fn can_be_filtered() -> bool {
    TargetArch::try_from(std::env::consts::ARCH).is_ok()
        && std::path::Path::new("/proc/sys/kernel/seccomp/actions_avail").exists()
}

fn install(
    rules: BTreeMap<i64, Vec<SeccompRule>>,
    others: SeccompAction,
    listed: SeccompAction,
) -> Result<(), seccompiler::Error> {
    let processor: TargetArch = std::env::consts::ARCH.try_into()?;
    let program: BpfProgram = SeccompFilter::new(rules, others, listed, processor)?.try_into()?;
    seccompiler::apply_filter(&program)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::ErrorKind;
    use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
    use std::process::{Command, ExitStatus, exit};

    /// Whether it worked.
    type Attempt = fn() -> bool;

    /// What a hijacked worker would try, and what becomes of it.
    const ATTEMPTS: [(&str, Attempt); 4] = [
        ("to run a program", || Command::new("/bin/true").exec().kind() != ErrorKind::PermissionDenied),
        ("to reach the network", || std::net::TcpStream::connect("127.0.0.1:9").is_ok()),
        ("to signal others", || rustix::process::test_kill_process(rustix::process::Pid::INIT).is_ok()),
        ("to compute", || vec![1_u8; 1 << 22].iter().map(|value| u64::from(*value)).sum::<u64>() == 1 << 22),
    ];

    /// Filters cannot be taken off, so that each attempt is made in a process of its own: this test program again.
    fn attempt(what: &str, loaded: bool) -> ExitStatus {
        Command::new(std::env::current_exe().expect("known"))
            .args(["--exact", "worker::calls::tests::as_a_worker", "--ignored", "--nocapture"])
            .envs([("ATTEMPT", what), ("LOADED", if loaded { "yes" } else { "no" })])
            .status()
            .expect("runs")
    }

    #[test]
    #[ignore = "run by the test below, in a process of its own"]
    fn as_a_worker() {
        let wanted = std::env::var("ATTEMPT").expect("run by the test below");
        forbid_the_deadly().expect("filtered");
        if std::env::var("LOADED").expect("said") == "yes" {
            leave_only_what_answering_takes().expect("filtered");
            let refused = File::open("/etc/passwd").map_err(|error| error.kind()).map(drop);
            if refused != Err(ErrorKind::PermissionDenied) {
                exit(3);
            }
        }
        let (_, attempt) = ATTEMPTS.into_iter().find(|(what, _)| *what == wanted).expect("known");
        exit(if attempt() { 0 } else { 2 });
    }

    #[test]
    fn what_only_a_hijacked_worker_tries_ends_it_and_what_is_needed_works() {
        if TargetArch::try_from(std::env::consts::ARCH).is_err() {
            println!("skipped: no filter is known for this processor");
            return;
        }
        for loaded in [false, true] {
            for (what, _) in &ATTEMPTS[..3] {
                assert_eq!(attempt(what, loaded).signal(), Some(libc::SIGSYS), "{what}, loaded: {loaded}");
            }
            assert_eq!(attempt("to compute", loaded).code(), Some(0), "loaded: {loaded}");
        }
    }
}
