//! Plans to begin with, for fleets of different sizes.

use serin_protocol::ids::{BasisPoints, Millis};

use super::super::notation::size::Size;
use super::{
    Canary, DriftGate, ErrorRateGate, Gates, LatencyGate, Plan, Rate, Stage, Strategy, Thousandths,
    strategy::default_control,
};

/// Below this many devices no arm of a stage reaches what a test needs.
const SMALL: usize = 100;
/// From here on telling everybody at once would be felt by the network.
const LARGE: usize = 5000;

/// The size of a fleet, as far as it changes how one decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preset {
    /// Too few devices for any test: hard guards and the operator decide.
    Small,
    /// Hundreds of devices: tests decide from the second stage on.
    Medium,
    /// Thousands: tests decide from the first stage on, and devices are told at a growing rate.
    Large,
}

impl Preset {
    /// What fits `devices`.
    pub const fn fitting(devices: usize) -> Self {
        match devices {
            0..SMALL => Self::Small,
            SMALL..LARGE => Self::Medium,
            LARGE.. => Self::Large,
        }
    }

    /// The plan.
    pub fn plan(self) -> Plan {
        match self {
            Self::Small => small(),
            Self::Medium => Plan::default(),
            Self::Large => large(),
        }
    }
}

impl core::str::FromStr for Preset {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "small" => Ok(Self::Small),
            "medium" => Ok(Self::Medium),
            "large" => Ok(Self::Large),
            _ => Err(format!("`{text}` is no preset: small, medium or large")),
        }
    }
}

fn stage(share: u16, hours: u64) -> Stage {
    Stage::of(Size::Share(BasisPoints(share)), Millis::from_secs(hours * 3600))
}

fn small() -> Plan {
    let stages = [stage(2000, 1), stage(5000, 2), stage(10_000, 1)];
    let stages = stages.map(|stage| Stage { min_devices: 3, min_requests: 500, ..stage });
    let gates = Gates {
        error_rate: Some(ErrorRateGate { hard_max: BasisPoints(1000), ..ErrorRateGate::default() }),
        latency: Some(LatencyGate { hard_share: BasisPoints(5000), ..LatencyGate::default() }),
        predictions: Some(DriftGate { hard: Some(Thousandths(1000)), ..DriftGate::default() }),
        ..Gates::default()
    };
    let strategy = Strategy::Canary(Canary { stages: stages.into(), control: BasisPoints(3000) });
    Plan { strategy, gates, ..Plan::default() }
}

fn large() -> Plan {
    let stages = vec![stage(100, 2), stage(500, 4), stage(2000, 8), stage(10_000, 1)];
    let rate = Rate {
        per_minute: 20,
        growth: Thousandths(1500),
        every: Millis::from_secs(600),
        max_per_minute: 500,
    };
    let strategy = Strategy::Canary(Canary { stages, control: default_control() });
    Plan { strategy, rate: Some(rate), ..Plan::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_preset_makes_sense() {
        for (name, devices) in [("small", 12), ("medium", 1000), ("large", 50_000)] {
            let preset: Preset = name.parse().expect("known");
            assert_eq!(preset.plan().check(), Ok(()), "{name}");
            assert_eq!(Preset::fitting(devices), preset);
        }
    }
}
