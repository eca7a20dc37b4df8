//! The registry: what its owners signed, with its bundle in the object store.

use std::collections::BTreeMap;
use std::path::Path;

use serin_protocol::ids::{Digest, ReleaseId};

use super::view::ReleaseView;
use super::{Fleet, FleetError, Notice, Outgoing, display, now};
use crate::bundle::open::read_bundle;
use crate::bundle::sign::{chunk_list, matches, verify_release};
use crate::store::ReleaseRecord;

/// A release was refused.
#[derive(Debug, thiserror::Error)]
pub enum AddError {
    /// The statement is not signed by an owner this server knows, or is malformed.
    #[error("the release statement is refused: {0}")]
    Statement(String),
    /// The bundle is not what the statement says, or breaks the rules.
    #[error("the bundle is refused: {0}")]
    Bundle(String),
    /// Another bundle has this name and version.
    #[error("{0} exists already with other contents; a version is never changed, choose a new one")]
    Exists(ReleaseId),
    /// A file could not be read.
    #[error("{0}")]
    File(String),
}

impl Fleet {
    /// Adds the release whose bundle lies at `bundle` and has it published. Adding the same again
    /// changes nothing. Blocks while files are read.
    pub fn add_release(&self, bundle: &Path, statement: &[u8]) -> Result<ReleaseId, FleetError> {
        let release =
            verify_release(statement, &self.owners).map_err(|error| AddError::Statement(error.to_string()))?;
        let digest = Digest::of(statement);
        if let Some(known) = self.store.release(&release.id)? {
            if known.statement == digest || known.release == release {
                return Ok(release.id);
            }
            return Err(AddError::Exists(release.id).into());
        }
        let opened = read_bundle(bundle).map_err(|error| AddError::Bundle(error.to_string()))?;
        matches(bundle, &opened, &release).map_err(|error| AddError::Bundle(error.to_string()))?;
        let file = |error: std::io::Error| AddError::File(format!("{}: {error}", display(bundle)));
        let list = chunk_list(bundle).map_err(file)?;
        self.objects.put(list.as_slice())?;
        self.objects.put(std::fs::File::open(bundle).map_err(file)?)?;
        let record = ReleaseRecord {
            statement: digest,
            added: now(),
            published: false,
            owner: opened.manifest.owner.clone(),
            description: opened.manifest.description.clone(),
            features: opened.manifest.features().map(ToString::to_string).collect(),
            release,
        };
        self.store.put_release(&record, statement, &opened.profile_bytes)?;
        self.commit()?;
        let id = record.release.id;
        tracing::info!(release = %id, "added");
        self.notify(Notice::Release { release: id.to_string(), published: false });
        self.send(Outgoing::Publish(id.clone()));
        Ok(id)
    }

    /// Notes that devices can fetch a release.
    pub fn published(&self, id: &ReleaseId) -> Result<(), FleetError> {
        self.store.set_published(id)?;
        self.notify(Notice::Release { release: id.to_string(), published: true });
        Ok(())
    }

    /// All releases, the newest last.
    pub fn releases(&self) -> Result<Vec<ReleaseView>, FleetError> {
        let mut running: BTreeMap<ReleaseId, usize> = BTreeMap::new();
        for active in self.store.devices()?.into_iter().filter_map(|device| device.hello.active) {
            *running.entry(active).or_default() += 1;
        }
        let mut releases = self.store.releases()?;
        releases.sort_by_key(|record| record.added);
        let view = |record: ReleaseRecord| ReleaseView {
            devices: running.get(&record.release.id).copied().unwrap_or(0),
            id: record.release.id.to_string(),
            statement: record.statement,
            bundle: record.release.bundle.digest,
            size: record.release.bundle.size.0,
            memory: record.release.memory.0,
            owner: record.owner,
            description: record.description,
            targets: record.release.targets.iter().map(ToString::to_string).collect(),
            published: record.published,
            added: record.added,
        };
        Ok(releases.into_iter().map(view).collect())
    }
}
