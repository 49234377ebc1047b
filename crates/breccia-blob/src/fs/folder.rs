//! The folder of a store: its lock, where files lie, and what the system's errors mean.
//!
//! Not here: what is in the files. Invariant: the name of a file is made of its generation's
//! number, never of a key; and one process at a time uses the folder.
//!
//! ```text
//! path/
//! ├── breccia-fs.lock          held by the process that uses the folder
//! ├── index.sqlite (-wal)      the index
//! ├── ballast                  room that is kept for deletes
//! ├── data/00 … data/ff/       generation files, named by 16 hex digits
//! ├── damaged/                 files that a rebuild of the index could make nothing of
//! └── set-aside/               whole files that the index did not know at a start, for a week
//! ```

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use breccia_core::error::Effect;

use crate::error::BlobError;

pub(super) const LOCK_FILE: &str = "breccia-fs.lock";
pub(super) const INDEX_FILE: &str = "index.sqlite";
const BALLAST_FILE: &str = "ballast";
pub(super) const DATA: &str = "data";
const DAMAGED: &str = "damaged";
const ASIDE: &str = "set-aside";
/// Consecutive generations lie in different folders: who syncs the folder of a new file then finds
/// it changed by nobody else since, and does not wait for the names of files that others write.
const SHARDS: u64 = 256;

/// The folder of a store, held by this process.
#[derive(Debug)]
pub(super) struct Folder {
    name: String,
    path: PathBuf,
    /// Device and inode, to notice another folder in its place.
    identity: (u64, u64),
    /// Closing it gives the lock back.
    _lock: File,
}

impl Folder {
    /// Makes the folder if there is none, and locks it.
    pub(super) fn open(name: &str, path: &Path) -> Result<Self, BlobError> {
        let refuse = |what: &str, at: &Path, error: &io::Error| {
            let at = at.display();
            let mend = "make sure that `path` is a folder this user may write to, or choose \
                        another one";
            let store = name.to_owned();
            match error.kind() {
                // What lies there will never be a folder by itself.
                io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => BlobError::Options {
                    store,
                    problem: format!("cannot {what} {at}: {error}; {mend}"),
                },
                // A disk may be away, or rights wrong: that may pass.
                _ => BlobError::System {
                    store,
                    what: format!("cannot {what} {at}"),
                    reason: format!("{error}; {mend}"),
                    effect: Effect::NotApplied,
                },
            }
        };
        // Objects are their owner's: a folder that we make is closed to others.
        let mut made = fs::DirBuilder::new();
        made.recursive(true).mode(0o700);
        made.create(path)
            .map_err(|error| refuse("make the folder", path, &error))?;
        // One folder has one name, whatever the configuration calls it and wherever we run.
        let found = fs::canonicalize(path).map_err(|error| refuse("find", path, &error))?;
        let path = found.as_path();
        let lock = lock(name, path, refuse)?;
        for shard in 0..SHARDS {
            let at = path.join(DATA).join(format!("{shard:02x}"));
            fs::create_dir_all(&at).map_err(|error| refuse("make the folder", &at, &error))?;
        }
        for at in [path.join(DATA), path.to_path_buf()] {
            sync_folder(&at).map_err(|error| refuse("sync the folder", &at, &error))?;
        }
        if let Some(parent) = path.parent().filter(|parent| parent.exists()) {
            // The folder itself must outlive a loss of power; a parent that cannot be opened was
            // made by somebody else, long ago.
            let _ = sync_folder(parent);
        }
        Ok(Self {
            name: name.to_owned(),
            path: path.to_path_buf(),
            identity: identity(path).map_err(|error| refuse("look at", path, &error))?,
            _lock: lock,
        })
    }

    /// The folder as whoever only looks at it has found it: nothing in it is made or written.
    pub(super) fn found(name: &str, path: &Path, lock: File) -> io::Result<Self> {
        Ok(Self {
            name: name.to_owned(),
            path: path.to_path_buf(),
            identity: identity(path)?,
            _lock: lock,
        })
    }

    /// Whether it is still the folder that was opened: a disk may have been unmounted, or another
    /// one put in its place.
    pub(super) fn is_still_there(&self) -> io::Result<()> {
        if identity(&self.path)? == self.identity {
            return Ok(());
        }
        Err(io::Error::other(
            "another folder lies in its place than when it was opened; it is used again once the right one \
             is back",
        ))
    }

