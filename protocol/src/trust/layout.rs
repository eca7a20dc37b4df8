//! Where a fleet's things stand among the targets and under which names roles sign them: the one grammar
//! that publisher, server and device share.

use alloc::format;
use alloc::string::String;

use crate::ids::ReleaseId;

/// The role that signs assignments.
pub const FLEET_ROLE: &str = "fleet";

/// Where a release's statement stands among the targets.
pub fn statement_path(id: &ReleaseId) -> String {
    format!("models/{}/{}.release", id.model, id.version)
}

/// Where a release's bundle stands among the targets.
pub fn bundle_path(id: &ReleaseId) -> String {
    format!("models/{}/{}.tar.zst", id.model, id.version)
}

/// The model that a target is about, if it is one of a model's.
pub fn model_of(path: &str) -> Option<&str> {
    let (model, _) = path.strip_prefix("models/")?.split_once('/')?;
    Some(model)
}
