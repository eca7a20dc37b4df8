//! The device's own Ed25519 key, made at first start and readable by the agent alone.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use ed25519_dalek::SigningKey;
use zeroize::Zeroizing;

/// The key file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// It cannot be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Others may read it.
    #[error("{path}: mode {mode:o} lets others read the device's key; run chmod 600 on it")]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It does not hold a key.
    #[error("{path}: not a device key; move it away to let the agent make a new one")]
    Malformed {
        /// The file.
        path: PathBuf,
    },
    /// The system has no randomness.
    #[error("no randomness to make a device key: {0}")]
    Random(String),
}

/// The key at `path`, made there if there is none.
pub fn load_or_make(path: &Path) -> Result<SigningKey, IdentityError> {
    let failed = |source| IdentityError::Io { path: path.into(), source };
    match fs::metadata(path) {
        Ok(metadata) if metadata.mode() & 0o077 != 0 => {
            Err(IdentityError::Exposed { path: path.into(), mode: metadata.mode() & 0o7777 })
        }
        Ok(_) => read(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => make(path),
        Err(error) => Err(failed(error)),
    }
}

fn read(path: &Path) -> Result<SigningKey, IdentityError> {
    let text = fs::read_to_string(path).map_err(|source| IdentityError::Io { path: path.into(), source })?;
    let text = Zeroizing::new(text);
    let mut seed = Zeroizing::new([0_u8; 32]);
    hex::decode_to_slice(text.trim_end(), seed.as_mut_slice())
        .map_err(|_| IdentityError::Malformed { path: path.into() })?;
    Ok(SigningKey::from_bytes(&seed))
}

fn make(path: &Path) -> Result<SigningKey, IdentityError> {
    let mut seed = Zeroizing::new([0_u8; 32]);
    getrandom::fill(seed.as_mut_slice()).map_err(|error| IdentityError::Random(error.to_string()))?;
    let text = Zeroizing::new(hex::encode(seed.as_slice()));
    // Under its final name only when complete: a power cut must not leave half a key.
    let temporary = path.with_extension("new");
    let write = || {
        let _ = fs::remove_file(&temporary);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        path.parent().map_or(Ok(()), |folder| fs::File::open(folder)?.sync_all())
    };
    write().map_err(|source| IdentityError::Io { path: path.into(), source })?;
    Ok(SigningKey::from_bytes(&seed))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn the_key_is_made_once_and_for_the_agent_alone() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("device.key");
        let made = load_or_make(&path).expect("made");
        let read = load_or_make(&path).expect("read");
        assert_eq!(made.to_bytes(), read.to_bytes());
        assert_eq!(fs::metadata(&path).expect("there").mode() & 0o777, 0o600);
    }

    #[test]
    fn an_exposed_or_broken_key_is_refused() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("device.key");
        load_or_make(&path).expect("made");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("owned");
        assert!(matches!(load_or_make(&path), Err(IdentityError::Exposed { mode: 0o644, .. })));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("owned");
        fs::write(&path, "half a ke").expect("writable");
        assert!(matches!(load_or_make(&path), Err(IdentityError::Malformed { .. })));
    }
}
