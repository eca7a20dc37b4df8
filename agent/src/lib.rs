//! Serin on the device: updates, runs and watches models, and can always go back.

pub mod disk;
pub mod link;
