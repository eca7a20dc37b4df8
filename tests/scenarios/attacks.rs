//! Whoever holds broker, server and any key but the owner's cannot make a device run what its owner did not
//! release. Each test is an attack by name; the device names it too, and goes on with version 1.

mod assignments;
mod contents;
mod metadata;
mod signatures;
mod time;
