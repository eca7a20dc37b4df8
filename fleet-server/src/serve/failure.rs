//! Why a server could not start, or had to stop.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::broker::embedded::BrokerError;
use crate::broker::identity::EmptyPassword;
use crate::broker::tls::TlsError;
use crate::config::ConfigError;
use crate::fleet::FleetError;
use crate::fleet::secrets::SecretError;
use crate::notify::post::AuthoritiesError;
use crate::registry::objects::ObjectError;
use crate::repository::RepositoryError;
use crate::store::StoreError;

/// Why a server could not start, or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// A file named in the configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The data folder.
    #[error("{}: {source}", path.display())]
    Data {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The server's own secrets.
    #[error(transparent)]
    Secrets(#[from] SecretError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The object store.
    #[error(transparent)]
    Objects(#[from] ObjectError),
    /// The embedded broker.
    #[error("the embedded broker: {0}")]
    Broker(#[from] BrokerError),
    /// TLS with the broker.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The broker's password.
    #[error(transparent)]
    Password(#[from] EmptyPassword),
    /// The repository.
    #[error("the repository: {0}")]
    Repository(#[from] RepositoryError),
    /// A receiver of alerts.
    #[error(transparent)]
    Authorities(#[from] AuthoritiesError),
    /// The fleet could not be taken up.
    #[error(transparent)]
    Fleet(#[from] FleetError),
    /// The HTTP address.
    #[error("listening on {address} for HTTP: {source}")]
    Http {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// The thread that speaks with the broker.
    #[error("starting the thread that speaks with the broker: {0}")]
    Link(std::io::Error),
    /// Signals cannot be awaited.
    #[error("waiting for signals: {0}")]
    Signals(std::io::Error),
    /// The store failed while serving.
    #[error("the store failed; see the log")]
    StoreFailed,
}
