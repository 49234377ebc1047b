//! The pools of PostgreSQL's connections.
//!
//! Not how they are lent ([`crate::pool`]). Invariant: what is kept of a pool beside its connections
//! was shown by one of them.

use std::io;
use std::sync::{Mutex, OnceLock};
use std::time::Instant;

use breccia_net::stream::Stream;

use super::upstream::{Endpoint, Login, Upstream};
use crate::error::SqlError;
use crate::pool;
pub use crate::pool::{PoolLimits, PoolOptions};

mod greeting;

pub use greeting::Greeting;

/// Connections of one login on one server.
pub type Pool = pool::Pool<Endpoint>;
/// A connection that is lent.
pub type Lease = pool::Lease<Endpoint>;

/// What is known of a pool's connections beside.
#[derive(Debug, Default)]
pub struct Kept {
    /// Whether this login's transactions are READ COMMITTED unless they say otherwise.
    read_committed: OnceLock<bool>,
    greeting: Mutex<Option<Greeting>>,
}

impl pool::Wire for Endpoint {
    type Login = Login;
    type Connection = Upstream;
    type Kept = Kept;

    fn name(&self) -> &str {
        &self.name
    }

    /// A replica's connection is of use only if it leads to the server whose position is known.
    async fn open(&self, login: &Login) -> Result<Upstream, SqlError> {
        let mut upstream = Endpoint::open(self, login).await?;
        if login.read_only {
            self.identify(&mut upstream).await?;
        }
        Ok(upstream)
    }
}

impl pool::Connection for Upstream {
    fn stream(&mut self) -> &mut Stream {
        &mut self.stream
    }

    fn with_stream(
        mut self: Box<Self>,
        change: impl FnOnce(Stream) -> io::Result<Stream>,
    ) -> io::Result<Box<Self>> {
        self.stream = change(self.stream)?;
        Ok(self)
    }

    fn has_unread(&self) -> bool {
        !self.received.is_empty()
    }

    fn born(&self) -> Instant {
        self.born
    }

    fn rest(&mut self) {
        Upstream::rest(self);
    }
}

impl Pool {
    /// Whether transactions of this login are READ COMMITTED unless they say otherwise. Asked once,
    /// on a connection at the server's own settings or a session's that leave this alone.
    pub async fn is_read_committed(&self, upstream: &mut Upstream) -> Result<bool, SqlError> {
        let known = &self.kept().read_committed;
        if let Some(known) = known.get() {
            return Ok(*known);
        }
        let sql = "SELECT reset_val FROM pg_catalog.pg_settings \
            WHERE name = 'default_transaction_isolation'";
        let rows = self.endpoint().ask(upstream, sql).await?;
        let value = rows.first().and_then(|row| row.first()).cloned().flatten();
        let is_it = value.as_deref() == Some("read committed");
        Ok(*known.get_or_init(|| is_it))
    }

    /// The role its connections are logged in as.
    #[must_use]
    pub fn role(&self) -> &str {
        &self.login().role
    }

    /// The database they are in.
    #[must_use]
    pub fn database(&self) -> &str {
        &self.login().database
    }

    /// Whether its connections refuse writes by themselves.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        self.login().read_only
    }
}

#[cfg(test)]
mod tests;
