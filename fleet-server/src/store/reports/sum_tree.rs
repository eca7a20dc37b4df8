//! Sums of old reports in the database, by release.

use serin_protocol::ids::{ReleaseId, UnixMillis};
use sled::{Batch, Tree};

use super::super::StoreError;
use super::super::sled::{numbered, prefix};
use super::super::sums::{self, MAX_TOTAL_BYTES, Sum};
use super::super::values::{from_wire, wire};

/// All sums of a release, oldest first.
pub(super) fn of(tree: &Tree, release: &ReleaseId) -> Result<Vec<Sum>, StoreError> {
    let name = release.to_string();
    let values = tree.scan_prefix(prefix(&name)).values();
    let mut all: Vec<Sum> =
        values.map(|value| from_wire("sum of", &name, &value?)).collect::<Result<_, _>>()?;
    all.sort_by_key(|sum| (sum.start, sum.span, sum.role as u8));
    Ok(all)
}

/// The change that adds `sums`, each to what there is of it.
pub(super) fn adding(tree: &Tree, sums: Vec<Sum>) -> Result<Batch, StoreError> {
    let mut batch = Batch::default();
    for mut sum in sums {
        let key = key_of(&sum);
        if let Some(known) = tree.get(&key)? {
            sum.merge(&from_wire("sum of", &sum.release.to_string(), &known)?);
        }
        batch.insert(key, wire("sum", &sum)?);
    }
    Ok(batch)
}

/// Lets the sums of a release age as of `now`.
pub(super) fn age(tree: &Tree, release: &ReleaseId, now: UnixMillis) -> Result<(), StoreError> {
    let before = of(tree, release)?;
    let size = |sum: &Sum| wire("sum", sum).map_or(0, |bytes| bytes.len());
    let after = sums::age(before.clone(), now, size);
    if after == before {
        return Ok(());
    }
    let mut batch = Batch::default();
    before.iter().for_each(|sum| batch.remove(key_of(sum)));
    for sum in &after {
        batch.insert(key_of(sum), wire("sum", sum)?);
    }
    Ok(tree.apply_batch(batch)?)
}

/// Drops the oldest sums of all releases until the rest fits.
pub(super) fn bound(tree: &Tree) -> Result<(), StoreError> {
    let mut all = Vec::new();
    let mut total = 0_usize;
    for entry in tree {
        let (key, value) = entry?;
        total = total.saturating_add(value.len());
        let start = key.rchunks(8).next().and_then(|tail| tail.try_into().ok()).map_or(0, u64::from_be_bytes);
        all.push((start, key, value.len()));
    }
    all.sort();
    let mut batch = Batch::default();
    for (_, key, size) in all {
        if total <= MAX_TOTAL_BYTES {
            break;
        }
        batch.remove(key);
        total = total.saturating_sub(size);
    }
    Ok(tree.apply_batch(batch)?)
}

/// The start last, so that age can be read from the key.
fn key_of(sum: &Sum) -> Vec<u8> {
    let mut key = prefix(&sum.release.to_string());
    key.extend([sum.span as u8, sum.role as u8, sum.segment.0]);
    key.extend(sum.profile.0);
    numbered(&key, sum.start.0)
}
