//! An envelope opens with its key, for its purpose, unchanged; anything else is refused by name.

use super::*;
use crate::message::Ack;
use proptest::prelude::*;
use std::vec::Vec;

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Other(u64);
impl Signed for Other {
    const PURPOSE: u8 = 250;
    const MAX_BYTES: usize = 256;
}

fn key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

fn ring(seed: u8) -> KeyRing<2> {
    KeyRing::new([PublicKey::of(&key(seed))]).expect("fits")
}

#[test]
fn a_sealed_message_opens_with_its_key_only() {
    let sealed = seal_to_vec(&Other(7), &key(1)).expect("seals");
    assert_eq!(open::<Other, 2>(&sealed, &ring(1)), Ok(Other(7)));
    assert!(matches!(open::<Other, 2>(&sealed, &ring(2)), Err(OpenError::UnknownKey(_))));
}

#[test]
fn a_signature_for_one_purpose_is_refused_for_another() {
    let sealed = seal_to_vec(&Other(7), &key(1)).expect("seals");
    let refused = open::<Ack, 2>(&sealed, &ring(1));
    assert_eq!(refused, Err(OpenError::Purpose { expected: Ack::PURPOSE, found: 250 }));
}

#[test]
fn oversized_empty_and_future_messages_are_named() {
    assert_eq!(open::<Other, 2>(&[], &ring(1)), Err(OpenError::Empty));
    assert_eq!(open::<Other, 2>(&[9, 0], &ring(1)), Err(OpenError::Version(9)));
    let refused = open::<Other, 2>(&[1; 257], &ring(1));
    assert_eq!(refused, Err(OpenError::TooLarge { limit: 256, actual: 257 }));
    let mut sealed = seal_to_vec(&Other(7), &key(1)).expect("seals");
    sealed.push(0);
    assert_eq!(open::<Other, 2>(&sealed, &ring(1)), Err(OpenError::Trailing(1)));
}

proptest! {
    #[test]
    fn any_changed_bit_is_refused(value: u64, at: prop::sample::Index, bit in 0..8_u8) {
        let mut sealed = seal_to_vec(&Other(value), &key(1)).expect("seals");
        let position = at.index(sealed.len());
        sealed[position] ^= 1 << bit;
        prop_assert!(open::<Other, 2>(&sealed, &ring(1)).is_err());
    }

    #[test]
    fn any_bytes_are_refused_without_a_crash(bytes: Vec<u8>) {
        prop_assert!(open::<Other, 2>(&bytes, &ring(1)).is_err());
    }
}
