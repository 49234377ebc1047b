//! The pools of MySQL's connections.
//!
//! Not how they are lent ([`crate::pool`]). Invariant: a connection that is lent has nothing unread.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use breccia_net::stream::Stream;

use super::monitor::run_question;
use super::settings::Settings;
use super::upstream::{Endpoint, Login, Upstream};
use crate::error::SqlError;
use crate::pool;

/// Connections of one login on one server.
pub type Pool = pool::Pool<Endpoint>;
/// A connection that is lent.
pub type Lease = pool::Lease<Endpoint>;

/// What connections of a pool begin with, once one was made.
#[derive(Debug, Default)]
pub struct Beginning(Mutex<Option<Arc<Settings>>>);

impl Beginning {
    /// A connection that was made just now began with this.
    pub fn keep(&self, base: &Arc<Settings>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(base));
    }

    /// What the last of them began with.
    #[must_use]
    pub fn get(&self) -> Option<Arc<Settings>> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl pool::Wire for Endpoint {
    type Login = Login;
    type Connection = Upstream;
    type Kept = Beginning;

    fn name(&self) -> &str {
        &self.name
    }

    async fn open(&self, login: &Login) -> Result<Upstream, SqlError> {
        let mut upstream = Self::open(self, login).await?;
        if login.read_only {
            // A replica's connection is of use only if it leads to the server whose position is known.
            let question = run_question(upstream.server);
            let rows = self.in_time(self.ask(&mut upstream, question)).await?;
            let run = rows
                .first()
                .and_then(|row| row.first()?.as_deref()?.parse().ok());
            upstream.run = run.unwrap_or(0);
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
        if self.received.is_empty() {
            self.received = bytes::BytesMut::new();
        }
        self.spare = Vec::new();
    }
}
