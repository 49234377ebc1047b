//! The driver for SQLite, by rusqlite on the runtime's threads for blocking work.
//!
//! Not one thread for all: the pool lets one writer in at a time and readers beside it, and other
//! processes may use the same file. Invariant: a commit is on the disk before it is answered
//! (write-ahead log, `synchronous = FULL`).

use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use breccia_net::clock;
use rusqlite::types::{ToSqlOutput, Value as SqliteValue, ValueRef};
use rusqlite::{ErrorCode, OpenFlags, ToSql, params_from_iter};

use super::driver::{Answer, Connection, Driver, DriverFuture, Row, Value};
use super::fault::Fault;
use super::options::SqlOptions;
use super::statements::{Dialect, Query, Statements};
use super::store::statements;

/// How large the write-ahead log stays after a checkpoint, in bytes.
const MAX_LOG_BYTES: i64 = 64 * 1024 * 1024;

/// One SQLite file.
#[derive(Debug)]
pub(super) struct Sqlite {
    path: PathBuf,
    /// How long a statement waits for another process's lock: less than the session waits.
    busy: Duration,
    statements: Arc<Statements>,
}

impl Sqlite {
    /// Opens nothing.
    pub(super) fn new(options: &SqlOptions, path: PathBuf) -> Self {
        Self {
            path,
            busy: options.timeout / 4 * 3,
            statements: statements(options, Dialect::Sqlite),
        }
    }

    async fn open(&self) -> Result<Box<dyn Connection>, Fault> {
        let (path, busy) = (self.path.clone(), self.busy);
        let opened = blocking(move || open_file(&path, busy)).await?;
        Ok(Box::new(SqliteConnection {
            connection: Some(opened?),
            statements: Arc::clone(&self.statements),
        }))
    }
}

/// A file that we make is closed to others; SQLite gives its log the same mode.
fn make_private(path: &std::path::Path) {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true).mode(0o600);
    // If it is there, or cannot be made, opening it tells.
    let _ = options.open(path);
}

/// The pause before a file that others are opening is tried again.
const BUSY_PAUSE: Duration = Duration::from_millis(10);

fn open_file(path: &std::path::Path, busy: Duration) -> Result<rusqlite::Connection, Fault> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    make_private(path);
    let prepare = || {
        let connection = rusqlite::Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(busy)?;
        connection.set_prepared_statement_cache_capacity(Query::ALL.len());
        let mode: String =
            connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "journal_size_limit", MAX_LOG_BYTES)?;
        Ok((connection, mode))
    };
    // Two that switch a fresh file to its log at once are told "busy" without being kept waiting.
    let begun = clock::now();
    let (connection, mode) = loop {
        let prepared: rusqlite::Result<_> = prepare();
        match prepared.map_err(|error| fault(&error)) {
            Err(Fault::Busy) if clock::now() - begun < busy => std::thread::sleep(BUSY_PAUSE),
            prepared => break prepared?,
        }
    };
    if mode.eq_ignore_ascii_case("wal") {
        Ok(connection)
    } else {
        let reason = format!("its file system has no write-ahead log (journal_mode is {mode})");
        Err(Fault::Lost(reason))
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Fault> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|_| Fault::Lost("the thread that held the file has ended".to_owned()))
}

impl Driver for Sqlite {
    fn dialect(&self) -> Dialect {
        Dialect::Sqlite
    }

    fn connect(&self) -> DriverFuture<'_, Box<dyn Connection>> {
        Box::pin(self.open())
    }
}

struct SqliteConnection {
    /// Away while a thread works with it; if nobody waits for that thread any more it is closed
    /// there, which undoes an open transaction.
    connection: Option<rusqlite::Connection>,
    statements: Arc<Statements>,
}

impl SqliteConnection {
    async fn with<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&rusqlite::Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, Fault> {
        let Some(connection) = self.connection.take() else {
            return Err(Fault::Lost("the connection is gone".to_owned()));
        };
        let (connection, done) = blocking(move || {
            let done = work(&connection);
            (connection, done)
        })
        .await?;
        self.connection = Some(connection);
        done.map_err(|error| fault(&error))
    }

