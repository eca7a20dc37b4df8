//! Counts before and after merging, over any reports.

use super::*;
use proptest::prelude::*;
use serin_protocol::ids::{BootId, ByteCount};
use serin_protocol::message::Coverage;
use serin_protocol::sketch::ClassQuality;

fn histogram(counts: [u64; 3]) -> Histogram {
    Histogram { counts: counts.into_iter().collect(), ..Histogram::default() }
}

fn report(device: u8, start: u64, counts: [u64; 3], requests: u64, role: Role) -> Report {
    let mut latency = LatencyHistogram::default();
    (0..requests).for_each(|at| latency.record_micros(at * 100));
    Report {
        device: format!("d{device}").parse().expect("name"),
        boot: BootId(1),
        sequence: start,
        start: UnixMillis(start),
        end: UnixMillis(start + 60_000),
        coverage: Coverage::Complete,
        release: "m@1".parse().expect("release"),
        role,
        profile: Digest([1; 32]),
        requests,
        errors: requests / 3,
        refused: 1,
        latency,
        first_feature: 0,
        features: [histogram(counts), histogram([counts[2], counts[1], counts[0]])].into_iter().collect(),
        predictions: histogram(counts),
        confidence: histogram(counts),
        worker_peak: ByteCount(1),
        worker_deaths: 1,
        dropped_reports: 2,
        comparison: None,
        segment: SegmentNumber(u8::try_from(start % 3).expect("small")),
        entropy: histogram(counts),
        quality: Some(Quality::Classes(right(counts[0]))),
    }
}

fn right(labelled: u64) -> ClassQuality {
    ClassQuality { labelled, right: labelled / 2, ..ClassQuality::default() }
}

fn any_report() -> impl Strategy<Value = Report> {
    let role = prop_oneof![Just(Role::Answers), Just(Role::Arm), Just(Role::Shadow)];
    (0_u8..5, 0_u64..100 * DAY, any::<[u16; 3]>(), 0_u64..20, role).prop_map(
        |(device, start, counts, requests, role)| {
            report(device, start, counts.map(u64::from), requests, role)
        },
    )
}

/// Everything that can be counted, by role.
fn counts(sums: &[Sum], role: Role) -> (u64, u64, u64, LatencyHistogram, Vec<u64>) {
    let mut latency = LatencyHistogram::default();
    let (mut requests, mut errors, mut others) = (0, 0, 0);
    let mut bins = Vec::new();
    for sum in sums.iter().filter(|sum| sum.role == role) {
        latency.merge(&sum.latency);
        requests += sum.requests;
        errors += sum.errors;
        others += sum.reports + sum.refused + sum.worker_deaths + sum.dropped_reports;
        others += sum.quality.as_ref().map_or(0, Quality::labelled);
        let histograms = sum.features.iter().chain([&sum.predictions, &sum.confidence, &sum.entropy]);
        let counts: Vec<u64> = histograms.flat_map(|histogram| histogram.counts.iter().copied()).collect();
        bins.resize(bins.len().max(counts.len()), 0);
        bins.iter_mut().zip(counts).for_each(|(bin, count)| *bin += count);
    }
    (requests, errors, others, latency, bins)
}

#[test]
fn a_day_is_the_sum_of_its_hours_and_devices_are_those_of_the_fullest() {
    let two = vec![report(1, 0, [1, 0, 0], 1, Role::Answers), report(2, 60_000, [1, 0, 0], 1, Role::Answers)];
    let one = vec![report(1, HOUR, [1, 0, 0], 5, Role::Answers)];
    let sums = by_hour([two, one].concat());
    assert_eq!(sums.iter().map(|sum| (sum.devices, sum.requests)).collect::<Vec<_>>(), [(2, 2), (1, 5)]);
    let aged = age(sums, UnixMillis(HOURS_KEPT.0 + HOUR), |_| 1);
    let [day] = aged.as_slice() else { panic!("{aged:?}") };
    assert_eq!((day.span, day.devices, day.requests, day.reports), (Span::Day, 2, 7, 3));
}

#[test]
fn what_is_too_much_becomes_coarser_first_and_ends_last() {
    let sums = by_hour((0..48).map(|hour| report(1, hour * HOUR, [1, 0, 0], 1, Role::Answers)).collect());
    let room_for = |count: usize| MAX_RELEASE_BYTES / count;
    let spans = |sums: Vec<Sum>| sums.iter().map(|sum| (sum.span, sum.requests)).collect::<Vec<_>>();
    let folded = spans(age(sums.clone(), UnixMillis(48 * HOUR), |_| room_for(30)));
    assert_eq!(folded.first(), Some(&(Span::Day, 24)));
    assert_eq!((folded.len(), folded.last()), (25, Some(&(Span::Hour, 1))));
    assert_eq!(spans(age(sums, UnixMillis(48 * HOUR), |_| MAX_RELEASE_BYTES)), [(Span::Day, 24)]);
}

proptest! {
    /// Whatever reports there are, and in whatever order they are folded: every count is there afterwards.
    #[test]
    fn no_count_is_lost(reports in prop::collection::vec(any_report(), 0..60), cut: prop::sample::Index, days in 0_u64..130) {
        let whole = by_hour(reports.clone());
        let (early, late) = reports.split_at(if reports.is_empty() { 0 } else { cut.index(reports.len()) });
        let mut parts = by_hour(early.to_vec());
        by_hour(late.to_vec()).into_iter().for_each(|sum| add_to(&mut parts, sum));
        let aged = age(parts.clone(), UnixMillis(days * DAY), |_| 1);
        for role in [Role::Answers, Role::Arm, Role::Shadow] {
            let expected = counts(&whole, role);
            prop_assert_eq!(&counts(&parts, role), &expected);
            prop_assert_eq!(&counts(&aged, role), &expected);
            let of_role = reports.iter().filter(|report| report.role == role);
            prop_assert_eq!(expected.0, of_role.map(|report| report.requests).sum::<u64>());
        }
    }
}
