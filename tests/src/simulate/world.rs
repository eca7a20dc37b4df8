//! A generated fleet: devices that differ, hours that differ, devices that drop out, and a release that is
//! healthy or harmful in one way. What they show is drawn between two looks.

use serin_fleet_server::rollout::evidence::{Before, Binning, DeviceEvidence};
use serin_fleet_server::stats::random::SplitMix64;
use serin_protocol::ids::{DeviceId, Digest, Millis, ReleaseId, UnixMillis};
use serin_protocol::sketch::{Bins, Histogram, LatencyHistogram};

use super::draw::{binomial, gamma, poisson, wait};

/// Failed inferences of an average device.
pub(crate) const ERROR_RATE: f64 = 0.02;

/// Inferences of an average device per hour.
const REQUESTS_PER_HOUR: f64 = 200.0;

/// First crashes of an average device per hour.
const CRASHES_PER_HOUR: f64 = 0.02;

/// Drop-outs of a device per hour: silent for good.
const DROPOUTS_PER_HOUR: f64 = 0.004;

/// Share of devices that a release with [`Harm::Silence`] silences.
const SILENCED: f64 = 0.3;

/// Of eight equally frequent bins, the share of values that a broken feature moves into the first: a population
/// stability index of 0.25.
const MOVED: f64 = 0.2325;

pub(crate) const HOUR: u64 = 3_600_000;

/// What is wrong with the release.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Harm {
    Nothing,
    /// Twice the error rate.
    Errors,
    /// A feature moved by PSI 0.25.
    Feature,
    /// Five times as many crashes.
    Crashes,
    /// Three times as slow.
    Latency,
    /// A third of its devices stop reporting.
    Silence,
}

/// What a seed makes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setting {
    pub(crate) harm: Harm,
    pub(crate) devices: usize,
    /// Coefficient of variation of rates between devices.
    pub(crate) cv: f64,
}

/// The spreads between devices that are tried.
pub(crate) const SPREADS: [f64; 4] = [0.0, 0.3, 1.0, 2.0];

impl Setting {
    /// Half of all seeds are healthy; harmful ones are of fleets of 1,000.
    pub(crate) fn of(seed: u64) -> Self {
        let mut random = SplitMix64::new(seed);
        let kind = random.below(100);
        let cv = SPREADS[random.below(SPREADS.len())];
        let healthy = [1000, 1000, 400, 150][random.below(4)];
        let (harm, devices) = match kind {
            0..50 => (Harm::Nothing, healthy),
            50..56 => (Harm::Nothing, 8 + random.below(50)),
            56..74 => (Harm::Errors, 1000),
            74..86 => (Harm::Feature, 1000),
            86..90 => (Harm::Crashes, 1000),
            90..94 => (Harm::Latency, 1000),
            94..97 => (Harm::Silence, 1000),
            _ => (Harm::Errors, 8 + random.below(50)),
        };
        Self { harm, devices, cv }
    }

    /// Below what tests need.
    pub(crate) const fn is_small(self) -> bool {
        self.devices < 100
    }
}

/// One device.
pub(crate) struct Simulated {
    pub(crate) id: DeviceId,
    pub(crate) runs_new: bool,
    /// From here on it is silent.
    silent_from: u64,
    /// The release silences it.
    silenced: bool,
    random: SplitMix64,
    errors: f64,
    requests: f64,
    latency: f64,
    crashes: f64,
    /// Of 256 values so many fall into one bin of its own.
    habit: u64,
    favourite: usize,
    before: Before,
    drawn_until: UnixMillis,
    old: Shown,
    new: Shown,
}

/// What was seen of one release since the stage began.
#[derive(Clone)]
struct Shown {
    requests: u64,
    errors: u64,
    latency: LatencyHistogram,
    classes: [u64; 4],
    feature: [u64; 8],
}

/// Counts of both arms between two looks, for judges that know no devices.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Pooled {
    pub(crate) requests: f64,
    pub(crate) errors: f64,
    pub(crate) slow: f64,
}

/// The fleet.
pub(crate) struct World {
    pub(crate) setting: Setting,
    pub(crate) devices: Vec<Simulated>,
    shocks: Vec<f64>,
    start: UnixMillis,
    binning: Binning,
    bins: (Histogram, Histogram),
}

impl World {
    pub(crate) fn new(seed: u64, setting: Setting, start: UnixMillis) -> Self {
        let mut random = SplitMix64::new(seed ^ 0x5eed);
        let shocks = (0..400).map(|_| (0.3 * random.normal()).exp()).collect();
        let devices = (0..setting.devices).map(|number| Simulated::new(number, &mut random, setting, start));
        let devices = devices.collect();
        let digest = Digest::of(b"bins");
        Self {
            setting,
            devices,
            shocks,
            start,
            binning: Binning { features: digest, predictions: digest, confidence: digest },
            bins: (Histogram::over_bins(&Bins::classes(4)), Histogram::over_bins(&Bins::classes(8))),
        }
    }

    /// Draws what a device shows until `now`.
    pub(crate) fn draw(&mut self, at: usize, now: UnixMillis, pooled: Option<&mut [Pooled; 2]>) {
        let Some(device) = self.devices.get_mut(at) else { return };
        let from = device.drawn_until.0;
        device.drawn_until = now;
        let until = now.0.min(device.silent_from);
        if until <= from || (device.silenced && device.runs_new) {
            return;
        }
        let hours = (until - from) as f64 / HOUR as f64;
        let hour = ((from - self.start.0) / HOUR) as usize;
        let shock = self.shocks[hour % self.shocks.len()];
        device.show(hours, shock, self.setting.harm, pooled);
    }

