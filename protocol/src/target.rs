//! Classes of devices: what a release is packed for, and what a device must have to be counted among one.
//! The classes that everybody has are those in `targets/` of the repository.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use serde::{Deserialize, Deserializer};

use crate::ids::{ByteCount, TargetClass};

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
    pub cpu_features: Vec<String>,
    /// Its oldest kernel.
    pub kernel: KernelVersion,
}

/// Version of a Linux kernel, written `5.10`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct KernelVersion {
    /// First number.
    pub major: u32,
    /// Second number.
    pub minor: u32,
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
}

impl KernelVersion {
    /// The first two numbers of `text`, whatever follows them, as in `6.1.0-18-amd64`.
    pub fn parse(text: &str) -> Option<Self> {
        let (major, rest) = text.split_once('.')?;
        let digits = rest.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(rest.len());
        Some(Self { major: major.parse().ok()?, minor: rest.get(..digits)?.parse().ok()? })
    }
}

impl fmt::Display for KernelVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

impl<'de> Deserialize<'de> for KernelVersion {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text)
            .ok_or_else(|| serde::de::Error::custom(format!("{text:?} is no kernel version like \"5.10\"")))
    }
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
        if let Some(features) = &device.cpu_features {
            let missing = self.cpu_features.iter().filter(|feature| !features.contains(feature));
            lacks.extend(missing.map(|feature| format!("its processor has no {feature}")));
        }
        if let Some(kernel) = device.kernel
            && kernel < self.kernel
        {
            lacks.push(format!("its kernel is {kernel}, older than {}", self.kernel));
        }
        lacks
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
            cpu_features: ["neon".into()].into(),
            kernel: KernelVersion { major: 5, minor: 10 },
        }
    }

    fn device() -> Hardware {
        Hardware {
            architecture: "arm",
            memory: Some(ByteCount::from_mib(240)),
            cpu_features: Some(["vfpv3".into(), "neon".into()].into()),
            kernel: KernelVersion::parse("5.10.0-28-armmp"),
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
        };
        let lacks = spec().lacks(&less);
        assert_eq!(lacks.len(), 4, "{lacks:?}");
        for (line, word) in lacks.iter().zip(["aarch64", "RAM", "neon", "4.19"]) {
            assert!(line.contains(word), "{line}");
        }
    }

    #[test]
    fn a_kernel_version_is_its_first_two_numbers() {
        let version = |text| KernelVersion::parse(text).map(|version| (version.major, version.minor));
        assert_eq!(version("6.1.0-18-amd64"), Some((6, 1)));
        assert_eq!(version("5.10"), Some((5, 10)));
        assert_eq!((version("5"), version("5.x"), version("")), (None, None, None));
    }
}
