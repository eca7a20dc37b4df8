//! A device without a machine: the agent's real update machine, stores, trust and transfer on a virtual disk,
//! with a broker that is a table and a clock that goes where it is told.
//!
//! What is not real here: MQTT (retained messages are handed over at once), the journal (what is reported is
//! kept in a list) and the worker (a release is up when all of its files are what its owner signed; that
//! these files do run is shown once by a real worker, see [`publisher`]).

pub mod broker;
pub mod device;
pub mod publisher;
