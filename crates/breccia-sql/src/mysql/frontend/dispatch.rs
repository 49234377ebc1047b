//! What each command of a client is, and who answers it.
//!
//! Not how it is served ([`super::serve`]). Source: the protocol's "Command Phase". Invariant: each
//! command that has an answer gets exactly one, and what is not known is refused by name.

use std::sync::Arc;

use bytes::BytesMut;

use super::attached::Attached;
use super::ending::ROLLBACK;
use super::own;
use super::relay::{Outcome, Shape};
use super::serve::{Ask, PING, command_bytes};
use super::session::{Begun, Command, End, Session};
use super::tell::KEPT_BYTES;
use crate::mysql::class::{Asked, Class, Tables, Verdict};
use crate::mysql::codec::{capabilities, command};
use crate::mysql::settings::Settings;

/// `ER_UNKNOWN_COM_ERROR`.
const UNKNOWN_COMMAND: u16 = 1047;

impl Session {
    /// Serves a command; its buffer, to be used again.
    pub(super) async fn dispatch(&mut self, command: Command) -> Result<BytesMut, End> {
        if command.long {
            let bytes = &command.bytes;
            let begin = BytesMut::from(bytes.get(..KEPT_BYTES).unwrap_or(bytes));
            self.serve_long(command.bytes).await?;
            return Ok(begin);
        }
        match command.kind() {
            command::QUIT => return Err(End::Gone),
            command::QUERY => self.query(&command).await?,
            command::STMT_EXECUTE => self.execute(&command).await?,
            command::STMT_PREPARE => self.prepare_statement(command.body()).await?,
            command::STMT_CLOSE => self.close_statement(&command).await?,
            command::STMT_RESET => self.reset_statement(&command).await?,
            command::STMT_FETCH => self.fetch(&command).await?,
            command::STMT_SEND_LONG_DATA => self.send_ahead(&command).await?,
            command::PING => self.ping(&command).await?,
            command::INIT_DB => self.init_db(&command).await?,
            command::FIELD_LIST => self.pass_on(&command, Shape::Fields, "catalogue").await?,
            command::STATISTICS => self.pass_on(&command, Shape::Text, "status").await?,
            command::PROCESS_INFO => self.pass_on(&command, Shape::Results, "status").await?,
            command::REFRESH | command::DEBUG => {
                self.pass_on(&command, Shape::Single, "status").await?;
            }
            command::PROCESS_KILL => {
                let id = command.body().get(..4).and_then(|it| it.try_into().ok());
                let id = id.map_or(0, u32::from_le_bytes);
                self.kill(false, u64::from(id), None).await?;
            }
            command::SET_OPTION => self.set_option(&command).await?,
            command::RESET_CONNECTION => {
                self.reset().await;
                self.answer_ok();
            }
            command::CHANGE_USER => self.change_user(&command).await?,
            kind => self.refuse_command(kind),
        }
        Ok(command.bytes)
    }

    fn refuse_command(&mut self, kind: u8) {
        let what = match kind {
            command::BINLOG_DUMP | command::BINLOG_DUMP_GTID | command::REGISTER_REPLICA => {
                "replicas follow a server, and not Breccia: point them at the primary itself"
                    .to_owned()
            }
            command::SHUTDOWN => "stop a server where it runs, and not through Breccia".to_owned(),
            _ => {
                self.answer_error(UNKNOWN_COMMAND, *b"08S01", "Unknown command");
                return;
            }
        };
        self.answer_error(UNKNOWN_COMMAND, *b"08S01", &format!("breccia: {what}"));
    }

    /// `COM_PING`. A server tells no rows of the statement before any more once it was asked whether it is
    /// there, so whoever may ask about that is answered where that ran.
    async fn ping(&mut self, command: &Command) -> Result<(), End> {
        if !self.has_latest() {
            self.answer_ok();
            return Ok(());
        }
        let verdict = Verdict {
            asked: Asked {
                last: true,
                ..Asked::default()
            },
            ..Verdict::of_primary(PING)
        };
        let ask = Ask::Packets(&command.bytes, Shape::Single);
        self.serve(ask, &verdict).await?;
        Ok(())
    }

    /// Hands a command to the primary.
    async fn pass_on(
        &mut self,
        command: &Command,
        shape: Shape,
        reason: &'static str,
    ) -> Result<(), End> {
        let verdict = Verdict::of_primary(reason);
        self.serve(Ask::Packets(&command.bytes, shape), &verdict)
            .await?;
        Ok(())
    }

