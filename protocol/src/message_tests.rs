//! Every message survives the wire, the largest ones fit their caps, and any bytes get an answer.

use super::*;
use crate::assignment::{Assignment, Order, Probation, ReleaseRef};
use crate::envelope::{KeyRing, open, seal_to_vec};
use crate::ids::{BasisPoints, Millis, SegmentNumber};
use crate::sketch::{Bins, ClassQuality, Histogram, LatencyHistogram, MAX_BINS, Quality};
use ed25519_dalek::SigningKey;
use proptest::prelude::*;
use std::boxed::Box;
use std::vec::Vec;

fn key() -> SigningKey {
    SigningKey::from_bytes(&[3; 32])
}

fn ring() -> KeyRing<1> {
    KeyRing::new([PublicKey::of(&key())]).expect("fits")
}

fn survives<T: Signed + PartialEq + core::fmt::Debug>(message: &T) {
    let sealed = seal_to_vec(message, &key()).expect("fits its cap");
    assert_eq!(open::<T, 1>(&sealed, &ring()).as_ref(), Ok(message));
}

fn longest_release_id() -> ReleaseId {
    ReleaseId { model: "m".repeat(48).parse().expect("name"), version: "v".repeat(48).parse().expect("name") }
}

fn longest_device() -> DeviceId {
    "d".repeat(64).parse().expect("name")
}

fn event(kind: EventKind) -> Event {
    Event {
        device: longest_device(),
        number: EventNumber(u64::MAX),
        at: UnixMillis(u64::MAX),
        sequence: SequenceNumber(u64::MAX),
        rollout: Some(RolloutId(u64::MAX)),
        kind,
    }
}

#[test]
fn the_largest_of_every_kind_fits_its_cap() {
    let id = longest_release_id();
    let detail = Detail::new(&"é".repeat(DETAIL_BYTES));
    assert_eq!(detail.as_str().len(), DETAIL_BYTES);
    survives(&event(EventKind::Transition {
        release: id.clone(),
        from: Phase::Warming,
        to: Phase::Rejected,
        reason: Some(Reason::BadBundle(detail.clone())),
    }));
    survives(&event(EventKind::FieldRollback { uid: u32::MAX, from: id.clone(), to: id.clone() }));
    let interface = "i".repeat(MAX_INTERFACE_BYTES).parse().expect("fits");
    survives(&event(EventKind::Planned {
        release: id.clone(),
        transfer: TransferKind::Full,
        fetch: ByteCount(u64::MAX),
        here: ByteCount(u64::MAX),
        start: Start::Later { why: Wait::Metered { interface }, until: Some(UnixMillis(u64::MAX)) },
    }));
    let why = Wait::FreeSpace { free: ByteCount(u64::MAX), needed: ByteCount(u64::MAX) };
    survives(&event(EventKind::Waiting { release: id.clone(), why, until: None }));
    survives(&event(EventKind::Refused { kind: RefusedKind::Chunk, detail }));
    survives(&Hello {
        device: longest_device(),
        fleet: "f".repeat(32).parse().expect("name"),
        key: PublicKey::of(&key()),
        boot: BootId(u64::MAX),
        turn: Turn { connection: u32::MAX, number: u32::MAX },
        presence: Presence::Offline,
        agent: "9".repeat(32).parse().expect("fits"),
        target: "t".repeat(32).parse().expect("name"),
        memory_budget: ByteCount(u64::MAX),
        free_space: ByteCount(u64::MAX),
        sequence: SequenceNumber(u64::MAX),
        active: Some(id.clone()),
        previous: Some(id.clone()),
        candidate: Some(id.clone()),
        pinned: true,
        decoders: crate::release::Decoder::ALL.into_iter().collect(),
    });
    survives(&Ack { device: longest_device(), stored: EventNumber(u64::MAX) });
    let release = ReleaseRef { id: id.clone(), statement: Digest([9; 32]) };
    for order in [
        Order::Run { release: release.clone(), probation: Probation::default() },
        Order::RollBack { from: id.clone(), to: release },
        Order::Stay,
    ] {
        survives(&Assignment {
            device: longest_device(),
            fleet: "f".repeat(32).parse().expect("name"),
            sequence: SequenceNumber(u64::MAX),
            rollout: Some(RolloutId(u64::MAX)),
            issued: UnixMillis(u64::MAX),
            expires: UnixMillis(u64::MAX),
            order,
        });
    }
}

