//! Files of a repository over plain HTTP, never read beyond their limit.

use std::fmt::Write as _;
use std::io::Read as _;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use ureq::Agent;

/// A file that takes longer is being withheld.
const TIME_LIMIT: Duration = Duration::from_secs(30);

/// A repository's folder, by URL.
pub(crate) struct Remote {
    base: String,
    agent: Agent,
}

impl Remote {
    pub(crate) fn new(base: &str) -> Self {
        let config =
            Agent::config_builder().timeout_global(Some(TIME_LIMIT)).http_status_as_error(false).build();
        Self { base: base.trim_end_matches('/').into(), agent: config.into() }
    }

    /// The file at `path` (quoted already), none when the repository does not have it. One byte more than
    /// `limit` is read, so that whoever checks the size sees that there is more.
    pub(crate) fn get(&self, path: &str, limit: u64) -> Result<Option<Vec<u8>>> {
        let url = format!("{}/{path}", self.base);
        let mut response = self.agent.get(&url).call().with_context(|| format!("fetching {url}"))?;
        match response.status().as_u16() {
            200 => {}
            403 | 404 => return Ok(None),
            status => bail!("fetching {url}: status {status}"),
        }
        let mut bytes = Vec::new();
        response.body_mut().as_reader().take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
        Ok(Some(bytes))
    }
}

/// `text` as one segment of a URL: everything but unreserved characters (RFC 3986, section 2.3) in
/// percent notation.
pub(crate) fn quote(text: &str) -> String {
    text.bytes().fold(String::new(), |mut quoted, byte| {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            quoted.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(quoted, "%{byte:02X}");
        }
        quoted
    })
}

/// `path`, each of its segments quoted.
pub(crate) fn quote_path(path: &str) -> String {
    path.split('/').map(quote).collect::<Vec<_>>().join("/")
}

#[cfg(test)]
mod tests {
    use super::{quote, quote_path};

    #[test]
    fn names_cannot_leave_their_place() {
        assert_eq!(quote("../delegated role?#%"), "..%2Fdelegated%20role%3F%23%25");
        assert_eq!(quote_path("models/digits/1.0~a b"), "models/digits/1.0~a%20b");
    }
}
