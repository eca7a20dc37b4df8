//! A folder in memory for the two things that an agent cannot do without when its disk takes no writes any more:
//! the journal, so that what happens is still said, and the socket, so that whoever is on site can still get in.

use std::fs::{self, DirBuilder, Metadata};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use rustix::process::geteuid;
use serin_protocol::ids::Digest;

/// Memory that every Linux shows as files.
const MEMORY: &str = "/dev/shm";
/// The owner's, and nobody else's.
const MODE: u32 = 0o700;

/// Where the shelter of what belongs into `folder` is, whether it exists or not.
///
/// # Errors
/// There is no current folder that `folder` could be relative to.
pub fn place(folder: &Path) -> io::Result<PathBuf> {
    let absolute = std::path::absolute(folder)?;
    let name = Digest::of(absolute.as_os_str().as_encoded_bytes()).to_string();
    Ok(Path::new(MEMORY).join(format!("serin-{}", name.get(..16).unwrap_or(&name))))
}

/// Makes the shelter of `folder`, or finds it as an earlier start of this user's agent left it. It stays until
/// the device is switched off.
///
/// # Errors
/// It cannot be made, or somebody else was there first.
pub fn open(folder: &Path) -> io::Result<PathBuf> {
    let place = place(folder)?;
    match DirBuilder::new().mode(MODE).create(&place) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let found = fs::symlink_metadata(&place)?;
    if is_private(&found) && found.uid() == geteuid().as_raw() {
        return Ok(place);
    }
    let text = format!("{} is somebody else's", place.display());
    Err(io::Error::new(io::ErrorKind::PermissionDenied, text))
}

/// The socket in the shelter of the folder of `socket`, if there is one that the agent must have made: its owner
/// owns that folder, or is root, or is who asks.
pub fn socket(socket: &Path) -> Option<PathBuf> {
    let folder = socket.parent()?;
    let place = place(folder).ok()?;
    let found = fs::symlink_metadata(&place).ok()?;
    let owner = found.uid();
    let trusted = owner == 0
        || owner == geteuid().as_raw()
        || fs::metadata(folder).is_ok_and(|folder| folder.uid() == owner);
    (is_private(&found) && trusted).then(|| place.join(socket.file_name().unwrap_or_default()))
}

fn is_private(folder: &Metadata) -> bool {
    folder.is_dir() && folder.mode() & 0o777 == MODE
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    #[test]
    fn a_shelter_is_its_owners_alone_and_is_found_again() {
        let folder = tempfile::tempdir().expect("folder");
        let wanted = folder.path().join("agent.sock");
        assert_eq!(socket(&wanted), None, "nobody needed one");
        let place = open(folder.path()).expect("made");
        assert_eq!(fs::metadata(&place).expect("there").mode() & 0o777, MODE);
        assert_eq!(open(folder.path()).expect("found"), place);
        assert_eq!(socket(&wanted), Some(place.join("agent.sock")));
        fs::set_permissions(&place, fs::Permissions::from_mode(0o777)).expect("set");
        assert_eq!(open(folder.path()).expect_err("anybody's").kind(), io::ErrorKind::PermissionDenied);
        assert_eq!(socket(&wanted), None);
        fs::remove_dir(&place).expect("removed");
        symlink(folder.path(), &place).expect("linked");
        assert_eq!(open(folder.path()).expect_err("a link").kind(), io::ErrorKind::PermissionDenied);
        assert_eq!(socket(&wanted), None);
        fs::remove_file(&place).expect("removed");
    }
}
