//! What can be wrong with a file, and where.
//!
//! Not a log: whoever asked for the plan prints it. Invariant: no message holds a secret or any
//! part of a `url`, and each says what is wrong and what to do about it.

mod error;
mod redis;
mod sql;

use std::fmt;

use breccia_core::error::{Effect, ErrorKind, Origin};

pub use error::ConfigError;
pub use redis::RedisConfigError;
pub use sql::SqlConfigError;

impl ConfigError {
    /// What kind of trouble this is: all of it is refused input.
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::Refused
    }

    /// Where it came from: what somebody wrote.
    pub fn origin(&self) -> Origin {
        Origin::Downstream
    }

    /// A refused configuration has changed nothing.
    pub fn effect(&self) -> Effect {
        Effect::NotApplied
    }
}

/// One thing that is wrong with a configuration: `file:line: key.path: what; what to do`.
#[derive(Debug)]
#[non_exhaustive]
pub struct Fault {
    /// Where it is.
    pub place: Place,
    /// What is wrong there.
    pub error: ConfigError,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.error)
    }
}

// No `source`: the message already says all of `error`.
impl std::error::Error for Fault {}

/// Something that is allowed, and that the operator should know.
#[derive(Debug)]
#[non_exhaustive]
pub struct Warning {
    /// Where it is.
    pub place: Place,
    /// What to know.
    pub notice: Notice,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.notice)
    }
}

/// A place in a configuration file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub struct Place {
    /// The file, as it was named.
    pub file: String,
    /// The line, from 1; `None` when the whole file is meant.
    pub line: Option<usize>,
    /// The column in characters, from 1; only where no key names the place.
    pub column: Option<usize>,
    /// The path of the key, such as `store.redis-a.url`; may be empty.
    pub key: String,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        if let Some(column) = self.column {
            write!(f, ":{column}")?;
        }
        if !self.key.is_empty() {
            write!(f, ": {}", self.key)?;
        }
        Ok(())
    }
}

/// What an operator should know about a configuration that is in order.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Notice {
    /// A secret in a file that others can read.
    #[error(
        "a secret in a file that others can read (mode {mode:03o}); chmod 600 the file, or use {{ env = \"NAME\" }} or {{ file = \"PATH\" }}"
    )]
    SecretReadable {
        /// The file's permission bits.
        mode: u32,
    },
    /// A store nothing uses.
    #[error("no composite lists this store and no listener serves it; use it or drop it")]
    UnusedStore,
    /// A file without listeners.
    #[error("the file has no [listener.NAME], so nothing is served; add one")]
    NoListener,
    /// One store is a shard of two composites.
    #[error(
        "is a shard of '{first}' and of '{second}': SCAN, DBSIZE and FLUSHDB of one reach the keys of the other; give each a store of its own"
    )]
    SharedShard {
        /// A composite.
        first: String,
        /// Another one.
        second: String,
    },
    /// A PostgreSQL listener whose sessions keep their connections, over a composite with lazy transactions.
    #[error(
        "over '{store}', whose transactions are \"lazy\": sessions that keep their connection to the primary begin all transactions there, READ ONLY ones too; use \"transaction\", or a composite of its own for this listener"
    )]
    LazyInSessionMode {
        /// The composite.
        store: String,
    },
}
