//! Driving the rollout engine: every event is stored with the assignments it makes before any of them is
//! sent, so that folding the stored events gives the same rollout after a restart.

use std::collections::{BTreeMap, VecDeque};

use serin_protocol::assignment::{Assignment, Order, ReleaseRef};
use serin_protocol::envelope::seal_to_vec;
use serin_protocol::ids::{DeviceId, ReleaseId, RolloutId, SequenceNumber, UnixMillis};
use serin_protocol::sketch::profile::Profile;
use serin_protocol::topic::Topic;

use super::view::{GateView, RolloutDeviceView, RolloutView, VerdictView};
use super::{Fleet, FleetError, Inner, Notice, Outgoing, now, random};
use crate::rollout::cohort::Salt;
use crate::rollout::engine::Rollout;
use crate::rollout::event::{Effect, Effects, OperatorOrder, RolloutEvent, Sighting, Start, StartError};
use crate::rollout::evidence::{Binning, DeviceEvidence, EvidenceWanted};
use crate::rollout::plan::Plan;
use crate::rollout::state::{Standing, State, StateVersion};
use crate::rollout::verdict::Verdict;
use crate::store::{Assigned, StoreError, StoredRollout};

/// Verdicts kept in memory per rollout, for people; all are in the stored events.
const VERDICTS: usize = 100;
/// Looks that may follow each other within one event; each is asked for by an answer to the one before.
const MAX_LOOKS: usize = 8;

/// A rollout in memory.
#[derive(Clone, Debug)]
pub struct Live {
    engine: Rollout,
    started: UnixMillis,
    release: ReleaseRef,
    baselines: Vec<ReleaseRef>,
    verdicts: VecDeque<Verdict>,
}

/// A rollout was refused.
#[derive(Debug, thiserror::Error)]
pub enum RolloutError {
    /// The engine refused it.
    #[error(transparent)]
    Start(#[from] StartError),
    /// Devices cannot fetch the release yet.
    #[error("{0} is not published yet; wait until `serin-fleet release list` shows it as published")]
    NotPublished(ReleaseId),
    /// One rollout of a model at a time.
    #[error("rollout {0} of this model is not finished; abort it or wait")]
    Busy(RolloutId),
}

impl Live {
    fn new(start: Start) -> Result<(Self, Effects), StartError> {
        let (at, release, baselines) = (start.at, start.release.clone(), start.baselines.clone());
        let (engine, effects) = Rollout::start(start)?;
        Ok((Self { engine, started: at, release, baselines, verdicts: VecDeque::new() }, effects))
    }

    /// A rollout from what is stored: the same fold as when it happened.
    pub(super) fn replay(stored: StoredRollout) -> Result<Self, StartError> {
        let (mut live, effects) = Self::new(stored.start)?;
        live.remember(&effects);
        for (at, event) in stored.events {
            let effects = live.engine.handle(at, event);
            live.remember(&effects);
        }
        Ok(live)
    }

    fn remember(&mut self, effects: &Effects) {
        for effect in effects {
            if let Effect::Record(verdict) = effect {
                self.verdicts.push_back(verdict.clone());
                if self.verdicts.len() > VERDICTS {
                    self.verdicts.pop_front();
                }
            }
        }
    }
}

impl Fleet {
    /// Starts rolling `release` out by `plan`. What devices of the same model run now is the baseline.
    pub fn start_rollout(&self, release: &ReleaseId, plan: Plan) -> Result<RolloutId, FleetError> {
        let not_found = || FleetError::NotFound { what: "release", name: release.to_string() };
        let record = self.store.release(release)?.ok_or_else(not_found)?;
        if !record.published {
            return Err(RolloutError::NotPublished(release.clone()).into());
        }
        let mut inner = self.lock();
        let same_model = |live: &&Live| live.release.id.model == release.model && !live.engine.state().is_finished();
        if let Some((busy, _)) = inner.rollouts.iter().find(|(_, live)| same_model(live)) {
            return Err(RolloutError::Busy(*busy).into());
        }
        let at = now();
        let devices: Vec<Sighting> = self.store.devices()?.iter().map(|device| (&device.hello).into()).collect();
        let start = Start {
            id: self.store.next_rollout()?,
            plan,
            release: ReleaseRef { id: release.clone(), statement: record.statement },
            baselines: self.baselines(&devices, release)?,
            salt: Salt(random()),
            at,
            devices,
        };
        let id = start.id;
        let (live, effects) = Live::new(start.clone()).map_err(RolloutError::from)?;
        let assigned = self.assign(&mut inner, id, at, &effects)?;
        self.store.add_rollout(&start, &assigned)?;
        self.store.commit()?;
        inner.rollouts.insert(id, live);
        tracing::info!(rollout = id.0, %release, "rollout started");
        self.notify(Notice::Rollout { rollout: id, state: "running".into(), stage: 0 });
        self.carry_out(&mut inner, id, at, effects, assigned)?;
        Ok(id)
    }

