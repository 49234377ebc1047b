//! The tables of the index, and the numbers that generations take.
//!
//! Not the rows (see `lookup` and `change`). Invariant: a generation's number is handed out only
//! below the limit that the index holds, so a file with a number at or above it was written with a
//! newer index, and this one must not be used with it.

use rusqlite::{Connection, OptionalExtension as _};

use super::{int, unsigned};

/// The version of the tables.
pub(crate) const VERSION: i64 = 1;
/// So many numbers are reserved at a time.
pub(crate) const BLOCK: u64 = 4096;

const TABLES: &str = "
BEGIN IMMEDIATE;
CREATE TABLE objects (
    key BLOB PRIMARY KEY NOT NULL, size INTEGER NOT NULL, modified_ms INTEGER NOT NULL,
    etag TEXT NOT NULL, generation INTEGER NOT NULL, file_bytes INTEGER NOT NULL,
    tags_generation INTEGER, upload TEXT, details BLOB NOT NULL
) WITHOUT ROWID;
CREATE TABLE uploads (
    key BLOB NOT NULL, id TEXT NOT NULL, generation INTEGER NOT NULL, begun_ms INTEGER NOT NULL,
    start BLOB NOT NULL, PRIMARY KEY (key, id)
) WITHOUT ROWID;
CREATE TABLE parts (
    upload TEXT NOT NULL, number INTEGER NOT NULL, generation INTEGER NOT NULL,
    size INTEGER NOT NULL, file_bytes INTEGER NOT NULL, etag TEXT NOT NULL,
    modified_ms INTEGER NOT NULL, checksum BLOB, PRIMARY KEY (upload, number)
) WITHOUT ROWID;
CREATE TABLE reserved (
    name TEXT PRIMARY KEY NOT NULL, generation INTEGER NOT NULL, size INTEGER NOT NULL,
    file_bytes INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE numbers (name TEXT PRIMARY KEY NOT NULL, value INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO numbers (name, value) VALUES ('generations', 1);
PRAGMA user_version = 1;
COMMIT;
";

/// Makes the tables in an empty file.
pub(crate) fn create(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch(TABLES)
}

/// The version of the tables; 0 if there are none.
pub(crate) fn version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.query_row("PRAGMA user_version", [], |row| row.get(0))
}

/// What is wrong with the file as such, if anything.
pub(crate) fn quick_check(connection: &Connection) -> rusqlite::Result<Option<String>> {
    let found: Option<String> = connection
        .query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
        .optional()?;
    Ok(found.filter(|text| text != "ok"))
}

/// Generations below this may have been handed out.
pub(crate) fn generation_limit(connection: &Connection) -> rusqlite::Result<u64> {
    connection.query_row(
        "SELECT value FROM numbers WHERE name = 'generations'",
        [],
        |row| unsigned(row, 0),
    )
}

/// Lets generations below `limit` be handed out.
pub(crate) fn set_generation_limit(connection: &Connection, limit: u64) -> rusqlite::Result<()> {
    connection
        .prepare_cached("UPDATE numbers SET value = ?1 WHERE name = 'generations'")?
        .execute([int(limit)])
        .map(drop)
}

/// Every generation the index refers to, in order.
pub(crate) fn referenced(connection: &Connection) -> rusqlite::Result<Vec<u64>> {
    let mut statement = connection.prepare(
        "SELECT generation FROM objects
         UNION ALL SELECT tags_generation FROM objects WHERE tags_generation IS NOT NULL
         UNION ALL SELECT generation FROM uploads
         UNION ALL SELECT generation FROM parts
         UNION ALL SELECT generation FROM reserved",
    )?;
    let rows = statement.query_map([], |row| unsigned(row, 0))?;
    let mut generations = rows.collect::<rusqlite::Result<Vec<u64>>>()?;
    generations.sort_unstable();
    Ok(generations)
}
