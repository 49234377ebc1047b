//! Leftovers of a start that may have been objects: they are put aside, and kept for a while.
//!
//! Not the files a rebuild can make nothing of (see `folder`). Invariant: a whole file is removed
//! only if the index names something newer in its place, or after [`KEPT_MS`] in the folder
//! `set-aside`; what a start has put there is not removed by that start.
//!
//! A write that was killed before its commit leaves a whole file too, and so does a delete that was
//! killed before the file went. Neither can be told from an object whose row a failing disk lost, or
//! that came after the copy of the index that was put back. So they are all kept, within bounds.

use std::fs::{self, File};
use std::io;
use std::path::PathBuf;
use std::time::{Duration, UNIX_EPOCH};

use breccia_core::error::Effect;
use breccia_net::clock;
use rusqlite::Connection;

use super::folder::Folder;
use super::index::lookup::{self, Named};
use super::read::{Fault, read_record};
use super::records::{HexText, Record};
use crate::error::BlobError;

/// So long a file that was put aside is kept: a week, to be noticed in.
const KEPT_MS: u64 = 7 * 24 * 60 * 60 * 1000;
const LIMITS: Limits = Limits {
    files: 16_384,
    bytes: 16 * 1024 * 1024 * 1024,
};

/// How much may lie aside before a start adds to it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) files: usize,
    pub(super) bytes: u64,
}

/// What has become of the leftovers of a start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Settled {
    removed: u64,
    aside: u64,
}

/// What a leftover is.
enum Leftover {
    /// Nothing that was ever acknowledged, or something that was replaced.
    Worthless,
    /// As whole as an object, and nothing proves that it is none.
    Whole,
    /// The machine would not let it be read.
    Unreadable(io::Error),
}

/// Removes the leftovers that are worth nothing, and puts the others aside.
pub(super) fn settle(
    folder: &Folder,
    connection: &Connection,
    leftovers: &[u64],
) -> Result<(), BlobError> {
    clear(folder, clock::unix_ms(), LIMITS);
    let mut settled = Settled::default();
    for generation in leftovers {
        let leftover = judge(folder, connection, *generation)
            .map_err(|error| folder.index_error("read the index", &error, Effect::NotApplied))?;
        let (result, count) = match leftover {
            Leftover::Worthless => (
                fs::remove_file(folder.file(*generation)),
                &mut settled.removed,
            ),
            Leftover::Whole => (put_aside(folder, *generation), &mut settled.aside),
            Leftover::Unreadable(error) => (Err(error), &mut settled.aside),
        };
        match result {
            Ok(()) => *count = count.saturating_add(1),
            Err(error) => {
                let file = folder.file(*generation);
                tracing::warn!(store = folder.name(), file = %file.display(), %error,
                    "cannot clear a leftover away; the next start tries again");
            }
        }
    }
    report(folder, settled);
    Ok(())
}

fn report(folder: &Folder, settled: Settled) {
    if settled.removed > 0 {
        tracing::info!(
            store = folder.name(),
            count = settled.removed,
            "removed files that no object refers to: writes that were never acknowledged, or \
             versions that had been replaced"
        );
    }
    if settled.aside > 0 {
        tracing::warn!(
            store = folder.name(),
            count = settled.aside,
            folder = %folder.aside().display(),
            "the index does not know these files, but they are whole: they were put aside, and \
             are removed after seven days. After a kill they are writes that were never \
             acknowledged, or objects that had been deleted; otherwise the index has lost objects"
        );
    }
}

fn judge(folder: &Folder, connection: &Connection, generation: u64) -> rusqlite::Result<Leftover> {
    let record = match read_record(folder, generation) {
        Ok((_, record)) => record,
        Err(Fault::Io(error)) => return Ok(Leftover::Unreadable(error)),
        Err(Fault::Gone | Fault::Damaged(_)) => return Ok(Leftover::Worthless),
    };
    Ok(if is_replaced(connection, generation, &record)? {
        Leftover::Worthless
    } else {
        Leftover::Whole
    })
}

