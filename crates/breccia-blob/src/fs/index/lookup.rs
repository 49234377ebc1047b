//! Look-ups in the index: objects, parts, uploads, reserved objects, pages of listings.
//!
//! Nothing is changed here. Invariant: a page costs as much as it holds, not as much as lies
//! before it or is rolled up in it.

use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::super::records::{Facts, FileRef, ObjectRow, PartRow, UploadRow};
use super::{int, json, unsigned, unsigned_or_none};
use crate::key::Key;
use crate::listing::{
    ListPage, ListRequest, ListedObject, MAX_PAGE, RollUp, Start, Step, successor,
};
use crate::meta::ETag;
use crate::upload::{UploadId, UploadInfo, UploadPage};

const PART_COLUMNS: &str = "number, generation, size, file_bytes, etag, modified_ms, checksum";

/// The object of a key, with its parts: of one snapshot.
pub(crate) fn object(connection: &Connection, key: &[u8]) -> rusqlite::Result<Option<ObjectRow>> {
    // One statement reads one snapshot; an object in parts needs two, and so a transaction.
    let row = object_alone(connection, key)?;
    if row.as_ref().is_none_or(|row| row.upload.is_none()) {
        return Ok(row);
    }
    let transaction = connection.unchecked_transaction()?;
    let mut row = object_alone(&transaction, key)?;
    if let Some(row) = &mut row
        && let Some(upload) = &row.upload
    {
        row.parts = parts(&transaction, upload, 0, usize::MAX)?;
    }
    transaction.finish()?;
    Ok(row)
}

fn object_alone(connection: &Connection, key: &[u8]) -> rusqlite::Result<Option<ObjectRow>> {
    connection
        .prepare_cached(
            "SELECT size, modified_ms, etag, generation, file_bytes, upload, details
             FROM objects WHERE key = ?1",
        )?
        .query_row([key], |row| {
            let size = unsigned(row, 0)?;
            let upload: Option<String> = row.get(5)?;
            Ok(ObjectRow {
                facts: Facts {
                    size,
                    modified_ms: unsigned(row, 1)?,
                    etag: ETag::from_text(row.get::<_, String>(2)?),
                    details: json(row, 6)?,
                },
                file: FileRef {
                    generation: unsigned(row, 3)?,
                    size: if upload.is_some() { 0 } else { size },
                    file_bytes: unsigned(row, 4)?,
                },
                upload,
                parts: Vec::new(),
            })
        })
        .optional()
}

fn part(row: &Row<'_>) -> rusqlite::Result<PartRow> {
    let number: u16 = row.get(0)?;
    let checksum = match row.get_ref(6)? {
        rusqlite::types::ValueRef::Null => None,
        _ => Some(json(row, 6)?),
    };
    Ok(PartRow {
        number,
        file: FileRef {
            generation: unsigned(row, 1)?,
            size: unsigned(row, 2)?,
            file_bytes: unsigned(row, 3)?,
        },
        etag: ETag::from_text(row.get::<_, String>(4)?),
        modified_ms: unsigned(row, 5)?,
        checksum,
    })
}

/// The parts of an upload with numbers above `after`.
pub(crate) fn parts(
    connection: &Connection,
    upload: &str,
    after: u16,
    limit: usize,
) -> rusqlite::Result<Vec<PartRow>> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    connection
        .prepare_cached(&format!(
            "SELECT {PART_COLUMNS} FROM parts WHERE upload = ?1 AND number > ?2
             ORDER BY number LIMIT ?3"
        ))?
        .query_map(params![upload, after, limit], part)?
        .collect()
}

/// One part of an upload.
pub(crate) fn one_part(
    connection: &Connection,
    upload: &str,
    number: u16,
) -> rusqlite::Result<Option<PartRow>> {
    connection
        .prepare_cached(&format!(
            "SELECT {PART_COLUMNS} FROM parts WHERE upload = ?1 AND number = ?2"
        ))?
        .query_row(params![upload, number], part)
        .optional()
}

/// An upload that was begun and has not ended.
pub(crate) fn upload(
    connection: &Connection,
    key: &Key,
    id: &str,
) -> rusqlite::Result<Option<UploadRow>> {
    connection
        .prepare_cached(
            "SELECT generation, begun_ms, start FROM uploads WHERE key = ?1 AND id = ?2",
        )?
        .query_row(params![key.as_bytes(), id], |row| {
            Ok(UploadRow {
                key: key.clone(),
                id: id.to_owned(),
                generation: unsigned(row, 0)?,
                begun_ms: unsigned(row, 1)?,
                start: json(row, 2)?,
            })
        })
        .optional()
}

/// An upload with parts: of one snapshot.
pub(crate) fn upload_with_parts(
    connection: &Connection,
    key: &Key,
    id: &str,
    after: u16,
    limit: usize,
) -> rusqlite::Result<Option<(UploadRow, Vec<PartRow>)>> {
    let transaction = connection.unchecked_transaction()?;
    let found = match upload(&transaction, key, id)? {
        Some(row) => Some((row, parts(&transaction, id, after, limit)?)),
        None => None,
    };
    transaction.finish()?;
    Ok(found)
}

