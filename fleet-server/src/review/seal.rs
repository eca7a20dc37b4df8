//! How samples lie on disk: AES-256-GCM under a key of the server's own, with the sample's name under the seal, so
//! that one cannot be passed off as another.

use aes_gcm::aead::{Aead as _, Payload};
use aes_gcm::{Aes256Gcm, KeyInit as _, Nonce};
use zeroize::Zeroizing;

/// Bytes of a nonce. Random ones are good for 2^32 samples under one key, and 5,000 are kept at a time.
pub const NONCE_BYTES: usize = 12;

/// The key.
#[derive(Clone)]
pub struct SampleKey(Zeroizing<[u8; 32]>);

/// A sample cannot be sealed or opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealFault {
    /// It was sealed under another key or name, or is damaged.
    #[error("it does not open with this server's key")]
    Closed,
    /// It is larger than anything that can be sealed.
    #[error("it cannot be sealed")]
    TooLarge,
}

impl SampleKey {
    /// The key of these bytes.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// Seals `content` under `name` with a `nonce` that was never used before.
    pub fn seal(&self, name: &str, nonce: [u8; NONCE_BYTES], content: &[u8]) -> Result<Vec<u8>, SealFault> {
        let payload = Payload { msg: content, aad: name.as_bytes() };
        let sealed = self.cipher().encrypt(&Nonce::from(nonce), payload).map_err(|_| SealFault::TooLarge)?;
        Ok([nonce.as_slice(), &sealed].concat())
    }

    /// Opens what was sealed under `name`.
    pub fn open(&self, name: &str, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, SealFault> {
        let (nonce, sealed) = sealed.split_first_chunk::<NONCE_BYTES>().ok_or(SealFault::Closed)?;
        let payload = Payload { msg: sealed, aad: name.as_bytes() };
        let opened = self.cipher().decrypt(&Nonce::from(*nonce), payload).map_err(|_| SealFault::Closed)?;
        Ok(Zeroizing::new(opened))
    }

    fn cipher(&self) -> Aes256Gcm {
        Aes256Gcm::new((&*self.0).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_key_and_name_open_it_and_no_bit_may_change() {
        let key = SampleKey::new([1; 32]);
        let sealed = key.seal("a", [7; NONCE_BYTES], b"a face").expect("seals");
        assert!(!sealed.windows(4).any(|part| part == b"face"));
        assert_eq!(key.open("a", &sealed).expect("opens").as_slice(), b"a face");
        assert_eq!(key.open("b", &sealed).map(drop), Err(SealFault::Closed));
        assert_eq!(SampleKey::new([2; 32]).open("a", &sealed).map(drop), Err(SealFault::Closed));
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert_eq!(key.open("a", &changed).map(drop), Err(SealFault::Closed), "byte {at}");
        }
        assert_eq!(key.open("a", &[]).map(drop), Err(SealFault::Closed));
    }
}