    /// The store's name.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn index(&self) -> PathBuf {
        self.path.join(INDEX_FILE)
    }

    /// Room that is kept for deletes.
    pub(super) fn ballast(&self) -> PathBuf {
        self.path.join(BALLAST_FILE)
    }

    /// The file of a generation.
    pub(super) fn file(&self, generation: u64) -> PathBuf {
        self.shard(shard_of(generation))
            .join(format!("{generation:016x}"))
    }

    fn shard(&self, shard: u64) -> PathBuf {
        self.path.join(DATA).join(format!("{shard:02x}"))
    }

    /// Makes the name of a file survive a loss of power.
    pub(super) fn sync_name(&self, generation: u64) -> io::Result<()> {
        sync_folder(&self.shard(shard_of(generation)))
    }

    /// Makes the names in the folder itself survive a loss of power.
    pub(super) fn sync(&self) -> io::Result<()> {
        sync_folder(&self.path)
    }

    /// Calls `each` with every generation file there is.
    pub(super) fn each_generation(
        &self,
        mut each: impl FnMut(u64) -> Result<(), BlobError>,
    ) -> Result<(), BlobError> {
        for shard in 0..SHARDS {
            let at = self.shard(shard);
            let failed = |error: io::Error| {
                self.io_error(
                    &format!("list {}", at.display()),
                    &error,
                    Effect::NotApplied,
                )
            };
            for entry in fs::read_dir(&at).map_err(failed)? {
                let name = entry.map_err(failed)?.file_name();
                if let Some(generation) = generation_of(&name)
                    && shard_of(generation) == shard
                {
                    each(generation)?;
                }
            }
        }
        Ok(())
    }

    /// Puts a file away that nothing can be made of.
    pub(super) fn put_with_damaged(&self, generation: u64) -> io::Result<()> {
        self.move_to(&self.path.join(DAMAGED), generation)
    }

    /// Where whole files lie that the index did not know.
    pub(super) fn aside(&self) -> PathBuf {
        self.path.join(ASIDE)
    }

    /// Puts a whole file aside that the index does not know.
    pub(super) fn put_aside(&self, generation: u64) -> io::Result<()> {
        self.move_to(&self.aside(), generation)
    }

    fn move_to(&self, folder: &Path, generation: u64) -> io::Result<()> {
        fs::create_dir_all(folder)?;
        let target = folder.join(format!("{generation:016x}"));
        fs::rename(self.file(generation), target)
    }

    /// Calls `each` with every file that lies aside, and its path.
    pub(super) fn each_aside(
        &self,
        mut each: impl FnMut(u64, PathBuf) -> io::Result<()>,
    ) -> io::Result<()> {
        let entries = match fs::read_dir(self.aside()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            if let Some(generation) = generation_of(&entry.file_name()) {
                each(generation, entry.path())?;
            }
        }
        Ok(())
    }

    /// What an error of the file system means.
    pub(super) fn io_error(&self, what: &str, error: &io::Error, effect: Effect) -> BlobError {
        let store = self.name.clone();
        let reason = error.to_string();
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
                if effect == Effect::NotApplied =>
            {
                BlobError::Full { store, reason }
            }
            _ => BlobError::System {
                store,
                what: what.to_owned(),
                reason,
                effect,
            },
        }
    }

    /// What an error of the index means.
    pub(super) fn index_error(
        &self,
        what: &str,
        error: &rusqlite::Error,
        effect: Effect,
    ) -> BlobError {
        use rusqlite::ErrorCode;
        let store = self.name.clone();
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) if effect == Effect::NotApplied => BlobError::Full {
                store,
                reason: error.to_string(),
            },
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => BlobError::Damaged {
                store,
                problem: format!("{error}; {}", self.mend()),
            },
            _ => BlobError::System {
                store,
                what: what.to_owned(),
                reason: error.to_string(),
                effect,
            },
        }
    }

    /// How a damaged index is mended.
    pub(super) fn mend(&self) -> String {
        let index = self.index();
        format!(
            "move {} and its -wal file away and start again: the index is then made anew from \
             the files",
            index.display()
        )
    }

    /// An object whose bytes are not what was written.
    pub(super) fn damaged(&self, generation: u64, whose: &str, problem: &str) -> BlobError {
        BlobError::Damaged {
            store: self.name.clone(),
            problem: format!(
                "{whose}: the file {} cannot be trusted: {problem}",
                self.file(generation).display()
            ),
        }
    }
}

/// The generation that a file is named by. Anything else was not put there by us, and is left alone.
pub(super) fn generation_of(name: &OsStr) -> Option<u64> {
    let digits = name.to_str().filter(|text| text.len() == 16)?;
    u64::from_str_radix(digits, 16).ok()
}

/// Which of the folders under `data` a generation lies in.
fn shard_of(generation: u64) -> u64 {
    generation % SHARDS
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let found = fs::metadata(path)?;
    Ok((found.dev(), found.ino()))
}

fn lock(
    name: &str,
    path: &Path,
    refuse: impl Fn(&str, &Path, &io::Error) -> BlobError,
) -> Result<File, BlobError> {
    let at = path.join(LOCK_FILE);
    let mut lock = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&at)
        .map_err(|error| refuse("write", &at, &error))?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            let _ = lock.read_to_string(&mut holder);
            return Err(BlobError::Options {
                store: name.to_owned(),
                problem: format!(
                    "the folder {} is in use by process {}; one process at a time may use it: \
                     end that one, or choose another `path`",
                    path.display(),
                    holder.trim()
                ),
            });
        }
        Err(TryLockError::Error(error)) => return Err(refuse("lock", &at, &error)),
    }
    // For the message of whoever comes second; the lock itself is the system's.
    lock.set_len(0)
        .and_then(|()| writeln!(lock, "{}", std::process::id()))
        .map_err(|error| refuse("write", &at, &error))?;
    Ok(lock)
}

fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}
