//! The files of a state folder, or of a store in memory: read, replace, remove, list.
//!
//! Not here: what is in them. Invariant: a file is replaced by renaming a whole, synced one over
//! it, and the folder is synced after; so a crash leaves the old file or the new one.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::error::LayoutStoreError;
use super::{ADDRESSES_SUFFIX, LAYOUT_SUFFIX, MARKERS_SUFFIX};

const LOCK_FILE: &str = "breccia.lock";
const TEMPORARY: &str = ".new";

/// More than any file here can have: 2,048 shards and 6,143 slots make some 300 KiB.
const MAX_BYTES: u64 = 4 << 20;

/// Where the files are.
#[derive(Debug)]
pub(super) enum Files {
    /// A folder held by this process.
    Locked {
        folder: PathBuf,
        /// Closing it gives the lock back.
        _lock: File,
    },
    /// A folder that is only looked at.
    ReadOnly { folder: PathBuf },
    /// No folder: texts by file name.
    Memory(Mutex<BTreeMap<String, String>>),
}

impl fmt::Display for Files {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.folder() {
            Some(folder) => write!(f, "the state folder {}", folder.display()),
            None => f.write_str("memory"),
        }
    }
}

impl Files {
    /// Makes the folder if needed, locks it, and sweeps what a crash left behind.
    pub(super) fn lock(folder: &Path) -> Result<Self, LayoutStoreError> {
        create_folder(folder).map_err(io_error("make", folder))?;
        let path = folder.join(LOCK_FILE);
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(io_error("open", &path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut text = String::new();
                let read = lock.read_to_string(&mut text);
                let holder = read.ok().and_then(|_| text.trim().parse().ok());
                return Err(LayoutStoreError::Locked {
                    folder: folder.to_path_buf(),
                    holder,
                });
            }
            Err(TryLockError::Error(source)) => return Err(io_error("lock", &path)(source)),
        }
        // For the message of whoever comes second; the lock itself is the system's.
        lock.set_len(0)
            .and_then(|()| writeln!(lock, "{}", std::process::id()))
            .map_err(io_error("write", &path))?;
        let files = Files::Locked {
            folder: folder.to_path_buf(),
            _lock: lock,
        };
        files.sweep()?;
        Ok(files)
    }

    pub(super) fn folder(&self) -> Option<&Path> {
        match self {
            Files::Locked { folder, .. } | Files::ReadOnly { folder } => Some(folder),
            Files::Memory(_) => None,
        }
    }

    pub(super) fn is_read_only(&self) -> bool {
        matches!(self, Files::ReadOnly { .. })
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder()
            .map_or_else(|| PathBuf::from(name), |folder| folder.join(name))
    }

    /// The names of all files, in order.
    pub(super) fn names(&self) -> Result<Vec<String>, LayoutStoreError> {
        let folder = match self {
            Files::Memory(texts) => return Ok(held(texts).keys().cloned().collect()),
            Files::Locked { folder, .. } | Files::ReadOnly { folder } => folder,
        };
        let read = || -> io::Result<Vec<String>> {
            let mut names = Vec::new();
            for entry in fs::read_dir(folder)? {
                // A name that is not text is none of ours.
                names.extend(entry?.file_name().into_string().ok());
            }
            names.sort();
            Ok(names)
        };
        match read() {
            Err(source) if source.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            other => other.map_err(io_error("list", folder)),
        }
    }

    /// The text of a file; none if there is no such file.
    pub(super) fn read(&self, name: &str) -> Result<Option<String>, LayoutStoreError> {
        if let Files::Memory(texts) = self {
            return Ok(held(texts).get(name).cloned());
        }
        let path = self.path(name);
        let read = || -> io::Result<(u64, String)> {
            let file = File::open(&path)?;
            let bytes = file.metadata()?.len();
            let mut text = String::new();
            file.take(MAX_BYTES).read_to_string(&mut text)?;
            Ok((bytes, text))
        };
        match read() {
            Ok((bytes, _)) if bytes > MAX_BYTES => Err(LayoutStoreError::TooLarge { path, bytes }),
            Ok((_, text)) => Ok(Some(text)),
            Err(source) if source.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(io_error("read", &path)(source)),
        }
    }

    /// Puts a text in the place of a file.
    pub(super) fn write(&self, name: &str, text: &str) -> Result<(), LayoutStoreError> {
        let folder = match self {
            Files::Memory(texts) => {
                held(texts).insert(name.to_owned(), text.to_owned());
                return Ok(());
            }
            Files::ReadOnly { .. } => {
                return Err(LayoutStoreError::ReadOnly {
                    path: self.path(name),
                });
            }
            Files::Locked { folder, .. } => folder,
        };
        let (path, temporary) = (folder.join(name), folder.join(format!("{name}{TEMPORARY}")));
        let write = || -> io::Result<()> {
            let mut file = File::create(&temporary)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            fs::rename(&temporary, &path)?;
            sync_folder(folder)
        };
        write().map_err(|source| {
            // If it cannot be removed either, the next start sweeps it.
            let _ = fs::remove_file(&temporary);
            io_error("write", &path)(source)
        })
    }

    /// Removes a file if it is there.
    pub(super) fn remove(&self, name: &str) -> Result<(), LayoutStoreError> {
        let folder = match self {
            Files::Memory(texts) => {
                held(texts).remove(name);
                return Ok(());
            }
            Files::ReadOnly { .. } => {
                return Err(LayoutStoreError::ReadOnly {
                    path: self.path(name),
                });
            }
            Files::Locked { folder, .. } => folder,
        };
        let path = folder.join(name);
        match fs::remove_file(&path).and_then(|()| sync_folder(folder)) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(io_error("remove", &path)(source))
            }
            _ => Ok(()),
        }
    }

    /// Removes half-written files of ours; everything else in the folder is left alone.
    fn sweep(&self) -> Result<(), LayoutStoreError> {
        for name in self.names()? {
            let written = name.strip_suffix(TEMPORARY);
            let suffixes = [LAYOUT_SUFFIX, ADDRESSES_SUFFIX, MARKERS_SUFFIX];
            let ours = |name: &str| suffixes.iter().any(|suffix| name.ends_with(suffix));
            if written.is_some_and(ours) {
                self.remove(&name)?;
            }
        }
        Ok(())
    }
}

fn held(texts: &Mutex<BTreeMap<String, String>>) -> MutexGuard<'_, BTreeMap<String, String>> {
    // A map is whole whatever panicked beside it.
    texts.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Makes a folder and those above it, each of them on the disk when this returns.
fn create_folder(folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    let above = folder
        .parent()
        .filter(|above| !above.as_os_str().is_empty());
    if let Some(above) = above {
        create_folder(above)?;
    }
    match fs::create_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && folder.is_dir() => Ok(()),
        Err(error) => Err(error),
        Ok(()) => sync_folder(above.unwrap_or(Path::new("."))),
    }
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> LayoutStoreError {
    let path = path.to_path_buf();
    move |source| LayoutStoreError::Io {
        action,
        path,
        source,
    }
}
