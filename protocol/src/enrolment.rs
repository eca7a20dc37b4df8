//! How a device with a key of its own becomes one of a fleet: it proves that it was given a claim token,
//! without saying it. The proof is HMAC-SHA256 (RFC 2104) under the token's secret over who enrols with
//! which key, so that it is worth nothing to whoever overhears it.

use core::fmt;
use core::str::FromStr;

use hmac::{Hmac, KeyInit as _, Mac as _};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use crate::envelope::{PublicKey, Signed};
use crate::ids::{DeviceId, Digest, FleetId};
use crate::message::Hello;

/// Largest enrolment: a hello with a proof.
pub const MAX_ENROLMENT_BYTES: usize = 2560;
/// Largest answer to one.
pub const MAX_ENROLLED_BYTES: usize = 512;

/// What begins the text of a token.
const PREFIX: &str = "serin-";

/// The public half of a claim token, by which the server finds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TokenId(pub u64);

impl fmt::Display for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl FromStr for TokenId {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let digits = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let number = u64::from_str_radix(text, 16).map_err(|_| TokenError)?;
        if digits { Ok(Self(number)) } else { Err(TokenError) }
    }
}

/// A claim token: whoever has it may enrol one device. Its text is `serin-<id>-<secret>`. It is wiped from
/// memory when it is dropped.
#[derive(Clone)]
pub struct ClaimToken {
    /// Finds it.
    pub id: TokenId,
    secret: Zeroizing<[u8; 32]>,
}

/// Takes as long whatever differs.
impl PartialEq for ClaimToken {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id && bool::from(self.secret.as_slice().ct_eq(other.secret.as_slice()))
    }
}

impl Eq for ClaimToken {}

/// A text is no claim token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a claim token is written as serin-<16 digits>-<64 digits>")]
pub struct TokenError;

impl ClaimToken {
    /// A token of random bytes.
    pub fn new(id: TokenId, secret: [u8; 32]) -> Self {
        Self { id, secret: Zeroizing::new(secret) }
    }

    /// The text to be carried to the device. It is a secret.
    pub fn text(&self) -> heapless::String<96> {
        let mut text = heapless::String::new();
        // 6 + 16 + 1 + 64 characters fit.
        let _ =
            fmt::Write::write_fmt(&mut text, format_args!("{PREFIX}{}-{}", self.id, Digest(*self.secret)));
        text
    }

    /// What proves that this token enrols this device of this fleet with this key.
    pub fn proof(&self, fleet: &FleetId, device: &DeviceId, key: &PublicKey) -> [u8; 32] {
        self.transcript(fleet, device, key).finalize().into_bytes().into()
    }

    /// Whether `proof` is that; takes as long whatever differs.
    pub fn proves(&self, fleet: &FleetId, device: &DeviceId, key: &PublicKey, proof: &[u8; 32]) -> bool {
        self.transcript(fleet, device, key).verify_slice(proof).is_ok()
    }

    /// Each name is followed by a zero byte, which names do not hold.
    fn transcript(&self, fleet: &FleetId, device: &DeviceId, key: &PublicKey) -> Hmac<Sha256> {
        // A key shorter than the hash's block is filled up with zeros (RFC 2104, section 2).
        let mut block = Zeroizing::new([0; 64]);
        block.iter_mut().zip(*self.secret).for_each(|(to, from)| *to = from);
        let mut mac = Hmac::<Sha256>::new((&*block).into());
        mac.update(b"serin enrolment 1\0");
        for name in [fleet.as_str(), device.as_str()] {
            mac.update(name.as_bytes());
            mac.update(b"\0");
        }
        mac.update(&key.id().0.0);
        mac.update(&self.id.0.to_be_bytes());
        mac
    }
}

impl FromStr for ClaimToken {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let (id, secret) =
            text.trim().strip_prefix(PREFIX).and_then(|rest| rest.split_once('-')).ok_or(TokenError)?;
        let secret: Digest = secret.parse().map_err(|_| TokenError)?;
        Ok(Self { id: id.parse()?, secret: Zeroizing::new(secret.0) })
    }
}

