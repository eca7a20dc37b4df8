//! What happens, for whoever watches: the page, the command line, the log.

use serin_protocol::ids::{DeviceId, ReleaseId, RolloutId};
use serin_protocol::message::Event;

use crate::alert::Note;
use crate::rollout::state::{State, StateVersion};
use crate::rollout::verdict::Verdict;
use crate::store::DeviceRecord;
use crate::trigger::Trigger;

/// Happenings kept for a watcher that lags; one that lags further is told that it missed some.
pub const BACKLOG: usize = 1024;

/// Something happened and is stored.
#[derive(Clone, Debug)]
pub enum Happening {
    /// A device said who it is, came or went.
    Device(Box<DeviceRecord>),
    /// Something happened on a device.
    Event(Box<Event>),
    /// A release has been added, or is now with the broker.
    Release {
        /// Which.
        release: ReleaseId,
        /// Whether devices can get it.
        published: bool,
    },
    /// A rollout is in another state or stage.
    Rollout {
        /// Which.
        rollout: RolloutId,
        /// Its version from now on.
        version: StateVersion,
        /// Its state from now on.
        state: State,
        /// Index of its stage.
        stage: usize,
    },
    /// A rollout was judged.
    Verdict {
        /// Which.
        rollout: RolloutId,
        /// How.
        verdict: Box<Verdict>,
    },
    /// An alert began to ring, or is over.
    Alert(Box<Note>),
    /// Training was asked for.
    Trigger(Box<Trigger>),
    /// A message was refused.
    Refused {
        /// Whose topic it came on.
        device: DeviceId,
        /// Why.
        why: String,
    },
}
