//! What device and fleet server say to each other, and the arithmetic both must agree on.
//!
//! | module | what lives there |
//! |---|---|
//! | [`ids`] | names, digests and counters that cannot be confused with each other |
//! | [`topic`] | the MQTT topic grammar, both directions, with a size cap per topic |
//! | [`envelope`] | version byte, purpose, Ed25519 signature |
//! | `tag` | what shows that a device made a report in less time than a signature (feature `alloc`) |
//! | [`assignment`] | what one device is told to run |
//! | [`enrolment`] | how a device becomes one of a fleet |
//! | [`release`], [`class_needs`] | what an owner signs about a bundle; what it needs of a class of devices |
//! | [`message`] | hello, events, reports, acknowledgements |
//! | [`chunk`] | how an object is cut into retained messages, and which are here |
//! | [`sketch`] | mergeable summaries of fixed size |
//! | `trust` | who may say what a device runs: TUF metadata and its checks (feature `alloc`) |
//! | `parcel` | a release with its metadata in one file, for devices without a network (feature `alloc`) |
//! | `review` | single requests that people may look at, and what an owner allows of them (feature `alloc`) |
//! | `target` | classes of devices, and what a device lacks of its own (feature `alloc`) |
//! | `manifest`, `pipeline`, `golden`, `frame` | bundle contents and worker frames (feature `alloc`) |
//! | `raw`, `base64` | raw values as people write them; files as text (feature `alloc`) |
//!
//! Absent on purpose: I/O, clocks, randomness, tokio. Without the feature `alloc` nothing allocates.
//! Every parser of outside bytes has a size cap, refuses trailing bytes and answers any input with a
//! value or an error.
#![no_std]
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

#[cfg(feature = "alloc")]
extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod assignment;
pub mod chunk;
pub mod class_needs;
pub mod enrolment;
pub mod envelope;
pub mod ids;
pub mod kernel_feature;
pub mod message;
pub mod pause;
pub mod release;
pub mod sketch;
pub mod topic;

#[cfg(feature = "alloc")]
pub mod base64;
#[cfg(feature = "alloc")]
pub mod bundle;
#[cfg(feature = "alloc")]
pub mod frame;
#[cfg(feature = "alloc")]
pub mod golden;
#[cfg(feature = "alloc")]
pub mod manifest;
#[cfg(feature = "alloc")]
pub mod parcel;
#[cfg(feature = "alloc")]
pub mod pipeline;
#[cfg(feature = "alloc")]
pub mod raw;
#[cfg(feature = "alloc")]
pub mod review;
#[cfg(feature = "alloc")]
pub mod tag;
#[cfg(feature = "alloc")]
pub mod target;
#[cfg(feature = "alloc")]
pub mod tensor;
#[cfg(feature = "alloc")]
pub mod trust;
