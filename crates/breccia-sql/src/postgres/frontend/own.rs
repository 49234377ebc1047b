//! What is asked of Breccia itself: `SHOW breccia.name`, `SET breccia.name`, in a simple query or in
//! a batch, inside a transaction or not; and prepared statements that are let go by SQL.
//!
//! Not what is shown (`shows.rs`). Invariant: what is answered here is never sent to a server, and
//! shares no batch with what is.

use std::sync::Arc;

use bytes::BytesMut;

use super::attached::{Attached, Event};
use super::batch::Batch;
use super::expected::Owed;
use super::serve::Turn;
use super::session::{End, Session};
use super::shows::{self, Refusal, Table};
use super::translate::Unfit;
use crate::class::{Class, Verdict};
use crate::postgres::codec::message::{self, Severity, Status};
use crate::postgres::codec::{self, CodecError, Head};

/// Sent to a server so that the transaction fails there as it has failed here: there is no such
/// savepoint.
const FAIL: &str = "ROLLBACK TO SAVEPOINT \"breccia: a statement of its own has failed\"";
/// Sent instead of a statement of Breccia's own in a batch that a server has begun; what is wrong with
/// it stands in the server's answer.
const SPOILT: &str = "\"breccia: its own statements need a batch, up to a Sync, of their own\"";
/// Why a batch of both kinds is refused.
const MIXED: Refusal = Refusal {
    state: "0A000",
    text: String::new(),
    hint: "Statements about breccia.… need a batch (up to a Sync) of their own.",
};
/// Portals of one batch.
const MAX_PORTALS: usize = 64;

/// A batch that is answered here, until its Sync.
#[derive(Debug, Default)]
pub(super) struct Own {
    portals: Vec<(Box<[u8]>, Portal)>,
    /// It has failed: the rest up to the Sync is skipped.
    failed: bool,
}

#[derive(Debug)]
struct Portal {
    verdict: Arc<Verdict>,
    /// The formats of results that its Bind asks for.
    formats: Vec<u16>,
    /// What it shows, from its first Execute on, and how many rows were sent.
    table: Option<(Table, usize)>,
}

impl Own {
    fn portal(&mut self, name: &[u8]) -> Result<&mut Portal, Refusal> {
        let found = self.portals.iter_mut().find(|(known, _)| **known == *name);
        found.map(|(_, portal)| portal).ok_or_else(|| {
            let name = String::from_utf8_lossy(name);
            Refusal::new("34000", format!("portal \"{name}\" does not exist"))
        })
    }
}

impl Session {
    /// Answers a simple query that lets go of a prepared statement; whether it was one.
    pub(super) fn answer_deallocate(&mut self, batch: &Batch) -> bool {
        let Some(verdict) = batch.only.as_ref().filter(|_| batch.simple) else {
            return false;
        };
        match &verdict.class {
            Class::Deallocate { name: Some(name) }
                if self.names.remove(name.as_bytes()).is_some() =>
            {
                self.names.settle();
                message::complete(&mut self.client.out.bytes, "DEALLOCATE");
            }
            _ => return false,
        }
        self.answer_ready();
        true
    }

    /// Answers a batch that only prepares a statement which some server has prepared before: a
    /// client that waits for this answer alone may be the very one that holds every connection.
    /// `unproven`: also one that no server has seen, which answers when it is first used.
    pub(super) fn answer_prepared(&mut self, frames: &[u8], unproven: bool) -> bool {
        let whole = |bytes: &[u8]| codec::head(bytes).ok().flatten();
        let Some(head) = whole(frames).filter(|head| head.tag == b'P') else {
            return false;
        };
        let rest = frames.get(head.length..).unwrap_or_default();
        if rest != [b'S', 0, 0, 0, 4] {
            return false;
        }
        let body = codec::body(frames.get(..head.length).unwrap_or_default());
        let Ok(parse) = codec::parse(body) else {
            return false;
        };
        let statements = &self.listener.cluster.statements;
        if self.is_of_this_moment(parse.sql)
            || !self
                .names
                .adopt(&parse, statements, &self.settings, unproven)
        {
            return false;
        }
        message::empty(&mut self.client.out.bytes, b'1');
        self.answer_ready();
        true
    }

