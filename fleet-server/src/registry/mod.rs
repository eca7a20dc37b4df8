//! What the server publishes: objects and, above them, releases.

pub mod objects;
