//! What a broker retains: metadata, statements, chunks, and the one device's assignment.

use std::collections::HashMap;
use std::sync::Arc;

use serin_agent::trust::offline::Papers;
use serin_protocol::assignment::{Assignment, Order, Probation, ReleaseRef};
use serin_protocol::envelope::seal_to_vec;
use serin_protocol::ids::{DeviceId, Digest, FleetId, Millis, ReleaseId, SequenceNumber, UnixMillis};
use serin_protocol::parcel::{Entry, RoleName};
use serin_protocol::release::Release;
use serin_protocol::topic::{FileName, Topic};
use serin_protocol::trust::forge::{Repository, key};

use super::publisher::Published;

/// The moment at which simulations begin, in seconds since 1970.
pub const BEGIN: u64 = 1_795_000_000;

/// How long an assignment of a simulation is good for.
const VALID: Millis = Millis::from_secs(3600);

/// Retained messages.
#[derive(Clone)]
pub struct Broker {
    /// The publisher's repository, with what it lists.
    pub repository: Arc<Repository>,
    /// Seed of the key that signs assignments.
    pub fleet_key: u8,
    /// Whom the assignment is for.
    device: DeviceId,
    retained: Arc<HashMap<Topic, Vec<u8>>>,
    statements: Arc<HashMap<Digest, Release>>,
    assignment: Option<Vec<u8>>,
    sequence: u64,
}

/// The simulated device's name.
pub fn device() -> DeviceId {
    "simulated".parse().expect("a name")
}

/// Its fleet's.
pub fn fleet() -> FleetId {
    "simulation".parse().expect("a name")
}

impl Broker {
    /// A broker to which `releases` were published.
    pub fn new(repository: Repository, releases: &[Published]) -> Self {
        let (mut retained, mut statements) = (HashMap::new(), HashMap::new());
        for published in releases {
            let statement = Topic::Metadata(FileName::of_release(&published.digest));
            retained.insert(statement, published.statement.clone());
            statements.insert(published.digest, published.release.clone());
            retained.extend(published.chunks());
        }
        let mut broker = Self {
            repository: Arc::new(repository),
            fleet_key: 6,
            device: device(),
            retained: Arc::new(retained),
            statements: Arc::new(statements),
            assignment: None,
            sequence: 0,
        };
        broker.publish_metadata();
        broker
    }

    /// Signs the repository as it is now.
    pub fn publish_metadata(&mut self) {
        for (name, bytes) in self.repository.files() {
            let file = FileName::new(&name).expect("a file name");
            Arc::make_mut(&mut self.retained).insert(Topic::Metadata(file), bytes);
        }
    }

    /// What is retained under a topic.
    pub fn get(&self, topic: &Topic) -> Option<&[u8]> {
        self.retained.get(topic).map(Vec::as_slice)
    }

    /// Forgets the last chunk of a bundle.
    pub fn lose_last_chunk(&mut self, published: &Published) {
        let chunks = published.chunks();
        let (last, _) = chunks.last().expect("a bundle has chunks");
        Arc::make_mut(&mut self.retained).remove(last);
    }

    /// The metadata that goes with a release on a stick.
    pub fn papers(&self, published: &Published) -> Papers {
        let mut files = Vec::new();
        for (name, bytes) in self.repository.files() {
            let stem = name.trim_end_matches(".json");
            let entry = match stem.split_once('.') {
                Some((version, "root")) => Entry::Root(version.parse().expect("a version")),
                Some((_, "snapshot")) => Entry::Snapshot,
                Some((_, "targets")) => Entry::Targets,
                Some((_, role)) => Entry::Delegated(RoleName::new(role).expect("a file name")),
                None => Entry::Timestamp,
            };
            files.push((entry, bytes));
        }
        Papers {
            release: published.release.id.clone(),
            files,
            statement: published.statement.clone(),
            bundle: published.bundle.len() as u64,
        }
    }

    /// The signed statement of a release.
    pub fn statement(&self, digest: Digest) -> Option<&Release> {
        self.statements.get(&digest)
    }

    /// The device's assignment, sealed.
    pub fn assignment(&self) -> Option<&[u8]> {
        self.assignment.as_deref()
    }

    /// Orders the device to run a release.
    pub fn assign_run(&mut self, published: &Published) {
        let probation = Probation { duration: Millis::from_secs(60), ..Probation::default() };
        self.assign(Order::Run { release: published.reference(), probation });
    }

    /// Orders the device back.
    pub fn assign_rollback(&mut self, from: &ReleaseId, to: ReleaseRef) {
        self.assign(Order::RollBack { from: from.clone(), to });
    }

    /// Cancels what is unfinished.
    pub fn assign_stay(&mut self) {
        self.assign(Order::Stay);
    }

    fn assign(&mut self, order: Order) {
        self.sequence += 1;
        let issued = UnixMillis(BEGIN * 1000);
        let assignment = Assignment {
            device: self.device.clone(),
            fleet: fleet(),
            sequence: SequenceNumber(self.sequence),
            rollout: None,
            issued,
            expires: issued.plus(VALID),
            order,
        };
        self.put(&assignment);
    }

    /// Retains this assignment.
    pub fn put(&mut self, assignment: &Assignment) {
        self.assignment = Some(seal_to_vec(assignment, &key(self.fleet_key)).expect("sealed"));
    }

    /// The same for another device, which has not been told anything.
    #[must_use]
    pub fn for_device(&self, device: DeviceId) -> Self {
        Self { device, assignment: None, sequence: 0, ..self.clone() }
    }

    /// Whom the assignment is for.
    pub const fn device(&self) -> &DeviceId {
        &self.device
    }
}
