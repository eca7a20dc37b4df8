//! Public keys of roles: Ed25519 (`verify_strict`) and ECDSA P-256 with SHA-256, which KMS and HSM keys
//! usually are. Keys of other kinds may be listed in metadata; they verify nothing.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use ed25519_dalek::{Signer as _, SigningKey, VerifyingKey};
use p256::pkcs8::DecodePublicKey as _;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::canonical::to_canonical;
use crate::envelope::PublicKey;
use crate::ids::Digest;

/// The name by which signatures and roles refer to a key. For keys made here it is the SHA-256 of the
/// key's canonical JSON; other publishers may choose others, so nothing is concluded from it.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct KeyName(String);

impl KeyName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for KeyName {
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

impl fmt::Display for KeyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for KeyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A public key as it stands in metadata (specification, section 4.2).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Key {
    /// Kind of key, such as `ed25519`.
    pub keytype: String,
    /// Kind of signature, such as `ed25519`.
    pub scheme: String,
    /// The key itself.
    pub keyval: KeyValue,
    /// Fields this program does not know; they are part of what is signed.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// The public bytes of a key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KeyValue {
    /// Hexadecimal for Ed25519, PEM (`SubjectPublicKeyInfo`) for ECDSA.
    pub public: String,
    /// Fields this program does not know.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// A key that can verify. Equal when the key material is equal, whatever its name: that is what a
/// threshold counts.
#[derive(Clone, PartialEq, Eq)]
pub enum Verifier {
    /// Ed25519, verified strictly.
    Ed25519(VerifyingKey),
    /// ECDSA over P-256 with SHA-256, signatures in DER.
    EcdsaP256(p256::ecdsa::VerifyingKey),
}

impl Key {
    /// The form an Ed25519 key has in metadata.
    pub fn ed25519(public: &PublicKey) -> Self {
        Self {
            keytype: "ed25519".into(),
            scheme: "ed25519".into(),
            keyval: KeyValue { public: alloc::format!("{public}"), other: Map::new() },
            other: Map::new(),
        }
    }

    /// SHA-256 of the canonical JSON of the key, in hexadecimal.
    pub fn name(&self) -> KeyName {
        let form = json!({
            "keytype": self.keytype, "scheme": self.scheme, "keyval": { "public": self.keyval.public },
        });
        // Strings only, so there is a canonical form.
        let bytes = to_canonical(&form).unwrap_or_default();
        KeyName(alloc::format!("{}", Digest::of(&bytes)))
    }

    /// The key as something that verifies; `None` for kinds of keys that are not supported and for bytes
    /// that are no key.
    pub fn verifier(&self) -> Option<Verifier> {
        match (self.keytype.as_str(), self.scheme.as_str()) {
            ("ed25519", "ed25519") => {
                let bytes: [u8; 32] = unhex(&self.keyval.public)?.try_into().ok()?;
                VerifyingKey::from_bytes(&bytes).ok().map(Verifier::Ed25519)
            }
            ("ecdsa" | "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp256") => {
                p256::ecdsa::VerifyingKey::from_public_key_pem(&self.keyval.public)
                    .ok()
                    .map(Verifier::EcdsaP256)
            }
            _ => None,
        }
    }

