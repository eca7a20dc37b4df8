//! The fleet as operators and devices see it: one place that changes things, in one order: work out, store,
//! make durable, and only then say so.
//!
//! Everything that changes goes through [`Fleet::change`]; a message of a device, an operator's word and
//! the passing of time differ only in what they work out. Should the store fail, memory may be ahead of
//! the disk: the server then stops, and goes on from the disk when it is started again.

pub mod alerts;
mod assignments;
mod clearing;
mod deciding;
pub mod devices;
pub mod drift;
pub mod enrolment;
pub mod evidence;
pub mod feed;
pub mod metrics;
pub mod pause;
pub mod readings;
pub mod releases;
mod reports;
pub mod retention;
pub mod revocation;
pub mod rollouts;
mod roster;
pub mod samples;
pub mod secrets;
pub mod tags;
pub mod trials;
pub mod triggers;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use ed25519_dalek::SigningKey;
use serin_protocol::enrolment::TokenId;
use serin_protocol::envelope::{PublicKey, SealError, seal_to_vec};
use serin_protocol::ids::{
    DeviceId, EventNumber, FleetId, Millis, ReleaseId, RolloutId, SequenceNumber, UnixMillis,
};
use serin_protocol::message::Ack;
use serin_protocol::topic::Topic;
use serin_protocol::trust::{Key, KeyName};
use tokio::sync::{broadcast, watch};
use tracing::{error, warn};

use crate::broker::publish::Job;
use crate::broker::revoked::Revoked;
use crate::registry::objects::ObjectStore;
use crate::registry::releases::Listed;
use crate::rollout::event::{Refusal, StartError};
use crate::store::{Store, StoreError, TokenRecord};
use alerts::{AlertParts, Alerts};
use clearing::Clearings;
use enrolment::Policy;
use feed::Happening;
use metrics::Metrics;
use releases::ReleaseFacts;
use rollouts::Live;
use roster::Roster;
use samples::{ReviewParts, Samples};
use triggers::Triggers;

/// What a fleet is made of.
pub struct FleetParts {
    /// Its name.
    pub id: FleetId,
    /// Sign assignments and acknowledgements, the newest last: the one that the published metadata names.
    pub signers: Vec<SigningKey>,
    /// Which keys it names.
    pub named: Box<Named>,
    /// Whether an owner's signed metadata lists a release.
    pub listed: Box<Listed>,
    /// Who is taken in.
    pub policy: Policy,
    /// Told who is cut off.
    pub revoked: Arc<Revoked>,
    /// Where everything is kept.
    pub store: Arc<dyn Store>,
    /// Where bundles are kept.
    pub objects: Arc<ObjectStore>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Takes what is to be sent; must not wait.
    pub outlet: Outlet,
    /// Who is alerted of what.
    pub alerts: AlertParts,
    /// How review samples are kept.
    pub review: ReviewParts,
    /// How long reports stay as they came.
    pub raw_reports: Millis,
}

/// Names of the keys that sign for the fleet, as published; none before.
pub type Named = dyn Fn() -> Vec<KeyName> + Send + Sync;

/// Takes what is to be sent.
pub type Outlet = Box<dyn Fn(Outgoing) + Send + Sync>;

/// Something to be sent. What is lost on the way is said again when its device speaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outgoing {
    /// A message.
    Message {
        /// Where.
        topic: Topic,
        /// What.
        payload: Bytes,
        /// Whether the broker keeps it.
        retain: bool,
    },
    /// Something for the publisher.
    Publish(Job),
    /// What the broker keeps on these topics is to go; [`Fleet::cleared`] is to be told when it has.
    Clear {
        /// Of whom.
        device: DeviceId,
        /// Since when.
        since: UnixMillis,
        /// Where.
        topics: Vec<Topic>,
    },
}

