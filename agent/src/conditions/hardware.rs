//! What the machine is: its memory, processor and kernel, for comparison with the class that it is configured to be of.

use std::path::Path;

use serin_protocol::ids::ByteCount;
use serin_protocol::target::{Hardware, KernelFeature, KernelVersion};

use super::text;

/// Names of what processors can do where the kernel's differ from the compiler's, the kernel's first.
const SYNONYMS: [(&str, &str); 5] = [
    ("sse4_1", "sse4.1"),
    ("sse4_2", "sse4.2"),
    ("asimd", "neon"),
    ("asimdhp", "fp16"),
    ("asimddp", "dotprod"),
];

/// Reads it below `root`, which is `/` but for tests, of a kernel that was found to have `kernel_features`.
pub fn read(root: &Path, kernel_features: Vec<KernelFeature>) -> Hardware {
    let memory = text(&root.join("proc/meminfo"));
    Hardware {
        architecture: std::env::consts::ARCH,
        memory: memory.and_then(|text| total(&text)),
        cpu_features: text(&root.join("proc/cpuinfo")).and_then(|text| features(&text)),
        kernel: text(&root.join("proc/sys/kernel/osrelease")).and_then(|text| KernelVersion::parse(&text)),
        kernel_features,
    }
}

fn total(meminfo: &str) -> Option<ByteCount> {
    let value = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kibibytes: u64 = value.trim().strip_suffix("kB")?.trim_end().parse().ok()?;
    Some(ByteCount(kibibytes.saturating_mul(1024)))
}

/// What the first processor can do, in the compiler's names and, where it has others, the kernel's. The line is called
/// `flags` on x86 and `Features` on ARM; RISC-V has letters in a word, which nobody asks for.
fn features(cpuinfo: &str) -> Option<Vec<String>> {
    let mut fields = cpuinfo.lines().filter_map(|line| line.split_once(':'));
    let (_, found) = fields.find(|(name, _)| matches!(name.trim(), "flags" | "Features"))?;
    let mut features: Vec<String> = found.split_whitespace().map(str::to_owned).collect();
    let known = |(kernel, compiler): &(&str, &str)| {
        features.iter().any(|feature| feature == kernel).then(|| (*compiler).to_owned())
    };
    let synonyms: Vec<String> = SYNONYMS.iter().filter_map(known).collect();
    features.extend(synonyms);
    Some(features)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_compilers_names_are_known_beside_the_kernels() {
        let x86 = "processor\t: 0\nmodel name\t: Some CPU\nflags\t\t: fpu sse4_2 avx2\nflags\t\t: other\n";
        let has =
            |cpuinfo: &str, feature: &str| features(cpuinfo).expect("said").iter().any(|has| has == feature);
        assert!(has(x86, "sse4.2") && has(x86, "avx2") && !has(x86, "neon") && !has(x86, "other"));
        assert!(has("Features\t: fp asimd crc32\n", "neon") && has("Features\t: half neon vfpv3\n", "vfpv3"));
        assert_eq!(features("isa\t: rv64imafdc\n"), None);
    }

    #[test]
    fn this_machine_is_read() {
        let here = read(Path::new("/"), Vec::new());
        assert!(here.memory.is_some_and(|memory| memory.0 > 1 << 26) && here.kernel.is_some(), "{here:?}");
        let nowhere = read(Path::new("/nonexistent"), Vec::new());
        assert_eq!((nowhere.memory, nowhere.cpu_features, nowhere.kernel), (None, None, None));
        assert_eq!(total("MemTotal:        1000 kB\n"), Some(ByteCount(1_024_000)));
    }
}
