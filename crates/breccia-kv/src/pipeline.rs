//! The queue of one upstream connection: which bytes may be written now, and whose reply comes
//! next. It is not a socket and never reads the clock.
//!
//! Invariant: replies match requests by order alone, so an entry leaves the queue only when its
//! reply has arrived, when not one of its bytes was written, or when the connection is given up.
//!
//! The *stall gate*: a frozen server's socket swallows megabytes that it will run once it thaws.
//! While the oldest unanswered request is older than `stall_gate` nothing more is written. A
//! server that runs one command at a time loses nothing by it, and what is not written can still
//! be answered "not applied" with certainty.
//!
//! The *canary*: an idle connection has no unanswered request whose age could show a stall. So when
//! nothing was heard for `stall_gate`, a request without effect (PING) goes first and alone, and
//! the gate is closed until it is answered. Together: a request that arrives more than twice
//! `stall_gate` after a server froze is never written to it.

mod growing;
mod passing;
mod sifting;
mod widening;

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::Context;
use std::time::{Duration, Instant};

use breccia_core::error::Effect;

pub use passing::{Taking, Unsent};

/// The limits of one upstream connection.
#[derive(Clone, Copy, Debug)]
pub struct PipelineLimits {
    /// Age of the oldest unanswered request from which on nothing more is written.
    pub stall_gate: Duration,
    /// How long a written request waits for its reply.
    pub timeout: Duration,
    /// How many requests may be queued or unanswered at once.
    pub max_in_flight: usize,
    /// How many request bytes may wait to be written.
    pub max_unsent_bytes: usize,
}

/// Why a request got no reply.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cause {
    /// It waited here, unsent, until the listener's deadline.
    Deadline,
    /// It was sent and not answered within the store's timeout.
    Timeout,
    /// The endpoint cannot be reached; the text says why.
    Down(Arc<str>),
    /// The connection broke; the text says how.
    Lost(Arc<str>),
    /// A limit of this queue was reached; the text names it.
    Full(Arc<str>),
    /// The reply is larger than what can be held of it; the text says what the limit is.
    LargeReply(Arc<str>),
}

/// A request that got no reply: why, and whether the server may have run it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Why there is no reply.
    pub cause: Cause,
    /// Whether the request may have been applied.
    pub effect: Effect,
}

/// Somebody who waits for a reply.
pub trait Recipient {
    /// Takes the reply, exactly as it came.
    fn deliver(self, reply: &[u8]);
    /// Learns that no reply will come.
    fn fail(self, failure: &Failure);
    /// Whether nobody waits any more (the client left).
    fn abandoned(&self) -> bool;
    /// Learns, before the reply, that it came late: `took` after the request was sent.
    fn slow(&self, _took: Duration, _now: Instant) {}
    /// Whose request it is: requests of one owner are answered in its order.
    fn owner(&self) -> u64 {
        0
    }
    /// Whether it takes its reply, which is large, in pieces. Then they come, instead of
    /// [`Self::deliver`].
    fn takes_pieces(&mut self) -> bool {
        false
    }
    /// Takes a piece of its reply.
    fn piece(&self, _bytes: &[u8]) {}
    /// Learns that its last piece has come.
    fn end_pieces(self)
    where
        Self: Sized,
    {
    }
    /// Whether it takes another piece now; else the task is woken when it does.
    fn has_room(&self, _context: &mut Context<'_>) -> bool {
        true
    }
    /// Whether it has no room because an earlier reply of its client has not come, and not because
    /// the client does not read.
    fn is_out_of_turn(&self) -> bool {
        false
    }
    /// Learns that it is to take no more pieces, because others wait.
    fn cut_off(&self) {}
    /// Learns that more of its request, which is on its way, can be taken.
    fn wants_more(&self) {}
}

/// How long a sent request may stay unanswered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// The store's `timeout`.
    Timeout,
    /// For ever: blocking commands, whose reply is due when something happens.
    Unbounded,
}

/// One request in the queue. `recipient` is `None` for a tombstone: its reply is owed, is read,
/// and is thrown away.
#[derive(Debug)]
struct Entry<R, S> {
    recipient: Option<R>,
    shape: S,
    length: usize,
    patience: Patience,
    canary: bool,
    /// While unsent: when it expires. Once sent: when its first byte was written.
    at: Instant,
}