/// One page of uploads.
pub(crate) fn uploads(
    connection: &Connection,
    prefix: &[u8],
    after: Option<&(Key, Option<UploadId>)>,
    limit: usize,
) -> rusqlite::Result<UploadPage> {
    // Behind (key, id); behind every upload of a key; or from the first key on.
    let (from, id) = match after {
        Some((key, id)) if key.as_bytes() >= prefix => {
            (key.as_bytes(), id.as_ref().map(|id| id.0.as_str()))
        }
        _ => (prefix, Some("")),
    };
    let end = successor(prefix);
    let take = limit.clamp(1, MAX_PAGE).saturating_add(1);
    let mut statement = connection.prepare_cached(
        "SELECT key, id, begun_ms FROM uploads
         WHERE key >= ?1 AND (key > ?1 OR (?2 IS NOT NULL AND id > ?2))
           AND (?3 IS NULL OR key < ?3)
         ORDER BY key, id LIMIT ?4",
    )?;
    let count = i64::try_from(take).unwrap_or(i64::MAX);
    let rows = statement.query_map(params![from, id, end.as_deref(), count], |row| {
        Ok(UploadInfo {
            key: key_of(row, 0)?,
            id: UploadId(row.get(1)?),
            begun_ms: unsigned(row, 2)?,
        })
    })?;
    let mut uploads = rows.collect::<rusqlite::Result<Vec<_>>>()?;
    let more = uploads.len() >= take;
    uploads.truncate(take.saturating_sub(1));
    Ok(UploadPage { uploads, more })
}

/// Uploads begun before a time, at most so many.
pub(crate) fn expired_uploads(
    connection: &Connection,
    before_ms: u64,
    limit: usize,
) -> rusqlite::Result<Vec<(Key, String)>> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    connection
        .prepare_cached("SELECT key, id FROM uploads WHERE begun_ms < ?1 LIMIT ?2")?
        .query_map([int(before_ms), limit], |row| {
            Ok((key_of(row, 0)?, row.get(1)?))
        })?
        .collect()
}

/// A reserved object.
pub(crate) fn reserved(connection: &Connection, name: &str) -> rusqlite::Result<Option<FileRef>> {
    connection
        .prepare_cached("SELECT generation, size, file_bytes FROM reserved WHERE name = ?1")?
        .query_row([name], |row| {
            Ok(FileRef {
                generation: unsigned(row, 0)?,
                size: unsigned(row, 1)?,
                file_bytes: unsigned(row, 2)?,
            })
        })
        .optional()
}

/// Names of reserved objects.
pub(crate) fn reserved_names(
    connection: &Connection,
    prefix: &str,
    after: Option<&str>,
) -> rusqlite::Result<Vec<String>> {
    let limit = i64::try_from(MAX_PAGE).unwrap_or(i64::MAX);
    let mut statement = connection.prepare_cached(
        "SELECT name FROM reserved WHERE name >= ?1 AND (?2 IS NULL OR name > ?2)
         ORDER BY name",
    )?;
    let rows = statement.query_map(params![prefix, after], |row| row.get::<_, String>(0))?;
    let mut names = Vec::new();
    for name in rows {
        let name = name?;
        if !name.starts_with(prefix) || int(names.len() as u64) >= limit {
            break;
        }
        names.push(name);
    }
    Ok(names)
}

fn key_of(row: &Row<'_>, column: usize) -> rusqlite::Result<Key> {
    let bytes: Vec<u8> = row.get(column)?;
    Key::new(bytes).map_err(|problem| {
        rusqlite::Error::FromSqlConversionFailure(
            column,
            rusqlite::types::Type::Blob,
            Box::new(problem),
        )
    })
}

/// One page of a listing: after a common prefix it seeks to what lies behind it.
pub(crate) fn list(connection: &Connection, request: ListRequest) -> rusqlite::Result<ListPage> {
    let end = successor(&request.prefix);
    let mut roll_up = RollUp::new(request);
    // A page of many common prefixes is many statements, and must be of one snapshot.
    let transaction = connection.unchecked_transaction()?;
    loop {
        let (comparison, from) = match roll_up.next().clone() {
            Start::At(key) => (">=", key),
            Start::Behind(key) => (">", key),
            Start::Nowhere => break,
        };
        let mut statement = transaction.prepare_cached(&format!(
            "SELECT key, size, modified_ms, etag FROM objects
             WHERE key {comparison} ?1 AND {} ORDER BY key",
            if end.is_some() {
                "key < ?2"
            } else {
                "?2 IS NULL"
            }
        ))?;
        let mut rows = statement.query(params![&from[..], end.as_deref()])?;
        let mut step = Step::Go;
        while let Some(row) = rows.next()? {
            step = roll_up.push(ListedObject {
                key: key_of(row, 0)?,
                size: unsigned(row, 1)?,
                modified_ms: unsigned(row, 2)?,
                etag: ETag::from_text(row.get::<_, String>(3)?),
            });
            if step != Step::Go {
                break;
            }
        }
        if step != Step::Skip {
            break;
        }
    }
    transaction.finish()?;
    Ok(roll_up.finish())
}

/// The generation of a key's object.
pub(crate) fn generation(connection: &Connection, key: &[u8]) -> rusqlite::Result<Option<u64>> {
    connection
        .prepare_cached("SELECT generation FROM objects WHERE key = ?1")?
        .query_row([key], |row| unsigned(row, 0))
        .optional()
}

/// The files that an object of the index is made of, but for its parts.
#[derive(Debug)]
pub(crate) struct Named {
    pub(crate) generation: u64,
    pub(crate) tags_generation: Option<u64>,
    pub(crate) upload: Option<String>,
}

/// What is named for a key.
pub(crate) fn named(connection: &Connection, key: &[u8]) -> rusqlite::Result<Option<Named>> {
    connection
        .prepare_cached("SELECT generation, tags_generation, upload FROM objects WHERE key = ?1")?
        .query_row([key], |row| {
            Ok(Named {
                generation: unsigned(row, 0)?,
                tags_generation: unsigned_or_none(row, 1)?,
                upload: row.get(2)?,
            })
        })
        .optional()
}

/// Asks for next to nothing.
pub(crate) fn sign_of_life(connection: &Connection) -> rusqlite::Result<()> {
    super::schema::generation_limit(connection).map(drop)
}
