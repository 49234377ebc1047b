//! The answers that a connection upstream still owes, and what becomes of each.
//!
//! Pure: bytes of a server in, bytes for the client out. Invariant: each message a server sends is
//! held against what was asked, so an answer to a question of Breccia's own never reaches a client
//! and a client's answer is never lost.

mod doubt;
mod news;
mod stale;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::{Buf, BytesMut};

use crate::postgres::codec::message::Status;
use crate::postgres::codec::{self, CodecError, HEAD_BYTES};
use crate::postgres::described::{Description, Shape};
use crate::postgres::statement::Statement;
pub(super) use news::{News, Tag};

/// A frame longer than this is handed on piece by piece.
const PASSED_BYTES: usize = 32 * 1024;

/// A statement that is let go of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Freed {
    /// The client's name for it.
    pub(super) name: Box<[u8]>,
    pub(super) statement: Arc<Statement>,
    /// The connection had prepared it before, and not for this.
    pub(super) was_there: bool,
    /// As what it was described to the client.
    pub(super) told: Option<Shape>,
}

/// A statement of the registry that is described.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Described {
    pub(super) statement: Arc<Statement>,
    /// The client's name for it; without one it does not hear of it.
    pub(super) name: Option<Box<[u8]>>,
}

/// Something a server owes.
#[derive(Debug, Clone)]
pub(super) enum Owed {
    /// `ParseComplete`; of this statement, if it is one of the registry's, and the change of a name that
    /// the client makes with it, by its number.
    Parse {
        shown: bool,
        statement: Option<Arc<Statement>>,
        change: Option<u64>,
    },
    /// `ParseComplete` of the unnamed statement: the change of it of this number.
    Unnamed(u64),
    /// `BindComplete`.
    Bind,
    /// An error, told as that of a statement whose columns are not what they were.
    Stale,
    /// `CloseComplete`.
    Close { shown: bool },
    /// The description of a statement or portal.
    Describe,
    /// That of a statement of the registry.
    Described(Box<Described>),
    /// The rows of a portal and their end.
    Execute,
    /// All that a simple query answers, with its `ReadyForQuery`.
    Query { shown: bool },
    /// What fails a transaction, and its `ReadyForQuery`; the client gets none of it.
    Fail,
    /// A function call's answer, with its `ReadyForQuery`.
    Function,
    /// Nothing: it marks the end of a statement that lets go of all prepared ones.
    Emptied,
    /// Nothing: it marks the end of one that lets go of this one.
    Freed(Box<Freed>),
    /// Nothing: it marks where the client has ended a copy. Many libraries wait for the server to ask
    /// for its data first; who does not has sent this and more behind the `Execute` by then.
    CopyEnd,
    /// `ReadyForQuery`.
    Sync,
    /// That of a Sync of Breccia's own, which ends what a hidden Parse may have begun to skip: the
    /// client gets neither.
    OwnSync,
    /// Not owed by the server: bytes for the client at this place; the change of a name that they
    /// tell of, by its number.
    Insert(Box<[u8]>, Option<u64>),
}

/// A Sync that was sent before a copy is held to be read as part of it. Of a copy that failed nobody
/// knows: the server may have failed before it read that far, and answers it then too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Unread {
    #[default]
    Nothing,
    /// The copy goes on.
    Copied,
    /// It failed: one more `ReadyForQuery` may come.
    Failed,
    /// The same, behind one that a later Sync was held to have asked for.
    Behind,
}

/// The answers owed, in order.
#[derive(Debug, Default)]
pub(super) struct Expected {
    owed: VecDeque<Owed>,
    /// Bytes of a frame that still follow, and whether the client gets them.
    passing: (usize, bool),
    /// The status of the last `ReadyForQuery`.
    pub(super) status: Option<Status>,
    /// The server reads a copy from the client.
    pub(super) copy_in: bool,
    /// The client has ended it.
    copy_ended: bool,
    /// The answers are a replica's.
    pub(super) on_replica: bool,
    /// Bytes of rows, or of the end of a command, were handed to the client.
    pub(super) told: bool,
    /// The server skips all that comes before the next `Sync`.
    skipping: bool,
    /// What was sent meanwhile and will have no effect.
    skipped: Vec<News>,
    /// Since the last `ReadyForQuery` something was sent that a `Sync` must end.
    pub(super) unsynced: bool,
    /// The next `Execute` lets go of all prepared statements.
    pub(super) emptying: bool,
    /// What has come of a description.
    description: Description,
    unread: Unread,
}

