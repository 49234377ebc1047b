//! What a session learns from the answers, and from their absence.
//!
//! Not the bytes of them. Invariant: settings count as set, and statements as prepared, only once a
//! server has said so.

use std::sync::Arc;

use breccia_net::clock;

use super::expected::{News, Tag};
use super::serve::Turn;
use super::session::{End, Session};
use crate::class::{Class, Verdict};
use crate::postgres::codec;
use crate::postgres::codec::message::Status;
use crate::postgres::upstream::Upstream;

/// What changes settings once its batch is so.
#[derive(Debug)]
pub(super) enum Changing {
    /// SET or RESET.
    By(Arc<Verdict>),
    /// DISCARD ALL.
    Discarded,
}

impl Session {
    /// A piece of news about what was asked. `Some`: it should run elsewhere.
    pub(super) fn hear(
        &mut self,
        news: News,
        only: Option<&Arc<Verdict>>,
    ) -> Result<Option<bool>, End> {
        let Some(attached) = &mut self.attached else {
            return Ok(None);
        };
        match news {
            News::Complete(tag) => {
                attached.failed = false;
                self.completed(tag, only);
            }
            News::Ready(status) => self.ready(status),
            News::Failed(state) => {
                self.changing = None;
                // A plan of before a change that was made behind our back: not once more.
                // Or the connection has prepared what it is not known to have.
                if matches!(&state[..], b"0A000" | b"26000" | b"42P05") {
                    attached.distrust();
                }
                let again = Self::elsewhere(&state).filter(|_| attached.is_spared());
                if again.is_some() {
                    return Ok(again);
                }
                attached.failed = true;
                self.listener.counters.failed.increment();
            }
            News::Stale => {
                self.changing = None;
                attached.failed = true;
                self.listener.counters.failed.increment();
            }
            News::Outdated => self.database.note_change(),
            News::Parameter(body, shown) => {
                attached.loose |= attached.in_transaction();
                if let Some(upstream) = attached.lease.upstream() {
                    upstream.note_parameter(&body);
                }
                self.note_parameter(&body, shown);
            }
            News::Discarded { last } => self.forget_all(last),
            // The connection ends next; or a replica is not as far as the settings, or cannot begin
            // what was begun.
            News::OwnFailed(_) | News::Ends | News::Fatal(..) if attached.is_spared() => {
                attached.tainted = true;
                return Ok(Some(false));
            }
            News::OwnFailed(body) => {
                attached.tainted = true;
                let error = attached.lease.pool().endpoint().settings_refused(&body);
                return Err(End::Told("08006", error.to_string()));
            }
            News::Ends | News::Unread => attached.tainted = true,
            News::Fatal(state, shown) => {
                attached.tainted = true;
                attached.farewell = shown;
                tracing::debug!(?state, "a server ended a connection");
            }
            other => self.hear_of_statements(other),
        }
        Ok(None)
    }

    /// News of what the session and its connection have prepared.
    fn hear_of_statements(&mut self, news: News) {
        let Some(attached) = &mut self.attached else {
            return;
        };
        match news {
            News::Described(described, shape) => {
                let id = described.statement.id;
                if let Some(upstream) = attached.lease.upstream() {
                    upstream.prepared.note_shape(id, shape);
                }
                if let Some(name) = &described.name {
                    self.names.note_told(name, id, shape);
                }
            }
            News::NotPrepared(id, change) => {
                self.names.not_prepared(id);
                if let Some(change) = change {
                    self.names.undo_one(change);
                }
                if let Some(upstream) = attached.lease.upstream() {
                    upstream.prepared.remove(id);
                }
            }
            News::Undone(change) => self.names.undo_one(change),
            News::UnnamedSkipped(change) => {
                if let Some(here) = self.names.undo_unnamed(change) {
                    attached.unnamed_here = here;
                }
            }
            News::UnnamedFailed(change) => self.names.fail_unnamed(change),
            News::UnnamedElsewhere => attached.unnamed_here = false,
            News::NotClosed => attached.distrust(),
            News::NotEmptied => {
                let upstream = attached.lease.upstream();
                self.names.not_emptied(upstream.map(|it| &mut it.prepared));
            }
            News::NotFreed(freed) => {
                let upstream = attached.lease.upstream();
                self.names
                    .not_freed(*freed, upstream.map(|it| &mut it.prepared));
            }
            _ => {}
        }
    }

    /// Whether a statement that failed on a replica in this way should run on the primary.
    fn elsewhere(state: &[u8]) -> Option<bool> {
        match state {
            // A write after all.
            b"25006" => Some(true),
            // What this session asks of a server in recovery, or a view that is not filled there yet;
            // cancelled by recovery; the server starts or ends; a table not there yet.
            b"0A000" | b"55000" | b"40001" | b"40P01" | b"57P01" | b"57P02" | b"57P03"
            | b"42P01" | b"42703" | b"42883" | b"3F000" | b"42704" | b"3D000" => Some(false),
            _ => None,
        }
    }

