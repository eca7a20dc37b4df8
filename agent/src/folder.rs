//! Folders that are made for others to pass through: with the mode that is said, whatever the process's umask is.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::Path;

use rustix::fs::Mode;

/// Makes `path`, and what it lies in, unless it is there. One that is there keeps the mode that somebody gave it.
///
/// # Errors
/// The disk's.
pub(crate) fn make(path: &Path, mode: u32) -> io::Result<()> {
    let missing = |folder: &&Path| !folder.as_os_str().is_empty() && !folder.exists();
    let missing: Vec<&Path> = path.ancestors().take_while(missing).collect();
    for folder in missing.into_iter().rev() {
        match DirBuilder::new().mode(mode).create(folder) {
            // Somebody was faster, and knows which mode it is to have.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            made => {
                made?;
                fs::set_permissions(folder, Permissions::from_mode(mode))?;
            }
        }
    }
    Ok(())
}

/// What this process makes from now on is its user's alone, where no mode is said. To be called before there is a
/// second thread: it is the whole process's.
pub(crate) fn keep_private() {
    rustix::process::umask(Mode::RWXG | Mode::RWXO);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt as _;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).expect("there").mode() & 0o777
    }

    #[test]
    fn a_folder_is_made_with_its_mode_and_one_that_is_there_keeps_its_own() {
        let root = tempfile::tempdir().expect("folder");
        let (outer, inner) = (root.path().join("lib"), root.path().join("lib/serin"));
        make(&inner, 0o710).expect("made");
        assert_eq!((mode(&outer), mode(&inner)), (0o710, 0o710));
        fs::set_permissions(&inner, Permissions::from_mode(0o700)).expect("set");
        make(&inner, 0o710).expect("there");
        assert_eq!(mode(&inner), 0o700);
    }
}
