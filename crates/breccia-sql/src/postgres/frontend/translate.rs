//! A client's frames, as the connection upstream gets them.
//!
//! Not where they go. Invariant: a statement has the client's name on one side and the registry's
//! on the other, and is prepared upstream before it is used there.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::expected::{Expected, Freed, Owed};
use crate::class::Verdict;
use crate::postgres::codec::{self, CodecError, HEAD_BYTES, Head, message};
use crate::postgres::settings::Settings;
use crate::postgres::statement::{Prepared, Statement, Statements};
use crate::postgres::upstream::Upstream;

/// Prepared statements of one session, the most.
const MAX_NAMES: usize = 10_000;

/// What a verdict holds under: [`crate::class::Classifier::version`], and whether texts can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Under {
    pub(super) version: u64,
    pub(super) legible: bool,
}

/// The verdict about a text that does not change, so that it is not read for each use.
#[derive(Debug, Default)]
struct Remembered(RefCell<Option<(Under, Arc<Verdict>)>>);

impl Remembered {
    fn get(&self, under: Under, judge: impl FnOnce() -> Arc<Verdict>) -> Arc<Verdict> {
        let mut place = self.0.borrow_mut();
        match &*place {
            Some((then, verdict)) if *then == under => Arc::clone(verdict),
            _ => {
                let verdict = judge();
                *place = Some((under, Arc::clone(&verdict)));
                verdict
            }
        }
    }
}

/// Text and types of the unnamed statement.
#[derive(Debug)]
struct Unnamed {
    sql: Box<[u8]>,
    types: Box<[u8]>,
    verdict: Remembered,
    /// What it lets go of.
    frees: Option<Freed>,
}

impl Unnamed {
    fn new(sql: &[u8], types: &[u8]) -> Self {
        Self {
            sql: sql.into(),
            types: types.into(),
            verdict: Remembered::default(),
            frees: None,
        }
    }
}

/// What a name stands for.
#[derive(Debug)]
struct Named {
    statement: Arc<Statement>,
    verdict: Remembered,
}

impl From<Arc<Statement>> for Named {
    fn from(statement: Arc<Statement>) -> Self {
        Self {
            statement,
            verdict: Remembered::default(),
        }
    }
}

/// A session's names, and what its connection has prepared.
type Before = (HashMap<Box<[u8]>, Named>, Prepared);

/// A name, and what it stood for before.
type Change = (Box<[u8]>, Option<Named>);

/// What a session has prepared.
#[derive(Debug, Default)]
pub(super) struct Names {
    named: HashMap<Box<[u8]>, Named>,
    /// Text and types of the unnamed one.
    unnamed: Option<Unnamed>,
    /// How to undo what the frames of the running batch changed.
    journal: Vec<Change>,
    /// What the statement lets go of that was bound last.
    freeing: Option<Freed>,
    /// What there was before each statement under way that lets go of all.
    emptied: VecDeque<Before>,
}

impl Names {
    /// The text of a statement, by the client's name for it.
    pub(super) fn text(&self, name: &[u8]) -> Option<&[u8]> {
        if name.is_empty() {
            return self.unnamed.as_ref().map(|it| &*it.sql);
        }
        self.named.get(name).map(|it| &*it.statement.sql)
    }

    /// What a statement is, by the client's name for it. It is judged once, and again when it may be
    /// something else.
    pub(super) fn verdict(
        &self,
        name: &[u8],
        under: Under,
        judge: impl FnOnce(&[u8]) -> Arc<Verdict>,
    ) -> Option<Arc<Verdict>> {
        if name.is_empty() {
            let it = self.unnamed.as_ref()?;
            return Some(it.verdict.get(under, || judge(&it.sql)));
        }
        let it = self.named.get(name)?;
        Some(it.verdict.get(under, || judge(&it.statement.sql)))
    }

    /// Takes a statement under a new name without asking a server: one that some server has prepared
    /// before, or with `unproven` any. Whether that is so.
    pub(super) fn adopt(
        &mut self,
        parse: &codec::Parse<'_>,
        statements: &Statements,
        settings: &Settings,
        unproven: bool,
    ) -> bool {
        if parse.name.is_empty()
            || self.named.contains_key(parse.name)
            || self.named.len() >= MAX_NAMES
        {
            return false;
        }
        let statement = statements.intern(settings.meaning(), parse.sql, parse.types);
        let taken = unproven || statement.proven.load(Ordering::Relaxed);
        if taken {
            self.named.insert(parse.name.into(), statement.into());
        }
        taken
    }