/// A fleet could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum FleetError {
    /// There is no such thing.
    #[error("there is no {0}")]
    NotFound(String),
    /// Not possible as things are.
    #[error("{0}")]
    Conflict(String),
    /// The rollout refuses the order.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The plan or the fleet does not allow a rollout.
    #[error(transparent)]
    Start(#[from] StartError),
    /// An alert rule is refused.
    #[error(transparent)]
    Rule(#[from] crate::alert::RuleError),
    /// An order about a trigger is refused.
    #[error(transparent)]
    Trigger(#[from] crate::trigger::TriggerError),
    /// Something about a sample is refused.
    #[error(transparent)]
    Review(#[from] crate::review::ReviewError),
    /// A sample cannot be sealed or opened.
    #[error("a sample: {0}")]
    Sample(#[from] crate::review::SealFault),
    /// A silence is refused.
    #[error(transparent)]
    Silence(#[from] crate::alert::SilenceError),
    /// The release is refused.
    #[error(transparent)]
    Release(#[from] crate::registry::releases::ReleaseError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A message is larger than its kind may be.
    #[error("cannot be signed: {0}")]
    Seal(#[from] SealError),
    /// There is nothing to sign with.
    #[error("the server has no key for its fleet")]
    NoKey,
    /// There is no randomness.
    #[error("no randomness: {0}")]
    Random(getrandom::Error),
}

/// One fleet.
pub struct Fleet {
    id: FleetId,
    signers: Vec<SigningKey>,
    named: Box<Named>,
    listed: Box<Listed>,
    policy: Policy,
    revoked: Arc<Revoked>,
    store: Arc<dyn Store>,
    objects: Arc<ObjectStore>,
    metrics: Arc<Metrics>,
    outlet: Outlet,
    feed: broadcast::Sender<Happening>,
    failed: watch::Sender<bool>,
    state: Mutex<State>,
    alerts: Alerts,
    triggers: Triggers,
    samples: Samples,
    raw_reports: Millis,
}

/// What is kept in memory, always what the store has.
struct State {
    devices: Roster,
    /// The number of the last assignment made for each; the assignments themselves are read when they are said again.
    assigned: BTreeMap<DeviceId, SequenceNumber>,
    /// Of a device whose events arrive with a gap: the first number behind it.
    gaps: BTreeMap<DeviceId, EventNumber>,
    releases: BTreeMap<ReleaseId, Arc<ReleaseFacts>>,
    rollouts: BTreeMap<RolloutId, Live>,
    tokens: BTreeMap<TokenId, TokenRecord>,
    /// Of devices that were cut off, forgotten since or not.
    revoked_keys: BTreeSet<PublicKey>,
    clearings: Clearings,
}

/// A message of a device.
#[derive(Clone, Debug)]
pub struct Message {
    /// Where it came.
    pub topic: Topic,
    /// What it says.
    pub payload: Bytes,
    /// How it came.
    pub delivery: Delivery,
}

/// How a message came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// Just said.
    Live,
    /// Kept by the broker from before this session.
    Kept,
    /// Kept from before the broker was started, as far as can be told: its sender's connection is over. A device that was
    /// quicker to connect than the server itself cannot be told from it.
    Earlier,
}

/// What one change leads to once it is durable.
#[derive(Default)]
struct Draft {
    outgoing: Vec<Outgoing>,
    happenings: Vec<Happening>,
    acknowledge: BTreeSet<DeviceId>,
    /// Rollouts that want evidence.
    gather: BTreeSet<RolloutId>,
}

impl Draft {
    fn say(&mut self, topic: Topic, payload: Vec<u8>, retain: bool) {
        self.outgoing.push(Outgoing::Message { topic, payload: payload.into(), retain });
    }
}

impl Fleet {
    /// Takes up the fleet where the store has it.
    pub fn open(parts: FleetParts) -> Result<Self, FleetError> {
        let FleetParts {
            id,
            signers,
            named,
            listed,
            policy,
            revoked,
            store,
            objects,
            metrics,
            outlet,
            alerts,
            review,
            raw_reports,
        } = parts;
        let devices = Roster::of(&store.devices()?)?;
        let assigned = store.assignments()?.into_iter().map(|assigned| (assigned.device, assigned.sequence));
        let assigned = assigned.collect();
        let releases = releases::load(&*store)?;
        let rollouts = rollouts::load(&*store)?;
        let tokens = store.tokens()?.into_iter().map(|token| (token.id, token)).collect();
        let mut revoked_keys: BTreeSet<PublicKey> =
            store.revoked_keys()?.into_iter().map(|revoked| revoked.key).collect();
        for record in devices.records().filter(|record| record.revoked.is_some()) {
            revoked.insert(record.hello.device);
            revoked_keys.insert(record.key);
        }
        let gaps = BTreeMap::new();
        let samples = Samples::open(review, &*store)?;
        let triggers = Triggers::open(alerts.triggers.clone(), &*store)?;
        let alerts = Alerts::open(alerts, &*store)?;
        let clearings = Clearings::open(&*store)?;
        let state = State { devices, assigned, gaps, releases, rollouts, tokens, revoked_keys, clearings };
        Ok(Self {
            id,
            signers,
            named,
            listed,
            policy,
            revoked,
            store,
            objects,
            metrics,
            outlet,
            feed: broadcast::channel(feed::BACKLOG).0,
            failed: watch::channel(false).0,
            state: Mutex::new(state),
            alerts,
            triggers,
            samples,
            raw_reports,
        })
    }

    /// Its name.
    pub fn id(&self) -> &FleetId {
        &self.id
    }

    /// The key that devices must trust for assignments.
    pub fn key(&self) -> Result<PublicKey, FleetError> {
        self.signer().map(PublicKey::of)
    }

    /// The newest key that the published metadata names; before there is any, the newest.
    fn signer(&self) -> Result<&SigningKey, FleetError> {
        let named = (self.named)();
        let is_named = |key: &&SigningKey| named.contains(&Key::ed25519(&PublicKey::of(key)).name());
        self.signers.iter().rev().find(is_named).or(self.signers.last()).ok_or(FleetError::NoKey)
    }

    /// What is counted.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// All counts as text.
    pub fn metrics_text(&self) -> String {
        self.metrics.devices(self.lock().devices.census());
        self.metrics.alerts(&self.alert_standings(crate::serve::now()).firing);
        self.metrics.text()
    }

    /// Where bundles are kept.
    pub fn objects(&self) -> &Arc<ObjectStore> {
        &self.objects
    }

    /// Everything that happens from now on.
    pub fn watch(&self) -> broadcast::Receiver<Happening> {
        self.feed.subscribe()
    }

    /// Returns when the store has failed: the server must stop.
    pub async fn store_failed(&self) {
        let mut failed = self.failed.subscribe();
        // The sender lives as long as `self`.
        let _ = failed.wait_for(|failed| *failed).await;
    }

    /// Works out a change, makes it durable, then says so.
    fn change<T>(
        &self,
        now: UnixMillis,
        work_out: impl FnOnce(&mut State, &mut Draft) -> Result<T, FleetError>,
    ) -> Result<T, FleetError> {
        let (answer, gather) = {
            let mut draft = Draft::default();
            let mut state = self.lock();
            let answer = work_out(&mut state, &mut draft).and_then(|answer| {
                self.acknowledge(&state, &mut draft)?;
                Ok(answer)
            });
            // What was stored before an error is said too: devices must not wait for it.
            if let Err(error) = self.durable(&answer) {
                self.fail(&error);
                return Err(error.into());
            }
            for outgoing in draft.outgoing {
                (self.outlet)(outgoing);
            }
            for happening in draft.happenings {
                // Nobody watches: then nobody misses it.
                let _ = self.feed.send(happening);
            }
            (answer, draft.gather)
        };
        for rollout in gather {
            self.judge(now, rollout)?;
        }
        answer
    }

    fn durable<T>(&self, answer: &Result<T, FleetError>) -> Result<(), StoreError> {
        if let Err(FleetError::Store(error)) = answer {
            return Err(StoreError::Failed(error.to_string()));
        }
        self.store.commit()
    }

    fn fail(&self, error: &StoreError) {
        error!(%error, "the store failed; the server stops and goes on from what is stored when started again");
        self.failed.send_replace(true);
    }

    fn acknowledge(&self, state: &State, draft: &mut Draft) -> Result<(), FleetError> {
        for device in std::mem::take(&mut draft.acknowledge) {
            if let Some(record) = state.devices.get(&device) {
                let ack = Ack { device: device.clone(), stored: record.last_event };
                draft.say(Topic::Ack(device), seal_to_vec(&ack, self.signer()?)?, false);
            }
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn refused(&self, draft: &mut Draft, device: &DeviceId, why: &crate::ingest::Refused) {
        warn!(%device, %why, "message refused");
        self.metrics.refused(why.label());
        draft.happenings.push(Happening::Refused { device: device.clone(), why: why.to_string() });
    }
}

#[cfg(test)]
mod tests;
