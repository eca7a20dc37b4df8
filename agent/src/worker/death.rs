//! Which end a worker process came to, from its exit status and its last words.

use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;

use serin_protocol::message::WorkerDeath;

use serin_model::tells_of_exhaustion;

/// Names the death of a process that ended with `status` and wrote `last_words` to standard error.
///
/// Memory that runs out shows in three ways: an error answered in time (which never comes here), a
/// panic (code 101) and an abort (signal 6); the latter two are bugs unless the text says so. A worker
/// is untrusted and might lie here, but only about its own end.
pub fn classify(status: ExitStatus, last_words: &str) -> WorkerDeath {
    if !status.success() && tells_of_exhaustion(last_words) {
        return WorkerDeath::MemoryLimit;
    }
    match (status.code(), status.signal()) {
        (Some(code), _) => WorkerDeath::Exit(code),
        (None, Some(libc::SIGSYS)) => WorkerDeath::Forbidden,
        (None, Some(signal)) => WorkerDeath::Signal(signal),
        // Neither exited nor killed does not occur for a process that was waited for.
        (None, None) => WorkerDeath::Exit(status.into_raw()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exited(code: i32) -> ExitStatus {
        ExitStatus::from_raw(code << 8)
    }

    #[test]
    fn exhaustion_is_told_from_other_panics_and_aborts() {
        let abort = ExitStatus::from_raw(6);
        assert_eq!(classify(abort, "memory allocation of 4096 bytes failed\n"), WorkerDeath::MemoryLimit);
        assert_eq!(classify(abort, "free(): invalid pointer"), WorkerDeath::Signal(6));
        assert_eq!(classify(exited(101), "failed to allocate Layout"), WorkerDeath::MemoryLimit);
        assert_eq!(classify(exited(101), "index out of bounds"), WorkerDeath::Exit(101));
        assert_eq!(classify(ExitStatus::from_raw(9), ""), WorkerDeath::Signal(9));
        assert_eq!(classify(ExitStatus::from_raw(libc::SIGSYS), ""), WorkerDeath::Forbidden);
        assert_eq!(classify(exited(0), "failed to allocate"), WorkerDeath::Exit(0));
    }
}
