//! Statements that a client has prepared.
//!
//! Not those of a connection ([`crate::mysql::statements`]). Invariant: a client's number stands for
//! the same text until the client closes it, whatever connection it runs on.

use std::collections::HashMap;
use std::sync::Arc;

use breccia_net::clock;

use super::attached::{Attached, has_cursor};
use super::execution::Execution;
use super::relay::Outcome;
use super::route::CURSOR_AWAY;
use super::serve::{Ask, Trouble};
use super::session::{Command, End, Session};
use crate::error::SqlError;
use crate::mysql::class::{Asked, Class, Classifier, Hidden, Mode, Selects, Tables, Verdict};
use crate::mysql::codec::{self, ExecuteHead, command};
use crate::mysql::statements::{Key, MAX_OF_CLIENT, MAX_TEXT_BYTES};

/// MariaDB's number for the statement that was prepared last: clients run it without having waited for
/// its number.
const LAST: u32 = u32::MAX;
/// Where a statement's number stands in the commands that name one.
pub(super) const NUMBER: std::ops::Range<usize> = 1..5;

/// `ER_STMT_HAS_NO_OPEN_CURSOR`.
const NO_OPEN_CURSOR: u16 = 1421;
/// `ER_WRONG_ARGUMENTS`: the parameters cannot be read, so an execution has not begun, and has closed no
/// cursor.
pub(super) const WRONG_ARGUMENTS: u16 = 1210;

/// A statement of a client.
#[derive(Debug)]
pub(super) struct Statement {
    pub(super) key: Key,
    /// How its text is read.
    pub(super) mode: Mode,
    pub(super) parameters: u16,
    /// What it is, and the number of what was known of the schemas before it was asked.
    judged: Option<(u64, Arc<Verdict>)>,
    /// The types its parameters were bound with last.
    pub(super) types: Option<Arc<[u8]>>,
    /// It holds a connection: a cursor is open, or data was sent ahead.
    pub(super) held: Option<Held>,
    /// Why data could not be sent ahead, which has no answer: told when it runs.
    pub(super) failed: Option<SqlError>,
}

/// Which connection a statement holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Held {
    /// That of a READ ONLY transaction on a replica, and not the primary's.
    pub(super) replica: bool,
    pub(super) server: usize,
    /// The server's number for it.
    connection: u32,
    /// Data was sent ahead, which is nowhere else; else it is a cursor.
    pub(super) data: bool,
}

impl Statement {
    /// What it is: asked anew only once other things are known of the schemas.
    pub(super) fn judge(&mut self, classifier: &Classifier) -> Arc<Verdict> {
        let version = classifier.version();
        if let Some((at, verdict)) = &self.judged
            && *at == version
        {
            return Arc::clone(verdict);
        }
        let schema = self.key.under.schema();
        let verdict = classifier.classify(&self.key.sql, self.mode, schema);
        self.judged = Some((version, Arc::clone(&verdict)));
        verdict
    }
}

/// All statements of a client.
#[derive(Debug, Default)]
pub(super) struct Statements {
    known: HashMap<u32, Statement>,
    last: u32,
    /// The one that was prepared last, if that went well.
    latest: Option<u32>,
    bytes: usize,
}

impl Statements {
    fn is_full(&self, more: usize) -> bool {
        self.known.len() >= MAX_OF_CLIENT || self.bytes + more > MAX_TEXT_BYTES
    }

    fn next_number(&mut self) -> u32 {
        loop {
            self.last = self.last.wrapping_add(1);
            if !matches!(self.last, 0 | LAST) && !self.known.contains_key(&self.last) {
                return self.last;
            }
        }
    }

    fn insert(&mut self, number: u32, statement: Statement) {
        self.bytes += statement.key.sql.len();
        self.known.insert(number, statement);
    }

    pub(super) fn remove(&mut self, number: u32) -> Option<Statement> {
        let found = self.known.remove(&self.resolve(number))?;
        self.bytes -= found.key.sql.len();
        Some(found)
    }

