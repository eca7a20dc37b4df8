//! Ed25519 keys in files: the private one for its owner's eyes only, encrypted with a passphrase (PKCS#8 with
//! PBES2: scrypt and AES-256, which OpenSSL reads too) or in hexadecimal, the public one beside it under the
//! same name with `.pub`.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::str::FromStr as _;

use ed25519_dalek::pkcs8::KeypairBytes;
use ed25519_dalek::{SigningKey, VerifyingKey};
use pkcs8::{DecodePrivateKey as _, DecodePublicKey as _, EncodePrivateKey as _, LineEnding};
use serin_protocol::envelope::{KeyError, PublicKey};
use serin_protocol::trust::Key;
use serin_protocol::trust::key::KeyValue;
use zeroize::Zeroizing;

/// Largest key file read: an encrypted key has about 400 bytes.
const MAX_BYTES: u64 = 4096;

/// How an encrypted key begins.
const ENCRYPTED: &[u8] = b"-----BEGIN ENCRYPTED PRIVATE KEY-----";

/// How a public key in PEM begins.
const PUBLIC: &str = "-----BEGIN PUBLIC KEY-----";

/// A key cannot be made or used.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// A file cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// There is a file already, perhaps with a key that is in use.
    #[error("{} exists and is not overwritten", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// Others may read the private key.
    #[error("{}: mode {mode:o} lets others read the private key", path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It does not hold a private key.
    #[error("{}: not a private key (64 hexadecimal digits)", path.display())]
    NotPrivate {
        /// The file.
        path: PathBuf,
    },
    /// It is encrypted, and no passphrase was given.
    #[error("{}: the private key is encrypted", path.display())]
    Locked {
        /// The file.
        path: PathBuf,
    },
    /// The passphrase is not the one.
    #[error("{}: wrong passphrase, or the file is damaged", path.display())]
    Passphrase {
        /// The file.
        path: PathBuf,
    },
    /// It could not be encrypted.
    #[error("the key cannot be encrypted: {0}")]
    Encrypt(pkcs8::Error),
    /// It does not hold a public key.
    #[error("{origin}: {source}")]
    NotPublic {
        /// The file or the text.
        origin: String,
        /// Why.
        source: KeyError,
    },
    /// A kind of key that devices do not verify.
    #[error("{}: neither an Ed25519 nor an ECDSA P-256 public key", path.display())]
    OtherKind {
        /// The file.
        path: PathBuf,
    },
    /// The system has no randomness.
    #[error("no randomness to make a key: {0}")]
    Random(String),
}

impl KeyFileError {
    /// What the operator can do next, where that is known.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Exists { .. } => Some("name another file, or move this one away".into()),
            Self::Exposed { path, .. } => Some(format!("run chmod 600 {}", path.display())),
            Self::NotPrivate { .. } => Some("make one with serin-fleet keys generate --out PATH".into()),
            Self::Locked { .. } => Some(
                "run it on a terminal, or name a file with its passphrase in SERIN_PASSPHRASE_FILE".into(),
            ),
            Self::NotPublic { .. } => Some("pass the .pub file of keys generate, or its 64 digits".into()),
            Self::OtherKind { .. } => {
                Some("make one of these kinds; RSA and other curves are not verified".into())
            }
            Self::Io { .. } | Self::Random(_) | Self::Passphrase { .. } | Self::Encrypt(_) => None,
        }
    }
}

/// Where the public half of the key at `path` is.
pub fn public_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".pub");
    name.into()
}

/// Makes a key: the private half at `path`, encrypted if there is a passphrase, the public half beside it.
/// Neither may exist.
pub fn generate(path: &Path, passphrase: Option<&str>) -> Result<PublicKey, KeyFileError> {
    let public = public_path(path);
    if let Some(path) = [path, &public].into_iter().find(|path| path.exists()) {
        return Err(KeyFileError::Exists { path: path.into() });
    }
    let mut seed = Zeroizing::new([0_u8; 32]);
    getrandom::fill(seed.as_mut_slice()).map_err(|error| KeyFileError::Random(error.to_string()))?;
    let signer = SigningKey::from_bytes(&seed);
    let text = match passphrase {
        Some(passphrase) => {
            // Without the public half, which OpenSSL 3.0 does not expect there.
            let bare = KeypairBytes { secret_key: *seed, public_key: None };
            bare.to_pkcs8_encrypted_pem(passphrase, LineEnding::LF).map_err(KeyFileError::Encrypt)?
        }
        None => Zeroizing::new(hex::encode(seed.as_slice())),
    };
    let key = PublicKey::of(&signer);
    write_new(path, 0o600, text.as_bytes())?;
    write_new(&public, 0o644, format!("{key}\n").as_bytes())?;
    Ok(key)
}