    /// What the fleet runs of the same model, the most frequent first.
    fn baselines(&self, devices: &[Sighting], release: &ReleaseId) -> Result<Vec<ReleaseRef>, StoreError> {
        let mut counts: BTreeMap<&ReleaseId, usize> = BTreeMap::new();
        let others = devices.iter().filter_map(|device| device.active.as_ref());
        for active in others.filter(|active| active.model == release.model && *active != release) {
            *counts.entry(active).or_default() += 1;
        }
        let mut counts: Vec<_> = counts.into_iter().collect();
        counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        let mut baselines = Vec::new();
        for (id, _) in counts {
            if let Some(record) = self.store.release(id)? {
                baselines.push(ReleaseRef { id: id.clone(), statement: record.statement });
            }
        }
        Ok(baselines)
    }

    /// An operator's order; the new version of the state.
    pub fn order(&self, id: RolloutId, order: OperatorOrder) -> Result<StateVersion, FleetError> {
        let mut inner = self.lock();
        if !inner.rollouts.contains_key(&id) {
            return Err(FleetError::NotFound { what: "rollout", name: id.to_string() });
        }
        let reply = self.drive(&mut inner, id, now(), RolloutEvent::Operator(order))?;
        self.store.commit()?;
        match reply {
            Some(reply) => Ok(reply?),
            None => Ok(inner.rollouts.get(&id).map_or(StateVersion(0), |live| live.engine.version())),
        }
    }

    /// Lets time pass for every rollout.
    pub fn tick(&self) -> Result<(), StoreError> {
        let at = now();
        let mut inner = self.lock();
        let ids: Vec<RolloutId> = inner.rollouts.keys().copied().collect();
        for id in ids {
            let due = |live: &Live| live.engine.next_deadline().is_some_and(|deadline| deadline <= at);
            if inner.rollouts.get(&id).is_some_and(due) {
                self.drive(&mut inner, id, at, RolloutEvent::Tick)?;
            }
        }
        Ok(())
    }

    pub(super) fn tell_rollouts(&self, at: UnixMillis, event: &RolloutEvent) -> Result<(), StoreError> {
        let mut inner = self.lock();
        let ids: Vec<RolloutId> = inner.rollouts.keys().copied().collect();
        for id in ids {
            self.drive(&mut inner, id, at, event.clone())?;
        }
        Ok(())
    }

    /// One event through one engine, with the looks at evidence that it asks for.
    fn drive(
        &self,
        inner: &mut Inner,
        id: RolloutId,
        at: UnixMillis,
        event: RolloutEvent,
    ) -> Result<Option<Result<StateVersion, crate::rollout::event::Refusal>>, StoreError> {
        let mut reply = None;
        let mut next = Some(event);
        for _ in 0..MAX_LOOKS {
            let Some(event) = next.take() else { break };
            let Some(live) = inner.rollouts.get(&id) else { break };
            let mut changed = live.clone();
            let effects = changed.engine.handle(at, event.clone());
            if effects.is_empty() && changed.engine == live.engine {
                break;
            }
            changed.remember(&effects);
            let assigned = self.assign(inner, id, at, &effects)?;
            self.store.add_rollout_event(id, at, &event, &assigned)?;
            inner.rollouts.insert(id, changed);
            for effect in &effects {
                if let Effect::Reply(answer) = effect {
                    reply = Some(answer.clone());
                }
            }
            next = self.carry_out(inner, id, at, effects, assigned)?;
        }
        Ok(reply)
    }

