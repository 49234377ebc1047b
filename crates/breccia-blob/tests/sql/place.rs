//! Where a test's data lies: a server or a file of its own.
//!
//! Not a store. Invariant: the server ends with the value.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use breccia_blob::sql::{
    Server, ServerOptions, SqlOptions, SqlStore, SqlTlsOptions, SqliteOptions,
};
use breccia_blob::{BlobError, Key};
use breccia_core::address::Address;
use breccia_testkit::{MariaDb, MariaDbOptions, Postgres, PostgresOptions};
use bytes::Bytes;
use tempfile::TempDir;

pub(crate) const DATABASE: &str = "blobs";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Postgresql,
    Mysql,
    Sqlite,
}

pub(crate) enum Running {
    Postgresql(Postgres),
    Mysql(MariaDb),
    Sqlite(TempDir),
}

pub(crate) struct Place {
    pub(crate) running: Running,
}

impl Place {
    pub(crate) fn new(kind: Kind) -> Result<Self> {
        Self::start(kind, false, &[])
    }

    /// `fsync`: for tests that kill the server.
    pub(crate) fn start(kind: Kind, fsync: bool, arguments: &[(&str, &str)]) -> Result<Self> {
        let running = match kind {
            Kind::Postgresql => {
                let settings = arguments
                    .iter()
                    .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
                let server = Postgres::start(PostgresOptions {
                    fsync,
                    settings: settings.collect(),
                })?;
                server.create_database(DATABASE)?;
                Running::Postgresql(server)
            }
            Kind::Mysql => {
                let arguments = arguments
                    .iter()
                    .map(|(name, value)| format!("--{name}={value}"));
                let server = MariaDb::start(MariaDbOptions {
                    fsync,
                    arguments: arguments.collect(),
                })?;
                server.create_database(DATABASE)?;
                Running::Mysql(server)
            }
            Kind::Sqlite => Running::Sqlite(tempfile::tempdir()?),
        };
        Ok(Self { running })
    }

    pub(crate) fn store(&self) -> Arc<SqlStore> {
        self.open("t_", |_| {})
    }

    /// A store whose leftovers may be swept at once.
    pub(crate) fn impatient(&self, prefix: &str) -> Arc<SqlStore> {
        self.open(prefix, |options| {
            options.garbage_grace = Duration::ZERO;
            options.pending_age = Duration::ZERO;
        })
    }

    pub(crate) fn open(&self, prefix: &str, tweak: impl FnOnce(&mut SqlOptions)) -> Arc<SqlStore> {
        let mut options = SqlOptions::new("sql-a");
        prefix.clone_into(&mut options.table_prefix);
        tweak(&mut options);
        let store = match self.server() {
            None => SqlStore::open_sqlite(options, &SqliteOptions { path: self.file() }),
            Some(server) => SqlStore::open(options, &server),
        };
        Arc::new(store.expect("the options are right"))
    }

    pub(crate) fn server(&self) -> Option<ServerOptions> {
        let (server, port, user, password) = match &self.running {
            Running::Sqlite(_) => return None,
            Running::Postgresql(it) => (Server::Postgresql, it.port(), it.user(), it.password()),
            Running::Mysql(it) => (Server::Mysql, it.port(), it.user(), it.password()),
        };
        let host = "127.0.0.1".to_owned();
        Some(ServerOptions {
            server,
            address: Address::Tcp { host, port },
            database: DATABASE.to_owned(),
            user: user.to_owned(),
            password: Some(password.to_owned()),
            tls: SqlTlsOptions::default(),
        })
    }

    fn file(&self) -> PathBuf {
        match &self.running {
            Running::Sqlite(folder) => folder.path().join("blobs.db"),
            _ => PathBuf::new(),
        }
    }

    /// Runs SQL beside the store; a query's first column of its first row, if it has one.
    pub(crate) fn sql(&self, sql: &str) -> Result<String> {
        let text = match &self.running {
            Running::Postgresql(server) => server.query(DATABASE, sql)?,
            Running::Mysql(server) => server.query(DATABASE, sql)?,
            Running::Sqlite(_) => {
                let connection = rusqlite::Connection::open(self.file())?;
                connection.busy_timeout(Duration::from_secs(10))?;
                if !sql.starts_with("SELECT") {
                    connection.execute_batch(sql)?;
                    return Ok(String::new());
                }
                let number: i64 = connection.query_row(sql, [], |row| row.get(0))?;
                number.to_string()
            }
        };
        Ok(text.trim().to_owned())
    }

    pub(crate) fn count(&self, table: &str) -> Result<u64> {
        let text = self.sql(&format!("SELECT count(*) FROM {table}"))?;
        text.parse()
            .with_context(|| format!("count of {table}: {text:?}"))
    }

    /// Waits until a table has so many rows.
    pub(crate) async fn wait_for(&self, table: &str, rows: u64) -> Result<()> {
        for _ in 0..600 {
            if self.count(table)? == rows {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        anyhow::bail!("{table} never had {rows} rows, but {}", self.count(table)?)
    }

    pub(crate) fn kill(&mut self) {
        match &mut self.running {
            Running::Postgresql(server) => server.kill9(),
            Running::Mysql(server) => server.kill9(),
            Running::Sqlite(_) => {}
        }
    }

    pub(crate) fn restart(&mut self) -> Result<()> {
        match &mut self.running {
            Running::Postgresql(server) => server.restart_same_port(),
            Running::Mysql(server) => server.restart_same_port(),
            Running::Sqlite(_) => Ok(()),
        }
    }

    pub(crate) fn freeze(&mut self) -> Result<()> {
        match &mut self.running {
            Running::Postgresql(server) => server.freeze_all(),
            Running::Mysql(server) => server.sigstop(),
            Running::Sqlite(_) => Ok(()),
        }
    }

    pub(crate) fn thaw(&mut self) -> Result<()> {
        match &mut self.running {
            Running::Postgresql(server) => server.thaw_all(),
            Running::Mysql(server) => server.sigcont(),
            Running::Sqlite(_) => Ok(()),
        }
    }
}

pub(crate) fn key(name: &str) -> Key {
    Key::new(name.as_bytes().to_vec()).expect("a short key")
}

/// Bytes that differ from place to place and from seed to seed.
pub(crate) fn pattern(size: usize, seed: u32) -> Bytes {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(12_345);
    let mut bytes = Vec::with_capacity(size + 4);
    while bytes.len() < size {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(size);
    bytes.into()
}

/// A source that gives pieces when it is told to.
pub(crate) struct Told {
    pieces: tokio::sync::mpsc::Receiver<Bytes>,
}

impl Told {
    pub(crate) fn new() -> (tokio::sync::mpsc::Sender<Bytes>, Self) {
        let (sender, pieces) = tokio::sync::mpsc::channel(1);
        (sender, Self { pieces })
    }
}

impl breccia_blob::ByteSource for Told {
    fn next(&mut self) -> breccia_blob::body::NextChunk<'_> {
        Box::pin(async move { self.pieces.recv().await.map(Ok::<Bytes, BlobError>) })
    }
}
