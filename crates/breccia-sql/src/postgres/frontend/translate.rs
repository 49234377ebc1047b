//! A client's frames, as the connection upstream gets them.
//!
//! Not where they go. Invariant: a statement has the client's name on one side and the registry's
//! on the other, and is prepared upstream before it is used there.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::expected::{Expected, Owed};
use crate::postgres::codec::{self, CodecError, HEAD_BYTES, Head, message};
use crate::postgres::statement::{Statement, Statements, upstream_name};
use crate::postgres::upstream::Upstream;

/// Prepared statements of one session, the most.
const MAX_NAMES: usize = 10_000;

/// Text and types of the unnamed statement.
type Unnamed = (Box<[u8]>, Box<[u8]>);

/// A name, and what it stood for before.
type Change = (Box<[u8]>, Option<Arc<Statement>>);

/// What a session has prepared.
#[derive(Debug, Default)]
pub(super) struct Names {
    named: HashMap<Box<[u8]>, Arc<Statement>>,
    /// Text and types of the unnamed one.
    unnamed: Option<Unnamed>,
    /// How to undo what the frames of the running batch changed.
    journal: Vec<Change>,
}

impl Names {
    /// The text of a statement, by the client's name for it.
    pub(super) fn text(&self, name: &[u8]) -> Option<&[u8]> {
        if name.is_empty() {
            return self.unnamed.as_ref().map(|(sql, _)| &**sql);
        }
        self.named.get(name).map(|statement| &*statement.sql)
    }

    /// Takes a statement that some server has prepared before under a new name, without asking one;
    /// whether that is so.
    pub(super) fn adopt(&mut self, parse: &codec::Parse<'_>, statements: &Statements) -> bool {
        if parse.name.is_empty()
            || self.named.contains_key(parse.name)
            || self.named.len() >= MAX_NAMES
        {
            return false;
        }
        let statement = statements.intern(parse.sql, parse.types);
        let proven = statement.proven.load(Ordering::Relaxed);
        if proven {
            self.named.insert(parse.name.into(), statement);
        }
        proven
    }

    /// Takes a statement that no server is asked to prepare; `false`: there is one of that name.
    pub(super) fn keep(
        &mut self,
        parse: &codec::Parse<'_>,
        statements: &Statements,
    ) -> Result<bool, Unfit> {
        if parse.name.is_empty() {
            self.unnamed = Some((parse.sql.into(), parse.types.into()));
            return Ok(true);
        }
        if self.named.contains_key(parse.name) {
            return Ok(false);
        }
        if self.named.len() >= MAX_NAMES {
            return Err(Unfit::TooMany);
        }
        let statement = statements.intern(parse.sql, parse.types);
        self.named.insert(parse.name.into(), statement);
        Ok(true)
    }

    /// A statement, by the client's name for it.
    pub(super) fn get(&self, name: &[u8]) -> Option<Arc<Statement>> {
        self.named.get(name).map(Arc::clone)
    }

    /// All that the frames since the last call did is so.
    pub(super) fn settle(&mut self) {
        self.journal.clear();
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
            if self.named.get(&name).is_some_and(|it| it.id == id) {
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
        self.journal.clear();
    }

    fn insert(&mut self, name: &[u8], statement: Arc<Statement>) {
        let before = self.named.insert(name.into(), statement);
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
            }
            b'P' => self.parse(frame, body)?,
            b'B' => self.bind(head, frame, body)?,
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
            b'E' => self.verbatim(frame, Some(Owed::Execute)),
            b'S' => self.verbatim(frame, Some(Owed::Sync)),
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
        self.prepare(statement);
        self.upstream.prepared.remove(statement.id);
        self.names.remove(name.as_bytes());
        let upstream = String::from_utf8_lossy(&statement.name);
        let sql = format!("DEALLOCATE \"{upstream}\"");
        if tag == b'Q' {
            *self.unnamed_here = false;
            message::query(self.out, &sql);
            self.expected.push(Owed::Query { shown: true });
        } else {
            self.names.unnamed = Some((sql.as_bytes().into(), [0, 0].into()));
            *self.unnamed_here = true;
            message::parse(self.out, b"", sql.as_bytes(), &[0, 0]);
            self.expected.push(Owed::Parse {
                shown: true,
                statement: None,
            });
        }
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
            self.names.unnamed = Some((parse.sql.into(), parse.types.into()));
            *self.unnamed_here = true;
            let owed = Owed::Parse {
                shown: true,
                statement: None,
            };
            self.verbatim(frame, Some(owed));
            return Ok(());
        }
        if let Some(there) = self.names.named.get(parse.name).map(Arc::clone) {
            // Prepared once more, it is refused with the words that fit.
            self.prepare(&there);
            self.write_parse(&there, true, false);
            return Ok(());
        }
        if self.names.named.len() >= MAX_NAMES {
            return Err(Unfit::TooMany);
        }
        let statement = self.statements.intern(parse.sql, parse.types);
        self.names.insert(parse.name, Arc::clone(&statement));
        if self.upstream.prepared.touch(statement.id) {
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
        if bind.statement.is_empty() {
            self.unnamed();
            self.verbatim(frame, Some(Owed::Bind));
            return Ok(());
        }
        let Some(statement) = self.names.named.get(bind.statement).map(Arc::clone) else {
            let name = unknown(bind.statement);
            self.rebind(head, bind, &name);
            return Ok(());
        };
        self.prepare(&statement);
        self.rebind(head, bind, &statement.name);
        Ok(())
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
        let upstream = match self.names.named.get(name).map(Arc::clone) {
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
        if let Some((sql, types)) = &self.names.unnamed {
            message::parse(self.out, b"", sql, types);
            self.expected.push(Owed::Parse {
                shown: false,
                statement: None,
            });
            *self.unnamed_here = true;
        }
    }

    /// Makes sure that the connection has prepared a statement.
    pub(super) fn prepare(&mut self, statement: &Arc<Statement>) {
        if !self.upstream.prepared.touch(statement.id) {
            self.make_room(statement.id);
            self.write_parse(statement, false, true);
        }
    }

    fn make_room(&mut self, id: u64) {
        if let Some(oldest) = self.upstream.prepared.insert(id) {
            message::named(self.out, b'C', b'S', &upstream_name(oldest));
            self.expected.push(Owed::Close { shown: false });
        }
    }

    fn write_parse(&mut self, statement: &Arc<Statement>, shown: bool, fresh: bool) {
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
