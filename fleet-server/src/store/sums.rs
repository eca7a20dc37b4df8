//! What is left of reports that are too old to be told apart by device: sums per release, segment and hour, then per
//! release, segment and day. Merging adds; no count is lost. Pure but for the trees at the end.

use serde::{Deserialize, Serialize};
use serin_protocol::ids::{DeviceId, Digest, Millis, ReleaseId, SegmentNumber, UnixMillis};
use serin_protocol::message::{Report, Role};
use serin_protocol::sketch::{Histogram, LatencyHistogram, Quality};

/// How long sums stay by hour.
pub const HOURS_KEPT: Millis = Millis::from_secs(30 * 24 * 3600);
/// How long sums are kept at all.
pub const DAYS_KEPT: Millis = Millis::from_secs(2 * 366 * 24 * 3600);
/// Most bytes of the sums of one release: a model of 1,024 features takes about 40 KiB a sum, of 64 about 3 KiB.
pub const MAX_RELEASE_BYTES: usize = 16 * 1024 * 1024;
/// Most bytes of all sums.
pub const MAX_TOTAL_BYTES: usize = 256 * 1024 * 1024;

const HOUR: u64 = 3600 * 1000;
const DAY: u64 = 24 * HOUR;

/// How long a time one sum is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Span {
    /// An hour.
    Hour,
    /// A day of UTC.
    Day,
}

impl Span {
    /// Where the span begins that holds `at`.
    pub const fn start_of(self, at: UnixMillis) -> UnixMillis {
        let length = match self {
            Self::Hour => HOUR,
            Self::Day => DAY,
        };
        UnixMillis(at.0 - at.0 % length)
    }
}

/// The sums of one release in one role and segment over one span.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sum {
    /// The release.
    pub release: ReleaseId,
    /// What it did.
    pub role: Role,
    /// Which part of its inputs.
    pub segment: SegmentNumber,
    /// Whose bins these are.
    pub profile: Digest,
    /// How long.
    pub span: Span,
    /// From then on.
    pub start: UnixMillis,
    /// Reports that went in.
    pub reports: u64,
    /// Most devices that any one of the hours in it had.
    pub devices: u64,
    /// Inferences.
    pub requests: u64,
    /// Those that failed.
    pub errors: u64,
    /// Requests refused before the worker.
    pub refused: u64,
    /// Time per inference.
    pub latency: LatencyHistogram,
    /// One per feature, in profile order.
    pub features: Vec<Histogram>,
    /// Predicted classes.
    pub predictions: Histogram,
    /// Confidence.
    pub confidence: Histogram,
    /// How evenly probabilities were spread.
    pub entropy: Histogram,
    /// How right predictions were, as far as the truth became known.
    pub quality: Option<Quality>,
    /// Worker deaths.
    pub worker_deaths: u64,
    /// Reports that devices dropped before they could be sent.
    pub dropped_reports: u64,
}

impl Sum {
    /// The sum of reports of one release, role, segment, profile and span; none of no reports.
    pub fn of(reports: &[Report], span: Span) -> Option<Self> {
        let (first, rest) = reports.split_first()?;
        let mut sum = Self::of_one(first, span);
        rest.iter().for_each(|report| sum.merge(&Self::of_one(report, span)));
        let mut devices: Vec<&DeviceId> = reports.iter().map(|report| &report.device).collect();
        devices.sort_unstable();
        devices.dedup();
        sum.devices = devices.len() as u64;
        Some(sum)
    }

    fn of_one(report: &Report, span: Span) -> Self {
        // What lies before the first feature of a wide model's later report is in another one.
        let mut features = vec![Histogram::default(); usize::from(report.first_feature)];
        features.extend(report.features.iter().cloned());
        Self {
            release: report.release.clone(),
            role: report.role,
            segment: report.segment,
            profile: report.profile,
            span,
            start: span.start_of(report.start),
            reports: 1,
            devices: 1,
            requests: report.requests,
            errors: report.errors,
            refused: report.refused,
            latency: report.latency,
            features,
            predictions: report.predictions.clone(),
            confidence: report.confidence.clone(),
            entropy: report.entropy.clone(),
            quality: report.quality.clone(),
            worker_deaths: report.worker_deaths.into(),
            dropped_reports: report.dropped_reports.into(),
        }
    }

    fn add_quality(&mut self, more: Option<&Quality>) {
        match (&mut self.quality, more) {
            // A release predicts classes or values, never both.
            (Some(quality), Some(more)) => {
                let _ = quality.merge(more);
            }
            (quality @ None, Some(more)) => *quality = Some(more.clone()),
            (_, None) => {}
        }
    }