    pub(super) fn answer_ready(&mut self) {
        let status = match (&self.attached, &self.begun) {
            (Some(attached), _) => attached.expected.status.unwrap_or(Status::Idle),
            (None, Some(begun)) if begun.failed => Status::Failed,
            (None, Some(_)) => Status::Open,
            (None, None) => Status::Idle,
        };
        message::ready(&mut self.client.out.bytes, status);
    }

    /// Whether a batch is answered here. `whole`: `batch` was looked at.
    pub(super) fn is_own(&self, batch: &Batch, frames: &[u8], whole: bool) -> bool {
        if self.own.is_some() || whole {
            return self.own.is_some() || batch.own;
        }
        let first = codec::head(frames).ok().flatten();
        first.is_some_and(|head| {
            let frame = frames.get(..head.length).unwrap_or_default();
            let seen = self.see_frame(head, frame);
            self.is_own_frame(head, frame, seen.as_ref().map(|it| &*it.0))
        })
    }

    /// Whether a frame prepares, binds or asks something of Breccia's own. `seen`: see
    /// [`Session::see_frame`].
    pub(super) fn is_own_frame(&self, head: Head, frame: &[u8], seen: Option<&Verdict>) -> bool {
        // A look-up that most sessions can do without.
        if head.tag == b'B' && self.prepared_own {
            let bind = codec::bind(codec::body(frame)).ok();
            let verdict = bind.and_then(|bind| self.judge_named(bind.statement));
            return verdict.is_some_and(|verdict| verdict.class.is_own());
        }
        seen.is_some_and(|verdict| verdict.class.is_own())
    }

    /// A frame of Breccia's own in the middle of a batch that a server has begun: makes that fail.
    pub(super) fn spoil(attached: &mut Attached, tag: u8) {
        let out = &mut attached.out.bytes;
        attached.unnamed_here = false;
        if tag == b'Q' {
            message::query(out, SPOILT);
            attached.expected.push(Owed::Query { shown: true });
        } else {
            message::parse(out, b"", SPOILT.as_bytes(), &[0, 0]);
            attached.expected.push(Owed::Parse {
                shown: false,
                statement: None,
                change: None,
            });
        }
    }

    /// The next frame of the client is one of Breccia's own: it is answered once all before it are.
    /// Whether the frame is passed.
    pub(super) fn meet_own(&mut self, head: Head) -> bool {
        let Some(attached) = &mut self.attached else {
            return false;
        };
        if attached.expected.unsynced {
            Self::spoil(attached, head.tag);
            drop(self.client.take(head.length));
            return true;
        }
        self.own_next = attached.is_settled();
        false
    }

    /// Answers the frames of a batch, or of the part of it that came.
    pub(super) async fn serve_own(&mut self, frames: BytesMut) -> Result<(), End> {
        let mut own = self.own.take().unwrap_or_default();
        let mut at = 0;
        let mut ends = false;
        while let Some(head) = codec::head(frames.get(at..).unwrap_or_default())? {
            let frame = frames.get(at..at + head.length).unwrap_or_default();
            at += head.length;
            ends = matches!(head.tag, b'Q' | b'S');
            let done = match head.tag {
                b'S' => Ok(()),
                _ if own.failed => Ok(()),
                _ => self.own_frame(&mut own, head, frame).await?,
            };
            if let Err(refusal) = done {
                own.failed = head.tag != b'Q';
                self.refuse_own(&refusal, &frames).await?;
            }
            if ends {
                self.answer_ready();
            }
        }
        self.own = (!ends).then_some(own);
        self.note_answered(&[]);
        self.client.reuse(frames);
        Ok(())
    }

    async fn own_frame(
        &mut self,
        own: &mut Own,
        head: Head,
        frame: &[u8],
    ) -> Result<Result<(), Refusal>, End> {
        let body = codec::body(frame);
        let done = match head.tag {
            b'Q' => {
                let verdict = self.judge(codec::query(body)?);
                self.own_query(&verdict).await
            }
            b'P' => self.own_parse(codec::parse(body)?)?,
            b'B' => self.own_bind(own, codec::bind(body)?)?,
            b'D' => {
                let (kind, name) = codec::named(b'D', body)?;
                self.own_describe(own, kind, name)
            }
            b'E' => {
                let malformed = CodecError::Malformed { tag: 'E' };
                let (name, rest) = codec::text(body).ok_or_else(|| malformed.clone())?;
                let (most, _) = codec::int32(rest).ok_or(malformed)?;
                self.own_execute(own, name, most).await
            }
            b'C' => {
                let (kind, name) = codec::named(b'C', body)?;
                if kind == b'S' {
                    self.names.remove(name);
                    self.names.settle();
                } else {
                    own.portals.retain(|(known, _)| **known != *name);
                }
                message::empty(&mut self.client.out.bytes, b'3');
                Ok(())
            }
            b'F' => Err(MIXED),
            // A Flush: all is sent anyway. Outside a copy, its data is ignored.
            _ => Ok(()),
        };
        Ok(done)
    }

