//! Features of a kernel that a class of devices can ask for by name. They stand in one list with those of processors, under
//! names that no processor has, so that an agent which does not know one refuses the release.

use serde::{Deserialize, Serialize};

/// What a kernel can do that its version does not tell: it may have been built or started without.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KernelFeature {
    /// Files and network can be closed to a worker.
    Landlock,
    /// System calls of a worker can be filtered, on this processor too.
    Seccomp,
    /// Memory of a worker is limited as a whole: the controller of cgroup v2 was delegated to the agent.
    CgroupV2,
}

impl KernelFeature {
    /// All there are.
    pub const ALL: [Self; 3] = [Self::Landlock, Self::Seccomp, Self::CgroupV2];

    /// Its name, as in a class's file.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Landlock => "landlock",
            Self::Seccomp => "seccomp",
            Self::CgroupV2 => "cgroup-v2",
        }
    }

    /// Its name among features of processors.
    pub(crate) const fn needed_as(self) -> &'static str {
        match self {
            Self::Landlock => "kernel:landlock",
            Self::Seccomp => "kernel:seccomp",
            Self::CgroupV2 => "kernel:cgroup-v2",
        }
    }

    /// The one that is `needed` under that name.
    pub(crate) fn from_needed(needed: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|feature| feature.needed_as() == needed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::class_needs::Feature;

    #[test]
    fn every_feature_has_one_name_and_is_found_among_those_of_processors() {
        for feature in KernelFeature::ALL {
            let written = serde_json::to_value(feature).expect("json");
            assert_eq!(written, feature.name());
            assert_eq!(feature.needed_as().strip_prefix("kernel:"), Some(feature.name()));
            assert_eq!(KernelFeature::from_needed(feature.needed_as()), Some(feature));
            assert!(feature.needed_as().parse::<Feature>().is_ok(), "{feature:?} is too long");
        }
        assert_eq!(KernelFeature::from_needed("landlock"), None);
    }
}
