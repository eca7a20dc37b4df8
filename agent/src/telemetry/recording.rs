//! One release's recorder, shared by the gateway that counts and the supervisor that rolls.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serin_protocol::ids::ReleaseId;

use super::window::Recorder;

/// A shared [`Recorder`]. One per release and start of the agent, whatever workers come and go.
#[derive(Clone, Debug)]
pub struct Recording(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// Known without the recorder, for whoever must not wait for that.
    release: ReleaseId,
    recorder: Mutex<Recorder>,
}

impl Recording {
    /// Shares `recorder`.
    pub fn new(recorder: Recorder) -> Self {
        Self(Arc::new(Shared { release: recorder.release().clone(), recorder: Mutex::new(recorder) }))
    }

    /// The recorder, for a moment: never hold it across an await.
    pub fn lock(&self) -> MutexGuard<'_, Recorder> {
        // Counters stay meaningful whatever happened to another holder.
        self.0.recorder.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Model and version.
    pub fn release(&self) -> &ReleaseId {
        &self.0.release
    }

    /// Whether `other` shares the same recorder.
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}
