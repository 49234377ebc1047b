//! Positions of one server, asked for on behalf of all who wait.
//!
//! Not the asking: each wire's monitor does that. Invariant: a sample that fits a ticket
//! began after the ticket was taken, so it covers all that its holder had seen by then.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use tokio::sync::{Notify, watch};

use crate::freshness::{Home, Position};

/// What a server said of its position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sample<P> {
    /// It fits tickets up to this.
    pub number: u64,
    /// Whether it follows another server.
    pub replica: bool,
    /// A primary: where it is. A replica: what is replayed for certain.
    pub position: P,
    /// A replica: what a read there can have seen at most.
    pub seen: P,
    /// When it was asked; none before the first.
    pub at: Option<Instant>,
    /// When the connection was made that it was asked on: the server runs since then at least.
    pub since: Option<Instant>,
    /// The run of the server: it tells one start of it from another.
    pub run: u64,
}

impl<P> Sample<P> {
    /// Whether the server was that run before `then`, and has been ever since: it was asked on a
    /// connection from before.
    #[must_use]
    pub fn ran_since(&self, then: Instant, run: u64) -> bool {
        self.run == run && self.since.is_some_and(|since| since < then)
    }
}

impl<P> Sample<P> {
    /// What it tells of a replica; none before the first.
    #[must_use]
    pub fn replayed(self) -> Option<Replayed<P>> {
        let position = self.position;
        let replica = self.at.filter(|_| self.replica);
        replica.map(|asked| Replayed {
            position,
            asked,
            run: self.run,
        })
    }
}

/// What a replica has replayed for certain.
///
/// It holds for as long as the server runs: one that crashed may start again further back. A connection
/// to it that was open when it was asked, and still is, shows that it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Replayed<P> {
    /// Up to where.
    pub position: P,
    /// When it was asked.
    pub asked: Instant,
    /// Which run of the server.
    pub run: u64,
}

/// A number that a later sample must reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(pub u64);

/// The positions of one server.
#[derive(Debug)]
pub struct Sampler<P> {
    /// The number of the last question that has begun.
    begun: AtomicU64,
    /// The highest number that somebody waits for.
    wanted: AtomicU64,
    asked: Notify,
    latest: watch::Sender<Sample<P>>,
}

impl<P: Position> Default for Sampler<P> {
    fn default() -> Self {
        Self {
            begun: AtomicU64::new(0),
            wanted: AtomicU64::new(0),
            asked: Notify::new(),
            latest: watch::Sender::new(Sample::default()),
        }
    }
}

impl<P: Position> Sampler<P> {
    /// The ticket of the next sample that begins, if one does: nothing is asked for it. One load.
    #[must_use]
    pub fn ticket(&self) -> Ticket {
        Ticket(self.begun.load(Ordering::SeqCst) + 1)
    }

    /// The latest sample.
    #[must_use]
    pub fn latest(&self) -> Sample<P> {
        self.latest.borrow().clone()
    }

    /// Sees to it that a ticket's sample is asked for, by now or soon.
    pub fn ask(&self, ticket: Ticket) {
        self.wanted.fetch_max(ticket.0, Ordering::AcqRel);
        self.asked.notify_one();
    }

    /// Waits for the sample of a ticket; `None` if there is none by `end`.
    pub async fn wait(&self, ticket: Ticket, end: Instant) -> Option<Sample<P>> {
        let latest = self.latest();
        if latest.number >= ticket.0 {
            return Some(latest);
        }
        let mut receiver = self.latest.subscribe();
        self.ask(ticket);
        let fits = receiver.wait_for(|sample| sample.number >= ticket.0);
        let found = tokio::time::timeout_at(end.into(), fits).await.ok()?.ok()?;
        Some(found.clone())
    }

    /// Waits for a sample that is asked for from now on; `None` if there is none by `end`.
    pub async fn from_now(&self, end: Instant) -> Option<Sample<P>> {
        self.wait(self.ticket(), end).await
    }

    /// For the one who asks the server: waits until somebody wants a sample; its number. The question
    /// must begin after this.
    pub(crate) async fn next_question(&self) -> u64 {
        while self.wanted.load(Ordering::Acquire) <= self.latest.borrow().number {
            self.asked.notified().await;
        }
        self.begun.fetch_add(1, Ordering::SeqCst) + 1
    }

    /// For the one who asks the server: what it said.
    pub(crate) fn publish(&self, sample: Sample<P>) {
        self.latest.send_replace(sample);
    }
}

/// What lets a session go on at another replica than its home.
#[derive(Debug)]
pub struct Move<P> {
    /// How far the session can have seen at home.
    pub seen: P,
    /// What the other must have replayed.
    pub floor: P,
    /// What that said of itself.
    pub there: Sample<P>,
}

/// Asks a session's home (`from`), and then another replica (`to`), whether the session may go on there;
/// `None`: it may not, or it is not known by `end`. The other must have come to the session's `floor`, to
/// all that was seen at home, and to `least`, which is looked at once home has answered.
pub async fn leave<P: Position>(
    home: &Home<P>,
    (from, to): (&Sampler<P>, &Sampler<P>),
    mut floor: P,
    least: impl FnOnce() -> P,
    end: Instant,
) -> Option<Move<P>> {
    let left = from.from_now(end).await?;
    floor.raise(&left.seen);
    floor.raise(&least());
    let there = to.from_now(end).await?;
    let fits = there.replica && there.position.covers(&floor);
    (fits && left.ran_since(home.last, home.run)).then_some(Move {
        seen: left.seen,
        floor,
        there,
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use breccia_net::clock;

    use super::*;

    #[derive(Debug, Clone, Copy, PartialEq, Default)]
    struct At(u64);

    impl Position for At {
        fn covers(&self, other: &Self) -> bool {
            self.0 >= other.0
        }

        fn raise(&mut self, other: &Self) {
            self.0 = self.0.max(other.0);
        }
    }

    fn answer(number: u64) -> Sample<At> {
        Sample {
            number,
            position: At(number * 10),
            ..Sample::default()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn any_sample_that_began_later_fits_a_ticket() {
        let sampler = Sampler::<At>::default();
        let end = clock::now() + Duration::from_secs(1);
        let first = sampler.ticket();
        assert_eq!(sampler.wait(first, end).await, None, "nobody answers");
        let number = sampler.next_question().await;
        let during = sampler.ticket();
        assert!(during > first, "what has begun covers nothing later");
        sampler.publish(answer(number));
        // No time is left, and none is needed.
        let found = sampler.wait(first, clock::now()).await;
        assert_eq!(found, Some(answer(number)));
        assert_eq!(sampler.wait(during, clock::now()).await, None);
        let again = sampler.next_question().await;
        sampler.publish(answer(again));
        let found = sampler.wait(during, clock::now()).await;
        assert_eq!(found, Some(answer(again)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_ticket_alone_asks_nothing() {
        let sampler = Sampler::<At>::default();
        let _ticket = sampler.ticket();
        let pause = Duration::from_secs(1);
        let asks = tokio::time::timeout(pause, sampler.next_question()).await;
        assert!(asks.is_err(), "nobody waits for it");
        sampler.ask(sampler.ticket());
        let asks = tokio::time::timeout(pause, sampler.next_question()).await;
        assert_eq!(asks, Ok(1));
    }
}
