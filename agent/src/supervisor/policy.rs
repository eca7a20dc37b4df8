//! Looking around, so that updates go on when they may and wait when they may not; and counting what is fetched.

use jiff::tz::TimeZone;
use serin_protocol::ids::{ByteCount, Digest, Millis, UnixMillis};
use serin_protocol::message::{EventKind, Start, TransferKind};
use serin_protocol::release::Release;

use super::Supervisor;
use super::download::Notice;
use crate::conditions::Sensors;
use crate::config::{PolicyConfig, PolicyError};
use crate::disk::spent::{Found, SpentFile};
use crate::field::held_up::{Outlook, WaitingStatus};
use crate::update::effect::{Event, Now};
use crate::update::policy::budget::{Budget, Stored};
use crate::update::policy::window::local_day;
use crate::update::policy::{Conditions, Policy, Verdict, Verdicts};

/// What is allowed, and how things were when last looked at.
pub(super) struct Watch {
    policy: Policy,
    zone: TimeZone,
    sensors: Sensors,
    every: Millis,
    look_at: Millis,
    /// Windows open or close, or a day begins.
    changes_at: Option<UnixMillis>,
    conditions: Conditions,
    verdicts: Verdicts,
    budget: Budget,
    file: SpentFile,
    /// Bytes here of the download that was let go of last.
    left: Option<(Digest, ByteCount)>,
}

impl Watch {
    /// Takes up the count of today's bytes as it was left.
    pub(super) fn new(config: &PolicyConfig, file: SpentFile, now: Now) -> Result<Self, PolicyError> {
        let (policy, zone) = (config.policy()?, config.zone()?);
        // What cannot be read counts as all of a day: the operator pays for bytes, not for a day's delay.
        let all = policy.daily.map(|spent| Stored { day: local_day(now.wall, &zone), spent });
        let stored = match file.read() {
            Ok(Found::Count(stored)) => Some(stored),
            Ok(Found::Nothing) => None,
            Ok(Found::Damaged) => {
                tracing::warn!("the count of today's bytes is damaged; nothing more is fetched today");
                all
            }
            Err(error) => {
                tracing::warn!(%error, "the count of today's bytes cannot be read; nothing more is fetched today");
                all
            }
        };
        Ok(Self {
            policy,
            zone,
            sensors: Sensors::new(config.root()),
            every: config.look_every(),
            look_at: Millis(0),
            changes_at: None,
            conditions: Conditions::default(),
            verdicts: Verdicts::default(),
            budget: Budget::resume(stored),
            file,
            left: None,
        })
    }

    fn is_due(&self, now: Now) -> bool {
        let changed = self.changes_at.is_some_and(|at| at <= now.wall);
        !self.policy.is_empty() && (self.look_at <= now.elapsed || changed)
    }

    /// When to look around next, if ever.
    fn deadline(&self, now: Now) -> Option<Millis> {
        let changes = self.changes_at.map(|at| now.elapsed.plus(at.since(now.wall)));
        (!self.policy.is_empty()).then(|| changes.map_or(self.look_at, |at| at.min(self.look_at)))
    }

    /// Looks around; the verdicts if they are other than before.
    fn look(&mut self, now: Now, free: Option<ByteCount>) -> Option<Verdicts> {
        let spent = self.budget.spent(local_day(now.wall, &self.zone));
        self.conditions = self.sensors.read(free, spent);
        self.look_at = now.elapsed.plus(self.every);
        self.changes_at = self.policy.next_change(now.wall, &self.zone);
        let verdicts = self.policy.decide(now.wall, &self.zone, &self.conditions, &self.verdicts);
        let news = (verdicts != self.verdicts).then(|| verdicts.clone());
        self.verdicts = verdicts;
        news
    }

    /// Counts bytes that came. True when the day's budget is spent by them.
    fn count(&mut self, now: Now, bytes: usize) -> bool {
        let Some(daily) = self.policy.daily else { return false };
        let today = local_day(now.wall, &self.zone);
        if let Some(count) = self.budget.take(today, ByteCount(bytes as u64)) {
            match self.file.write(count) {
                Ok(()) => self.budget.stored(count),
                // Tried again with the next chunk.
                Err(error) => tracing::warn!(%error, "the count of today's bytes could not be written"),
            }
        }
        self.verdicts.fetch == Verdict::Go && self.budget.spent(today) >= daily
    }

    /// Writes the exact count, in an orderly stop.
    pub(super) fn close(&self) {
        if self.policy.daily.is_some()
            && let Err(error) = self.file.write(self.budget.exact())
        {
            tracing::warn!(%error, "the count of today's bytes could not be written");
        }
    }
}

impl Supervisor {
    /// When that is next, if ever.
    pub(super) fn policy_deadline(&self) -> Option<Millis> {
        self.watch.deadline(self.now())
    }

    /// Looks around if it is time to.
    pub(super) fn attend_policy(&mut self) {
        if self.watch.is_due(self.now()) {
            self.look_around();
        }
    }

