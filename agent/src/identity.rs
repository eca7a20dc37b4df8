//! The device's own Ed25519 key, made at first start and readable by the agent alone.

use std::path::{Path, PathBuf};

use ed25519_dalek::SigningKey;
use zeroize::Zeroizing;

use crate::disk::seam::{FileError, Files, if_there};

/// More than the 64 digits of a key and a line feed.
const MAX_KEY_BYTES: usize = 128;

/// The key file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// It cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
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
pub fn load_or_make(files: &Files, path: &Path) -> Result<SigningKey, IdentityError> {
    match if_there(files.examine(path))?.map(|found| found.mode) {
        Some(mode) if mode & 0o077 != 0 => Err(IdentityError::Exposed { path: path.into(), mode }),
        Some(_) => read(files, path),
        None => make(files, path),
    }
}

fn read(files: &Files, path: &Path) -> Result<SigningKey, IdentityError> {
    let malformed = || IdentityError::Malformed { path: path.into() };
    let text = Zeroizing::new(files.read_at_most(path, MAX_KEY_BYTES)?);
    let text = std::str::from_utf8(&text).map_err(|_| malformed())?;
    let mut seed = Zeroizing::new([0_u8; 32]);
    hex::decode_to_slice(text.trim_end(), seed.as_mut_slice()).map_err(|_| malformed())?;
    Ok(SigningKey::from_bytes(&seed))
}

fn make(files: &Files, path: &Path) -> Result<SigningKey, IdentityError> {
    let mut seed = Zeroizing::new([0_u8; 32]);
    getrandom::fill(seed.as_mut_slice()).map_err(|error| IdentityError::Random(error.to_string()))?;
    let text = Zeroizing::new(hex::encode(seed.as_slice()));
    // Under its final name only when complete: a power cut must not leave half a key.
    let temporary = path.with_extension("new");
    if if_there(files.examine(&temporary))?.is_some() {
        files.remove(&temporary)?;
    }
    let mut file = files.create_private(&temporary)?;
    file.append(text.as_bytes())?;
    file.sync()?;
    files.rename(&temporary, path)?;
    path.parent().map_or(Ok(()), |folder| files.sync_dir(folder))?;
    Ok(SigningKey::from_bytes(&seed))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

    #[test]
    fn the_key_is_made_once_and_for_the_agent_alone() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("device.key");
        let made = load_or_make(&Files::real(), &path).expect("made");
        let read = load_or_make(&Files::real(), &path).expect("read");
        assert_eq!(made.to_bytes(), read.to_bytes());
        assert_eq!(fs::metadata(&path).expect("there").mode() & 0o777, 0o600);
    }

    #[test]
    fn an_exposed_or_broken_key_is_refused() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("device.key");
        load_or_make(&Files::real(), &path).expect("made");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("owned");
        assert!(matches!(
            load_or_make(&Files::real(), &path),
            Err(IdentityError::Exposed { mode: 0o644, .. })
        ));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("owned");
        fs::write(&path, "half a ke").expect("writable");
        assert!(matches!(load_or_make(&Files::real(), &path), Err(IdentityError::Malformed { .. })));
    }
}
