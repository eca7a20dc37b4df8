//! The server's own secrets, made at the first start and kept in `keys/`, readable by nobody else.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use ed25519_dalek::SigningKey;
use serin_protocol::envelope::PublicKey;
use serin_protocol::ids::Digest;
use serin_protocol::trust::Key;
use serin_protocol::trust::signed::key_table;
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use crate::durable;
use crate::trust::Online;

/// A secret cannot be made or read.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The file system.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file does not hold 64 hexadecimal digits.
    #[error("{} does not hold a secret of 64 hexadecimal digits", .0.display())]
    Malformed(PathBuf),
    /// There is no randomness to make one of.
    #[error("no randomness: {0}")]
    Random(getrandom::Error),
}

/// All of them.
pub struct Secrets {
    /// Signs assignments and acknowledgements.
    pub fleet: SigningKey,
    /// Signs which targets metadata is current.
    pub snapshot: SigningKey,
    /// Signs which snapshot is current.
    pub timestamp: SigningKey,
    /// Lets operators change things.
    pub operator: OperatorToken,
    /// Lets the server's own client into the embedded broker.
    pub broker: Zeroizing<String>,
}

/// What an operator shows to be let in.
#[derive(Clone)]
pub struct OperatorToken(Digest);

impl OperatorToken {
    /// The token with this text.
    pub fn new(text: &str) -> Self {
        Self(Digest::of(text.as_bytes()))
    }

    /// Whether `presented` is it. Compares digests, so that the time taken teaches nothing.
    pub fn matches(&self, presented: &str) -> bool {
        self.0.0.ct_eq(&Digest::of(presented.as_bytes()).0).into()
    }
}

impl Secrets {
    /// Reads them from `data/keys`, making those that are missing.
    pub fn open(data: &Path) -> Result<Self, SecretError> {
        let folder = data.join("keys");
        fs::create_dir_all(&folder).map_err(|source| SecretError::File { path: folder.clone(), source })?;
        let operator = read_or_make(&folder.join("operator.token"))?;
        Ok(Self {
            fleet: signing_key(&folder.join("fleet.key"))?,
            snapshot: signing_key(&folder.join("snapshot.key"))?,
            timestamp: signing_key(&folder.join("timestamp.key"))?,
            operator: OperatorToken::new(&operator),
            broker: read_or_make(&folder.join("broker.password"))?,
        })
    }

    /// The public halves of the keys that sign, and for what: what a publisher needs to begin.
    pub fn online(&self) -> Online {
        let [fleet, snapshot, timestamp] =
            [&self.fleet, &self.snapshot, &self.timestamp].map(|key| Key::ed25519(&PublicKey::of(key)));
        Online {
            snapshot: vec![snapshot.name()],
            timestamp: vec![timestamp.name()],
            fleet: vec![fleet.name()],
            keys: key_table([fleet, snapshot, timestamp]),
        }
    }
}

fn signing_key(path: &Path) -> Result<SigningKey, SecretError> {
    let text = read_or_make(path)?;
    let seed: Digest = text.parse().map_err(|_| SecretError::Malformed(path.to_owned()))?;
    let seed = Zeroizing::new(seed.0);
    Ok(SigningKey::from_bytes(&seed))
}

fn read_or_make(path: &Path) -> Result<Zeroizing<String>, SecretError> {
    let failed = |source| SecretError::File { path: path.to_owned(), source };
    match fs::read_to_string(path) {
        Ok(text) => {
            let text = Zeroizing::new(text);
            let secret: Digest = text.trim().parse().map_err(|_| SecretError::Malformed(path.to_owned()))?;
            Ok(Zeroizing::new(secret.to_string()))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let mut bytes = [0; 32];
            getrandom::fill(&mut bytes).map_err(SecretError::Random)?;
            let text = Zeroizing::new(Digest(bytes).to_string());
            let line = Zeroizing::new(format!("{}\n", text.as_str()));
            durable::replace(path, line.as_bytes()).map_err(failed)?;
            Ok(text)
        }
        Err(error) => Err(failed(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn secrets_are_made_once_and_for_the_server_alone() {
        let folder = tempfile::tempdir().expect("folder");
        let first = Secrets::open(folder.path()).expect("made");
        let again = Secrets::open(folder.path()).expect("read");
        assert_eq!(first.fleet.to_bytes(), again.fleet.to_bytes());
        for name in ["fleet.key", "snapshot.key", "timestamp.key", "operator.token", "broker.password"] {
            let path = folder.path().join("keys").join(name);
            let mode = fs::metadata(&path).expect("there").permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{name}");
        }
        let token = fs::read_to_string(folder.path().join("keys/operator.token")).expect("there");
        assert!(first.operator.matches(token.trim()));
        assert!(!first.operator.matches(""));
    }

    #[test]
    fn a_damaged_key_is_named_not_replaced() {
        let folder = tempfile::tempdir().expect("folder");
        fs::create_dir(folder.path().join("keys")).expect("made");
        fs::write(folder.path().join("keys/fleet.key"), "zz").expect("written");
        assert!(matches!(Secrets::open(folder.path()), Err(SecretError::Malformed(_))));
    }
}