    /// The number that a client's stands for.
    pub(super) fn resolve(&self, number: u32) -> u32 {
        match (number, self.latest) {
            (LAST, Some(latest)) => latest,
            _ => number,
        }
    }

    pub(super) fn get_mut(&mut self, number: u32) -> Option<&mut Statement> {
        self.known.get_mut(&self.resolve(number))
    }

    pub(super) fn clear(&mut self) {
        self.known.clear();
        (self.bytes, self.latest) = (0, None);
    }
}

fn not_prepared(class: &Class) -> Option<&'static str> {
    match class {
        Class::OwnShow { .. }
        | Class::OwnSet { .. }
        | Class::OwnReset { .. }
        | Class::OwnMisplaced => {
            Some("breccia: SHOW, SET and RESET of breccia.* are sent as text, and not prepared")
        }
        _ => None,
    }
}

fn number_of(payload: &[u8]) -> Option<u32> {
    let bytes = payload.get(NUMBER)?;
    Some(u32::from_le_bytes(bytes.try_into().ok()?))
}

impl Session {
    /// `COM_STMT_PREPARE`.
    pub(super) async fn prepare_statement(&mut self, sql: &[u8]) -> Result<(), End> {
        if self.statements.is_full(sql.len()) {
            let why = "Can't create more than max_prepared_stmt_count statements of one client";
            self.answer_error(1461, *b"42000", why);
            return Ok(());
        }
        self.statements.latest = None;
        let verdict = self.judge(sql);
        if let Some(why) = not_prepared(&verdict.class) {
            self.answer_error(1295, *b"HY000", why);
            return Ok(());
        }
        let number = self.statements.next_number();
        let key = Key::new(sql.into(), self.settings.of_statements());
        // To prepare a statement is to run nothing: it needs no place of its own, only the tables.
        let asked = Verdict {
            asks_last_insert_id: false,
            asked: Asked::default(),
            tables: Tables::No,
            may_set_last_insert_id: false,
            ddl: false,
            hidden: Hidden::Nothing,
            ..(*verdict).clone()
        };
        let outcome = self.serve(Ask::Prepare(&key, number), &asked).await?;
        let prepared = outcome.and_then(|outcome| outcome.prepared);
        if let Some((_, _, parameters)) = prepared {
            let statement = Statement {
                key,
                mode: self.mode(),
                parameters,
                judged: None,
                types: None,
                held: None,
                failed: None,
            };
            self.statements.insert(number, statement);
            self.statements.latest = Some(number);
        }
        Ok(())
    }

    /// `COM_STMT_EXECUTE`.
    pub(super) async fn execute(&mut self, command: &Command) -> Result<(), End> {
        let payload = command.payload();
        let Some(number) = number_of(payload) else {
            return Err(codec::CodecError::Malformed.into());
        };
        let Some(statement) = self.statements.get_mut(number) else {
            self.unknown_statement(number, "mysqld_stmt_execute");
            return Ok(());
        };
        let holds = statement.held.is_some();
        let number = self.statements.resolve(number);
        if holds {
            self.leave_old_cursor(number).await;
        }
        let Some(statement) = self.statements.get_mut(number) else {
            return Ok(());
        };
        let Ok(head) = ExecuteHead::parse(payload, statement.parameters) else {
            self.cut_short(payload);
            return Ok(());
        };
        if let Some(types) = &head.types {
            statement.types = payload.get(types.clone()).map(Into::into);
        }
        let mut verdict = statement.judge(&self.listener.cluster.schemas.classifier);
        let cursor = head.flags != 0;
        let execution = Execution {
            key: if cursor || statement.held.is_some() {
                statement.key.owned(number)
            } else {
                statement.key.clone()
            },
            payload,
            types: statement.types.clone(),
            head,
        };
        let holding = statement.held;
        let unsettled = holding.is_some() || statement.failed.is_some();
        if unsettled && !self.is_ready(number).await {
            return Ok(());
        }
        let away = holding.is_some_and(|it| it.replica);
        if cursor || holding.is_some() {
            verdict = self.judged_held(&verdict, away);
        }
        if let Some((query, id)) = execution.kills(&verdict) {
            return self.kill(query, id, None).await;
        }
        let ends = matches!(verdict.class, Class::Commit | Class::Rollback);
        if ends && self.begun.is_some() && self.end_here() {
            return Ok(());
        }
        if !self.note_before(&verdict) {
            if holding.is_some() {
                self.drop_held(number).await;
            }
            return Ok(());
        }
        let outcome = self.serve(Ask::Execute(execution), &verdict).await?;
        self.note_after(&verdict, outcome.as_ref());
        if cursor || holding.is_some() {
            self.hold_or_drop(number, cursor, outcome).await;
        }
        Ok(())
    }

