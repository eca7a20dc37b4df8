//! The head of a worker's queue: what is run next, alone or together, and who gets which answer.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;
use serin_protocol::tensor::TensorHeader;
use tokio::sync::oneshot;
use tracing::debug;

use super::join::{self, Bounds, Joined};
use super::process::{InferError, Inferred};
use super::wire;
use serin_model::ROWS_AT_ONCE;

/// A request that waits or runs.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) inputs: Vec<TensorHeader>,
    pub(super) body: Bytes,
    pub(super) reply: oneshot::Sender<Result<Inferred, InferError>>,
    /// When it was asked.
    pub(super) since: Instant,
    /// It is run apart: what is wanted, or because it was in a run that failed.
    pub(super) alone: bool,
    /// How much of the work is wanted.
    pub(super) wanted: Wanted,
}

/// How much of the work on a request is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// All of it.
    Inference,
    /// What is handed to the model; such a request is run alone.
    Preparation,
}

/// What is handed to the process at once: the frame's head and the parts of its body.
#[derive(Debug)]
pub(super) struct Run {
    /// Repeated in the answer.
    pub(super) number: u64,
    pub(super) head: Vec<u8>,
    pub(super) parts: Vec<Bytes>,
    /// What it takes, going by what rows took lately.
    pub(super) expected: Option<Duration>,
    /// It has more rows than the model runs at once.
    pub(super) in_steps: bool,
}

/// The next requests, in the order they came.
#[derive(Debug)]
pub(super) struct Queue {
    bounds: Bounds,
    /// At most as many as can run together; the others are in the channel.
    ahead: VecDeque<Job>,
    /// Those that the process is busy with.
    running: Vec<Job>,
    /// Number of the last run.
    number: u64,
}

impl Queue {
    /// For a worker that says to run `rows_at_once`. It is untrusted: none runs more than [`ROWS_AT_ONCE`].
    pub(super) fn new(rows_at_once: u32) -> Self {
        let bounds = Bounds { rows: rows_at_once.clamp(1, ROWS_AT_ONCE as u32), row_micros: None };
        Self { bounds, ahead: VecDeque::new(), running: Vec::new(), number: 0 }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ahead.is_empty()
    }

    /// Whether another request could be in the next run.
    pub(super) fn has_room(&self) -> bool {
        self.ahead.len() < self.bounds.rows as usize
    }

    pub(super) fn push(&mut self, job: Job) {
        self.ahead.push_back(job);
    }

    /// What is run now; `None` when nobody waits for it any more, or what waited was refused or put back.
    pub(super) fn next(&mut self) -> Option<Run> {
        self.ahead.retain(|job| !job.reply.is_closed());
        let company = self.ahead.iter().take_while(|job| !job.alone).map(|job| job.inputs.as_slice());
        let count = join::together(company, &self.bounds).max(1).min(self.ahead.len());
        self.running.extend(self.ahead.drain(..count));
        let asked: Vec<_> = self.running.iter().map(|job| (job.inputs.as_slice(), &job.body)).collect();
        let wanted = self.running.first().map_or(Wanted::Inference, |job| job.wanted);
        let joined = match asked.as_slice() {
            [] => return None,
            [(inputs, body)] => Some(Joined { inputs: inputs.to_vec(), parts: vec![Bytes::clone(body)] }),
            several => join::join(several),
        };
        self.number = self.number.wrapping_add(1);
        let number = self.number;
        let rows: u64 = self.running.iter().map(|job| u64::from(join::rows(&job.inputs).unwrap_or(1))).sum();
        let expected =
            self.bounds.row_micros.map(|micros| Duration::from_micros(micros.saturating_mul(rows)));
        let in_steps = rows > self.bounds.rows.into();
        let framed = joined.ok_or_else(|| "the requests cannot be run together".to_owned()).and_then(
            |Joined { inputs, parts }| {
                let bytes = parts.iter().map(Bytes::len).sum();
                let head = wire::request_head(number, wanted, inputs, bytes)?;
                Ok(Run { number, head, parts, expected, in_steps })
            },
        );
        match framed {
            Ok(run) => Some(run),
            Err(text) => {
                self.failed(&InferError::Input(text));
                None
            }
        }
    }

    /// Gives everybody of the run that began at `start` and took `elapsed` his part of `outcome`.
    pub(super) fn hand_out(
        &mut self,
        outcome: Result<Inferred, InferError>,
        start: Instant,
        elapsed: Duration,
    ) {
        let mut inferred = match outcome {
            Ok(inferred) => inferred,
            Err(error) => return self.failed(&error),
        };
        // Its own clock cannot have seen more time pass than ours.
        inferred.micros = inferred.micros.min(micros(elapsed));
        let rows: Vec<u32> = self.running.iter().map(|job| join::rows(&job.inputs).unwrap_or(1)).collect();
        if self.running.iter().all(|job| job.wanted == Wanted::Inference) {
            self.learn(inferred.micros, rows.iter().map(|rows| u64::from(*rows)).sum());
        }
        let answers = if rows.len() == 1 { Some(vec![inferred]) } else { join::split(&inferred, &rows) };
        let Some(answers) = answers else {
            return self.failed(&InferError::Model("rows cannot be told apart".into()));
        };
        for (job, answer) in self.running.drain(..).zip(answers) {
            let waited_micros = micros(start.saturating_duration_since(job.since));
            // Whoever asked may have gone away meanwhile.
            let _ = job.reply.send(Ok(Inferred { waited_micros, ..answer }));
        }
    }