impl fmt::Debug for ClaimToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClaimToken").field("id", &self.id).finish_non_exhaustive()
    }
}

/// A device asks to be one of the fleet; signed with the key that it brings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enrolment {
    /// Who it is and what it holds.
    pub hello: Hello,
    /// The token it was given.
    pub token: TokenId,
    /// See [`ClaimToken::proof`].
    pub proof: [u8; 32],
}

/// The server's answer, signed by the fleet's key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enrolled {
    /// The device.
    pub device: DeviceId,
    /// The key it brought.
    pub key: PublicKey,
    /// The token it named.
    pub token: TokenId,
    /// Why it is not one of the fleet; none when it is.
    pub refused: Option<EnrolmentRefusal>,
}

/// Why a device is not enrolled. Append only: postcard numbers the variants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum EnrolmentRefusal {
    /// No such token, or the wrong secret: which of them is not said.
    #[error("the token is not valid here")]
    Token,
    /// It was good for a while.
    #[error("the token has expired")]
    Expired,
    /// It was good for one device.
    #[error("the token has been used")]
    Used,
    /// It is good for another device.
    #[error("the token is for another device")]
    OtherDevice,
    /// The name is taken by a device with another key.
    #[error("a device of this name is enrolled with another key")]
    NameTaken,
    /// The device was cut off.
    #[error("this device was revoked")]
    Revoked,
    /// There are as many devices as there may be.
    #[error("the fleet is full")]
    FleetFull,
}

impl Signed for Enrolment {
    const PURPOSE: u8 = 7;
    const MAX_BYTES: usize = MAX_ENROLMENT_BYTES;
}

impl Signed for Enrolled {
    const PURPOSE: u8 = 8;
    const MAX_BYTES: usize = MAX_ENROLLED_BYTES;
}

#[cfg(test)]
mod tests {
    use super::*;
    use ed25519_dalek::SigningKey;
    use proptest::prelude::*;
    use std::string::ToString;

    fn key(seed: u8) -> PublicKey {
        PublicKey::of(&SigningKey::from_bytes(&[seed; 32]))
    }

    #[test]
    fn a_proof_is_good_for_one_device_one_key_one_fleet_and_one_token() {
        let token = ClaimToken::new(TokenId(7), [9; 32]);
        let (fleet, device): (FleetId, DeviceId) = ("f".parse().expect("name"), "d".parse().expect("name"));
        let proof = token.proof(&fleet, &device, &key(1));
        assert!(token.proves(&fleet, &device, &key(1), &proof));
        assert!(!token.proves(&fleet, &device, &key(2), &proof));
        assert!(!token.proves(&"g".parse().expect("name"), &device, &key(1), &proof));
        assert!(!token.proves(&fleet, &"e".parse().expect("name"), &key(1), &proof));
        assert!(!ClaimToken::new(TokenId(8), [9; 32]).proves(&fleet, &device, &key(1), &proof));
        assert!(!ClaimToken::new(TokenId(7), [8; 32]).proves(&fleet, &device, &key(1), &proof));
    }

    #[test]
    fn a_token_survives_text_and_is_never_printed() {
        let token = ClaimToken::new(TokenId(u64::MAX), [0xab; 32]);
        let text = token.text();
        assert_eq!(text.parse::<ClaimToken>(), Ok(token.clone()));
        assert!(!std::format!("{token:?}").contains("abab"));
        for bad in ["", "serin-", "serin-1-2", &text[1..], &text[..text.len() - 1]] {
            assert_eq!(bad.parse::<ClaimToken>(), Err(TokenError), "{bad}");
        }
        assert_eq!(TokenId(3).to_string().parse::<TokenId>(), Ok(TokenId(3)));
        assert!("+000000000000003".parse::<TokenId>().is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_a_token_or_an_error(text in ".{0,100}") {
            let _ = text.parse::<ClaimToken>();
        }
    }
}
