//! A release that is tried beside the one that answers: what it did there.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use serin_protocol::ids::ReleaseId;
use serin_protocol::message::{Comparison, Role};

use super::Recorder;
use crate::telemetry::comparison::{Comparing, Made};

impl Recorder {
    /// The release is tried from now on beside `with`, which answers; what it did before is in the reports that
    /// [`Recorder::cut`] makes first. Until it [leaves](Recorder::leave).
    pub fn enter_trial(&mut self, role: Role, with: ReleaseId) {
        self.enter();
        self.role = role;
        self.comparing = (role == Role::Shadow).then(|| Comparing::new(Comparison::new(with)));
    }

    /// The trial is over; [`Recorder::cut`] first.
    pub fn leave_trial(&mut self) {
        self.leave();
        self.role = Role::Answers;
        self.comparing = None;
    }

    /// What it made of a request, and what the release that answers had made of it.
    pub fn compared(&mut self, live: Made<'_>, shadow: Made<'_>) {
        if let Some(comparing) = &mut self.comparing {
            comparing.computed(live, shadow);
        }
    }

    /// A request that was answered could not be computed by it.
    pub const fn not_compared(&mut self) {
        if let Some(comparing) = &mut self.comparing {
            comparing.failed();
        }
    }

    /// A request was not given to it, because it was still computing the one before.
    pub const fn not_mirrored(&mut self) {
        if let Some(comparing) = &mut self.comparing {
            comparing.dropped();
        }
    }
}
