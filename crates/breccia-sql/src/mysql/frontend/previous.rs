//! What a session may ask about statements before, and which of its connections knows.
//!
//! Not what a text asks ([`crate::mysql::class`]). Invariant: such a question is answered where the
//! statement ran that it is about, or refused; no other connection answers it.
//!
//! Each kind has its own statement before. `ROW_COUNT()` is of the last one. `FOUND_ROWS()` is of the last
//! one that selected: writes, settings and the ends of transactions leave it. Warnings stay until a
//! statement has some of its own, or opens a table
//! (<https://mariadb.com/kb/en/show-warnings/>, <https://mariadb.com/kb/en/found_rows/>).

use super::attached::{Attached, Stays};
use super::relay::Outcome;
use super::route;
use super::serve::PING;
use super::session::Session;
use crate::error::SqlError;
use crate::mysql::class::{Asked, Class, Selects, Tables, Verdict};

/// After so many statements without a question a session counts as one that asks at once, or never.
const LATE_STATEMENTS: u8 = 50;

impl Attached {
    /// Whether all that is asked is about what ran here.
    fn knows(&self, asked: Asked) -> bool {
        (!asked.rows || self.rows)
            && (!asked.last || self.latest)
            && (!asked.number || self.numbered)
            && (!asked.warnings || self.warned)
    }

    /// Whether a statement asks about what ran here, so that nothing may run before it.
    pub(super) fn is_asked(&self, verdict: &Verdict) -> bool {
        verdict.asked.anything() && self.knows(verdict.asked)
    }

    /// Breccia has asked something here itself, for rows.
    pub(super) fn forget_previous(&mut self) {
        (self.latest, self.rows) = (false, false);
    }
}

/// Which of its connections a session's question is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Knower {
    /// That to the primary.
    Home,
    /// That to a replica.
    Away,
    /// Any: there are no warnings.
    Anybody,
}

impl Session {
    /// Who knows what a statement asks about those before; `None`: nobody any more.
    pub(super) fn knower(&self, verdict: &Verdict) -> Option<Knower> {
        let asked = verdict.asked;
        let stays = |away: &Attached| away.in_transaction();
        let away = self.away.as_deref().filter(|it| {
            // It may have been there for long: what is read beside the question must not be of then.
            it.knows(asked)
                && verdict.single
                && !route::changes(&verdict.class)
                && (it.latest || verdict.tables == Tables::No || stays(it))
        });
        let home = self.home.as_deref().filter(|it| it.knows(asked));
        let held_away = self.away.as_deref().is_some_and(stays);
        if home.is_some() && !held_away {
            Some(Knower::Home)
        } else if away.is_some() {
            Some(Knower::Away)
        } else if self.has_none(asked) {
            Some(Knower::Anybody)
        } else {
            None
        }
    }

    /// Whether it is only asked about warnings, and there are none.
    fn has_none(&self, asked: Asked) -> bool {
        !asked.rows && !asked.last && !asked.number && self.warnings == 0
    }

    /// Whether what a statement asks about those before is known; if not, it is refused.
    pub(super) fn may_ask(&mut self, verdict: &Verdict) -> bool {
        if !verdict.asked.anything() || self.knower(verdict).is_some() {
            return true;
        }
        self.note_late();
        self.refuse(&SqlError::Forgotten);
        false
    }

    /// The same once there is a connection for it: who has waited for one, or for the end of a pause, may have
    /// lost what it asks about.
    pub(super) fn still_knows(&mut self, attached: &Attached, verdict: &Verdict) -> bool {
        let asked = verdict.asked;
        let knows = !asked.anything() || self.has_none(asked) || attached.knows(asked);
        if knows || verdict.class == Class::Primary(PING) {
            return true;
        }
        self.note_late();
        false
    }

    /// The client has asked when nobody knew any more.
    fn note_late(&mut self) {
        (self.asks_late, self.asked_late) = (LATE_STATEMENTS, self.asked);
    }

    /// How long a connection stays with the session after an answer on it.
    pub(super) fn stays(
        &mut self,
        attached: &Attached,
        asks_more: bool,
        verdict: &Verdict,
    ) -> Stays {
        let asks = verdict.asked.anything();
        if self.asks_late > 0 && asks {
            self.asks_late = LATE_STATEMENTS;
            if attached.pool().waiting() > 0 {
                // It has had its answer, and is one of many.
                return Stays::No;
            }
        }
        self.asks_late = self.asks_late.saturating_sub(1);
        self.stays_for(asks_more)
    }

    /// The same where it is not known to be about any statement.
    pub(super) fn stays_for(&self, asks_more: bool) -> Stays {
        if self.asks_late > 0 {
            Stays::Late
        } else if asks_more {
            Stays::Asked
        } else {
            Stays::IfIdle
        }
    }

    /// A statement was answered on a connection, which is not in the session now: what may be asked about
    /// later is there, or still where it was.
    pub(super) fn note_previous(
        &mut self,
        attached: &mut Attached,
        verdict: &Verdict,
        outcome: &Outcome,
    ) {
        if outcome.prepared.is_some() {
            // Nothing has run.
            return;
        }
        self.forget_latest();
        attached.latest = true;
        attached.numbered |= verdict.takes_number;
        match verdict.selects {
            Selects::Yes if outcome.has_rows => {
                self.elsewhere_no(|it| it.rows = false);
                attached.rows = true;
            }
            Selects::No if !outcome.has_rows || verdict.asked.warnings => {}
            // It may have counted rows, and it may not: where they were counted before nobody else knows.
            _ => self.elsewhere_no(|it| it.rows = false),
        }
        let count = outcome.warnings.max(u16::from(outcome.error.is_some()));
        if verdict.tables == Tables::No && count == 0 {
            return;
        }
        if count > 0 || verdict.tables == Tables::Yes {
            self.elsewhere_no(|it| it.warned = false);
            // Of all but the last of several nothing was told.
            let least = u16::from(!verdict.single);
            (attached.warned, self.warnings) = (true, count.max(least));
        } else if !attached.warned && self.warnings > 0 {
            // They are gone, or still there: they are not known.
            self.elsewhere_no(|it| it.warned = false);
        } else if !verdict.single {
            self.elsewhere_no(|it| it.warned = false);
            self.warnings = self.warnings.max(1);
        }
    }

    /// No connection that is in the session now knows of the last statement.
    pub(super) fn forget_latest(&mut self) {
        self.elsewhere_no(|it| it.latest = false);
    }

    /// The last answer was Breccia's own, an error: no connection has its warning.
    pub(super) fn forget_warnings(&mut self) {
        self.elsewhere_no(|it| (it.latest, it.warned) = (false, false));
        self.warnings = 1;
    }

    /// The last answer was Breccia's own, and had rows.
    pub(super) fn forget_rows(&mut self) {
        self.elsewhere_no(|it| (it.latest, it.rows) = (false, false));
    }

    /// What is asked about is on none of the connections that are in the session now.
    fn elsewhere_no(&mut self, forget: impl Fn(&mut Attached)) {
        for other in [&mut self.home, &mut self.away].into_iter().flatten() {
            forget(other);
        }
    }
}
