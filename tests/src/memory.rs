//! Memory of a process.

use anyhow::{Context as _, Result};

/// What a process holds, in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Memory {
    /// With its share of what it shares (PSS).
    pub proportional: u64,
    /// Its own, and changed: what nothing but the process can give back.
    pub written: u64,
}

/// Of the process `pid`.
pub fn of_process(pid: u32) -> Result<Memory> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let bytes = |name: &str| -> Result<u64> {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        let kibibytes = line.with_context(|| format!("no {name}"))?.trim().trim_end_matches("kB").trim();
        Ok(kibibytes.parse::<u64>()? * 1024)
    };
    Ok(Memory { proportional: bytes("Pss:")?, written: bytes("Private_Dirty:")? })
}
