//! What a field engineer asks of the supervisor.

use serin_protocol::enrolment::ClaimToken;
use serin_protocol::ids::{Millis, Version};
use tokio::sync::{mpsc, oneshot};

use super::reply::{FieldError, FieldReply};
use crate::disk::intake;
use crate::logs::Wanted;
use crate::trust::offline::Papers;

/// Most entries of one history: some hundred fill any screen, and JSON of them stays under 1 MB.
pub const MAX_HISTORY: usize = 1000;

/// A command.
#[derive(Debug)]
pub enum FieldCommand {
    /// How things are.
    Status,
    /// What happened, the newest first.
    History {
        /// Entries wanted, 1 to [`MAX_HISTORY`].
        limit: usize,
    },
    /// Go back to the previous release and pin it.
    Rollback {
        /// The version expected there.
        to: Option<Version>,
    },
    /// Keep what runs, whatever the fleet says.
    Pin,
    /// Follow the fleet again.
    Unpin,
    /// Take no order of the fleet for this long.
    Hold {
        /// How long.
        span: Millis,
    },
    /// How everything that this device needs is.
    Doctor,
    /// Whether every installed file is what it was.
    Verify,
    /// Become one of the fleet.
    Enroll {
        /// What the fleet gave out.
        token: ClaimToken,
    },
    /// What the agent logged.
    Logs(Wanted),
    /// How it is configured, without anything secret.
    Configuration,
    /// Install a release that is brought along.
    Sideload(Box<Sideload>),
}

/// A release on its way in.
#[derive(Debug)]
pub struct Sideload {
    /// What comes before its bundle.
    pub papers: Papers,
    /// Its bundle. Whoever drops this wants no more of it.
    pub bundle: mpsc::Receiver<intake::Piece>,
}

/// A reply, or why there is none.
pub type FieldOutcome = Result<FieldReply, FieldError>;

/// A command, who gave it, and where the answer goes. Whoever drops it unanswered makes the engineer
/// read that the agent is stopping.
#[derive(Debug)]
pub struct FieldRequest {
    /// The local user, as the kernel says.
    pub uid: u32,
    /// What he asks.
    pub command: FieldCommand,
    /// Takes the answer; he may have gone in the meantime.
    pub reply: oneshot::Sender<FieldOutcome>,
}
