//! How things are around the device: power, heat, and over which interface it talks, as the kernel tells below
//! `/sys` and `/proc`. Nothing is decided here. What is missing, unreadable or strange is not known.

pub mod hardware;
mod power;
mod route;
mod thermal;

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use serin_protocol::ids::ByteCount;

use crate::update::policy::Conditions;

/// Longest file read: a routing table of a small device is a few lines.
const MAX_FILE_BYTES: u64 = 64 * 1024;
/// Most power supplies or thermal zones looked at.
const MAX_ENTRIES: usize = 64;

/// Where the kernel tells.
#[derive(Clone, Debug)]
pub struct Sensors {
    root: PathBuf,
}

impl Sensors {
    /// Those below `root`, which is `/`, but for tests and containers.
    pub fn new(root: &Path) -> Self {
        Self { root: root.into() }
    }

    /// How things are now. Free space and what was fetched today come from elsewhere.
    pub fn read(&self, free: Option<ByteCount>, spent: ByteCount) -> Conditions {
        let power = power::read(&self.root.join("sys/class/power_supply"));
        Conditions {
            mains: power.mains,
            battery: power.battery,
            celsius: thermal::hottest(&self.root.join("sys/class/thermal")),
            interfaces: route::default_interfaces(&self.root.join("proc/net")),
            free,
            spent,
        }
    }
}

/// The entries of `folder`, by name; none if it cannot be read.
fn entries(folder: &Path) -> Vec<PathBuf> {
    let Ok(found) = fs::read_dir(folder) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = found.flatten().map(|entry| entry.path()).take(MAX_ENTRIES).collect();
    paths.sort();
    paths
}

/// What a small file of the kernel says, without spaces around it.
fn text(path: &Path) -> Option<String> {
    let mut text = String::new();
    fs::File::open(path).ok()?.take(MAX_FILE_BYTES).read_to_string(&mut text).ok()?;
    Some(text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine with these files.
    fn machine(files: &[(&str, &str)]) -> (tempfile::TempDir, Conditions) {
        let root = tempfile::tempdir().expect("tempdir");
        for (path, contents) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().expect("a folder")).expect("made");
            fs::write(path, contents).expect("written");
        }
        let conditions = Sensors::new(root.path()).read(None, ByteCount(0));
        (root, conditions)
    }

    const ROUTES: &str = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
        eth0\t0000A8C0\t00000000\t0001\t0\t0\t100\t00FFFFFF\t0\t0\t0\n\
        wwan0\t00000000\t0100A8C0\t0003\t0\t0\t700\t00000000\t0\t0\t0\n\
        eth0\t00000000\t0100A8C0\t0003\t0\t0\t100\t00000000\t0\t0\t0\n";
    const ROUTES6: &str = "\
        00000000000000000000000000000000 00 00000000000000000000000000000000 00 \
        fe800000000000000000000000000001 00000400 00000001 00000000 00000003   wwan1\n\
        00000000000000000000000000000000 00 00000000000000000000000000000000 00 \
        00000000000000000000000000000000 ffffffff 00000001 00000000 00200200       lo\n";

    #[test]
    fn a_device_on_battery_says_so() {
        let (_root, conditions) = machine(&[
            ("sys/class/power_supply/AC/type", "Mains\n"),
            ("sys/class/power_supply/AC/online", "0\n"),
            ("sys/class/power_supply/BAT0/type", "Battery\n"),
            ("sys/class/power_supply/BAT0/capacity", "71\n"),
            ("sys/class/power_supply/BAT0/status", "Discharging\n"),
            // The battery of a wireless mouse.
            ("sys/class/power_supply/hid-1/type", "Battery\n"),
            ("sys/class/power_supply/hid-1/scope", "Device\n"),
            ("sys/class/power_supply/hid-1/capacity", "3\n"),
            ("sys/class/thermal/thermal_zone0/type", "cpu-thermal\n"),
            ("sys/class/thermal/thermal_zone0/temp", "48312\n"),
            ("sys/class/thermal/thermal_zone1/temp", "61999\n"),
            ("sys/class/thermal/thermal_zone2/temp", "broken\n"),
            ("sys/class/thermal/cooling_device0/type", "fan\n"),
            ("proc/net/route", ROUTES),
            ("proc/net/ipv6_route", ROUTES6),
        ]);
        assert_eq!((conditions.mains, conditions.battery), (Some(false), Some(71)));
        assert_eq!(conditions.celsius, Some(61));
        assert_eq!(conditions.interfaces, ["eth0", "wwan1"]);
    }

    #[test]
    fn a_battery_alone_tells_by_its_status_whether_it_is_fed() {
        let battery = |status: &str| {
            let (_root, conditions) = machine(&[
                ("sys/class/power_supply/BAT0/type", "Battery\n"),
                ("sys/class/power_supply/BAT0/status", status),
            ]);
            (conditions.mains, conditions.battery)
        };
        assert_eq!(battery("Charging\n"), (Some(true), None));
        assert_eq!(battery("Full\n"), (Some(true), None));
        assert_eq!(battery("Discharging\n"), (Some(false), None));
        assert_eq!(battery("Unknown\n"), (None, None));
    }

    #[test]
    fn a_machine_without_a_battery_is_on_mains_and_what_is_not_told_is_not_known() {
        let (_root, conditions) = machine(&[]);
        let known = Conditions { mains: Some(true), ..Conditions::default() };
        assert_eq!(conditions, known);
        // This very machine, whatever it is.
        let _ = Sensors::new(Path::new("/")).read(None, ByteCount(0));
    }
}