    /// `COM_INIT_DB`, which is what USE is.
    async fn init_db(&mut self, command: &Command) -> Result<(), End> {
        let schema = String::from_utf8_lossy(command.body()).into_owned();
        let verdict = Verdict {
            class: Class::Use(schema),
            ..Verdict::of_primary("set")
        };
        let ask = Ask::Packets(&command.bytes, Shape::Single);
        self.serve(ask, &verdict).await?;
        Ok(())
    }

    /// `COM_QUERY`.
    async fn query(&mut self, command: &Command) -> Result<(), End> {
        if let Some(sql) = own::without_socket(command.body()) {
            let packets = command_bytes(command::QUERY, sql.as_bytes());
            return self
                .query_of(&packets, &Arc::new(Verdict::of_primary("variable")))
                .await;
        }
        let verdict = self.judge(command.body());
        if self.answered_here(command.body(), &verdict).await? {
            return Ok(());
        }
        self.query_of(&command.bytes, &verdict).await
    }

    async fn query_of(&mut self, packets: &[u8], verdict: &Arc<Verdict>) -> Result<(), End> {
        if !self.note_before(verdict) {
            return Ok(());
        }
        let ask = Ask::Packets(packets, Shape::Results);
        let outcome = self.serve(ask, verdict).await?;
        self.note_after(verdict, outcome.as_ref());
        Ok(())
    }

