//! Whether a release may and can run here, decided from its signed statement alone, before a byte of
//! the bundle is fetched.

use serde::Deserialize;
use serin_protocol::ids::{ByteCount, TargetClass};
use serin_protocol::message::{Detail, Reason};
use serin_protocol::release::{Decoders, Release};
use serin_protocol::target::Hardware;

/// The inference engine series this agent runs.
pub const RUNTIME: &str = "tract-0.23";

/// How one release takes the place of another where memory is short.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Swap {
    /// Only side by side: the one that answers goes on until the other does.
    Hot,
    /// Where both do not fit, one after the other: nothing answers in between, and the first comes back if the
    /// second does not prove itself.
    Cold,
}

/// What the device has to offer at this moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Means {
    /// Its class.
    pub target: TargetClass,
    /// What it lacks of its class as it is described here, in words.
    pub target_lacks: Vec<String>,
    /// What it has of what classes ask for.
    pub hardware: Hardware,
    /// Memory that all workers may use together.
    pub memory_budget: ByteCount,
    /// Memory limit of the worker that answers now.
    pub memory_active: ByteCount,
    /// Whether that one must go on answering while the new one is proved.
    pub swap: Swap,
    /// Decoders that this agent was built with.
    pub decoders: Decoders,
    /// Disk space above the reserve.
    pub free_space: ByteCount,
    /// Whether the release is unpacked here already: nothing of it needs to be fetched.
    pub installed: bool,
}

