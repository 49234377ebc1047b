//! Transactions that have failed where no statement of them may run: on a replica, or on no server yet.
//!
//! Not those of the primary, which answers for itself. Invariant: nothing that comes behind the end of
//! such a transaction runs on the replica that served it.

use std::sync::Arc;

use breccia_net::clock;

use super::attached::Attached;
use super::batch::{Batch, look};
use super::begun::ends;
use super::serve::is_flush;
use super::session::{End, Session};
use crate::class::{Class, Verdict};
use crate::error::SqlError;
use crate::postgres::codec;
use crate::postgres::codec::message::{self, Severity, Status};

/// What becomes of a frame in such a transaction.
enum Answer {
    Given,
    /// It has ended the transaction.
    Ended,
    /// SQLSTATE and words; the rest is skipped up to the Sync.
    Refused(&'static str, String),
}

impl Answer {
    fn aborted() -> Self {
        let (sqlstate, text) = message::ABORTED;
        Self::Refused(sqlstate, text.to_owned())
    }

    fn unknown(name: &[u8]) -> Self {
        let name = String::from_utf8_lossy(name);
        let text = format!("prepared statement \"{name}\" does not exist");
        Self::Refused("26000", text)
    }
}

impl Session {
    /// Whether a transaction has failed that no server knows.
    pub(super) fn has_failed(&self) -> bool {
        self.attached.is_none() && self.begun.as_ref().is_some_and(|begun| begun.failed)
    }

    /// Whether a transaction has failed on the replica that serves it, and all is answered.
    pub(super) fn has_failed_away(&self) -> bool {
        let failed = |it: &Attached| {
            it.replica && it.is_settled() && it.expected.status == Some(Status::Failed)
        };
        self.begun.is_some() && self.attached.as_ref().is_some_and(failed)
    }

    /// Serves what comes next in a transaction that has failed, the `length` bytes of a batch or, unless
    /// `whole`, of its beginning; whether it was served. If not, the primary serves it from now on.
    pub(super) async fn serve_failed(&mut self, length: usize, whole: bool) -> Result<bool, End> {
        self.asked = clock::now();
        let frames = self.client.inbound.get(..length).unwrap_or_default();
        if !whole && is_flush(frames) {
            // All there is has been answered.
            self.client.take(length);
            return Ok(true);
        }
        let batch = look(frames, &self.names, self.under(), |sql| self.judge(sql))?;
        let safe = whole && is_safe(&batch);
        if self.has_failed_away() {
            if safe {
                self.pass_failed(length)?;
                self.pump().await?;
                return Ok(true);
            }
            self.move_away().await?;
            if let Some(begun) = &mut self.begun {
                begun.failed = true;
            }
        } else if safe && ends_at_once(frames) {
            self.answer_failed(length)?;
            return Ok(true);
        }
        if let Err(error) = self.begin_failed().await {
            let frames = self.client.take(length);
            self.refuse(&error, whole, &frames)?;
            return Ok(true);
        }
        self.fail_transaction().await?;
        Ok(false)
    }

    /// Passes a batch to the replica on which the transaction has failed: it ends that, or is refused.
    fn pass_failed(&mut self, length: usize) -> Result<(), End> {
        let frames = self.client.take(length);
        let mut at = 0;
        while let Some(head) = codec::head(frames.get(at..).unwrap_or_default())? {
            let frame = frames.get(at..at + head.length).unwrap_or_default();
            at += head.length;
            self.pass_frame(head, frame, false, None)?;
        }
        self.client.reuse(frames);
        Ok(())
    }

    /// Begins on the primary what no server knows yet.
    pub(super) async fn begin_failed(&mut self) -> Result<(), SqlError> {
        self.wait_for_primary(self.gate_end()).await?;
        let place = self.primary("own");
        self.hurried = false;
        self.attach(place).await?;
        self.begun = None;
        Ok(())
    }