impl Expected {
    pub(super) fn push(&mut self, owed: Owed) {
        if matches!(owed, Owed::CopyEnd) {
            self.copy_ended |= self.copy_in;
            if !self.may_copy() {
                return;
            }
        }
        if self.copy_in && !self.copy_ended && matches!(owed, Owed::Sync) {
            // A server ignores it in the midst of a copy.
            self.unread = Unread::Copied;
            return;
        }
        let executes = matches!(owed, Owed::Execute);
        let emptied = self.emptying && (executes || matches!(owed, Owed::Sync));
        self.emptying &= !emptied;
        if emptied && (self.skipping || !executes) {
            self.skipped.push(News::NotEmptied);
        }
        match owed {
            Owed::Sync | Owed::OwnSync => self.unsynced = false,
            _ if self.skipping => {
                self.skipped.extend(without_effect(&owed));
                return;
            }
            Owed::Query { shown: true } | Owed::Function => self.unsynced = false,
            Owed::Query { .. }
            | Owed::Fail
            | Owed::Insert(..)
            | Owed::Emptied
            | Owed::Freed(_)
            | Owed::CopyEnd => {}
            _ => self.unsynced = true,
        }
        self.skipping = false;
        self.owed.push_back(owed);
        if emptied && executes {
            self.owed.push_back(Owed::Emptied);
        }
    }

    /// As new, for another connection; small memory is kept.
    pub(super) fn reset(&mut self) {
        let Self {
            owed,
            passing,
            status,
            copy_in,
            copy_ended,
            told,
            skipping,
            skipped,
            unsynced,
            emptying,
            description,
            unread,
            on_replica,
        } = self;
        *on_replica = false;
        owed.clear();
        if owed.capacity() > 16 {
            owed.shrink_to(16);
        }
        *passing = (0, false);
        (*status, *copy_ended) = (None, false);
        (*copy_in, *told, *skipping, *unsynced, *emptying) = (false, false, false, false, false);
        if skipped.capacity() > 0 {
            *skipped = Vec::new();
        }
        (*description, *unread) = (Description::default(), Unread::Nothing);
    }

    /// Whether a question of Breccia's own is answered next.
    pub(super) fn is_asking(&self) -> bool {
        matches!(self.owed.front(), Some(Owed::Query { shown: false }))
    }

    /// Whether the answer to a whole batch, or to a query, is owed.
    pub(super) fn owes_ready(&self) -> bool {
        let ready = |owed: &Owed| {
            matches!(
                owed,
                Owed::Sync | Owed::Query { shown: true } | Owed::Function
            )
        };
        self.owed.iter().any(ready)
    }

    /// How much is owed.
    pub(super) fn len(&self) -> usize {
        self.owed.len()
    }

    /// Whether nothing is owed.
    pub(super) fn is_empty(&self) -> bool {
        self.owed.is_empty() && self.passing.0 == 0
    }