    /// Takes a statement that no server is asked to prepare; `false`: there is one of that name.
    pub(super) fn keep(
        &mut self,
        parse: &codec::Parse<'_>,
        statements: &Statements,
    ) -> Result<bool, Unfit> {
        if parse.name.is_empty() {
            self.unnamed = Some(Unnamed::new(parse.sql, parse.types));
            return Ok(true);
        }
        if self.named.contains_key(parse.name) {
            return Ok(false);
        }
        if self.named.len() >= MAX_NAMES {
            return Err(Unfit::TooMany);
        }
        let statement = statements.private(parse.sql, parse.types);
        self.named.insert(parse.name.into(), statement.into());
        Ok(true)
    }

    /// A statement, by the client's name for it.
    pub(super) fn get(&self, name: &[u8]) -> Option<Arc<Statement>> {
        self.named.get(name).map(|it| Arc::clone(&it.statement))
    }

    /// All that the frames since the last call did is so.
    pub(super) fn settle(&mut self) {
        self.journal.clear();
        self.emptied.clear();
    }

    /// All are let go of by a statement that is sent now.
    fn empty(&mut self, prepared: &mut Prepared) {
        let before = (std::mem::take(&mut self.named), std::mem::take(prepared));
        self.emptied.push_back(before);
    }

    /// Whether it is open if a statement lets go of all.
    pub(super) fn is_emptying(&self) -> bool {
        !self.emptied.is_empty()
    }

    /// A statement has let go of all; whether it was known when it was sent.
    pub(super) fn note_emptied(&mut self) -> bool {
        self.emptied.pop_front().is_some()
    }

    /// A statement that should let go of all has failed.
    pub(super) fn not_emptied(&mut self, prepared: Option<&mut Prepared>) {
        let Some((named, kept)) = self.emptied.pop_front() else {
            return;
        };
        for (name, statement) in named {
            self.named.entry(name).or_insert(statement);
        }
        if let Some(prepared) = prepared {
            prepared.join(kept);
        }
    }

    /// A statement that should let go of one has failed.
    pub(super) fn not_freed(&mut self, freed: Freed, prepared: Option<&mut Prepared>) {
        if let Some(prepared) = prepared.filter(|_| freed.was_there) {
            prepared.insert(freed.statement.id);
        }
        self.named
            .entry(freed.name)
            .or_insert_with(|| freed.statement.into());
    }

    /// Undoes what the frames since the last [`Names::settle`] did.
    pub(super) fn undo(&mut self) {
        while let Some((name, before)) = self.journal.pop() {
            match before {
                Some(statement) => self.named.insert(name, statement),
                None => self.named.remove(&name),
            };
        }
    }

    /// A statement could not be prepared: names given to it in this batch are free again.
    pub(super) fn not_prepared(&mut self, id: u64) {
        let fresh = self.journal.iter().filter(|(_, before)| before.is_none());
        let names: Vec<Box<[u8]>> = fresh.map(|(name, _)| name.clone()).collect();
        for name in names {
            if self
                .named
                .get(&name)
                .is_some_and(|it| it.statement.id == id)
            {
                self.named.remove(&name);
            }
        }
    }

    /// Forgets one; whether there was one.
    pub(super) fn remove(&mut self, name: &[u8]) -> bool {
        let before = self.named.remove(name);
        let found = before.is_some();
        if found {
            self.journal.push((name.into(), before));
        }
        found
    }

    /// Forgets all.
    pub(super) fn clear(&mut self) {
        self.named.clear();
        self.unnamed = None;
        self.settle();
    }

    fn insert(&mut self, name: &[u8], statement: Arc<Statement>) {
        let before = self.named.insert(name.into(), statement.into());
        self.journal.push((name.into(), before));
    }
}

/// Where translated frames go.
#[derive(Debug)]
pub(super) struct Way<'a> {
    pub(super) out: &'a mut Vec<u8>,
    pub(super) expected: &'a mut Expected,
    pub(super) upstream: &'a mut Upstream,
    pub(super) names: &'a mut Names,
    pub(super) statements: &'a Statements,
    /// The unnamed statement of this connection is this session's.
    pub(super) unnamed_here: &'a mut bool,
    /// A statement that this frame sends, or binds, lets go of all that are prepared.
    pub(super) empties: bool,
    /// The database is another since the connection has prepared the first of its statements.
    pub(super) changed: bool,
    /// What the session is at.
    pub(super) settings: &'a Settings,
    /// What is prepared now is of no use to other sessions: see [`super::noted`].
    pub(super) alone: bool,
    /// Something that others share was prepared all the same.
    pub(super) spoilt: &'a mut bool,
}

/// Why a frame cannot be passed on.
#[derive(Debug)]
pub(super) enum Unfit {
    /// It is malformed.
    Codec(CodecError),
    /// It is of a type no client sends here.
    Unexpected(u8),
    /// The session holds [`MAX_NAMES`] statements.
    TooMany,
}

impl From<CodecError> for Unfit {
    fn from(error: CodecError) -> Self {
        Self::Codec(error)
    }
}