    /// A command of the client is complete.
    fn completed(&mut self, tag: Tag, only: Option<&Arc<Verdict>>) {
        if tag == Tag::DeallocateAll {
            self.forget_statements();
        }
        if tag == Tag::Commit {
            // Perhaps AND CHAIN.
            self.begin_anew();
        }
        let changes = |verdict: &&Arc<Verdict>| match verdict.class {
            Class::Set { .. } => tag == Tag::Set,
            Class::Reset { .. } => tag == Tag::Reset,
            _ => false,
        };
        if let Some(verdict) = only.filter(changes) {
            self.changing = Some(Changing::By(Arc::clone(verdict)));
        }
    }

    /// A transaction is over; if more was asked, that is of the next one.
    fn begin_anew(&mut self) {
        let attached = self.attached.as_ref();
        let more = attached.is_some_and(|it| !it.expected.is_empty() || it.in_transaction());
        self.transaction_since = more.then(clock::now);
    }

    /// A batch of the client is over: what it has set stays, unless it failed or a transaction is
    /// open, which may still fail.
    fn ready(&mut self, status: Status) {
        if status == Status::Idle {
            self.begin_anew();
        }
        let Some(changing) = self.changing.take().filter(|_| status == Status::Idle) else {
            return;
        };
        let class = match &changing {
            Changing::By(verdict) => &verdict.class,
            Changing::Discarded => &Class::DiscardAll,
        };
        // DEFAULT and RESET bring the server's value; the session's is that of its start.
        let (name, value) = match class {
            Class::Set { name, value } => (Some(name), value.as_ref()),
            Class::Reset { name } => (name.as_ref(), None),
            _ => (None, None),
        };
        let back = value.is_none();
        let start = name.and_then(|name| self.startup.get(name));
        let settings = match name {
            Some(name) => self.settings.with(name, value.or(start).cloned()),
            None => Arc::clone(&self.startup),
        };
        if back {
            self.reads
                .go_back(self.startup_reads, name.map(String::as_str));
            self.legible = self.reads.legible();
        }
        self.retell |= back;
        if let Some(upstream) = self.upstream() {
            upstream.applied = match name {
                Some(_) if !back => Arc::clone(&settings),
                Some(name) => upstream.applied.with(name, None),
                None => Arc::default(),
            };
        }
        self.settings = settings;
    }

    /// A server has said that a parameter is another.
    fn note_parameter(&mut self, body: &[u8], shown: bool) {
        let Some((name, value)) = codec::parameter(body) else {
            return;
        };
        let [name, value] = [name, value].map(String::from_utf8_lossy);
        self.reads.note(&name, &value);
        self.legible = self.reads.legible();
        if shown {
            self.told.note(&name, &value);
        }
    }

    /// Tells the client what it has not heard, once the connection that it keeps is brought to the
    /// session's settings.
    pub(super) fn tell_again(&mut self) {
        let Some(attached) = &mut self.attached else {
            return;
        };
        if attached.is_settled()
            && let Some(upstream) = attached.lease.upstream()
            && Arc::ptr_eq(&upstream.applied, &self.settings)
        {
            let out = &mut self.client.out.bytes;
            self.told.renew(&upstream.parameters, out);
            self.retell = false;
        }
    }

    fn upstream(&mut self) -> Option<&mut Upstream> {
        self.attached.as_mut()?.lease.upstream()
    }

    /// DEALLOCATE ALL: neither the session nor the connection has any, but for what was prepared
    /// behind it.
    fn forget_statements(&mut self) {
        if self.names.note_emptied() {
            return;
        }
        self.names.clear();
        if let Some(upstream) = self.upstream() {
            upstream.prepared.clear();
        }
    }

    /// DISCARD ALL: the session is as it began, and the connection knows no settings. What was asked
    /// behind it may have pinned the session again.
    fn forget_all(&mut self, last: bool) {
        self.forget_statements();
        self.changing = Some(Changing::Discarded);
        self.settings = Arc::clone(&self.startup);
        if last {
            if let Some(attached) = &mut self.attached {
                attached.tainted |= attached.lasting;
            }
            self.pinned = self.startup.makes_temporary().then_some("temp");
        }
        if let Some(upstream) = self.upstream() {
            upstream.applied = Arc::default();
        }
    }

    /// The connection is lost with answers still owed.
    pub(super) fn lost(&mut self, error: &std::io::Error) -> Result<Turn, End> {
        self.listener.counters.failed.increment();
        let Some(attached) = &mut self.attached else {
            return Ok(Turn::Done);
        };
        let name = attached.lease.pool().endpoint().name.clone();
        attached.tainted = true;
        if attached.is_spared() {
            return Ok(Turn::Again { write: false });
        }
        let unknown = attached.unknown && !attached.is_settled();
        let heard = attached.farewell;
        self.let_go();
        if heard && !unknown {
            return Err(End::Gone);
        }
        Err(if unknown {
            let why = format!(
                "the connection to {name} was lost ({error}) before it answered: whether the \
                 statement was carried out is not known"
            );
            End::Told("08007", why)
        } else {
            let why = format!("the connection to {name} was lost ({error}); nothing was committed");
            End::Told("57P01", why)
        })
    }
}
