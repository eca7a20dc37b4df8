//! The broker as its clients see it: a real MQTT client over loopback. Nothing here waits for time to
//! pass; what must not arrive is proved absent by a later message that did.

mod delivery;
mod isolation;
mod measure;
mod retained;
mod rig;
mod sessions;