    /// Answers what needs no server; whether it did.
    async fn answered_here(&mut self, sql: &[u8], verdict: &Verdict) -> Result<bool, End> {
        match &verdict.class {
            Class::OwnShow { .. }
            | Class::OwnSet { .. }
            | Class::OwnReset { .. }
            | Class::OwnMisplaced => self.answer_own(&verdict.class).await,
            Class::Kill {
                query,
                id: Some(id),
            } => self.kill(*query, *id, Some(sql)).await?,
            // A snapshot is of the moment at which it is asked for.
            Class::Begin {
                read_only,
                characteristics: false,
            } => return Ok(self.begin(sql, *read_only)),
            Class::Commit | Class::Rollback => return Ok(self.end_here()),
            Class::SetTransaction => return Ok(self.hold_characteristics(sql)),
            Class::Primary(_) | Class::Read => {
                return Ok(own::answer_constant(self, sql));
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Whether a server knows of what is open, so that all goes there.
    fn is_open_upstream(&self) -> bool {
        let open = |attached: &super::attached::Attached| !attached.is_free();
        self.pinned.is_some()
            || self.home.as_deref().is_some_and(open)
            || self.away.as_deref().is_some_and(open)
    }

    /// BEGIN is kept here where the transaction may begin on a replica.
    fn begin(&mut self, sql: &[u8], read_only: bool) -> bool {
        if self.is_open_upstream() || !(self.is_lazy() || read_only) {
            return false;
        }
        if self.begun.take().is_some() {
            // What was set for one transaction was for the one that ends here.
            self.next = None;
        }
        self.begun = Some(Begun {
            sql: Some(sql.to_vec()),
            read_only,
        });
        self.transaction_since = Some(self.asked);
        self.forget_latest();
        self.answer_ok();
        true
    }

    /// COMMIT and ROLLBACK of what no server knows of.
    pub(super) fn end_here(&mut self) -> bool {
        if self.is_open_upstream() || !self.ends_alone() {
            return false;
        }
        if self.begun.take().is_some() {
            self.next = None;
            self.forget_latest();
        } else if self.has_latest() {
            // The client may well ask about it, and then about the one before no more.
            return false;
        }
        self.transaction_since = None;
        self.answer_ok();
        true
    }

    /// SET TRANSACTION without SESSION: kept for the next transaction.
    fn hold_characteristics(&mut self, sql: &[u8]) -> bool {
        let kept = self.next.is_some() || !is_of_transactions(sql);
        if kept || self.is_open_upstream() {
            return false;
        }
        if self.begun.is_some() {
            // ER_CANT_CHANGE_TX_CHARACTERISTICS.
            let why =
                "Transaction characteristics can't be changed while a transaction is in progress";
            self.answer_error(1568, *b"25001", why);
            return true;
        }
        self.next = Some(sql.to_vec());
        self.forget_latest();
        self.answer_ok();
        true
    }

    /// What must be so before a statement is served; `false`: it is answered already.
    pub(super) fn note_before(&mut self, verdict: &Verdict) -> bool {
        if !self.may_ask(verdict) {
            return false;
        }
        if let Class::Pin(reason) = verdict.class {
            if self.away.as_ref().is_some_and(|away| !away.is_free()) {
                let why = format!(
                    "breccia: this changes the session ({reason}), and its READ ONLY transaction \
                     runs on a replica; end it before"
                );
                self.answer_error(super::session::ER_UNKNOWN_ERROR, *b"HY000", &why);
                return false;
            }
            self.pin(reason);
        }
        if !self.autocommits()
            && self.begun.is_none()
            && verdict.class == Class::Read
            && verdict.tables != Tables::No
            && self.is_lazy()
            && !self.is_open_upstream()
        {
            // It begins here, and may go on without any server knowing.
            self.begun = Some(Begun::default());
            self.transaction_since = Some(self.asked);
        }
        true
    }

    /// Whether the connection of the last statement is still held.
    fn has_latest(&self) -> bool {
        [&self.home, &self.away]
            .into_iter()
            .flatten()
            .any(|it| it.latest)
    }

    /// What must be noted once a statement is answered.
    pub(super) fn note_after(&mut self, verdict: &Verdict, outcome: Option<&Outcome>) {
        let done = outcome.is_some_and(|outcome| outcome.error.is_none());
        if done && let Class::SetAutocommit(true) = verdict.class {
            self.begun = None;
        }
    }

    /// Whether the end of a transaction does nothing besides.
    pub(super) fn ends_alone(&self) -> bool {
        self.completion().is_none_or(|it| it == "NO_CHAIN")
    }

    /// What the end of a transaction does besides, if the session has set that.
    pub(super) fn completion(&self) -> Option<&str> {
        self.settings.get("completion_type")
    }

    /// `COM_SET_OPTION`: whether several statements may come in one text.
    async fn set_option(&mut self, command: &Command) -> Result<(), End> {
        let option = command.body().get(..2).and_then(|it| it.try_into().ok());
        match option.map(u16::from_le_bytes) {
            Some(0) => self.capabilities |= capabilities::MULTI_STATEMENTS,
            Some(1) => self.capabilities &= !capabilities::MULTI_STATEMENTS,
            _ => {
                self.answer_error(UNKNOWN_COMMAND, *b"08S01", "Unknown command");
                return Ok(());
            }
        }
        let keeps = |home: &Attached| !home.is_free() || self.listener.limits.session_mode;
        if self.home.as_deref().is_some_and(keeps) || self.pinned.is_some() {
            self.pass_on(command, Shape::Single, "set").await?;
            if let Some(home) = &mut self.home {
                // Nobody else may find it so.
                home.spoilt = true;
            }
            return Ok(());
        }
        self.end_lingering(None).await;
        // As servers answer it: an end of rows, not OK.
        own::answer_eof(self);
        Ok(())
    }

    /// `COM_RESET_CONNECTION`: the session is as it began, but for its schema.
    pub(super) async fn reset(&mut self) {
        if let Some(mut home) = self.home.take() {
            let pool = Arc::clone(home.pool());
            if home.in_transaction()
                && self.pinned.is_none()
                && let Some(upstream) = home.lease.upstream()
            {
                home.tainted |= pool.endpoint().run(upstream, ROLLBACK).await.is_err();
                (home.status, home.unsure, home.special) = (0, false, false);
            }
            home.tainted |= self.pinned.is_some() || home.open > 0;
            home.sets_insert_id = false;
            self.give_back(home).await;
        }
        if let Some(mut away) = self.away.take() {
            away.tainted |= !away.is_free();
            self.give_back(away).await;
        }
        let schema = self.settings.schema().unwrap_or_default().to_owned();
        let mut settings = Settings::default();
        settings.enter(&schema);
        self.settings = Arc::new(settings);
        self.statements.clear();
        (self.pinned, self.wants_primary) = (None, false);
        (self.begun, self.next) = (None, None);
        (self.last_insert_id, self.warnings, self.asks_late) = (Some(0), 0, 0);
        self.transaction_since = None;
    }
}

/// Whether a SET TRANSACTION is one that servers take: others are for the server to refuse.
fn is_of_transactions(sql: &[u8]) -> bool {
    let text = String::from_utf8_lossy(sql).to_ascii_uppercase();
    let text = text.trim_end().trim_end_matches(';');
    let (mut level, mut access) = (false, false);
    let mut parts = text.split(',').enumerate();
    parts.all(|(at, part)| {
        let words: Vec<&str> = part.split_ascii_whitespace().collect();
        let words = match words.as_slice() {
            ["SET", "TRANSACTION", rest @ ..] if at == 0 => rest,
            rest if at > 0 => rest,
            _ => return false,
        };
        match words {
            ["READ", "ONLY" | "WRITE"] => !std::mem::replace(&mut access, true),
            ["ISOLATION", "LEVEL", "READ", "COMMITTED" | "UNCOMMITTED"]
            | ["ISOLATION", "LEVEL", "REPEATABLE", "READ"]
            | ["ISOLATION", "LEVEL", "SERIALIZABLE"] => !std::mem::replace(&mut level, true),
            _ => false,
        }
    })
}
