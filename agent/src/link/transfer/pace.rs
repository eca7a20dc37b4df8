//! How fast a transfer may and must be.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use serin_protocol::ids::Millis;

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
    /// Connected time within which at least one chunk must come. Whoever hands out less holds the device
    /// back from every other release (specification of The Update Framework, section 1.5.2, "slow
    /// retrieval").
    pub patience: Millis,
}

impl Pace {
    /// An hour: long enough for a server that is down to come back and publish chunks again.
    pub const PATIENCE: Millis = Millis::from_secs(3600);
}

impl Default for Pace {
    fn default() -> Self {
        Self { window: Window::default(), patience: Self::PATIENCE }
    }
}
