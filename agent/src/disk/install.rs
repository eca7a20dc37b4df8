//! The durable steps of an update, each from beginning to end: write the record, unpack a bundle, collect
//! garbage. They block for as long as the disk takes.

use serin_protocol::ids::{Digest, EventNumber};
use serin_protocol::message::{Detail, Reason};
use serin_protocol::release::Release;

use super::boot_record::{BootStore, Loaded};
use super::partial::{Complete, PartialStore};
use super::releases::ReleaseStore;
use crate::update::record::Record;

/// Writes the boot record durably. No event below `next_event` is free.
pub fn save(boot: &mut BootStore, mut record: Record, next_event: EventNumber) -> Result<(), Reason> {
    record.event_floor = next_event;
    boot.save(&record.encode()).map(drop).map_err(|error| Reason::Storage(Detail::new(&error.to_string())))
}

/// Unpacks and checks `release`, whose statement has the digest `statement`. Without a fetched bundle it must
/// be here already. The bundle is removed whatever comes of it: a sound one is not needed any more.
pub fn stage(
    store: &ReleaseStore,
    fetched: Option<Complete>,
    release: &Release,
    statement: Digest,
) -> Result<(), Reason> {
    let path = fetched.as_ref().map(|bundle| bundle.path().to_owned()).unwrap_or_default();
    let outcome = store.stage(&path, release, statement).map(drop);
    if let Some(Err(error)) = fetched.map(Complete::remove) {
        tracing::warn!(%error, "the unpacked bundle could not be removed");
    }
    outcome.map_err(|error| error.reason())
}

/// Removes at start what a cut has left behind, or brought back: what no slot names, and partial downloads.
///
/// Not while an update is unfinished, whose download is worth keeping; and not when a copy of the boot record
/// could not be read: what the other does not name may be wanted again.
pub fn tidy(store: &ReleaseStore, partials: &PartialStore, record: &Record, loaded: &Loaded) {
    if loaded.is_readable() && record.attempt.is_none() {
        collect(store, partials, &record.named(), true);
    }
}

/// Removes every release but those named in `keep`; with `idle`, when nothing is being fetched, partial
/// downloads too. What cannot be removed now is left to the next collection.
pub fn collect(store: &ReleaseStore, partials: &PartialStore, keep: &[Digest], idle: bool) {
    match store.remove_except(keep) {
        Ok(removed) => tracing::debug!(?removed, "collected"),
        Err(error) => tracing::warn!(%error, "old releases could not be removed"),
    }
    if idle && let Err(error) = partials.keep_only(&[]) {
        tracing::warn!(%error, "old partial downloads could not be removed");
    }
}
