//! Connections that a session holds, and when it gives them back.
//!
//! Not which one a statement needs ([`super::route`]). Invariant: a connection that is given back is
//! idle, and what a later statement of this session may ask it (the last insert id) is known here.

use std::sync::Arc;
use std::time::{Duration, Instant};

use breccia_net::clock;

use super::relay::{Noted, Outcome};
use super::session::Session;
use super::traces::Traces;
use crate::mysql::class::Verdict;
use crate::mysql::codec::status;
use crate::mysql::gtid::Gtids;
use crate::mysql::pool::{Lease, Pool};
use crate::mysql::settings::{is_own_on_replicas, is_setting};
use crate::pause::Running;

/// How long a connection stays with a session after an answer that its client may ask more about: the
/// rows found, the warnings, the last insert id. While others wait for connections it does not.
const LINGER: Duration = Duration::from_millis(100);
/// How often whoever keeps one for longer than that looks whether others wait.
const LINGER_LOOK: Duration = Duration::from_millis(20);
/// The same after a warning, an error, or rows that were counted: many clients ask about those.
const ASKED_LINGER: Duration = Duration::from_secs(1);

/// The same with a client that has asked later than that.
const LATE_LINGER: Duration = Duration::from_mins(10);
/// So long it stays there though others wait, from when the client was refused an answer.
const LATE_LEAST: Duration = Duration::from_secs(3);

/// A connection that a session holds.
#[derive(Debug)]
pub(super) struct Attached {
    pub(super) lease: Lease,
    /// Its server, by number.
    pub(super) server: usize,
    pub(super) replica: bool,
    /// The epoch in which it was taken.
    pub(super) epoch: u64,
    /// What the server has replayed for certain: of a replica.
    pub(super) has: Gtids,
    /// Which run of the server it leads to.
    pub(super) run: u64,
    /// The flags of its last answer.
    pub(super) status: u16,
    /// Its last answer was an error, which tells no flags, and may have left a transaction open.
    pub(super) unsure: bool,
    /// Tables are locked.
    pub(super) locked: bool,
    /// The next transaction has characteristics of its own, or an XA transaction is under way.
    pub(super) special: bool,
    /// Something on it was not read to its end, or it is not as it should be: it is closed.
    pub(super) tainted: bool,
    /// It is closed once the session needs it no more.
    pub(super) spoilt: bool,
    /// Cursors that are open, and statements with data sent ahead.
    pub(super) open: usize,
    /// It is kept for questions about the last answer, until then.
    pub(super) lingers_until: Option<Lingers>,
    /// The last statement of the session ran here, and nothing since.
    pub(super) latest: bool,
    /// A statement of this session may have set the last insert id, which was not asked for yet.
    pub(super) sets_insert_id: bool,
    /// Its last insert id is this session's.
    pub(super) owns_insert_id: bool,
    /// What may have been left on it of which nobody has told.
    pub(super) traces: Traces,
    /// The last rows that the session was answered came from here, and no others since.
    pub(super) rows: bool,
    /// The session's warnings are here.
    pub(super) warned: bool,
    /// The session has taken a number of a sequence here.
    pub(super) numbered: bool,
    /// When it was lent to the session.
    since: Instant,
    /// It counts as running something on its server.
    pub(super) running: Running,
}

impl Attached {
    pub(super) fn new(
        lease: Lease,
        (server, replica): (usize, bool),
        epoch: u64,
        running: Running,
    ) -> Self {
        Self {
            lease,
            server,
            replica,
            epoch,
            has: Gtids::default(),
            run: 0,
            status: status::AUTOCOMMIT,
            unsure: false,
            locked: false,
            special: false,
            tainted: false,
            spoilt: false,
            open: 0,
            lingers_until: None,
            latest: false,
            sets_insert_id: false,
            owns_insert_id: false,
            traces: Traces::Nothing,
            rows: false,
            warned: false,
            numbered: false,
            since: clock::now(),
            running,
        }
    }

    /// Whether what runs on it next must run there.
    pub(super) fn in_transaction(&self) -> bool {
        self.is_known_open() || self.unsure || self.special
    }

    /// Whether something is open there that has a time: what is only feared, or set for the next one, has
    /// none.
    pub(super) fn is_known_open(&self) -> bool {
        self.tells_transaction() || self.locked
    }

    /// Whether the server's flags tell of a transaction: locked tables are none.
    pub(super) fn tells_transaction(&self) -> bool {
        self.status & status::IN_TRANS != 0
    }

