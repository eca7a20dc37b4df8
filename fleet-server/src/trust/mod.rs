//! The publisher's side of trust, on the machines that hold the offline keys: a folder with the repository's
//! metadata, drafts that wait for signatures, and the changes that make new drafts.
//!
//! | module | what lives there |
//! |---|---|
//! | [`folder`] | metadata and drafts as files; a draft with enough signatures becomes the next version |
//! | [`change`] | what a publisher wants: begin, delegate, rotate, release, withdraw, floor |
//! | [`signing`] | signatures, merged and counted |
//! | [`difference`] | what a draft changes, for those who sign it |
//!
//! Nothing here talks to a server: a folder may be carried to another machine, signed there in part, and
//! merged.

pub mod change;
pub mod difference;
pub mod folder;
mod signing;

pub use self::change::{Expiry, Online, Rotation};
pub use self::folder::{FolderError, Standing, TrustFolder};