    /// Hands on what has come, and takes it out of `received`. Answers news through `news`.
    pub(super) fn digest(
        &mut self,
        received: &mut BytesMut,
        out: &mut Vec<u8>,
        news: &mut Vec<News>,
    ) -> Result<(), CodecError> {
        self.insert(out);
        news.append(&mut self.skipped);
        let mut run = 0;
        let mut at = 0;
        if self.passing.0 > 0 {
            let length = self.passing.0.min(received.len());
            self.passing.0 -= length;
            at = length;
            if !self.passing.1 {
                run = at;
            }
        }
        while self.passing.0 == 0 {
            at = self.pass_rows(received, at)?;
            let rest = received.get(at..).unwrap_or_default();
            let Some(head) = codec::head(rest)? else {
                break;
            };
            let whole = rest.len() >= head.length;
            let pieces = matches!(head.tag, b'D' | b'd') && head.length > PASSED_BYTES;
            if !whole && !pieces {
                break;
            }
            let end = if whole { head.length } else { rest.len() };
            let body = rest.get(HEAD_BYTES..end).unwrap_or_default();
            let stale = self.is_stale(head.tag, body);
            let unread = head.tag == b'Z' && self.is_unread();
            let shown = self.shows(head.tag) && !stale && !unread;
            let before = self.owed.len();
            if !unread {
                self.judge(head.tag, body, news)?;
            }
            if !shown {
                out.extend_from_slice(received.get(run..at).unwrap_or_default());
                run = at + end;
            }
            if stale {
                stale::write(out, self.status);
            }
            at += end;
            self.passing = (head.length - end, shown);
            if self.owed.len() != before
                && matches!(
                    self.owed.front(),
                    Some(Owed::Insert(..) | Owed::Emptied | Owed::Freed(_) | Owed::CopyEnd)
                )
            {
                out.extend_from_slice(received.get(run..at).unwrap_or_default());
                run = at;
                self.insert(out);
            }
        }
        if run < at {
            out.extend_from_slice(received.get(run..at).unwrap_or_default());
        }
        if at == received.len() {
            // Its memory is used again from the beginning.
            received.clear();
        } else {
            received.advance(at);
        }
        Ok(())
    }

    /// Passes whole rows for the client, which need no more than a look at their heads; where they end.
    fn pass_rows(&mut self, received: &[u8], from: usize) -> Result<usize, CodecError> {
        if !matches!(
            self.owed.front(),
            Some(Owed::Query { shown: true } | Owed::Execute)
        ) {
            return Ok(from);
        }
        let mut at = from;
        loop {
            let rest = received.get(at..).unwrap_or_default();
            match codec::head(rest)? {
                Some(head) if head.tag == b'D' && head.length <= rest.len() => at += head.length,
                _ => break,
            }
        }
        self.told |= at > from;
        Ok(at)
    }

    /// Whether a description is asked for that the client does not get.
    pub(super) fn is_looking(&self) -> bool {
        let hidden =
            |owed: &Owed| matches!(owed, Owed::Described(described) if described.name.is_none());
        self.owed.iter().any(hidden)
    }

    /// Whether the server skips what it is sent.
    pub(super) fn is_skipping(&self) -> bool {
        self.skipping
    }

    /// Whether a message is the refusal of a name that stands for a statement which is stale.
    fn is_stale(&self, tag: u8, body: &[u8]) -> bool {
        matches!(self.owed.front(), Some(Owed::Stale))
            && tag == b'E'
            && codec::field(body, b'C') == Some(b"26000")
    }

    /// Whether a `ReadyForQuery` is that of a Sync which a failed copy had not read, and which came before
    /// one that was answered in its place.
    fn is_unread(&mut self) -> bool {
        let taken = matches!(self.owed.front(), Some(Owed::Sync | Owed::OwnSync));
        let unread = self.unread == Unread::Behind && !taken;
        if unread {
            self.unread = Unread::Nothing;
        }
        unread
    }

    /// Writes what stands at the front and is not the server's.
    pub(super) fn insert(&mut self, out: &mut Vec<u8>) {
        loop {
            match self.owed.front() {
                Some(Owed::Insert(bytes, _)) => out.extend_from_slice(bytes),
                Some(Owed::Emptied | Owed::Freed(_) | Owed::CopyEnd) => {}
                _ => return,
            }
            self.owed.pop_front();
        }
    }

    /// Whether what is owed next is a hidden Parse with a Sync of its own.
    fn is_apart(&self) -> bool {
        matches!(self.owed.get(1), Some(Owed::OwnSync))
    }

    /// How many batches the client sent that are not answered to their end.
    pub(super) fn batches(&self) -> usize {
        let ends = |owed: &&Owed| {
            matches!(
                owed,
                Owed::Sync | Owed::Query { shown: true } | Owed::Function
            )
        };
        self.owed.iter().filter(ends).count()
    }

