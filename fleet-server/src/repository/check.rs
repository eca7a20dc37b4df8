//! What is about to be published, read as a device would read it: nothing goes out that a device refuses.

use std::collections::BTreeMap;

use bytes::Bytes;
use serin_protocol::trust::{
    DelegatedRole, Limits, Metadata, Next, Role, Session, Snapshot, Targets, TrustError, UtcSeconds,
};
use tracing::warn;

/// Follows the roots from the first one to the newest, then snapshot, targets and every owner's metadata.
/// An owner whose metadata has expired holds up nobody else: devices refuse that owner's releases alone.
pub(super) fn as_a_device_would(
    files: &BTreeMap<String, Bytes>,
    snapshot: &Snapshot,
    now: UtcSeconds,
) -> Result<(), TrustError> {
    let first = files.get("1.root.json").ok_or(TrustError::Missing { role: Role::Root })?;
    let mut session = Session::begin(first, now, Limits::DEVICE)?;
    let newest = drive(&mut session, files)?.unwrap_or(first);
    let missing = || TrustError::Missing { role: Role::Targets };
    let targets = snapshot.meta.get("targets.json").ok_or_else(missing)?;
    let targets = files.get(&format!("{}.targets.json", targets.version)).ok_or_else(missing)?;
    let delegations = Metadata::<Targets>::parse(&Role::Targets, targets)?.signed.delegations;
    for delegated in delegations.iter().flat_map(|delegations| &delegations.roles) {
        let listed = snapshot.meta.contains_key(&format!("{}.json", delegated.name));
        let Some(path) = listed.then(|| example(delegated)).flatten() else { continue };
        // The roots were followed above; here the last one is enough.
        match look_up(newest, files, &path, now) {
            Ok(()) | Err(TrustError::UnknownTarget { .. }) => {}
            Err(TrustError::Freeze { role: role @ Role::Delegated(_), expires, .. }) => {
                warn!(%role, %expires, "published though it has expired: devices take none of its releases");
            }
            Err(refused) => return Err(refused),
        }
    }
    Ok(())
}

fn look_up(
    root: &Bytes,
    files: &BTreeMap<String, Bytes>,
    path: &str,
    now: UtcSeconds,
) -> Result<(), TrustError> {
    let mut session = Session::begin(root, now, Limits::DEVICE)?;
    drive(&mut session, files)?;
    session.find(path)?;
    drive(&mut session, files)?;
    session.found().map(drop)
}

/// Gives the session what it asks for; the last root it took.
fn drive<'a>(
    session: &mut Session,
    files: &'a BTreeMap<String, Bytes>,
) -> Result<Option<&'a Bytes>, TrustError> {
    let mut root = None;
    loop {
        match session.next() {
            Next::Done => return Ok(root),
            Next::Local(_) => session.local(None)?,
            Next::Fetch(fetch) => match files.get(&fetch.file_name(str::to_owned)) {
                Some(bytes) => {
                    let _ = session.fetched(bytes)?;
                    if fetch.role == Role::Root {
                        root = Some(bytes);
                    }
                }
                None => session.missing()?,
            },
        }
    }
}

/// A path that this role speaks for; none is known where hashes of paths decide.
fn example(delegated: &DelegatedRole) -> Option<String> {
    let pattern = delegated.paths.as_ref()?.first()?;
    Some(pattern.replace(['*', '?'], "x"))
}