    async fn own_query(&mut self, verdict: &Verdict) -> Result<(), Refusal> {
        self.own_allowed(&verdict.class)?;
        match &verdict.class {
            Class::OwnShow { name } => {
                let table = self.table(name).await?;
                let out = &mut self.client.out.bytes;
                shows::describe(out, &table.columns, &[]);
                table.rows.iter().for_each(|row| message::row(out, row));
                message::complete(out, "SHOW");
            }
            other => {
                let tag = self.change_own(other)?;
                message::complete(&mut self.client.out.bytes, tag);
            }
        }
        Ok(())
    }

    /// What can be told of a statement before it runs: whether it is one, and may run now.
    fn own_allowed(&self, class: &Class) -> Result<(), Refusal> {
        let failed = self.attached.as_ref().map(|it| it.expected.status);
        if failed == Some(Some(Status::Failed)) {
            let (state, text) = message::ABORTED;
            return Err(Refusal::new(state, text.to_owned()));
        }
        match class {
            Class::OwnShow { name } => shows::columns(name).map(drop),
            Class::OwnSet { name, .. } | Class::OwnReset { name } => shows::settable(name),
            Class::OwnMisplaced => Err(Refusal {
                hint: "Send it as a statement of its own, without LOCAL.",
                ..Refusal::new(
                    "0A000",
                    "breccia.… is no parameter of a server, so it cannot be set or shown in a text \
                     of several statements, nor for one transaction"
                        .to_owned(),
                )
            }),
            _ => Err(Refusal {
                text: "a batch holds statements about breccia.… and others".to_owned(),
                ..MIXED
            }),
        }
    }

    fn own_parse(&mut self, parse: codec::Parse<'_>) -> Result<Result<(), Refusal>, End> {
        let verdict = self.judge(parse.sql);
        if let Err(refusal) = self.own_allowed(&verdict.class) {
            return Ok(Err(refusal));
        }
        let kept = self.names.keep(&parse, &self.listener.cluster.statements);
        match kept {
            Ok(true) => {}
            Ok(false) => {
                let name = String::from_utf8_lossy(parse.name);
                let text = format!("prepared statement \"{name}\" already exists");
                return Ok(Err(Refusal::new("42P05", text)));
            }
            Err(unfit) => return Err(unfit.into()),
        }
        self.prepared_own = true;
        if let Some(attached) = &mut self.attached {
            attached.unnamed_here &= !parse.name.is_empty();
        }
        message::empty(&mut self.client.out.bytes, b'1');
        Ok(Ok(()))
    }

    /// The verdict of a statement by its name.
    fn own_named(&self, name: &[u8]) -> Result<Arc<Verdict>, Refusal> {
        let verdict = self.judge_named(name).ok_or_else(|| {
            let name = String::from_utf8_lossy(name);
            let text = format!("prepared statement \"{name}\" does not exist");
            Refusal::new("26000", text)
        })?;
        self.own_allowed(&verdict.class).map(|()| verdict)
    }

    fn own_bind(
        &mut self,
        own: &mut Own,
        bind: codec::Bind<'_>,
    ) -> Result<Result<(), Refusal>, End> {
        let (values, formats) = codec::bound(bind.rest)?;
        let verdict = match self.own_named(bind.statement) {
            Ok(verdict) if values == 0 => verdict,
            Ok(_) => {
                let text = "statements about breccia.… have no parameters".to_owned();
                return Ok(Err(Refusal::new("08P01", text)));
            }
            Err(refusal) => return Ok(Err(refusal)),
        };
        own.portals.retain(|(known, _)| **known != *bind.portal);
        if own.portals.len() >= MAX_PORTALS {
            let text = format!("a batch about breccia.… has at most {MAX_PORTALS} portals");
            return Ok(Err(Refusal::new("54000", text)));
        }
        let portal = Portal {
            verdict,
            formats,
            table: None,
        };
        own.portals.push((bind.portal.into(), portal));
        message::empty(&mut self.client.out.bytes, b'2');
        Ok(Ok(()))
    }

