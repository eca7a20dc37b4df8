//! Work that blocks, in threads beside the loop: counted, bounded, and known to be overdue when it does not
//! end. A thread that hangs in the kernel cannot be ended; whoever watches the agent must know of it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use serin_protocol::ids::Millis;

/// Jobs at a time: an update has one, collecting another, an engineer's `verify` a third. More means that
/// they do not end.
const MAX_JOBS: usize = 8;

/// The jobs that are running.
#[derive(Clone, Debug)]
pub(super) struct Jobs {
    patience: Millis,
    running: Arc<Mutex<Running>>,
}

#[derive(Debug, Default)]
struct Running {
    next: u64,
    jobs: BTreeMap<u64, (&'static str, Millis)>,
}

/// [`MAX_JOBS`] jobs are running.
#[derive(Debug, thiserror::Error)]
#[error("{MAX_JOBS} jobs on the disk do not end")]
pub(super) struct TooMany;

impl Jobs {
    /// No job; one that takes longer than `patience` is overdue.
    pub(super) fn new(patience: Millis) -> Self {
        Self { patience, running: Arc::default() }
    }

    /// Runs `work` in a thread of its own.
    pub(super) fn spawn(
        &self,
        now: Millis,
        what: &'static str,
        work: impl FnOnce() + Send + 'static,
    ) -> Result<(), TooMany> {
        let number = self.begin(now, what)?;
        let ended = Ended { running: Arc::clone(&self.running), number };
        tokio::task::spawn_blocking(move || {
            // Dropped when the work has ended, by a panic too.
            let _ended = ended;
            work();
        });
        Ok(())
    }

    fn begin(&self, now: Millis, what: &'static str) -> Result<u64, TooMany> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if running.jobs.len() >= MAX_JOBS {
            return Err(TooMany);
        }
        let number = running.next;
        running.next = number.wrapping_add(1);
        running.jobs.insert(number, (what, now));
        Ok(number)
    }

    /// Whether there is none.
    pub(super) fn is_empty(&self) -> bool {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).jobs.is_empty()
    }

    /// A job that should have ended by now.
    pub(super) fn overdue(&self, now: Millis) -> Option<&'static str> {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let late = |since: Millis| since.plus(self.patience) <= now;
        running.jobs.values().find(|(_, since)| late(*since)).map(|(what, _)| *what)
    }
}

struct Ended {
    running: Arc<Mutex<Running>>,
    number: u64,
}

impl Drop for Ended {
    fn drop(&mut self) {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).jobs.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_job_that_does_not_end_is_overdue_and_others_are_bounded() {
        let jobs = Jobs::new(Millis(1000));
        let (let_go, wait) = std::sync::mpsc::channel::<()>();
        let hang = move || {
            // Until the other end is gone.
            let _ = wait.recv();
        };
        jobs.spawn(Millis(5), "unpacking", hang).expect("room");
        assert_eq!((jobs.overdue(Millis(1004)), jobs.overdue(Millis(1005))), (None, Some("unpacking")));
        let hung: Vec<_> = (1..MAX_JOBS).map(|_| jobs.begin(Millis(5), "other").expect("room")).collect();
        assert!(jobs.spawn(Millis(5), "one more", || {}).is_err());
        for number in hung {
            drop(Ended { running: Arc::clone(&jobs.running), number });
        }
        drop(let_go);
        while jobs.overdue(Millis(9999)).is_some() {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_job_that_panics_has_ended() {
        let jobs = Jobs::new(Millis(0));
        jobs.spawn(Millis(0), "panicking", || panic!("as it should")).expect("room");
        while jobs.overdue(Millis(1)).is_some() {
            tokio::task::yield_now().await;
        }
    }
}
