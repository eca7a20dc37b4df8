//! Classes of devices: what a release is packed for, and what a device must have to be counted among one.
//! The classes that everybody has are those in `targets/` of the repository.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Deserializer};

pub use crate::class_needs::KernelVersion;
use crate::class_needs::{ClassNeeds, Feature, MAX_CPU_FEATURES};
use crate::ids::{ByteCount, TargetClass};
pub use crate::kernel_feature::KernelFeature;

/// Largest file that describes a class, in bytes.
pub const MAX_TARGET_BYTES: usize = 16 * 1024;

/// The classes that are known everywhere, as the TOML files that describe them.
pub const BUILT_IN: [&str; 4] = [
    include_str!("../../targets/linux-x86_64.toml"),
    include_str!("../../targets/linux-aarch64.toml"),
    include_str!("../../targets/linux-armv7.toml"),
    include_str!("../../targets/linux-riscv64.toml"),
];

/// A class of devices.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TargetSpec {
    /// Its name.
    pub class: TargetClass,
    /// What the device program is built for, as Rust's compiler names it.
    pub triple: String,
    /// RAM of its smallest device.
    #[serde(deserialize_with = "size")]
    pub memory: ByteCount,
    /// Storage of its smallest device.
    #[serde(deserialize_with = "size")]
    pub flash: ByteCount,
    /// What every processor of it can do, in the compiler's names.
    pub cpu_features: heapless::Vec<Feature, MAX_CPU_FEATURES>,
    /// Its oldest kernel.
    pub kernel: KernelVersion,
    /// What every kernel of it can do, whatever its version.
    #[serde(default)]
    pub kernel_features: heapless::Vec<KernelFeature, { KernelFeature::ALL.len() }>,
}

/// What a device has of what its class asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hardware {
    /// Architecture that the device program was built for, such as `arm`.
    pub architecture: &'static str,
    /// RAM that the kernel has; none where it does not say.
    pub memory: Option<ByteCount>,
    /// What the processor can do, in the compiler's names; none where the kernel does not say.
    pub cpu_features: Option<Vec<String>>,
    /// The kernel; none where it does not say.
    pub kernel: Option<KernelVersion>,
    /// What the kernel can do, tried out.
    pub kernel_features: Vec<KernelFeature>,
}

fn size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ByteCount, D::Error> {
    let text = String::deserialize(deserializer)?;
    ByteCount::parse(&text)
        .ok_or_else(|| serde::de::Error::custom(format!("{text:?} is not a size like \"512MiB\"")))
}

impl TargetSpec {
    /// What `device` lacks to be of this class, in words; nothing where the kernel does not say what it has.
    ///
    /// A kernel keeps some of the RAM for itself and for graphics: an eighth may be missing. Storage is not
    /// compared, because what counts is how much of it is free when a release comes.
    pub fn lacks(&self, device: &Hardware) -> Vec<String> {
        let mut lacks = Vec::new();
        if !self.triple.starts_with(device.architecture) {
            lacks.push(format!("the agent is built for {}, not for {}", device.architecture, self.triple));
        }
        if let Some(memory) = device.memory
            && memory.0 < self.memory.0 - self.memory.0 / 8
        {
            lacks.push(format!("it has {memory} bytes of RAM of {}", self.memory));
        }
        lacks.extend(self.needs().lacks(device));
        lacks
    }

    /// What a release for this class needs of its devices.
    pub fn needs(&self) -> ClassNeeds {
        let of_kernel = self.kernel_features.iter().filter_map(|feature| feature.needed_as().parse().ok());
        ClassNeeds {
            class: self.class.clone(),
            kernel: Some(self.kernel),
            features: self.cpu_features.iter().cloned().chain(of_kernel).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> TargetSpec {
        TargetSpec {
            class: "linux-armv7".parse().expect("name"),
            triple: "armv7-unknown-linux-gnueabihf".into(),
            memory: ByteCount::from_mib(256),
            flash: ByteCount::from_mib(4096),
            cpu_features: ["neon".parse().expect("short")].into_iter().collect(),
            kernel: KernelVersion { major: 5, minor: 10 },
            kernel_features: KernelFeature::ALL.into_iter().collect(),
        }
    }

    fn device() -> Hardware {
        Hardware {
            architecture: "arm",
            memory: Some(ByteCount::from_mib(240)),
            cpu_features: Some(["vfpv3".into(), "neon".into()].into()),
            kernel: KernelVersion::parse("5.10.0-28-armmp"),
            kernel_features: KernelFeature::ALL.into(),
        }
    }

    #[test]
    fn a_device_of_the_class_lacks_nothing() {
        assert!(spec().lacks(&device()).is_empty());
        let silent = Hardware { memory: None, cpu_features: None, kernel: None, ..device() };
        assert!(spec().lacks(&silent).is_empty());
    }

    #[test]
    fn everything_that_is_missing_is_named() {
        let less = Hardware {
            architecture: "aarch64",
            memory: Some(ByteCount::from_mib(223)),
            cpu_features: Some(Vec::new()),
            kernel: KernelVersion::parse("4.19.1"),
            kernel_features: [KernelFeature::Landlock, KernelFeature::Seccomp].into(),
        };
        let lacks = spec().lacks(&less);
        assert_eq!(lacks.len(), 5, "{lacks:?}");
        for (line, word) in lacks.iter().zip(["aarch64", "RAM", "neon", "cgroup-v2", "4.19"]) {
            assert!(line.contains(word), "{line}");
        }
    }
}
