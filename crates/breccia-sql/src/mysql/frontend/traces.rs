//! What a statement may have left on its connection of which no server tells.
//!
//! Servers tell of a user variable that SET gives a value, and not of one that SELECT … INTO or `:=` does
//! out of sight; after an error they tell nothing at all. Not what is told ([`super::attached`]).
//! Invariant: a connection on which something may run out of sight is lent to nobody else before it was
//! asked what is there.

use std::sync::Arc;

use super::attached::Attached;
use super::relay::Outcome;
use super::session::Session;
use crate::error::SqlError;
use crate::mysql::class::{Class, Hidden, Verdict};

/// What may have been left on a connection: user variables, and settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Traces {
    /// Nothing but what was told.
    Nothing,
    /// By a statement that failed, and so told nothing.
    OfFailure,
    /// By what ran out of sight.
    OfRoutines,
}

impl Attached {
    /// A statement was answered: what may it have left?
    pub(super) fn note_traces(&mut self, verdict: &Verdict, outcome: &Outcome) {
        // ER_PARSE_ERROR: nothing of it was run.
        const UNREAD: u16 = 1064;
        let traces = match &outcome.error {
            Some((UNREAD, ..)) if verdict.single => Traces::Nothing,
            Some(_) if verdict.hidden != Hidden::Nothing => Traces::OfFailure,
            None if verdict.hidden == Hidden::Routines => Traces::OfRoutines,
            _ => Traces::Nothing,
        };
        let failed = traces == Traces::OfFailure;
        // A name that is not known is mostly a wrong one.
        let unknown = matches!(
            verdict.class,
            Class::Primary("no-catalogue" | "unknown-table")
        );
        let program = verdict.hidden == Hidden::Routines && !unknown;
        if self.replica {
            self.spoilt |= traces != Traces::Nothing;
            return;
        }
        // A temporary table is in no list, nor can all settings be asked for.
        self.spoilt |= failed && program;
        self.traces = self.traces.max(traces);
    }
}

impl Session {
    /// Asks the connection to the primary that is kept, if anything may have been left there; whether it did.
    pub(super) async fn learn_at_home(&mut self) -> bool {
        let left = |home: &mut Box<Attached>| home.traces != Traces::Nothing;
        let Some(mut home) = self.home.take_if(left) else {
            return false;
        };
        Box::pin(self.learn(&mut home)).await;
        if self.pinned.is_some() {
            home.lingers_until = None;
        }
        self.home = Some(home);
        true
    }

    /// Asks a connection what was left on it. What is of this session becomes its own: settings are
    /// brought along from now on, and user variables pin.
    pub(super) async fn learn(&mut self, attached: &mut Attached) {
        let traces = std::mem::replace(&mut attached.traces, Traces::Nothing);
        let pool = Arc::clone(attached.pool());
        if traces == Traces::Nothing {
            return;
        }
        attached.forget_previous();
        // What is asked opens tables.
        attached.warned = false;
        let Some(upstream) = attached.lease.upstream() else {
            return;
        };
        match pool.endpoint().traces(upstream).await {
            Ok((variables, values)) => {
                for (name, value) in values {
                    let base = || self.base.by_any_name(name);
                    if self.settings.by_any_name(name).or_else(base) != Some(value.as_str()) {
                        Arc::make_mut(&mut self.settings).set(name, &value);
                    }
                }
                upstream.applied = Arc::clone(&self.settings);
                if variables {
                    self.pin("untracked");
                }
            }
            // It may not be asked that. A write that failed without any trigger known has left nothing.
            Err(SqlError::Question { .. }) => {
                if traces == Traces::OfRoutines || attached.spoilt {
                    self.pin("untracked");
                }
            }
            Err(_) => attached.tainted = true,
        }
    }
}
