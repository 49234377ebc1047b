//! The body of a request on its way out.
//!
//! Not its verification: [`Body`] does that. Invariant: of a streamed body the last
//! [`HOLD_BACK_BYTES`] (or all of it, if it has fewer) leave only after its clean end.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use tokio::sync::mpsc;

use crate::body::{Body, CHUNK_BYTES};
use crate::error::BlobError;

/// How many of a streamed body's last bytes wait for the clean end.
pub const HOLD_BACK_BYTES: usize = 64 * 1024;
/// How many pieces may lie between the feeder and the connection.
const PIECES_IN_FLIGHT: usize = 1;

/// The body of a request.
#[derive(Debug)]
pub enum Payload<'a> {
    /// Bytes at hand; may be empty.
    Bytes(Bytes),
    /// A body that is verified as it passes. Its digests can be asked for after a success.
    Streamed(&'a mut Body),
}

impl Payload<'_> {
    /// No bytes.
    #[must_use]
    pub const fn empty() -> Self {
        Self::Bytes(Bytes::new())
    }

    /// How many bytes it has.
    #[must_use]
    pub fn size(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Streamed(body) => body.size(),
        }
    }

    /// Reads a body that would be held back whole anyway: then no connection waits for it.
    pub(super) async fn settle(self) -> Result<Self, BlobError> {
        match self {
            Self::Streamed(body) if body.size() <= HOLD_BACK_BYTES as u64 => {
                Ok(Self::Bytes(body.collect().await?))
            }
            other => Ok(other),
        }
    }
}

/// What hyper sends: pieces that a [`Feeder`] gives, of a size known in advance.
#[derive(Debug)]
pub(super) struct PieceBody {
    first: Option<Bytes>,
    pieces: Option<mpsc::Receiver<Bytes>>,
    left: u64,
}

impl PieceBody {
    pub(super) fn whole(bytes: Bytes) -> Self {
        Self {
            left: bytes.len() as u64,
            first: (!bytes.is_empty()).then_some(bytes),
            pieces: None,
        }
    }

    pub(super) fn fed(size: u64) -> (Self, mpsc::Sender<Bytes>) {
        let (sender, receiver) = mpsc::channel(PIECES_IN_FLIGHT);
        let body = Self {
            first: None,
            pieces: Some(receiver),
            left: size,
        };
        (body, sender)
    }
}

impl hyper::body::Body for PieceBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = self.get_mut();
        let piece = match (this.first.take(), &mut this.pieces) {
            (Some(piece), _) => Some(piece),
            (None, Some(pieces)) => match pieces.poll_recv(context) {
                Poll::Ready(piece) => piece,
                Poll::Pending => return Poll::Pending,
            },
            (None, None) => None,
        };
        // An end before `left` is 0 makes hyper close the connection: the request stays incomplete.
        Poll::Ready(piece.map(|piece| {
            this.left = this.left.saturating_sub(piece.len() as u64);
            Ok(Frame::data(piece))
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

/// How feeding ended.
#[derive(Debug)]
pub(super) enum Fed {
    /// The last piece was handed to the connection.
    All,
    /// The connection takes no more: what it answers says why.
    Closed,
    /// It took nothing for too long; the request is incomplete.
    Stalled,
    /// The body is not what was announced, or its source failed; the request is incomplete.
    Failed(BlobError),
}

/// Gives a body to a connection piece by piece, the last ones after its clean end.
pub(super) async fn feed(body: &mut Body, pieces: mpsc::Sender<Bytes>, stall: Duration) -> Fed {
    let mut held = Held::default();
    loop {
        let ended = match body.next().await {
            Some(Ok(chunk)) => {
                held.take_in(chunk);
                false
            }
            Some(Err(error)) => return Fed::Failed(error),
            None => true,
        };
        while let Some(piece) = held.release(ended) {
            match tokio::time::timeout(stall, pieces.reserve()).await {
                Ok(Ok(permit)) => permit.send(piece),
                Ok(Err(_)) => return Fed::Closed,
                Err(_) => return Fed::Stalled,
            }
        }
        if ended {
            return Fed::All;
        }
    }
}

/// What waits to be released.
#[derive(Debug, Default)]
struct Held {
    chunks: VecDeque<Bytes>,
    bytes: usize,
}

impl Held {
    fn take_in(&mut self, chunk: Bytes) {
        self.bytes = self.bytes.saturating_add(chunk.len());
        self.chunks.push_back(chunk);
    }

    /// The next piece that may leave: all that lies before the last bytes, or everything.
    fn release(&mut self, ended: bool) -> Option<Bytes> {
        let keep = if ended { 0 } else { HOLD_BACK_BYTES };
        let free = self.bytes.saturating_sub(keep).min(CHUNK_BYTES);
        if free == 0 {
            return None;
        }
        let mut chunk = self.chunks.pop_front()?;
        let piece = if chunk.len() > free {
            let piece = chunk.split_to(free);
            self.chunks.push_front(chunk);
            piece
        } else {
            chunk
        };
        self.bytes = self.bytes.saturating_sub(piece.len());
        Some(piece)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_bytes_are_held_until_the_end() {
        let mut held = Held::default();
        held.take_in(Bytes::from(vec![1; HOLD_BACK_BYTES]));
        assert_eq!(held.release(false), None);
        held.take_in(Bytes::from(vec![2; 10]));
        assert_eq!(held.release(false).map(|piece| piece.len()), Some(10));
        assert_eq!(held.release(false), None);
        let mut rest = 0;
        while let Some(piece) = held.release(true) {
            assert!(!piece.is_empty() && piece.len() <= CHUNK_BYTES);
            rest += piece.len();
        }
        assert_eq!(rest, HOLD_BACK_BYTES);
    }
}
