//! What time does to an update: every step has an end, whatever the rest of the agent does or does not say.
//!
//! From any state and with nothing but ticks an update is over within [`MAX_ATTEMPT`] + [`MAX_PROBATION`] +
//! [`PROBATION_GRACE`]. How long single steps may take is bounded by the device as well.

use serin_protocol::ids::Millis;
use serin_protocol::message::{Detail, Reason};

use super::{Machine, Work, Worker};
use crate::update::effect::{Effect, Effects, Now};
use crate::update::record::{Attempt, Progress};

/// Longest from an order to the first answer, whatever the order says: two maintenance windows that come once
/// a week. A bundle that nobody publishes is not waited for any longer.
pub(super) const MAX_ATTEMPT: Millis = Millis::from_secs(14 * 24 * 3600);
/// Longest probation, whatever the order says: one week shows every daily and weekly load.
pub(super) const MAX_PROBATION: Millis = Millis::from_secs(7 * 24 * 3600);
/// A release that does not answer when its probation ends is taken back after this: its worker may just be
/// starting again.
pub(super) const PROBATION_GRACE: Millis = Millis::from_secs(600);

impl Machine {
    /// When [`Event::Tick`](crate::update::effect::Event::Tick) is due next, on the monotonic clock.
    pub fn next_deadline(&self, now: Now) -> Option<Millis> {
        let retries = self.state.workers.values().filter_map(|worker| match worker {
            Worker::Failed { retry_at, .. } => Some(*retry_at),
            Worker::Starting { .. } | Worker::Ready { .. } => None,
        });
        if let Some(resume_at) = self.resume_at {
            // Until then the disk is left alone.
            return retries.chain([resume_at]).min();
        }
        let starts = self.state.workers.values().filter_map(|worker| match worker {
            Worker::Starting { since, .. } => Some(since.plus(self.identity.patience)),
            Worker::Failed { .. } | Worker::Ready { .. } => None,
        });
        let healthy = (!self.state.healthy).then_some(self.identity.crash_policy.window);
        let work = self.work_ends(now);
        retries.chain(starts).chain(work).chain(healthy).chain(self.hold_ends(now)).min()
    }

    /// When the present step, or the whole attempt, has taken too long.
    fn work_ends(&self, now: Now) -> Option<Millis> {
        let attempt = self.state.record.attempt.as_ref()?;
        let expiry = now.elapsed.plus(attempt.expires.since(now.wall));
        let expiry = expiry.min(self.state.attempt_since.plus(MAX_ATTEMPT));
        Some(match &self.state.work {
            Work::Probation { until, .. } if self.active_is_serving() => *until,
            Work::Probation { until, .. } => until.plus(PROBATION_GRACE),
            Work::Trial { until, .. } => *until,
            Work::Staging { .. } | Work::Warming { .. } => {
                expiry.min(self.state.step_since.plus(self.identity.patience))
            }
            Work::None | Work::AwaitingStatement | Work::Fetching { .. } | Work::Staged { .. } => expiry,
        })
    }

    /// Takes up an unfinished update where the record left it.
    pub(super) fn resume(&mut self, now: Now, effects: &mut Effects) {
        self.break_crash_loop(effects);
        let Some(attempt) = &mut self.state.record.attempt else {
            return;
        };
        self.state.attempt_since = now.elapsed;
        bound(attempt, now);
        match attempt.progress {
            Progress::Assigned | Progress::Staged if self.state.record.sideload.is_some() => {
                self.resume_sideload(effects);
            }
            Progress::Assigned | Progress::Staged => {
                self.state.work = Work::AwaitingStatement;
                effects.push(Effect::FetchStatement(attempt.target.clone()));
            }
            Progress::Probation => {
                let until = now.elapsed.plus(attempt.probation.duration);
                self.state.work = Work::Probation { until, deaths: 0 };
            }
        }
    }

    pub(super) fn tick(&mut self, now: Now, effects: &mut Effects) {
        if let Some(at) = self.resume_at {
            if now.elapsed < at {
                return;
            }
            self.resume_at = None;
            self.state.workers.retain(|_, worker| !matches!(worker, Worker::Starting { .. }));
            self.resume(now, effects);
            effects.push(Effect::AskAssignment);
        }
        if !self.state.healthy && self.identity.crash_policy.window <= now.elapsed {
            self.state.healthy = true;
            effects.push(Effect::ForgetStarts);
        }
        self.end_hold(now, effects);
        self.end_late_starts(now, effects);
        if self.work_ends(now).is_some_and(|end| end <= now.elapsed) {
            self.end_work(now, effects);
        }
    }

    /// The time of the present step is over.
    fn end_work(&mut self, now: Now, effects: &mut Effects) {
        match &self.state.work {
            Work::Probation { .. } if self.active_is_serving() => self.commit(effects),
            Work::Probation { .. } => {
                let detail = Detail::new("it did not answer at the end of its probation");
                self.take_back(Reason::TooSlow(detail), effects);
            }
            Work::Trial { .. } => self.end_trial(effects),
            Work::Staging { .. } | Work::Warming { .. }
                if self.state.step_since.plus(self.identity.patience) <= now.elapsed =>
            {
                self.abandon(Reason::TooSlow(Detail::new("unpacking or proving it")), effects);
            }
            Work::None
            | Work::AwaitingStatement
            | Work::Fetching { .. }
            | Work::Staging { .. }
            | Work::Staged { .. }
            | Work::Warming { .. } => {
                let reason = self.out_of_time();
                self.abandon(reason, effects);
            }
        }
    }

    /// Workers that neither came up nor failed.
    fn end_late_starts(&mut self, now: Now, effects: &mut Effects) {
        let late = |worker: &Worker| matches!(worker, Worker::Starting { since, .. } if since.plus(self.identity.patience) <= now.elapsed);
        let late: Vec<_> =
            self.state.workers.iter().filter(|(_, worker)| late(worker)).map(|(of, _)| *of).collect();
        for statement in late {
            effects.push(Effect::Stop(statement));
            let reason = Reason::TooSlow(Detail::new("its worker neither came up nor failed"));
            self.not_warmed(now, statement, reason, effects);
        }
    }
}

/// No order keeps a device busy for longer than its own bounds.
pub(super) fn bound(attempt: &mut Attempt, now: Now) {
    attempt.expires = attempt.expires.min(now.wall.plus(MAX_ATTEMPT));
    attempt.probation.duration = attempt.probation.duration.min(MAX_PROBATION);
}
