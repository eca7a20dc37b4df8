//! Reports of many windows, merged into what one device showed about one release.

use std::collections::BTreeMap;

use serin_protocol::ids::{DeviceId, ReleaseId, UnixMillis};
use serin_protocol::message::{Report, Role};
use serin_protocol::sketch::Histogram;

use super::releases::ReleaseFacts;
use crate::rollout::evidence::{Before, DeviceEvidence, Evidence, EvidenceWanted, ShadowEvidence};
use crate::store::sums::merge;
use crate::store::{Store, StoreError};

/// The evidence wanted, one entry per device and release. Each list is in the order of the store, so that
/// merging gives the same numbers every time.
pub(super) fn gather(
    store: &dyn Store,
    wanted: &EvidenceWanted,
    facts: impl Fn(&ReleaseId) -> Option<std::sync::Arc<ReleaseFacts>>,
) -> Result<Evidence, StoreError> {
    let mut all = Vec::new();
    let mut before = BTreeMap::new();
    let (begin, end) = wanted.before;
    for release in std::iter::once(&wanted.release).chain(&wanted.baselines) {
        let Some(facts) = facts(release) else { continue };
        let mut devices = BTreeMap::new();
        store.visit_reports(release, begin.min(wanted.since), &mut |report| {
            // A shadow answers nobody, and an arm only what falls into its share.
            if report.role != Role::Answers {
                return;
            }
            if report.start >= wanted.since {
                add(&mut devices, &facts, report);
            }
            // The release itself was nowhere then, and if it was, it is not what the device did before it.
            if *release != wanted.release && is_before(report, begin, end) {
                note(before.entry(report.device.clone()).or_default(), report);
            }
        })?;
        all.extend(devices.into_values());
    }
    for shown in &mut all {
        shown.before = before.get(&shown.device).copied();
    }
    let shadows = if wanted.shadow { shadows(store, wanted)? } else { Vec::new() };
    Ok(Evidence { devices: all, shadows })
}

/// How the release did in the shadow of those that answered. A row is a pair; a request that only one of the two could
/// compute is one that they differ on.
fn shadows(store: &dyn Store, wanted: &EvidenceWanted) -> Result<Vec<ShadowEvidence>, StoreError> {
    let mut devices: BTreeMap<DeviceId, ShadowEvidence> = BTreeMap::new();
    store.visit_reports(&wanted.release, wanted.since, &mut |report| {
        let Some(comparison) = &report.comparison else { return };
        let evidence = devices.entry(report.device.clone()).or_insert_with(|| ShadowEvidence {
            device: report.device.clone(),
            pairs: 0,
            disagreements: 0,
        });
        let unlike = comparison.rows.saturating_sub(comparison.agreed).saturating_add(comparison.failed);
        evidence.pairs = evidence.pairs.saturating_add(comparison.rows).saturating_add(comparison.failed);
        evidence.disagreements = evidence.disagreements.saturating_add(unlike);
    })?;
    Ok(devices.into_values().collect())
}

fn is_before(report: &Report, begin: UnixMillis, end: UnixMillis) -> bool {
    report.start >= begin && report.end <= end
}

fn note(before: &mut Before, report: &Report) {
    before.requests = before.requests.saturating_add(report.requests);
    before.errors = before.errors.saturating_add(report.errors);
}

fn add(devices: &mut BTreeMap<DeviceId, DeviceEvidence>, facts: &ReleaseFacts, report: &Report) {
    let evidence = devices.entry(report.device.clone()).or_insert_with(|| DeviceEvidence {
        device: report.device.clone(),
        release: report.release.clone(),
        requests: 0,
        errors: 0,
        latency: serin_protocol::sketch::LatencyHistogram::default(),
        predictions: Histogram::default(),
        confidence: Histogram::default(),
        features: Vec::new(),
        before: None,
        binning: facts.binning,
    });
    evidence.requests = evidence.requests.saturating_add(report.requests);
    evidence.errors = evidence.errors.saturating_add(report.errors);
    evidence.latency.merge(&report.latency);
    merge(&mut evidence.predictions, &report.predictions);
    merge(&mut evidence.confidence, &report.confidence);
    let first = usize::from(report.first_feature);
    if evidence.features.len() < first + report.features.len() {
        evidence.features.resize(first + report.features.len(), Histogram::default());
    }
    for (mine, theirs) in evidence.features.iter_mut().skip(first).zip(&report.features) {
        merge(mine, theirs);
    }
}
