//! What follows from every step, whatever it was: an unproven release that answers is watched, and each write of
//! the boot record names what is to be said about it.

use serin_protocol::assignment::Probation;
use serin_protocol::message::Phase;

use super::{Machine, Work};
use crate::update::effect::{Effect, Effects, Now};
use crate::update::record::{Attempt, Progress, Standing, Telling, Tellings};

impl Machine {
    /// A release whose probation was cut short by an update that came to nothing begins another one, of the default
    /// length: what the order said about the first went with it.
    pub(super) fn watch_unproven(&mut self, now: Now, effects: &mut Effects) {
        let record = &mut self.state.record;
        let Some(active) = record.active.as_ref().filter(|slot| slot.standing == Standing::Unproven) else {
            return;
        };
        if record.attempt.is_some() || record.safe_mode {
            return;
        }
        let probation = Probation::default();
        let until = now.elapsed.plus(probation.duration);
        let release = active.release.clone();
        record.attempt = Some(Attempt {
            sequence: record.accepted,
            rollout: None,
            target: active.reference(),
            probation,
            // It answers already.
            expires: now.wall,
            progress: Progress::Probation,
        });
        self.state.attempt_since = now.elapsed;
        self.state.work = Work::Probation { until, deaths: 0 };
        self.persist(effects);
        self.report_move(release, Phase::Idle, Phase::Probation, None, effects);
    }

    /// Writes into each record that is to be persisted what is said after it and before the next one, so that a
    /// start after a power cut can tell what was not said.
    pub(super) fn note_tellings(&mut self, effects: &mut Effects) {
        let mut tellings = Tellings::new();
        for effect in effects.iter_mut().rev() {
            match effect {
                Effect::Report { sequence, rollout, kind } => {
                    let telling = Telling { sequence: *sequence, rollout: *rollout, kind: kind.clone() };
                    // From the last to the first; more than fit are not said again.
                    if tellings.is_full() {
                        tellings.pop();
                    }
                    let _ = tellings.insert(0, telling);
                }
                Effect::Persist(record) => {
                    record.tellings = std::mem::take(&mut tellings);
                }
                _ => {}
            }
        }
        let last = effects.iter().rev().find_map(|effect| match effect {
            Effect::Persist(record) => Some(record.tellings.clone()),
            _ => None,
        });
        if let Some(last) = last {
            self.state.record.tellings = last;
        }
    }
}
