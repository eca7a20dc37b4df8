//! How reports age: those that came last stay as they came, older ones are merged two by two, so that a device's
//! whole history takes bounded space and grows coarser with age instead of ending.

use serin_protocol::ids::UnixMillis;
use serin_protocol::message::{Coverage, Report};
use serin_protocol::sketch::Histogram;

use super::boxes::Boxes;

/// Reports that stay as they came however many others there are, those that came last: at a window a minute, the last
/// twenty-four minutes.
pub const EXACT: usize = 24;

/// Older reports of one device and release that are left when they were merged.
pub(super) const MERGED: usize = 16;

/// Reports of one device and release that may come before its older ones are merged again.
pub const FRESH: usize = 32;

/// Reports kept per device and release at most, but for those that cannot be merged: of other parts of a wide model, other
/// segments, the other side of a fence. As many windows of 60 features are about 150 KB; a month of any length of window
/// fits.
pub const MAX_REPORTS: usize = MERGED + EXACT + FRESH;

/// Merges `older` reports, which are all but the last [`EXACT`] of one device about one release in the order of their
/// windows, until at most [`MERGED`] are left, or no two can be merged any more. They are read one by one as they are
/// merged; `boxes` gets the memory of those that are over.
pub(super) fn condense<E>(
    older: impl Iterator<Item = Result<Box<Report>, E>>,
    fences: &[UnixMillis],
    boxes: &Boxes,
) -> Result<Vec<Box<Report>>, E> {
    let mut left = merge_pairs(older, fences, boxes)?;
    while left.len() > MERGED {
        let before = left.len();
        left = merge_pairs(left.into_iter().map(Ok), fences, boxes)?;
        if left.len() == before {
            break;
        }
    }
    Ok(left)
}

/// Of `reports` of one device about one release, in the order of their windows, merges pairs, but never over a fence:
/// windows that start before and after one stay apart. Parts of a wide model's window merge only with the same part.
fn merge_pairs<E>(
    reports: impl Iterator<Item = Result<Box<Report>, E>>,
    fences: &[UnixMillis],
    boxes: &Boxes,
) -> Result<Vec<Box<Report>>, E> {
    let mut merged: Vec<Box<Report>> = Vec::new();
    let mut open: Vec<usize> = Vec::new();
    for report in reports {
        let report = report?;
        // At most one unpaired report per part and segment; there are 16 parts and 5 segments at most.
        let pair =
            open.iter().position(|at| merged.get(*at).is_some_and(|older| can_merge(older, &report, fences)));
        let partner = pair.map(|position| open.swap_remove(position));
        if let Some(older) = partner.and_then(|at| merged.get_mut(at))
            && merge(older, &report)
        {
            boxes.take_back(report);
            continue;
        }
        open.retain(|at| merged.get(*at).is_some_and(|older| !same_part(older, &report)));
        open.push(merged.len());
        merged.push(report);
    }
    Ok(merged)
}

fn same_part(one: &Report, other: &Report) -> bool {
    one.first_feature == other.first_feature && one.segment == other.segment
}

fn can_merge(older: &Report, younger: &Report, fences: &[UnixMillis]) -> bool {
    let fenced = fences.iter().any(|fence| older.start < *fence && *fence <= younger.start);
    let same_role = older.role == younger.role
        && match (&older.comparison, &younger.comparison) {
            (Some(older), Some(younger)) => older.with == younger.with,
            (None, _) | (_, None) => true,
        };
    !fenced && same_role && same_part(older, younger) && older.profile == younger.profile
}

