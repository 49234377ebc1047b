//! The listings of a composite: of objects, and of uploads.
//!
//! Not the merging itself. Invariant: a listing is whole or fails, naming the shard; what lies on a
//! shard where the layout does not look for it is left out, counted and logged.
//!
//! A common prefix of which a shard holds misplaced keys only is given all the same: to know better,
//! each key under each prefix would have to be read.

use bytes::Bytes;

use super::ShardedBlob;
use super::merge::{Paged, merge};
use crate::error::BlobError;
use crate::key::Key;
use crate::listing::{ListItem, ListPage, ListRequest, check_page};
use crate::store::StoreFuture;
use crate::upload::{UploadId, UploadInfo, UploadPage};

struct Objects<'a> {
    store: &'a ShardedBlob,
    request: ListRequest,
}

impl Paged for Objects<'_> {
    type Item = ListItem;
    type Name = Bytes;

    fn name(item: &ListItem) -> Bytes {
        match item {
            ListItem::Object(object) => object.key.bytes(),
            ListItem::Prefix(prefix) => prefix.clone(),
        }
    }

    fn belongs(&self, member: usize, item: &ListItem) -> bool {
        match item {
            ListItem::Object(object) => self.store.holds(member, &object.key),
            ListItem::Prefix(_) => true,
        }
    }

    fn fetch(
        &self,
        member: usize,
        after: Option<Bytes>,
        size: usize,
    ) -> StoreFuture<'_, (Vec<ListItem>, bool)> {
        let mut request = self.request.clone();
        request.after = after.or(request.after);
        request.limit = size;
        Box::pin(async move {
            let store = self.store.member(member);
            let page = store.list(request.clone()).await;
            let checked = page.and_then(|page| {
                check_page(store.name(), &request, &page)?;
                Ok((page.items, page.more))
            });
            checked.map_err(|error| error.within(self.store.composite()))
        })
    }
}

pub(super) async fn list(store: &ShardedBlob, request: ListRequest) -> Result<ListPage, BlobError> {
    let limit = request.limit;
    let objects = Objects { store, request };
    let (items, more) = merge(&objects, store.members.len(), limit).await?;
    Ok(ListPage { items, more })
}

/// Behind which upload a page begins: all those of the key, if no id is named.
type After = Option<(Key, Option<UploadId>)>;

struct Uploads<'a> {
    store: &'a ShardedBlob,
    prefix: Bytes,
    after: After,
}

impl Uploads<'_> {
    fn check(&self, member: usize, after: &After, page: &UploadPage) -> Result<(), BlobError> {
        let mut before: Option<(&Key, Option<&UploadId>)> =
            after.as_ref().map(|(key, id)| (key, id.as_ref()));
        for upload in &page.uploads {
            let (key, id) = (&upload.key, &upload.id);
            let ascending = match before {
                None => true,
                Some((before, Some(id_before))) => (before, id_before) < (key, id),
                Some((before, None)) => before < key,
            };
            if !ascending || !key.as_bytes().starts_with(&self.prefix) {
                return Err(BlobError::OutOfOrder {
                    store: self.store.member(member).name().to_owned(),
                    name: format!("upload {id} of {key}"),
                });
            }
            before = Some((key, Some(id)));
        }
        Ok(())
    }
}

impl Paged for Uploads<'_> {
    type Item = UploadInfo;
    type Name = (Key, UploadId);

    fn name(item: &UploadInfo) -> (Key, UploadId) {
        (item.key.clone(), item.id.clone())
    }

    fn belongs(&self, member: usize, item: &UploadInfo) -> bool {
        self.store.holds(member, &item.key)
    }

    fn fetch(
        &self,
        member: usize,
        after: Option<(Key, UploadId)>,
        size: usize,
    ) -> StoreFuture<'_, (Vec<UploadInfo>, bool)> {
        let after = match after {
            Some((key, id)) => Some((key, Some(id))),
            None => self.after.clone(),
        };
        Box::pin(async move {
            let store = self.store.member(member);
            let page = store.list_uploads(self.prefix.clone(), after.clone(), size);
            let checked = page.await.and_then(|page| {
                self.check(member, &after, &page)?;
                Ok((page.uploads, page.more))
            });
            checked.map_err(|error| error.within(self.store.composite()))
        })
    }
}

pub(super) async fn list_uploads(
    store: &ShardedBlob,
    prefix: Bytes,
    after: After,
    limit: usize,
) -> Result<UploadPage, BlobError> {
    let uploads = Uploads {
        store,
        prefix,
        after,
    };
    let (uploads, more) = merge(&uploads, store.members.len(), limit).await?;
    Ok(UploadPage { uploads, more })
}