fn write_new(path: &Path, mode: u32, bytes: &[u8]) -> Result<(), KeyFileError> {
    let opened = OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    let written = opened.and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    written.map_err(|source| match source.kind() {
        io::ErrorKind::AlreadyExists => KeyFileError::Exists { path: path.into() },
        _ => KeyFileError::Io { path: path.into(), source },
    })
}

/// The private key at `path`, which nobody else may be able to read.
pub fn read_private(path: &Path, passphrase: Option<&str>) -> Result<SigningKey, KeyFileError> {
    let failed = |source| KeyFileError::Io { path: path.into(), source };
    let file = File::open(path).map_err(failed)?;
    let mode = file.metadata().map_err(failed)?.mode();
    if mode & 0o077 != 0 {
        return Err(KeyFileError::Exposed { path: path.into(), mode: mode & 0o7777 });
    }
    // Room for all of it, so that no copy stays behind in memory that was outgrown.
    let mut text = Zeroizing::new(Vec::with_capacity(2 * MAX_BYTES as usize));
    file.take(MAX_BYTES).read_to_end(&mut text).map_err(failed)?;
    if text.starts_with(ENCRYPTED) {
        let passphrase = passphrase.ok_or_else(|| KeyFileError::Locked { path: path.into() })?;
        let wrong = || KeyFileError::Passphrase { path: path.into() };
        let text = std::str::from_utf8(&text).map_err(|_| wrong())?;
        return SigningKey::from_pkcs8_encrypted_pem(text, passphrase).map_err(|_| wrong());
    }
    let mut seed = Zeroizing::new([0_u8; 32]);
    hex::decode_to_slice(text.trim_ascii(), seed.as_mut_slice())
        .map_err(|_| KeyFileError::NotPrivate { path: path.into() })?;
    Ok(SigningKey::from_bytes(&seed))
}

/// The public key in `text`, as metadata lists it: the digits of an Ed25519 key, or the name of a file with them or
/// with a key in PEM (`SubjectPublicKeyInfo`), Ed25519 or ECDSA P-256, as key services and other tools write it.
pub fn read_key(text: &str) -> Result<Key, KeyFileError> {
    let failed = |source| KeyFileError::Io { path: text.into(), source };
    let mut pem = String::new();
    if Path::new(text).exists() {
        File::open(text).map_err(failed)?.take(MAX_BYTES).read_to_string(&mut pem).map_err(failed)?;
    }
    if !pem.trim_start().starts_with(PUBLIC) {
        return Ok(Key::ed25519(&read_public(text)?));
    }
    if let Ok(key) = VerifyingKey::from_public_key_pem(pem.trim()) {
        return PublicKey::from_str(&hex::encode(key.as_bytes()))
            .map(|key| Key::ed25519(&key))
            .map_err(|source| KeyFileError::NotPublic { origin: text.into(), source });
    }
    // With one line end behind it, as other tools write it: its name is a hash of the text.
    let keyval = KeyValue { public: format!("{}\n", pem.trim()), other: serde_json::Map::new() };
    let key = Key {
        keytype: "ecdsa".into(),
        scheme: "ecdsa-sha2-nistp256".into(),
        keyval,
        other: serde_json::Map::new(),
    };
    if key.verifier().is_none() {
        return Err(KeyFileError::OtherKind { path: text.into() });
    }
    Ok(key)
}

