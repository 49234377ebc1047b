//! The store over a folder of this machine.
//!
//! Not a general file tree: nothing in the folder is named by a key, and other programs must leave
//! it alone. Invariant: an object is what one transaction of the index says it is, and every byte
//! of it is verified before it is given.
//!
//! ```text
//! put  body ─▶ a new generation file: data, block checksums, footer     (write, format)
//!           ─▶ fdatasync of the file, fsync of its folder               (write, folder)
//!           ─▶ committer: BEGIN, condition, row, COMMIT with fdatasync  (commit, index::change)
//!           ─▶ the answer                    the older file is unlinked behind it (sweep)
//! get  key ─▶ row of the index ─▶ open ─▶ read ─▶ verify ─▶ bytes       (index::lookup, read)
//! ```
//!
//! - A file is written once and never changed; its name is the number of its generation. A file the
//!   index does not refer to is a leftover: the next start removes it (`open`), or puts it aside for
//!   a week if it is whole and nothing newer is in its place (`aside`).
//! - An object of parts is a *manifest*: a row, and a file without data that lists the parts, so that
//!   the index can be made anew (`rebuild`). Parts stay the files they are.
//! - Whoever reads keeps the version that was looked up: an open file outlives its name, and the
//!   parts of an object are pinned (`sweep`).
//! - File work runs on threads that may block, at most `READS` and `WRITES` at a time; small objects
//!   that were read or written lately are read at once, if their bytes are in memory (see `hot`).

mod aside;
mod ballast;
mod commit;
mod complete;
mod folder;
mod format;
mod generations;
mod get;
mod hot;
mod index;
mod look;
mod open;
mod read;
mod rebuild;
mod records;
mod reserved;
mod store;
mod sweep;
mod uploads;
mod write;

#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;

use breccia_core::error::Effect;
use rusqlite::Connection;
use tokio::sync::Semaphore;

use self::ballast::Ballast;
use self::commit::Committer;
use self::folder::Folder;
use self::generations::Generations;
use self::hot::Hot;
use self::index::Index;
use self::index::change::Change;
use self::sweep::{Sweep, Sweeper};
use crate::error::BlobError;

pub(crate) use self::look::{is_begun, look};
pub use self::rebuild::Rebuilt;

/// The most threads that read files or the index of one store at once.
const READS: usize = 64;
/// The most threads that write files of one store at once.
const WRITES: usize = 64;

/// How a store over a folder is opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FsOptions {
    /// The store's name, as in a configuration.
    pub name: String,
    /// The folder; it is made if there is none.
    pub path: PathBuf,
}

/// A store over a folder.
#[derive(Debug)]
pub struct FsStore {
    inner: Arc<Inner>,
}

/// What a store and the streams out of it share. The committer ends before the sweeper, and the
/// folder is given back last.
#[derive(Debug)]
struct Inner {
    index: Index,
    committer: Committer,
    _sweeper: Sweeper,
    sweep: Arc<Sweep>,
    generations: Arc<Generations>,
    ballast: Arc<Ballast>,
    hot: Arc<Hot>,
    reads: Arc<Semaphore>,
    writes: Arc<Semaphore>,
    folder: Arc<Folder>,
}

impl FsStore {
    /// Opens the store: makes the folder, locks it, makes the index or makes it anew, and clears
    /// away what a crash left behind. Blocks as long as that takes: with many files, seconds.
    ///
    /// # Errors
    /// [`BlobError::Options`] names the folder and what mends it; [`BlobError::System`] and
    /// [`BlobError::Full`] tell of a disk that may come back. [`crate::local::LocalStore`] waits
    /// for that.
    pub fn open(options: &FsOptions) -> Result<Arc<Self>, BlobError> {
        let inner = Arc::new(open::open(options)?);
        Ok(Arc::new(Self { inner }))
    }

    /// Makes the index of a folder that nobody uses anew from its files, also if there is one.
    /// Blocks: every file's footer is read.
    ///
    /// # Errors
    /// As [`FsStore::open`].
    pub fn rebuild(options: &FsOptions) -> Result<Rebuilt, BlobError> {
        rebuild::rebuild(&Folder::open(&options.name, &options.path)?)
    }
}

impl Inner {
    fn system(&self, what: &str, reason: &str) -> BlobError {
        BlobError::System {
            store: self.folder.name().to_owned(),
            what: what.to_owned(),
            reason: reason.to_owned(),
            effect: Effect::NotApplied,
        }
    }

    /// The number of a new file.
    async fn generation(&self) -> Result<u64, BlobError> {
        if let Some(generation) = self.generations.take() {
            return Ok(generation);
        }
        self.committer.commit(Change::Reserve, Vec::new()).await?;
        self.generations
            .take()
            .ok_or_else(|| BlobError::Overloaded {
                store: self.folder.name().to_owned(),
                limit: "the number of files begun between two commits".to_owned(),
            })
    }

    /// Runs a job that reads on a thread that may block.
    async fn read_blocking<T: Send + 'static>(
        self: &Arc<Self>,
        job: impl FnOnce(&Arc<Self>) -> Result<T, BlobError> + Send + 'static,
    ) -> Result<T, BlobError> {
        let permit = Arc::clone(&self.reads).acquire_owned().await;
        let inner = Arc::clone(self);
        let done = tokio::task::spawn_blocking(move || {
            let result = job(&inner);
            drop(permit);
            result
        });
        done.await
            .unwrap_or_else(|ended| Err(self.system("read", &ended.to_string())))
    }

    /// Looks something up in the index.
    async fn look_up<T: Send + 'static>(
        self: &Arc<Self>,
        job: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, BlobError> {
        self.read_blocking(move |inner| inner.index.read(job)).await
    }
}
