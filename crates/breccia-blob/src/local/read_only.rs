//! SQLite files that are looked at and left exactly as they are.
//!
//! Not for stores, which open their files themselves. Invariant: neither the file nor its log or
//! shared memory is made, written, shortened or removed.

use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

/// Opens a connection that reads.
pub(crate) fn open(path: &Path) -> rusqlite::Result<Connection> {
    let base = OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_URI;
    let reads = base | OpenFlags::SQLITE_OPEN_READ_ONLY;
    let log = std::fs::metadata(beside(path, "-wal")).map_or(0, |found| found.len());
    let connection = if beside(path, "-shm").exists() {
        // Somebody uses it, or was killed: what SQLite needs beside it is there. It is told to write
        // nothing there either, as readers do otherwise.
        Connection::open_with_flags(uri(path, "?readonly_shm=1"), reads)?
    } else if log == 0 {
        // All of it is in the file, and SQLite would make a log to find that out.
        Connection::open_with_flags(uri(path, "?immutable=1"), reads)?
    } else {
        // Its last user was killed. Only a connection that may write reads a log without shared
        // memory on the disk; none of ours does.
        let writes = base | OpenFlags::SQLITE_OPEN_READ_WRITE;
        Connection::open_with_flags_and_vfs(uri(path, ""), writes, "unix-excl")?
    };
    // Else the last one to close it would move the log into the file.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    connection.pragma_update(None, "query_only", true)?;
    Ok(connection)
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// The path as SQLite's URI.
fn uri(path: &Path, query: &str) -> String {
    let mut uri = "file:".to_owned();
    for byte in path.as_os_str().as_bytes() {
        if byte.is_ascii_alphanumeric() || b"/._-".contains(byte) {
            uri.push(char::from(*byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(uri, "%{byte:02X}");
        }
    }
    uri + query
}
