//! A request that is passed on as it comes, on a connection that its client has to itself.
//!
//! Not the framing, which is the protocol's. Invariant: what becomes of it is told to its recipient;
//! who adds to it only learns that it takes no more.

use std::time::Instant;

use super::{Upstream, Wire};
use crate::pipeline::{Failure, Patience, Recipient};

impl<W: Wire, R: Recipient + 'static> Upstream<W, R> {
    /// Queues the beginning of a request; see [`Upstream::enqueue`].
    ///
    /// # Errors
    /// As there.
    pub fn begin(
        &self,
        recipient: R,
        shape: W::Shape,
        expires: Instant,
        bytes: &[u8],
    ) -> Result<(), (R, Failure)> {
        if let Some(failure) = self.unreachable() {
            return Err((recipient, failure));
        }
        let mut pipeline = self.pipeline.borrow_mut();
        pipeline.begin(recipient, shape, expires, Patience::Timeout, bytes)?;
        drop(pipeline);
        self.wake();
        Ok(())
    }

    /// How many bytes the request that was begun takes now; `None` if it has failed. Its recipient
    /// learns when it takes more.
    #[must_use]
    pub fn takes(&self) -> Option<usize> {
        self.pipeline.borrow().takes()
    }

    /// Adds to the request that was begun.
    pub fn grow(&self, bytes: &[u8]) {
        self.pipeline.borrow_mut().grow(bytes);
        self.wake();
    }

    /// The request that was begun is whole.
    pub fn end_growing(&self) {
        self.pipeline.borrow_mut().end_growing();
    }
}
