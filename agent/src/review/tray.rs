//! What waits to be sent for review, and how much of the day's budget is left. In memory only: a restart forgets what
//! waited, and the fleet server holds every device to the same budget.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serin_protocol::ids::{BootId, ByteCount, DeviceId, ReleaseId, UnixMillis};
use serin_protocol::review::{MAX_SAMPLE_BYTES, Sample};

use super::choose::{Answered, Chooser};

/// Samples that wait: while offline the newest are of most use.
const MAX_WAITING: usize = 32;
/// Bytes of an envelope, names and numbers around the values of a sample.
const AROUND: usize = 2048;
const DAY_MILLIS: u64 = 24 * 3600 * 1000;

/// What the device lets go, of all releases together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Samples in a day of UTC.
    pub per_day: u32,
    /// Their bytes.
    pub bytes_per_day: ByteCount,
}

/// What waits and what was used. One per device.
#[derive(Clone, Debug)]
pub struct Tray(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    device: DeviceId,
    boot: BootId,
    limits: Limits,
    /// Days since 1970.
    day: u64,
    used: BTreeMap<ReleaseId, (u32, u64)>,
    waiting: VecDeque<Sample>,
    made: u64,
}

/// Samples the requests of one release into the device's tray.
#[derive(Clone, Debug)]
pub struct Sampler {
    chooser: Arc<Chooser>,
    release: ReleaseId,
    tray: Tray,
}

impl Tray {
    /// An empty one.
    pub fn new(device: DeviceId, boot: BootId, limits: Limits) -> Self {
        let inner =
            Inner { device, boot, limits, day: 0, used: BTreeMap::new(), waiting: VecDeque::new(), made: 0 };
        Self(Arc::new(Mutex::new(inner)))
    }

    /// Takes the oldest sample that waits.
    pub fn take(&self) -> Option<Sample> {
        self.lock().waiting.pop_front()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.lock().waiting.is_empty()
    }

    /// Puts one back that could not be sent.
    pub fn put_back(&self, sample: Sample) {
        self.lock().waiting.push_front(sample);
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Counts and samples are set whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sampler {
    /// Samples `release` by `chooser`.
    pub fn new(chooser: Chooser, release: ReleaseId, tray: Tray) -> Self {
        Self { chooser: Arc::new(chooser), release, tray }
    }

    /// A request was answered at `now`; the other release where a shadow was compared. Takes a row if policy, chance and
    /// budget say so.
    pub fn answered(&self, answered: Answered<'_>, other: Option<&ReleaseId>, chance: u16, now: UnixMillis) {
        // Without room there is no need to look.
        if !self.tray.lock().has_room(&self.release, &self.chooser, now, 0) {
            return;
        }
        let Some(chosen) = self.chooser.choose(answered, chance) else { return };
        let bytes = chosen.body.len() + AROUND;
        if bytes > MAX_SAMPLE_BYTES {
            tracing::debug!(release = %self.release, bytes, "too large for review");
            return;
        }
        let mut tray = self.tray.lock();
        if !tray.has_room(&self.release, &self.chooser, now, bytes as u64) {
            return;
        }
        let sample = Sample {
            device: tray.device.clone(),
            boot: tray.boot,
            number: tray.made,
            at: now,
            release: self.release.clone(),
            reason: chosen.reason,
            inputs: chosen.inputs,
            body: chosen.body,
            redacted: chosen.redacted,
            prediction: chosen.prediction,
            shadow: other.cloned().zip(chosen.shadow),
        };
        tray.made = tray.made.saturating_add(1);
        let used = tray.used.entry(self.release.clone()).or_default();
        used.0 = used.0.saturating_add(1);
        used.1 = used.1.saturating_add(bytes as u64);
        if tray.waiting.len() >= MAX_WAITING {
            tray.waiting.pop_front();
        }
        tray.waiting.push_back(sample);
    }
}

impl Inner {
    /// Whether budgets of release and device have room for one more of `bytes`.
    fn has_room(&mut self, release: &ReleaseId, chooser: &Chooser, now: UnixMillis, bytes: u64) -> bool {
        let day = now.0 / DAY_MILLIS;
        if day != self.day {
            self.day = day;
            self.used.clear();
        }
        let of_release = self.used.get(release).copied().unwrap_or_default();
        let of_all = self
            .used
            .values()
            .fold((0_u32, 0_u64), |sum, used| (sum.0.saturating_add(used.0), sum.1.saturating_add(used.1)));
        let fits = |used: (u32, u64), count: u32, limit: ByteCount| {
            used.0 < count && used.1.saturating_add(bytes) <= limit.0
        };
        let policy = chooser.policy();
        fits(of_release, policy.per_day, policy.bytes_per_day)
            && fits(of_all, self.limits.per_day, self.limits.bytes_per_day)
    }
}

#[cfg(test)]
#[path = "tray_tests.rs"]
mod tests;
