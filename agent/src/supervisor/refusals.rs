//! How many refused messages are reported: whoever holds the broker can send any number, and each report
//! costs disk and data.

use serin_protocol::ids::Millis;
use serin_protocol::message::RefusedKind;
use serin_protocol::topic::Topic;

/// Refusals reported at once.
const BURST: u32 = 16;
/// One more may be reported after each of these.
const REFILL: Millis = Millis::from_secs(10);

/// A token bucket that counts what it keeps back.
#[derive(Clone, Copy, Debug)]
pub(super) struct Refusals {
    tokens: u32,
    refilled: Millis,
    kept_back: u32,
}

impl Refusals {
    pub(super) const fn new() -> Self {
        Self { tokens: BURST, refilled: Millis(0), kept_back: 0 }
    }

    /// Whether one may be reported at `now`: how many were kept back since the last that was.
    pub(super) fn admit(&mut self, now: Millis) -> Option<u32> {
        let earned = now.0.saturating_sub(self.refilled.0) / REFILL.0;
        self.refilled.0 += earned * REFILL.0;
        self.tokens = u64::from(self.tokens).saturating_add(earned).min(u64::from(BURST)) as u32;
        if self.tokens == 0 {
            self.kept_back = self.kept_back.saturating_add(1);
            return None;
        }
        self.tokens -= 1;
        Some(std::mem::take(&mut self.kept_back))
    }
}

/// What kind of message comes on `topic`.
pub(super) const fn kind_of(topic: &Topic) -> RefusedKind {
    match topic {
        Topic::Assign(_) => RefusedKind::Assignment,
        Topic::Ack(_) => RefusedKind::Ack,
        Topic::Metadata(_) => RefusedKind::Metadata,
        Topic::Chunk { .. } => RefusedKind::Chunk,
        Topic::Event(_)
        | Topic::Report(_)
        | Topic::Sample(_)
        | Topic::Hello(_)
        | Topic::Enrol(_)
        | Topic::Enrolled(_)
        | Topic::Pause(_) => RefusedKind::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_reported_as_a_number() {
        let mut refusals = Refusals::new();
        let at_once = (0..1000).filter(|_| refusals.admit(Millis(5)).is_some()).count();
        assert_eq!(at_once, 16);
        assert_eq!(refusals.admit(Millis(9_999)), None);
        assert_eq!(refusals.admit(Millis(10_000)), Some(985));
        assert_eq!(refusals.admit(Millis(10_001)), None);
        let after_an_hour = (0..1000).filter(|_| refusals.admit(Millis(3_610_000)).is_some()).count();
        assert_eq!(after_an_hour, 16);
    }
}
