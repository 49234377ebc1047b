//! The calls of [`BlobStore`] over a folder: objects here, uploads and reserved objects next door.
//!
//! Not how files are read and written. Invariant: what is known of an object and its bytes are of
//! one generation.

use std::sync::Arc;

use breccia_core::error::Effect;
use breccia_net::clock;
use bytes::Bytes;

use super::get::{LOOK_UPS, find, get};
use super::index::change::{Change, Publication};
use super::index::lookup;
use super::records::{Details, Facts, HexText, Record, StoredChecksum};
use super::{FsStore, Inner, aside, reserved, uploads};
use crate::body::Body;
use crate::condition::WriteCondition;
use crate::error::BlobError;
use crate::key::Key;
use crate::listing::{ListPage, ListRequest, MAX_PAGE};
use crate::meta::{ETag, ObjectMeta, Tags};
use crate::store::{
    BlobStore, CopyOptions, GetOptions, Maintained, Opened, PutOptions, ReservedWrite, StoreFuture,
    StoreKind, Written, copy_streamed,
};
use crate::upload::{
    CompleteOptions, PartChoice, PartInfo, PartPage, UploadId, UploadOptions, UploadPage,
};

impl BlobStore for FsStore {
    fn name(&self) -> &str {
        self.inner.folder.name()
    }

    fn kind(&self) -> StoreKind {
        StoreKind::Fs
    }

    fn location(&self) -> Option<String> {
        Some(format!("fs:{}", self.inner.folder.path().display()))
    }

    fn accepts(&self, _key: &Key) -> Result<(), BlobError> {
        Ok(())
    }

    fn put<'a>(
        &'a self,
        key: &'a Key,
        body: Body,
        options: PutOptions,
    ) -> StoreFuture<'a, Written> {
        Box::pin(put(&self.inner, key, body, options))
    }

    fn get<'a>(&'a self, key: &'a Key, options: GetOptions) -> StoreFuture<'a, Opened> {
        Box::pin(get(&self.inner, key, options))
    }

    fn head<'a>(&'a self, key: &'a Key) -> StoreFuture<'a, ObjectMeta> {
        Box::pin(async move {
            match self.inner.hot.get(key) {
                Some(entry) => Ok(entry.meta.clone()),
                None => Ok(find(&self.inner, key).await?.meta()),
            }
        })
    }

    fn delete<'a>(&'a self, key: &'a Key, condition: WriteCondition) -> StoreFuture<'a, bool> {
        let key = key.clone();
        let change = Change::Delete { key, condition };
        Box::pin(self.inner.committer.commit(change, Vec::new()))
    }

    fn list(&self, request: ListRequest) -> StoreFuture<'_, ListPage> {
        let mut request = request;
        request.limit = request.limit.clamp(1, MAX_PAGE);
        Box::pin(
            self.inner
                .look_up(|connection| lookup::list(connection, request)),
        )
    }

    fn copy<'a>(
        &'a self,
        from: &'a Key,
        to: &'a Key,
        options: CopyOptions,
    ) -> StoreFuture<'a, Written> {
        Box::pin(copy_streamed(self, from, self, to, options))
    }

    fn set_tags<'a>(&'a self, key: &'a Key, tags: Tags) -> StoreFuture<'a, ()> {
        Box::pin(set_tags(&self.inner, key, tags))
    }

    fn create_upload<'a>(
        &'a self,
        key: &'a Key,
        options: UploadOptions,
    ) -> StoreFuture<'a, UploadId> {
        Box::pin(uploads::create(&self.inner, key, options))
    }

    fn put_part<'a>(
        &'a self,
        key: &'a Key,
        upload: &'a UploadId,
        number: u16,
        body: Body,
    ) -> StoreFuture<'a, PartInfo> {
        Box::pin(uploads::put_part(&self.inner, key, upload, number, body))
    }

    fn complete_upload<'a>(
        &'a self,
        key: &'a Key,
        upload: &'a UploadId,
        parts: Vec<PartChoice>,
        options: CompleteOptions,
    ) -> StoreFuture<'a, Written> {
        Box::pin(uploads::complete(&self.inner, key, upload, parts, options))
    }

    fn abort_upload<'a>(&'a self, key: &'a Key, upload: &'a UploadId) -> StoreFuture<'a, ()> {
        Box::pin(uploads::abort(&self.inner, key, upload))
    }

    fn list_parts<'a>(
        &'a self,
        key: &'a Key,
        upload: &'a UploadId,
        after: u16,
        limit: usize,
    ) -> StoreFuture<'a, PartPage> {
        Box::pin(uploads::list_parts(&self.inner, key, upload, after, limit))
    }

    fn list_uploads(
        &self,
        prefix: Bytes,
        after: Option<(Key, Option<UploadId>)>,
        limit: usize,
    ) -> StoreFuture<'_, UploadPage> {
        Box::pin(
            self.inner.look_up(move |connection| {
                lookup::uploads(connection, &prefix, after.as_ref(), limit)
            }),
        )
    }

    fn read_reserved<'a>(&'a self, name: &'a str) -> StoreFuture<'a, Option<Bytes>> {
        Box::pin(reserved::read(&self.inner, name))
    }

    fn write_reserved<'a>(
        &'a self,
        name: &'a str,
        bytes: Bytes,
        how: ReservedWrite,
    ) -> StoreFuture<'a, bool> {
        Box::pin(reserved::write(&self.inner, name, bytes, how))
    }

    fn delete_reserved<'a>(&'a self, name: &'a str) -> StoreFuture<'a, ()> {
        Box::pin(reserved::delete(&self.inner, name))
    }

    fn list_reserved<'a>(
        &'a self,
        prefix: &'a str,
        after: Option<&'a str>,
    ) -> StoreFuture<'a, Vec<String>> {
        let (prefix, after) = (prefix.to_owned(), after.map(str::to_owned));
        Box::pin(self.inner.look_up(move |connection| {
            lookup::reserved_names(connection, &prefix, after.as_deref())
        }))
    }

    fn probe(&self) -> StoreFuture<'_, ()> {
        Box::pin(probe(&self.inner))
    }

    fn maintain(&self, expired_before_ms: u64) -> StoreFuture<'_, Maintained> {
        Box::pin(maintain(&self.inner, expired_before_ms))
    }
}

