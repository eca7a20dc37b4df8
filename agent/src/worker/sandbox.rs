//! Files and network out of reach of a worker (Landlock, Linux 5.13 and later), in two steps: while
//! loading only the release's own files can be read, afterwards none.

use std::path::PathBuf;

use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetError, RulesetStatus, Scope,
};

/// Newest kernel interface this was tested with; older kernels enforce what they know.
const KERNEL_INTERFACE: ABI = ABI::V7;

/// From now on only `readable` can be opened, for reading; nothing can be executed, written or
/// listed, no TCP port used, no process outside signalled. Steps add up: a second call can only take
/// away. Answers whether the kernel enforces the part about files.
///
/// Each release file is named on its own, not by its directory: on a device the names are links into the blob
/// store, and other releases lie beside them. A file that does not exist is left out; opening it
/// fails anyway.
pub(super) fn allow_only(readable: &[PathBuf]) -> Result<bool, RulesetError> {
    let mut ruleset = Ruleset::default()
        .handle_access(AccessFs::from_all(KERNEL_INTERFACE))?
        .handle_access(AccessNet::from_all(KERNEL_INTERFACE))?
        .scope(Scope::from_all(KERNEL_INTERFACE))?
        .create()?;
    for path in readable {
        if let Ok(file) = PathFd::new(path) {
            ruleset = ruleset.add_rule(PathBeneath::new(file, AccessFs::ReadFile))?;
        }
    }
    let status = ruleset.restrict_self()?;
    Ok(match status.ruleset {
        // The file rights of the first version suffice to keep files closed; later ones add truncation
        // and device control.
        RulesetStatus::FullyEnforced | RulesetStatus::PartiallyEnforced => true,
        RulesetStatus::NotEnforced => false,
    })
}

/// Whether this kernel keeps files out of reach of a worker. Restricts nothing.
pub(super) fn files_can_be_closed() -> bool {
    let required = Ruleset::default().set_compatibility(CompatLevel::HardRequirement);
    required.handle_access(AccessFs::from_all(ABI::V1)).and_then(Ruleset::create).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{File, read_dir, write};
    use std::io::ErrorKind;

    #[test]
    fn only_named_files_can_be_opened_and_then_none() {
        let folder = tempfile::tempdir().expect("folder");
        let path = |name: &str| folder.path().join(name);
        let [allowed, other, link] = ["allowed", "other", "link"].map(path);
        write(&allowed, "a").expect("written");
        write(&other, "b").expect("written");
        std::os::unix::fs::symlink(&other, &link).expect("linked");
        // Restricts the thread that asks for it, and a worker has one only.
        let checked = std::thread::spawn(move || {
            let refused = |path: &PathBuf| {
                File::open(path).is_err_and(|error| error.kind() == ErrorKind::PermissionDenied)
            };
            if !allow_only(&[allowed.clone(), PathBuf::from("/nonexistent")]).expect("asked for correctly") {
                return false;
            }
            assert!(File::open(&allowed).is_ok());
            assert!(refused(&other) && refused(&link) && refused(&PathBuf::from("/etc/passwd")));
            assert!(write(&allowed, "c").is_err() && read_dir("/").is_err());
            assert!(
                std::net::TcpStream::connect("127.0.0.1:9")
                    .is_err_and(|error| error.kind() == ErrorKind::PermissionDenied)
            );
            assert!(allow_only(&[]).expect("asked for correctly"));
            assert!(refused(&allowed));
            true
        });
        if !checked.join().expect("no panic") {
            println!("skipped: this kernel has no Landlock");
        }
    }
}