    /// What an execution is that opens a cursor, or whose statement holds a connection; `away`: to a replica.
    fn judged_held(&self, verdict: &Verdict, away: bool) -> Arc<Verdict> {
        let mut changed = verdict.clone();
        if away && !self.binds_away(verdict) {
            changed.class = CURSOR_AWAY;
        } else if !away && verdict.class == Class::Read {
            changed.class = Class::Primary("cursor");
        }
        // Rows that are still to be fetched may count, and may not.
        changed.selects = Selects::Unknown;
        Arc::new(changed)
    }

    /// What an execution leaves of its statement: a cursor, or nothing.
    pub(super) async fn hold_or_drop(
        &mut self,
        number: u32,
        cursor: bool,
        outcome: Option<Outcome>,
    ) {
        let holding = self.held_by(number).and_then(|(_, held)| held);
        let error = outcome.as_ref().map(|it| it.error.as_ref());
        let not_begun = matches!(error, Some(Some((WRONG_ARGUMENTS, ..))));
        let failed = error.is_none_or(|it| it.is_some());
        if not_begun && holding.is_some_and(|it| !it.data) {
            return;
        }
        if failed && holding.is_some() {
            // Whoever runs the same text there next must not find the data.
            self.drop_held(number).await;
            return;
        }
        let opened = cursor
            && outcome
                .and_then(|outcome| outcome.status)
                .is_some_and(has_cursor);
        let replica = self.away.as_ref().is_some_and(|it| it.latest);
        let here = self.held_at(replica, false).filter(|_| opened);
        self.hold_for(number, here);
        self.release_free().await;
    }

    /// A statement holds a connection, or none any more.
    fn hold_for(&mut self, number: u32, held: Option<Held>) {
        let Some(statement) = self.statements.get_mut(number) else {
            return;
        };
        let before = std::mem::replace(&mut statement.held, held);
        if before == held {
            return;
        }
        for (place, holds) in [(before, false), (held, true)] {
            if let Some(attached) = place.and_then(|place| self.kept(place)) {
                attached.hold(holds);
            }
        }
    }

    /// The connection that a statement holds; none: it is lost.
    pub(super) fn kept(&mut self, held: Held) -> Option<&mut Attached> {
        let slot = self.slot(held.replica).as_mut()?;
        let same = slot.server == held.server && !slot.tainted;
        let connection = slot.lease.upstream().map(|it| it.connection_id);
        (same && connection == Some(held.connection)).then_some(slot)
    }

    /// Where the session keeps its connection to the primary, or to a replica.
    pub(super) fn slot(&mut self, replica: bool) -> &mut Option<Box<Attached>> {
        if replica {
            &mut self.away
        } else {
            &mut self.home
        }
    }

    /// What a statement holds that holds the connection kept there.
    fn held_at(&mut self, replica: bool, data: bool) -> Option<Held> {
        let attached = self.slot(replica).as_mut()?;
        let server = attached.server;
        let upstream = attached.lease.upstream()?;
        Some(Held {
            replica,
            server,
            connection: upstream.connection_id,
            data,
        })
    }