/// Refuses a release that cannot run here, with the numbers.
pub fn admit(release: &Release, means: &Means) -> Result<(), Reason> {
    if release.runtime.as_str() != RUNTIME {
        return Err(Reason::WrongRuntime { needed: release.runtime.clone() });
    }
    if !release.targets.is_empty() {
        let Some(own) = release.targets.iter().find(|target| target.class == means.target) else {
            return Err(Reason::WrongTarget { device: means.target.clone() });
        };
        // Its owner may ask for more than this device knows of the class, or for another's.
        let mut lacks = means.target_lacks.clone();
        lacks
            .extend(own.lacks(&means.hardware).into_iter().filter(|lack| !means.target_lacks.contains(lack)));
        if !lacks.is_empty() {
            return Err(Reason::BelowClass(Detail::new(&lacks.join("; "))));
        }
    }
    if let Some(decoder) = release.decoders.iter().find(|decoder| !means.decoders.contains(decoder)) {
        return Err(Reason::NoDecoder(*decoder));
    }
    let beside = match means.swap {
        Swap::Hot => means.memory_active.0,
        Swap::Cold => 0,
    };
    let needed = ByteCount(release.memory.0.saturating_add(beside));
    if needed > means.memory_budget {
        return Err(Reason::OverMemoryBudget { needed, budget: means.memory_budget });
    }
    // The bundle and the unpacked files exist side by side while staging.
    let needed = ByteCount(release.bundle.size.0.saturating_add(release.unpacked.0));
    if needed > means.free_space {
        return Err(Reason::NoSpace { needed, free: means.free_space });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serin_protocol::chunk::ObjectRef;
    use serin_protocol::class_needs::{ClassNeeds, KernelVersion};
    use serin_protocol::ids::Digest;
    use serin_protocol::release::Decoder;

    fn needs() -> ClassNeeds {
        ClassNeeds {
            class: "linux-x86_64".parse().expect("name"),
            kernel: KernelVersion::parse("5.10"),
            features: ["sse4.2", "avx2"].map(|name| name.parse().expect("short")).into_iter().collect(),
        }
    }

    fn hardware(features: &[&str], kernel: &str) -> Hardware {
        Hardware {
            architecture: "x86_64",
            memory: None,
            cpu_features: Some(features.iter().map(|feature| (*feature).to_owned()).collect()),
            kernel: KernelVersion::parse(kernel),
            kernel_features: Vec::new(),
        }
    }

    fn release() -> Release {
        let object = ObjectRef { digest: Digest([1; 32]), size: ByteCount(1000) };
        Release {
            id: "m@1".parse().expect("id"),
            bundle: object,
            chunk_list: object,
            unpacked: ByteCount(3000),
            memory: ByteCount::from_mib(10),
            runtime: RUNTIME.parse().expect("fits"),
            targets: [needs()].into_iter().collect(),
            profile: Digest([2; 32]),
            decoders: [Decoder::Png].into_iter().collect(),
        }
    }

    fn means() -> Means {
        Means {
            target: "linux-x86_64".parse().expect("name"),
            target_lacks: Vec::new(),
            hardware: hardware(&["sse4.2", "avx2"], "5.10"),
            memory_budget: ByteCount::from_mib(24),
            memory_active: ByteCount::from_mib(14),
            swap: Swap::Hot,
            decoders: Decoder::ALL.into_iter().collect(),
            free_space: ByteCount(4000),
            installed: false,
        }
    }

    #[test]
    fn what_just_fits_is_admitted() {
        assert_eq!(admit(&release(), &means()), Ok(()));
        let mut anywhere = release();
        anywhere.targets.clear();
        assert_eq!(admit(&anywhere, &means()), Ok(()));
    }

    #[test]
    fn each_refusal_brings_its_numbers() {
        let mut other = release();
        other.runtime = "tract-9.9".parse().expect("fits");
        assert!(matches!(admit(&other, &means()), Err(Reason::WrongRuntime { .. })));

        let elsewhere = Means { target: "linux-armv7".parse().expect("name"), ..means() };
        assert!(matches!(admit(&release(), &elsewhere), Err(Reason::WrongTarget { .. })));

        let lesser = Means { target_lacks: vec!["its processor has no avx2".into()], ..means() };
        assert_eq!(
            admit(&release(), &lesser),
            Err(Reason::BelowClass(Detail::new("its processor has no avx2")))
        );
        let mut anywhere = release();
        anywhere.targets.clear();
        assert_eq!(admit(&anywhere, &lesser), Ok(()));

        // What the owner asks of the class counts too, also where this device knows nothing of the class.
        let older = Means { hardware: hardware(&["sse4.2"], "4.19"), ..means() };
        let lacks = "its processor has no avx2; its kernel is 4.19, older than 5.10";
        assert_eq!(admit(&release(), &older), Err(Reason::BelowClass(Detail::new(lacks))));
        let told = Means { target_lacks: vec!["its processor has no avx2".into()], ..older };
        assert_eq!(admit(&release(), &told), Err(Reason::BelowClass(Detail::new(lacks))));
        assert_eq!(admit(&anywhere, &told), Ok(()));
        let silent = Hardware { cpu_features: None, kernel: None, ..hardware(&[], "1.0") };
        assert_eq!(admit(&release(), &Means { hardware: silent, ..means() }), Ok(()));

        let blind = Means { decoders: [Decoder::Jpeg].into_iter().collect(), ..means() };
        assert_eq!(admit(&release(), &blind), Err(Reason::NoDecoder(Decoder::Png)));

        let small = Means { memory_budget: ByteCount::from_mib(23), ..means() };
        let refused =
            Reason::OverMemoryBudget { needed: ByteCount::from_mib(24), budget: ByteCount::from_mib(23) };
        assert_eq!(admit(&release(), &small), Err(refused));
        // One after the other they fit.
        assert_eq!(admit(&release(), &Means { swap: Swap::Cold, ..small }), Ok(()));
        let tiny = Means { swap: Swap::Cold, memory_budget: ByteCount::from_mib(9), ..means() };
        let refused =
            Reason::OverMemoryBudget { needed: ByteCount::from_mib(10), budget: ByteCount::from_mib(9) };
        assert_eq!(admit(&release(), &tiny), Err(refused));

        let full = Means { free_space: ByteCount(3999), ..means() };
        let refused = Reason::NoSpace { needed: ByteCount(4000), free: ByteCount(3999) };
        assert_eq!(admit(&release(), &full), Err(refused));
    }
}