    /// Whether the client gets a message of this type now.
    fn shows(&self, tag: u8) -> bool {
        match self.owed.front() {
            // A notification is of another session, and comes when it will.
            Some(Owed::Query { shown: false } | Owed::Fail) => tag == b'A',
            // The server ends a connection that nobody waits for: no client's matter.
            // Nor is it amid a transaction there, which goes on elsewhere, or the client is told that it is lost.
            None if tag == b'E' => self.status != Some(Status::Idle) && !self.on_replica,
            Some(Owed::OwnSync) => false,
            Some(Owed::Parse { .. }) if self.is_apart() => tag == b'A',
            Some(Owed::Described(described)) if described.name.is_none() => {
                !matches!(tag, b't' | b'T' | b'n')
            }
            // An error of a hidden Parse is the answer to what made it needed.
            Some(Owed::Parse { shown: false, .. } | Owed::Close { shown: false }) => {
                !matches!(tag, b'1' | b'3')
            }
            _ => true,
        }
    }

    fn judge(&mut self, tag: u8, body: &[u8], news: &mut Vec<News>) -> Result<(), CodecError> {
        let malformed = || CodecError::Malformed {
            tag: char::from(tag),
        };
        if self.unread != Unread::Copied && !matches!(tag, b'Z' | b'N' | b'S' | b'A') {
            self.unread = Unread::Nothing;
        }
        match (tag, self.owed.front()) {
            (b'1', Some(Owed::Parse { statement, .. })) => {
                if let Some(statement) = statement {
                    statement.proven.store(true, Ordering::Relaxed);
                }
                self.owed.pop_front();
            }
            (b'1', Some(Owed::Unnamed(_)))
            | (b'2', Some(Owed::Bind))
            | (b'3', Some(Owed::Close { .. }))
            | (b'n' | b'T', Some(Owed::Describe)) => {
                self.owed.pop_front();
            }
            (b't' | b'n' | b'T', Some(Owed::Described(_))) => {
                if let Some(shape) = self.description.take(tag, body)
                    && let Some(Owed::Described(described)) = self.owed.pop_front()
                {
                    news.push(News::Described(described, shape));
                }
            }
            (b'D', _) => self.told = true,
            (b'C' | b'I' | b's', Some(Owed::Execute)) => {
                self.owed.pop_front();
                self.complete(tag, body, news);
            }
            (b'C' | b'I', Some(Owed::Query { shown: true })) => self.complete(tag, body, news),
            (b'S', _) => news.push(News::Parameter(body.to_vec(), self.shows(tag))),
            (b'E', _) => self.fail(body, news),
            (b'N', _) if matches!(codec::field(body, b'C'), Some(b"57P01" | b"57P02")) => {
                news.push(News::Ends);
            }
            (b'G', _) => self.begin_copy_in(),
            (
                b'Z',
                Some(Owed::Sync | Owed::OwnSync | Owed::Query { .. } | Owed::Fail | Owed::Function),
            ) => {
                let hidden = matches!(
                    self.owed.pop_front(),
                    Some(Owed::Query { shown: false } | Owed::Fail | Owed::OwnSync)
                );
                self.copy_in = false;
                if self.unread == Unread::Failed {
                    self.unread = Unread::Behind;
                }
                self.status = Status::of(*body.first().ok_or_else(malformed)?);
                news.extend(self.status.filter(|_| !hidden).map(News::Ready));
            }
            (b'Z', None) if self.unread == Unread::Failed => {
                // Nothing more was sent: it is that Sync's.
                (self.unread, self.skipping, self.unsynced) = (Unread::Nothing, false, false);
                self.status = Status::of(*body.first().ok_or_else(malformed)?);
                news.extend(self.status.map(News::Ready));
            }
            (b'1' | b'2' | b'3' | b'n' | b'Z' | b'R' | b'K' | b'W', _) => return Err(malformed()),
            _ => {}
        }
        Ok(())
    }

    fn complete(&mut self, tag: u8, body: &[u8], news: &mut Vec<News>) {
        self.told = true;
        (self.copy_in, self.unread) = (false, Unread::Nothing);
        if tag == b'C' {
            let words = codec::text(body).map_or(body, |(words, _)| words);
            news.push(match words {
                b"DISCARD ALL" => News::Discarded {
                    last: self.is_last(),
                },
                words => News::Complete(Tag::of(words)),
            });
        }
    }

    /// Whether nothing was asked behind the statement that is complete.
    fn is_last(&self) -> bool {
        let own =
            |owed: &&Owed| matches!(owed, Owed::Query { .. } | Owed::Emptied | Owed::Freed(_));
        let mut rest = self.owed.iter().skip_while(own);
        rest.all(|owed| matches!(owed, Owed::Sync)) && self.owed.len() <= 2
    }