    async fn execute(&mut self, query: Query, values: Vec<Value>) -> Result<Answer, Fault> {
        let statements = Arc::clone(&self.statements);
        self.with(move |connection| {
            let mut statement = connection.prepare_cached(statements.text(query))?;
            let parameters = params_from_iter(&values);
            if !query.gives_rows() {
                let affected = statement.execute(parameters)?;
                return Ok(Answer {
                    rows: Vec::new(),
                    affected: affected as u64,
                });
            }
            let columns = statement.column_count();
            let mut found = statement.query(parameters)?;
            let mut rows = Vec::new();
            while let Some(row) = found.next()? {
                let values: rusqlite::Result<Vec<Value>> =
                    (0..columns).map(|column| read(row, column)).collect();
                rows.push(Row::new(values?));
            }
            Ok(Answer { rows, affected: 0 })
        })
        .await
    }

    async fn simple(&mut self, sql: String) -> Result<(), Fault> {
        self.with(move |connection| connection.execute_batch(&sql))
            .await
    }
}

impl Connection for SqliteConnection {
    fn run(&mut self, query: Query, values: Vec<Value>) -> DriverFuture<'_, Answer> {
        Box::pin(self.execute(query, values))
    }

    fn define(&mut self, sql: String) -> DriverFuture<'_, ()> {
        Box::pin(self.simple(sql))
    }

    fn begin(&mut self) -> DriverFuture<'_, ()> {
        // At once as a writer: turning from reader to writer later could fail.
        Box::pin(self.simple("BEGIN IMMEDIATE".to_owned()))
    }

    fn commit(&mut self) -> DriverFuture<'_, ()> {
        Box::pin(self.with(|connection| {
            let done = connection.execute_batch("COMMIT");
            if done.is_err() && !connection.is_autocommit() {
                // A COMMIT that fails leaves the transaction open.
                let _ = connection.execute_batch("ROLLBACK");
            }
            done
        }))
    }

    fn rollback(&mut self) -> DriverFuture<'_, ()> {
        Box::pin(self.with(|connection| {
            // Some errors have undone it already.
            if connection.is_autocommit() {
                return Ok(());
            }
            connection.execute_batch("ROLLBACK")
        }))
    }

    fn is_closed(&self) -> bool {
        self.connection.is_none()
    }
}

impl ToSql for Value {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Self::Null => ValueRef::Null,
            Self::Integer(value) => ValueRef::Integer(*value),
            Self::Bytes(value) => ValueRef::Blob(value),
            Self::Text(value) => ValueRef::Text(value.as_bytes()),
        }))
    }
}

fn read(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<Value> {
    Ok(match row.get::<_, SqliteValue>(column)? {
        SqliteValue::Null | SqliteValue::Real(_) => Value::Null,
        SqliteValue::Integer(value) => Value::Integer(value),
        SqliteValue::Text(value) => Value::Text(value),
        SqliteValue::Blob(value) => Value::Bytes(value.into()),
    })
}

pub(super) fn fault(error: &rusqlite::Error) -> Fault {
    let words = error.to_string();
    let rusqlite::Error::SqliteFailure(failure, _) = error else {
        return match error {
            rusqlite::Error::SqlInputError { msg, .. } if msg.starts_with("no such table") => {
                Fault::NoTable
            }
            _ => Fault::Protocol(words),
        };
    };
    match failure.code {
        ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => Fault::Busy,
        ErrorCode::DiskFull => Fault::Full(words),
        ErrorCode::CannotOpen | ErrorCode::PermissionDenied => Fault::Lost(words),
        ErrorCode::SystemIoFailure | ErrorCode::OutOfMemory | ErrorCode::NoLargeFileSupport => {
            Fault::System(words)
        }
        ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => Fault::Damaged(words),
        ErrorCode::OperationInterrupted => Fault::Late,
        _ if words.starts_with("no such table") => Fault::NoTable,
        _ => Fault::Refused {
            code: failure.extended_code.to_string(),
            message: words,
        },
    }
}