    /// Whether it may be given back as far as the server's state goes.
    pub(super) fn is_free(&self) -> bool {
        !self.in_transaction() && self.open == 0 && !has_cursor(self.status)
    }

    /// A statement holds it, or does not any more.
    pub(super) fn hold(&mut self, holds: bool) {
        self.status &= !status::CURSOR_EXISTS;
        if holds {
            self.open += 1;
        } else {
            self.open = self.open.saturating_sub(1);
        }
    }

    pub(super) fn pool(&self) -> &Arc<Pool> {
        self.lease.pool()
    }
}

/// Whether a connection stays with a session for a while though nothing is open on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stays {
    /// It does not.
    No,
    /// If others have enough of them.
    IfIdle,
    /// The client may well ask about what it was answered: of warnings, an error, or counted rows.
    Asked,
    /// The client has asked too late before.
    Late,
}

impl Stays {
    /// Whether it does though the pool has few connections left.
    fn though_busy(self) -> bool {
        matches!(self, Self::Asked | Self::Late)
    }
}

/// How long a connection is kept for questions about the last answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lingers {
    /// Until then, whoever waits.
    least: Instant,
    /// Until then, if nobody waits for a connection.
    most: Instant,
}

impl Lingers {
    /// `since`: when the session got the connection; `late`: when its client was last refused an answer,
    /// for it had asked too late.
    fn from(now: Instant, stays: Stays, since: Instant, late: Instant) -> Self {
        let (least, most) = match stays {
            Stays::No | Stays::IfIdle => (now + LINGER, LINGER),
            Stays::Asked => ((now + LINGER).min(since + ASKED_LINGER), ASKED_LINGER),
            // Whoever waits gets it then, however often the client says something.
            Stays::Late => ((late + LATE_LEAST).max(now + LINGER), LATE_LINGER),
        };
        Self {
            least,
            most: now + most,
        }
    }

    fn is_over(self, now: Instant, pool: &Pool) -> bool {
        now >= self.most || (now >= self.least && pool.waiting() > 0)
    }

    /// When it is to be looked at again.
    pub(super) fn due(self, now: Instant) -> Instant {
        if now < self.least {
            self.least
        } else {
            // One that may stay for minutes looks seldom.
            let stays = self.most.saturating_duration_since(now);
            self.most.min(now + LINGER_LOOK.max(stays / 1_000))
        }
    }
}

impl Session {
    /// What an answer tells of the connection and of the session. Returns the identifier of a
    /// transaction that was committed.
    pub(super) fn absorb(
        &mut self,
        attached: &mut Attached,
        outcome: &Outcome,
        verdict: &Verdict,
    ) -> Option<Gtids> {
        if let Some(status) = outcome.status {
            attached.status = status;
            attached.unsure = false;
            self.see_autocommit(attached);
        }
        let mut committed = None;
        let before = Arc::clone(&self.settings);
        for noted in &outcome.noted {
            match noted {
                Noted::Variable(name, value) => {
                    let name = String::from_utf8_lossy(name);
                    let value = String::from_utf8_lossy(value);
                    if name == "last_gtid" {
                        committed = value.parse().ok().map(Gtids::MariaDb);
                        continue;
                    }
                    if name.starts_with("session_track") {
                        self.pin("session-track");
                    } else if verdict.restores && verdict.single {
                        // It held for that statement.
                    } else if is_setting(&name) {
                        // Nobody else may find a replica's connection so.
                        attached.spoilt |= attached.replica && is_own_on_replicas(&name, &value);
                        Arc::make_mut(&mut self.settings).set(&name, &value);
                    }
                }
                Noted::Schema(schema) => {
                    let schema = String::from_utf8_lossy(schema);
                    Arc::make_mut(&mut self.settings).enter(&schema);
                }
                Noted::Gtids(text) => {
                    let text = std::str::from_utf8(text).ok();
                    committed = text.and_then(|it| it.parse().ok()).map(Gtids::MySql);
                }
                Noted::Transaction(state) => attached.locked = state.get(7) == Some(&b'L'),
                Noted::Characteristics(sql) => attached.special = !sql.is_empty(),
                // A user variable, a temporary table, a statement prepared by SQL: it stays there. What
                // is told beside a setting may be that setting, or what nobody sees in the text.
                Noted::Untracked { alone } if *alone || verdict.hides() => {
                    if attached.replica {
                        attached.spoilt = true;
                    } else {
                        self.pin("untracked");
                    }
                }
                Noted::Untracked { .. } => {}
            }
        }
        if !Arc::ptr_eq(&before, &self.settings)
            && let Some(upstream) = attached.lease.upstream()
        {
            upstream.applied = Arc::clone(&self.settings);
            self.see_auto_is_null();
        }
        committed
    }

