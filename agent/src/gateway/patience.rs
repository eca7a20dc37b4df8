//! A stream that gives up on a peer who leaves written bytes lying.

use std::future::Future as _;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

/// Bytes a second that a caller must read of an answer: one on the same machine who takes less does not read, he holds a
/// connection.
pub(super) const RATE: u64 = 64 << 10;

/// `S`, whose writes fail when they have waited for their peer longer than `patience` and what he reads at [`RATE`] takes.
/// Without it a caller who never reads his answer, or a byte now and then, would hold a connection for ever.
pub(super) struct Patient<S> {
    stream: S,
    patience: Duration,
    stalled: Option<Stall>,
}

/// Not everything could be written at once.
struct Stall {
    since: Instant,
    /// Bytes that were written since.
    written: u64,
    timer: Pin<Box<Sleep>>,
}

impl<S> Patient<S> {
    pub(super) const fn new(stream: S, patience: Duration) -> Self {
        Self { stream, patience, stalled: None }
    }

    fn watch(&mut self, cx: &mut Context<'_>, wrote: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        let patience = self.patience;
        match (&wrote, &mut self.stalled) {
            (Poll::Ready(Ok(bytes)), Some(stall)) => stall.written += *bytes as u64,
            (Poll::Ready(_), _) => {}
            (Poll::Pending, stalled) => {
                let begin = || Stall { since: Instant::now(), written: 0, timer: Box::pin(sleep(patience)) };
                let stall = stalled.get_or_insert_with(begin);
                let due = stall.since + patience + Duration::from_millis(stall.written * 1000 / RATE);
                if stall.timer.deadline() != due {
                    stall.timer.as_mut().reset(due);
                }
                ready!(stall.timer.as_mut().poll(cx));
                let slow = io::Error::new(io::ErrorKind::TimedOut, "the caller does not read his answer");
                return Poll::Ready(Err(slow));
            }
        }
        wrote
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.watch(cx, written)
    }

    // Without these the library would copy every answer behind its head to write both at once.
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, parts);
        self.watch(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        // Asked for when all that there was has been written.
        if flushed.is_ready() {
            self.stalled = None;
        }
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;

    const PATIENCE: Duration = Duration::from_millis(100);

    #[tokio::test]
    async fn a_peer_who_reads_a_byte_now_and_then_is_given_up() {
        let (near, mut far) = duplex(64);
        let mut patient = Patient::new(near, PATIENCE);
        let reading = async {
            let mut byte = [0];
            while far.read_exact(&mut byte).await.is_ok() {
                sleep(PATIENCE / 10).await;
            }
        };
        tokio::select! {
            error = patient.write_all(&[0; 4096]) => {
                assert_eq!(error.expect_err("given up").kind(), io::ErrorKind::TimedOut);
            }
            () = reading => panic!("all was read"),
        }
    }

    #[tokio::test]
    async fn a_peer_who_reads_as_fast_as_he_must_is_waited_for() {
        let (near, mut far) = duplex(64);
        let mut patient = Patient::new(near, PATIENCE);
        let writing = async {
            patient.write_all(&vec![0; 1 << 20]).await.expect("read");
            patient.flush().await.expect("flushed");
            drop(patient);
        };
        let mut all = Vec::new();
        let (read, ()) = tokio::join!(far.read_to_end(&mut all), writing);
        assert_eq!(read.expect("all of it"), 1 << 20);
    }
}
