//! World and release told apart, and what users of drift tools complain about, each a test: that everything drifts at
//! large numbers, that small samples alarm, that many features alarm together, that a constant column is no number, that
//! a category never seen crashes or is infinitely far, and that distances of merged sketches are unstable. That
//! numbers of few different values are not taken for categories is tested where profiles are made.

use serin_protocol::ids::FieldName;
use serin_protocol::sketch::Bins;
use serin_protocol::sketch::categories::Observed;
use serin_protocol::sketch::profile::{Division, FeatureProfile};

use super::*;
use crate::stats::distance::kolmogorov_smirnov;
use crate::stats::random::SplitMix64;

fn bins() -> Bins {
    Bins::new(&(0..=16_u8).map(f32::from).collect::<Vec<_>>()).expect("edges")
}

/// `count` values spread evenly over the bins, `shift` bins further on.
fn spread(count: u32, shift: u32) -> Histogram {
    let mut histogram = Histogram::over_bins(&bins());
    let value = |at: u32| ((at % 16) + shift) as f32 + 0.5;
    histogram.record_all(&bins(), (0..count).map(value));
    histogram
}

fn cause(reference: &Histogram, release: &Histogram, control: Option<&Histogram>) -> Cause {
    judge(&[Seen { reference, release, control }])[0].cause
}

#[test]
fn the_world_moves_for_everybody_and_a_release_for_its_own_devices() {
    let (same, moved) = (spread(8000, 0), spread(8000, 4));
    assert_eq!(cause(&same, &same, Some(&same)), Cause::Steady);
    assert_eq!(cause(&same, &moved, Some(&moved)), Cause::World);
    assert_eq!(cause(&same, &moved, Some(&same)), Cause::Release);
    assert_eq!(cause(&same, &same, Some(&moved)), Cause::Release, "broken so that it still sees yesterday");
    assert_eq!(cause(&same, &moved, None), Cause::Unknown);
}

#[test]
fn many_values_do_not_make_a_small_difference_a_large_one() {
    let mut nearly = spread(10_000_000, 0);
    // A hundredth of one bin's values lies in another: certain, and of no matter.
    nearly.counts[0] -= 6250;
    nearly.counts[1] += 6250;
    let same = spread(10_000_000, 0);
    let finding = judge(&[Seen { reference: &same, release: &nearly, control: None }])[0];
    assert!(finding.p.expect("compared") < 1e-4);
    assert_eq!(finding.cause, Cause::Steady);
}

#[test]
fn few_values_raise_no_alarm() {
    assert_eq!(cause(&spread(8000, 0), &spread(99, 8), None), Cause::TooFew);
    assert_eq!(cause(&spread(8000, 0), &spread(0, 0), None), Cause::TooFew);
    // 112 values, 7 a bin, in other proportions than the reference's by chance.
    let mut chance = spread(112, 0);
    for (at, more) in [(0, 3), (5, 2), (9, 4)] {
        chance.counts[at] += more;
        chance.counts[at + 1] -= more;
    }
    assert_eq!(cause(&spread(8000, 0), &chance, None), Cause::Steady);
}

#[test]
fn a_constant_column_and_one_that_vanished() {
    let mut constant = Histogram::over_bins(&bins());
    constant.record_all(&bins(), [3.0; 500]);
    assert_eq!(cause(&constant, &constant, Some(&constant)), Cause::Steady);
    let mut missing = Histogram::over_bins(&bins());
    missing.record_all(&bins(), [f32::NAN; 500]);
    assert_eq!(cause(&constant, &missing, Some(&constant)), Cause::Release);
    // Values never seen before are no infinity.
    let mut new = Histogram::over_bins(&bins());
    new.record_all(&bins(), [15.0; 500]);
    let finding = judge(&[Seen { reference: &constant, release: &new, control: None }])[0];
    assert_eq!((finding.cause, finding.p.is_some_and(f64::is_finite)), (Cause::Unknown, true));
}

/// Thirty steady features, drawn anew sixty times: about one time in a hundred one may be said to have moved.
#[test]
fn many_features_raise_no_alarm_together() {
    let mut random = SplitMix64::new(7);
    let mut draw = |count: u32| {
        let mut histogram = Histogram::over_bins(&bins());
        let value = |_| random.below(16) as f32 + 0.5;
        histogram.record_all(&bins(), (0..count).map(value));
        histogram
    };
    let mut alarmed = || {
        let all: Vec<(Histogram, Histogram)> = (0..30).map(|_| (draw(2000), draw(400))).collect();
        let seen: Vec<_> =
            all.iter().map(|(reference, release)| Seen { reference, release, control: None }).collect();
        judge(&seen).iter().any(|finding| finding.cause != Cause::Steady)
    };
    let alarms = (0..60).filter(|_| alarmed()).count();
    assert!(alarms <= 4, "{alarms} of 60");
}

#[test]
fn a_category_that_was_never_seen_is_far_and_finite() {
    let name: FieldName = "city".parse().expect("name");
    let reference: Vec<_> =
        (0..500).map(|at| Observed::Text(if at % 2 == 0 { "Oslo" } else { "Rome" })).collect();
    let profile = FeatureProfile::categorical(name, &reference, Division::default());
    let categories = profile.categories().expect("categorical");
    let mut new = Histogram::over_bins(&profile.sketch.bins);
    for _ in 0..500 {
        new.count(categories.place(Observed::Text("Lima")));
    }
    assert_eq!(new.over, 500);
    let finding = judge(&[Seen { reference: &profile.sketch.reference, release: &new, control: None }])[0];
    assert_eq!(finding.cause, Cause::Unknown);
    let far = psi(&counts(&profile.sketch.reference), &counts(&new)).expect("values");
    assert!(far.is_finite() && far > 1.0, "{far}");
}

/// Sketches of devices are merged in whatever order reports come: the distance is the same to the last bit.
#[test]
fn the_order_in_which_devices_report_changes_no_distance() {
    let mut random = SplitMix64::new(3);
    let devices: Vec<Histogram> = (0..40)
        .map(|_| {
            let mut histogram = Histogram::over_bins(&bins());
            histogram.record_all(&bins(), (0..25).map(|_| random.below(17) as f32));
            histogram
        })
        .collect();
    let reference = spread(8000, 0);
    let distance = |devices: &[&Histogram]| {
        let mut whole = Histogram::over_bins(&bins());
        devices.iter().for_each(|device| whole.merge(device).expect("same bins"));
        kolmogorov_smirnov(&counts(&reference), &counts(&whole)).expect("values")
    };
    let mut order: Vec<&Histogram> = devices.iter().collect();
    let first = distance(&order);
    for _ in 0..20 {
        let at = random.below(40);
        order.swap(0, at);
        order.rotate_left(7);
        assert_eq!(distance(&order).to_bits(), first.to_bits());
    }
}
