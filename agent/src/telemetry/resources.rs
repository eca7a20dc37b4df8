//! Memory of this process and of others, from `/proc`.

use std::fs;
use std::io;
use std::path::Path;

use serin_protocol::ids::ByteCount;

/// Memory of one process as the kernel counts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// Resident now.
    pub resident: ByteCount,
    /// Largest resident so far.
    pub peak_resident: ByteCount,
}

impl Memory {
    /// Of this process.
    pub fn own() -> io::Result<Self> {
        Self::read(Path::new("/proc/self/status"))
    }

    /// Of process `pid`.
    pub fn of(pid: u32) -> io::Result<Self> {
        Self::read(Path::new(&format!("/proc/{pid}/status")))
    }

    fn read(path: &Path) -> io::Result<Self> {
        let status = fs::read_to_string(path)?;
        // A process that has ended but not been waited for has a status without memory.
        Self::parse(&status).ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the process has ended"))
    }

    fn parse(status: &str) -> Option<Self> {
        Some(Self { resident: field(status, "VmRSS:")?, peak_resident: field(status, "VmHWM:")? })
    }
}

/// Memory of the machine that could be had without swapping; none where the kernel does not say.
pub fn available() -> Option<ByteCount> {
    field(&fs::read_to_string("/proc/meminfo").ok()?, "MemAvailable:")
}

fn field(status: &str, name: &str) -> Option<ByteCount> {
    let value = status.lines().find_map(|line| line.strip_prefix(name))?;
    let kibibytes: u64 = value.trim().strip_suffix("kB")?.trim_end().parse().ok()?;
    Some(ByteCount(kibibytes.saturating_mul(1024)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_in_bytes() {
        let status = "Name:\tserin\nVmHWM:\t    4096 kB\nVmRSS:\t  2048 kB\n";
        let memory = Memory::parse(status).expect("complete");
        assert_eq!((memory.resident, memory.peak_resident), (ByteCount(2 << 20), ByteCount(4 << 20)));
    }

    #[test]
    fn a_process_without_memory_has_ended() {
        assert_eq!(Memory::parse("Name:\tserin\nState:\tZ (zombie)\n"), None);
        assert!(Memory::of(u32::MAX).is_err());
    }

    #[test]
    fn this_process_has_memory() {
        let memory = Memory::own().expect("readable");
        assert!(memory.resident.0 > 0 && memory.peak_resident >= memory.resident);
    }
}
