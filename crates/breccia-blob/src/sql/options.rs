//! What SQL members are opened with.
//!
//! Not the configuration file: the binary maps it to these. Invariant: no `Debug` shows a password.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use breccia_core::address::Address;

use crate::error::BlobError;

/// The longest table prefix: the longest table's name still fits PostgreSQL's 63 bytes.
const MAX_PREFIX_BYTES: usize = 40;

/// What every SQL member has.
#[derive(Debug, Clone)]
pub struct SqlOptions {
    /// The store's name.
    pub name: String,
    /// What the names of the tables begin with.
    pub table_prefix: String,
    /// The most connections at a time.
    pub max_connections: usize,
    /// How long a connection may take to be had, and each statement.
    pub timeout: Duration,
    /// The longest allowed download: how long replaced and deleted bytes stay readable.
    pub garbage_grace: Duration,
    /// How long a put may show no sign of life before its chunks are taken for left over.
    pub pending_age: Duration,
}

/// The longest allowed download, unless told otherwise.
const GARBAGE_GRACE: Duration = Duration::from_hours(6);
/// How long a put may be silent, unless told otherwise.
const PENDING_AGE: Duration = Duration::from_hours(2);
/// The time limit of a statement, unless told otherwise.
const TIMEOUT: Duration = Duration::from_secs(30);
/// The most connections, unless told otherwise.
const MAX_CONNECTIONS: usize = 10;

impl SqlOptions {
    /// Options of a store of this name, all else as usual.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            table_prefix: "breccia_".to_owned(),
            max_connections: MAX_CONNECTIONS,
            timeout: TIMEOUT,
            garbage_grace: GARBAGE_GRACE,
            pending_age: PENDING_AGE,
        }
    }

    /// Whether they can be used.
    pub(crate) fn check(&self) -> Result<(), BlobError> {
        let problem = if !good_prefix(&self.table_prefix) {
            "table-prefix: lower-case letters, digits and '_', not a digit first, at most 40"
        } else if self.max_connections == 0 {
            "max-connections must be at least 1"
        } else if self.timeout.is_zero() {
            "timeout must be more than nothing"
        } else {
            return Ok(());
        };
        Err(self.fault(problem))
    }

    /// The fault of an option.
    pub(crate) fn fault(&self, problem: impl Into<String>) -> BlobError {
        BlobError::Options {
            store: self.name.clone(),
            problem: problem.into(),
        }
    }
}

fn good_prefix(prefix: &str) -> bool {
    let first = prefix.bytes().next();
    prefix.len() <= MAX_PREFIX_BYTES
        && !first.is_some_and(|byte| byte.is_ascii_digit())
        && prefix
            .bytes()
            .all(|byte| byte == b'_' || byte.is_ascii_digit() || byte.is_ascii_lowercase())
}

/// Which SQL server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Server {
    /// PostgreSQL 12 or later.
    Postgresql,
    /// MariaDB 10.3 or later, MySQL 8.0 or later.
    Mysql,
}

/// How an SQL server is reached.
#[derive(Clone)]
pub struct ServerOptions {
    /// Which kind of server.
    pub server: Server,
    /// Host and port, or its Unix socket.
    pub address: Address,
    /// The database.
    pub database: String,
    /// The user.
    pub user: String,
    /// The password.
    pub password: Option<String>,
    /// TLS; not over a Unix socket.
    pub tls: SqlTlsOptions,
}

impl fmt::Debug for ServerOptions {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("ServerOptions")
            .field("server", &self.server)
            .field("address", &self.address)
            .field("database", &self.database)
            .field("user", &self.user)
            .field("tls", &self.tls)
            .finish_non_exhaustive()
    }
}

/// TLS towards an SQL server.
#[derive(Debug, Clone, Default)]
pub struct SqlTlsOptions {
    /// Whether it is used, and what is checked.
    pub mode: SqlTlsMode,
    /// Authorities that may sign the server's certificate; without it, the system's.
    pub ca: Option<PathBuf>,
    /// This end's certificate, with `key`.
    pub cert: Option<PathBuf>,
    /// The private key of `cert`.
    pub key: Option<PathBuf>,
    /// The name the server's certificate must hold, if not the host's.
    pub server_name: Option<String>,
}

/// Whether TLS is used and what is checked, in the words of PostgreSQL's `sslmode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SqlTlsMode {
    /// No TLS.
    #[default]
    Disable,
    /// TLS if the server has it; nothing is checked.
    Prefer,
    /// TLS; nothing is checked.
    Require,
    /// TLS, and the certificate is signed by a trusted authority. Not offered for `mysql`.
    VerifyCa,
    /// The same, and it carries the server's name.
    VerifyFull,
}

impl SqlTlsMode {
    /// Whether the server's certificate is checked.
    #[must_use]
    pub fn verifies(self) -> bool {
        matches!(self, Self::VerifyCa | Self::VerifyFull)
    }
}

/// An SQLite file.
#[derive(Debug, Clone)]
pub struct SqliteOptions {
    /// The file; it is made if there is none, its folder is not.
    pub path: PathBuf,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_a_plain_identifier() {
        let check = |prefix: &str, good| assert_eq!(good_prefix(prefix), good, "{prefix:?}");
        check("", true);
        check("breccia_", true);
        check("b2_", true);
        check("2b", false);
        check("B_", false);
        check("a;b", false);
        check("a\"", false);
        check(&"x".repeat(41), false);
    }
}