/// The queue of one upstream connection. `S` says what shape of reply a request expects (nothing
/// for RESP, whose replies frame themselves).
#[derive(Debug)]
pub struct Pipeline<R, S> {
    limits: PipelineLimits,
    /// Sent entries first (`sent` of them), then unsent ones.
    entries: VecDeque<Entry<R, S>>,
    sent: usize,
    /// Bytes of the entry whose writing has begun and not ended, then of all unsent entries.
    buffer: Vec<u8>,
    /// Start of what is not yet written in `buffer`.
    start: usize,
    /// How many bytes at `start` finish an entry that already counts as sent.
    partial: usize,
    /// When bytes last arrived on this connection.
    heard_at: Option<Instant>,
    /// Since when replies are owed without a break.
    owed_since: Option<Instant>,
    /// A request whose duration is measured: how many replies come before its own, and when it was
    /// sent. One at a time is measured.
    sample: Option<(usize, Instant)>,
    /// When the request was sent that was measured last.
    sampled: Option<Instant>,
    /// When the bytes arrived that are being delivered, if some reply among them may be slow.
    slow_at: Option<Instant>,
    /// Whether more may be added to the last request.
    growing: bool,
    /// Whether the last request came, or comes, bit by bit.
    piecemeal: bool,
    /// When the rest of a request last moved on.
    progress: Option<Instant>,
    /// Whether the next reply is passed on in pieces.
    in_pieces: bool,
    /// Whether sent requests may count from other times than those of their order.
    uneven: bool,
}

/// A request without effect that shows whether a server runs what is written to it.
#[derive(Clone, Copy, Debug)]
pub struct Canary<S> {
    /// The request.
    pub bytes: &'static [u8],
    /// The shape of its reply.
    pub shape: S,
}

/// A reply that comes later than this after its request is told to be slow.
pub const SLOW_AFTER: Duration = Duration::from_millis(10);
/// A buffer larger than this is given back once it is empty.
const KEEP_BYTES: usize = 256 * 1024;

fn is_slow(sent: Instant, now: Instant) -> bool {
    now.saturating_duration_since(sent) >= SLOW_AFTER
}

impl<R: Recipient, S: Copy> Pipeline<R, S> {
    /// An empty queue.
    #[must_use]
    pub fn new(limits: PipelineLimits) -> Self {
        Self {
            limits,
            entries: VecDeque::new(),
            sent: 0,
            buffer: Vec::new(),
            start: 0,
            partial: 0,
            heard_at: None,
            owed_since: None,
            sample: None,
            sampled: None,
            slow_at: None,
            growing: false,
            piecemeal: false,
            progress: None,
            in_pieces: false,
            uneven: false,
        }
    }

