//! The changes of the index: each is decided and made inside the committer's transaction.
//!
//! Not the transaction itself (see `commit`). Invariant: a change that answers an error of the
//! request has changed nothing, so the other changes of its batch go on.

use rusqlite::{Connection, OptionalExtension as _, params};

use super::super::records::{Facts, FileRef, PartRow, UploadRow};
use super::uploads::{abort, complete, create_upload, put_part, remove_parts};
use super::{int, lookup, to_json, unsigned, unsigned_or_none};
use crate::condition::WriteCondition;
use crate::error::BlobError;
use crate::key::Key;
use crate::meta::{ETag, Tags};

/// A change that somebody asks for.
#[derive(Debug)]
pub(crate) enum Change {
    /// An object in one file.
    Put(Box<Publication>),
    /// No object.
    Delete { key: Key, condition: WriteCondition },
    /// Other tags for the object of generation `target`.
    SetTags {
        key: Key,
        target: u64,
        tags: Tags,
        generation: u64,
    },
    /// A new upload.
    CreateUpload(Box<UploadRow>),
    /// A part, in place of one of the same number.
    PutPart {
        key: Key,
        upload: String,
        part: PartRow,
    },
    /// An object made of the parts of an upload, which ends.
    Complete(Box<Completion>),
    /// An upload that ends without an object. `before_ms`: only if it was begun before that.
    Abort {
        key: Key,
        upload: String,
        before_ms: Option<u64>,
    },
    /// A reserved object.
    WriteReserved {
        name: String,
        file: FileRef,
        if_absent: bool,
    },
    /// No reserved object.
    DeleteReserved { name: String },
    /// Nothing but the reservation of more generations, which every batch sees to.
    Reserve,
}

/// An object that becomes visible.
#[derive(Debug)]
pub(crate) struct Publication {
    pub(crate) key: Key,
    pub(crate) facts: Facts,
    /// Its data, or the manifest of its parts.
    pub(crate) file: FileRef,
    pub(crate) condition: WriteCondition,
}

/// How an upload is completed.
#[derive(Debug)]
pub(crate) struct Completion {
    pub(crate) object: Publication,
    pub(crate) upload: String,
    /// The parts of the object, as they were when the manifest was written.
    pub(crate) parts: Vec<PartRow>,
}

/// What a change has come to.
#[derive(Debug)]
pub(crate) struct Applied {
    /// Whether it was made: `false` if there was nothing to delete, or a reserved object to keep.
    pub(crate) made: bool,
    /// Files that nothing refers to any longer once this is committed.
    pub(crate) garbage: Vec<u64>,
}

/// A change is applied, or refused for reasons of the request.
pub(crate) type Decision = Result<Applied, BlobError>;

/// A change that was made.
pub(super) fn made(garbage: Vec<u64>) -> Applied {
    Applied {
        made: true,
        garbage,
    }
}

const NOTHING: Decision = Ok(Applied {
    made: false,
    garbage: Vec::new(),
});

impl Change {
    /// Whether it makes room on the disk.
    pub(crate) fn frees(&self) -> bool {
        matches!(
            self,
            Self::Delete { .. } | Self::Abort { .. } | Self::DeleteReserved { .. }
        )
    }

    /// Decides about it and makes it.
    pub(crate) fn apply(&self, connection: &Connection, store: &str) -> rusqlite::Result<Decision> {
        match self {
            Self::Put(object) => put(connection, object, None),
            Self::Delete { key, condition } => delete(connection, key, condition),
            Self::SetTags {
                key,
                target,
                tags,
                generation,
            } => set_tags(connection, store, key, *target, tags, *generation),
            Self::CreateUpload(row) => create_upload(connection, row),
            Self::PutPart { key, upload, part } => put_part(connection, key, upload, part),
            Self::Complete(completion) => complete(connection, store, completion),
            Self::Abort {
                key,
                upload,
                before_ms,
            } => abort(connection, key, upload, *before_ms),
            Self::WriteReserved {
                name,
                file,
                if_absent,
            } => write_reserved(connection, name, *file, *if_absent),
            Self::DeleteReserved { name } => delete_reserved(connection, name),
            Self::Reserve => Ok(NOTHING),
        }
    }
}

/// What of a key's object a write must know.
struct Current {
    etag: ETag,
    generation: u64,
    tags_generation: Option<u64>,
    upload: Option<String>,
}

fn current(connection: &Connection, key: &Key) -> rusqlite::Result<Option<Current>> {
    connection
        .prepare_cached(
            "SELECT etag, generation, tags_generation, upload FROM objects WHERE key = ?1",
        )?
        .query_row([key.as_bytes()], |row| {
            Ok(Current {
                etag: ETag::from_text(row.get::<_, String>(0)?),
                generation: unsigned(row, 1)?,
                tags_generation: unsigned_or_none(row, 2)?,
                upload: row.get(3)?,
            })
        })
        .optional()
}