    pub(crate) fn draw_all(&mut self, now: UnixMillis, mut pooled: Option<&mut [Pooled; 2]>) {
        for at in 0..self.devices.len() {
            self.draw(at, now, pooled.as_deref_mut());
        }
    }

    /// A new stage begins: what was shown before does not count for it.
    pub(crate) fn forget(&mut self) {
        for device in &mut self.devices {
            device.old = Shown::new();
            device.new = Shown::new();
        }
    }

    /// The waiting time of a device until its next crash.
    pub(crate) fn next_crash(&mut self, at: usize) -> Millis {
        let harm = self.setting.harm;
        let Some(device) = self.devices.get_mut(at) else { return Millis(u64::MAX) };
        let factor = if harm == Harm::Crashes && device.runs_new { 5.0 } else { 1.0 };
        let hours = wait(&mut device.random, 1.0 / (CRASHES_PER_HOUR * device.crashes * factor).max(1e-9));
        Millis((hours * HOUR as f64).min(1e12) as u64)
    }

    /// Whether a device still reports then.
    pub(crate) fn is_heard(&self, at: usize, now: UnixMillis) -> bool {
        let heard = |device: &Simulated| now.0 < device.silent_from && !(device.silenced && device.runs_new);
        self.devices.get(at).is_some_and(heard)
    }

    pub(crate) fn evidence(&self, old: &ReleaseId, new: &ReleaseId) -> Vec<DeviceEvidence> {
        let mut all = Vec::with_capacity(self.devices.len());
        for device in &self.devices {
            for (shown, release) in [(&device.old, old), (&device.new, new)] {
                if shown.requests > 0 {
                    all.push(self.one(device, shown, release));
                }
            }
        }
        all
    }

    fn one(&self, device: &Simulated, shown: &Shown, release: &ReleaseId) -> DeviceEvidence {
        DeviceEvidence {
            device: device.id.clone(),
            release: release.clone(),
            requests: shown.requests,
            errors: shown.errors,
            latency: shown.latency,
            predictions: filled(&self.bins.0, &shown.classes),
            confidence: Histogram::default(),
            features: vec![filled(&self.bins.1, &shown.feature)],
            before: Some(device.before),
            binning: self.binning,
        }
    }
}

fn filled(empty: &Histogram, counts: &[u64]) -> Histogram {
    let mut histogram = empty.clone();
    histogram.counts.copy_from_slice(counts);
    histogram
}

impl Shown {
    fn new() -> Self {
        Self {
            requests: 0,
            errors: 0,
            latency: LatencyHistogram::default(),
            classes: [0; 4],
            feature: [0; 8],
        }
    }
}

/// Eight equally probable durations about 1, of a lognormal distribution.
const DURATIONS: [f64; 8] = [0.54, 0.70, 0.82, 0.94, 1.07, 1.22, 1.43, 1.86];

impl Simulated {
    fn new(number: usize, random: &mut SplitMix64, setting: Setting, start: UnixMillis) -> Self {
        let mut own = SplitMix64::new(random.bits());
        let quality = gamma(&mut own, setting.cv);
        let requests = REQUESTS_PER_HOUR * gamma(&mut own, 0.5);
        let errors = (ERROR_RATE * quality).min(0.5);
        let day = poisson(&mut own, requests * 24.0);
        let before = Before { requests: day, errors: binomial(&mut own, day, errors) };
        let silent = wait(&mut own, HOUR as f64 / DROPOUTS_PER_HOUR);
        Self {
            id: DeviceId::new(&format!("edge-{number:05}")).expect("a name"),
            runs_new: false,
            silent_from: start.0 + silent as u64,
            silenced: setting.harm == Harm::Silence && own.unit() < SILENCED,
            errors,
            requests,
            // A device in trouble is in trouble in every way.
            latency: 2000.0 * 0.2_f64.mul_add(quality.min(3.0), 0.8),
            crashes: quality.max(0.1),
            habit: own.below(50) as u64,
            favourite: own.below(8),
            before,
            drawn_until: start,
            old: Shown::new(),
            new: Shown::new(),
            random: own,
        }
    }

    fn show(&mut self, hours: f64, shock: f64, harm: Harm, pooled: Option<&mut [Pooled; 2]>) {
        let harmful = |kind: Harm| harm == kind && self.runs_new;
        let rate = self.errors * shock * if harmful(Harm::Errors) { 2.0 } else { 1.0 };
        let slower = self.latency * shock.sqrt() * if harmful(Harm::Latency) { 3.0 } else { 1.0 };
        let broken = harmful(Harm::Feature);
        let durations = DURATIONS.map(|duration| (duration * slower) as u64);
        let random = &mut self.random;
        let requests = poisson(random, self.requests * hours);
        let errors = binomial(random, requests, rate.min(0.9));
        let shown = if self.runs_new { &mut self.new } else { &mut self.old };
        let mut slow = 0.0;
        for _ in 0..requests {
            let bits = random.bits();
            let micros = durations[(bits & 7) as usize];
            shown.latency.record_micros(micros);
            slow += f64::from(u8::from(micros > 4000));
            let habitual = bits >> 8 & 255 < self.habit;
            let mut bin = if habitual { self.favourite } else { (bits >> 3 & 7) as usize };
            if broken && ((bits >> 32) as f64) < MOVED * f64::from(u32::MAX) {
                bin = 0;
            }
            shown.feature[bin] += 1;
            shown.classes[(bits >> 16 & 3) as usize] += 1;
        }
        shown.requests += requests;
        shown.errors += errors;
        if let Some(pooled) = pooled {
            let arm = &mut pooled[usize::from(self.runs_new)];
            arm.requests += requests as f64;
            arm.errors += errors as f64;
            arm.slow += slow;
        }
    }
}