    /// What a statement holds must be there still: it would run without the data that was sent ahead.
    fn check_held(&mut self, key: &Key, held: Option<Held>) -> Result<(), SqlError> {
        let Some(held) = held else {
            return Ok(());
        };
        let upstream = self.kept(held).and_then(|kept| kept.lease.upstream());
        if upstream.is_some_and(|it| it.prepared.touch(key).is_some()) {
            return Ok(());
        }
        Err(SqlError::Down {
            server: self.server_name(held.server),
            why: "what had this statement's cursor or data was lost".to_owned(),
        })
    }

    /// Whether a statement that is to run has all that was sent for it; else its client is told why not.
    pub(super) async fn is_ready(&mut self, number: u32) -> bool {
        let Some(statement) = self.statements.get_mut(number) else {
            return true;
        };
        if statement.failed.is_none() && statement.held.is_none() {
            return true;
        }
        let (failed, held) = (statement.failed.take(), statement.held);
        let key = self.held_by(number).map(|(key, _)| key);
        let ready = match (failed, key) {
            (Some(error), _) => Err(error),
            (None, Some(key)) => {
                let kept = self.check_held(&key, held);
                kept.and_then(|()| self.check_fresh(number, held))
            }
            (None, None) => Ok(()),
        };
        if let Err(error) = &ready {
            self.refuse(error);
            self.drop_held(number).await;
            self.hold_for(number, None);
        }
        ready.is_ok()
    }

    /// Data could not be sent ahead, and nothing of it was.
    pub(super) fn cannot_take(&mut self, number: u32, error: SqlError) {
        if let Some(statement) = self.statements.get_mut(number) {
            statement.failed.get_or_insert(error);
        }
    }

    /// Gives connections back that nothing holds any more, unless the client may ask about the answer.
    async fn release_free(&mut self) {
        let free = |attached: &Attached| attached.is_free() && attached.lingers_until.is_none();
        let stays = self.stays_for(self.warnings > 0);
        if self.pinned.is_none()
            && self.home.as_deref().is_some_and(free)
            && let Some(home) = self.home.take()
        {
            self.settle_home(home, stays).await;
        }
        if self.away.as_deref().is_some_and(free)
            && let Some(away) = self.away.take()
        {
            self.settle_away(away, stays, clock::now()).await;
        }
    }

    /// A statement that ran with all that it needs lets its connection go.
    pub(super) async fn release_statement(&mut self, number: u32) {
        self.hold_for(number, None);
        self.release_free().await;
    }

    /// The types that a statement was bound with on the connection that it holds are not known.
    pub(super) fn forget_types(&mut self, number: u32) {
        let Some((key, Some(held))) = self.held_by(number) else {
            return;
        };
        let upstream = self.kept(held).and_then(|kept| kept.lease.upstream());
        if let Some(known) = upstream.and_then(|it| it.prepared.touch(&key)) {
            known.types = None;
        }
    }

    /// `COM_STMT_CLOSE`: it has no answer.
    pub(super) async fn close_statement(&mut self, command: &Command) -> Result<(), End> {
        let Some(number) = number_of(command.payload()) else {
            return Ok(());
        };
        self.drop_held(number).await;
        self.statements.remove(number);
        Ok(())
    }

    /// What a statement is on the connection that it holds, or will hold.
    pub(super) fn held_by(&mut self, number: u32) -> Option<(Key, Option<Held>)> {
        let number = self.statements.resolve(number);
        let statement = self.statements.get_mut(number)?;
        Some((statement.key.owned(number), statement.held))
    }

    /// A statement that holds a connection is closed there.
    pub(super) async fn drop_held(&mut self, number: u32) {
        let Some((key, Some(held))) = self.held_by(number) else {
            return;
        };
        self.hold_for(number, None);
        if self.kept(held).is_some()
            && let Some(mut kept) = self.slot(held.replica).take()
        {
            let pool = Arc::clone(kept.pool());
            if let Some(upstream) = kept.lease.upstream()
                && let Some(there) = upstream.prepared.remove(&key)
            {
                let close = super::serve::command_bytes(command::STMT_CLOSE, &there.to_le_bytes());
                kept.tainted |= pool.endpoint().send(upstream, &close).await.is_err();
            }
            if kept.tainted && !self.is_lost_with(&kept) {
                self.give_back(kept).await;
            } else {
                *self.slot(held.replica) = Some(kept);
            }
            self.release_free().await;
        }
    }

