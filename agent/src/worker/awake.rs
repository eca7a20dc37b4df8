//! Waiting awake for an answer that comes at once: going to sleep and being woken takes longer than a small model.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::{Duration, Instant};

/// Longest run that is waited for awake, by what runs took lately. Being woken takes a quarter of it (measured: 50 to 60 us
/// for the four of a request); of a longer one it is a small part.
const SHORT: Duration = Duration::from_micros(50);
/// Longest that is waited awake: a short run, its way there and back, and as much again for one that takes longer than
/// the ones before.
const AWAKE: Duration = Duration::from_micros(150);

/// How answers are waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Waiting {
    /// Asleep: the only processor is the worker's, or the run is too long.
    Asleep,
    /// Awake for a while, then asleep.
    Awake,
}

impl Waiting {
    /// For a run that takes so long, going by those before it, of a worker that has `processors` with its supervisor.
    pub(super) fn for_run(expected: Option<Duration>, processors: usize) -> Self {
        let is_short = expected.is_some_and(|expected| expected <= SHORT);
        if is_short && processors > 1 { Self::Awake } else { Self::Asleep }
    }

    /// What `answer` resolves to. Everybody else's work goes on meanwhile.
    pub(super) async fn until<T>(self, answer: impl Future<Output = T>) -> T {
        let mut answer = pin!(answer);
        if self == Self::Awake {
            let begun = Instant::now();
            while begun.elapsed() < AWAKE {
                let looked = poll_fn(|context| Poll::Ready(answer.as_mut().poll(context))).await;
                if let Poll::Ready(resolved) = looked {
                    return resolved;
                }
                // Looks at all sockets.
                tokio::task::yield_now().await;
            }
        }
        answer.await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_short_runs_beside_a_free_processor_are_waited_for_awake() {
        let micros = |micros| Some(Duration::from_micros(micros));
        assert_eq!(Waiting::for_run(micros(20), 2), Waiting::Awake);
        assert_eq!(Waiting::for_run(micros(20), 1), Waiting::Asleep);
        assert_eq!(Waiting::for_run(micros(2000), 4), Waiting::Asleep);
        assert_eq!(Waiting::for_run(None, 4), Waiting::Asleep);
    }

    #[tokio::test]
    async fn an_answer_is_seen_while_awake_and_after_and_others_go_on() {
        for waiting in [Waiting::Awake, Waiting::Asleep] {
            for delay in [Duration::ZERO, AWAKE * 20] {
                let (sender, receiver) = tokio::sync::oneshot::channel();
                tokio::spawn(async move {
                    tokio::time::sleep(delay).await;
                    sender.send(7).expect("awaited");
                });
                assert_eq!(waiting.until(receiver).await, Ok(7));
            }
        }
    }
}
