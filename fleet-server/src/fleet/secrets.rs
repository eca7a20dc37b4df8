//! The server's own secrets, made at the first start and kept in `keys/`, readable by nobody else.
//!
//! Of the keys that sign there may be several: `fleet.key`, then `fleet.2.key` and so on. Metadata says which
//! of them signs; a new one waits until its publishers name it.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use ed25519_dalek::SigningKey;
use serin_protocol::envelope::PublicKey;
use serin_protocol::ids::Digest;
use serin_protocol::trust::Key;
use serin_protocol::trust::signed::key_table;
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use crate::durable;
use crate::review::SampleKey;
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
    /// Others may read it.
    #[error("{}: mode {mode:o} lets others read the secret; run chmod 600 {}", path.display(), path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// There are as many keys as there may be.
    #[error("{} holds {MAX_KEYS} keys for {role}, the most there can be; delete those no longer named", folder.display())]
    TooMany {
        /// Where.
        folder: PathBuf,
        /// For what.
        role: &'static str,
    },
    /// There is no randomness to make one of.
    #[error("no randomness: {0}")]
    Random(getrandom::Error),
}

/// Most keys for one purpose: those in force, and old ones that nobody has deleted yet.
pub const MAX_KEYS: usize = 8;

/// What the server's keys sign.
const ROLES: [&str; 3] = ["fleet", "snapshot", "timestamp"];

/// All of them. Of keys the newest stands last.
pub struct Secrets {
    /// Sign assignments and acknowledgements.
    pub fleet: Vec<SigningKey>,
    /// Sign which targets metadata is current.
    pub snapshot: Vec<SigningKey>,
    /// Sign which snapshot is current.
    pub timestamp: Vec<SigningKey>,
    /// Lets operators change things.
    pub operator: OperatorToken,
    /// Seals review samples.
    pub review: SampleKey,
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
        let failed = |source| SecretError::File { path: folder.clone(), source };
        durable::private_folder(data).and_then(|()| durable::private_folder(&folder)).map_err(failed)?;
        let operator = read_or_make(&folder.join("operator.token"))?;
        Ok(Self {
            fleet: signing_keys(&folder, "fleet")?,
            snapshot: signing_keys(&folder, "snapshot")?,
            timestamp: signing_keys(&folder, "timestamp")?,
            operator: OperatorToken::new(&operator),
            review: sample_key(&folder.join("review.key"))?,
            broker: read_or_make(&folder.join("broker.password"))?,
        })
    }

    /// The public halves of the newest keys that sign, and for what: what a publisher needs to begin.
    pub fn online(&self) -> Online {
        let newest = |keys: &[SigningKey]| keys.last().map(public);
        let [fleet, snapshot, timestamp] =
            [&self.fleet, &self.snapshot, &self.timestamp].map(|keys| newest(keys));
        let name = |key: &Option<Key>| key.iter().map(Key::name).collect();
        Online {
            snapshot: name(&snapshot),
            timestamp: name(&timestamp),
            fleet: name(&fleet),
            keys: key_table([fleet, snapshot, timestamp].into_iter().flatten()),
        }
    }
}

/// A key for one of the server's roles that was made to take the place of others.
#[derive(Debug)]
pub struct Successor {
    /// What it is to sign.
    pub role: &'static str,
    /// The new key.
    pub key: PublicKey,
    /// Those before it, oldest first.
    pub before: Vec<Key>,
}

/// Makes a new key beside the old ones for each of the server's roles. A server that runs takes them up at its
/// next start, and signs with them once the publishers name them.
pub fn add_keys(data: &Path) -> Result<Vec<Successor>, SecretError> {
    Secrets::open(data)?;
    let folder = data.join("keys");
    // All can be made, or none is.
    for role in ROLES {
        if numbered(&folder, role)?.len() >= MAX_KEYS {
            return Err(SecretError::TooMany { folder, role });
        }
    }
    let make = |role: &'static str| {
        let before = signing_keys(&folder, role)?.iter().map(public).collect();
        let last = numbered(&folder, role)?.last().map_or(0, |(number, _)| *number);
        let made = signing_key(&folder.join(format!("{role}.{}.key", last.saturating_add(1))))?;
        Ok(Successor { role, key: PublicKey::of(&made), before })
    };
    ROLES.into_iter().map(make).collect()
}

fn public(key: &SigningKey) -> Key {
    Key::ed25519(&PublicKey::of(key))
}

/// The keys of a role, the first one made if there is none.
fn signing_keys(folder: &Path, role: &'static str) -> Result<Vec<SigningKey>, SecretError> {
    let found = numbered(folder, role)?;
    if found.len() > MAX_KEYS {
        return Err(SecretError::TooMany { folder: folder.into(), role });
    }
    if found.is_empty() {
        return Ok(vec![signing_key(&folder.join(format!("{role}.key")))?]);
    }
    found.iter().map(|(_, path)| signing_key(path)).collect()
}