/// The public key in `text`: its digits, or the name of a file with them.
pub fn read_public(text: &str) -> Result<PublicKey, KeyFileError> {
    let looks_like_digits = text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if looks_like_digits {
        return text.parse().map_err(|source| KeyFileError::NotPublic { origin: text.into(), source });
    }
    let read = |file: File| {
        let mut digits = String::new();
        file.take(MAX_BYTES).read_to_string(&mut digits).map(|_| digits)
    };
    let digits =
        File::open(text).and_then(read).map_err(|source| KeyFileError::Io { path: text.into(), source })?;
    digits.trim().parse().map_err(|source| KeyFileError::NotPublic { origin: text.into(), source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn both_halves_are_read_back_and_never_overwritten() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("owner.key");
        let made = generate(&path, None).expect("made");
        assert_eq!(fs::metadata(&path).expect("there").mode() & 0o777, 0o600);
        assert_eq!(PublicKey::of(&read_private(&path, None).expect("private")), made);
        let public = public_path(&path);
        assert_eq!(read_public(public.to_str().expect("plain")).expect("file"), made);
        assert_eq!(read_public(&made.to_string()).expect("digits"), made);
        assert!(matches!(generate(&path, None), Err(KeyFileError::Exists { .. })));
        fs::remove_file(&path).expect("ours");
        assert!(matches!(generate(&path, None), Err(KeyFileError::Exists { path }) if path == public));
        assert!(!path.exists());
    }

    #[test]
    fn an_exposed_or_malformed_private_key_is_refused() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("owner.key");
        generate(&path, None).expect("made");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).expect("ours");
        let error = read_private(&path, None).expect_err("exposed");
        assert!(error.to_string().contains("640") && error.hint().is_some());
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("ours");
        fs::write(&path, "half a ke").expect("ours");
        assert!(matches!(read_private(&path, None), Err(KeyFileError::NotPrivate { .. })));
    }

    #[test]
    fn an_encrypted_key_opens_with_its_passphrase_only() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("owner.key");
        let made = generate(&path, Some("correct horse")).expect("made");
        assert!(fs::read(&path).expect("there").starts_with(ENCRYPTED));
        let opened = read_private(&path, Some("correct horse")).expect("opens");
        assert_eq!(PublicKey::of(&opened), made);
        let wrong = read_private(&path, Some("battery staple"));
        assert!(matches!(wrong, Err(KeyFileError::Passphrase { .. })), "{wrong:?}");
        let locked = read_private(&path, None).expect_err("is locked");
        assert!(matches!(locked, KeyFileError::Locked { .. }) && locked.hint().is_some());
    }

    #[test]
    fn keys_in_pem_are_read_as_other_tools_name_them() {
        let folder = tempfile::tempdir().expect("folder");
        let file = |name: &str, pem: &str| {
            let path = folder.path().join(name);
            fs::write(&path, pem).expect("ours");
            path.to_str().expect("plain").to_owned()
        };
        // Made by OpenSSL; the name was computed by securesystemslib.
        let ecdsa = "-----BEGIN PUBLIC KEY-----\n\
            MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEjlM7b6C/e0YluzBmfAH7YH75+Lio\n\
            D+9bMAYocDGHsqNz6x294DMYNm0Gn4Om9ZAAU8c2M8sEGyHFXhqGwfQAtA==\n\
            -----END PUBLIC KEY-----";
        let key = read_key(&file("ecdsa.pem", ecdsa)).expect("is read");
        assert_eq!(
            (key.keytype.as_str(), key.name().as_str()),
            ("ecdsa", "2b295981fe4f7f65f7ea622bc720720aff3da878049ac8fcfd4635fb10c7e7b1")
        );
        let p384 = "-----BEGIN PUBLIC KEY-----\n\
            MHYwEAYHKoZIzj0CAQYFK4EEACIDYgAEKDwdc2XOR4jyn46/I07f/q1v6Zf76l/6\n\
            LVjMnfp7HFCLBVJvVbnrsgQPBbSPttDhlHXJkGHkG4i6Uu/bjBaQRxph2GfteZcp\n\
            2cks0B29IlYw2E7eMqePnmRmTNrFEu+M\n\
            -----END PUBLIC KEY-----";
        let refused = read_key(&file("p384.pem", p384)).expect_err("no device verifies it");
        assert!(matches!(refused, KeyFileError::OtherKind { .. }) && refused.hint().is_some());
        let ed25519 = "-----BEGIN PUBLIC KEY-----\n\
            MCowBQYDK2VwAyEA6kpsY+KcUgq+9VB7Ey7F+ZVHdq6+vnuSQh7qaRRG0iw=\n\
            -----END PUBLIC KEY-----";
        assert_eq!(
            read_key(&file("ed25519.pem", ed25519)).expect("is read").name().as_str(),
            "bfe1a83869e5bf574e3ff3acbb83f840de84a990d10059f3096f0bf4f2b90c10"
        );
    }

    #[test]
    fn what_is_not_a_public_key_is_named() {
        assert!(read_public("/absent.pub").expect_err("absent").to_string().contains("/absent.pub"));
        assert!(matches!(read_public(&"A".repeat(64)), Err(KeyFileError::NotPublic { .. })));
    }
}
