//! What a release takes for granted of a class of devices. It stands in the manifest and in the statement, so that a
//! device can tell before it fetches anything, whatever it knows of the class itself.

use core::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::ids::TargetClass;
use crate::kernel_feature::KernelFeature;

/// Most features of processors that a class asks for: eight classes with so many, and those of kernels, fit into a
/// statement.
pub const MAX_CPU_FEATURES: usize = 8;

/// Most features of processors and kernels together.
pub const MAX_FEATURES: usize = MAX_CPU_FEATURES + KernelFeature::ALL.len();

/// What a processor can do, in the compiler's names, the longest of which have as many bytes; or what a kernel can
/// ([`KernelFeature::needed_as`]).
pub type Feature = heapless::String<16>;

/// A class that a release is for, and what it needs of the class's devices.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClassNeeds {
    /// The class.
    pub class: TargetClass,
    /// The oldest kernel; none where the packer did not say.
    pub kernel: Option<KernelVersion>,
    /// What every processor and every kernel must be able to do. By the name of what once stood here alone, and
    /// stands in bundles.
    #[serde(rename = "cpu_features")]
    pub features: heapless::Vec<Feature, MAX_FEATURES>,
}

/// Version of a Linux kernel, written `5.10`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct KernelVersion {
    /// First number.
    pub major: u32,
    /// Second number.
    pub minor: u32,
}

impl From<TargetClass> for ClassNeeds {
    /// A class of which nothing is needed.
    fn from(class: TargetClass) -> Self {
        Self { class, kernel: None, features: heapless::Vec::new() }
    }
}

impl fmt::Display for ClassNeeds {
    /// The class, and in parentheses what is needed if anything is: `linux-armv7 (kernel 5.10, neon)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.class)?;
        let mut before = " (";
        if let Some(kernel) = self.kernel {
            write!(f, "{before}kernel {kernel}")?;
            before = ", ";
        }
        for feature in &self.features {
            let name = KernelFeature::from_needed(feature).map_or(feature.as_str(), |known| known.name());
            write!(f, "{before}{name}")?;
            before = ", ";
        }
        f.write_str(if before == ", " { ")" } else { "" })
    }
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

impl Serialize for KernelVersion {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for KernelVersion {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // Two numbers of ten digits and their dot.
        let text = heapless::String::<21>::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| {
            serde::de::Error::custom(format_args!("{text:?} is no kernel version like \"5.10\""))
        })
    }
}

#[cfg(feature = "alloc")]
mod on_devices {
    use alloc::format;
    use alloc::string::String;
    use alloc::vec::Vec;

    use super::ClassNeeds;
    use crate::kernel_feature::KernelFeature;
    use crate::target::Hardware;

    impl ClassNeeds {
        /// What `device` lacks of it, in words; nothing where the kernel does not say what it has.
        pub fn lacks(&self, device: &Hardware) -> Vec<String> {
            let mut lacks = Vec::new();
            for needed in &self.features {
                match (KernelFeature::from_needed(needed), &device.cpu_features) {
                    (Some(needed), _) if !device.kernel_features.contains(&needed) => {
                        lacks.push(format!("its kernel has no {}", needed.name()));
                    }
                    (None, Some(has)) if !has.iter().any(|feature| feature == needed.as_str()) => {
                        lacks.push(format!("its processor has no {needed}"));
                    }
                    (Some(_) | None, _) => {}
                }
            }
            if let (Some(kernel), Some(oldest)) = (device.kernel, self.kernel)
                && kernel < oldest
            {
                lacks.push(format!("its kernel is {kernel}, older than {oldest}"));
            }
            lacks
        }
    }
}

/// Lists of classes as they stand in `manifest.json`: a name where nothing is needed, else an object.
#[cfg(feature = "alloc")]
pub(crate) mod in_manifest {
    use alloc::boxed::Box;
    use alloc::vec::Vec;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::ClassNeeds;
    use crate::ids::TargetClass;

    #[derive(Serialize, Deserialize)]
    #[serde(
        untagged,
        expecting = "it is neither a class's name nor an object with class, kernel and cpu_features"
    )]
    enum Written {
        Name(TargetClass),
        Needs(Box<ClassNeeds>),
    }

    pub(crate) fn serialize<S: Serializer>(list: &[ClassNeeds], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(list.iter().map(|needs| {
            if *needs == ClassNeeds::from(needs.class.clone()) {
                Written::Name(needs.class.clone())
            } else {
                Written::Needs(Box::new(needs.clone()))
            }
        }))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<ClassNeeds>, D::Error> {
        let written = Vec::<Written>::deserialize(deserializer)?;
        let needs = |written| match written {
            Written::Name(class) => class.into(),
            Written::Needs(needs) => *needs,
        };
        Ok(written.into_iter().map(needs).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString as _;

    #[test]
    fn what_is_needed_is_shown_and_survives() {
        let bare = ClassNeeds::from(TargetClass::new("linux-armv7").expect("name"));
        assert_eq!(bare.to_string(), "linux-armv7");
        let kernel = KernelVersion::parse("5.10.3");
        let needs = ClassNeeds {
            kernel,
            features: ["neon", "kernel:landlock"]
                .map(|name| name.parse().expect("short"))
                .into_iter()
                .collect(),
            ..bare
        };
        assert_eq!(needs.to_string(), "linux-armv7 (kernel 5.10, neon, landlock)");
        let mut buffer = [0; 64];
        let bytes = postcard::to_slice(&needs, &mut buffer).expect("fits");
        assert_eq!(postcard::from_bytes::<ClassNeeds>(bytes), Ok(needs));
    }

    #[test]
    fn a_kernel_version_is_its_first_two_numbers() {
        let version = |text| KernelVersion::parse(text).map(|version| (version.major, version.minor));
        assert_eq!(version("6.1.0-18-amd64"), Some((6, 1)));
        assert_eq!(version("5.10"), Some((5, 10)));
        assert_eq!((version("5"), version("5.x"), version("")), (None, None, None));
    }

    #[cfg(feature = "alloc")]
    #[test]
    fn a_device_is_told_what_it_lacks() {
        let needs = ClassNeeds {
            class: "linux-armv7".parse().expect("name"),
            kernel: KernelVersion::parse("5.10"),
            features: ["neon", "kernel:landlock"]
                .map(|name| name.parse().expect("short"))
                .into_iter()
                .collect(),
        };
        let device = |features: &[&str], kernel: &str| crate::target::Hardware {
            architecture: "arm",
            memory: None,
            cpu_features: Some(features.iter().map(|feature| (*feature).into()).collect()),
            kernel: KernelVersion::parse(kernel),
            kernel_features: [KernelFeature::Landlock].into(),
        };
        assert!(needs.lacks(&device(&["neon"], "5.10.1")).is_empty());
        let lacks = needs.lacks(&device(&["vfpv3"], "4.19"));
        assert_eq!(lacks, ["its processor has no neon", "its kernel is 4.19, older than 5.10"]);
        let bare = crate::target::Hardware { kernel_features: [].into(), ..device(&["neon"], "5.10") };
        assert_eq!(needs.lacks(&bare), ["its kernel has no landlock"]);
        let unknown =
            ClassNeeds { features: ["kernel:new".parse().expect("short")].into_iter().collect(), ..needs };
        assert_eq!(unknown.lacks(&bare).len(), 1, "what this agent does not know is not there");
    }
}
