//! Replies that are passed on in pieces, and what others do meanwhile.
//!
//! Not the framing; see [`crate::upstream`]. Invariant: only the reply that comes next is passed on,
//! and its entry leaves the queue when the last piece has come, so the order is that of whole ones.

use std::task::Context;
use std::time::Instant;

use breccia_core::error::Effect;

use super::{Cause, Failure, Patience, Pipeline, Recipient};

/// How the next reply is taken, which is large.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taking {
    /// In pieces, or by nobody: they are thrown away.
    Pieces,
    /// Whole.
    Whole,
    /// No reply is owed.
    Unasked,
}

/// A request that moves to another connection.
#[derive(Debug)]
pub struct Unsent<R, S> {
    /// Who waits for the reply.
    pub recipient: R,
    /// The shape of the reply.
    pub shape: S,
    /// How long it may stay unanswered once it is sent.
    pub patience: Patience,
    /// Until when it must be sent.
    pub expires: Instant,
    /// The request.
    pub bytes: Vec<u8>,
}

impl<R: Recipient, S: Copy> Pipeline<R, S> {
    /// Asks how the next reply is taken.
    pub fn take_large(&mut self) -> Taking {
        if self.is_answered_early() {
            return Taking::Unasked;
        }
        let entry = self.entries.front_mut();
        let recipient = entry.and_then(|entry| entry.recipient.as_mut());
        if recipient.is_none_or(Recipient::takes_pieces) {
            self.in_pieces = true;
            self.uneven = true;
            Taking::Pieces
        } else {
            Taking::Whole
        }
    }

    /// The next reply is too large for who must have it whole: it is refused, and thrown away.
    pub fn refuse_large(&mut self, cause: &Cause) {
        self.uneven = true;
        let recipient = self.entries.front_mut().and_then(|it| it.recipient.take());
        if let Some(recipient) = recipient {
            recipient.fail(&Failure {
                cause: cause.clone(),
                effect: Effect::Unknown,
            });
        }
    }

    /// A piece of the next reply. The wait for its end begins anew.
    pub fn piece(&mut self, bytes: &[u8], now: Instant) {
        if let Some(entry) = self.entries.front_mut() {
            entry.at = now;
            if let Some(recipient) = &entry.recipient {
                recipient.piece(bytes);
            }
        }
    }

    /// The last piece has come. What the same client asked for next counts from now.
    pub fn end_pieces(&mut self, now: Instant) {
        if let Some(entry) = self.entries.front_mut() {
            entry.at = now;
        }
        self.excuse_followers();
        if let Some(entry) = self.answered()
            && let Some(recipient) = entry.recipient
        {
            recipient.end_pieces();
        }
    }

    /// Whether the recipient of the next reply takes more of it now; else it wakes the task when it
    /// does.
    pub fn has_room(&self, context: &mut Context<'_>) -> bool {
        let recipient = self.entries.front().and_then(|it| it.recipient.as_ref());
        recipient.is_none_or(|recipient| recipient.has_room(context))
    }

    /// The server is not read because the recipient of the next reply takes no more: nothing that
    /// it does meanwhile is late.
    pub fn holds_back(&mut self, now: Instant) {
        if let Some(entry) = self.entries.front_mut() {
            entry.at = now;
        }
        self.heard_at = Some(now);
    }

    /// What is behind a reply in pieces and belongs to its reader counts from the last of them: its
    /// reader is waited for, not the server.
    pub(super) fn excuse_followers(&mut self) {
        let mut sent = self.entries.iter_mut().take(self.sent);
        let Some(first) = sent.next().filter(|_| self.in_pieces) else {
            return;
        };
        let Some(reader) = first.recipient.as_ref().map(Recipient::owner) else {
            return;
        };
        for entry in sent {
            if (entry.recipient.as_ref()).is_some_and(|it| it.owner() == reader) {
                entry.at = entry.at.max(first.at);
            }
        }
    }

    /// Since when somebody else than its reader waits for a reply behind the next one, if anybody
    /// does.
    #[must_use]
    pub fn others_since(&self) -> Option<Instant> {
        let mut sent = self.entries.iter().take(self.sent);
        let reader = sent.next()?.recipient.as_ref().map(Recipient::owner);
        let is_other = |recipient: &R| reader.is_none_or(|reader| recipient.owner() != reader);
        let mut others = sent.filter(|entry| entry.recipient.as_ref().is_some_and(is_other));
        others.next().map(|entry| entry.at)
    }

    /// Whether a reply behind the next one is waited for.
    #[must_use]
    pub fn has_followers(&self) -> bool {
        let mut followers = self.entries.iter().take(self.sent).skip(1);
        followers.any(|entry| entry.recipient.is_some())
    }

    /// Whether the next reply has to wait for an earlier one of its client, from another server.
    #[must_use]
    pub fn is_out_of_turn(&self) -> bool {
        let recipient = self.entries.front().and_then(|it| it.recipient.as_ref());
        recipient.is_some_and(Recipient::is_out_of_turn)
    }

    /// The recipient of the next reply has kept others waiting for too long.
    pub fn cut_off(&mut self) {
        let recipient = self.entries.front().and_then(|it| it.recipient.as_ref());
        recipient.into_iter().for_each(Recipient::cut_off);
    }

    /// Whether nobody takes the next reply any more.
    #[must_use]
    pub fn is_for_nobody(&self) -> bool {
        let entry = self.entries.front();
        entry.is_some_and(|it| it.recipient.as_ref().is_none_or(Recipient::abandoned))
    }

    /// Takes out what was not sent, for another connection. What belongs to somebody who has sent
    /// something here stays: it must not be overtaken.
    pub fn take_unsent(&mut self) -> Vec<Unsent<R, S>> {
        let owner = |entry: &super::Entry<R, S>| entry.recipient.as_ref().map(Recipient::owner);
        let sent = self.entries.iter().take(self.sent);
        let waiting: Vec<u64> = sent.filter_map(owner).collect();
        let mut taken = Vec::new();
        self.sift_unsent(|entry, bytes| match entry.recipient {
            Some(recipient) if !waiting.contains(&recipient.owner()) => {
                taken.push(Unsent {
                    recipient,
                    shape: entry.shape,
                    patience: entry.patience,
                    expires: entry.at,
                    bytes: bytes.to_vec(),
                });
                None
            }
            _ => Some(entry),
        });
        taken
    }
}