    /// Whether `other` is about the same release, in the same role, segment and on the same bins.
    pub fn is_like(&self, other: &Self) -> bool {
        (&self.release, self.role, self.segment, self.profile)
            == (&other.release, other.role, other.segment, other.profile)
    }

    /// Adds what is like it. Of devices the larger number is kept: who they were is not known any more.
    pub fn merge(&mut self, other: &Self) {
        self.reports = self.reports.saturating_add(other.reports);
        self.devices = self.devices.max(other.devices);
        self.requests = self.requests.saturating_add(other.requests);
        self.errors = self.errors.saturating_add(other.errors);
        self.refused = self.refused.saturating_add(other.refused);
        self.latency.merge(&other.latency);
        merge(&mut self.predictions, &other.predictions);
        merge(&mut self.confidence, &other.confidence);
        merge(&mut self.entropy, &other.entropy);
        self.add_quality(other.quality.as_ref());
        if self.features.len() < other.features.len() {
            self.features.resize(other.features.len(), Histogram::default());
        }
        for (mine, theirs) in self.features.iter_mut().zip(&other.features) {
            merge(mine, theirs);
        }
        self.worker_deaths = self.worker_deaths.saturating_add(other.worker_deaths);
        self.dropped_reports = self.dropped_reports.saturating_add(other.dropped_reports);
    }

    /// The same as part of its day.
    #[must_use]
    pub fn by_day(self) -> Self {
        Self { span: Span::Day, start: Span::Day.start_of(self.start), ..self }
    }
}

/// Adds `from`; an empty histogram takes its bins. Reports were taken in only with their release's own bins, so that all
/// others agree.
pub fn merge(into: &mut Histogram, from: &Histogram) {
    if into.counts.is_empty() && into.total() == 0 {
        into.clone_from(from);
    } else if !from.counts.is_empty() {
        let _ = into.merge(from);
    }
}

/// Adds `sum` to those that are like it and about the same time.
pub fn add_to(sums: &mut Vec<Sum>, sum: Sum) {
    let place = sums
        .iter_mut()
        .find(|other| other.is_like(&sum) && other.span == sum.span && other.start == sum.start);
    match place {
        Some(other) => other.merge(&sum),
        None => sums.push(sum),
    }
}

/// Reports as sums by hour.
pub fn by_hour(mut reports: Vec<Report>) -> Vec<Sum> {
    let key = |report: &Report| {
        (Span::Hour.start_of(report.start), report.role as u8, report.segment, report.profile)
    };
    reports.sort_by_key(key);
    reports.chunk_by(|a, b| key(a) == key(b)).filter_map(|some| Sum::of(some, Span::Hour)).collect()
}

/// What is too old to stay by hour becomes part of its day; what is too old at all goes. `bytes` measures one. More than
/// [`MAX_RELEASE_BYTES`] is made to fit by folding the oldest hours early and, if that is not enough, by dropping the
/// oldest days.
pub fn age(sums: Vec<Sum>, now: UnixMillis, bytes: impl Fn(&Sum) -> usize) -> Vec<Sum> {
    let mut aged: Vec<Sum> = Vec::with_capacity(sums.len());
    for sum in sums {
        if now.since(sum.start) >= DAYS_KEPT {
            continue;
        }
        let old = sum.span == Span::Hour && now.since(sum.start) >= HOURS_KEPT;
        add_to(&mut aged, if old { sum.by_day() } else { sum });
    }
    aged.sort_by_key(|sum| (sum.start, sum.span, sum.role as u8));
    let mut total: usize = aged.iter().map(&bytes).sum();
    while total > MAX_RELEASE_BYTES {
        // A whole day of hours at once: less work, and the day is written once.
        let day = aged.iter().find(|sum| sum.span == Span::Hour).map(|sum| Span::Day.start_of(sum.start));
        let Some(day) = day else {
            if aged.is_empty() {
                break;
            }
            aged.remove(0);
            total = aged.iter().map(&bytes).sum();
            continue;
        };
        let (hours, mut rest): (Vec<Sum>, Vec<Sum>) =
            aged.into_iter().partition(|sum| sum.span == Span::Hour && Span::Day.start_of(sum.start) == day);
        hours.into_iter().for_each(|sum| add_to(&mut rest, sum.by_day()));
        rest.sort_by_key(|sum| (sum.start, sum.span, sum.role as u8));
        aged = rest;
        total = aged.iter().map(&bytes).sum();
    }
    aged
}

#[cfg(test)]
#[path = "sums_tests.rs"]
mod tests;
