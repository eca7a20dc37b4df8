//! The search for one release: whether its owner lists the assigned statement, above every floor.

use serin_protocol::assignment::ReleaseRef;
use serin_protocol::ids::{Millis, ReleaseId};
use serin_protocol::trust::layout::statement_path;
use serin_protocol::trust::{Limits, Next, Role, Session, TrustError, UtcSeconds};

use super::store::TrustStore;

/// How long a release may be unknown before that is the answer: an assignment can overtake the metadata
/// that lists its release, but not by much. Longer than a withheld file is waited for, whose absence then
/// is the answer.
const PATIENCE: Millis = Millis::from_secs(20);

/// A release that is looked for.
#[derive(Clone, Debug)]
pub(super) struct Search {
    pub(super) target: ReleaseRef,
    /// Set while connected.
    until: Option<Millis>,
    /// Why it was not found yet.
    problem: Option<String>,
}

/// What trusted metadata says about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// It may be installed.
    Listed,
    /// It must not be installed.
    Refused(String),
    /// The metadata that lists it may be on its way.
    NotYet,
}

impl Search {
    pub(super) const fn new(target: ReleaseRef) -> Self {
        Self { target, until: None, problem: None }
    }

    /// Its path among the targets.
    pub(super) fn path(&self) -> String {
        statement_path(&self.target.id)
    }

    /// Patience begins anew.
    pub(super) const fn wait(&mut self, now: Millis) {
        self.until = Some(now.plus(PATIENCE));
    }

    /// Nothing can come now, so that nothing is late.
    pub(super) const fn pause(&mut self) {
        self.until = None;
    }

    pub(super) const fn deadline(&self) -> Option<Millis> {
        self.until
    }

    pub(super) fn problem(&self) -> Option<&str> {
        self.problem.as_deref()
    }

    /// Judges by a session whose search for [`Search::path`] is done.
    pub(super) fn judge(&mut self, session: &Session) -> Answer {
        let listed = session.found().and_then(|found| {
            session.check_floor(&found)?;
            Ok(found.file.sha256())
        });
        match listed {
            Ok(digest) if digest == Some(self.target.statement) => Answer::Listed,
            Ok(_) => Answer::Refused("mix-and-match: the assigned statement is not the one listed".into()),
            Err(error @ TrustError::UnknownTarget { .. }) => {
                self.problem = Some(error.to_string());
                Answer::NotYet
            }
            Err(error) => Answer::Refused(error.to_string()),
        }
    }
}

/// Why `release` is below a floor, if the metadata in `store` says so: what a device can know about a release
/// that it has already. No clock is asked, because floors only rise; what is not kept or no longer current
/// says nothing.
pub(super) fn below_floor(store: &TrustStore, release: &ReleaseId) -> Option<TrustError> {
    let mut session = Session::begin(store.root(), UtcSeconds(0), Limits::DEVICE).ok()?;
    session.missing().ok()?;
    read_kept(&mut session, store)?;
    session.find(&statement_path(release)).ok()?;
    read_kept(&mut session, store)?;
    session.check_floor(&session.found().ok()?).err()
}

/// Gives the session what is kept; none when it wants something else.
fn read_kept(session: &mut Session, store: &TrustStore) -> Option<()> {
    loop {
        match session.next() {
            Next::Local(role) => session.local(store.read(&role).as_deref()).ok()?,
            Next::Fetch(fetch) if fetch.role == Role::Timestamp => {
                let _ = session.fetched(&store.read(&Role::Timestamp)?).ok()?;
            }
            Next::Fetch(_) => return None,
            Next::Done => return Some(()),
        }
    }
}
