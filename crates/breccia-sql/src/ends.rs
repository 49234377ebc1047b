//! Sessions that end because their client met a limit of its listener: what counters and log tell of
//! them.
//!
//! Not when that is so, nor what the client is told. Invariant: each is counted, and however many end
//! at once, the lines in a second are bounded.

use std::time::Duration;

use breccia_net::clock;
use breccia_net::log_gate::LogGate;
use breccia_net::metrics::{self, Registry, SharedCounter};

/// At most so many lines of a listener in a second.
const LINES_A_SECOND: u32 = 10;

/// What a client may not exceed: a time, or a length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Limit {
    /// It says nothing, outside a transaction.
    Idle,
    /// It says nothing, inside a transaction.
    IdleInTransaction,
    /// Its transaction takes too long.
    Transaction,
    /// It leaves answers unread.
    Unread,
    /// What it asks is too long.
    Request,
}

impl Limit {
    /// Its key in the file.
    pub(crate) fn key(self) -> &'static str {
        match self {
            Self::Idle => "idle-timeout",
            Self::IdleInTransaction => "idle-in-transaction-timeout",
            Self::Transaction => "transaction-timeout",
            Self::Unread => "write-timeout",
            Self::Request => "max-request-size",
        }
    }
}

/// The ends of a listener's sessions.
#[derive(Debug)]
pub(crate) struct Ends {
    idle: SharedCounter,
    idle_in_transaction: SharedCounter,
    transaction: SharedCounter,
    unread: SharedCounter,
    request: SharedCounter,
    gate: LogGate,
}

impl Ends {
    pub(crate) fn new(registry: &Registry, listener: &str) -> Self {
        let hits =
            |limit: Limit| registry.shared_counter(&metrics::LIMIT_HITS, &[listener, limit.key()]);
        Self {
            idle: hits(Limit::Idle),
            idle_in_transaction: hits(Limit::IdleInTransaction),
            transaction: hits(Limit::Transaction),
            unread: hits(Limit::Unread),
            request: hits(Limit::Request),
            gate: LogGate::of_several(LINES_A_SECOND, Duration::from_secs(1)),
        }
    }

    /// A session ends.
    pub(crate) fn count(&self, limit: Limit) {
        match limit {
            Limit::Idle => &self.idle,
            Limit::IdleInTransaction => &self.idle_in_transaction,
            Limit::Transaction => &self.transaction,
            Limit::Unread => &self.unread,
            Limit::Request => &self.request,
        }
        .increment();
    }

    /// It is a line of the log.
    #[cold]
    pub(crate) fn tell(&self, limit: Limit, listener: &str, user: &str, database: &str) {
        let Some(left_out) = self.gate.pass(clock::now()) else {
            return;
        };
        let key = limit.key();
        if limit == Limit::Idle {
            // Pools of connections that rest are used to it.
            tracing::info!(
                listener,
                user,
                database,
                limit = key,
                left_out,
                "a session is ended"
            );
        } else {
            tracing::warn!(
                listener,
                user,
                database,
                limit = key,
                left_out,
                "a session is ended"
            );
        }
    }

    /// A session ends for another reason than a limit of time or its client's wish.
    #[cold]
    pub(crate) fn tell_why(
        &self,
        listener: &str,
        user: &str,
        database: &str,
        code: u16,
        why: &str,
    ) {
        let Some(left_out) = self.gate.pass(clock::now()) else {
            return;
        };
        tracing::warn!(
            listener,
            user,
            database,
            code,
            why,
            left_out,
            "a session is ended"
        );
    }
}
