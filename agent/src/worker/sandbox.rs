//! Files and network out of reach of a worker (Landlock, Linux 5.13 and later), in two steps: while
//! loading only the release's own files can be read, afterwards none.

use std::path::PathBuf;

use landlock::{
    ABI, Access, AccessFs, AccessNet, PathBeneath, PathFd, Ruleset, RulesetAttr, RulesetCreatedAttr,
    RulesetError, RulesetStatus, Scope,
};

/// Newest kernel interface this was tested with; older kernels enforce what they know.
const KERNEL_INTERFACE: ABI = ABI::V7;

/// From now on only `readable` can be opened, for reading; nothing can be executed, written or
/// listed, no TCP port used, no process outside signalled. Steps add up: a second call can only take
/// away. Answers whether the kernel enforces the part about files.
///
/// Each file is named on its own, not by its directory: on a device the names are links into the blob
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
