//! Reserved objects of a composite: each on the shard that its name is placed on.
//!
//! Not the markers, which lie on every leaf. Invariant: a listing gives only the names that a read
//! finds.

use super::ShardedBlob;
use super::merge::{Paged, merge};
use crate::error::BlobError;
use crate::listing::MAX_PAGE;
use crate::store::StoreFuture;

struct Names<'a> {
    store: &'a ShardedBlob,
    prefix: &'a str,
    after: Option<&'a str>,
}

impl Paged for Names<'_> {
    type Item = String;
    type Name = String;

    fn name(item: &String) -> String {
        item.clone()
    }

    fn belongs(&self, member: usize, name: &String) -> bool {
        self.store.index_of(name.as_bytes()) == member
    }

    fn fetch(
        &self,
        member: usize,
        after: Option<String>,
        _size: usize,
    ) -> StoreFuture<'_, (Vec<String>, bool)> {
        Box::pin(async move {
            let store = self.store.member(member);
            let after = after.as_deref().or(self.after);
            let names = store.list_reserved(self.prefix, after).await;
            let checked = names.and_then(|names| {
                check(store.name(), self.prefix, after, &names)?;
                // Only an empty page is known to be the last.
                Ok((names, true))
            });
            checked.map_err(|error| error.within(self.store.composite()))
        })
    }
}

/// Refuses names that are not behind `after`, in order.
pub(crate) fn check(
    store: &str,
    prefix: &str,
    after: Option<&str>,
    names: &[String],
) -> Result<(), BlobError> {
    let mut before = after;
    for name in names {
        if before.is_some_and(|before| before >= name.as_str()) || !name.starts_with(prefix) {
            return Err(BlobError::OutOfOrder {
                store: store.to_owned(),
                name: format!("reserved object {name}"),
            });
        }
        before = Some(name);
    }
    Ok(())
}

pub(super) async fn list(
    store: &ShardedBlob,
    prefix: &str,
    after: Option<&str>,
) -> Result<Vec<String>, BlobError> {
    let names = Names {
        store,
        prefix,
        after,
    };
    let (names, _) = merge(&names, store.members.len(), MAX_PAGE).await?;
    Ok(names)
}
