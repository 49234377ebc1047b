//! A look at a place: whether a store was begun there, who uses it, and the markers it carries.
//!
//! Not a verdict: that is [`crate::markers`]'s. Invariant: nothing is made, written or removed.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::Place;
use crate::error::BlobError;
use crate::listing::ListPage;
use crate::{fs, sql};

/// What a look has shown.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Looked {
    /// No store was begun there.
    Nothing,
    /// Somebody uses it, and nobody else may look into it meanwhile.
    InUse(String),
    /// There are files and no index, which is made anew when the store is opened.
    Unindexed,
    /// A store.
    Store(Contents),
}

/// What was seen of a store's contents.
#[derive(Debug, Clone, Default)]
pub struct Contents {
    /// The markers by their names.
    pub(crate) markers: BTreeMap<String, Bytes>,
    /// A page of one object, if it holds any.
    pub(crate) first: ListPage,
}

/// Looks at a place. Blocks.
///
/// # Errors
/// What would stand against opening it.
pub fn look(place: &Place) -> Result<Looked, BlobError> {
    match place {
        Place::Fs(options) => fs::look(options),
        Place::Sqlite(options, _) => {
            if !place.is_begun()? {
                return Ok(Looked::Nothing);
            }
            super::files::check(place)?;
            sql::look(options, place.path())
        }
    }
}
