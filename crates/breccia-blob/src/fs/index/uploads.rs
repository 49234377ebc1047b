//! The changes of the index that uploads ask for.
//!
//! Not those of objects (see `change`). Invariant: as there; and an upload's rows go in the very
//! change that ends it.

use rusqlite::{Connection, params};

use super::super::records::{PartRow, UploadRow};
use super::change::{Completion, Decision, made, put};
use super::{int, lookup, to_json};
use crate::error::BlobError;
use crate::key::Key;

pub(super) fn remove_parts(connection: &Connection, upload: &str) -> rusqlite::Result<()> {
    connection
        .prepare_cached("DELETE FROM parts WHERE upload = ?1")?
        .execute([upload])
        .map(drop)
}

pub(super) fn create_upload(
    connection: &Connection,
    row: &UploadRow,
) -> rusqlite::Result<Decision> {
    write_upload(connection, row)?;
    Ok(Ok(made(Vec::new())))
}

/// Writes the row of an upload.
pub(crate) fn write_upload(connection: &Connection, row: &UploadRow) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "INSERT OR REPLACE INTO uploads (key, id, generation, begun_ms, start)
             VALUES (?1, ?2, ?3, ?4, ?5)",
        )?
        .execute(params![
            row.key.as_bytes(),
            row.id,
            int(row.generation),
            int(row.begun_ms),
            to_json(&row.start)?,
        ])
        .map(drop)
}

pub(super) fn put_part(
    connection: &Connection,
    key: &Key,
    upload: &str,
    part: &PartRow,
) -> rusqlite::Result<Decision> {
    if lookup::upload(connection, key, upload)?.is_none() {
        return Ok(Err(BlobError::NoSuchUpload));
    }
    let replaced = lookup::one_part(connection, upload, part.number)?;
    write_part(connection, upload, part)?;
    let garbage = replaced.map(|part| part.file.generation);
    Ok(Ok(made(garbage.into_iter().collect())))
}

/// Writes the row of a part, over one of the same number.
pub(crate) fn write_part(
    connection: &Connection,
    upload: &str,
    part: &PartRow,
) -> rusqlite::Result<()> {
    let checksum = part.checksum.as_ref().map(to_json).transpose()?;
    connection
        .prepare_cached(
            "INSERT OR REPLACE INTO parts (upload, number, generation, size, file_bytes, etag,
                modified_ms, checksum) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        )?
        .execute(params![
            upload,
            part.number,
            int(part.file.generation),
            int(part.file.size),
            int(part.file.file_bytes),
            part.etag.as_str(),
            int(part.modified_ms),
            checksum,
        ])
        .map(drop)
}

pub(super) fn complete(
    connection: &Connection,
    store: &str,
    completion: &Completion,
) -> rusqlite::Result<Decision> {
    let (key, upload) = (&completion.object.key, &completion.upload);
    let Some(row) = lookup::upload(connection, key, upload)? else {
        return Ok(Err(BlobError::NoSuchUpload));
    };
    let there = lookup::parts(connection, upload, 0, usize::MAX)?;
    let mut chosen = completion.parts.iter().peekable();
    let mut unused = Vec::new();
    for part in &there {
        if chosen.next_if(|chosen| *chosen == part).is_none() {
            unused.push(part);
        }
    }
    if chosen.peek().is_some() {
        // A part was replaced while the manifest was written.
        let store = store.to_owned();
        return Ok(Err(BlobError::Conflict { store }));
    }
    let decision = put(connection, &completion.object, Some(upload))?;
    let Ok(mut applied) = decision else {
        return Ok(decision);
    };
    for part in unused {
        connection
            .prepare_cached("DELETE FROM parts WHERE upload = ?1 AND number = ?2")?
            .execute(params![upload, part.number])?;
        applied.garbage.push(part.file.generation);
    }
    remove_upload(connection, key, upload)?;
    applied.garbage.push(row.generation);
    Ok(Ok(applied))
}

fn remove_upload(connection: &Connection, key: &Key, upload: &str) -> rusqlite::Result<()> {
    connection
        .prepare_cached("DELETE FROM uploads WHERE key = ?1 AND id = ?2")?
        .execute(params![key.as_bytes(), upload])
        .map(drop)
}

pub(super) fn abort(
    connection: &Connection,
    key: &Key,
    upload: &str,
    before_ms: Option<u64>,
) -> rusqlite::Result<Decision> {
    let row = lookup::upload(connection, key, upload)?;
    let row = row.filter(|row| before_ms.is_none_or(|before| row.begun_ms < before));
    let Some(row) = row else {
        return Ok(Err(BlobError::NoSuchUpload));
    };
    let parts = lookup::parts(connection, upload, 0, usize::MAX)?;
    let mut garbage = vec![row.generation];
    garbage.extend(parts.iter().map(|part| part.file.generation));
    remove_parts(connection, upload)?;
    remove_upload(connection, key, upload)?;
    Ok(Ok(made(garbage)))
}
