//! Every histogram has one form on the wire, and nothing else is taken for one.

use super::*;
use proptest::prelude::*;
use std::vec::Vec;

fn unpack(bytes: &[u8]) -> Result<Histogram, PackedError> {
    let mut histogram = Histogram::default();
    unpack_to(&mut histogram, bytes).map(|()| histogram)
}

fn packed(histogram: &Histogram) -> Vec<u8> {
    let packer = pack(histogram);
    packer.bytes[..packer.length].to_vec()
}

fn of_counts(counts: &[u64]) -> Histogram {
    let counts = heapless::Vec::from_slice(counts).expect("fits");
    Histogram { counts, under: 1, over: 2, missing: 3, mean: 1.0, m2: 2.0 }
}

#[test]
fn the_form_on_the_wire_does_not_change() {
    let form = packed(&of_counts(&[0, 127, 128, 300]));
    let mut expected = Vec::from(*b"\x04\x00\x7f\x80\x01\xac\x02\x01\x02\x03");
    expected.extend(1.0_f64.to_le_bytes());
    expected.extend(2.0_f64.to_le_bytes());
    assert_eq!(form, expected);
    let mut coded = [0; MAX_PACKED_BYTES + 2];
    let coded = postcard::to_slice(&of_counts(&[0, 127, 128, 300]), &mut coded).expect("fits");
    assert_eq!((coded[0], &coded[1..]), (26, &expected[..]));
}

#[test]
fn the_largest_fits() {
    let mut largest = of_counts(&[u64::MAX; MAX_BINS]);
    (largest.under, largest.over, largest.missing) = (u64::MAX, u64::MAX, u64::MAX);
    assert_eq!(packed(&largest).len(), MAX_PACKED_BYTES);
    assert_eq!(unpack(&packed(&largest)), Ok(largest));
}

#[test]
fn what_is_no_histogram_is_named() {
    let good = packed(&of_counts(&[5, 6, 7]));
    for length in 0..good.len() {
        assert_eq!(unpack(&good[..length]), Err(PackedError::Short), "{length}");
    }
    assert_eq!(unpack(&[&good[..], &[0]].concat()), Err(PackedError::Trailing(1)));
    assert_eq!(unpack(&[33; 400]), Err(PackedError::Bins(33)));
    let with = |counter: &[u8]| unpack(&[&[1], counter, &good[4..]].concat()).map(|it| it.counts[0]);
    assert_eq!(with(&[&[0xFF; 9][..], &[1]].concat()), Ok(u64::MAX));
    assert_eq!(with(&[&[0xFF; 9][..], &[2]].concat()), Err(PackedError::Counter));
    assert_eq!(with(&[&[0xFF; 10][..], &[1]].concat()), Err(PackedError::Counter));
    assert_eq!(with(&[0x80, 0]), Err(PackedError::Counter));
    assert_eq!(with(&[0x85, 0x80, 0]), Err(PackedError::Counter));
}

fn count() -> impl Strategy<Value = u64> {
    prop_oneof![
        4 => 0..300_u64,
        2 => any::<u64>(),
        1 => (0..64_u32, -1..=1_i64).prop_map(|(bit, by)| (1_u64 << bit).wrapping_add_signed(by)),
    ]
}

fn moment() -> impl Strategy<Value = f64> {
    prop_oneof![any::<u64>().prop_map(f64::from_bits), Just(f64::NAN), Just(f64::NEG_INFINITY), Just(-0.0)]
}

prop_compose! {
    fn histogram()(
        counts in prop::collection::vec(count(), 0..=MAX_BINS),
        (under, over, missing) in (count(), count(), count()),
        (mean, m2) in (moment(), moment()),
    ) -> Histogram {
        Histogram { counts: counts.into_iter().collect(), under, over, missing, mean, m2 }
    }
}

proptest! {
    #[test]
    fn every_histogram_survives_bit_by_bit(histogram in histogram()) {
        let mut coded = [0; MAX_PACKED_BYTES + 2];
        let coded = postcard::to_slice(&histogram, &mut coded).expect("fits");
        let (back, rest) = postcard::take_from_bytes::<Histogram>(coded).expect("decodes");
        prop_assert!(rest.is_empty());
        prop_assert!(back.categories().eq(histogram.categories()));
        prop_assert_eq!(back.mean.to_bits(), histogram.mean.to_bits());
        prop_assert_eq!(back.m2.to_bits(), histogram.m2.to_bits());
    }

    #[test]
    fn any_bytes_are_refused_or_the_form_of_what_they_say(
        bytes in prop_oneof![
            any::<Vec<u8>>(),
            (0..5_u8, prop::collection::vec(prop_oneof![0..4_u8, Just(0x80), Just(0xFF)], 16..60))
                .prop_map(|(bins, rest)| [&[bins][..], &rest].concat()),
        ],
    ) {
        if let Ok(histogram) = unpack(&bytes) {
            prop_assert_eq!(packed(&histogram), bytes);
        }
    }

    #[test]
    fn a_cut_or_longer_form_is_refused(histogram in histogram(), at: prop::sample::Index) {
        let form = packed(&histogram);
        prop_assert!(unpack(&form[..at.index(form.len())]).is_err());
        prop_assert!(unpack(&[&form[..], &[0]].concat()).is_err());
    }
}

#[cfg(feature = "alloc")]
#[test]
fn people_read_a_structure_with_names() {
    let histogram = of_counts(&[5, 6]);
    let text = serde_json::to_string(&histogram).expect("plain");
    assert_eq!(text, r#"{"counts":[5,6],"under":1,"over":2,"missing":3,"mean":1.0,"m2":2.0}"#);
    assert_eq!(serde_json::from_str::<Histogram>(&text).expect("reads"), histogram);
}
