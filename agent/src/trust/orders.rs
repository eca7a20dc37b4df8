//! Who may give orders and acknowledge, as far as the last complete refresh said, and when.

use serin_protocol::envelope::KeyRing;
use serin_protocol::ids::UnixMillis;
use serin_protocol::message::Detail;
use serin_protocol::trust::layout::FLEET_ROLE;
use serin_protocol::trust::{Role, Session, UtcSeconds};

/// Most keys that may sign assignments; a rotation needs two, several servers some more.
pub const MAX_FLEET_KEYS: usize = 16;

/// What the last complete refresh said about assignments.
#[derive(Clone, Debug)]
pub(super) struct Orders {
    keys: KeyRing<MAX_FLEET_KEYS>,
    /// The first of its files expires then.
    until: UtcSeconds,
}

impl Orders {
    /// What a session says whose refresh is complete; none when the fleet has too many keys.
    pub(super) fn of(session: &Session) -> Option<Self> {
        let expiries = [
            Some(session.root().expires),
            session.timestamp().map(|timestamp| timestamp.expires),
            session.snapshot().map(|snapshot| snapshot.expires),
            session.targets(&Role::Targets).map(|targets| targets.expires),
        ];
        let keys = KeyRing::new(session.delegated_keys(FLEET_ROLE).into_iter().take(MAX_FLEET_KEYS))?;
        Some(Self { keys, until: expiries.into_iter().flatten().min()? })
    }

    pub(super) const fn keys(&self) -> &KeyRing<MAX_FLEET_KEYS> {
        &self.keys
    }

    /// The keys, unless something they rest on has expired at `wall`.
    pub(super) fn keys_at(&self, wall: UnixMillis) -> Option<&KeyRing<MAX_FLEET_KEYS>> {
        (utc(wall) < self.until).then_some(&self.keys)
    }

    pub(super) fn until(&self) -> UnixMillis {
        UnixMillis(u64::try_from(self.until.0).unwrap_or(0).saturating_mul(1000))
    }

    /// An order's time becomes a floor for the clock. One from beyond the life of the metadata that names
    /// its signer would put the clock where nothing can be trusted any more.
    pub(super) fn check_issued(&self, issued: UnixMillis) -> Result<(), Detail> {
        if issued < self.until() {
            return Ok(());
        }
        let (issued, until) = (issued.0 / 1000, self.until);
        Err(Detail::new(&format!(
            "the assignment claims to be issued {issued} s after 1970, the metadata it rests on ends at {until}"
        )))
    }
}

/// Expiry is judged in whole seconds.
pub(super) fn utc(wall: UnixMillis) -> UtcSeconds {
    UtcSeconds(i64::try_from(wall.0 / 1000).unwrap_or(i64::MAX))
}