    /// While `sql_auto_is_null` is on, `IS NULL` may mean the last insert id: what asks for that cannot be
    /// seen in a text.
    pub(super) fn see_auto_is_null(&mut self) {
        if matches!(self.settings.get("sql_auto_is_null"), Some("ON" | "1")) {
            self.pin("auto-is-null");
        }
    }

    /// Each answer of the primary tells whether autocommit is on, also where nobody told that it changed.
    pub(super) fn see_autocommit(&mut self, attached: &mut Attached) {
        let on = attached.status & status::AUTOCOMMIT != 0;
        if attached.replica || on == self.autocommits() {
            return;
        }
        let value = if on { "ON" } else { "OFF" };
        Arc::make_mut(&mut self.settings).set("autocommit", value);
        if let Some(upstream) = attached.lease.upstream() {
            Arc::make_mut(&mut upstream.applied).set("autocommit", value);
        }
    }

    /// Settings that an answer told of, and that may be otherwise by now.
    pub(super) fn doubted(outcome: &Outcome, verdict: &Verdict) -> Vec<String> {
        let names = outcome.noted.iter().filter_map(|noted| match noted {
            Noted::Variable(name, _) => Some(String::from_utf8_lossy(name).into_owned()),
            _ => None,
        });
        let unsure = verdict.restores && !verdict.single;
        let told = |it: &String| is_setting(it) && !it.starts_with("session_track");
        let mut doubted: Vec<String> = names.filter(|it| unsure && told(it)).collect();
        doubted.extend(verdict.untold.iter().map(ToString::to_string));
        doubted
    }

    /// Whether an answer told of a character set and not of the collation that came with it.
    pub(super) fn misses_collation(outcome: &Outcome) -> bool {
        let told = |wanted: &[u8]| {
            let is = |noted: &Noted| matches!(noted, Noted::Variable(name, _) if name == wanted);
            outcome.noted.iter().any(is)
        };
        told(b"character_set_connection") && !told(b"collation_connection")
    }

    /// A session keeps its connection to the primary, or lets it go, after a statement there.
    pub(super) async fn settle_home(&mut self, mut attached: Box<Attached>, stays: Stays) {
        if attached.unsure && stays == Stays::No && !attached.tainted {
            // It must not stay for what may not be there.
            Box::pin(self.see_open(&mut attached)).await;
            if !attached.in_transaction() && self.begun.is_none() {
                self.transaction_since = None;
            }
        }
        if self.is_lost_with(&attached) {
            self.home = Some(attached);
            return;
        }
        let size = self.listener.limits.pool.size();
        let mut keeps = !attached.is_free()
            || self.pinned.is_some()
            || self.listener.limits.session_mode
            || stays.though_busy()
            || (stays == Stays::IfIdle && !is_busy(attached.pool(), size));
        if !keeps && !attached.tainted {
            self.learn(&mut attached).await;
            keeps = self.pinned.is_some();
        }
        if attached.tainted || !keeps {
            self.give_back(attached).await;
            return;
        }
        if attached.is_free() {
            // A transaction goes on to its end, whoever holds back what has not begun.
            attached.running.rest();
        }
        let only_lingers = (attached.is_free() && self.pinned.is_none()) || attached.unsure;
        let now = clock::now();
        attached.lingers_until =
            only_lingers.then(|| Lingers::from(now, stays, attached.since, self.asked_late));
        self.home = Some(attached);
    }

    /// The same of a connection to a replica. `asks_more`: its client may well ask about the answer.
    pub(super) async fn settle_away(
        &mut self,
        mut attached: Box<Attached>,
        stays: Stays,
        now: Instant,
    ) {
        if self.is_lost_with(&attached) {
            self.away = Some(attached);
            return;
        }
        let size = self.listener.limits.pool.size();
        let lingers = stays.though_busy() || !is_busy(attached.pool(), size);
        // One that is at something of the session's own is no place for its next read.
        let lingers = lingers && !attached.spoilt;
        if attached.tainted || (attached.is_free() && !lingers) {
            self.give_back(attached).await;
            return;
        }
        if attached.is_free() {
            attached.running.rest();
        }
        attached.lingers_until = attached
            .is_free()
            .then(|| Lingers::from(now, stays, attached.since, self.asked_late));
        self.away = Some(attached);
    }

