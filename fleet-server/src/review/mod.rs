//! Review samples on the server: the queue that people work through, pure, and the seal under which contents lie on
//! disk. Who may look at what is the fleet's and the API's affair.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

pub mod queue;
pub mod seal;

pub use queue::{Judgement, Listed, Queue, ReviewError, SampleId, Verdict, View};
pub use seal::{SampleKey, SealFault};
