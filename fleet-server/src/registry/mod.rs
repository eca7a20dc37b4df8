//! What the server publishes: objects and, above them, releases.

pub mod objects;
pub mod releases;

#[cfg(test)]
#[path = "../../tests/serve/release.rs"]
#[allow(unreachable_pub)]
pub(crate) mod made;
