//! Words about a device's own conditions: what it plans to fetch and when, and what it waits for.

use core::fmt;

use serde::{Deserialize, Serialize};

use crate::ids::{ByteCount, UnixMillis};

/// Longest name of a network interface in Linux.
pub const MAX_INTERFACE_BYTES: usize = 15;

/// How a release comes to a device. A device never turns from one kind to another without a new plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TransferKind {
    /// The whole bundle, but for what is here of it.
    Full,
}

impl fmt::Display for TransferKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full => "full transfer",
        })
    }
}

/// When something planned begins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Start {
    /// At once.
    Now,
    /// When what it waits for has come.
    Later {
        /// What stands in the way.
        why: Wait,
        /// When that is over, where it is known.
        until: Option<UnixMillis>,
    },
}

/// What stands in the way of a step, with the numbers that decided.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wait {
    /// Its window is closed.
    OutsideWindow,
    /// The link is paid by the byte.
    Metered {
        /// The interface of the default route.
        interface: heapless::String<MAX_INTERFACE_BYTES>,
    },
    /// As much was fetched today as may be in a day.
    BytesSpent {
        /// Bytes a day.
        limit: ByteCount,
    },
    /// The device runs on mains only.
    NotOnMains,
    /// The battery is low and does not charge.
    Battery {
        /// Its charge.
        percent: u8,
        /// The charge to wait for.
        needed: u8,
    },
    /// It is too hot.
    TooHot {
        /// The hottest place in the device, in °C.
        celsius: i16,
        /// What to cool down to.
        limit: i16,
    },
    /// The disk is too full.
    FreeSpace {
        /// Bytes free.
        free: ByteCount,
        /// Bytes to wait for.
        needed: ByteCount,
    },
}

impl fmt::Display for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OutsideWindow => f.write_str("its window is closed"),
            Self::Metered { interface } => write!(f, "the link over {interface} is metered"),
            Self::BytesSpent { limit } => write!(f, "the {limit} bytes of today are spent"),
            Self::NotOnMains => f.write_str("the device is not on mains"),
            Self::Battery { percent, needed } => {
                write!(f, "the battery is at {percent} %, waiting for {needed} %")
            }
            Self::TooHot { celsius, limit } => write!(f, "it is {celsius} °C hot, waiting for {limit} °C"),
            Self::FreeSpace { free, needed } => {
                write!(f, "{free} bytes of disk are free, waiting for {needed}")
            }
        }
    }
}
