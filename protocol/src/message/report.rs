//! What a release did on a device in a window of time: the largest message, and the one that comes most often.

#[cfg(feature = "alloc")]
use alloc::boxed::Box;
use serde::{Deserialize, Serialize};

use super::{Comparison, Role};
use crate::envelope::Signed;
use crate::ids::{BootId, ByteCount, DeviceId, Digest, ReleaseId, SegmentNumber, UnixMillis};
use crate::sketch::{Histogram, LatencyHistogram, Quality, packed};

/// Largest report: [`MAX_REPORT_FEATURES`] histograms of at most 35 counters.
pub const MAX_REPORT_BYTES: usize = crate::envelope::MAX_MESSAGE_BYTES;
/// Features in one report; wider models send several reports per window.
pub const MAX_REPORT_FEATURES: usize = 64;

/// How much of its window a report covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Coverage {
    /// The agent watched from start to end.
    Complete,
    /// The agent or the release came or went within the window.
    Partial,
    /// The agent watched from start to end, and the release was not asked.
    Empty,
}

/// What one release did on one device within one window of time, in one segment of its inputs: all segments of a window
/// together are what it did.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The device.
    pub device: DeviceId,
    /// Together with `sequence` makes a report unique, so that a repeated delivery changes nothing.
    pub boot: BootId,
    /// Counts reports within one boot.
    pub sequence: u64,
    /// Start of the window, a multiple of its length.
    pub start: UnixMillis,
    /// End of the window.
    pub end: UnixMillis,
    /// How much of it was watched.
    pub coverage: Coverage,
    /// The release in question.
    pub release: ReleaseId,
    /// What it did meanwhile.
    pub role: Role,
    /// Digest of the reference profile whose bins are used.
    pub profile: Digest,
    /// The segment. A request whose rows belong to several counts where its first row does. Deaths of workers, and
    /// reports dropped, are with segment 0.
    pub segment: SegmentNumber,
    /// Inferences answered or failed; of a shadow, those it computed.
    pub requests: u64,
    /// Inferences that failed in the worker.
    pub errors: u64,
    /// Requests refused before the worker: malformed, or too many at once.
    pub refused: u64,
    /// Time in the worker per inference.
    pub latency: LatencyHistogram,
    /// Number of the first feature in `features`; above 0 in the second and later reports of a wide
    /// model's window, whose other counts are then zero.
    pub first_feature: u16,
    /// One sketch per feature, in profile order.
    #[serde(deserialize_with = "packed::list")]
    pub features: heapless::Vec<Histogram, MAX_REPORT_FEATURES>,
    /// Predicted classes, one bin each, or predicted values.
    pub predictions: Histogram,
    /// Confidence of the prediction.
    pub confidence: Histogram,
    /// Entropy of its probabilities, over its largest possible one.
    pub entropy: Histogram,
    /// How right those predictions were whose truth became known in this window, whenever they were made; none if
    /// there were none.
    pub quality: Option<Quality>,
    /// Largest resident memory of the worker so far.
    pub worker_peak: ByteCount,
    /// Worker deaths in the window.
    pub worker_deaths: u32,
    /// Reports dropped on the device, oldest first, because its disk budget was used up.
    pub dropped_reports: u32,
    /// How a shadow did beside the release that answered.
    pub comparison: Option<Comparison>,
}

impl Signed for Report {
    const PURPOSE: u8 = 5;
    const MAX_BYTES: usize = MAX_REPORT_BYTES;
}

/// Bytes that a report is read from.
#[cfg(feature = "alloc")]
type Source<'a> = postcard::Deserializer<'a, postcard::de_flavors::Slice<'a>>;

