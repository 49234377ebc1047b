//! What can go wrong between a session and its servers.
//!
//! Not what a server answers to a statement: that is handed on as it came. Invariant: each error
//! says whether a statement may have been carried out.

use std::io;
use std::time::Duration;

use breccia_core::error::{Effect, ErrorKind, Origin};
use breccia_net::NetError;
use thiserror::Error;

use crate::postgres::codec::CodecError;
use crate::postgres::scram::ScramError;

/// Trouble of the SQL slice.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SqlError {
    /// No connection could be made.
    #[error("{server}: {source}")]
    Connect {
        /// The store.
        server: String,
        /// Why.
        #[source]
        source: NetError,
    },
    /// The server is known to be down, so nothing was tried.
    #[error("{server} is down: {why}")]
    Down {
        /// The store.
        server: String,
        /// Why.
        why: String,
    },
    /// The server does not offer TLS.
    #[error(
        "{server}: the server does not offer TLS, and tls.mode of store.{server} asks for it; turn \
         on `ssl` there"
    )]
    NoTls {
        /// The store.
        server: String,
    },
    /// An open connection was lost.
    #[error("{server}: the connection was lost ({source})")]
    Lost {
        /// The store.
        server: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The server's bytes are no frames.
    #[error("{server}: {source}")]
    Codec {
        /// The store.
        server: String,
        /// What is wrong.
        #[source]
        source: CodecError,
    },
    /// The server's bytes are no packets of its protocol.
    #[error("{server}: {what}")]
    Malformed {
        /// The store.
        server: String,
        /// What is wrong.
        what: String,
    },
    /// The server refused the login.
    #[error("{server} refused the login of role {role:?}: {text} (SQLSTATE {sqlstate})")]
    Refused {
        /// The store.
        server: String,
        /// The role.
        role: String,
        /// The server's code.
        sqlstate: String,
        /// The server's number of it, where its protocol has one.
        errno: Option<u16>,
        /// The server's words.
        text: String,
    },
    /// The server wants to be logged in to in a way that cannot be done.
    #[error("{server}: role {role:?} cannot be logged in: {what}")]
    Login {
        /// The store.
        server: String,
        /// The role.
        role: String,
        /// Why, and what to do.
        what: &'static str,
    },
    /// The server wants the user to prove itself in a way that is not spoken here.
    #[error(
        "{server}: user {role:?} cannot be logged in: the server asks for {method:?}, which is not \
         spoken here; have it IDENTIFIED by mysql_native_password, caching_sha2_password or ed25519"
    )]
    Method {
        /// The store.
        server: String,
        /// The user.
        role: String,
        /// The way that the server asks for.
        method: String,
    },
    /// The login's exchange failed.
    #[error("{server}: {source}")]
    Scram {
        /// The store.
        server: String,
        /// Why.
        #[source]
        source: ScramError,
    },
    /// The server did not answer in time.
    #[error("{server} did not answer within {after:?}")]
    Timeout {
        /// The store.
        server: String,
        /// How long was waited.
        after: Duration,
    },
    /// The server has left questions unanswered, on so many connections that no more are made.
    #[error(
        "{server} has not answered {count} questions of Breccia's own, and is asked no more until it has: look \
         there what it waits for (SHOW PROCESSLIST; a full disk?)"
    )]
    Hanging {
        /// The store.
        server: String,
        /// How many.
        count: usize,
    },
    /// All connections of a pool are lent.
    #[error(
        "no connection to {server} became free within {after:?} (queue-timeout); pool-size is {size}"
    )]
    PoolFull {
        /// The store.
        server: String,
        /// How long was waited.
        after: Duration,
        /// The pool's size.
        size: usize,
    },
    /// An administrator holds statements back.
    #[error(
        "{store} is paused by an administrator, and was not resumed within {after:?} (queue-timeout); \
         POST /stores/{store}/resume ends the pause"
    )]
    Paused {
        /// The composite.
        store: String,
        /// How long was waited.
        after: Duration,
    },
    /// All connections of a pool are lent, and this need not wait for one.
    #[error("no connection is free")]
    Crowded,
    /// The client cancelled its statement, which waited for a connection.
    #[error("canceling statement due to user request")]
    Cancelled,
    /// The server a statement waited for is not the primary any more.
    #[error("{server} is not the primary any more")]
    Deposed {
        /// Which server.
        server: String,
    },
    /// The client left while its statement waited for a connection.
    #[error("the client left while its statement waited for a connection")]
    Left,
    /// There is no server that may take writes.
    #[error("{store} has no primary: {why}")]
    NoPrimary {
        /// The composite.
        store: String,
        /// Why, and what to do.
        why: String,
    },
    /// What is asked about a statement before is gone.
    #[error(
        "what is asked about the statement before is gone, since connections are shared; ask at once, or in \
         its transaction. The next statements of this session run on the primary, and it keeps that \
         connection for longer"
    )]
    Forgotten,
    /// `lastval()` or `currval()` where they would tell another session's value.
    #[error(
        "lastval() and currval() are not defined in this session: connections are shared, and the \
         last value of this one may be another session's. Use INSERT ... RETURNING, or ask in the \
         transaction that made the value; from now on this session keeps its connection"
    )]
    LastValue,
    /// A session's settings could not be given to a connection.
    #[error("{server}: the session's settings were refused: {text} (SQLSTATE {sqlstate})")]
    Settings {
        /// The store.
        server: String,
        /// The server's code.
        sqlstate: String,
        /// The server's number of it, where its protocol has one.
        errno: Option<u16>,
        /// The server's words.
        text: String,
    },
    /// The server ended a command before it had all of it, and said why.
    #[error("{server} ended a command that was on its way: {text} (SQLSTATE {sqlstate})")]
    Interrupted {
        /// The store.
        server: String,
        /// The server's code.
        sqlstate: String,
        /// The server's number of it.
        errno: u16,
        /// The server's words.
        text: String,
    },
    /// The server answered a question of Breccia's own with an error.
    #[error("{server} refused a question of Breccia's own: {text} (SQLSTATE {sqlstate})")]
    Question {
        /// The store.
        server: String,
        /// The server's code.
        sqlstate: String,
        /// The server's number of it, where its protocol has one.
        errno: Option<u16>,
        /// The server's words.
        text: String,
    },
}

