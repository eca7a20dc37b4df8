//! TLS with the broker: whom the device believes, and how it proves who it is. Files are read once, at
//! start, so that a wrong one is named then and not at every connection.
//!
//! A device's clock may be dead. Certificates are judged at the highest signed time seen if that is later,
//! and one that is not valid yet says that the clock is behind, not that it is wrong: without the broker the
//! device would never learn the time. What runs is not decided here.

use std::fs::File;
use std::io::{self, BufReader};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rumqttc::{TlsConfiguration, Transport};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::time_provider::TimeProvider;
use rustls::{
    AlertDescription as Alert, CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore,
    SignatureScheme,
};
use serde::Deserialize;
use serin_protocol::ids::UnixMillis;

/// Certificates of one chain whose beginning is taken for the time: a device's broker has two or three.
const MAX_CHAIN: usize = 8;

/// What the time is at least; whoever learns of a later signed time says so.
#[derive(Clone, Debug, Default)]
pub struct TimeFloor(Arc<AtomicU64>);

impl TimeFloor {
    /// The highest signed time seen.
    pub fn set(&self, at: UnixMillis) {
        self.0.store(at.0, Ordering::Relaxed);
    }
}

impl TimeProvider for TimeFloor {
    fn current_time(&self) -> Option<UnixTime> {
        let system = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let floor = Duration::from_millis(self.0.load(Ordering::Relaxed));
        Some(UnixTime::since_unix_epoch(system.max(floor)))
    }
}

/// The usual verifier, for whom a certificate that is not valid yet is one that tells the time.
#[derive(Debug)]
struct ClockMayBeBehind(Arc<WebPkiServerVerifier>);

impl ServerCertVerifier for ClockMayBeBehind {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        mut now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        for _ in 0..MAX_CHAIN {
            let verdict =
                self.0.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
            match verdict {
                Err(Error::InvalidCertificate(CertificateError::NotValidYetContext {
                    not_before, ..
                })) if not_before > now => now = not_before,
                verdict => return verdict,
            }
        }
        Err(Error::InvalidCertificate(CertificateError::NotValidYet))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

/// Whether the broker has ended the handshake because of the certificate that it was shown, or missed.
pub(super) fn told_off(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        // What an `io::Error` holds is not its source.
        let held = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        let held = held.and_then(|held| held.downcast_ref::<Error>());
        if let Some(Error::AlertReceived(alert)) = held.or_else(|| error.downcast_ref()) {
            return matches!(
                alert,
                Alert::BadCertificate
                    | Alert::UnsupportedCertificate
                    | Alert::CertificateRevoked
                    | Alert::CertificateExpired
                    | Alert::CertificateUnknown
                    | Alert::CertificateRequired
                    | Alert::UnknownCA
                    | Alert::AccessDenied
            );
        }
        cause = error.source();
    }
    false
}

/// The files, PEM each.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsFiles {
    /// Certificates of the authorities that may vouch for the broker.
    pub ca: PathBuf,
    /// The device's certificate, which names it.
    pub certificate: Option<PathBuf>,
    /// The certificate's private key, for the agent's eyes only.
    pub key: Option<PathBuf>,
}

/// TLS cannot be had with these files.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file is not what it should be.
    #[error("broker.tls: {path}: {reason}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// Others may read the key.
    #[error("broker.tls: {path}: mode {mode:o} lets others read the private key; run chmod 600 on it")]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// One without the other.
    #[error("broker.tls: certificate and key go together")]
    Half,
    /// They do not fit together.
    #[error("broker.tls: {0}")]
    Rejected(#[from] rustls::Error),
}

/// How to connect by these files, at a time that is not below `floor`.
pub fn transport(files: &TlsFiles, floor: &TimeFloor) -> Result<Transport, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(&files.ca)? {
        roots.add(certificate).map_err(|error| file(&files.ca, &error))?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
    let verifier = verifier.build().map_err(|error| file(&files.ca, &error))?;
    let client = ClientConfig::builder_with_details(provider, Arc::new(floor.clone()));
    let client = client.with_safe_default_protocol_versions()?.dangerous();
    let client = client.with_custom_certificate_verifier(Arc::new(ClockMayBeBehind(verifier)));
    let client = match (&files.certificate, &files.key) {
        (Some(certificate), Some(key)) => {
            client.with_client_auth_cert(certificates(certificate)?, private_key(key)?)?
        }
        (None, None) => client.with_no_client_auth(),
        _ => return Err(TlsError::Half),
    };
    Ok(Transport::tls_with_config(TlsConfiguration::Rustls(Arc::new(client))))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let read = read.map_err(|error| file(path, &error))?;
    if read.is_empty() { Err(file(path, &"no certificate in it")) } else { Ok(read) }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    // The mode of what is read, whatever the name stands for by then.
    let opened = File::open(path).map_err(|error| file(path, &error))?;
    let mode = opened.metadata().map_err(|error| file(path, &error))?.mode();
    if mode & 0o077 != 0 {
        return Err(TlsError::Exposed { path: path.into(), mode: mode & 0o7777 });
    }
    PrivateKeyDer::from_pem_reader(BufReader::new(opened)).map_err(|error| file(path, &error))
}

fn file(path: &Path, reason: &dyn std::fmt::Display) -> TlsError {
    TlsError::File { path: path.into(), reason: reason.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rumqttc::ConnectionError;

    #[test]
    fn a_certificate_that_the_broker_refuses_is_told_from_a_network_that_fails() {
        let told = |alert| told_off(&ConnectionError::Io(io::Error::other(Error::AlertReceived(alert))));
        assert!(told(Alert::CertificateRevoked) && told(Alert::CertificateRequired));
        assert!(!told(Alert::InternalError));
        assert!(!told_off(&ConnectionError::Io(io::ErrorKind::ConnectionReset.into())));
    }
}