impl Way<'_> {
    /// Translates one frame, or the beginning of a long one whose rest passes unchanged.
    pub(super) fn frame(&mut self, head: Head, frame: &[u8]) -> Result<(), Unfit> {
        let body = codec::body(frame);
        match head.tag {
            b'Q' => {
                // A simple query does away with the unnamed statement.
                *self.unnamed_here = false;
                self.verbatim(frame, Some(Owed::Query { shown: true }));
                if self.empties {
                    self.names.empty(&mut self.upstream.prepared);
                    self.expected.push(Owed::Emptied);
                }
            }
            b'P' => self.parse(frame, body)?,
            b'B' => {
                self.bind(head, frame, body)?;
                if self.empties {
                    self.names.empty(&mut self.upstream.prepared);
                    self.expected.emptying = true;
                }
            }
            b'D' => {
                let (kind, name) = codec::named(b'D', body)?;
                if kind == b'S' {
                    self.describe(frame, name);
                } else {
                    self.verbatim(frame, Some(Owed::Describe));
                }
            }
            b'C' => {
                let (kind, name) = codec::named(b'C', body)?;
                if kind == b'S' && !name.is_empty() {
                    self.close(name);
                } else {
                    self.verbatim(frame, Some(Owed::Close { shown: true }));
                }
            }
            b'E' => {
                self.verbatim(frame, Some(Owed::Execute));
                if let Some(freed) = self.names.freeing.take() {
                    self.free(freed);
                }
            }
            b'S' => {
                self.names.freeing = None;
                self.verbatim(frame, Some(Owed::Sync));
            }
            b'F' => self.verbatim(frame, Some(Owed::Function)),
            // A Flush alone begins nothing; data outside a copy is ignored by the server.
            b'H' | b'd' | b'c' | b'f' => self.verbatim(frame, None),
            other => return Err(Unfit::Unexpected(other)),
        }
        Ok(())
    }

    /// `DEALLOCATE` of a prepared statement, by SQL: it is let go of under its name upstream, so
    /// that the server answers as it would.
    pub(super) fn deallocate(&mut self, tag: u8, name: &str, statement: &Arc<Statement>) {
        let fresh = self.prepare(statement);
        if fresh && tag == b'Q' {
            // A transaction that has failed refuses it, and would skip the query with it.
            message::empty(self.out, b'S');
            self.expected.push(Owed::OwnSync);
        }
        let freed = Freed {
            name: name.as_bytes().into(),
            statement: Arc::clone(statement),
            was_there: !fresh,
        };
        let upstream = String::from_utf8_lossy(&statement.name);
        let sql = format!("DEALLOCATE \"{upstream}\"");
        if tag == b'Q' {
            *self.unnamed_here = false;
            message::query(self.out, &sql);
            self.expected.push(Owed::Query { shown: true });
            self.free(freed);
        } else {
            let mut unnamed = Unnamed::new(sql.as_bytes(), &[0, 0]);
            unnamed.frees = Some(freed);
            self.names.unnamed = Some(unnamed);
            *self.unnamed_here = true;
            message::parse(self.out, b"", sql.as_bytes(), &[0, 0]);
            self.expected.push(Owed::Parse {
                shown: true,
                statement: None,
            });
        }
    }

    /// A statement is under way that lets go of another: it is, unless that fails.
    fn free(&mut self, freed: Freed) {
        self.upstream.prepared.remove(freed.statement.id);
        self.names.remove(&freed.name);
        self.expected.push(Owed::Freed(freed.into()));
    }

    fn verbatim(&mut self, frame: &[u8], owed: Option<Owed>) {
        self.out.extend_from_slice(frame);
        if let Some(owed) = owed {
            self.expected.push(owed);
        }
    }

    fn parse(&mut self, frame: &[u8], body: &[u8]) -> Result<(), Unfit> {
        let parse = codec::parse(body)?;
        if parse.name.is_empty() {
            self.names.unnamed = Some(Unnamed::new(parse.sql, parse.types));
            *self.unnamed_here = true;
            let owed = Owed::Parse {
                shown: true,
                statement: None,
            };
            self.verbatim(frame, Some(owed));
            return Ok(());
        }
        if let Some(there) = self.names.get(parse.name) {
            // Prepared once more, it is refused with the words that fit.
            self.prepare(&there);
            self.write_parse(&there, true, false);
            return Ok(());
        }
        if self.names.named.len() >= MAX_NAMES {
            return Err(Unfit::TooMany);
        }
        let statement = if self.alone {
            self.statements.private(parse.sql, parse.types)
        } else {
            let meaning = self.settings.meaning();
            self.statements.intern(meaning, parse.sql, parse.types)
        };
        self.names.insert(parse.name, Arc::clone(&statement));
        // Who prepares a text now wants it to be of now.
        if !self.changed && self.upstream.prepared.touch(statement.id) {
            let mut answer = Vec::new();
            message::empty(&mut answer, b'1');
            self.expected.push(Owed::Insert(answer.into()));
            self.expected.unsynced = true;
        } else {
            self.make_room(statement.id);
            self.write_parse(&statement, true, true);
        }
        Ok(())
    }

    fn bind(&mut self, head: Head, frame: &[u8], body: &[u8]) -> Result<(), Unfit> {
        let bind = codec::bind(body)?;
        self.names.freeing = None;
        if bind.statement.is_empty() {
            self.unnamed();
            let unnamed = self.names.unnamed.as_ref();
            self.names.freeing = unnamed.and_then(|it| it.frees.clone());
            self.verbatim(frame, Some(Owed::Bind));
            return Ok(());
        }
        let Some(statement) = self.named(bind.statement) else {
            let name = unknown(bind.statement);
            self.rebind(head, bind, &name);
            return Ok(());
        };
        self.prepare(&statement);
        self.rebind(head, bind, &statement.name);
        Ok(())
    }

    /// The statement of a name, as it is read under the settings of now.
    fn named(&mut self, name: &[u8]) -> Option<Arc<Statement>> {
        let statement = self.names.get(name)?;
        let now = self.settings.meaning();
        let same = |of: &Arc<str>| Arc::ptr_eq(of, now) || **of == **now;
        if self.alone || statement.meaning.as_ref().is_none_or(same) {
            return Some(statement);
        }
        let again = (self.statements).intern(now, &statement.sql, &statement.types);
        self.names.insert(name, Arc::clone(&again));
        Some(again)
    }

    fn rebind(&mut self, head: Head, bind: codec::Bind<'_>, name: &[u8]) {
        let body = head.length - HEAD_BYTES - bind.statement.len() + name.len();
        message::write_head(self.out, b'B', body);
        message::write_text(self.out, bind.portal);
        message::write_text(self.out, name);
        self.out.extend_from_slice(bind.rest);
        self.expected.push(Owed::Bind);
    }

    fn describe(&mut self, frame: &[u8], name: &[u8]) {
        if name.is_empty() {
            self.unnamed();
            self.verbatim(frame, Some(Owed::Describe));
            return;
        }
        let upstream = match self.named(name) {
            Some(statement) => {
                self.prepare(&statement);
                statement.name.to_vec()
            }
            None => unknown(name),
        };
        message::named(self.out, b'D', b'S', &upstream);
        self.expected.push(Owed::Describe);
    }

    /// The connection may keep the statement: others use it too.
    fn close(&mut self, name: &[u8]) {
        self.names.remove(name);
        let mut answer = Vec::new();
        message::empty(&mut answer, b'3');
        self.expected.push(Owed::Insert(answer.into()));
        self.expected.unsynced = true;
    }

    /// Makes sure that the connection's unnamed statement is the session's.
    fn unnamed(&mut self) {
        if *self.unnamed_here {
            return;
        }
        let freed = self.names.unnamed.as_ref().and_then(|it| it.frees.clone());
        if let Some(Freed { statement, .. }) = freed {
            self.prepare(&statement);
        }
        if let Some(unnamed) = &self.names.unnamed {
            message::parse(self.out, b"", &unnamed.sql, &unnamed.types);
            self.expected.push(Owed::Parse {
                shown: false,
                statement: None,
            });
            *self.unnamed_here = true;
        }
    }

    /// Makes sure that the connection has prepared a statement; whether it must do so now.
    pub(super) fn prepare(&mut self, statement: &Arc<Statement>) -> bool {
        let fresh = !self.upstream.prepared.touch(statement.id);
        if fresh {
            *self.spoilt |= self.alone && statement.meaning.is_some();
            self.make_room(statement.id);
            self.write_parse(statement, false, true);
        }
        fresh
    }

    fn make_room(&mut self, id: u64) {
        if let Some(oldest) = self.upstream.prepared.insert(id) {
            message::named(self.out, b'C', b'S', &self.statements.name(oldest));
            self.expected.push(Owed::Close { shown: false });
        }
    }

    fn write_parse(&mut self, statement: &Arc<Statement>, shown: bool, fresh: bool) {
        if fresh && (self.changed || self.upstream.prepared.is_doubtful()) {
            message::named(self.out, b'C', b'S', &statement.name);
            self.expected.push(Owed::Close { shown: false });
        }
        message::parse(self.out, &statement.name, &statement.sql, &statement.types);
        self.expected.push(Owed::Parse {
            shown,
            statement: fresh.then(|| Arc::clone(statement)),
        });
    }
}

/// A name the session never gave, such that it is nobody's upstream.
fn unknown(name: &[u8]) -> Vec<u8> {
    if name.starts_with(b"breccia_") {
        [b"no ", name].concat()
    } else {
        name.to_vec()
    }
}
