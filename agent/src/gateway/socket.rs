//! The agent's Unix socket: for its owner and group only, and never taken from an agent that lives.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream as BlockingStream;
use std::path::{Path, PathBuf};

use tokio::net::{UnixListener, UnixStream};

use crate::{folder, shelter};

/// Whoever may write to the socket may roll back: its owner and group.
const SOCKET_MODE: u32 = 0o660;
/// A folder made for it lets nobody else near.
const FOLDER_MODE: u32 = 0o750;

/// The socket cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Another agent answers on it.
    #[error("{path}: another agent is running and answers here; stop it first")]
    Taken {
        /// The socket.
        path: PathBuf,
    },
    /// Something else lies there.
    #[error("{path}: this is not a socket; move it away or configure another path")]
    NotASocket {
        /// The file.
        path: PathBuf,
    },
    /// The system refuses.
    #[error("{path}: {source}")]
    Io {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// A bound socket. Its file is removed when it is dropped, unless another has taken its place.
#[derive(Debug)]
pub struct LocalSocket {
    listener: UnixListener,
    path: PathBuf,
    /// Device and inode of the file.
    file: (u64, u64),
}

impl LocalSocket {
    /// Binds the socket at `path`, making its folder if there is none, and replacing what a dead agent
    /// has left there. Two agents that start at the same moment are kept apart elsewhere, by the lock on
    /// their data folder.
    pub fn bind(path: &Path) -> Result<Self, SocketError> {
        let failed = |source| SocketError::Io { path: path.into(), source };
        if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            folder::make(parent, FOLDER_MODE).map_err(failed)?;
        }
        check_unused(path)?;
        // Under its final name only when its mode is right.
        let fresh = path.with_extension("new");
        match fs::remove_file(&fresh) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            Ok(()) | Err(_) => {}
        }
        let listener = UnixListener::bind(&fresh).map_err(failed)?;
        let named = || {
            fs::set_permissions(&fresh, Permissions::from_mode(SOCKET_MODE))?;
            fs::rename(&fresh, path)?;
            fs::symlink_metadata(path)
        };
        let metadata = named().map_err(failed)?;
        Ok(Self { listener, path: path.into(), file: (metadata.dev(), metadata.ino()) })
    }

    pub(super) async fn accept(&self) -> io::Result<UnixStream> {
        self.listener.accept().await.map(|(stream, _)| stream)
    }

    /// As [`Self::bind`]; in memory when the disk does not take it.
    ///
    /// # Errors
    /// The disk's, when memory does not take it either.
    pub fn bind_anywhere(path: &Path) -> Result<Self, SocketError> {
        let why = match Self::bind(path) {
            Err(why @ SocketError::Io { .. }) => why,
            bound => return bound,
        };
        let elsewhere = || {
            let place = shelter::open(path.parent()?).ok()?;
            Self::bind(&place.join(path.file_name()?)).ok()
        };
        let Some(socket) = elsewhere() else { return Err(why) };
        tracing::error!(error = %why, instead = %socket.path.display(), "the socket is in memory");
        Ok(socket)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for LocalSocket {
    fn drop(&mut self) {
        let ours = |metadata: &fs::Metadata| (metadata.dev(), metadata.ino()) == self.file;
        if fs::symlink_metadata(&self.path).as_ref().is_ok_and(ours) {
            // What stays behind is replaced at the next start.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn check_unused(path: &Path) -> Result<(), SocketError> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(SocketError::Io { path: path.into(), source }),
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(SocketError::NotASocket { path: path.into() });
        }
        Ok(_) => {}
    }
    match BlockingStream::connect(path) {
        Ok(_) => Err(SocketError::Taken { path: path.into() }),
        // Nobody listens, or it was removed just now.
        Err(error) if matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound) => {
            Ok(())
        }
        Err(source) => Err(SocketError::Io { path: path.into(), source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::symlink_metadata(path).expect("there").mode() & 0o777
    }

    #[tokio::test]
    async fn the_socket_is_for_owner_and_group_and_goes_with_its_agent() {
        let root = tempfile::tempdir().expect("folder");
        let path = root.path().join("run/agent.sock");
        let socket = LocalSocket::bind(&path).expect("bound");
        assert_eq!((mode(&path), mode(path.parent().expect("folder"))), (0o660, 0o750));
        let peer = BlockingStream::connect(&path).expect("listening");
        let accepted = socket.accept().await.expect("accepted");
        assert_eq!(accepted.peer_cred().expect("known").uid(), rustix::process::getuid().as_raw());
        drop((peer, accepted, socket));
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_living_agent_keeps_its_socket_and_a_dead_one_loses_it() {
        let root = tempfile::tempdir().expect("folder");
        let path = root.path().join("agent.sock");
        let first = LocalSocket::bind(&path).expect("bound");
        assert!(matches!(LocalSocket::bind(&path), Err(SocketError::Taken { .. })));
        BlockingStream::connect(&path).expect("still listening");

        // A killed agent leaves its file behind.
        let killed = root.path().join("killed.sock");
        drop(std::os::unix::net::UnixListener::bind(&killed).expect("bound"));
        assert!(killed.exists());
        let socket = LocalSocket::bind(&killed).expect("taken over");
        assert_eq!(mode(&killed), 0o660);
        drop((first, socket));
    }

    #[tokio::test]
    async fn other_files_are_left_alone() {
        let root = tempfile::tempdir().expect("folder");
        let path = root.path().join("agent.sock");
        fs::write(&path, "precious").expect("writable");
        assert!(matches!(LocalSocket::bind(&path), Err(SocketError::NotASocket { .. })));
        assert_eq!(fs::read(&path).expect("there"), b"precious");
    }
}
