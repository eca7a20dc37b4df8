//! Both sides draw one key; nobody else has it, and it opens nothing but what it was made for.

use super::*;
use crate::envelope::{KeyRing, open, seal_to_vec};
use crate::ids::{BootId, ByteCount, Digest, SegmentNumber, UnixMillis};
use crate::message::{Coverage, Role};
use crate::sketch::{Bins, Histogram, LatencyHistogram};
use proptest::prelude::*;

#[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
struct Other(u64);

impl Signed for Other {
    const PURPOSE: u8 = 250;
    const MAX_BYTES: usize = 256;
}

impl Tagged for Other {
    fn read(bytes: &[u8], _: Option<Box<Self>>) -> postcard::Result<(Box<Self>, &[u8])> {
        postcard::take_from_bytes(bytes).map(|(message, rest)| (Box::new(message), rest))
    }
}

const DEVICE: u8 = 1;
const SERVER: u8 = 2;

fn key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

fn public(seed: u8) -> PublicKey {
    PublicKey::of(&key(seed))
}

fn at_device(device: u8, server: u8) -> TagKey {
    TagKey::of_device(&key(device), &public(server)).expect("honest keys")
}

fn at_server(server: u8, device: u8) -> TagKey {
    TagKey::of_server(&key(server), &public(device)).expect("honest keys")
}

fn sealed(value: u64) -> Vec<u8> {
    seal_tagged_to_vec(&Other(value), &at_device(DEVICE, SERVER)).expect("fits")
}

/// As a server takes it that has the one key `SERVER` and knows the device by `device`.
fn opened(bytes: &[u8], device: u8) -> Result<Other, OpenError> {
    let known = at_server(SERVER, device);
    let key_of = |server: &KeyId| (*server == public(SERVER).id()).then_some(&known);
    open_tagged::<Other>(bytes, &public(device), key_of, None).map(|(message, _)| *message)
}

fn report() -> Report {
    Report {
        device: "d".parse().expect("name"),
        boot: BootId(1),
        sequence: 2,
        start: UnixMillis(3),
        end: UnixMillis(4),
        coverage: Coverage::Complete,
        release: "m@1".parse().expect("id"),
        role: Role::Answers,
        profile: Digest([5; 32]),
        segment: SegmentNumber(0),
        requests: 6,
        errors: 0,
        refused: 0,
        latency: LatencyHistogram::default(),
        first_feature: 0,
        features: [Histogram::over_bins(&Bins::unit(4))].into_iter().collect(),
        predictions: Histogram::default(),
        confidence: Histogram::default(),
        entropy: Histogram::default(),
        quality: None,
        worker_peak: ByteCount(7),
        worker_deaths: 0,
        dropped_reports: 0,
        comparison: None,
    }
}

#[test]
fn both_sides_draw_the_same_key_and_nobody_else_does() {
    let secret = |key: TagKey| *key.secret;
    let common = secret(at_device(DEVICE, SERVER));
    assert_eq!(common, secret(at_server(SERVER, DEVICE)));
    assert_ne!(common, secret(at_device(DEVICE, 3)));
    assert_ne!(common, secret(at_device(3, SERVER)));
    // With roles exchanged it is another one.
    assert_ne!(common, secret(at_server(DEVICE, SERVER)));
    assert!(!std::format!("{:?}", at_device(DEVICE, SERVER)).contains("secret"));
}

#[test]
fn the_key_does_not_change_from_version_to_version() {
    // Computed by an implementation of its own of the curve, X25519 and HKDF (RFC 7748, RFC 5869), in Python.
    let expected = "5247693fed3ea90cc9b416d83a6c4344fe54094abfda005fb1a3268b180bc2ed";
    assert_eq!(std::format!("{}", Digest(*at_device(DEVICE, SERVER).secret)), expected);
}

