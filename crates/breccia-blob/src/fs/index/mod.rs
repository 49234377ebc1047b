//! The index: which generation is the object of a key, in an SQLite file.
//!
//! Not here: the files it points to, or who decides what is written. Invariant: the index changes
//! only in transactions of the committer's one connection, each of them synced (WAL with
//! `synchronous = FULL`); everybody else reads snapshots of it.
//!
//! The `unix-excl` VFS keeps the WAL's shared memory on the heap and locks the file against every
//! other process, so that a look-up makes no system calls for locks.

pub(super) mod change;
pub(super) mod lookup;
pub(super) mod schema;
pub(super) mod uploads;

use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use breccia_core::error::Effect;
use rusqlite::{Connection, OpenFlags, Row};

use super::folder::Folder;
use crate::error::BlobError;

/// So many look-ups run at once; others wait for a connection.
const READERS: usize = 8;
/// Statements a connection keeps prepared.
const STATEMENTS: usize = 64;
/// Pages of the WAL after which they are moved into the index: 16 MiB.
const CHECKPOINT_PAGES: i64 = 4096;
/// What a WAL that had to grow further is cut to afterwards.
const LOG_BYTES: i64 = 32 * 1024 * 1024;

/// The readers' side of the index.
#[derive(Debug)]
pub(super) struct Index {
    folder: Arc<Folder>,
    idle: Mutex<Vec<Connection>>,
    returned: Condvar,
}

impl Index {
    /// Opens the connections that read. The schema is there already.
    pub(super) fn open(folder: &Arc<Folder>) -> Result<Self, BlobError> {
        let mut idle = Vec::with_capacity(READERS);
        for _ in 0..READERS {
            let reader = open_reader(&folder.index())
                .map_err(|error| folder.index_error("open the index", &error, NOT_APPLIED))?;
            idle.push(reader);
        }
        Ok(Self {
            folder: Arc::clone(folder),
            idle: Mutex::new(idle),
            returned: Condvar::new(),
        })
    }

    /// Runs a look-up. Blocks: for a thread that may.
    pub(super) fn read<T>(
        &self,
        job: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, BlobError> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let connection = loop {
            match idle.pop() {
                Some(connection) => break connection,
                // Bounded by the look-ups of the others, of which each costs O(page).
                None => {
                    idle = self
                        .returned
                        .wait(idle)
                        .unwrap_or_else(PoisonError::into_inner);
                }
            }
        };
        drop(idle);
        let borrowed = Borrowed {
            index: self,
            connection: Some(connection),
        };
        let result = borrowed.connection.as_ref().map(job);
        drop(borrowed);
        result
            .unwrap_or(Err(rusqlite::Error::InvalidQuery))
            .map_err(|error| {
                self.folder
                    .index_error("read the index", &error, NOT_APPLIED)
            })
    }
}

const NOT_APPLIED: Effect = Effect::NotApplied;

/// A connection that goes back whatever happens.
struct Borrowed<'a> {
    index: &'a Index,
    connection: Option<Connection>,
}

impl Drop for Borrowed<'_> {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            let mut idle = self
                .index
                .idle
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            idle.push(connection);
            drop(idle);
            self.index.returned.notify_one();
        }
    }
}

fn open_connection(path: &Path, create: bool) -> rusqlite::Result<Connection> {
    let mut flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    if create {
        flags |= OpenFlags::SQLITE_OPEN_CREATE;
    }
    let connection = Connection::open_with_flags_and_vfs(path, flags, "unix-excl")?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    Ok(connection)
}

fn open_reader(path: &Path) -> rusqlite::Result<Connection> {
    let connection = open_connection(path, false)?;
    connection.pragma_update(None, "query_only", true)?;
    Ok(connection)
}

/// Opens the connection that writes; makes the file if it may.
pub(super) fn open_writer(path: &Path, create: bool) -> rusqlite::Result<Connection> {
    let connection = open_connection(path, create)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
    connection.pragma_update(None, "journal_size_limit", LOG_BYTES)?;
    Ok(connection)
}

/// A number as SQLite holds it. Ours stay far below 2^63.
pub(super) fn int(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A number from a row; a negative one is damage.
pub(super) fn unsigned(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    let number: i64 = row.get(column)?;
    u64::try_from(number).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(column, number))
}

/// A number that may be missing.
pub(super) fn unsigned_or_none(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<u64>> {
    let number: Option<i64> = row.get(column)?;
    Ok(number.and_then(|number| u64::try_from(number).ok()))
}

/// Something that was written down as JSON.
pub(super) fn json<T: serde::de::DeserializeOwned>(
    row: &Row<'_>,
    column: usize,
) -> rusqlite::Result<T> {
    let bytes = row.get_ref(column)?.as_blob()?;
    serde_json::from_slice(bytes).map_err(|problem| {
        rusqlite::Error::FromSqlConversionFailure(
            column,
            rusqlite::types::Type::Blob,
            Box::new(problem),
        )
    })
}

/// The JSON of something that goes into a row.
pub(super) fn to_json<T: serde::Serialize>(value: &T) -> rusqlite::Result<Vec<u8>> {
    serde_json::to_vec(value)
        .map_err(|problem| rusqlite::Error::ToSqlConversionFailure(Box::new(problem)))
}
