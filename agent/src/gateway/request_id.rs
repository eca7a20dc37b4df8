//! What a request is called in traces, so that an app's log and the agent's can be laid side by side.

use std::sync::atomic::{AtomicU64, Ordering};

use hyper::header::{HeaderMap, HeaderName, HeaderValue};

/// The caller's name for a request, and in every answer to an inference the name it has in traces.
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Longest name taken from a caller; a trace context has 55 bytes.
const MAX_BYTES: usize = 128;

/// Gives names to requests that come without one.
#[derive(Debug)]
pub(super) struct RequestIds {
    /// Tells one start of the agent from another.
    start: u32,
    next: AtomicU64,
}

impl RequestIds {
    /// Names that begin with `start`.
    pub(super) const fn new(start: u32) -> Self {
        Self { start, next: AtomicU64::new(1) }
    }

    /// The name of a request with these `headers`: the caller's, if he gave one that can be written into a
    /// log, or a new one.
    pub(super) fn name(&self, headers: &HeaderMap) -> HeaderValue {
        if let Some(given) = headers.get(REQUEST_ID).filter(|given| is_sound(given.as_bytes())) {
            return given.clone();
        }
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        // Digits and a dash, which always are a value.
        HeaderValue::from_str(&format!("{:08x}-{number}", self.start))
            .unwrap_or_else(|_| HeaderValue::from_static("unnamed"))
    }
}

/// Visible ASCII, so that nothing moves the cursor of whoever reads the log.
fn is_sound(name: &[u8]) -> bool {
    (1..=MAX_BYTES).contains(&name.len()) && name.iter().all(u8::is_ascii_graphic)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_callers_name_is_kept_if_it_can_be_logged() {
        let ids = RequestIds::new(0xAB);
        let mut headers = HeaderMap::new();
        assert_eq!(ids.name(&headers), "000000ab-1");
        headers.insert(REQUEST_ID, HeaderValue::from_static("app/7:x"));
        assert_eq!(ids.name(&headers), "app/7:x");
        for (bad, name) in [("", "000000ab-2"), ("two words", "000000ab-3"), (&"x".repeat(129), "000000ab-4")]
        {
            headers.insert(REQUEST_ID, HeaderValue::from_str(bad).expect("header"));
            assert_eq!(ids.name(&headers), name);
        }
    }
}
