//! What a session learns from the answers, and from their absence.
//!
//! Not the bytes of them. Invariant: settings count as set, and statements as prepared, only once a
//! server has said so.

use std::sync::Arc;

use breccia_net::clock;

use super::expected::News;
use super::serve::Turn;
use super::session::{End, Session, legible};
use crate::class::{Class, Verdict};
use crate::postgres::codec::message::Status;
use crate::postgres::settings::Settings;
use crate::postgres::upstream::Upstream;

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
            News::Complete(tag) => self.completed(&tag, only),
            News::Ready(status) => self.ready(status),
            News::Failed(state) => {
                self.changing = None;
                self.listener.counters.failed.increment();
                // A plan of before a change that was made behind our back: not once more.
                if matches!(&state[..], b"0A000" | b"26000") {
                    attached.distrust();
                }
                if attached.held {
                    return Ok(Self::elsewhere(&state));
                }
            }
            News::NotPrepared(id) => {
                self.names.not_prepared(id);
                if let Some(upstream) = attached.lease.upstream() {
                    upstream.prepared.remove(id);
                }
            }
            News::Parameter(body) => {
                attached.loose |= attached.in_transaction();
                if let Some(upstream) = attached.lease.upstream() {
                    upstream.note_parameter(&body);
                }
            }
            News::NotClosed => attached.distrust(),
            News::NotEmptied => {
                let upstream = attached.lease.upstream();
                self.names.not_emptied(upstream.map(|it| &mut it.prepared));
            }
            News::Discarded { last } => self.forget_all(last),
            // The connection ends next; or a replica is not as far as the settings, or cannot begin
            // what was begun.
            News::OwnFailed(_) | News::Ends | News::Fatal(_) if attached.held => {
                attached.tainted = true;
                return Ok(Some(false));
            }
            News::OwnFailed(body) => {
                attached.tainted = true;
                let error = attached.lease.pool().endpoint().settings_refused(&body);
                return Err(End::Told("08006", error.to_string()));
            }
            News::Ends => attached.tainted = true,
            News::Fatal(state) => {
                attached.tainted = true;
                attached.farewell = attached.expected.status != Some(Status::Idle);
                tracing::debug!(?state, "a server ended a connection");
            }
        }
        Ok(None)
    }

    /// Whether a statement that failed on a replica in this way should run on the primary.
    fn elsewhere(state: &[u8]) -> Option<bool> {
        match state {
            // A write after all.
            b"25006" => Some(true),
            // What this session asks of a server in recovery, or a view that is not filled there yet;
            // cancelled by recovery; the server starts or ends; a table not there yet.
            b"0A000" | b"55000" | b"40001" | b"40P01" | b"57P01" | b"57P02" | b"57P03" | b"42P01" | b"42703"
            | b"42883" | b"3F000" | b"42704" | b"3D000" => Some(false),
            _ => None,
        }
    }

    /// A command of the client is complete.
    fn completed(&mut self, tag: &[u8], only: Option<&Arc<Verdict>>) {
        if tag == b"DEALLOCATE ALL" {
            self.forget_statements();
        }
        let changes = |verdict: &&Arc<Verdict>| match verdict.class {
            Class::Set { .. } => tag == b"SET",
            Class::Reset { .. } => tag == b"RESET",
            _ => false,
        };
        if let Some(verdict) = only.filter(changes) {
            self.changing = Some(Arc::clone(verdict));
        }
    }

    /// A batch of the client is over: what it has set stays, unless it failed or a transaction is
    /// open, which may still fail.
    fn ready(&mut self, status: Status) {
        let Some(verdict) = self.changing.take().filter(|_| status == Status::Idle) else {
            return;
        };
        let settings = match &verdict.class {
            Class::Set { name, value } => self.settings.with(name, value.clone()),
            Class::Reset { name: Some(name) } => {
                self.settings.with(name, self.startup.get(name).cloned())
            }
            _ => Arc::clone(&self.startup),
        };
        self.change_settings(&verdict.class, settings);
    }

    fn upstream(&mut self) -> Option<&mut Upstream> {
        self.attached.as_mut()?.lease.upstream()
    }

    fn change_settings(&mut self, class: &Class, settings: Arc<Settings>) {
        if let Some(upstream) = self.upstream() {
            // SET DEFAULT and RESET bring the server's default; the session's start may differ.
            upstream.applied = match class {
                Class::Set { value: Some(_), .. } => Arc::clone(&settings),
                Class::Set { name, .. } | Class::Reset { name: Some(name) } => {
                    upstream.applied.with(name, None)
                }
                _ => Arc::default(),
            };
        }
        self.settings = settings;
        let parameters = self.upstream().map(|upstream| &upstream.parameters);
        if let Some(parameters) = parameters {
            let of = |name: &str| parameters.get(name).map(String::as_str);
            self.legible = legible(of("standard_conforming_strings"), of("client_encoding"));
        }
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
        self.changing = None;
        self.settings = Arc::clone(&self.startup);
        if last {
            self.pinned = None;
        }
        if let Some(upstream) = self.upstream() {
            upstream.applied = Arc::default();
        }
    }

    /// A limit of time has passed.
    pub(super) fn late(&mut self) -> Result<(), End> {
        let Some(attached) = &self.attached else {
            return Err(End::Gone);
        };
        if attached.held {
            return Ok(());
        }
        if self.client.out.waiting() > 0 {
            return Err(End::Gone);
        }
        let limits = &self.listener.limits;
        let over = |since| clock::now().saturating_duration_since(since);
        let long = limits.transaction_timeout.zip(self.transaction_since);
        Err(if long.is_some_and(|(limit, since)| over(since) >= limit) {
            let why = "terminating connection due to transaction-timeout".to_owned();
            End::Told("57014", why)
        } else {
            let why = "terminating connection due to idle-in-transaction-timeout".to_owned();
            End::Told("25P03", why)
        })
    }

    /// The connection is lost with answers still owed.
    pub(super) fn lost(&mut self, error: &std::io::Error) -> Result<Turn, End> {
        self.listener.counters.failed.increment();
        let Some(attached) = &mut self.attached else {
            return Ok(Turn::Done);
        };
        let name = attached.lease.pool().endpoint().name.clone();
        attached.tainted = true;
        if attached.held {
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
