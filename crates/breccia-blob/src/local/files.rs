//! What can be seen of a place without opening the store in it.
//!
//! Not its contents. Invariant: nothing is made or written.

use std::io;
use std::path::Path;

use breccia_core::error::Effect;
use rustix::fs::Access;

use super::Place;
use crate::error::BlobError;
use crate::fs;

/// The place as one text, as an open store tells it.
pub(super) fn location(place: &Place) -> String {
    let path = place.path();
    // A link may be one to a disk that is away: then the name is all there is.
    let absolute = std::fs::canonicalize(path).or_else(|_| std::path::absolute(path));
    let path = absolute.unwrap_or_else(|_| path.to_path_buf());
    let kind = place.kind().name();
    match place {
        Place::Fs(_) => format!("{kind}:{}", path.display()),
        Place::Sqlite(options, _) => format!("{kind}:{}/{}", path.display(), options.table_prefix),
    }
}

/// What an error of the system means for a place.
fn system(place: &Place, what: &str, error: &io::Error) -> BlobError {
    let (store, path) = (place.name().to_owned(), place.path().display());
    let what = format!("cannot {what} {path}");
    match error.kind() {
        // What lies there will never be right by itself.
        io::ErrorKind::NotADirectory | io::ErrorKind::IsADirectory => BlobError::Options {
            store,
            problem: format!("{what}: {error}; choose another `path`"),
        },
        _ => BlobError::System {
            store,
            what,
            reason: error.to_string(),
            effect: Effect::NotApplied,
        },
    }
}

impl Place {
    /// Whether a store was begun there.
    pub(super) fn is_begun(&self) -> Result<bool, BlobError> {
        let begun = match self {
            Self::Fs(options) => fs::is_begun(&options.path),
            Self::Sqlite(_, file) => match std::fs::metadata(&file.path) {
                // SQLite makes the file before it writes to it.
                Ok(found) => Ok(found.len() > 0),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
                Err(error) => Err(error),
            },
        };
        begun.map_err(|error| system(self, "look at", &error))
    }

    /// Whether it can be written to: what is there, or, where there is nothing yet, the nearest
    /// folder above it.
    ///
    /// # Errors
    /// [`BlobError::System`] says what it is that cannot.
    pub fn writable(&self) -> Result<(), BlobError> {
        let path = self.path();
        let mut above = path.ancestors().filter(|above| above.exists());
        let nearest = match self {
            Self::Fs(_) => above.next(),
            // The file is made, its folder is not.
            Self::Sqlite(..) if path.exists() => Some(path),
            Self::Sqlite(..) => path.parent(),
        };
        let nearest = nearest.filter(|nearest| !nearest.as_os_str().is_empty());
        let nearest = nearest.unwrap_or(Path::new("."));
        rustix::fs::access(nearest, Access::WRITE_OK)
            .map_err(|error| system(self, "write to", &io::Error::from(error)))
    }
}

/// Opens the file of a database for a moment, so that a fault of the place is told as that.
pub(super) fn check(place: &Place) -> Result<(), BlobError> {
    let path = place.path();
    if !path.exists() {
        return place.writable();
    }
    let opened = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(path);
    opened
        .map(drop)
        .map_err(|error| system(place, "open", &error))
}
