//! A client's frames, as the connection upstream gets them.
//!
//! Not where they go. Invariant: a statement has the client's name on one side and the registry's
//! on the other, and is prepared upstream before it is used there.

use std::sync::Arc;

use super::expected::{Described, Expected, Freed, Owed};
use super::names::{Names, Unnamed};
use crate::postgres::codec::{self, CodecError, HEAD_BYTES, Head, message};
use crate::postgres::settings::Settings;
use crate::postgres::statement::{Statement, Statements};
use crate::postgres::upstream::Upstream;

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
    /// The session holds as many statements as it may.
    TooMany,
    /// More are prepared and let go of at once than can be undone.
    TooManyAtOnce,
    /// The texts of its prepared statements are too long, taken together.
    TooLong,
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
                self.names.unnamed = None;
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
                    self.names.has_journal()?;
                    self.close(name);
                } else {
                    if kind == b'S' {
                        self.names.unnamed = None;
                    }
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
            b'H' | b'd' => self.verbatim(frame, None),
            b'c' | b'f' => self.verbatim(frame, Some(Owed::CopyEnd)),
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
            told: self.names.told(name.as_bytes()),
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
            let change = self.names.set_unnamed(unnamed, *self.unnamed_here);
            *self.unnamed_here = true;
            message::parse(self.out, b"", sql.as_bytes(), &[0, 0]);
            self.expected.push(Owed::Unnamed(change));
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
            let unnamed = Unnamed::new(parse.sql, parse.types);
            let change = self.names.set_unnamed(unnamed, *self.unnamed_here);
            *self.unnamed_here = true;
            self.verbatim(frame, Some(Owed::Unnamed(change)));
            return Ok(());
        }
        if let Some(there) = self.names.get(parse.name) {
            // Prepared once more, it is refused with the words that fit.
            self.prepare(&there);
            self.write_parse(&there, Parsed::Again);
            return Ok(());
        }
        self.names.has_room(parse.sql.len())?;
        let statement = if self.alone {
            self.statements.private(parse.sql, parse.types)
        } else {
            let meaning = self.settings.meaning();
            self.statements.intern(meaning, parse.sql, parse.types)
        };
        let change = self.names.insert(parse.name, Arc::clone(&statement));
        // Who prepares a text now wants it to be of now.
        if !self.changed && self.upstream.prepared.touch(statement.id) {
            let mut answer = Vec::new();
            message::empty(&mut answer, b'1');
            self.expected
                .push(Owed::Insert(answer.into(), Some(change)));
            self.expected.unsynced = true;
        } else {
            self.make_room(statement.id);
            self.write_parse(&statement, Parsed::Named(change));
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
            self.rebind(head, bind, &name, Owed::Bind);
            return Ok(());
        };
        self.prepare(&statement);
        let told = self.names.told(bind.statement);
        let shape = self.upstream.prepared.shape(statement.id);
        if told.is_none() || told == shape {
            self.rebind(head, bind, &statement.name, Owed::Bind);
        } else {
            // It has other columns than the client was told: the server refuses the name, and the
            // client hears what a server says that has kept the statement.
            self.rebind(head, bind, STALE, Owed::Stale);
        }
        Ok(())
    }

    /// The statement of a name, as it is read under the settings of now.
    fn named(&mut self, name: &[u8]) -> Option<Arc<Statement>> {
        if self.alone {
            return self.names.get(name);
        }
        self.names.under(name, self.settings, self.statements)
    }

    fn rebind(&mut self, head: Head, bind: codec::Bind<'_>, name: &[u8], owed: Owed) {
        let body = head.length - HEAD_BYTES - bind.statement.len() + name.len();
        message::write_head(self.out, b'B', body);
        message::write_text(self.out, bind.portal);
        message::write_text(self.out, name);
        self.out.extend_from_slice(bind.rest);
        self.expected.push(owed);
    }

    fn describe(&mut self, frame: &[u8], name: &[u8]) {
        if name.is_empty() {
            self.unnamed();
            self.verbatim(frame, Some(Owed::Describe));
            return;
        }
        if let Some(statement) = self.named(name) {
            self.prepare(&statement);
            self.describe_as(statement, Some(name.into()));
        } else {
            message::named(self.out, b'D', b'S', &unknown(name));
            self.expected.push(Owed::Describe);
        }
    }

    fn describe_as(&mut self, statement: Arc<Statement>, name: Option<Box<[u8]>>) {
        message::named(self.out, b'D', b'S', &statement.name);
        let described = Described { statement, name };
        self.expected.push(Owed::Described(described.into()));
    }

    /// Whether a statement can be bound here: it is known whether it is still what the client was told.
    /// If not, that is asked first.
    pub(super) fn is_looked_at(&mut self, name: &[u8]) -> bool {
        if self.names.told(name).is_none() || self.expected.is_skipping() {
            return true;
        }
        let Some(statement) = self.named(name) else {
            return true;
        };
        if self.upstream.prepared.shape(statement.id).is_some() {
            return true;
        }
        if !self.expected.is_looking() {
            self.prepare(&statement);
            self.describe_as(statement, None);
            message::empty(self.out, b'H');
        }
        false
    }

    /// The connection may keep the statement: others use it too.
    fn close(&mut self, name: &[u8]) {
        let change = self.names.remove(name);
        let mut answer = Vec::new();
        message::empty(&mut answer, b'3');
        self.expected.push(Owed::Insert(answer.into(), change));
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
                change: None,
            });
            *self.unnamed_here = true;
        } else {
            // Whoever had the connection before may have left one.
            message::named(self.out, b'C', b'S', b"");
            self.expected.push(Owed::Close { shown: false });
        }
    }

    /// Makes sure that the connection has prepared a statement; whether it must do so now.
    pub(super) fn prepare(&mut self, statement: &Arc<Statement>) -> bool {
        let fresh = !self.upstream.prepared.touch(statement.id);
        if fresh {
            *self.spoilt |= self.alone && statement.meaning.is_some();
            self.make_room(statement.id);
            self.write_parse(statement, Parsed::Hidden);
        }
        fresh
    }

    fn make_room(&mut self, id: u64) {
        if let Some(oldest) = self.upstream.prepared.insert(id) {
            message::named(self.out, b'C', b'S', &self.statements.name(oldest));
            self.expected.push(Owed::Close { shown: false });
        }
    }

    fn write_parse(&mut self, statement: &Arc<Statement>, parsed: Parsed) {
        let (shown, fresh, change) = match parsed {
            Parsed::Hidden => (false, true, None),
            Parsed::Named(change) => (true, true, Some(change)),
            Parsed::Again => (true, false, None),
        };
        if fresh && (self.changed || self.upstream.prepared.is_doubtful()) {
            message::named(self.out, b'C', b'S', &statement.name);
            self.expected.push(Owed::Close { shown: false });
        }
        message::parse(self.out, &statement.name, &statement.sql, &statement.types);
        self.expected.push(Owed::Parse {
            shown,
            statement: fresh.then(|| Arc::clone(statement)),
            change,
        });
    }
}

/// Why a statement of the registry is prepared on a connection.
#[derive(Clone, Copy)]
enum Parsed {
    /// It is to be used there.
    Hidden,
    /// The client has given it a name: the change of that number.
    Named(u64),
    /// The client gives its name once more, and is to be refused.
    Again,
}

/// A name that nothing has upstream: see [`unknown`].
const STALE: &[u8] = b"breccia_stale";

/// A name the session never gave, such that it is nobody's upstream.
fn unknown(name: &[u8]) -> Vec<u8> {
    if name.starts_with(b"breccia_") {
        [b"no ", name].concat()
    } else {
        name.to_vec()
    }
}
