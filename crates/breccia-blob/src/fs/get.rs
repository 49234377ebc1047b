//! Opening an object: look-up, conditions, range, first bytes.
//!
//! Not the reading of files (see `read`). Invariant: the conditions, the range and the bytes are of
//! the one version that was looked up last.

use std::sync::Arc;

use super::Inner;
use super::index::lookup;
use super::read::{Fault, ObjectSource, Reader, Walk, slice};
use super::records::ObjectRow;
use super::sweep::Pins;
use crate::body::Whole;
use crate::error::BlobError;
use crate::key::Key;
use crate::store::{GetOptions, Opened};

/// So often something is looked up anew because it was replaced between look-up and open.
pub(super) const LOOK_UPS: usize = 16;

/// The object of a key.
pub(super) async fn find(inner: &Arc<Inner>, key: &Key) -> Result<ObjectRow, BlobError> {
    let key = key.clone();
    let row = inner
        .look_up(move |connection| lookup::object(connection, key.as_bytes()))
        .await?;
    row.ok_or(BlobError::NotFound)
}

/// Opens the object of a key.
pub(super) async fn get(
    inner: &Arc<Inner>,
    key: &Key,
    options: GetOptions,
) -> Result<Opened, BlobError> {
    if let Some(opened) = open_hot(inner, key, &options)? {
        return Ok(opened);
    }
    let key = key.clone();
    inner
        .read_blocking(move |inner| open_object(inner, &key, &options))
        .await
}

/// Opens a small object that was read lately, without waiting for anything; none if that cannot be.
fn open_hot(inner: &Inner, key: &Key, options: &GetOptions) -> Result<Option<Opened>, BlobError> {
    let Some(entry) = inner.hot.get(key) else {
        return Ok(None);
    };
    options.conditions.check(&entry.meta)?;
    let range = match options.span {
        Some(span) => span.of(entry.meta.size)?,
        None => 0..entry.meta.size,
    };
    // What is damaged is found again, and told, on the long way.
    let bytes = entry.read().and_then(|data| slice(&data, &range).ok());
    Ok(bytes.map(|bytes| Opened {
        meta: entry.meta.clone(),
        range,
        source: Box::new(Whole::new(bytes)),
    }))
}

/// Looks the object up, opens it and reads its first bytes, all on one thread.
fn open_object(inner: &Arc<Inner>, key: &Key, options: &GetOptions) -> Result<Opened, BlobError> {
    let mut missed = None;
    for _ in 0..LOOK_UPS {
        let since = inner.hot.since(key);
        let row = inner.index.read(|c| lookup::object(c, key.as_bytes()))?;
        let row = row.ok_or(BlobError::NotFound)?;
        let meta = row.meta();
        options.conditions.check(&meta)?;
        let range = match options.span {
            Some(span) => span.of(meta.size)?,
            None => 0..meta.size,
        };
        let pins = row.upload.is_some().then(|| pin(inner, &row));
        if pins.is_some() && !is_still(inner, key, &row)? {
            continue;
        }
        let mut walk = Walk::new(key.clone(), &row.pieces(), &range);
        if row.upload.is_none() {
            match Reader::open(&inner.folder, row.file) {
                Ok(reader) => {
                    if let Some(file) = reader.small_file() {
                        inner.hot.put(key, since, &meta, file, row.file);
                    }
                    walk = walk.with_open(reader);
                }
                // Replaced since it was looked up, unless the same one is missing twice.
                Err(Fault::Gone) if missed != Some(row.file.generation) => {
                    missed = Some(row.file.generation);
                    continue;
                }
                Err(fault) => {
                    let whose = format!("key {key}");
                    let error = fault.error(&inner.folder, &whose, row.file.generation);
                    tracing::warn!(store = inner.folder.name(), %error, "an object cannot be read");
                    return Err(error);
                }
            }
        }
        let first = walk.step(&inner.folder)?;
        let source = Box::new(ObjectSource::new(inner, first, walk, pins));
        return Ok(Opened {
            meta,
            range,
            source,
        });
    }
    Err(BlobError::Conflict {
        store: inner.folder.name().to_owned(),
    })
}

fn pin(inner: &Arc<Inner>, row: &ObjectRow) -> Pins {
    let files = row.pieces();
    inner
        .sweep
        .pin(files.iter().map(|file| file.generation).collect())
}

/// Whether a pinned object is the object of its key still, so that whoever removes it later meets
/// the pins.
fn is_still(inner: &Inner, key: &Key, row: &ObjectRow) -> Result<bool, BlobError> {
    let now = inner
        .index
        .read(|connection| lookup::generation(connection, key.as_bytes()))?;
    Ok(now == Some(row.file.generation))
}
