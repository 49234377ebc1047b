//! A request that takes in the one behind it before it leaves.
//!
//! Not the wording, which is the protocol's. Invariant: a request of which a byte was written stays
//! as it is.

use std::time::Instant;

use super::{Pipeline, Recipient};

impl<R: Recipient, S: Copy + PartialEq> Pipeline<R, S> {
    /// Lets the last request take another one in, if not one byte of it was written yet. `join`
    /// sees its recipient and when it expires, and may lengthen its bytes, which are the last
    /// `length` of those it is given; it says whether it did.
    pub fn widen(
        &mut self,
        shape: &S,
        join: impl FnOnce(&mut R, Instant, &mut Vec<u8>, usize) -> bool,
    ) -> bool {
        if self.entries.len() == self.sent {
            return false;
        }
        let Some(last) = self.entries.back_mut() else {
            return false;
        };
        let Some(recipient) = last.recipient.as_mut().filter(|_| last.shape == *shape) else {
            return false;
        };
        let before = self.buffer.len();
        let joined = join(recipient, last.at, &mut self.buffer, last.length);
        last.length = last.length + self.buffer.len() - before;
        joined
    }
}
