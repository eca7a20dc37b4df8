//! Which devices a rollout, a stage or a rollback is about.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serin_protocol::ids::{DeviceId, ReleaseId, TargetClass};

/// What is known of a device that does not change while it installs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traits {
    /// What kind of device it is; comparisons are within kinds.
    pub target: TargetClass,
    /// What operators noted about it.
    pub tags: Tags,
}

/// Notes about a device, such as `site = "lisbon"`.
pub type Tags = BTreeMap<String, String>;

/// Most notes about one device, and their longest name or value in bytes: they are in every device's record.
pub const MAX_TAGS: usize = 16;
/// See [`MAX_TAGS`].
pub const MAX_TAG_BYTES: usize = 64;

/// Every condition that is written must hold; of several values of one, any. Without conditions: everybody.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Selector {
    /// Tags with these values.
    pub tags: Tags,
    /// Target classes.
    pub targets: Vec<TargetClass>,
    /// The release that answers there when the device is first looked at, as `model@version`.
    #[serde(with = "release_names")]
    pub versions: Vec<ReleaseId>,
    /// Names of devices.
    pub devices: BTreeSet<DeviceId>,
    /// Not these.
    pub except: BTreeSet<DeviceId>,
    /// Whether devices that become known, or come to match, after the start join.
    pub dynamic: bool,
}

impl Default for Selector {
    fn default() -> Self {
        Self {
            tags: Tags::new(),
            targets: Vec::new(),
            versions: Vec::new(),
            devices: BTreeSet::new(),
            except: BTreeSet::new(),
            dynamic: true,
        }
    }
}

impl Selector {
    /// Whether it means this device.
    pub fn matches(&self, device: &DeviceId, traits: &Traits, active: Option<&ReleaseId>) -> bool {
        let named = self.devices.is_empty() || self.devices.contains(device);
        let tagged = self.tags.iter().all(|(name, value)| traits.tags.get(name) == Some(value));
        let kind = self.targets.is_empty() || self.targets.contains(&traits.target);
        let runs = |active: &ReleaseId| self.versions.contains(active);
        let version = self.versions.is_empty() || active.is_some_and(runs);
        named && tagged && kind && version && !self.except.contains(device)
    }

    /// Whether no device can be meant by both, whatever comes: they ask for different values of the same thing.
    pub fn excludes(&self, other: &Self) -> bool {
        let differs =
            |(name, value): (&String, &String)| other.tags.get(name).is_some_and(|its| its != value);
        let none_of = |named: &Self, left_out: &Self| {
            !named.devices.is_empty() && named.devices.is_subset(&left_out.except)
        };
        self.tags.iter().any(differs)
            || apart(&self.targets, &other.targets)
            || apart(&self.versions, &other.versions)
            || (!self.devices.is_empty()
                && !other.devices.is_empty()
                && self.devices.is_disjoint(&other.devices))
            || none_of(self, other)
            || none_of(other, self)
    }
}

/// Both name some, and none that the other names.
fn apart<T: PartialEq>(some: &[T], others: &[T]) -> bool {
    !some.is_empty() && !others.is_empty() && !some.iter().any(|one| others.contains(one))
}

/// Releases as people write them.
mod release_names {
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};
    use serin_protocol::ids::ReleaseId;

    pub(super) fn serialize<S: Serializer>(names: &[ReleaseId], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(names.iter().map(ToString::to_string))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<ReleaseId>, D::Error> {
        let names = Vec::<String>::deserialize(deserializer)?;
        names.iter().map(|name| name.parse().map_err(D::Error::custom)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_conditions_must_hold_and_none_means_everybody() {
        let device = DeviceId::new("kiosk-07").expect("name");
        let tags = Tags::from([("site".to_owned(), "lisbon".to_owned())]);
        let traits = Traits { target: "linux-x86_64".parse().expect("name"), tags };
        let active: ReleaseId = "digits@1.0.0".parse().expect("name");
        let read = |text: &str| toml::from_str::<Selector>(text).expect(text);
        for (text, means) in [
            ("", true),
            ("tags = { site = 'lisbon' }", true),
            ("tags = { site = 'porto' }", false),
            ("tags = { site = 'lisbon', shift = 'night' }", false),
            ("targets = ['linux-aarch64', 'linux-x86_64']", true),
            ("versions = ['digits@1.0.0']\ntargets = ['linux-aarch64']", false),
            ("versions = ['digits@2.0.0']", false),
            ("devices = ['kiosk-07', 'kiosk-08']", true),
            ("except = ['kiosk-07']", false),
        ] {
            assert_eq!(read(text).matches(&device, &traits, Some(&active)), means, "{text}");
        }
        assert!(!read("versions = ['digits@1.0.0']").matches(&device, &traits, None));
    }

    #[test]
    fn selectors_exclude_each_other_only_where_no_device_can_be_meant_by_both() {
        let read = |text: &str| toml::from_str::<Selector>(text).expect(text);
        for (one, other, excludes) in [
            ("", "", false),
            ("tags = { kind = 'camera' }", "tags = { kind = 'door' }", true),
            ("tags = { kind = 'camera' }", "tags = { site = 'lisbon' }", false),
            ("tags = { kind = 'camera' }", "", false),
            ("targets = ['a', 'b']", "targets = ['c']", true),
            ("targets = ['a', 'b']", "targets = ['b', 'c']", false),
            ("versions = ['digits@1.0.0']", "versions = ['digits@2.0.0']", true),
            ("devices = ['a']", "devices = ['b']", true),
            ("devices = ['a']", "except = ['a', 'b']", true),
            ("devices = ['a', 'c']", "except = ['a', 'b']", false),
        ] {
            assert_eq!(read(one).excludes(&read(other)), excludes, "{one} and {other}");
            assert_eq!(read(other).excludes(&read(one)), excludes, "{other} and {one}");
        }
    }
}
