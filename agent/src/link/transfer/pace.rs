//! How fast a transfer may and must be.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use serin_protocol::ids::{ByteCount, Millis};

use crate::link::backoff::after;

/// How many chunks may be subscribed or unwritten at a time: 2 to 16.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window(u8);

impl Default for Window {
    /// 8: half a megabyte in flight fills any link a device has.
    fn default() -> Self {
        Self(8)
    }
}

impl Window {
    /// `chunks`, if it is within the bounds.
    pub const fn new(chunks: u8) -> Option<Self> {
        match chunks {
            2..=16 => Some(Self(chunks)),
            _ => None,
        }
    }

    /// The number.
    pub const fn chunks(self) -> usize {
        self.0 as usize
    }
}

/// How fast a transfer may and must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Chunks in flight.
    pub window: Window,
    /// The connected time over which the rate is averaged. Whoever hands out less holds the device back
    /// from every other release (specification of The Update Framework, section 1.5.2, "slow retrieval").
    pub patience: Millis,
    /// Bytes per second that must come on the average.
    pub slowest: ByteCount,
}

impl Pace {
    /// An hour: long enough for a server that is down to come back and publish chunks again.
    pub const PATIENCE: Millis = Millis::from_secs(3600);
    /// 1 KiB/s: the slowest radio links that carry models at all are faster, and the largest bundle would
    /// take eleven days.
    pub const SLOWEST: ByteCount = ByteCount(1024);

    /// Bytes that must come within the patience: at least one.
    pub const fn due(self) -> ByteCount {
        let due = self.slowest.0.saturating_mul(self.patience.0) / 1000;
        ByteCount(if due == 0 { 1 } else { due })
    }
}

impl Default for Pace {
    fn default() -> Self {
        Self { window: Window::default(), patience: Self::PATIENCE, slowest: Self::SLOWEST }
    }
}

/// Connected time and bytes since as many had come as are due. A new connection does not begin anew.
#[derive(Debug)]
pub(super) struct Meter {
    pace: Pace,
    /// In connections that are over.
    spent: Millis,
    /// When the present connection began, or the count within it.
    since: Option<Millis>,
    bytes: u64,
}

impl Meter {
    pub(super) const fn new(pace: Pace) -> Self {
        Self { pace, spent: Millis(0), since: None, bytes: 0 }
    }

    pub(super) fn connected(&mut self, now: Millis) {
        self.disconnected(now);
        self.since = Some(now);
    }

    pub(super) fn disconnected(&mut self, now: Millis) {
        if let Some(since) = self.since.take() {
            self.spent = after(self.spent, Millis(now.0.saturating_sub(since.0)));
        }
    }

    pub(super) fn brought(&mut self, now: Millis, bytes: u64) {
        self.bytes = self.bytes.saturating_add(bytes);
        if self.bytes >= self.pace.due().0 {
            (self.bytes, self.spent) = (0, Millis(0));
            self.since = self.since.map(|_| now);
        }
    }

    /// When what is due must have come; none while disconnected.
    pub(super) fn deadline(&self) -> Option<Millis> {
        let left = self.pace.patience.0.saturating_sub(self.spent.0);
        self.since.map(|since| after(since, Millis(left)))
    }

    pub(super) const fn bytes(&self) -> ByteCount {
        ByteCount(self.bytes)
    }
}