/// Of 64 full histograms.
fn full_report() -> Report {
    let bins = Bins::classes(MAX_BINS);
    let mut histogram = Histogram::over_bins(&bins);
    // A week of 30 inferences a second in every bin.
    histogram.counts.iter_mut().for_each(|count| *count = 18_000_000);
    (histogram.under, histogram.over, histogram.missing) = (18_000_000, 18_000_000, 18_000_000);
    let mut latency = LatencyHistogram::default();
    latency.record_micros(77);
    Report {
        role: Role::Shadow,
        comparison: Some(Comparison::new("m@1".parse().expect("id"))),
        device: longest_device(),
        boot: BootId(u64::MAX),
        sequence: u64::MAX,
        start: UnixMillis(u64::MAX),
        end: UnixMillis(u64::MAX),
        coverage: Coverage::Partial,
        release: longest_release_id(),
        profile: Digest([1; 32]),
        segment: SegmentNumber(4),
        requests: u64::MAX,
        errors: u64::MAX,
        refused: u64::MAX,
        latency,
        first_feature: u16::MAX,
        features: core::iter::repeat_n(histogram.clone(), MAX_REPORT_FEATURES).collect(),
        predictions: histogram.clone(),
        confidence: histogram.clone(),
        entropy: histogram,
        quality: Some(Quality::Classes(ClassQuality { labelled: u64::MAX, ..ClassQuality::default() })),
        worker_peak: ByteCount(u64::MAX),
        worker_deaths: u32::MAX,
        dropped_reports: u32::MAX,
    }
}

/// Differs from [`full_report`] in every field.
fn other_report(features: usize) -> Report {
    let histogram = Histogram { under: 5, ..Histogram::over_bins(&Bins::classes(9)) };
    Report {
        role: Role::Arm,
        comparison: Some(Comparison::new("x@9".parse().expect("id"))),
        device: "other".parse().expect("name"),
        boot: BootId(1),
        sequence: 2,
        start: UnixMillis(3),
        end: UnixMillis(4),
        coverage: Coverage::Empty,
        release: "x@8".parse().expect("id"),
        profile: Digest([9; 32]),
        segment: SegmentNumber(1),
        requests: 5,
        errors: 6,
        refused: 7,
        latency: LatencyHistogram::default(),
        first_feature: 8,
        features: core::iter::repeat_n(histogram.clone(), features).collect(),
        predictions: histogram.clone(),
        confidence: histogram.clone(),
        entropy: histogram,
        quality: Some(Quality::Classes(ClassQuality { labelled: 9, ..ClassQuality::default() })),
        worker_peak: ByteCount(10),
        worker_deaths: 11,
        dropped_reports: 12,
    }
}

#[test]
fn a_report_of_64_full_histograms_fits_its_cap() {
    survives(&full_report());
}

#[test]
fn a_report_read_to_its_place_is_the_one_that_postcard_reads() {
    let mut small = full_report();
    small.features.truncate(3);
    (small.quality, small.comparison) = (None, None);
    for report in std::vec![full_report(), small] {
        let mut coded = postcard::to_allocvec(&report).expect("fits");
        coded.push(7);
        let (read, rest) = Report::read(&coded, None).expect("reads");
        assert_eq!((&*read, rest), (&report, &[7][..]));
        // Also over another one.
        for features in [0, 2, 64] {
            let spare = other_report(features);
            let (read, rest) = Report::read(&coded, Some(Box::new(spare))).expect("reads");
            assert_eq!((&*read, rest), (&report, &[7][..]));
        }
        coded.pop();
        for length in 0..coded.len() {
            assert!(Report::read(&coded[..length], None).is_err(), "{length}");
            let spare = Some(Box::new(other_report(2)));
            assert!(Report::read(&coded[..length], spare).is_err(), "{length}");
        }
    }
    // One histogram more than there may be.
    let more: heapless::Vec<Histogram, 65> =
        core::iter::repeat_n(Histogram::default(), MAX_REPORT_FEATURES + 1).collect();
    let coded = postcard::to_allocvec(&more).expect("fits");
    let mut source = postcard::Deserializer::from_bytes(&coded);
    assert!(crate::sketch::packed::list::<_, MAX_REPORT_FEATURES>(&mut source).is_err());
}