    fn own_describe(&mut self, own: &mut Own, kind: u8, name: &[u8]) -> Result<(), Refusal> {
        let (verdict, formats) = if kind == b'S' {
            let verdict = self.own_named(name)?;
            let out = &mut self.client.out.bytes;
            message::frame(out, b't', |out| out.extend_from_slice(&[0, 0]));
            (verdict, Vec::new())
        } else {
            let portal = own.portal(name)?;
            (Arc::clone(&portal.verdict), portal.formats.clone())
        };
        let out = &mut self.client.out.bytes;
        match &verdict.class {
            Class::OwnShow { name } => shows::describe(out, &shows::columns(name)?, &formats),
            _ => message::empty(out, b'n'),
        }
        Ok(())
    }

    async fn own_execute(&mut self, own: &mut Own, name: &[u8], most: u32) -> Result<(), Refusal> {
        let portal = own.portal(name)?;
        self.own_allowed(&portal.verdict.class)?;
        let Class::OwnShow { name } = &portal.verdict.class else {
            let tag = self.change_own(&portal.verdict.class)?;
            message::complete(&mut self.client.out.bytes, tag);
            return Ok(());
        };
        if portal.table.is_none() {
            portal.table = Some((self.table(name).await?, 0));
        }
        let Some((table, sent)) = &mut portal.table else {
            return Ok(());
        };
        let left = table.rows.get(*sent..).unwrap_or_default();
        let most = if most == 0 { left.len() } else { most as usize };
        let out = &mut self.client.out.bytes;
        let part = left.iter().take(most);
        part.for_each(|row| message::row(out, row));
        *sent += most.min(left.len());
        // As a server has it: also when the last row was just sent.
        if most < left.len() || (most == left.len() && most > 0 && table.rows.len() > *sent) {
            message::empty(out, b's');
        } else {
            message::complete(out, "SHOW");
        }
        Ok(())
    }

    async fn refuse_own(&mut self, refusal: &Refusal, frames: &[u8]) -> Result<(), End> {
        self.listener.counters.failed.increment();
        self.tell_refused(refusal.state, &refusal.text, "own", frames);
        message::error(
            &mut self.client.out.bytes,
            Severity::Error,
            refusal.state,
            &refusal.text,
            refusal.hint,
        );
        self.fail_transaction().await
    }

    /// The transaction that is open fails on its server, as it would have by itself. One that no server
    /// knows yet begins for that.
    pub(super) async fn fail_transaction(&mut self) -> Result<(), End> {
        if self.attached.is_none()
            && self.begun.is_some()
            && let Err(error) = self.begin_failed().await
        {
            return Err(End::Told("57P03", error.to_string()));
        }
        let Some(attached) = &mut self.attached else {
            return Ok(());
        };
        if !attached.in_transaction() || attached.expected.status == Some(Status::Failed) {
            return Ok(());
        }
        message::query(&mut attached.out.bytes, FAIL);
        attached.expected.push(Owed::Fail);
        while self.attached.as_ref().is_some_and(|it| !it.is_settled()) {
            match self.event().await? {
                Event::Server => self.digest_quietly()?,
                Event::Client | Event::Sent | Event::Late => {}
                Event::ClientGone => return Err(End::Gone),
                Event::ServerLost(error) => {
                    let turn = self.lost(&error)?;
                    debug_assert_eq!(turn, Turn::Done, "nothing is held in a transaction");
                }
            }
        }
        Ok(())
    }
}

impl From<Unfit> for End {
    fn from(unfit: Unfit) -> Self {
        match unfit {
            Unfit::Codec(error) => Self::from(error),
            Unfit::Unexpected(tag) => {
                let why = format!("a message of type {:?} was not expected", char::from(tag));
                Self::Told("08P01", why)
            }
            Unfit::TooManyAtOnce => {
                let why = "too many statements are prepared and closed without a Sync";
                Self::Told("54000", why.to_owned())
            }
            Unfit::TooLong => {
                let why = "the prepared statements of this session hold 64 MiB of text, the most there \
                           may be";
                Self::Told("54000", why.to_owned())
            }
            Unfit::TooMany => {
                let why = "this session holds 10000 prepared statements, the most there may be";
                Self::Told("54000", why.to_owned())
            }
        }
    }
}
