//! Over which interfaces the world is reached: those of the best default route of each IP version. Which of the
//! two a connection takes is the kernel's choice, so both count.

use std::path::Path;

use super::text;

/// The route is there (`RTF_UP` of `linux/route.h`).
const UP: u32 = 0x1;
/// It refuses what it is asked to carry (`RTF_REJECT`).
const REJECT: u32 = 0x200;

/// Their names, at most one for each version.
pub(super) fn default_interfaces(folder: &Path) -> Vec<String> {
    let four = text(&folder.join("route")).and_then(|table| best(table.lines().filter_map(default_of_four)));
    let six =
        text(&folder.join("ipv6_route")).and_then(|table| best(table.lines().filter_map(default_of_six)));
    let mut names: Vec<String> = four.into_iter().chain(six).collect();
    names.dedup();
    names
}

fn best<'a>(routes: impl Iterator<Item = (u32, &'a str)>) -> Option<String> {
    routes.min_by_key(|(metric, _)| *metric).map(|(_, interface)| interface.to_owned())
}

/// Metric and interface of a line of `/proc/net/route`, if it is a default route: interface, destination,
/// gateway, flags, references, uses, metric, mask.
fn default_of_four(line: &str) -> Option<(u32, &str)> {
    let mut fields = line.split_ascii_whitespace();
    let (interface, destination) = (fields.next()?, fields.next()?);
    let flags = u32::from_str_radix(fields.nth(1)?, 16).ok()?;
    let metric = fields.nth(2)?.parse().ok()?;
    let mask = fields.next()?;
    let default = destination == "00000000" && mask == "00000000" && is_usable(flags);
    default.then_some((metric, interface))
}

/// The same of `/proc/net/ipv6_route`: destination, its length, source, its length, next hop, metric,
/// references, uses, flags, interface.
fn default_of_six(line: &str) -> Option<(u32, &str)> {
    let mut fields = line.split_ascii_whitespace();
    let (destination, length) = (fields.next()?, fields.next()?);
    let metric = u32::from_str_radix(fields.nth(3)?, 16).ok()?;
    let flags = u32::from_str_radix(fields.nth(2)?, 16).ok()?;
    let interface = fields.next()?;
    let default = destination.bytes().all(|digit| digit == b'0') && length == "00" && is_usable(flags);
    default.then_some((metric, interface))
}

const fn is_usable(flags: u32) -> bool {
    flags & UP != 0 && flags & REJECT == 0
}