    /// Answers a batch where no server knows of the transaction.
    fn answer_failed(&mut self, length: usize) -> Result<(), End> {
        let frames = self.client.take(length);
        let (mut at, mut bound, mut ended) = (0, false, false);
        while let Some(head) = codec::head(frames.get(at..).unwrap_or_default())? {
            let body = codec::body(frames.get(at..at + head.length).unwrap_or_default());
            at += head.length;
            match self.answer_in_failed(head.tag, body, &mut bound)? {
                Answer::Given => {}
                Answer::Ended => ended = true,
                Answer::Refused(sqlstate, text) => {
                    let out = &mut self.client.out.bytes;
                    message::error(out, Severity::Error, sqlstate, &text, "");
                    break;
                }
            }
        }
        if ended {
            (self.begun, self.transaction_since) = (None, None);
        }
        self.answer_ready();
        Ok(())
    }

    /// Answers one frame of it. `bound`: a portal is bound to what ends the transaction.
    fn answer_in_failed(&mut self, tag: u8, body: &[u8], bound: &mut bool) -> Result<Answer, End> {
        let named = |session: &Self, name: &[u8]| match session.judge_named(name) {
            None => Some(Answer::unknown(name)),
            Some(verdict) if !ends(&verdict) => Some(Answer::aborted()),
            Some(_) => None,
        };
        match tag {
            b'Q' if ends(&self.judge(codec::query(body)?)) => {}
            b'P' => {
                let parse = codec::parse(body)?;
                if !ends(&self.judge(parse.sql)) {
                    return Ok(Answer::aborted());
                }
                let statements = &self.listener.cluster.statements;
                if !self.names.keep(&parse, statements)? {
                    let name = String::from_utf8_lossy(parse.name);
                    let text = format!("prepared statement \"{name}\" already exists");
                    return Ok(Answer::Refused("42P05", text));
                }
            }
            b'B' => {
                let bind = codec::bind(body)?;
                if let Some(refused) = named(self, bind.statement) {
                    return Ok(refused);
                }
                *bound = true;
            }
            b'D' => {
                let (kind, name) = codec::named(b'D', body)?;
                if kind == b'S'
                    && let Some(refused) = named(self, name)
                {
                    return Ok(refused);
                }
            }
            b'C' => {
                let (kind, name) = codec::named(b'C', body)?;
                if kind == b'S' {
                    self.names.remove(name);
                }
            }
            b'E' if *bound => {}
            b'H' | b'S' | b'd' | b'c' | b'f' => return Ok(Answer::Given),
            _ => return Ok(Answer::aborted()),
        }
        let out = &mut self.client.out.bytes;
        match tag {
            b'P' => message::empty(out, b'1'),
            b'B' => message::empty(out, b'2'),
            b'C' => message::empty(out, b'3'),
            b'D' => {
                if body.first() == Some(&b'S') {
                    message::frame(out, b't', |out| out.extend_from_slice(&[0, 0]));
                }
                message::empty(out, b'n');
            }
            _ => {
                message::complete(out, "ROLLBACK");
                return Ok(Answer::Ended);
            }
        }
        Ok(Answer::Given)
    }
}

/// Whether nothing of a batch can run behind the end of a transaction that has failed: what comes before
/// that end is refused, and all behind it skipped.
fn is_safe(batch: &Batch) -> bool {
    let ends_or_goes_on = |verdict: &Arc<Verdict>| {
        ends(verdict) || matches!(verdict.class, Class::Primary("chain" | "two-phase"))
    };
    let mut verdicts = batch.verdicts.iter();
    let first = verdicts.next();
    let alone = !batch.simple || first.is_none_or(|it| it.single);
    !batch.own && alone && (batch.executed <= 1 || !first.is_some_and(ends_or_goes_on))
}

/// Whether nothing but what closes comes behind what is executed, so that it needs no server.
fn ends_at_once(frames: &[u8]) -> bool {
    let (mut at, mut executed) = (0, false);
    while let Ok(Some(head)) = codec::head(frames.get(at..).unwrap_or_default()) {
        at += head.length;
        if executed && !matches!(head.tag, b'C' | b'H' | b'S') {
            return false;
        }
        executed |= matches!(head.tag, b'E' | b'Q');
    }
    true
}