/// Whether the index names something newer in its place.
fn is_replaced(
    connection: &Connection,
    generation: u64,
    record: &Record,
) -> rusqlite::Result<bool> {
    Ok(match record {
        Record::Object { key, .. } | Record::Manifest { key, .. } | Record::Upload { key, .. } => {
            named(connection, key)?.is_some_and(|named| named.generation > generation)
        }
        Record::Part {
            key,
            upload,
            number,
            ..
        } => {
            // An object names the parts it is made of; the others ended with its upload.
            let by_object = named(connection, key)?.is_some_and(|named| {
                named.generation > generation || named.upload.as_ref() == Some(upload)
            });
            by_object
                || lookup::one_part(connection, upload, *number)?
                    .is_some_and(|part| part.file.generation > generation)
        }
        Record::Tags { key, target, .. } => named(connection, key)?.is_some_and(|named| {
            named.generation > *target
                || named.tags_generation.is_some_and(|tags| tags > generation)
        }),
        Record::Reserved { name } => {
            lookup::reserved(connection, name)?.is_some_and(|file| file.generation > generation)
        }
    })
}

/// What the index names for a key; nothing for one that is none.
fn named(connection: &Connection, key: &HexText) -> rusqlite::Result<Option<Named>> {
    match key.key() {
        Some(key) => lookup::named(connection, key.as_bytes()),
        None => Ok(None),
    }
}

fn put_aside(folder: &Folder, generation: u64) -> io::Result<()> {
    // Before it is moved: whatever lies there tells since when.
    let now = UNIX_EPOCH
        .checked_add(Duration::from_millis(clock::unix_ms()))
        .unwrap_or(UNIX_EPOCH);
    File::open(folder.file(generation))?.set_modified(now)?;
    folder.put_aside(generation)
}

/// A file that lies aside.
struct Aside {
    since_ms: u64,
    bytes: u64,
    path: PathBuf,
}

/// Removes what has lain aside for long enough, as `maintain` does; answers how many files.
pub(super) fn expire(folder: &Folder, now_ms: u64) -> u64 {
    let unlimited = Limits {
        files: usize::MAX,
        bytes: u64::MAX,
    };
    clear(folder, now_ms, unlimited)
}

/// Removes what has lain aside for long enough, and of the rest the oldest beyond the limits.
pub(super) fn clear(folder: &Folder, now_ms: u64, limits: Limits) -> u64 {
    let result = list(folder).map(|mut files| {
        // The newest first: they are kept as long as there is room.
        files.sort_by(|a, b| (b.since_ms, &b.path).cmp(&(a.since_ms, &a.path)));
        remove_surplus(folder, &files, now_ms, limits)
    });
    result.unwrap_or_else(|error| {
        tracing::warn!(store = folder.name(), folder = %folder.aside().display(), %error,
            "cannot look at the files that were put aside");
        0
    })
}

fn remove_surplus(folder: &Folder, files: &[Aside], now_ms: u64, limits: Limits) -> u64 {
    let (mut room, mut expired, mut crowded_out) = (limits.bytes, 0_u64, 0_u64);
    let mut is_full = false;
    for (at, file) in files.iter().enumerate() {
        let is_old = now_ms.saturating_sub(file.since_ms) > KEPT_MS;
        match room.checked_sub(file.bytes) {
            Some(left) => room = left,
            None => is_full = true,
        }
        is_full |= at >= limits.files;
        if !is_old && !is_full {
            continue;
        }
        if let Err(error) = fs::remove_file(&file.path) {
            tracing::warn!(store = folder.name(), file = %file.path.display(), %error,
                "cannot remove a file that was put aside");
            continue;
        }
        let count = if is_old {
            &mut expired
        } else {
            &mut crowded_out
        };
        *count = count.saturating_add(1);
    }
    let gone = expired.saturating_add(crowded_out);
    if gone > 0 {
        tracing::warn!(
            store = folder.name(),
            expired,
            crowded_out,
            "removed files that had been put aside"
        );
    }
    gone
}

fn list(folder: &Folder) -> io::Result<Vec<Aside>> {
    let mut files = Vec::new();
    folder.each_aside(|_, path| {
        let metadata = fs::metadata(&path)?;
        let since = metadata.modified()?.duration_since(UNIX_EPOCH);
        let since_ms = since.map_or(0, |since| since.as_millis());
        files.push(Aside {
            since_ms: u64::try_from(since_ms).unwrap_or(u64::MAX),
            bytes: metadata.len(),
            path,
        });
        Ok(())
    })?;
    Ok(files)
}