/// What is put behind a server's refusal of a login that is the store's own: whoever reads it would look for
/// the fault in the client's password. `keys`: those of the file that hold it; `whom`: what a server calls a
/// user.
pub(crate) fn login_of_the_store(store: &str, [user, password]: [&str; 2], whom: &str) -> String {
    format!(
        "; this is the login that store.{store} has there, and not the client's: mend its `{user}` and \
         `{password}`, or that {whom} on the server"
    )
}

impl SqlError {
    /// What was refused was no setting, but a question.
    pub(crate) fn of_a_question(self) -> Self {
        match self {
            Self::Settings {
                server,
                sqlstate,
                errno,
                text,
            } => Self::Question {
                server,
                sqlstate,
                errno,
                text,
            },
            other => other,
        }
    }

    /// What was refused was no question, but a setting.
    pub(crate) fn of_settings(self) -> Self {
        match self {
            Self::Question {
                server,
                sqlstate,
                errno,
                text,
            } => Self::Settings {
                server,
                sqlstate,
                errno,
                text,
            },
            other => other,
        }
    }

    /// A server's bytes are no packets.
    pub(crate) fn malformed(server: String, what: &impl std::fmt::Display) -> Self {
        Self::Malformed {
            server,
            what: what.to_string(),
        }
    }

    /// What kind of trouble it is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Connect { .. }
            | Self::Down { .. }
            | Self::NoTls { .. }
            | Self::Lost { .. }
            | Self::NoPrimary { .. }
            | Self::Deposed { .. } => ErrorKind::Unreachable,
            Self::Codec { .. } | Self::Malformed { .. } => ErrorKind::Protocol,
            Self::Refused { .. }
            | Self::Settings { .. }
            | Self::Question { .. }
            | Self::Interrupted { .. }
            | Self::Forgotten
            | Self::LastValue => ErrorKind::Server,
            Self::Login { .. } | Self::Method { .. } | Self::Scram { .. } => {
                ErrorKind::Unauthorized
            }
            Self::Timeout { .. } | Self::Hanging { .. } => ErrorKind::Timeout,
            Self::PoolFull { .. }
            | Self::Paused { .. }
            | Self::Crowded
            | Self::Cancelled
            | Self::Left => ErrorKind::Overloaded,
        }
    }

    /// Where it came from.
    #[must_use]
    pub fn origin(&self) -> Origin {
        match self {
            Self::PoolFull { .. }
            | Self::Paused { .. }
            | Self::Crowded
            | Self::Cancelled
            | Self::Left => Origin::Internal,
            _ => Origin::Upstream,
        }
    }

    /// Whether a statement that ended in this may have been carried out: never, since all of these
    /// come before one is sent, but for a connection that was lost.
    #[must_use]
    pub fn effect(&self) -> Effect {
        match self {
            Self::Lost { .. } | Self::Codec { .. } | Self::Malformed { .. } => Effect::Unknown,
            _ => Effect::NotApplied,
        }
    }

    /// The same without the server's name in front, for lines that begin with that.
    #[must_use]
    pub fn without_server(&self) -> String {
        match self {
            Self::Connect { source, .. } => source.to_string(),
            other => other.to_string(),
        }
    }

    /// The SQLSTATE that a client is told.
    #[must_use]
    pub fn sqlstate(&self) -> &str {
        match self {
            Self::Refused { sqlstate, .. }
            | Self::Settings { sqlstate, .. }
            | Self::Question { sqlstate, .. }
            | Self::Interrupted { sqlstate, .. } => sqlstate,
            Self::NoTls { .. } => "08001",
            Self::Lost { .. } | Self::Left => "08006",
            Self::Cancelled => "57014",
            Self::Codec { .. } | Self::Malformed { .. } => "08P01",
            Self::Login { .. } | Self::Method { .. } | Self::Scram { .. } => "28000",
            Self::LastValue | Self::Forgotten => "55000",
            Self::PoolFull { .. } | Self::Crowded => "53300",
            // cannot_connect_now: clients know it as worth another try.
            Self::NoPrimary { .. }
            | Self::Deposed { .. }
            | Self::Paused { .. }
            | Self::Down { .. }
            | Self::Connect { .. }
            | Self::Hanging { .. }
            | Self::Timeout { .. } => "57P03",
        }
    }
}
