//! TLS with the broker: whom the device believes, and how it proves who it is. Files are read once, at
//! start, so that a wrong one is named then and not at every connection.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rumqttc::{TlsConfiguration, Transport};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use serde::Deserialize;

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

/// How to connect by these files.
pub fn transport(files: &TlsFiles) -> Result<Transport, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(&files.ca)? {
        roots.add(certificate).map_err(|error| file(&files.ca, &error))?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let client = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let client = client.with_root_certificates(roots);
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
    let mode = fs::metadata(path).map_err(|error| file(path, &error))?.mode();
    if mode & 0o077 != 0 {
        return Err(TlsError::Exposed { path: path.into(), mode: mode & 0o7777 });
    }
    PrivateKeyDer::from_pem_file(path).map_err(|error| file(path, &error))
}

fn file(path: &Path, reason: &dyn std::fmt::Display) -> TlsError {
    TlsError::File { path: path.into(), reason: reason.to_string() }
}
