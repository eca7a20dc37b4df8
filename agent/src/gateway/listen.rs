//! Connections: accepted up to a bound, served until they end, drained when the agent stops.

use std::convert::Infallible;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use super::http::{Gateway, Peer};
use super::patience::Patient;
use super::router::Infer;
use super::socket::LocalSocket;

/// Most headers of a request; browsers send about 20.
const MAX_HEADERS: usize = 64;
/// Pause after a failed accept, which is nearly always a lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Where connections come from.
#[derive(Debug)]
pub enum Listener {
    /// Loopback, for apps.
    Tcp(TcpListener),
    /// The agent's Unix socket, for apps and the field engineer.
    Local(LocalSocket),
}

enum Stream {
    Tcp(TcpStream),
    Local(UnixStream),
}

impl Listener {
    async fn accept(&self) -> io::Result<(Stream, Peer)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                // Answers are written whole; waiting for more would only delay them.
                stream.set_nodelay(true)?;
                Ok((Stream::Tcp(stream), Peer::Loopback))
            }
            Self::Local(socket) => {
                let stream = socket.accept().await?;
                let uid = stream.peer_cred()?.uid();
                Ok((Stream::Local(stream), Peer::Local { uid }))
            }
        }
    }
}

/// Answers what comes in on `listener` until `stop` is set or its sender is gone, then finishes the
/// requests it has begun, for [`Limits::drain`](super::Limits) at most.
///
/// Connections beyond [`Limits::connections`](super::Limits) wait in the system's queue until another
/// one ends; idle ones are ended after [`Limits::header`](super::Limits).
pub async fn serve<W: Infer>(gateway: Arc<Gateway<W>>, listener: Listener, mut stop: watch::Receiver<bool>) {
    let places = Arc::new(Semaphore::new(gateway.limits().connections));
    let mut connections = JoinSet::new();
    let signal = stop.clone();
    let mut stopped = pin!(stopped(&mut stop));
    loop {
        while connections.try_join_next().is_some() {}
        let next = async {
            // The semaphore is never closed.
            let place = Arc::clone(&places).acquire_owned().await.map_err(io::Error::other)?;
            Ok::<_, io::Error>((place, listener.accept().await?))
        };
        let accepted = tokio::select! {
            biased;
            () = &mut stopped => break,
            accepted = next => accepted,
        };
        match accepted {
            Ok((place, (stream, peer))) => {
                let connection = connection(Arc::clone(&gateway), stream, peer, signal.clone());
                connections.spawn(async move {
                    connection.await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    let drained = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(gateway.limits().drain, drained).await.is_err() {
        tracing::warn!("connections that did not end in time were cut");
    }
}

async fn stopped(stop: &mut watch::Receiver<bool>) {
    // An error is a supervisor that is gone.
    let _ = stop.wait_for(|stop| *stop).await;
}

async fn connection<W: Infer>(
    gateway: Arc<Gateway<W>>,
    stream: Stream,
    peer: Peer,
    stop: watch::Receiver<bool>,
) {
    match stream {
        Stream::Tcp(stream) => exchange(gateway, stream, peer, stop).await,
        Stream::Local(stream) => exchange(gateway, stream, peer, stop).await,
    }
}

async fn exchange<W: Infer, S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    gateway: Arc<Gateway<W>>,
    stream: S,
    peer: Peer,
    mut stop: watch::Receiver<bool>,
) {
    let limits = *gateway.limits();
    let service = service_fn(move |request| {
        let gateway = Arc::clone(&gateway);
        async move { Ok::<_, Infallible>(gateway.answer(peer, request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header)
        .max_buf_size(limits.buffer)
        .max_headers(MAX_HEADERS)
        .serve_connection(TokioIo::new(Patient::new(stream, limits.send)), service);
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stopped(&mut stop) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, ?peer, "a connection ended early");
    }
}