    /// `COM_STMT_RESET`: closes its cursor, forgets data that was sent ahead.
    pub(super) async fn reset_statement(&mut self, command: &Command) -> Result<(), End> {
        let number = number_of(command.payload()).unwrap_or_default();
        let Some(statement) = self.statements.get_mut(number) else {
            self.unknown_statement(number, "mysqld_stmt_reset");
            return Ok(());
        };
        statement.failed = None;
        // Closed there, and prepared anew when it is used: that forgets all of it.
        self.drop_held(number).await;
        self.answer_ok();
        Ok(())
    }

    /// `COM_STMT_FETCH`.
    pub(super) async fn fetch(&mut self, command: &Command) -> Result<(), End> {
        let number = number_of(command.payload()).unwrap_or_default();
        let Some((key, held)) = self.held_by(number) else {
            self.unknown_statement(number, "mysqld_stmt_fetch");
            return Ok(());
        };
        let mut bytes = command.bytes.to_vec();
        let there = held
            .and_then(|held| self.kept(held))
            .and_then(|kept| kept.lease.upstream())
            .and_then(|upstream| upstream.prepared.touch(&key).map(|it| it.number));
        let (Some(held), Some(there)) = (held, there) else {
            let why = format!("The statement ({number}) has no open cursor");
            self.answer_error(NO_OPEN_CURSOR, *b"HY000", &why);
            return Ok(());
        };
        let at = codec::HEADER_BYTES + NUMBER.start..codec::HEADER_BYTES + NUMBER.end;
        if let Some(place) = bytes.get_mut(at) {
            place.copy_from_slice(&there.to_le_bytes());
        }
        let verdict = Verdict {
            class: if held.replica {
                CURSOR_AWAY
            } else {
                Class::Primary("cursor")
            },
            ..Verdict::of_primary("cursor")
        };
        let ask = Ask::Packets(&bytes, super::relay::Shape::Rows);
        let outcome = self.serve(ask, &verdict).await?;
        let last = outcome
            .and_then(|outcome| outcome.status)
            .is_none_or(|it| it & codec::status::LAST_ROW_SENT != 0);
        // Data that was sent ahead waits for its execution, whatever came of this.
        if last && !held.data {
            self.release_statement(number).await;
        }
        Ok(())
    }

    /// The statement that data is sent ahead for, ready on a connection that it holds from now on; its
    /// number there. An error: nothing was sent.
    pub(super) async fn ready_for_data(&mut self, number: u32) -> Result<(Held, u32), Trouble> {
        let Some((key, held)) = self.held_by(number) else {
            return Err(Trouble::Before(SqlError::Crowded));
        };
        self.check_held(&key, held).map_err(Trouble::Before)?;
        let verdict = Verdict {
            class: match held {
                Some(held) if held.replica => CURSOR_AWAY,
                _ => Class::Primary("long-data"),
            },
            ..Verdict::of_primary("long-data")
        };
        let place = self.place(&verdict).await;
        let attached = self.attach(&place).await?;
        let empty = Execution {
            key: key.clone(),
            payload: &[],
            head: ExecuteHead::default(),
            types: None,
        };
        let mut attached = self
            .prepare_or_put_back(attached, &Ask::Execute(empty), &verdict)
            .await?;
        let upstream = attached.lease.upstream();
        let there = upstream.and_then(|it| it.prepared.touch(&key).map(|it| it.number));
        *self.slot(place.replica) = Some(attached);
        let held = self.held_at(place.replica, true);
        self.hold_for(number, held);
        held.zip(there).ok_or(Trouble::Before(SqlError::Crowded))
    }
}
