//! Which server a read goes to.
//!
//! Not which replica is fresh enough ([`crate::placing`]). Invariant: what must be answered by the
//! primary, or by a connection that the session has, goes nowhere else.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::attached::Attached;
use super::previous::Knower;
use super::session::Session;
use crate::freshness::{Freshness, Question};
use crate::mysql::class::{Class, Verdict};
use crate::mysql::cluster::{Cluster, View};
use crate::mysql::gtid::Gtids;
use crate::placing::{self, Seeker};

/// A statement asks about the one before, and goes where that ran.
pub(super) const PREVIOUS: &str = "previous";
/// A READ ONLY transaction runs on a replica.
pub(super) const READ_ONLY: &str = "read-only";

/// What is asked of a cursor, or of data, that a replica has since a READ ONLY transaction there.
pub(super) const CURSOR_AWAY: Class = Class::Primary("cursor-on-replica");

/// Where a statement goes, and why.
pub(super) type Place = placing::Place<Gtids>;

impl Seeker for Session {
    type Cluster = Cluster;

    fn cluster(&self) -> &Arc<Cluster> {
        &self.listener.cluster
    }

    fn look(&mut self) -> Arc<View> {
        Self::look(self)
    }

    fn freshness(&mut self) -> &mut Freshness<Gtids> {
        &mut self.freshness
    }

    fn question(&mut self) -> Option<Question> {
        self.freshness.question()
    }

    fn least(&self) -> Gtids {
        self.listener.cluster.catalogue_floor()
    }

    fn shows_least(&self, has: &Gtids) -> bool {
        self.listener.cluster.has_catalogue(has)
    }

    fn asked(&self) -> Instant {
        self.asked
    }

    fn settled(&mut self) -> &mut Instant {
        &mut self.settled
    }

    fn queue_timeout(&self) -> Duration {
        self.listener.limits.pool.queue_timeout()
    }
}

impl Session {
    /// The view in force.
    pub(super) fn look(&mut self) -> Arc<View> {
        let version = self.listener.cluster.version();
        if version != self.view_version {
            self.view = self.listener.cluster.view();
            self.view_version = version;
        }
        Arc::clone(&self.view)
    }

    /// The primary, whichever it is then.
    pub(super) fn primary(&mut self, reason: &'static str) -> Place {
        let view = self.look();
        Place {
            server: view.primary.clone().unwrap_or(usize::MAX),
            replica: false,
            reason,
            proof: None,
        }
    }

    /// Where a statement goes.
    pub(super) async fn place(&mut self, verdict: &Verdict) -> Place {
        // What ends a transaction is for the server that has it.
        let free = self.home.as_deref().is_none_or(Attached::is_free);
        let ends = matches!(verdict.class, Class::Commit | Class::Rollback) && free;
        let follows = if verdict.asked.anything() {
            self.knower(verdict) == Some(Knower::Away)
        } else {
            // One that chains begins the next transaction, which is for the primary.
            ends && self.ends_alone() && self.away.as_ref().is_some_and(|it| it.latest)
        };
        if let Some(away) = self.away.as_ref().filter(|_| follows) {
            return Place {
                server: away.server,
                replica: true,
                reason: PREVIOUS,
                proof: None,
            };
        }
        // A READ ONLY transaction stays where it began, whatever is said in it.
        let there = |away: &&Attached| away.in_transaction() || verdict.class == CURSOR_AWAY;
        if let Some(away) = self.away.as_deref().filter(there) {
            return Place {
                server: away.server,
                replica: true,
                reason: READ_ONLY,
                proof: None,
            };
        }
        if let Some(reason) = self.must_be_primary(verdict) {
            return self.primary(reason);
        }
        // What was left there may be settings that this is read by, or what binds the session.
        if self.learn_at_home().await
            && let Some(reason) = self.must_be_primary(verdict)
        {
            return self.primary(reason);
        }
        if let Some(place) = self.place_at_home() {
            return if self.is_settled() {
                place
            } else {
                self.look_elsewhere(place).await
            };
        }
        self.place_anew(verdict).await
    }

    /// The same for one that came to nothing where the session was last: there may only be connections
    /// that were made since, of which nothing is known. So it is asked what they have.
    pub(super) async fn place_anew(&mut self, verdict: &Verdict) -> Place {
        if let Some(reason) = self.must_be_primary(verdict) {
            return self.primary(reason);
        }
        match self.place_somewhere().await {
            Ok(place) => place,
            Err(reason) => self.primary(reason),
        }
    }

    /// Why a statement must go to the primary, as far as that is known without asking anybody.
    fn must_be_primary(&mut self, verdict: &Verdict) -> Option<&'static str> {
        if let Some(reason) = self.pinned {
            return Some(reason);
        }
        if self.home.as_ref().is_some_and(|home| !home.is_free()) {
            return Some("transaction");
        }
        if self.away.as_ref().is_some_and(|away| !away.is_free()) {
            // Another replica would take the place of the one whose cursor is open.
            return Some("cursor");
        }
        match &verdict.class {
            Class::Read => {}
            Class::Primary(reason) | Class::Pin(reason) => return Some(reason),
            Class::Ddl => return Some("ddl"),
            Class::Begin { .. } | Class::Commit | Class::Rollback => return Some("transaction"),
            Class::Set | Class::SetAutocommit(_) | Class::Use(_) => {
                let shown = verdict.single && verdict.untold.is_empty();
                if !shown || self.primary_answers() {
                    return Some("set");
                }
                // Any server tells what a setting is now: who comes while there is no primary can read.
            }
            _ => return Some("write"),
        }
        if verdict.hint_primary {
            return Some("hint");
        }
        if self.asks_late > 0 {
            return Some(PREVIOUS);
        }
        if self.next.is_some() && self.begun.is_none() {
            return Some("isolation");
        }
        if self.begun.is_none() && !self.autocommits() && !self.is_lazy() {
            return Some("transaction");
        }
        if self
            .begun
            .as_ref()
            .is_some_and(|begun| begun.sql.is_some() && !begun.read_only)
            && !self.is_lazy()
        {
            return Some("transaction");
        }
        if (self.begun.is_some() || !self.autocommits()) && verdict.uses_now {
            return Some("now");
        }
        None
    }

    /// Whether reads at the beginning of a transaction may go to replicas: under READ COMMITTED, where
    /// each statement sees what is committed when it begins.
    pub(super) fn is_lazy(&self) -> bool {
        self.listener.cluster.options.lazy && self.is_read_committed()
    }

    /// Whether the transaction that is open, or the next one, is READ COMMITTED.
    pub(super) fn is_read_committed(&self) -> bool {
        if let Some(next) = &self.next {
            let text = String::from_utf8_lossy(next).to_ascii_uppercase();
            if text.contains("ISOLATION") {
                return text
                    .split_whitespace()
                    .collect::<Vec<_>>()
                    .join(" ")
                    .contains("READ COMMITTED");
            }
        }
        self.settings.is_read_committed(&self.base)
    }

    /// Whether there is a primary that may answer now.
    fn primary_answers(&mut self) -> bool {
        let view = self.look();
        let held = |it: &usize| self.listener.cluster.gates().holds_back(*it);
        self.has_primary(&view) && !view.primary.as_ref().is_ok_and(held)
    }
}

/// Whether a statement that asks about the one before changes something, too.
pub(super) fn changes(class: &Class) -> bool {
    matches!(
        class,
        Class::Pin(_) | Class::Set | Class::Ddl | Class::Primary("write")
    )
}