#[test]
fn keys_that_anybody_has_in_common_are_refused() {
    // Points of small order: the neutral one, and one of order four.
    let mut neutral = [0; 32];
    neutral[0] = 1;
    for weak in [neutral, [0; 32]] {
        let weak = PublicKey(Digest(weak));
        assert_eq!(TagKey::of_device(&key(DEVICE), &weak).expect_err("weak"), TagKeyError::Weak);
        assert_eq!(TagKey::of_server(&key(SERVER), &weak).expect_err("weak"), TagKeyError::Weak);
    }
    let mut none = [0; 32];
    none[0] = 2;
    let none = PublicKey(Digest(none));
    assert_eq!(TagKey::of_device(&key(DEVICE), &none).expect_err("none"), TagKeyError::NotAPoint);
}

#[test]
fn a_report_opens_under_a_tag_and_under_a_signature_with_its_bytes() {
    let tag = at_device(DEVICE, SERVER);
    let known = at_server(SERVER, DEVICE);
    let tagged = seal_tagged_to_vec(&report(), &tag).expect("fits");
    let signed = seal_to_vec(&report(), &key(DEVICE)).expect("fits");
    assert_eq!(tagged_for::<Report>(&tagged), Some(public(SERVER).id()));
    assert_eq!(tagged_for::<Report>(&signed), None);
    assert_eq!(sign_instead::<Report>(&tagged, &key(DEVICE)).expect("fits"), signed);
    for bytes in [tagged, signed] {
        let (message, coded) =
            open_tagged::<Report>(&bytes, &public(DEVICE), |_| Some(&known), None).expect("opens");
        assert_eq!(*message, report());
        assert_eq!(coded, postcard::to_allocvec(&report()).expect("fits"));
    }
}

#[test]
fn a_tag_of_another_device_or_server_is_refused() {
    assert_eq!(opened(&sealed(7), DEVICE), Ok(Other(7)));
    // On the topic of a device with another key.
    assert_eq!(opened(&sealed(7), 3), Err(OpenError::UnknownKey(public(DEVICE).id())));
    // Made by another device in this one's name.
    let mut forged = at_device(3, SERVER);
    forged.device = public(DEVICE).id();
    let forged = seal_tagged_to_vec(&Other(7), &forged).expect("fits");
    assert_eq!(opened(&forged, DEVICE), Err(OpenError::Tag(public(DEVICE).id())));
    // For another server, of whose key there is nothing here, and under its name with this one's key.
    let elsewhere = seal_tagged_to_vec(&Other(7), &at_device(DEVICE, 4)).expect("fits");
    assert_eq!(opened(&elsewhere, DEVICE), Err(OpenError::UnknownServer(public(4).id())));
    let known = at_server(SERVER, DEVICE);
    let refused = open_tagged::<Other>(&elsewhere, &public(DEVICE), |_| Some(&known), None);
    assert_eq!(refused.expect_err("refused"), OpenError::UnknownServer(public(4).id()));
}

#[test]
fn a_tag_counts_for_its_kind_only_and_nowhere_but_where_tags_do() {
    let known = at_server(SERVER, DEVICE);
    let other = sealed(7);
    let refused = open_tagged::<Report>(&other, &public(DEVICE), |_| Some(&known), None);
    assert_eq!(refused.expect_err("refused"), OpenError::Purpose { expected: Report::PURPOSE, found: 250 });
    let ring = KeyRing::<1>::new([public(DEVICE)]).expect("fits");
    assert_eq!(open::<Other, 1>(&sealed(7), &ring), Err(OpenError::Tagged));
    let brings = crate::envelope::open_self_signed(&sealed(7), |_: &Other| public(DEVICE));
    assert_eq!(brings.expect_err("refused"), OpenError::Tagged);
}

proptest! {
    #[test]
    fn any_changed_bit_is_refused(value: u64, at: prop::sample::Index, bit in 0..8_u8) {
        let mut sealed = sealed(value);
        let position = at.index(sealed.len());
        sealed[position] ^= 1 << bit;
        prop_assert!(opened(&sealed, DEVICE).is_err());
    }

    #[test]
    fn any_bytes_are_refused_without_a_crash(bytes: Vec<u8>) {
        prop_assert!(opened(&bytes, DEVICE).is_err());
        let _ = tagged_for::<Other>(&bytes);
        let _ = sign_instead::<Other>(&bytes, &key(DEVICE));
    }
}