/// The files with keys of a role: `<role>.key` is the first, `<role>.<number>.key` a later one.
fn numbered(folder: &Path, role: &str) -> Result<Vec<(u32, PathBuf)>, SecretError> {
    let failed = |source| SecretError::File { path: folder.to_owned(), source };
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        let Some(rest) = name.and_then(|name| name.strip_prefix(role)?.strip_suffix(".key")) else {
            continue;
        };
        let number =
            if rest.is_empty() { Some(1) } else { rest.strip_prefix('.').and_then(|n| n.parse().ok()) };
        found.extend(number.map(|number| (number, path)));
    }
    found.sort();
    Ok(found)
}

fn sample_key(path: &Path) -> Result<SampleKey, SecretError> {
    let text = read_or_make(path)?;
    let key: Digest = text.parse().map_err(|_| SecretError::Malformed(path.to_owned()))?;
    Ok(SampleKey::new(key.0))
}

fn signing_key(path: &Path) -> Result<SigningKey, SecretError> {
    let text = read_or_make(path)?;
    let seed: Digest = text.parse().map_err(|_| SecretError::Malformed(path.to_owned()))?;
    let seed = Zeroizing::new(seed.0);
    Ok(SigningKey::from_bytes(&seed))
}

/// The permission bits and the text of a file, read from the same open file.
fn open_private(path: &Path) -> io::Result<(u32, String)> {
    let mut file = fs::File::open(path)?;
    let mode = file.metadata()?.mode();
    // A digest and a line end; more is refused as malformed.
    let mut text = String::with_capacity(128);
    io::Read::read_to_string(&mut io::Read::take(&mut file, 128), &mut text)?;
    Ok((mode, text))
}

fn read_or_make(path: &Path) -> Result<Zeroizing<String>, SecretError> {
    let failed = |source| SecretError::File { path: path.to_owned(), source };
    match open_private(path) {
        Ok((mode, _)) if mode & 0o077 != 0 => {
            Err(SecretError::Exposed { path: path.into(), mode: mode & 0o7777 })
        }
        Ok((_, text)) => {
            let text = Zeroizing::new(text);
            let secret: Digest = text.trim().parse().map_err(|_| SecretError::Malformed(path.to_owned()))?;
            Ok(Zeroizing::new(secret.to_string()))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let mut bytes = Zeroizing::new([0; 32]);
            getrandom::fill(bytes.as_mut_slice()).map_err(SecretError::Random)?;
            let text = Zeroizing::new(Digest(*bytes).to_string());
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
        assert_eq!(first.fleet, again.fleet);
        for name in
            ["fleet.key", "snapshot.key", "timestamp.key", "operator.token", "broker.password", "review.key"]
        {
            let path = folder.path().join("keys").join(name);
            let mode = fs::metadata(&path).expect("there").permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{name}");
        }
        let token = fs::read_to_string(folder.path().join("keys/operator.token")).expect("there");
        assert!(first.operator.matches(token.trim()));
        assert!(!first.operator.matches(""));
    }

    #[test]
    fn new_keys_stand_behind_the_old_ones_until_there_are_too_many() {
        let folder = tempfile::tempdir().expect("folder");
        let first = Secrets::open(folder.path()).expect("made");
        for count in 2..=MAX_KEYS {
            let made = add_keys(folder.path()).expect("made");
            let now = Secrets::open(folder.path()).expect("read");
            assert_eq!((now.fleet.len(), now.fleet.first()), (count, first.fleet.first()));
            for (successor, keys) in made.iter().zip([&now.fleet, &now.snapshot, &now.timestamp]) {
                assert_eq!(Some(successor.key), keys.last().map(PublicKey::of), "{}", successor.role);
                assert_eq!(successor.before.len(), count - 1);
            }
            assert!(now.online().keys.contains_key(&Key::ed25519(&made[0].key).name()));
        }
        assert!(matches!(add_keys(folder.path()), Err(SecretError::TooMany { role: "fleet", .. })));
        // The oldest may be deleted once nobody names them.
        fs::remove_file(folder.path().join("keys/fleet.key")).expect("ours");
        assert_eq!(Secrets::open(folder.path()).expect("read").fleet.len(), MAX_KEYS - 1);
    }

    #[test]
    fn a_damaged_key_is_named_not_replaced() {
        let folder = tempfile::tempdir().expect("folder");
        fs::create_dir(folder.path().join("keys")).expect("made");
        let path = folder.path().join("keys/fleet.key");
        fs::write(&path, "zz").expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("ours");
        assert!(matches!(Secrets::open(folder.path()), Err(SecretError::Malformed(_))));
    }

    #[test]
    fn what_others_may_read_is_no_secret() {
        let home = tempfile::tempdir().expect("folder");
        let data = home.path().join("data");
        fs::create_dir(&data).expect("made");
        fs::set_permissions(&data, fs::Permissions::from_mode(0o755)).expect("ours");
        Secrets::open(&data).expect("made");
        for folder in [data.clone(), data.join("keys")] {
            assert_eq!(fs::metadata(&folder).expect("there").mode() & 0o777, 0o700, "{}", folder.display());
        }
        let path = data.join("keys/snapshot.key");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).expect("ours");
        let refused = Secrets::open(&data).err().map(|error| error.to_string()).unwrap_or_default();
        assert!(refused.contains("640") && refused.contains("chmod 600"), "{refused}");
    }
}
