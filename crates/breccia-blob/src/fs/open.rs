//! Opening a store: lock, index or its rebuild, leftovers, threads.
//!
//! Not what it does once it is open. Invariant: files are cleared away as leftovers only if the index
//! is known to be sound and its limit lies above their numbers; what becomes of them says `aside`.

use std::sync::Arc;

use breccia_core::error::Effect;
use rusqlite::Connection;
use tokio::sync::Semaphore;

use super::ballast::Ballast;
use super::commit::{Committer, Shared};
use super::folder::Folder;
use super::generations::Generations;
use super::hot::Hot;
use super::index::{Index, open_writer, schema};
use super::sweep::{Sweep, Sweeper};
use super::{FsOptions, Inner, READS, WRITES, aside, rebuild};
use crate::error::BlobError;

/// An index up to this size is checked whole when it is opened.
const CHECKED_INDEX_BYTES: u64 = 64 * 1024 * 1024;
const NOT_APPLIED: Effect = Effect::NotApplied;

/// Opens a store; blocks.
pub(super) fn open(options: &FsOptions) -> Result<Inner, BlobError> {
    let folder = Arc::new(Folder::open(&options.name, &options.path)?);
    match open_in(&folder) {
        // To open takes a little room too. Without it nobody could delete anything.
        Err(BlobError::Full { .. }) if Ballast::let_go_in(&folder) => {
            tracing::warn!(
                store = folder.name(),
                "the disk is full; the room that was kept for deletes is used to start"
            );
            open_in(&folder)
        }
        opened => opened,
    }
}

fn open_in(folder: &Arc<Folder>) -> Result<Inner, BlobError> {
    let index = folder.index();
    let exists = index.try_exists().map_err(|error| {
        let what = format!("look at {}", index.display());
        folder.io_error(&what, &error, NOT_APPLIED)
    })?;
    if !exists && has_files(folder)? {
        rebuild::rebuild(folder)?;
    }
    let connection = open_index(folder)?;
    let next = clear_leftovers(folder, &connection)?;
    let generations = Arc::new(Generations::from(next));
    reserve(folder, &connection, &generations)?;
    let readers = Index::open(folder)?;
    let sweep = Sweep::new(folder);
    let ballast = Arc::new(Ballast::take(folder));
    let hot = Arc::new(Hot::new());
    let failed = |error: std::io::Error| folder.io_error("start a thread", &error, NOT_APPLIED);
    let sweeper = Sweeper::start(&sweep).map_err(failed)?;
    let shared = Shared {
        folder: Arc::clone(folder),
        sweep: Arc::clone(&sweep),
        generations: Arc::clone(&generations),
        ballast: Arc::clone(&ballast),
        hot: Arc::clone(&hot),
    };
    let committer = Committer::start(shared, connection).map_err(failed)?;
    Ok(Inner {
        folder: Arc::clone(folder),
        sweep,
        index: readers,
        generations,
        ballast,
        hot,
        reads: Arc::new(Semaphore::new(READS)),
        writes: Arc::new(Semaphore::new(WRITES)),
        committer,
        _sweeper: sweeper,
    })
}

fn has_files(folder: &Folder) -> Result<bool, BlobError> {
    let mut some = false;
    folder.each_generation(|_| {
        some = true;
        Ok(())
    })?;
    Ok(some)
}

fn refused(folder: &Folder, problem: String) -> BlobError {
    BlobError::Options {
        store: folder.name().to_owned(),
        problem,
    }
}

fn open_index(folder: &Folder) -> Result<Connection, BlobError> {
    let opening = format!("cannot open the index {}", folder.index().display());
    let failed = |error: rusqlite::Error| match folder.index_error(&opening, &error, NOT_APPLIED) {
        BlobError::Damaged { problem, .. } => {
            refused(folder, format!("the index is damaged: {problem}"))
        }
        full @ BlobError::Full { .. } => full,
        // The disk's fault, which may pass: refused is what never mends itself.
        other => other,
    };
    let connection = open_writer(&folder.index(), true).map_err(failed)?;
    if !has_tables(folder, &connection)? {
        schema::create(&connection).map_err(failed)?;
        folder
            .sync()
            .map_err(|error| folder.io_error("sync the folder", &error, NOT_APPLIED))?;
    }
    let size = std::fs::metadata(folder.index()).map_or(0, |metadata| metadata.len());
    if size <= CHECKED_INDEX_BYTES
        && let Some(problem) = schema::quick_check(&connection).map_err(failed)?
    {
        let problem = format!("the index is damaged: {problem}; {}", folder.mend());
        return Err(refused(folder, problem));
    }
    Ok(connection)
}

/// Whether the index has its tables, of the version that we know; without any it must be a new one.
pub(super) fn has_tables(folder: &Folder, connection: &Connection) -> Result<bool, BlobError> {
    let version = schema::version(connection).map_err(|error| {
        match folder.index_error("read the index", &error, NOT_APPLIED) {
            BlobError::Damaged { problem, .. } => {
                refused(folder, format!("the index is damaged: {problem}"))
            }
            other => other,
        }
    })?;
    match version {
        0 if has_files(folder)? => {
            let problem = format!("the index is empty, but there are files; {}", folder.mend());
            Err(refused(folder, problem))
        }
        0 => Ok(false),
        schema::VERSION => Ok(true),
        other => {
            let problem = format!(
                "the index {} has version {other}; this release knows {} and no later one",
                folder.index().display(),
                schema::VERSION
            );
            Err(refused(folder, problem))
        }
    }
}

/// Clears files away that the index does not refer to; answers from where on generations are free.
fn clear_leftovers(folder: &Folder, connection: &Connection) -> Result<u64, BlobError> {
    let failed = |error: rusqlite::Error| folder.index_error("read the index", &error, NOT_APPLIED);
    let limit = schema::generation_limit(connection).map_err(failed)?;
    let referenced = schema::referenced(connection).map_err(failed)?;
    let mut leftovers = Vec::new();
    folder.each_generation(|generation| {
        if generation >= limit {
            let file = folder.file(generation);
            let problem = format!(
                "the index is older than the file {}, as if an old copy had been put in its \
                 place; {}",
                file.display(),
                folder.mend()
            );
            return Err(refused(folder, problem));
        }
        if referenced.binary_search(&generation).is_err() {
            leftovers.push(generation);
        }
        Ok(())
    })?;
    aside::settle(folder, connection, &leftovers)?;
    Ok(limit)
}

fn reserve(
    folder: &Folder,
    connection: &Connection,
    generations: &Generations,
) -> Result<(), BlobError> {
    if let Some(limit) = generations.wanted_limit() {
        schema::set_generation_limit(connection, limit)
            .map_err(|error| folder.index_error("write to the index", &error, NOT_APPLIED))?;
        generations.raise(limit);
    }
    Ok(())
}