    fn begin_copy_in(&mut self) {
        self.copy_in = true;
        self.told = true;
        self.copy_ended = false;
        let extended = match self.owed.front() {
            Some(Owed::Execute) => true,
            Some(Owed::Query { shown: true }) => false,
            _ => return,
        };
        // A server that reads a copy ignores what was sent behind its Execute, up to the copy's end.
        let ended = self.owed.iter().position(|it| matches!(it, Owed::CopyEnd));
        let end = ended.map_or(self.owed.len(), |end| end + 1);
        if self.owed.drain(1..end).any(|it| matches!(it, Owed::Sync)) {
            self.unread = Unread::Copied;
        }
        self.copy_ended = ended.is_some();
        self.unsynced |= extended && ended.is_none();
    }

    /// Whether something is owed that may turn out to be a copy from the client.
    fn may_copy(&self) -> bool {
        let may = |it: &Owed| matches!(it, Owed::Execute | Owed::Query { shown: true });
        !self.copy_in && self.owed.iter().any(may)
    }

    fn fail(&mut self, body: &[u8], news: &mut Vec<News>) {
        let state = codec::field(body, b'C').unwrap_or_default().to_vec();
        let severity = codec::field(body, b'V').or_else(|| codec::field(body, b'S'));
        if matches!(severity, Some(b"FATAL" | b"PANIC")) {
            news.push(News::Fatal(state, self.shows(b'E')));
            return;
        }
        let plans = matches!(self.owed.front(), Some(Owed::Bind | Owed::Described(_)));
        if plans && codec::field(body, b'R') == Some(b"RevalidateCachedQuery") {
            news.push(News::Outdated);
        }
        match self.owed.front() {
            Some(Owed::Fail) => {}
            Some(Owed::Stale) if state == b"26000" => {
                news.push(News::Stale);
                self.skip(news);
            }
            Some(Owed::Query { shown: false }) => news.push(News::OwnFailed(body.to_vec())),
            Some(Owed::Query { .. } | Owed::Function) => {
                news.push(News::Failed(state));
                if self.unread == Unread::Copied {
                    self.unread = Unread::Failed;
                    news.push(News::Unread);
                }
                if matches!(self.owed.get(1), Some(Owed::Emptied | Owed::Freed(_))) {
                    news.extend(self.owed.remove(1).as_ref().and_then(without_effect));
                }
            }
            _ => {
                if !self.is_apart() {
                    news.push(News::Failed(state));
                }
                self.copy_in = false;
                if self.unread == Unread::Copied {
                    self.unread = Unread::Failed;
                    news.push(News::Unread);
                }
                if let Some(Owed::Unnamed(number)) = self.owed.front() {
                    // A server forgets the one before, whatever comes of the Parse.
                    news.push(News::UnnamedFailed(*number));
                    self.owed.pop_front();
                }
                self.skip(news);
            }
        }
    }

    /// The server skips all up to the next Sync, be it sent or not: queries too.
    fn skip(&mut self, news: &mut Vec<News>) {
        while let Some(owed) = self.owed.front() {
            if matches!(owed, Owed::Sync | Owed::OwnSync) {
                return;
            }
            news.extend(without_effect(owed));
            self.owed.pop_front();
        }
        (self.skipping, self.unsynced) = (true, true);
    }
}

/// What is to be known of something that the server skipped.
fn without_effect(owed: &Owed) -> Option<News> {
    match owed {
        Owed::Parse {
            statement: Some(statement),
            change,
            ..
        } => Some(News::NotPrepared(statement.id, *change)),
        Owed::Parse {
            shown: false,
            statement: None,
            ..
        } => Some(News::UnnamedElsewhere),
        Owed::Unnamed(number) => Some(News::UnnamedSkipped(*number)),
        Owed::Close { shown: false } => Some(News::NotClosed),
        Owed::Insert(_, change) => change.map(News::Undone),
        Owed::Emptied => Some(News::NotEmptied),
        Owed::Freed(freed) => Some(News::NotFreed(freed.clone())),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