#[test]
fn the_largest_feature_takes_less_than_a_kilobyte() {
    let largest = |bins: usize| {
        let mut histogram = Histogram::over_bins(&Bins::classes(bins));
        histogram.counts.iter_mut().for_each(|count| *count = u64::MAX);
        (histogram.under, histogram.over, histogram.missing) = (u64::MAX, u64::MAX, u64::MAX);
        (histogram.mean, histogram.m2) = (f64::MAX, f64::MAX);
        let mut buffer = [0; 1024];
        postcard::to_slice(&histogram, &mut buffer).map(|coded| coded.len())
    };
    // No counter is larger, no sketch has more bins; categories have 15. Two bytes say how long it is.
    assert_eq!(largest(MAX_BINS), Ok(2 + 1 + 35 * 10 + 16));
    assert!(largest(crate::sketch::profile::FEATURE_BINS).is_ok_and(|bytes| bytes < 256));
}

#[test]
fn purposes_are_unique() {
    let purposes = [
        Assignment::PURPOSE,
        Hello::PURPOSE,
        Event::PURPOSE,
        Report::PURPOSE,
        Ack::PURPOSE,
        crate::enrolment::Enrolment::PURPOSE,
        crate::enrolment::Enrolled::PURPOSE,
        crate::pause::Pause::PURPOSE,
    ];
    let distinct: std::collections::BTreeSet<u8> = purposes.into_iter().collect();
    assert_eq!(distinct.len(), purposes.len());
}

#[test]
fn the_wire_form_of_an_assignment_does_not_change() {
    let assignment = Assignment {
        device: "d1".parse().expect("name"),
        fleet: "f".parse().expect("name"),
        sequence: SequenceNumber(5),
        rollout: Some(RolloutId(2)),
        issued: UnixMillis(1000),
        expires: UnixMillis(2000),
        order: Order::Run {
            release: ReleaseRef { id: "m@1".parse().expect("id"), statement: Digest([0xAB; 32]) },
            probation: Probation {
                duration: Millis(3000),
                max_error_rate: BasisPoints(500),
                min_requests: 20,
                max_worker_deaths: 1,
            },
        },
    };
    let mut buffer = [0; 256];
    let coded = postcard::to_slice(&assignment, &mut buffer).expect("fits");
    let mut expected = Vec::from(*b"\x02d1\x01f\x05\x01\x02\xe8\x07\xd0\x0f\x00\x01m\x011");
    expected.extend([0xAB; 32]);
    expected.extend(*b"\xb8\x17\xf4\x03\x14\x01");
    assert_eq!(coded, expected);
}

proptest! {
    #[test]
    fn any_text_becomes_a_detail(text: std::string::String) {
        let detail = Detail::new(&text);
        prop_assert!(detail.as_str().len() <= DETAIL_BYTES);
        prop_assert!(text.starts_with(detail.as_str()));
    }

    #[test]
    fn any_bytes_decode_or_err(bytes: Vec<u8>) {
        let _ = postcard::from_bytes::<Event>(&bytes);
        let plain = postcard::take_from_bytes::<Report>(&bytes).ok().map(|(report, _)| report);
        prop_assert!(Report::read(&bytes, None).is_ok() == plain.is_some());
        let _ = postcard::from_bytes::<Hello>(&bytes);
        let _ = postcard::from_bytes::<Assignment>(&bytes);
    }
}