    /// Signs the assignments among `effects`, numbering them.
    fn assign(
        &self,
        inner: &mut Inner,
        rollout: RolloutId,
        at: UnixMillis,
        effects: &Effects,
    ) -> Result<Vec<Assigned>, StoreError> {
        let mut assigned = Vec::new();
        for effect in effects {
            let Effect::Assign { device, order, expires } = effect else { continue };
            let last = inner.sequences.entry(device.clone()).or_default();
            *last = SequenceNumber(last.0 + 1);
            let assignment = Assignment {
                device: device.clone(),
                fleet: self.id.clone(),
                sequence: *last,
                rollout: Some(rollout),
                issued: at,
                expires: *expires,
                order: order.clone(),
            };
            match seal_to_vec(&assignment, &self.key) {
                Ok(sealed) => assigned.push(Assigned { device: device.clone(), sequence: *last, sealed }),
                Err(error) => tracing::error!(%device, %error, "an assignment could not be signed"),
            }
            log_order(device, order);
        }
        Ok(assigned)
    }

    /// Says what was decided; the answer to a look at evidence follows as an event.
    fn carry_out(
        &self,
        inner: &mut Inner,
        id: RolloutId,
        at: UnixMillis,
        effects: Effects,
        assigned: Vec<Assigned>,
    ) -> Result<Option<RolloutEvent>, StoreError> {
        if !assigned.is_empty() {
            // A device must never hear an order that a power cut here could unsay.
            self.store.commit()?;
        }
        for Assigned { device, sealed, .. } in assigned {
            self.send(Outgoing::Keep(Topic::Assign(device), sealed));
        }
        let mut follows = None;
        for effect in effects {
            match effect {
                Effect::Assign { .. } | Effect::Reply(_) => {}
                Effect::Gather(wanted) => {
                    let evidence = self.gather(&wanted)?;
                    if let Some(live) = inner.rollouts.get(&id) {
                        let judgement = live.engine.judge(&wanted, &evidence);
                        follows = judgement.map(|judgement| RolloutEvent::Judged(Box::new(judgement)));
                    }
                }
                Effect::Record(verdict) => {
                    tracing::info!(rollout = id.0, decision = %verdict.decision, sentence = verdict.sentence, "verdict");
                    self.notify(Notice::Verdict {
                        rollout: id,
                        decision: verdict.decision.to_string(),
                        sentence: verdict.sentence,
                    });
                }
                Effect::StateChanged { state, stage, .. } => {
                    tracing::info!(rollout = id.0, %state, stage, at = at.0, "rollout changed");
                    self.notify(Notice::Rollout { rollout: id, state: state.to_string(), stage });
                }
            }
        }
        Ok(follows)
    }

    /// What devices showed: one entry per device and release.
    fn gather(&self, wanted: &EvidenceWanted) -> Result<Vec<DeviceEvidence>, StoreError> {
        let mut evidence: BTreeMap<(ReleaseId, DeviceId), DeviceEvidence> = BTreeMap::new();
        for release in std::iter::once(&wanted.release).chain(&wanted.baselines) {
            let Some(record) = self.store.release(release)? else { continue };
            let Some(profile) = self.reference(&record.release.profile)? else { continue };
            for report in self.store.reports(release, wanted.since)? {
                if report.profile != record.release.profile {
                    continue;
                }
                let key = (release.clone(), report.device.clone());
                let entry = evidence.entry(key).or_insert_with(|| empty(&report, &profile));
                merge(entry, &report);
            }
        }
        Ok(evidence.into_values().collect())
    }

    pub(super) fn reference(
        &self,
        digest: &serin_protocol::ids::Digest,
    ) -> Result<Option<Profile>, StoreError> {
        let bytes = self.store.profile(digest)?;
        Ok(bytes.and_then(|bytes| Profile::parse(&bytes).ok()))
    }

    /// All rollouts, the oldest first.
    pub fn rollouts(&self) -> Vec<RolloutView> {
        self.lock().rollouts.iter().map(|(id, live)| view(*id, live)).collect()
    }

