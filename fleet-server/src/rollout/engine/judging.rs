//! What a look needs, and who in it stands for what.

use std::collections::BTreeSet;

use serin_protocol::ids::TargetClass;

use super::super::evidence::{DeviceEvidence, Evidence, EvidenceWanted};
use super::super::gate::{Look, Member};
use super::super::verdict::Judgement;
use super::{
    BEFORE, DeviceId, DeviceRecord, Digest, Purpose, ReleaseId, Rollout, Standing, Tally, UnixMillis,
};

pub(super) enum Arm {
    Canary,
    Control,
}

impl Rollout {
    /// Reports from here on may still be asked for.
    pub const fn looks_back_to(&self) -> UnixMillis {
        UnixMillis(self.started.0.saturating_sub(BEFORE.0))
    }

    /// What a look now would need; `None` when the rollout is past looking.
    pub fn evidence_wanted(&self) -> Option<EvidenceWanted> {
        self.state.is_forward().then(|| EvidenceWanted {
            stage: self.stage.index,
            look: self.stage.looks,
            since: self.stage.entered,
            before: (self.looks_back_to(), self.started),
            shadow: matches!(self.plan.purpose(self.stage.index), Purpose::Shadow(_)),
            release: self.release.id.clone(),
            baselines: self.baselines.iter().map(|baseline| baseline.id.clone()).collect(),
        })
    }

    /// Judges evidence collected for [`Self::evidence_wanted`]; changes nothing. The answer goes back in as
    /// [`RolloutEvent::Judged`], so that what is stored is the numbers that decided, not the sketches.
    pub fn judge(&self, evidence: &Evidence) -> Judgement {
        let tally = self.fleet.tally();
        let changing = matches!(self.plan.purpose(self.stage.index), Purpose::Allocate(_));
        let (mut canary, mut control) = (Vec::new(), Vec::new());
        for device in &evidence.devices {
            match self.fleet.get(&device.device) {
                Some(record) if !record.pinned && is_sane(device) => {
                    match self.arm(record, &device.release, changing) {
                        Some(Arm::Canary) => canary.push((record, device)),
                        Some(Arm::Control) => control.push((record, device)),
                        None => {}
                    }
                }
                Some(_) | None => {}
            }
        }
        let shadowing = |device: &DeviceId| {
            let record = self.fleet.get(device);
            record.is_some_and(|record| matches!(record.standing, Standing::Shadowing { .. }))
        };
        let kinds = kinds(canary.iter().chain(&control).map(|(record, _)| *record));
        Look {
            plan: &self.plan,
            stages: &self.stages,
            stage: self.stage.index,
            looks: self.stage.looks,
            seed: self.seed(),
            canary: one_per_device(canary, &kinds),
            control: one_per_device(control, &kinds),
            shadows: evidence.shadows.iter().filter(|shadow| shadowing(&shadow.device)).collect(),
            crashed: self.crashed,
            baked: self.is_baked(),
            canary_reachable: self.expected_to_report(),
            canary_running: tally.running,
            control_reachable: tally.waiting.saturating_sub(tally.waiting_offline),
            control_waiting: tally.waiting,
            shadowing: tally.shadowing,
        }
        .judge()
    }

    pub(super) fn arm(&self, record: &DeviceRecord, release: &ReleaseId, changing: bool) -> Option<Arm> {
        let exposed = record.standing.is_exposed();
        if *release == self.release.id {
            // As assigned: what a device showed before it failed counts.
            return (changing || exposed).then_some(Arm::Canary);
        }
        let baseline = self.baselines.iter().any(|baseline| baseline.id == *release);
        (baseline && (changing || !exposed)).then_some(Arm::Control)
    }

    /// The same for the same look of the same rollout, different for every other.
    fn seed(&self) -> u64 {
        let text = format!("{}/{}/{}/{}", self.salt.0, self.id, self.stage.index, self.stage.looks);
        Digest::of(text.as_bytes()).0.iter().take(8).fold(0, |value, byte| value << 8 | u64::from(*byte))
    }

    /// Devices that run the release or may still come to.
    fn expected_to_report(&self) -> u32 {
        let tally = self.fleet.tally();
        let Tally { unreachable, skipped, failed, returning, returned, not_returned, .. } = tally;
        let gone = [unreachable, skipped, failed, returning, returned, not_returned];
        gone.into_iter().fold(tally.exposed, u32::saturating_sub)
    }
}

/// Sketches that cannot have come from counting are not evidence.
fn is_sane(device: &DeviceEvidence) -> bool {
    let outputs = [&device.predictions, &device.confidence];
    device.features.iter().chain(outputs).all(serin_protocol::sketch::Histogram::is_sane)
}

/// The kinds of devices in both arms, by name: comparisons are within them.
fn kinds<'a>(records: impl Iterator<Item = &'a DeviceRecord>) -> BTreeSet<&'a TargetClass> {
    records.map(|record| &record.traits.target).collect()
}

/// In the order of the line, which is random; of a device that ran several baselines, the longest.
fn one_per_device<'a>(
    mut arm: Vec<(&DeviceRecord, &'a DeviceEvidence)>,
    kinds: &BTreeSet<&TargetClass>,
) -> Vec<Member<'a>> {
    arm.sort_by(|(record, a), (other, b)| {
        (record.position, &a.device).cmp(&(other.position, &b.device)).then(b.requests.cmp(&a.requests))
    });
    arm.dedup_by(|(_, a), (_, b)| a.device == b.device);
    let stratum =
        |record: &DeviceRecord| kinds.iter().position(|kind| **kind == record.traits.target).unwrap_or(0);
    arm.into_iter().map(|(record, shown)| Member { shown, stratum: stratum(record) }).collect()
}