/// Adds `younger` to `older`, which then covers both windows; false when their bins differ, and then
/// nothing has changed.
fn merge(older: &mut Report, younger: &Report) -> bool {
    let is_like = |(mine, theirs): (&Histogram, &Histogram)| mine.counts.len() == theirs.counts.len();
    if older.features.len() != younger.features.len()
        || !older
            .features
            .iter()
            .chain(outputs(older))
            .zip(younger.features.iter().chain(outputs(younger)))
            .all(is_like)
    {
        return false;
    }
    let mut quality = older.quality.clone();
    match (&mut quality, &younger.quality) {
        (Some(mine), Some(theirs)) => {
            if !mine.merge(theirs) {
                return false;
            }
        }
        (mine @ None, theirs) => mine.clone_from(theirs),
        (Some(_), None) => {}
    }
    let mut comparison = older.comparison.clone();
    match (&mut comparison, &younger.comparison) {
        (Some(mine), Some(theirs)) => {
            if !mine.merge(theirs) {
                return false;
            }
        }
        (mine @ None, theirs) => mine.clone_from(theirs),
        (Some(_), None) => {}
    }
    // From here on nothing fails: the bins are as many.
    let sketches = older.features.iter_mut().zip(&younger.features);
    let rest = [
        (&mut older.predictions, &younger.predictions),
        (&mut older.confidence, &younger.confidence),
        (&mut older.entropy, &younger.entropy),
    ];
    for (mine, theirs) in sketches.chain(rest) {
        let _ = mine.merge(theirs);
    }
    (older.quality, older.comparison) = (quality, comparison);
    older.end = older.end.max(younger.end);
    older.coverage = match (older.coverage, younger.coverage) {
        (Coverage::Partial, _) | (_, Coverage::Partial) => Coverage::Partial,
        (Coverage::Empty, Coverage::Empty) => Coverage::Empty,
        (Coverage::Complete | Coverage::Empty, Coverage::Complete | Coverage::Empty) => Coverage::Complete,
    };
    older.requests = older.requests.saturating_add(younger.requests);
    older.errors = older.errors.saturating_add(younger.errors);
    older.refused = older.refused.saturating_add(younger.refused);
    older.latency.merge(&younger.latency);
    older.worker_peak = older.worker_peak.max(younger.worker_peak);
    older.worker_deaths = older.worker_deaths.saturating_add(younger.worker_deaths);
    older.dropped_reports = older.dropped_reports.saturating_add(younger.dropped_reports);
    true
}

fn outputs(report: &Report) -> [&Histogram; 3] {
    [&report.predictions, &report.confidence, &report.entropy]
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;
    use crate::store::suite::report;
    use serin_protocol::ids::SegmentNumber;
    use serin_protocol::sketch::{ClassQuality, Quality};

    #[test]
    fn segments_stay_apart_and_truths_add_up() {
        let one = |segment: u8, start: u64, right: u64| {
            let mut report = report("m@1", "d1", start, start * 2 + u64::from(segment));
            report.segment = SegmentNumber(segment);
            let quality = ClassQuality { labelled: 2, right, ..ClassQuality::default() };
            report.quality = Some(Quality::Classes(quality));
            report
        };
        let reports = (0..8).flat_map(|start| [(0, start, 1), (3, start, 2)]);
        let reports =
            reports.map(|(segment, start, right)| Ok::<_, Infallible>(Box::new(one(segment, start, right))));
        let Ok(merged) = merge_pairs(reports, &[], &Boxes::default());
        let of = |segment: u8| -> Vec<&Report> {
            merged
                .iter()
                .map(|report| &**report)
                .filter(|report| report.segment == SegmentNumber(segment))
                .collect()
        };
        assert_eq!((of(0).len(), of(3).len()), (4, 4));
        let known = |reports: &[&Report]| -> (u64, u64) {
            let qualities = reports.iter().filter_map(|report| match &report.quality {
                Some(Quality::Classes(classes)) => Some((classes.labelled, classes.right)),
                Some(Quality::Values(_)) | None => None,
            });
            qualities.fold((0, 0), |(a, b), (c, d)| (a + c, b + d))
        };
        assert_eq!((known(&of(0)), known(&of(3))), ((16, 8), (16, 16)));
    }
}
