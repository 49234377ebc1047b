//! Making the index anew from the files.
//!
//! Not for every start: only where the index is missing. Invariant: the new index takes the place
//! of the old one whole, so a rebuild that is interrupted begins again.
//!
//! Of the files of a key the highest generation counts. A file that nothing can be made of is put
//! away, not removed. What cannot be known: whether a file that is whole was ever acknowledged, and
//! whether an object whose file was about to be removed had been deleted; both come back as objects.
//! Nor in which order two writes of one key were committed that ran at the same time: numbers are
//! given when a file is begun. Decision 0005 tells when that can matter.

use std::path::{Path, PathBuf};

use breccia_core::error::Effect;
use rusqlite::{Connection, params};

use super::folder::Folder;
use super::index::change::{insert_reserved, write_object};
use super::index::uploads::{write_part, write_upload};
use super::index::{int, lookup, open_writer, schema, to_json};
use super::read::{Fault, read_record};
use super::records::{FileRef, PartRow, Record, UploadRow};
use crate::error::BlobError;

/// So many files between two commits of the index that is being made.
const FILES_PER_COMMIT: u64 = 4096;

/// What a rebuild has found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rebuilt {
    /// Files that were read.
    pub files: u64,
    /// Files that nothing could be made of: they lie in the folder `damaged` now.
    pub damaged: u64,
}

const STAGING: &str = "
CREATE TABLE staged_parts (upload TEXT NOT NULL, number INTEGER NOT NULL, generation INTEGER
    NOT NULL, row BLOB NOT NULL, PRIMARY KEY (upload, number)) WITHOUT ROWID;
CREATE TABLE staged_tags (key BLOB PRIMARY KEY NOT NULL, target INTEGER NOT NULL,
    generation INTEGER NOT NULL, tags BLOB NOT NULL) WITHOUT ROWID;
";

/// Makes the index anew; what is there of an old one goes.
pub(super) fn rebuild(folder: &Folder) -> Result<Rebuilt, BlobError> {
    tracing::warn!(
        store = folder.name(),
        path = %folder.path().display(),
        "the index is missing: making it anew from the files; this reads every file's footer"
    );
    let index = folder.index();
    let fresh = with_suffix(&index, ".rebuild");
    for stale in [&fresh, &index] {
        for suffix in ["", "-wal", "-shm", "-journal"] {
            remove(folder, &with_suffix(stale, suffix))?;
        }
    }
    let rebuilt = fill(folder, &fresh)?;
    let io = |error: std::io::Error| {
        folder.io_error("put the new index in place", &error, Effect::NotApplied)
    };
    std::fs::rename(&fresh, &index).map_err(io)?;
    folder.sync().map_err(io)?;
    tracing::warn!(
        store = folder.name(),
        files = rebuilt.files,
        damaged = rebuilt.damaged,
        "the index was made anew"
    );
    Ok(rebuilt)
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut text = path.as_os_str().to_owned();
    text.push(suffix);
    text.into()
}

fn remove(folder: &Folder, path: &Path) -> Result<(), BlobError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            let what = format!("remove {}", path.display());
            Err(folder.io_error(&what, &error, Effect::NotApplied))
        }
        _ => Ok(()),
    }
}

fn fill(folder: &Folder, path: &Path) -> Result<Rebuilt, BlobError> {
    let failed =
        |error: rusqlite::Error| folder.index_error("make the index", &error, Effect::NotApplied);
    let connection = open_writer(path, true).map_err(failed)?;
    schema::create(&connection).map_err(failed)?;
    connection.execute_batch(STAGING).map_err(failed)?;
    let mut rebuilt = Rebuilt::default();
    let mut highest = 0;
    connection.execute_batch("BEGIN").map_err(failed)?;
    folder.each_generation(|generation| {
        highest = highest.max(generation);
        match read_record(folder, generation) {
            Ok((file, record)) => take_in(&connection, file, record).map_err(failed)?,
            Err(Fault::Io(error)) => {
                return Err(folder.io_error("read a file", &error, Effect::NotApplied));
            }
            Err(fault) => {
                rebuilt.damaged = rebuilt.damaged.saturating_add(1);
                put_aside(folder, generation, fault)?;
            }
        }
        rebuilt.files = rebuilt.files.saturating_add(1);
        if rebuilt.files.is_multiple_of(FILES_PER_COMMIT) {
            connection.execute_batch("COMMIT; BEGIN").map_err(failed)?;
        }
        Ok(())
    })?;
    // A number that lies aside is taken too: two files must never have one name.
    folder
        .each_aside(|generation, _| {
            highest = highest.max(generation);
            Ok(())
        })
        .map_err(|error| folder.io_error("list what lies aside", &error, Effect::NotApplied))?;
    conclude(&connection, highest).map_err(failed)?;
    connection.execute_batch("COMMIT").map_err(failed)?;
    // Out of WAL mode, so that the file alone is the whole index and can be renamed.
    connection
        .pragma_update(None, "journal_mode", "DELETE")
        .map_err(failed)?;
    connection.close().map_err(|(_, error)| failed(error))?;
    Ok(rebuilt)
}

