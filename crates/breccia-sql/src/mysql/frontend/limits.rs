//! How long a session may be silent, or in a transaction, and what ends it besides.
//!
//! Not the limits of one command on its way ([`super::amid`]). Invariant: whoever is ended for a limit is
//! told which.

use std::task::Context;
use std::time::{Duration, Instant};

use breccia_net::drain::Phase;

use super::session::{End, Session};
use crate::ends::Limit;
use crate::flow::{SCRATCH, poll_read};

impl Session {
    /// Whether a session may go on for now though the gateway stops: its transaction is open.
    pub(super) fn stays_for_drain(&self) -> bool {
        self.in_transaction() && self.listener.drain.phase() == Phase::Draining
    }

    /// Ends a session whose time is over.
    pub(super) fn check_end(&mut self, resting: Instant, now: Instant) -> Result<(), End> {
        let limits = &self.listener.limits;
        if self.listener.drain.phase() != Phase::Running && !self.stays_for_drain() {
            let why = "Server shutdown in progress";
            return Err(End::Told(1053, b"08S01", why.to_owned()));
        }
        let over = |since: Instant, limit: Option<Duration>| {
            limit.is_some_and(|limit| now.saturating_duration_since(since) >= limit)
        };
        if self.registered.is_ended() {
            return Err(killed());
        }
        if self.is_dropped {
            // As one that is connected directly, which hears nothing else either.
            self.tell_dropped();
            return Err(End::Gone);
        }
        let transaction = self.in_transaction();
        if transaction && over(resting, limits.idle_in_transaction_timeout) {
            self.over = Some(Limit::IdleInTransaction);
            let why = "breccia: the transaction was idle for longer than \
                       idle-in-transaction-timeout, and is rolled back";
            return Err(End::Told(1927, b"70100", why.to_owned()));
        }
        self.check_transaction(now)?;
        let limits = &self.listener.limits;
        if !transaction && over(resting, limits.idle_timeout) {
            self.over = Some(Limit::Idle);
            let why = "breccia: the client was silent for longer than idle-timeout";
            return Err(End::Told(4031, b"08S01", why.to_owned()));
        }
        self.check_primary()
    }

    /// Whether the server has closed a connection on which something of the session is open, while that
    /// rests: its `wait_timeout`, or an administrator's KILL. What was open is lost, and the session with it.
    pub(super) fn poll_dropped(&mut self, context: &mut Context<'_>) -> bool {
        let bound = self.is_bound();
        let scratch = &self.client.scratch;
        for attached in [&mut self.home, &mut self.away].into_iter().flatten() {
            let open = attached.in_transaction() || (bound && !attached.replica);
            if !open || attached.lingers_until.is_some() || attached.tainted {
                continue;
            }
            if let Some(upstream) = attached.lease.upstream() {
                let (stream, into) = (&mut upstream.stream, &mut upstream.received);
                if poll_read(stream, scratch, into, SCRATCH, context).is_ready() {
                    // Be it the end, or why it comes: nothing else is said without being asked.
                    attached.tainted = true;
                    self.is_dropped = true;
                }
            }
        }
        self.is_dropped
    }

    /// Ends a session whose transaction takes too long.
    pub(super) fn check_transaction(&mut self, now: Instant) -> Result<(), End> {
        let since = self
            .transaction_since
            .zip(self.listener.limits.transaction_timeout);
        let over =
            since.is_some_and(|(since, limit)| now.saturating_duration_since(since) >= limit);
        if !over || !self.in_transaction() {
            return Ok(());
        }
        self.over = Some(Limit::Transaction);
        let why =
            "breccia: the transaction took longer than transaction-timeout, and is rolled back";
        Err(End::Told(1927, b"70100", why.to_owned()))
    }

    /// When something is to be looked after next, if nothing comes before.
    pub(super) fn due(&self, resting: Instant, now: Instant) -> Option<Instant> {
        let limits = &self.listener.limits;
        let mut due: Option<Instant> = None;
        let mut add = |at: Option<Instant>| {
            if let Some(at) = at {
                due = Some(due.map_or(at, |known| known.min(at)));
            }
        };
        if self.in_transaction() {
            add(limits.idle_in_transaction_timeout.map(|it| resting + it));
            add(self
                .transaction_since
                .zip(limits.transaction_timeout)
                .map(|(at, it)| at + it));
        } else {
            add(limits.idle_timeout.map(|it| resting + it));
        }
        for attached in [&self.home, &self.away].into_iter().flatten() {
            add(attached.lingers_until.map(|it| it.due(now)));
        }
        due
    }
}

/// The end of a session that another one has killed: `ER_CONNECTION_KILLED`.
pub(super) fn killed() -> End {
    let why = "Connection was killed".to_owned();
    End::Told(1927, b"70100", why)
}
