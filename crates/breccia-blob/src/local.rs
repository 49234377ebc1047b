//! A store on this machine's disks that may not be there yet, or not now.
//!
//! Not the store itself ([`crate::fs`], [`crate::sql`]). Invariants: a place in which no store was
//! begun answers as an empty store does, and nothing is made there before a reserved object is
//! written, which is the marker: so a disk that is not mounted stays as it is. A place that cannot
//! be opened fails its own requests, and is tried again.

mod files;
mod look;
pub(crate) mod read_only;
mod store;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use breccia_core::error::Effect;
use breccia_net::clock;
use tokio::sync::{Mutex, OwnedMutexGuard};

use crate::error::BlobError;
use crate::fs::{FsOptions, FsStore};
use crate::sql::{SqlOptions, SqlStore, SqliteOptions};
use crate::store::{BlobStore, StoreKind};
pub use look::{Contents, Looked, look};

/// After a place could not be opened it is left alone for this long.
const TRY_AGAIN: Duration = Duration::from_secs(1);

/// Where a store lies, and how it is opened.
#[derive(Debug, Clone)]
pub enum Place {
    /// A folder.
    Fs(FsOptions),
    /// An SQLite file.
    Sqlite(SqlOptions, SqliteOptions),
}

impl Place {
    /// The store's name.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Fs(options) => &options.name,
            Self::Sqlite(options, _) => &options.name,
        }
    }

    /// The folder or file.
    #[must_use]
    pub fn path(&self) -> &Path {
        match self {
            Self::Fs(options) => &options.path,
            Self::Sqlite(_, file) => &file.path,
        }
    }

    /// What the store is.
    #[must_use]
    pub fn kind(&self) -> StoreKind {
        match self {
            Self::Fs(_) => StoreKind::Fs,
            Self::Sqlite(..) => StoreKind::Sqlite,
        }
    }

    /// Opens the store: one that was not begun only if it may be made. Blocks.
    fn open(&self, make: bool) -> Result<Option<Arc<dyn BlobStore>>, BlobError> {
        if !make && !self.is_begun()? {
            return Ok(None);
        }
        Ok(Some(match self {
            Self::Fs(options) => FsStore::open(options)?,
            Self::Sqlite(options, file) => {
                // What it opens lazily by itself is only tried here.
                files::check(self)?;
                Arc::new(SqlStore::open_sqlite(options.clone(), file)?)
            }
        }))
    }
}

/// A store that is opened when it can be.
#[derive(Debug)]
pub struct LocalStore {
    shared: Arc<Shared>,
    location: String,
    /// Only what a look has shown, for a store that is never opened.
    seen: Option<Contents>,
}

#[derive(Debug)]
struct Shared {
    place: Place,
    opened: OnceLock<Arc<dyn BlobStore>>,
    /// Held by who opens it.
    opening: Arc<Mutex<Option<Failure>>>,
}

/// Why it is not open.
#[derive(Debug)]
struct Failure {
    at: Instant,
    error: BlobError,
}

type Opening = OwnedMutexGuard<Option<Failure>>;

impl LocalStore {
    /// A store that is opened at once if it was begun and can be. Blocks.
    ///
    /// # Errors
    /// [`BlobError::Options`] for what does not mend itself: a place that is no folder, is damaged,
    /// or belongs to another process.
    pub fn open(place: Place) -> Result<Self, BlobError> {
        if let Place::Sqlite(options, file) = &place {
            // Nothing of the file is touched yet.
            SqlStore::open_sqlite(options.clone(), file)?;
        }
        let store = Self::over(place, None);
        let shared = &store.shared;
        match shared.place.open(false) {
            Ok(opened) => {
                if let Some(opened) = opened {
                    // Nobody else has it yet.
                    let _ = shared.opened.set(opened);
                }
            }
            Err(refused @ BlobError::Options { .. }) => return Err(refused),
            Err(error) => {
                let name = shared.place.name();
                tracing::error!(store = name, %error, "it cannot be opened; tried again");
            }
        }
        Ok(store)
    }

    /// A store that is never opened, and shows what a look has found: for whoever compares markers.
    #[must_use]
    pub fn seen(place: Place, contents: Contents) -> Self {
        Self::over(place, Some(contents))
    }

    fn over(place: Place, seen: Option<Contents>) -> Self {
        Self {
            location: files::location(&place),
            shared: Arc::new(Shared {
                place,
                opened: OnceLock::new(),
                opening: Arc::default(),
            }),
            seen,
        }
    }

    /// The store, if it is open.
    fn opened(&self) -> Option<&dyn BlobStore> {
        self.shared.opened.get().map(|store| &**store)
    }

    /// The store: opened if it was begun, or if it may be made. `None`: it was not begun.
    async fn ready(&self, make: bool) -> Result<Option<&dyn BlobStore>, BlobError> {
        if let Some(opened) = self.opened() {
            return Ok(Some(opened));
        }
        if self.seen.is_some() {
            return Ok(None);
        }
        let last = Arc::clone(&self.shared.opening).lock_owned().await;
        if let Some(opened) = self.opened() {
            return Ok(Some(opened));
        }
        if let Some(failure) = &*last
            && clock::now().saturating_duration_since(failure.at) < TRY_AGAIN
        {
            return Err(failure.error.clone());
        }
        let shared = Arc::clone(&self.shared);
        // It goes on if nobody waits for it any more: an index may have to be made anew.
        let opening = tokio::task::spawn_blocking(move || shared.open(last, make));
        opening.await.unwrap_or_else(|ended| {
            let reason = ended.to_string();
            Err(self.down(reason))
        })?;
        Ok(self.opened())
    }

    fn down(&self, reason: String) -> BlobError {
        self.shared.place.down(reason)
    }
}

impl Shared {
    fn open(&self, mut last: Opening, make: bool) -> Result<(), BlobError> {
        match self.place.open(make) {
            Ok(opened) => {
                *last = None;
                if let Some(opened) = opened {
                    tracing::info!(store = self.place.name(), "it is open");
                    // Set only by who holds the lock, and only if it is not.
                    let _ = self.opened.set(opened);
                }
                Ok(())
            }
            Err(error) => {
                let error = self.place.told(error);
                *last = Some(Failure {
                    at: clock::now(),
                    error: error.clone(),
                });
                Err(error)
            }
        }
    }
}

impl Place {
    /// What requests are told while it cannot be opened.
    fn told(&self, error: BlobError) -> BlobError {
        match error {
            BlobError::Options { store, problem } => BlobError::NotUsed {
                store,
                reason: problem,
            },
            BlobError::System { what, reason, .. } => self.down(format!("{what}: {reason}")),
            BlobError::Full { reason, .. } => self.down(format!("no room to open it: {reason}")),
            other => self.down(other.to_string()),
        }
    }

    fn down(&self, reason: String) -> BlobError {
        BlobError::Down {
            store: self.name().to_owned(),
            reason,
            effect: Effect::NotApplied,
        }
    }
}
