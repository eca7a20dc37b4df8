//! Certificates that their authority took back: the list in `crl.pem` beside the other TLS files, as
//! `serin-fleet ca revoke` writes it, read again while the broker runs. The engine keeps the TLS handshake to
//! itself, so that a session is refused right after it, by the number of its certificate.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::watch;
use tracing::{error, info};
use x509_parser::pem::Pem;
use x509_parser::revocation_list::CertificateRevocationList;

use super::tls::TlsError;

/// How often the list is looked at: a certificate that was taken back opens nothing after this time.
const LOOK: Duration = Duration::from_secs(5);

/// Largest list read: some 100,000 certificates.
const MAX_BYTES: u64 = 4 * 1024 * 1024;

/// Numbers of certificates that are taken back.
#[derive(Debug)]
pub(super) struct Withdrawn {
    list: PathBuf,
    authorities: PathBuf,
    serials: RwLock<BTreeSet<String>>,
    changed: watch::Sender<u64>,
}

impl Withdrawn {
    /// By the list at `list`, which need not be there, of one of the authorities in the file `authorities`.
    pub(super) fn open(list: &Path, authorities: &Path) -> Result<Self, TlsError> {
        let withdrawn = Self {
            list: list.into(),
            authorities: authorities.into(),
            serials: RwLock::default(),
            changed: watch::Sender::new(0),
        };
        withdrawn.read()?;
        Ok(withdrawn)
    }

    /// Whether the certificate with this number, in hexadecimal, is taken back.
    pub(super) fn contains(&self, serial: &str) -> bool {
        let serials = self.serials.read().unwrap_or_else(PoisonError::into_inner);
        serials.contains(serial.trim_start_matches('0'))
    }

    /// Changes whenever the list does.
    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Reads the list anew for as long as the broker runs. One that cannot be read leaves the last in force.
    pub(super) async fn watch(&self) {
        let mut ticks = tokio::time::interval(LOOK);
        loop {
            ticks.tick().await;
            match self.read() {
                Ok(false) => {}
                Ok(true) => {
                    info!(list = %self.list.display(), "the list of revoked certificates has changed");
                }
                Err(error) => error!(%error, "the list of revoked certificates is not taken over"),
            }
        }
    }

    /// Whether it has changed.
    fn read(&self) -> Result<bool, TlsError> {
        let read = match read(&self.list) {
            Ok(text) => {
                serials(&text, &read(&self.authorities).map_err(|error| failed(&self.authorities, &error))?)
                    .map_err(|reason| failed(&self.list, &reason))?
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(failed(&self.list, &error)),
        };
        let mut known = self.serials.write().unwrap_or_else(PoisonError::into_inner);
        if *known == read {
            return Ok(false);
        }
        *known = read;
        drop(known);
        self.changed.send_modify(|times| *times = times.wrapping_add(1));
        Ok(true)
    }
}

fn failed(path: &Path, reason: &dyn std::fmt::Display) -> TlsError {
    TlsError::File { path: path.into(), reason: reason.to_string() }
}

fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(std::io::Error::other(format!("larger than {MAX_BYTES} bytes")));
    }
    Ok(bytes)
}

/// The numbers on all lists in `text`, each signed by one of `authorities`.
fn serials(text: &[u8], authorities: &[u8]) -> Result<BTreeSet<String>, String> {
    let mut found = BTreeSet::new();
    let mut lists = 0;
    for pem in Pem::iter_from_buffer(text) {
        let pem = pem.map_err(|error| format!("not PEM: {error}"))?;
        let (_, list) =
            x509_parser::parse_x509_crl(&pem.contents).map_err(|error| format!("no list: {error}"))?;
        if !is_ours(&list, authorities) {
            return Err("it is signed by none of the authorities".into());
        }
        found.extend(list.iter_revoked_certificates().map(|one| one.user_certificate.to_str_radix(16)));
        lists += 1;
    }
    if lists == 0 { Err("there is no list in it".into()) } else { Ok(found) }
}

fn is_ours(list: &CertificateRevocationList<'_>, authorities: &[u8]) -> bool {
    Pem::iter_from_buffer(authorities).flatten().any(|pem| {
        x509_parser::parse_x509_certificate(&pem.contents)
            .is_ok_and(|(_, authority)| list.verify_signature(authority.public_key()).is_ok())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authority::{Authority, Subject};

    #[test]
    fn a_list_of_the_authority_is_taken_over_and_another_is_not() {
        let home = tempfile::tempdir().expect("a folder");
        let authority = Authority::init(&home.path().join("ca"), "fleet").expect("is made");
        let device = Subject::Client("kiosk-07".parse().expect("name"));
        let issued = authority.issue(&device, 1).expect("issues");
        let (_, pem) = x509_parser::pem::parse_x509_pem(issued.certificate.as_bytes()).expect("PEM");
        let serial = pem.parse_x509().expect("a certificate").serial.to_str_radix(16);
        let withdrawn = Withdrawn::open(&authority.list(), &authority.certificate()).expect("opens");
        assert!(!withdrawn.contains(&serial));
        authority.revoke(&"kiosk-07".parse().expect("name")).expect("revokes");
        assert!(withdrawn.read().expect("reads") && withdrawn.contains(&serial));
        assert!(!withdrawn.read().expect("reads"), "the same again");

        let other = Authority::init(&home.path().join("other"), "other").expect("is made");
        std::fs::copy(other.list(), authority.list()).expect("ours");
        assert!(withdrawn.read().is_err() && withdrawn.contains(&serial), "the last one stays in force");
        std::fs::write(authority.list(), "").expect("ours");
        assert!(withdrawn.read().is_err());
        // Without a list nothing is taken back.
        let absent = Withdrawn::open(&home.path().join("none.pem"), &authority.certificate());
        assert!(!absent.expect("opens").contains(&serial));
    }
}