    /// Queues a request whose bytes `write` appends.
    ///
    /// `expires` bounds its wait for being written.
    ///
    /// # Errors
    /// When a limit is reached the recipient comes back with the failure, and nothing is queued.
    pub fn enqueue(
        &mut self,
        recipient: R,
        shape: S,
        expires: Instant,
        patience: Patience,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> Result<(), (R, Failure)> {
        if let Some(failure) = self.full() {
            return Err((recipient, failure));
        }
        let before = self.buffer.len();
        write(&mut self.buffer);
        let length = self.buffer.len() - before;
        self.entries.push_back(Entry {
            recipient: Some(recipient),
            shape,
            length,
            patience,
            canary: false,
            at: expires,
        });
        Ok(())
    }

    /// Changes the limits, for what is queued too.
    pub fn set_limits(&mut self, limits: PipelineLimits) {
        self.limits = limits;
    }

    fn full(&self) -> Option<Failure> {
        let text = if self.entries.len() >= self.limits.max_in_flight {
            format!("max-in-flight ({}) is reached", self.limits.max_in_flight)
        } else if self.buffer.len() - self.start > self.limits.max_unsent_bytes {
            format!(
                "{} request bytes wait already",
                self.limits.max_unsent_bytes
            )
        } else {
            return None;
        };
        Some(Failure {
            cause: Cause::Full(text.into()),
            effect: Effect::NotApplied,
        })
    }

    /// Whether nothing is queued and no reply is owed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether bytes wait to be written.
    #[must_use]
    pub fn has_unsent(&self) -> bool {
        self.start < self.buffer.len()
    }

    /// Whether a reply is owed.
    #[must_use]
    pub fn owes(&self) -> bool {
        self.sent > 0
    }

    /// Whether the oldest unanswered request is old enough to hold back all others.
    #[must_use]
    pub fn stalled(&self, now: Instant) -> bool {
        self.sent > 0
            && self.entries.front().is_some_and(|oldest| {
                oldest.patience == Patience::Timeout
                    && now.saturating_duration_since(oldest.at) >= self.limits.stall_gate
            })
    }

    /// Puts the canary before the unsent requests if the connection has been quiet for too long.
    /// Call it before [`Self::writable`].
    pub fn prepare(&mut self, now: Instant, canary: Canary<S>) {
        let quiet = self
            .heard_at
            .is_none_or(|at| now.saturating_duration_since(at) >= self.limits.stall_gate);
        if self.sent > 0 || !quiet || self.entries.front().is_none_or(|entry| entry.canary) {
            return;
        }
        let unsent = self.buffer.split_off(self.start);
        self.buffer.clear();
        self.start = 0;
        self.buffer.extend_from_slice(canary.bytes);
        self.buffer.extend_from_slice(&unsent);
        self.entries.push_front(Entry {
            recipient: None,
            shape: canary.shape,
            length: canary.bytes.len(),
            patience: Patience::Timeout,
            canary: true,
            at: now,
        });
    }

    /// How many bytes of a canary come first, if one does.
    fn canary_bytes(&self) -> Option<usize> {
        let first = self.entries.front().filter(|entry| entry.canary)?;
        Some(if self.sent > 0 {
            self.partial
        } else {
            first.length
        })
    }

    /// The bytes that may be written now: all of them, or, behind a closed gate, the rest of the
    /// request whose writing has begun.
    #[must_use]
    pub fn writable(&self, now: Instant) -> &[u8] {
        let pending = self.buffer.get(self.start..).unwrap_or_default();
        if let Some(count) = self.canary_bytes() {
            return pending.get(..count).unwrap_or_default();
        }
        if pending.is_empty() || !self.stalled(now) {
            return pending;
        }
        pending.get(..self.partial).unwrap_or_default()
    }

    /// The rest of the request whose writing has begun: all that may still be written on a
    /// connection that another one is to replace.
    #[must_use]
    pub fn begun(&self) -> &[u8] {
        let end = self.start + self.partial;
        self.buffer.get(self.start..end).unwrap_or_default()
    }

    /// Records that the first `count` bytes of [`Self::writable`] were written.
    pub fn wrote(&mut self, count: usize, now: Instant) {
        self.start += count;
        let finished = count.min(self.partial);
        self.partial -= finished;
        let mut left = count - finished;
        let moved_on = finished > 0 || self.piecemeal;
        while left > 0 {
            let Some(entry) = self.entries.get_mut(self.sent) else {
                break;
            };
            entry.at = now;
            self.owed_since.get_or_insert(now);
            self.sample.get_or_insert((self.sent, now));
            self.sent += 1;
            let taken = left.min(entry.length);
            self.partial = entry.length - taken;
            left -= taken;
        }
        if self.start == self.buffer.len() {
            self.start = 0;
            self.buffer.clear();
            if self.buffer.capacity() > KEEP_BYTES {
                self.buffer = Vec::new();
            }
        }
        if moved_on {
            self.has_grown(now);
        }
    }

    /// Records that bytes arrived. One look at the oldest request tells whether any reply among
    /// them can be slow.
    pub fn heard(&mut self, now: Instant) {
        self.heard_at = Some(now);
        let oldest = self.entries.front().filter(|_| self.sent > 0);
        let slow = oldest.is_some_and(|entry| is_slow(entry.at, now));
        self.slow_at = slow.then_some(now);
    }

    /// The shape of the reply that comes next, if one is owed.
    #[must_use]
    pub fn expected(&self) -> Option<S> {
        if self.sent == 0 {
            None
        } else {
            self.entries.front().map(|entry| entry.shape)
        }
    }

    /// Gives the reply to the oldest unanswered request. `false` if none is owed, or if the reply
    /// came before the request was written whole: the connection can no longer be trusted.
    #[must_use]
    pub fn deliver(&mut self, reply: &[u8]) -> bool {
        if self.is_answered_early() {
            self.refused_growing(reply);
            return false;
        }
        let Some(entry) = self.answered() else {
            return false;
        };
        if let Some(recipient) = entry.recipient {
            if let Some(now) = self.slow_at
                && entry.patience == Patience::Timeout
                && is_slow(entry.at, now)
            {
                recipient.slow(now.saturating_duration_since(entry.at), now);
            }
            recipient.deliver(reply);
        }
        true
    }

    /// Takes the oldest unanswered request out of the queue.
    fn answered(&mut self) -> Option<Entry<R, S>> {
        let entry = self.entries.pop_front()?;
        self.piecemeal &= !self.entries.is_empty();
        self.in_pieces = false;
        self.sent = self.sent.saturating_sub(1);
        self.uneven &= self.sent > 0;
        self.sample = match self.sample {
            Some((0, at)) => {
                self.sampled = Some(at);
                None
            }
            other => other.map(|(before, at)| (before - 1, at)),
        };
        if self.sent == 0 {
            self.owed_since = None;
        }
        Some(entry)
    }

    /// When a request was sent that has been answered since the last call, if one was measured.
    pub fn take_sample(&mut self) -> Option<Instant> {
        self.sampled.take()
    }

    /// Answers what has waited too long: unsent requests past their deadline (removed), requests
    /// whose client has left (removed if unsent), sent ones past the timeout (now tombstones).
    /// Answers how many there were.
    pub fn expire(&mut self, now: Instant) -> usize {
        self.excuse(now);
        let timeout = self.limits.timeout;
        let incomplete = self.is_incomplete();
        let mut failed = 0;
        self.excuse_followers();
        for entry in self.entries.iter_mut().take(self.sent) {
            if now.saturating_duration_since(entry.at) < timeout {
                // The first may be younger than the next: a reply in pieces counts from its last.
                if self.uneven {
                    continue;
                }
                break;
            }
            if entry.patience == Patience::Timeout
                && let Some(recipient) = entry.recipient.take()
            {
                let effect = if incomplete {
                    Effect::NotApplied
                } else {
                    Effect::Unknown
                };
                let cause = Cause::Timeout;
                recipient.fail(&Failure { cause, effect });
                failed += 1;
            }
        }
        let overdue = |entry: &Entry<R, S>| {
            let gone = entry.recipient.as_ref().is_none_or(Recipient::abandoned);
            !entry.canary && (entry.at <= now || gone)
        };
        if self.entries.iter().skip(self.sent).any(overdue) {
            let failure = Failure {
                cause: Cause::Deadline,
                effect: Effect::NotApplied,
            };
            failed += self.remove_unsent(&failure, overdue);
        }
        failed
    }

    /// Fails every unsent request, for example because the endpoint was found to be down. Answers
    /// how many there were.
    pub fn fail_unsent(&mut self, cause: &Cause) -> usize {
        let failure = Failure {
            cause: cause.clone(),
            effect: Effect::NotApplied,
        };
        self.remove_unsent(&failure, |entry| !entry.canary)
    }

    /// Whether nothing at all arrived for the timeout while replies are owed.
    #[must_use]
    pub fn silent_too_long(&self, now: Instant) -> bool {
        let bounded = self
            .entries
            .front()
            .is_some_and(|e| e.patience == Patience::Timeout);
        let since = self.heard_at.max(self.owed_since).max(self.progress);
        bounded
            && self.owed_since.is_some()
            && since.is_some_and(|at| now.saturating_duration_since(at) >= self.limits.timeout)
    }

    /// Gives the connection up: sent requests have an unknown outcome, unsent ones none. The
    /// queue is empty and usable afterwards.
    pub fn fail_all(&mut self, cause: &Cause) {
        let effects: Vec<Effect> = (0..self.entries.len())
            .map(|place| self.lost_effect(place))
            .collect();
        self.sent = 0;
        self.growing = false;
        self.piecemeal = false;
        self.in_pieces = false;
        self.uneven = false;
        for (entry, effect) in std::mem::take(&mut self.entries).into_iter().zip(effects) {
            if let Some(recipient) = entry.recipient {
                recipient.fail(&Failure {
                    cause: cause.clone(),
                    effect,
                });
            }
        }
        self.buffer = Vec::new();
        self.start = 0;
        self.partial = 0;
        self.heard_at = None;
        self.owed_since = None;
        self.sample = None;
    }

    /// Another connection takes the place of this one: what was sent has an unknown outcome, what
    /// was not stays queued.
    pub fn carry_over(&mut self, cause: &Cause) {
        let effects: Vec<Effect> = (0..self.sent).map(|it| self.lost_effect(it)).collect();
        for (entry, effect) in self.entries.drain(..self.sent).zip(effects) {
            if let Some(recipient) = entry.recipient {
                let cause = cause.clone();
                recipient.fail(&Failure { cause, effect });
            }
        }
        self.sent = 0;
        self.in_pieces = false;
        self.uneven = false;
        self.start += self.partial;
        self.partial = 0;
        self.heard_at = None;
        self.owed_since = None;
        self.sample = None;
    }
}

#[cfg(test)]
mod tests;
