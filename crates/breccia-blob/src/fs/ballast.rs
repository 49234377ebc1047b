//! Room that is kept so that deletes can be committed on a full disk.
//!
//! Not a quota. Invariant: it is let go only for changes that free room, and taken again only when
//! there is room for it.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use super::folder::Folder;

/// So much the index's log may grow while deletes make room.
const BALLAST_BYTES: usize = 1024 * 1024;
const STEP_BYTES: usize = 64 * 1024;

/// A file whose only use is its size.
#[derive(Debug)]
pub(super) struct Ballast {
    path: PathBuf,
    held: AtomicBool,
}

impl Ballast {
    /// Takes hold of the room, if there is any.
    pub(super) fn take(folder: &Folder) -> Self {
        let ballast = Self {
            path: folder.ballast(),
            held: AtomicBool::new(false),
        };
        ballast.take_again();
        ballast
    }

    /// Takes hold of the room once more after it was let go; on a full disk it does without.
    pub(super) fn take_again(&self) {
        if self.held.load(Ordering::Acquire) {
            return;
        }
        match self.write() {
            Ok(()) => self.held.store(true, Ordering::Release),
            Err(error) => {
                tracing::debug!(%error, "there is no room to keep for deletes");
                let _ = fs::remove_file(&self.path);
            }
        }
    }

    fn write(&self) -> io::Result<()> {
        let whole = BALLAST_BYTES as u64;
        if fs::metadata(&self.path).is_ok_and(|metadata| metadata.len() == whole) {
            return Ok(());
        }
        let mut file = File::create(&self.path)?;
        let step = vec![0; STEP_BYTES];
        for _ in 0..BALLAST_BYTES / STEP_BYTES {
            file.write_all(&step)?;
        }
        file.sync_data()
    }

    /// Lets the room of a folder go that nobody has taken hold of yet; answers whether there was any.
    pub(super) fn let_go_in(folder: &Folder) -> bool {
        fs::remove_file(folder.ballast()).is_ok()
    }

    /// Lets the room go; answers whether there was any.
    pub(super) fn let_go(&self) -> bool {
        self.held.swap(false, Ordering::AcqRel) && fs::remove_file(&self.path).is_ok()
    }
}