    /// One rollout.
    pub fn rollout(&self, id: RolloutId) -> Option<RolloutView> {
        self.lock().rollouts.get(&id).map(|live| view(id, live))
    }
}

fn empty(report: &serin_protocol::message::Report, profile: &Profile) -> DeviceEvidence {
    let over = |sketch: Option<&serin_protocol::sketch::profile::SketchProfile>| {
        sketch.map(|sketch| serin_protocol::sketch::Histogram::over_bins(&sketch.bins)).unwrap_or_default()
    };
    DeviceEvidence {
        device: report.device.clone(),
        release: report.release.clone(),
        requests: 0,
        errors: 0,
        latency: serin_protocol::sketch::LatencyHistogram::default(),
        predictions: over(profile.predictions.as_ref()),
        confidence: over(profile.confidence.as_ref()),
        features: profile.features.iter().map(|feature| over(Some(&feature.sketch))).collect(),
        binning: Binning::of(profile),
    }
}

/// Sketches with other bins than the profile's are left out: they cannot have come from this release.
fn merge(into: &mut DeviceEvidence, report: &serin_protocol::message::Report) {
    into.requests = into.requests.saturating_add(report.requests);
    into.errors = into.errors.saturating_add(report.errors);
    into.latency.merge(&report.latency);
    let _ = into.predictions.merge(&report.predictions);
    let _ = into.confidence.merge(&report.confidence);
    let mine = into.features.iter_mut().skip(usize::from(report.first_feature));
    for (mine, theirs) in mine.zip(&report.features) {
        let _ = mine.merge(theirs);
    }
}

fn log_order(device: &DeviceId, order: &Order) {
    match order {
        Order::Run { release, .. } => tracing::info!(%device, release = %release.id, "told to run"),
        Order::RollBack { from, to } => tracing::info!(%device, %from, to = %to.id, "told to roll back"),
        Order::Stay => tracing::info!(%device, "told to stay"),
    }
}

fn view(id: RolloutId, live: &Live) -> RolloutView {
    let state = live.engine.state();
    let why = match state {
        State::Running | State::Finished { .. } => None,
        State::Paused { by, .. } => Some(format!("by {by}")),
        State::Holding { why, .. } | State::AwaitingOperator { why, .. } | State::RollingBack { why, .. } => {
            Some(why.clone())
        }
    };
    let device = |(device, record): (&DeviceId, &crate::rollout::state::DeviceRecord)| RolloutDeviceView {
        device: device.clone(),
        control: record.control,
        standing: if record.pinned { "pinned" } else { standing(&record.standing) },
    };
    RolloutView {
        id,
        release: live.release.id.to_string(),
        baselines: live.baselines.iter().map(|baseline| baseline.id.to_string()).collect(),
        state: state.to_string(),
        why,
        finished: state.is_finished(),
        version: live.engine.version().0,
        stage: live.engine.stage(),
        stages: live.engine.plan().strategy.stages().iter().map(|stage| stage.share).collect(),
        started: live.started,
        devices: live.engine.devices().map(device).collect(),
        verdicts: live.verdicts.iter().map(verdict_view).collect(),
    }
}

const fn standing(standing: &Standing) -> &'static str {
    match standing {
        Standing::Waiting => "waiting",
        Standing::Installing { .. } => "installing",
        Standing::Running { .. } => "running",
        Standing::Left { .. } => "left",
        Standing::Failed { .. } => "failed",
        Standing::Unreachable { .. } => "unreachable",
        Standing::Skipped { .. } => "skipped",
        Standing::Returning { .. } => "returning",
        Standing::Returned { .. } => "returned",
        Standing::NotReturned { .. } => "not returned",
    }
}

fn verdict_view(verdict: &Verdict) -> VerdictView {
    let gates = verdict.judgement.iter().flat_map(|judgement| &judgement.gates);
    VerdictView {
        at: verdict.at,
        stage: verdict.stage,
        decision: verdict.decision.to_string(),
        sentence: verdict.sentence.clone(),
        gates: gates
            .map(|gate| GateView {
                name: gate.name.to_string(),
                verdict: gate.verdict,
                canary: gate.canary,
                control: gate.control,
                threshold: gate.threshold,
                p_value: gate.p_value,
                sentence: gate.sentence.clone(),
            })
            .collect(),
    }
}