#[cfg(feature = "alloc")]
impl Report {
    /// Reads a report from the start of `bytes` to where it stays; returns what follows it. It has 22 KB: taken from
    /// `postcard` as other messages are, it would be copied several times on its way, which takes longer than reading it.
    /// Where there is one that is over, `spare`, its memory is used, which takes less time than new memory.
    ///
    /// # Errors
    ///
    /// What `postcard` finds wrong with the bytes.
    pub fn read(bytes: &[u8], spare: Option<Box<Self>>) -> postcard::Result<(Box<Self>, &[u8])> {
        if let Some(mut report) = spare {
            let rest = report.read_over(bytes)?;
            return Ok((report, rest));
        }
        let mut source = postcard::Deserializer::from_bytes(bytes);
        // The fields in their order: a structure is one after the other in this format.
        let mut report = Box::new(Self {
            device: Deserialize::deserialize(&mut source)?,
            boot: Deserialize::deserialize(&mut source)?,
            sequence: Deserialize::deserialize(&mut source)?,
            start: Deserialize::deserialize(&mut source)?,
            end: Deserialize::deserialize(&mut source)?,
            coverage: Deserialize::deserialize(&mut source)?,
            release: Deserialize::deserialize(&mut source)?,
            role: Deserialize::deserialize(&mut source)?,
            profile: Deserialize::deserialize(&mut source)?,
            segment: Deserialize::deserialize(&mut source)?,
            requests: Deserialize::deserialize(&mut source)?,
            errors: Deserialize::deserialize(&mut source)?,
            refused: Deserialize::deserialize(&mut source)?,
            latency: Deserialize::deserialize(&mut source)?,
            first_feature: Deserialize::deserialize(&mut source)?,
            // What follows the features is read after them.
            features: heapless::Vec::new(),
            predictions: Histogram::default(),
            confidence: Histogram::default(),
            entropy: Histogram::default(),
            quality: None,
            worker_peak: ByteCount(0),
            worker_deaths: 0,
            dropped_reports: 0,
            comparison: None,
        });
        report.read_sketches(&mut source)?;
        Ok((report, source.finalize()?))
    }

    /// After an error it is part of one report and part of another.
    fn read_over<'a>(&mut self, bytes: &'a [u8]) -> postcard::Result<&'a [u8]> {
        let mut source = postcard::Deserializer::from_bytes(bytes);
        self.device = Deserialize::deserialize(&mut source)?;
        self.boot = Deserialize::deserialize(&mut source)?;
        self.sequence = Deserialize::deserialize(&mut source)?;
        self.start = Deserialize::deserialize(&mut source)?;
        self.end = Deserialize::deserialize(&mut source)?;
        self.coverage = Deserialize::deserialize(&mut source)?;
        self.release = Deserialize::deserialize(&mut source)?;
        self.role = Deserialize::deserialize(&mut source)?;
        self.profile = Deserialize::deserialize(&mut source)?;
        self.segment = Deserialize::deserialize(&mut source)?;
        self.requests = Deserialize::deserialize(&mut source)?;
        self.errors = Deserialize::deserialize(&mut source)?;
        self.refused = Deserialize::deserialize(&mut source)?;
        self.latency = Deserialize::deserialize(&mut source)?;
        self.first_feature = Deserialize::deserialize(&mut source)?;
        self.read_sketches(&mut source)?;
        source.finalize()
    }

    /// The features and what follows them.
    #[inline]
    fn read_sketches(&mut self, source: &mut Source<'_>) -> postcard::Result<()> {
        use serde::de::DeserializeSeed as _;

        packed::Places(&mut self.features).deserialize(&mut *source)?;
        packed::Place(&mut self.predictions).deserialize(&mut *source)?;
        packed::Place(&mut self.confidence).deserialize(&mut *source)?;
        packed::Place(&mut self.entropy).deserialize(&mut *source)?;
        self.quality = Deserialize::deserialize(&mut *source)?;
        self.worker_peak = Deserialize::deserialize(&mut *source)?;
        self.worker_deaths = Deserialize::deserialize(&mut *source)?;
        self.dropped_reports = Deserialize::deserialize(&mut *source)?;
        self.comparison = Deserialize::deserialize(&mut *source)?;
        Ok(())
    }
}