    /// Whether a connection is of no use any more, and has something of this session open. It stays where
    /// it is then, so that whoever uses it next is told: without it, COMMIT would be one of nothing.
    pub(super) fn is_lost_with(&self, attached: &Attached) -> bool {
        attached.tainted && (!attached.is_free() || self.has_state_on(attached))
    }

    /// Nothing keeps the connection to the primary any more, if nothing is open there.
    pub(super) fn linger_free_home(&mut self) {
        let now = clock::now();
        if let Some(home) = self.home.as_mut().filter(|home| home.is_free()) {
            home.lingers_until = Some(Lingers::from(now, Stays::IfIdle, now, now));
        }
    }

    /// Gives a connection back, once what a later statement may ask of it is known.
    pub(super) async fn give_back(&mut self, mut attached: Box<Attached>) {
        if attached.tainted || !attached.is_free() || self.has_state_on(&attached) {
            // Closed with its permit.
            self.forget_insert_id(&attached);
            return;
        }
        if attached.traces != Traces::Nothing {
            let before = self.pinned;
            self.learn(&mut attached).await;
            if attached.tainted || self.pinned != before {
                self.forget_insert_id(&attached);
                return;
            }
        }
        if attached.sets_insert_id {
            let pool = Arc::clone(attached.pool());
            let Some(upstream) = attached.lease.upstream() else {
                return;
            };
            let asked = pool
                .endpoint()
                .ask_value(upstream, "SELECT LAST_INSERT_ID() LIMIT 1")
                .await;
            let value = asked.ok().flatten().and_then(|it| it.parse().ok());
            upstream.last_insert_id = value;
            if attached.owns_insert_id || value.is_none() {
                self.last_insert_id = value;
            }
            if value.is_none() {
                // Closed; whoever asks for the id is told that it is not known.
                return;
            }
        }
        let with_schema = attached.pool().login().with_schema;
        if let Some(upstream) = attached.lease.upstream() {
            // A schema that was entered cannot be left.
            attached.spoilt |= !with_schema && upstream.applied.schema().is_some();
        }
        if attached.spoilt {
            return;
        }
        attached.lease.give_back_at(clock::now());
    }

    /// A connection is lost, and the last insert id with it if nobody has asked for that yet.
    pub(super) fn forget_insert_id(&mut self, attached: &Attached) {
        if attached.sets_insert_id {
            self.last_insert_id = None;
        }
    }

    /// Gives back connections that are kept only for questions: those that have waited long enough by
    /// `now`; without it, all.
    pub(super) async fn end_lingering(&mut self, now: Option<Instant>) {
        let over = |attached: &Attached| {
            let is_over =
                |until: Lingers| now.is_none_or(|now| until.is_over(now, attached.pool()));
            attached.lingers_until.is_some_and(is_over)
        };
        if self.away.as_deref().is_some_and(over)
            && let Some(away) = self.away.take()
        {
            self.give_back(away).await;
        }
        let kept = self.listener.limits.session_mode;
        if self.home.as_deref().is_some_and(over) {
            if kept && self.home.as_ref().is_some_and(|it| !it.unsure) {
                if let Some(home) = &mut self.home {
                    home.lingers_until = None;
                }
            } else if let Some(mut home) = self.home.take() {
                home.lingers_until = None;
                self.settle_home(home, Stays::No).await;
            }
        }
    }

    /// Lets go of all connections; those of which something is open are closed.
    pub(super) async fn let_go(&mut self) {
        for attached in [self.home.take(), self.away.take()].into_iter().flatten() {
            let mut attached = attached;
            // A pinned one has something that nobody else may find there.
            attached.tainted |= self.pinned.is_some();
            attached.sets_insert_id = false;
            self.give_back(attached).await;
        }
    }
}

/// Whether the answer with these flags left a cursor open.
pub(super) fn has_cursor(flags: u16) -> bool {
    flags & (status::CURSOR_EXISTS | status::LAST_ROW_SENT) == status::CURSOR_EXISTS
}

/// Whether a pool has so few connections left that none of them lingers.
fn is_busy(pool: &Pool, size: usize) -> bool {
    let (idle, open) = pool.counts();
    let lent = open.saturating_sub(idle);
    4 * lent > 3 * size
}