fn put_aside(folder: &Folder, generation: u64, fault: Fault) -> Result<(), BlobError> {
    let error = fault.error(folder, "while the index is made anew", generation);
    tracing::warn!(store = folder.name(), %error, "a file is put aside");
    folder
        .put_with_damaged(generation)
        .map_err(|error| folder.io_error("put a damaged file aside", &error, Effect::NotApplied))
}

/// Takes in a file. A record whose key is none was made by nobody we know: it is left out.
fn take_in(connection: &Connection, file: FileRef, record: Record) -> rusqlite::Result<()> {
    match record {
        Record::Object { key, facts } => {
            if let Some(key) = key.key()
                && is_newest(connection, key.as_bytes(), file.generation)?
            {
                write_object(connection, &key, &facts, file, None)?;
            }
            Ok(())
        }
        Record::Manifest {
            key,
            facts,
            upload,
            parts,
        } => {
            let Some(key) = key.key() else { return Ok(()) };
            if !is_newest(connection, key.as_bytes(), file.generation)? {
                return Ok(());
            }
            write_object(connection, &key, &facts, file, Some(&upload))?;
            for part in &parts {
                write_part(connection, &upload, part)?;
            }
            Ok(())
        }
        Record::Upload {
            key,
            id,
            begun_ms,
            start,
        } => {
            let Some(key) = key.key() else { return Ok(()) };
            let row = UploadRow {
                key,
                id,
                generation: file.generation,
                begun_ms,
                start,
            };
            write_upload(connection, &row)
        }
        Record::Reserved { name } => {
            let there = lookup::reserved(connection, &name)?;
            if there.is_none_or(|there| there.generation < file.generation) {
                insert_reserved(connection, &name, file)?;
            }
            Ok(())
        }
        staged @ (Record::Part { .. } | Record::Tags { .. }) => stage(connection, file, staged),
    }
}

fn is_newest(connection: &Connection, key: &[u8], generation: u64) -> rusqlite::Result<bool> {
    connection
        .prepare_cached(
            "SELECT NOT EXISTS (SELECT 1 FROM objects WHERE key = ?1 AND generation > ?2)",
        )?
        .query_row(params![key, int(generation)], |row| row.get(0))
}

/// Keeps what can only be used once everything has been read.
fn stage(connection: &Connection, file: FileRef, record: Record) -> rusqlite::Result<()> {
    match record {
        Record::Part {
            upload,
            number,
            etag,
            modified_ms,
            checksum,
            ..
        } => {
            let row = PartRow {
                number,
                file,
                etag,
                modified_ms,
                checksum,
            };
            connection
                .prepare_cached(
                    "INSERT INTO staged_parts VALUES (?1, ?2, ?3, ?4)
                     ON CONFLICT DO UPDATE SET generation = excluded.generation, row = excluded.row
                     WHERE excluded.generation > generation",
                )?
                .execute(params![
                    upload,
                    number,
                    int(file.generation),
                    to_json(&row)?
                ])
                .map(drop)
        }
        Record::Tags { key, target, tags } => {
            let Some(key) = key.key() else { return Ok(()) };
            connection
                .prepare_cached(
                    "INSERT INTO staged_tags VALUES (?1, ?2, ?3, ?4)
                     ON CONFLICT DO UPDATE SET target = excluded.target,
                        generation = excluded.generation, tags = excluded.tags
                     WHERE excluded.generation > generation",
                )?
                .execute(params![
                    key.as_bytes(),
                    int(target),
                    int(file.generation),
                    to_json(&tags)?
                ])
                .map(drop)
        }
        _ => Ok(()),
    }
}

/// Puts together what only fits once everything has been read.
fn conclude(connection: &Connection, highest: u64) -> rusqlite::Result<()> {
    // An upload that became an object has ended, and parts of neither belong to nothing.
    connection.execute_batch(
        "DELETE FROM uploads WHERE id IN (SELECT upload FROM objects WHERE upload IS NOT NULL);
         DELETE FROM parts WHERE upload NOT IN
            (SELECT upload FROM objects WHERE upload IS NOT NULL);",
    )?;
    let mut parts = connection
        .prepare("SELECT upload, row FROM staged_parts WHERE upload IN (SELECT id FROM uploads)")?;
    let mut rows = parts.query([])?;
    while let Some(row) = rows.next()? {
        let upload: String = row.get(0)?;
        write_part(connection, &upload, &super::index::json(row, 1)?)?;
    }
    drop(rows);
    drop(parts);
    let mut tags = connection.prepare(
        "SELECT t.key, t.generation, t.tags FROM staged_tags t
         JOIN objects o ON o.key = t.key AND o.generation = t.target",
    )?;
    let mut rows = tags.query([])?;
    while let Some(row) = rows.next()? {
        let key: Vec<u8> = row.get(0)?;
        let Some(object) = lookup::object(connection, &key)? else {
            continue;
        };
        let mut details = object.facts.details;
        details.tags = super::index::json(row, 2)?;
        connection.execute(
            "UPDATE objects SET tags_generation = ?2, details = ?3 WHERE key = ?1",
            params![key, row.get::<_, i64>(1)?, to_json(&details)?],
        )?;
    }
    drop(rows);
    drop(tags);
    connection.execute_batch("DROP TABLE staged_parts; DROP TABLE staged_tags;")?;
    schema::set_generation_limit(connection, highest.saturating_add(1))
}
