//! What leaves a queue before a byte of it was written.
//!
//! Not why it leaves. Invariant: what stays keeps its order and its bytes, and a request that was begun
//! is not looked at.

use super::{Entry, Failure, Pipeline, Recipient};

impl<R: Recipient, S: Copy> Pipeline<R, S> {
    /// Fails and forgets what `remove` names; answers how many there were.
    pub(super) fn remove_unsent(
        &mut self,
        failure: &Failure,
        mut remove: impl FnMut(&Entry<R, S>) -> bool,
    ) -> usize {
        if self.entries.len() == self.sent {
            return 0;
        }
        let before = self.entries.len();
        self.sift_unsent(|entry, _| {
            if !remove(&entry) {
                return Some(entry);
            }
            if let Some(recipient) = entry.recipient {
                recipient.fail(failure);
            }
            None
        });
        before - self.entries.len()
    }

    /// Goes through what was not sent, with its bytes: what `keep` gives back stays.
    pub(super) fn sift_unsent(
        &mut self,
        mut keep: impl FnMut(Entry<R, S>, &[u8]) -> Option<Entry<R, S>>,
    ) {
        let unsent = self.entries.split_off(self.sent);
        let old = std::mem::take(&mut self.buffer);
        let mut position = self.start + self.partial;
        let begun = old.get(self.start..position).unwrap_or_default();
        self.buffer.extend_from_slice(begun);
        self.start = 0;
        for entry in unsent {
            let end = position + entry.length;
            let bytes = old.get(position..end).unwrap_or_default();
            if let Some(entry) = keep(entry, bytes) {
                self.buffer.extend_from_slice(bytes);
                self.entries.push_back(entry);
            } else {
                // The last one, if it was growing, does so no more.
                self.growing &= end < old.len();
            }
            position = end;
        }
    }
}