async fn put(
    inner: &Arc<Inner>,
    key: &Key,
    mut body: Body,
    options: PutOptions,
) -> Result<Written, BlobError> {
    let size = body.size();
    let mut facts = None;
    let written = inner
        .write_body(&mut body, |digests| {
            let made = Facts {
                size,
                modified_ms: clock::unix_ms(),
                etag: ETag::of_md5(digests.md5),
                details: Details {
                    headers: options.headers,
                    tags: options.tags,
                    checksum: digests.checksum.as_ref().map(StoredChecksum::from),
                },
            };
            facts = Some(made.clone());
            Record::Object {
                key: HexText::of(key.as_bytes()),
                facts: made,
            }
        })
        .await?;
    let facts = facts.ok_or_else(|| inner.system("write a file", "its footer is missing"))?;
    let answer = Written {
        etag: facts.etag.clone(),
        checksum: body.digests().and_then(|digests| digests.checksum.clone()),
        modified_ms: facts.modified_ms,
    };
    let change = Change::Put(Box::new(Publication {
        key: key.clone(),
        facts,
        file: written.file,
        condition: options.condition,
    }));
    inner
        .committer
        .commit(change, vec![written.pending])
        .await?;
    Ok(answer)
}

async fn set_tags(inner: &Arc<Inner>, key: &Key, tags: Tags) -> Result<(), BlobError> {
    let mut last = BlobError::NotFound;
    for _ in 0..LOOK_UPS {
        let target = find(inner, key).await?.file.generation;
        let record = Record::Tags {
            key: HexText::of(key.as_bytes()),
            target,
            tags: tags.clone(),
        };
        let written = inner.write_record(&record).await?;
        let change = Change::SetTags {
            key: key.clone(),
            target,
            tags: tags.clone(),
            generation: written.file.generation,
        };
        match inner.committer.commit(change, vec![written.pending]).await {
            Ok(_) => return Ok(()),
            Err(conflict @ BlobError::Conflict { .. }) => last = conflict,
            Err(other) => return Err(other),
        }
    }
    Err(last)
}

async fn probe(inner: &Arc<Inner>) -> Result<(), BlobError> {
    inner
        .read_blocking(|inner| {
            inner.folder.is_still_there().map_err(|error| {
                let what = "look at the folder";
                inner.folder.io_error(what, &error, Effect::NotApplied)
            })?;
            inner.index.read(lookup::sign_of_life)
        })
        .await
}

async fn maintain(inner: &Arc<Inner>, expired_before_ms: u64) -> Result<Maintained, BlobError> {
    let uploads = uploads::expire(inner, expired_before_ms).await?;
    let leftovers = inner
        .read_blocking(|inner| {
            inner.ballast.take_again();
            let expired = aside::expire(&inner.folder, clock::unix_ms());
            Ok(inner.sweep.retry().saturating_add(expired))
        })
        .await?;
    Ok(Maintained { uploads, leftovers })
}