    /// The run failed, and the process goes on. One of several is run apart, once, so that nobody fails of
    /// another's input.
    fn failed(&mut self, error: &InferError) {
        if self.running.len() < 2 {
            self.fail(error);
            return;
        }
        debug!(requests = self.running.len(), %error, "what was run together is run apart");
        for mut job in self.running.drain(..).rev() {
            job.alone = true;
            self.ahead.push_front(job);
        }
    }

    /// Tells everybody of the run that it came to nothing.
    pub(super) fn fail(&mut self, error: &InferError) {
        for job in self.running.drain(..) {
            let _ = job.reply.send(Err(error.clone()));
        }
    }

    /// What a row takes, smoothed so that one slow run does not change who is joined.
    fn learn(&mut self, micros: u64, rows: u64) {
        let now = micros.checked_div(rows).unwrap_or(micros);
        let known = self.bounds.row_micros.unwrap_or(now);
        self.bounds.row_micros = Some(known.saturating_mul(3).saturating_add(now) / 4);
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::worker::Company;
    use serin_protocol::frame::{PREFIX_BYTES, WorkerRequest, decode_header};
    use serin_protocol::tensor::DataType;

    type Answer = oneshot::Receiver<Result<Inferred, InferError>>;

    fn ask(queue: &mut Queue, value: f32) -> Answer {
        let shape = [1].into_iter().collect();
        let inputs = vec![TensorHeader {
            name: "x".parse().expect("name"),
            datatype: DataType::Fp32,
            shape,
            bytes: 4,
        }];
        let (reply, answer) = oneshot::channel();
        let body = Bytes::copy_from_slice(&value.to_le_bytes());
        queue.push(Job {
            inputs,
            body,
            reply,
            since: Instant::now(),
            alone: false,
            wanted: Wanted::Inference,
        });
        answer
    }

    /// What a model would answer that repeats its input.
    fn echo(run: &Run) -> Inferred {
        let request = decode_header(&run.head[PREFIX_BYTES..]).expect("well-formed");
        let WorkerRequest::Infer { inputs, .. } = request else { panic!("an inference") };
        let body = run.parts.concat().into();
        let (outputs, predictions, pictures) = (inputs, vec![], Bytes::new());
        Inferred {
            micros: 10,
            waited_micros: 0,
            company: Company::Alone,
            outputs,
            body,
            predictions,
            pictures,
        }
    }

    fn done(queue: &mut Queue, outcome: Result<Inferred, InferError>) {
        queue.hand_out(outcome, Instant::now(), Duration::from_millis(1));
    }

    fn value(answer: &mut Answer) -> i64 {
        let inferred = answer.try_recv().expect("answered").expect("no error");
        f32::from_le_bytes(inferred.body.as_ref().try_into().expect("one value")) as i64
    }

    /// A queue that knows what a row takes.
    fn warm() -> Queue {
        let mut queue = Queue::new(16);
        let mut first = ask(&mut queue, 0.0);
        let run = queue.next().expect("one");
        done(&mut queue, Ok(echo(&run)));
        assert_eq!(value(&mut first), 0);
        queue
    }

    #[test]
    fn those_who_wait_run_together_and_get_their_own_answers() {
        let mut queue = warm();
        let mut answers = [1.0, 2.0, 3.0].map(|value| ask(&mut queue, value));
        let run = queue.next().expect("three");
        assert_eq!(run.parts.len(), 3);
        done(&mut queue, Ok(echo(&run)));
        assert_eq!(answers.each_mut().map(value), [1, 2, 3]);
        assert!(queue.is_empty() && queue.next().is_none());
    }

    #[test]
    fn one_bad_request_does_not_fail_its_companions() {
        let mut queue = warm();
        let mut answers = [1.0, -1.0, 3.0].map(|value| ask(&mut queue, value));
        queue.next().expect("three");
        done(&mut queue, Err(InferError::Model("negative".into())));
        for good in [true, false, true] {
            let run = queue.next().expect("one");
            assert_eq!(run.parts.len(), 1);
            let outcome = if good { Ok(echo(&run)) } else { Err(InferError::Model("negative".into())) };
            done(&mut queue, outcome);
        }
        assert_eq!(answers[1].try_recv().expect("answered"), Err(InferError::Model("negative".into())));
        assert_eq!([value(&mut answers[0]), value(&mut answers[2])], [1, 3]);
        // An answer that cannot be divided is no answer for anybody.
        let _both = [1.0, 2.0].map(|value| ask(&mut queue, value));
        let run = queue.next().expect("two");
        let nobodys = Inferred { outputs: vec![], body: Bytes::new(), ..echo(&run) };
        let predictions = vec![serin_protocol::frame::Prediction::of_class(1, 0.5)];
        done(&mut queue, Ok(Inferred { predictions, ..nobodys }));
        assert_eq!(queue.next().expect("one").parts.len(), 1);
    }

    #[test]
    fn only_what_was_running_fails_with_the_worker() {
        let mut queue = Queue::new(1);
        let mut answers = [1.0, 2.0].map(|value| ask(&mut queue, value));
        queue.next().expect("the first");
        queue.fail(&InferError::Stopped);
        drop(queue);
        assert_eq!(answers[0].try_recv().expect("told"), Err(InferError::Stopped));
        assert!(answers[1].try_recv().is_err_and(|error| error == oneshot::error::TryRecvError::Closed));
    }

    #[test]
    fn who_has_gone_away_is_not_run() {
        let mut queue = warm();
        drop(ask(&mut queue, 1.0));
        let _stays = ask(&mut queue, 2.0);
        assert_eq!(queue.next().expect("one").parts.len(), 1);
    }
}
