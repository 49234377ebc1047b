//! A request whose bytes come bit by bit: its writing begins before its end is known.
//!
//! Only for a connection that one client has to itself: whatever else were queued would wait behind
//! it. Invariant: a request that was not written to its end has not been run, so whatever becomes of
//! the connection it is "not applied".

use std::time::Instant;

use breccia_core::error::Effect;

use super::{Failure, Patience, Pipeline, Recipient};

/// While more bytes than this wait to be written, a growing request takes no more.
const GROWING_BYTES: usize = 256 * 1024;
/// Below this it asks for more.
const LOW_BYTES: usize = 128 * 1024;

impl<R: Recipient, S: Copy> Pipeline<R, S> {
    /// Queues the beginning of a request; see [`Pipeline::enqueue`].
    ///
    /// # Errors
    /// As there.
    pub fn begin(
        &mut self,
        recipient: R,
        shape: S,
        expires: Instant,
        patience: Patience,
        bytes: &[u8],
    ) -> Result<(), (R, Failure)> {
        let write = |out: &mut Vec<u8>| out.extend_from_slice(bytes);
        self.enqueue(recipient, shape, expires, patience, write)?;
        self.growing = true;
        self.piecemeal = true;
        Ok(())
    }

    /// Whether a request that comes bit by bit was not written to its end. If it is given up, so must
    /// the connection be: then it is never run.
    #[must_use]
    pub fn is_incomplete(&self) -> bool {
        self.piecemeal && (self.growing || self.has_unsent())
    }

    /// Whether a reply that comes now answers no request, or one that was not written whole.
    pub(super) fn is_answered_early(&self) -> bool {
        // Before a request that comes bit by bit there may be a canary, which is answered as ever.
        let incomplete = self.entries.len() == 1 && self.is_incomplete();
        self.sent == 0 || (self.sent == 1 && (self.partial > 0 || incomplete))
    }

    /// How many bytes the growing request takes now; `None` if it has failed.
    #[must_use]
    pub fn takes(&self) -> Option<usize> {
        let waiting = self.buffer.len() - self.start;
        self.growing.then(|| GROWING_BYTES.saturating_sub(waiting))
    }

    /// Adds to the growing request.
    pub fn grow(&mut self, bytes: &[u8]) {
        let is_sent = self.sent == self.entries.len();
        let Some(entry) = self.entries.back_mut().filter(|_| self.growing) else {
            return;
        };
        if self.start >= LOW_BYTES {
            self.buffer.drain(..self.start);
            self.start = 0;
        }
        self.buffer.extend_from_slice(bytes);
        entry.length += bytes.len();
        if is_sent {
            self.partial += bytes.len();
        }
    }

    /// The growing request is whole.
    pub fn end_growing(&mut self) {
        self.growing = false;
    }

    /// Bytes of the growing request were written. The wait for its reply begins anew.
    pub(super) fn has_grown(&mut self, now: Instant) {
        let waiting = self.buffer.len() - self.start;
        if self.sent < self.entries.len() {
            return;
        }
        if let Some(entry) = self.entries.back_mut() {
            entry.at = now;
            if self.growing
                && waiting <= LOW_BYTES
                && let Some(recipient) = &entry.recipient
            {
                recipient.wants_more();
            }
        }
        self.progress = Some(now);
    }

    /// While its client is waited for, nothing of the server's is late.
    pub(super) fn excuse(&mut self, now: Instant) {
        if self.growing && !self.has_unsent() && self.sent == self.entries.len() {
            if let Some(entry) = self.entries.back_mut() {
                entry.at = now;
            }
            self.progress = Some(now);
        }
    }

    /// What is known of a request that was sent, and whose connection is lost. `place`: in the queue.
    pub(super) fn lost_effect(&self, place: usize) -> Effect {
        let is_last = place + 1 == self.sent;
        if place >= self.sent || (is_last && self.is_incomplete()) {
            Effect::NotApplied
        } else {
            Effect::Unknown
        }
    }

    /// The server has refused the growing request before its end. Its answer is given; the
    /// connection is of no use any more.
    pub(super) fn refused_growing(&mut self, reply: &[u8]) {
        if self.entries.len() != 1 || !self.is_incomplete() || reply.first() != Some(&b'-') {
            return;
        }
        let recipient = self.entries.front_mut().and_then(|it| it.recipient.take());
        if let Some(recipient) = recipient {
            recipient.deliver(reply);
        }
    }
}
