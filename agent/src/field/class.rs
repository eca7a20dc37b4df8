//! Whether the device is what its configuration says: of a class that it has everything of.

use super::checkup::CheckLine;

/// `lacks` is what it lacks of its class.
pub(super) fn check(lacks: &[String]) -> CheckLine {
    if lacks.is_empty() {
        return CheckLine::ok(
            "class",
            "the device has all that its class asks for, as far as it can be told",
        );
    }
    let finding = format!("{}; releases for this class are refused", lacks.join("; "));
    CheckLine::warn("class", finding, "set `target` in the configuration to the class that the device is of")
}
