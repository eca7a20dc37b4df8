//! How hot it is (the kernel's `Documentation/driver-api/thermal/sysfs-api.rst`).

use std::path::Path;

use super::{entries, text};

/// Temperature of the hottest zone in °C, rounded down. A zone whose sensor is off cannot be read.
pub(super) fn hottest(folder: &Path) -> Option<i16> {
    let zones = entries(folder).into_iter().filter(|path| {
        path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with("thermal_zone"))
    });
    let millidegrees = zones.filter_map(|zone| text(&zone.join("temp"))?.parse::<i32>().ok());
    millidegrees.filter_map(|millidegrees| i16::try_from(millidegrees.div_euclid(1000)).ok()).max()
}
