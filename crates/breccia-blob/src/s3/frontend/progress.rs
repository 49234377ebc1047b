//! A connection whose peer must take what is written to it.
//!
//! Not about reading: bodies have a pace of their own. Invariant: a write never waits longer than
//! `write-timeout` for one byte, nor longer than a window below `min-body-rate`.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use breccia_net::clock;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use super::pace::Pace;

/// See the module's page.
#[derive(Debug)]
pub(super) struct Progress<S> {
    stream: S,
    timeout: Duration,
    pace: Pace,
    /// Since when a write waits, and until when it may.
    waiting: Option<(Instant, Pin<Box<Sleep>>)>,
}

impl<S> Progress<S> {
    pub(super) fn new(stream: S, timeout: Duration, min_rate: u64) -> Self {
        Self {
            stream,
            timeout,
            pace: Pace::new(min_rate),
            waiting: None,
        }
    }

    /// The connection itself.
    pub(super) fn into_inner(self) -> S {
        self.stream
    }

    /// Holds the answer of a write or flush against the clock; `bytes` is what it has moved.
    fn judge<T>(
        &mut self,
        context: &mut Context<'_>,
        polled: Poll<io::Result<T>>,
        bytes: impl Fn(&T) -> u64,
    ) -> Poll<io::Result<T>> {
        match polled {
            Poll::Pending => self.keep_waiting(context),
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Ready(Ok(done)) => {
                let waited = self.waiting.take().map_or(Duration::ZERO, |(since, _)| {
                    clock::now().saturating_duration_since(since)
                });
                if self.pace.keeps(waited, bytes(&done)) {
                    Poll::Ready(Ok(done))
                } else {
                    Poll::Ready(Err(too_slow()))
                }
            }
        }
    }

    fn keep_waiting<T>(&mut self, context: &mut Context<'_>) -> Poll<io::Result<T>> {
        let longest = self
            .pace
            .patience()
            .map_or(self.timeout, |patience| patience.min(self.timeout));
        let (since, sleep) = self
            .waiting
            .get_or_insert_with(|| (clock::now(), Box::pin(tokio::time::sleep(longest))));
        if sleep.as_mut().poll(context).is_pending() {
            return Poll::Pending;
        }
        let now = clock::now();
        let waited = now.saturating_duration_since(*since);
        // The pace's patience may have ended before the timeout: then the window decides.
        if waited >= self.timeout || !self.pace.keeps(waited, 0) {
            return Poll::Ready(Err(too_slow()));
        }
        let left = self.timeout.saturating_sub(waited);
        let longest = self
            .pace
            .patience()
            .map_or(left, |patience| patience.min(left));
        let mut again = Box::pin(tokio::time::sleep(longest));
        let pending = again.as_mut().poll(context).is_pending();
        self.waiting = Some((now, again));
        if !pending {
            context.waker().wake_by_ref();
        }
        Poll::Pending
    }
}

fn too_slow() -> io::Error {
    io::Error::new(
        io::ErrorKind::TimedOut,
        "the client takes its answer too slowly",
    )
}

impl<S: AsyncRead + Unpin> AsyncRead for Progress<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Progress<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.judge(context, polled, |count| *count as u64)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(context, pieces);
        self.judge(context, polled, |count| *count as u64)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_flush(context);
        self.judge(context, polled, |()| 0)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    const TIMEOUT: Duration = Duration::from_secs(30);

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_takes_nothing_is_cut() {
        let (near, _far) = tokio::io::duplex(16);
        let mut stream = Progress::new(near, TIMEOUT, 0);
        let begun = clock::now();
        let error = stream.write_all(&[0; 64]).await.expect_err("it is cut");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(clock::now() - begun >= TIMEOUT);
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_below_the_rate_is_cut_and_one_above_is_not() {
        let check = async |every: Duration, cut: bool| {
            let (near, mut far) = tokio::io::duplex(10);
            let reading = tokio::spawn(async move {
                let mut bytes = [0; 10];
                loop {
                    tokio::time::sleep(every).await;
                    if !matches!(far.read(&mut bytes).await, Ok(1..)) {
                        return;
                    }
                }
            });
            let mut stream = Progress::new(near, TIMEOUT, 10);
            let written = stream.write_all(&[0; 1000]).await;
            assert_eq!(written.is_err(), cut, "a read every {every:?}");
            drop(stream);
            reading.await.expect("the reader ends");
        };
        check(Duration::from_millis(500), false).await;
        check(Duration::from_secs(5), true).await;
    }
}
