//! The gateway's bounds in one place.

use std::time::Duration;

use crate::telemetry::answers::{DEFAULT_LIFE, DEFAULT_REQUESTS};

/// How much and how long the gateway lets its callers take. Tests shorten the times; the agent runs
/// with the defaults.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Requests being read or answered. Twice the worker's queue: beyond that they would only wait to be
    /// refused there.
    pub in_flight: usize,
    /// Bytes of one request body: a batch of 4,096 rows of 64 values, each written with 30 digits.
    pub body: usize,
    /// Bytes of all request bodies held together, which is what the callers can make the supervisor hold.
    pub bodies: usize,
    /// Bytes of all answers together that are not yet read, as much as of bodies: with these it is what callers can make
    /// the supervisor hold. An answer that is larger goes alone.
    pub unread: usize,
    /// Connections per listener. Each may hold a read buffer of [`Limits::buffer`].
    pub connections: usize,
    /// Bytes of a connection's read buffer, and so of a request's headers.
    pub buffer: usize,
    /// Time for a request's headers, and for an idle connection to say something.
    pub header: Duration,
    /// Time for a whole request body.
    pub receive: Duration,
    /// Time a caller may leave an answer lying, and [`super::patience::RATE`] on top for what he reads of it.
    pub send: Duration,
    /// Time for connections to end when the agent stops.
    pub drain: Duration,
    /// Time a request waits for another release after its worker died: a warm one takes over in
    /// milliseconds, a cold one of usual size has loaded by then.
    pub takeover: Duration,
    /// Requests whose predictions are remembered until the truth becomes known.
    pub answers: usize,
    /// How long each is.
    pub answers_for: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            in_flight: 128,
            body: 8 << 20,
            bodies: 32 << 20,
            unread: 32 << 20,
            connections: 128,
            buffer: 64 << 10,
            header: Duration::from_secs(30),
            receive: Duration::from_secs(30),
            send: Duration::from_secs(30),
            drain: Duration::from_secs(5),
            takeover: Duration::from_secs(2),
            answers: DEFAULT_REQUESTS,
            answers_for: Duration::from_millis(DEFAULT_LIFE.0),
        }
    }
}