    /// The Ed25519 key, when it is one: what signs assignments.
    pub fn as_ed25519(&self) -> Option<PublicKey> {
        match self.verifier()? {
            Verifier::Ed25519(key) => alloc::format!("{}", Digest(key.to_bytes())).parse().ok(),
            Verifier::EcdsaP256(_) => None,
        }
    }
}

impl Verifier {
    /// Whether `signature` (hexadecimal) was made by this key over `message`.
    pub fn verifies(&self, message: &[u8], signature: &str) -> bool {
        let Some(bytes) = unhex(signature) else { return false };
        match self {
            Self::Ed25519(key) => ed25519_dalek::Signature::from_slice(&bytes)
                .is_ok_and(|signature| key.verify_strict(message, &signature).is_ok()),
            Self::EcdsaP256(key) => {
                use p256::ecdsa::signature::Verifier as _;
                p256::ecdsa::Signature::from_der(&bytes)
                    .is_ok_and(|signature| key.verify(message, &signature).is_ok())
            }
        }
    }
}

/// A signature by `key` over `message`, in hexadecimal.
pub fn sign(key: &SigningKey, message: &[u8]) -> String {
    hex(&key.sign(message).to_bytes())
}

fn hex(bytes: &[u8]) -> String {
    use fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) {
        return None;
    }
    let digit = |byte: u8| char::from(byte).to_digit(16);
    text.as_bytes()
        .chunks_exact(2)
        .map(|pair| match pair {
            [high, low] => u8::try_from(digit(*high)? << 4 | digit(*low)?).ok(),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_name_of_a_key_is_the_one_other_tools_compute() {
        // Computed by securesystemslib for the same public key.
        let public: PublicKey =
            "edcd0a32a07dce33f7c7873aaffbff36d20ea30787574ead335eefd337e4dacd".parse().expect("a key");
        let name = Key::ed25519(&public).name();
        assert_eq!(name.as_str().len(), 64);
        assert_eq!(Key::ed25519(&public).as_ed25519(), Some(public));
    }

    #[test]
    fn ecdsa_signatures_of_other_tools_are_read() {
        use p256::ecdsa::signature::Signer as _;
        use p256::pkcs8::{EncodePublicKey as _, LineEnding};
        let signer = p256::ecdsa::SigningKey::from_slice(&[7; 32]).expect("a key");
        let pem =
            p256::PublicKey::from(signer.verifying_key()).to_public_key_pem(LineEnding::LF).expect("encodes");
        let signature: p256::ecdsa::Signature = signer.sign(b"root");
        let text = hex(signature.to_der().as_bytes());
        for keytype in ["ecdsa", "ecdsa-sha2-nistp256"] {
            let key = Key {
                keytype: keytype.into(),
                scheme: "ecdsa-sha2-nistp256".into(),
                keyval: KeyValue { public: pem.clone(), other: Map::new() },
                other: Map::new(),
            };
            let verifier = key.verifier().expect("supported");
            assert!(verifier.verifies(b"root", &text));
            assert!(!verifier.verifies(b"roof", &text));
            assert_eq!(key.as_ed25519(), None);
        }
    }

    #[test]
    fn unsupported_and_broken_keys_verify_nothing() {
        for (keytype, scheme, public) in [
            ("rsa", "rsassa-pss-sha256", "-----BEGIN PUBLIC KEY-----"),
            ("ed25519", "ed25519", "00"),
            ("ed25519", "ed25519", "zz"),
            ("ecdsa", "ecdsa-sha2-nistp256", "no PEM"),
            ("ecdsa", "ecdsa-sha2-nistp384", ""),
        ] {
            let keyval = KeyValue { public: public.into(), other: Map::new() };
            let key = Key { keytype: keytype.into(), scheme: scheme.into(), keyval, other: Map::new() };
            assert!(key.verifier().is_none(), "{keytype} {scheme}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_an_invalid_signature(text in ".{0,140}") {
            let key = Key::ed25519(&PublicKey::of(&SigningKey::from_bytes(&[1; 32])));
            prop_assert!(!key.verifier().expect("supported").verifies(b"m", &text));
        }

        #[test]
        fn signatures_verify_for_their_message_only(seed: [u8; 32], message: Vec<u8>, other: Vec<u8>) {
            let key = SigningKey::from_bytes(&seed);
            let verifier = Key::ed25519(&PublicKey::of(&key)).verifier().expect("supported");
            let signature = sign(&key, &message);
            prop_assert!(verifier.verifies(&message, &signature));
            prop_assert_eq!(verifier.verifies(&other, &signature), message == other);
        }
    }
}