    fn look_around(&mut self) {
        let free = self.releases.free_space().ok();
        if let Some(verdicts) = self.watch.look(self.now(), free) {
            self.feed(Event::Policy(verdicts));
        }
    }

    /// A chunk came and was dealt with. Asked for or not, it was paid for.
    pub(super) fn count_chunk(&mut self, bytes: usize) {
        if self.watch.count(self.now(), bytes) {
            self.look_around();
        }
    }

    /// A download is let go of, perhaps to go on later.
    pub(super) fn left_at(&mut self, statement: Digest, here: ByteCount) {
        self.watch.left = Some((statement, here));
    }

    /// Tells the fleet what will be fetched when it may.
    pub(super) fn plan_later(&mut self, statement: Digest, release: Box<Release>, verdict: Verdict) {
        let Verdict::Wait { why, until } = verdict else { return };
        tracing::info!(release = %release.id, %why, "fetching waits");
        let (id, size) = (release.id.clone(), release.bundle.size);
        let here = match self.watch.left {
            Some((of, here)) if of == statement => here,
            Some(_) | None => self.bytes_here(statement, release),
        };
        let fetch = ByteCount(size.0.saturating_sub(here.0));
        let start = Start::Later { why, until };
        let transfer = TransferKind::Full;
        self.report_now(EventKind::Planned { release: id, transfer, fetch, here, start });
    }

    /// What is on disk of a download that was begun before the agent started.
    fn bytes_here(&self, statement: Digest, release: Box<Release>) -> ByteCount {
        let Ok(mut download) = self.new_download(statement, release) else { return ByteCount(0) };
        // Without a session nothing is asked for; if the chunk list is here, the bundle is looked at.
        let notices = download.tick(self.now().elapsed);
        let here = notices.into_iter().find_map(|notice| match notice {
            Notice::Started { here, .. } => Some(here),
            Notice::Report(_) | Notice::Done(_) | Notice::Failed(_) => None,
        });
        here.unwrap_or_default()
    }

    /// What the unfinished update waits for.
    pub(super) fn waiting(&self) -> Option<WaitingStatus> {
        let (step, verdict) = self.machine.waiting()?;
        let Verdict::Wait { why, until } = verdict else { return None };
        Some(WaitingStatus { step: step.into(), text: why.to_string(), why: why.clone(), until: *until })
    }

    /// What the engineer's doctor is told.
    pub(super) fn outlook(&self) -> Outlook {
        let Watch { policy, conditions, verdicts, .. } = &self.watch;
        Outlook {
            is_set: !policy.is_empty(),
            waiting: self.waiting(),
            unknown: policy.unknown(conditions),
            conditions: conditions.clone(),
            daily: policy.daily,
            verdicts: verdicts.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::seam::Files;
    use serin_protocol::message::Wait;
    use std::path::Path;

    const NOON: UnixMillis = UnixMillis(1_772_452_800_000);

    fn watch(dir: &Path, now: Now) -> Watch {
        let config = "time_zone = 'UTC'\ndaily_bytes = '1MiB'\nroot = '/nowhere'\n";
        let config = toml::from_str(config).expect("a policy");
        Watch::new(&config, SpentFile::new(Files::real(), dir), now).expect("right")
    }

    #[test]
    fn what_a_day_may_fetch_is_counted_over_power_cuts_until_midnight() {
        let dir = tempfile::tempdir().expect("tempdir");
        let now = |hours: u64| {
            let since = Millis::from_secs(hours * 3600);
            Now { wall: NOON.plus(since), elapsed: since }
        };
        let mut first = watch(dir.path(), now(0));
        assert!(first.is_due(now(0)));
        assert_eq!(first.look(now(0), None), None, "nothing is held up");
        assert!(!first.is_due(now(0)), "not at every turn");
        assert!(!first.count(now(1), 700_000));
        // The plug is pulled: the count on disk is not below what came.
        let mut second = watch(dir.path(), now(2));
        assert!(second.count(now(2), 400_000), "the day is spent");
        let verdicts = second.look(now(2), None).expect("news");
        assert!(matches!(verdicts.fetch.why(), Some(Wait::BytesSpent { .. })));
        assert!(!second.count(now(2), 60_000), "what was under way is counted and no news");
        second.close();
        let mut third = watch(dir.path(), now(3));
        assert!(third.look(now(3), None).is_some());
        assert!(!third.is_due(now(3)) && third.is_due(now(12)), "midnight is looked at");
        assert_eq!(third.look(now(12), None).map(|verdicts| verdicts.fetch), Some(Verdict::Go));

        std::fs::write(dir.path().join("fetched.today"), "?").expect("damaged");
        let mut fourth = watch(dir.path(), now(13));
        assert!(fourth.look(now(13), None).is_some(), "bytes that may have been fetched count");
        assert!(fourth.look(now(36), None).is_some(), "of one day only");
    }
}