/// The files of an object that is replaced or removed; its parts leave the index here.
fn released(connection: &Connection, current: Option<&Current>) -> rusqlite::Result<Vec<u64>> {
    let Some(current) = current else {
        return Ok(Vec::new());
    };
    // The manifest goes first, so that a rebuild does not find one without its parts.
    let mut garbage = vec![current.generation];
    garbage.extend(current.tags_generation);
    if let Some(upload) = &current.upload {
        let parts = lookup::parts(connection, upload, 0, usize::MAX)?;
        garbage.extend(parts.iter().map(|part| part.file.generation));
        remove_parts(connection, upload)?;
    }
    Ok(garbage)
}

pub(super) fn put(
    connection: &Connection,
    object: &Publication,
    upload: Option<&str>,
) -> rusqlite::Result<Decision> {
    let Publication {
        key,
        facts,
        file,
        condition,
    } = object;
    let there = current(connection, key)?;
    let etag = there.as_ref().map(|there| &there.etag);
    if let Err(refused) = condition.check(etag, || BlobError::NotFound) {
        return Ok(Err(refused));
    }
    let garbage = released(connection, there.as_ref())?;
    write_object(connection, key, facts, *file, upload)?;
    Ok(Ok(made(garbage)))
}

/// Writes the row of an object, over the one there is.
pub(crate) fn write_object(
    connection: &Connection,
    key: &Key,
    facts: &Facts,
    file: FileRef,
    upload: Option<&str>,
) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "INSERT OR REPLACE INTO objects (key, size, modified_ms, etag, generation, file_bytes,
                tags_generation, upload, details) VALUES (?1, ?2, ?3, ?4, ?5, ?6, NULL, ?7, ?8)",
        )?
        .execute(params![
            key.as_bytes(),
            int(facts.size),
            int(facts.modified_ms),
            facts.etag.as_str(),
            int(file.generation),
            int(file.file_bytes),
            upload,
            to_json(&facts.details)?,
        ])
        .map(drop)
}

fn delete(
    connection: &Connection,
    key: &Key,
    condition: &WriteCondition,
) -> rusqlite::Result<Decision> {
    let there = current(connection, key)?;
    let etag = there.as_ref().map(|there| &there.etag);
    if let Err(refused) = condition.check(etag, || BlobError::NotFound) {
        return Ok(Err(refused));
    }
    if there.is_none() {
        return Ok(NOTHING);
    }
    let garbage = released(connection, there.as_ref())?;
    connection
        .prepare_cached("DELETE FROM objects WHERE key = ?1")?
        .execute([key.as_bytes()])?;
    Ok(Ok(made(garbage)))
}

fn set_tags(
    connection: &Connection,
    store: &str,
    key: &Key,
    target: u64,
    tags: &Tags,
    generation: u64,
) -> rusqlite::Result<Decision> {
    let there = current(connection, key)?.filter(|there| there.generation == target);
    let row = lookup::object(connection, key.as_bytes())?;
    let (Some(there), Some(row)) = (there, row) else {
        let store = store.to_owned();
        return Ok(Err(BlobError::Conflict { store }));
    };
    let mut details = row.facts.details;
    details.tags.clone_from(tags);
    connection
        .prepare_cached("UPDATE objects SET tags_generation = ?2, details = ?3 WHERE key = ?1")?
        .execute(params![key.as_bytes(), int(generation), to_json(&details)?])?;
    Ok(Ok(made(there.tags_generation.into_iter().collect())))
}

fn write_reserved(
    connection: &Connection,
    name: &str,
    file: FileRef,
    if_absent: bool,
) -> rusqlite::Result<Decision> {
    let there = lookup::reserved(connection, name)?;
    if there.is_some() && if_absent {
        return Ok(NOTHING);
    }
    insert_reserved(connection, name, file)?;
    Ok(Ok(made(
        there.map(|file| file.generation).into_iter().collect(),
    )))
}

/// Writes the row of a reserved object, over the one there is.
pub(crate) fn insert_reserved(
    connection: &Connection,
    name: &str,
    file: FileRef,
) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "INSERT OR REPLACE INTO reserved (name, generation, size, file_bytes)
             VALUES (?1, ?2, ?3, ?4)",
        )?
        .execute(params![
            name,
            int(file.generation),
            int(file.size),
            int(file.file_bytes)
        ])
        .map(drop)
}

fn delete_reserved(connection: &Connection, name: &str) -> rusqlite::Result<Decision> {
    let Some(file) = lookup::reserved(connection, name)? else {
        return Ok(NOTHING);
    };
    connection
        .prepare_cached("DELETE FROM reserved WHERE name = ?1")?
        .execute([name])?;
    Ok(Ok(made(vec![file.generation])))
}
