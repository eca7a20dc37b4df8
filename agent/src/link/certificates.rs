//! Until when the certificates of the link hold, for the doctor. Whether they are believed is decided when the
//! link is made.

use std::fs;
use std::path::Path;

use serin_protocol::ids::UnixMillis;
use x509_parser::pem::Pem;

use super::tls::TlsFiles;

/// Largest file of certificates read, in bytes: all authorities of a browser are a third of that.
const MAX_BYTES: u64 = 1 << 20;

/// One of the files of the link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkFile {
    /// Which, as it is called in the configuration.
    pub what: &'static str,
    /// Until when it is good, or why it cannot be used. A key never expires.
    pub good: Result<Option<UnixMillis>, String>,
}

/// Looks at each file.
pub fn examine(files: &TlsFiles) -> Vec<LinkFile> {
    // One authority that is still good is enough; of a chain every link counts.
    let ca = LinkFile { what: "ca", good: ends(&files.ca).map(|ends| ends.into_iter().max()) };
    let certificate = files
        .certificate
        .as_ref()
        .map(|path| LinkFile { what: "certificate", good: ends(path).map(|ends| ends.into_iter().min()) });
    let key = files.key.as_ref().map(|path| LinkFile {
        what: "key",
        // Not its contents: that they fit is known since the start.
        good: fs::File::open(path).map(|_| None).map_err(|error| error.to_string()),
    });
    [ca].into_iter().chain(certificate).chain(key).collect()
}

/// The end of each certificate in the file, which has at least one.
fn ends(path: &Path) -> Result<Vec<UnixMillis>, String> {
    let size = fs::metadata(path).map_err(|error| error.to_string())?.len();
    if size > MAX_BYTES {
        return Err(format!("{size} bytes, at most {MAX_BYTES} are read"));
    }
    let bytes = fs::read(path).map_err(|error| error.to_string())?;
    let mut ends = Vec::new();
    for pem in Pem::iter_from_buffer(&bytes) {
        let pem = pem.map_err(|error| error.to_string())?;
        let certificate = pem.parse_x509().map_err(|error| error.to_string())?;
        let end = certificate.validity().not_after.timestamp();
        ends.push(UnixMillis(u64::try_from(end).unwrap_or(0).saturating_mul(1000)));
    }
    if ends.is_empty() { Err("no certificate in it".into()) } else { Ok(ends) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_used_is_named() {
        let folder = tempfile::tempdir().expect("folder");
        let path = |name: &str| folder.path().join(name);
        fs::write(path("empty"), "").expect("written");
        fs::write(path("torn"), "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
            .expect("written");
        let files =
            TlsFiles { ca: path("empty"), certificate: Some(path("torn")), key: Some(path("missing")) };
        let found = examine(&files);
        let words: Vec<&str> = found.iter().map(|file| file.what).collect();
        assert_eq!(words, ["ca", "certificate", "key"]);
        assert!(found.iter().all(|file| file.good.is_err()), "{found:?}");
    }
}
