//! A refresh from a file in place of the broker: the same session, the same kept files, the same floors. Plain
//! and synchronous: bytes in, what is trusted durably kept, the release or a refusal out.

use serin_protocol::ids::{Digest, ReleaseId, UnixMillis};
use serin_protocol::parcel::Entry;
use serin_protocol::release::{Release, StatementError};
use serin_protocol::trust::layout::statement_path;
use serin_protocol::trust::{Fetch, Limits, Next, Role, Session, TrustError};

use super::orders::utc;
use super::store::{TrustStore, TrustStoreError};

/// What a parcel says before its bundle. Nothing of it is believed yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Papers {
    /// The release it claims to hold.
    pub release: ReleaseId,
    /// Metadata files, as they came.
    pub files: Vec<(Entry, Vec<u8>)>,
    /// What the owner says about the bundle.
    pub statement: Vec<u8>,
    /// Bytes of the bundle that follows.
    pub bundle: u64,
}

impl Papers {
    fn file(&self, fetch: &Fetch) -> Option<&[u8]> {
        let wanted = |entry: &Entry| match (entry, fetch.version) {
            (Entry::Root(number), Some(version)) => fetch.role == Role::Root && *number == version.0.get(),
            (Entry::Root(_), None) => false,
            (entry, _) => entry.role().as_ref() == Some(&fetch.role),
        };
        self.files.iter().find(|(entry, _)| wanted(entry)).map(|(_, bytes)| bytes.as_slice())
    }
}

/// Why what was brought is not trusted.
#[derive(Debug, thiserror::Error)]
pub enum OfflineError {
    /// The metadata is refused.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// What is trusted could not be kept.
    #[error(transparent)]
    Store(#[from] TrustStoreError),
    /// Its chain of roots is not this device's.
    #[error("it comes from another publisher than the one this device trusts: {0}")]
    Foreign(TrustError),
    /// The statement is none.
    #[error(transparent)]
    Statement(#[from] StatementError),
    /// What is inside is not what it claims to be.
    #[error("it is not what it claims to be: {0}")]
    Contradiction(String),
}

impl OfflineError {
    /// What to do about it.
    pub const fn remedy(&self) -> &'static str {
        match self {
            Self::Trust(TrustError::Freeze { .. }) => {
                "export it again with `serin-fleet release export`; if it is fresh, check this device's clock"
            }
            Self::Trust(
                TrustError::Rollback { .. } | TrustError::Disappeared { .. } | TrustError::RootVersion { .. },
            ) => "this device knows newer metadata: export it again with `serin-fleet release export`",
            Self::Trust(TrustError::BelowFloor { .. } | TrustError::UnknownTarget { .. }) => {
                "its owner does not want it installed any more: export a later release"
            }
            Self::Foreign(_) => "export it from this device's own fleet, or check trust.root",
            Self::Trust(
                TrustError::EndlessData { .. }
                | TrustError::EndlessRoots { .. }
                | TrustError::Malformed { .. }
                | TrustError::Arbitrary { .. }
                | TrustError::WrongRole { .. }
                | TrustError::MixAndMatch { .. }
                | TrustError::Missing { .. }
                | TrustError::EndlessDelegations { .. }
                | TrustError::WrongTarget { .. }
                | TrustError::OutOfTurn,
            )
            | Self::Statement(_)
            | Self::Contradiction(_) => {
                "the file was damaged or changed: export it again and compare what was carried"
            }
            Self::Store(_) => "check the disk that holds the agent's data, then try again",
        }
    }
}

/// Refreshes what is trusted from `papers` and looks for their release: what its owner says of it, if he
/// lists it above every floor. What was trusted on the way stays so, whatever comes of it.
pub fn refresh(store: &mut TrustStore, wall: UnixMillis, papers: &Papers) -> Result<Release, OfflineError> {
    let foreign = is_foreign(store, papers);
    refresh_trust(store, wall, papers).map_err(|error| match error {
        OfflineError::Trust(why @ (TrustError::Arbitrary { .. } | TrustError::WrongRole { .. }))
            if foreign =>
        {
            OfflineError::Foreign(why)
        }
        other => other,
    })
}

fn refresh_trust(store: &mut TrustStore, wall: UnixMillis, papers: &Papers) -> Result<Release, OfflineError> {
    let session = Session::begin(store.root(), utc(wall), Limits::DEVICE)?;
    let mut session = session.not_below(store.root_floor().version);
    let mut searching = false;
    loop {
        match session.next() {
            Next::Local(role) => session.local(store.read(&role).as_deref())?,
            Next::Fetch(fetch) => match papers.file(&fetch) {
                Some(bytes) => {
                    let accepted = session.fetched(bytes)?;
                    store.accept(&accepted, bytes)?;
                }
                None => session.missing()?,
            },
            Next::Done if searching => break,
            Next::Done => {
                searching = true;
                session.find(&statement_path(&papers.release))?;
            }
        }
    }
    let found = session.found()?;
    session.check_floor(&found)?;
    found.check(&papers.statement)?;
    let contradiction = |text: String| Err(OfflineError::Contradiction(text));
    if found.file.sha256() != Some(Digest::of(&papers.statement)) {
        return contradiction("its owner lists the statement without its SHA-256".into());
    }
    let release = Release::parse(&papers.statement)?;
    if release.id != papers.release {
        return contradiction(format!("the statement is about {}, not {}", release.id, papers.release));
    }
    if release.bundle.size.0 != papers.bundle {
        let (listed, here) = (release.bundle.size, papers.bundle);
        return contradiction(format!("the bundle has {here} bytes, signed are {listed}"));
    }
    Ok(release)
}

/// Whether the root of the version trusted here is another one there. That alone proves nothing: the same
/// root may have been signed by one more key since.
fn is_foreign(store: &TrustStore, papers: &Papers) -> bool {
    let Ok(session) = Session::begin(store.root(), utc(UnixMillis(0)), Limits::DEVICE) else { return false };
    let version = session.root().version.0.get();
    let theirs = papers.files.iter().find(|(entry, _)| *entry == Entry::Root(version));
    theirs.is_some_and(|(_, bytes)| bytes != store.root())
}

#[cfg(test)]
#[path = "offline_tests.rs"]
mod tests;
