//! Positions of one server, asked for on behalf of all who wait.
//!
//! Not the asking: [`crate::postgres::monitor`] does that. Invariant: a sample that fits a ticket
//! began after the ticket was taken, so it covers all that its holder had seen by then.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use tokio::sync::{Notify, watch};

use crate::token::Lsn;

/// What a server said of its position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sample {
    /// It fits tickets up to this.
    pub number: u64,
    /// Whether it follows another server.
    pub recovery: bool,
    /// A primary: where the next record will be written. A replica: what is replayed for certain.
    pub position: Lsn,
    /// A replica: what a read there can have seen at most.
    pub seen: Lsn,
    /// When it was asked; none before the first.
    pub at: Option<Instant>,
}

/// A number that a later sample must reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(u64);

/// The positions of one server.
#[derive(Debug)]
pub struct Sampler {
    wanted: AtomicU64,
    asked: Notify,
    latest: watch::Sender<Sample>,
}

impl Default for Sampler {
    fn default() -> Self {
        Self {
            wanted: AtomicU64::new(0),
            asked: Notify::new(),
            latest: watch::Sender::new(Sample::default()),
        }
    }
}

impl Sampler {
    /// Asks for a sample that begins from now on.
    pub fn ask(&self) -> Ticket {
        let number = self.wanted.fetch_add(1, Ordering::AcqRel) + 1;
        self.asked.notify_one();
        Ticket(number)
    }

    /// The latest sample.
    #[must_use]
    pub fn latest(&self) -> Sample {
        *self.latest.borrow()
    }

    /// Waits for the sample of a ticket; `None` if there is none by `end`.
    pub async fn wait(&self, ticket: Ticket, end: Instant) -> Option<Sample> {
        let mut receiver = self.latest.subscribe();
        let fits = receiver.wait_for(|sample| sample.number >= ticket.0);
        let found = tokio::time::timeout_at(end.into(), fits).await.ok()?.ok()?;
        Some(*found)
    }

    /// For the one who asks the server: waits until somebody wants a sample; the number it will fit.
    pub(in crate::postgres) async fn next_question(&self) -> u64 {
        loop {
            let wanted = self.wanted.load(Ordering::Acquire);
            if wanted > self.latest.borrow().number {
                return wanted;
            }
            self.asked.notified().await;
        }
    }

    /// For the one who asks the server: what it said.
    pub(in crate::postgres) fn publish(&self, sample: Sample) {
        self.latest.send_replace(sample);
    }
}
