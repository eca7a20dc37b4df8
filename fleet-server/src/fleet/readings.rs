//! What groups of devices show, as alert rules look at it: from reports, from drift, and from what devices last did.

use std::collections::{BTreeMap, BTreeSet};

use serin_protocol::ids::{DeviceId, Millis, ReleaseId, SegmentNumber, UnixMillis};
use serin_protocol::message::{Phase, Report, Role};
use serin_protocol::sketch::{LatencyHistogram, Quality};

use super::drift::cause::Cause;
use super::drift::{Moved, Picture, named_segments};
use super::releases::profile_of;
use super::{Fleet, FleetError, State};
use crate::alert::reading::Shift;
use crate::alert::{Condition, Group, Grouping, Reading, Rule};

/// Readings by group and window.
pub type Readings = BTreeMap<(Group, Millis), Reading>;

/// Of one release: who runs it, and who went back from it, and when.
#[derive(Default)]
struct Presence {
    devices: BTreeSet<DeviceId>,
    went_back: Vec<UnixMillis>,
}

/// What readings are made of, of one report: a hundredth of it.
struct Shown {
    device: DeviceId,
    segment: SegmentNumber,
    end: UnixMillis,
    requests: u64,
    errors: u64,
    latency: LatencyHistogram,
    /// See [`right`].
    right: Option<(u64, u64)>,
}

impl Shown {
    fn of(report: &Report) -> Self {
        Self {
            device: report.device.clone(),
            segment: report.segment,
            end: report.end,
            requests: report.requests,
            errors: report.errors,
            latency: report.latency,
            right: report.quality.as_ref().and_then(right),
        }
    }
}

impl Fleet {
    /// Whatever `rules` look at, and no more.
    pub fn readings(&self, rules: &[Rule], now: UnixMillis) -> Result<Readings, FleetError> {
        let mut readings = Readings::new();
        let windows: BTreeSet<Millis> = rules.iter().map(|rule| rule.window).collect();
        let Some(longest) = windows.last().copied() else {
            return Ok(readings);
        };
        // Apart, so that the lock is let go of before drift takes it.
        let presences = presences(&self.lock(), before(now, longest));
        for (release, presence) in presences {
            let concerned: Vec<&Rule> = rules.iter().filter(|rule| rule.is_about(&release.model)).collect();
            if concerned.is_empty() {
                continue;
            }
            let looks_at_drift = |rule: &&Rule| {
                matches!(rule.when, Condition::FeatureDrift(_) | Condition::PredictionDrift(_))
            };
            let drift =
                if concerned.iter().any(looks_at_drift) { Some(self.drift(&release, now)?) } else { None };
            let mut reports: Vec<Shown> = Vec::new();
            self.store.visit_reports(&release, before(now, longest), &mut |report| {
                // A shadow's work is nobody's answers.
                if report.role != Role::Shadow {
                    reports.push(Shown::of(report));
                }
            })?;
            let segments = if concerned.iter().any(|rule| rule.by == Grouping::Segment) {
                named_segments(&profile_of(&*self.store, &self.release(&release)?.record)?)
            } else {
                Vec::new()
            };
            for window in concerned.iter().map(|rule| rule.window).collect::<BTreeSet<_>>() {
                let since = before(now, window);
                let is_by = |by| concerned.iter().any(|rule| rule.window == window && rule.by == by);
                if is_by(Grouping::Segment) {
                    for (number, name) in &segments {
                        let of_segment = reports.iter().filter(|report| report.segment == *number);
                        let mut reading = read(&presence, of_segment, since);
                        let drift = drift.as_ref().map(|drift| drift.segments.iter());
                        if let Some(drift) = drift.and_then(|mut all| all.find(|one| one.name == *name)) {
                            add_drift(&mut reading, &drift.picture);
                        }
                        if reading.requests > 0 {
                            readings.insert((Group::of_segment(&release, name), window), reading);
                        }
                    }
                }
                let mut reading = read(&presence, &reports, since);
                if let Some(drift) = &drift {
                    add_drift(&mut reading, &drift.whole);
                }
                if is_by(Grouping::Owner) {
                    let of_owner = readings.entry((Group::of_owner(&release), window)).or_default();
                    of_owner.merge(reading.clone());
                }
                readings.insert((Group::of_release(&release), window), reading);
            }
        }
        Ok(readings)
    }
}

fn before(now: UnixMillis, window: Millis) -> UnixMillis {
    UnixMillis(now.0.saturating_sub(window.0))
}

/// All releases here that a device runs, or went back from since then.
fn presences(state: &State, since: UnixMillis) -> BTreeMap<ReleaseId, Presence> {
    let mut presences: BTreeMap<ReleaseId, Presence> = BTreeMap::new();
    for record in state.devices.admitted() {
        if let Some(active) = record.hello.active {
            presences.entry(active).or_default().devices.insert(record.hello.device);
        }
        if let Some(moved) = record.last_move.filter(|moved| moved.to == Phase::RolledBack)
            && moved.at >= since
        {
            presences.entry(moved.release).or_default().went_back.push(moved.at);
        }
    }
    presences.retain(|release, _| state.releases.contains_key(release));
    presences
}

/// Sums over reports whose window ends after `since`.
fn read<'a>(presence: &Presence, reports: impl IntoIterator<Item = &'a Shown>, since: UnixMillis) -> Reading {
    let mut reading = Reading {
        devices: presence.devices.len() as u64,
        rollbacks: presence.went_back.iter().filter(|at| **at >= since).count() as u64,
        ..Reading::default()
    };
    let mut reporting = BTreeSet::new();
    for report in reports.into_iter().filter(|report| report.end > since) {
        reading.requests = reading.requests.saturating_add(report.requests);
        reading.errors = reading.errors.saturating_add(report.errors);
        reading.latency.merge(&report.latency);
        reading.add_quality(report.right);
        if presence.devices.contains(&report.device) {
            reporting.insert(&report.device);
        }
    }
    reading.reporting = reporting.len() as u64;
    reading
}

/// Of predicted classes: those whose truth is known, and those of them that were right.
pub(super) fn right(quality: &Quality) -> Option<(u64, u64)> {
    match quality {
        Quality::Classes(classes) => Some((classes.labelled, classes.right)),
        Quality::Values(_) => None,
    }
}

pub(super) fn add_drift(reading: &mut Reading, picture: &Picture) {
    reading.features = picture.features.iter().map(shift).collect();
    reading.predictions = picture.predictions.iter().map(shift).collect();
}

fn shift(moved: &Moved) -> Shift {
    Shift {
        name: moved.name.clone(),
        psi: moved.distance.psi,
        moved: match moved.finding.cause {
            Cause::TooFew => None,
            Cause::Steady => Some(false),
            Cause::World | Cause::Release | Cause::Unknown => Some(true),
        },
    }
}
