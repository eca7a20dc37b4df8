//! TLS files, and the server's own client with a broker elsewhere. They are read once, at start, so that a
//! wrong one is named then and not at every connection.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rumqttc::{TlsConfiguration, Transport};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use serde::Deserialize;

/// The files, PEM each. Certificates show names: a device's its id, the server's `serin-server`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsFiles {
    /// Certificates of the authorities that may vouch for the other side.
    pub ca: PathBuf,
    /// The server's certificate.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

impl TlsFiles {
    /// Where the authority's list of revoked certificates is, if there is one: `crl.pem` beside its certificate.
    pub fn list(&self) -> PathBuf {
        self.ca.with_file_name("crl.pem")
    }
}

/// TLS cannot be had with these files.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file is not what it should be.
    #[error("{}: {reason}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// They do not fit together.
    #[error("TLS: {0}")]
    Rejected(#[from] rustls::Error),
}

/// How the server connects to a broker by these files.
pub fn transport(files: &TlsFiles) -> Result<Transport, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(&files.ca)? {
        roots.add(certificate).map_err(|error| file(&files.ca, &error))?;
    }
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|error| file(&files.key, &error))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let client = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let client = client.with_root_certificates(roots);
    let client = client.with_client_auth_cert(certificates(&files.certificate)?, key)?;
    Ok(Transport::tls_with_config(TlsConfiguration::Rustls(Arc::new(client))))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let read = read.map_err(|error| file(path, &error))?;
    if read.is_empty() { Err(file(path, &"no certificate in it")) } else { Ok(read) }
}

fn file(path: &Path, reason: &dyn std::fmt::Display) -> TlsError {
    TlsError::File { path: path.into(), reason: reason.to_string() }
}
