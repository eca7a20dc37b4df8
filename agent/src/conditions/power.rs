//! Where the power comes from (the kernel's `Documentation/ABI/testing/sysfs-class-power`).

use std::path::Path;

use super::{entries, text};

/// What is known of the power.
pub(super) struct Power {
    /// Fed from outside. None: there is a battery and nobody says whether it is charged.
    pub(super) mains: Option<bool>,
    /// Charge of the lowest battery in percent.
    pub(super) battery: Option<u8>,
}

/// Looks at every supply of the machine itself.
pub(super) fn read(folder: &Path) -> Power {
    let mut sources: Vec<bool> = Vec::new();
    let mut batteries: Vec<(Option<u8>, Option<bool>)> = Vec::new();
    for supply in entries(folder) {
        // Of a mouse or a headset.
        if text(&supply.join("scope")).as_deref() == Some("Device") {
            continue;
        }
        match text(&supply.join("type")).as_deref() {
            Some("Battery") => batteries.push((charge(&supply), is_fed(&supply))),
            Some("UPS") | None => {}
            // Mains, USB in its many kinds, Wireless.
            Some(_) => sources.extend(text(&supply.join("online")).map(|online| online != "0")),
        }
    }
    let battery = batteries.iter().filter_map(|(charge, _)| *charge).min();
    let mains = if batteries.is_empty() || sources.contains(&true) {
        Some(true)
    } else if batteries.iter().any(|(_, fed)| *fed == Some(false)) || !sources.is_empty() {
        Some(false)
    } else {
        batteries.iter().find_map(|(_, fed)| *fed)
    };
    Power { mains, battery }
}

fn charge(battery: &Path) -> Option<u8> {
    text(&battery.join("capacity"))?.parse().ok().filter(|percent| *percent <= 100)
}

/// Whether a battery is fed, by its status.
fn is_fed(battery: &Path) -> Option<bool> {
    match text(&battery.join("status"))?.as_str() {
        "Charging" | "Full" | "Not charging" => Some(true),
        "Discharging" => Some(false),
        _ => None,
    }
}
