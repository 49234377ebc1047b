//! A store in memory, for tests of the frontend alone.
//!
//! Not a member: it keeps nothing and checks little. Invariant: as every store, it publishes only
//! after the body's clean end.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use crate::body::{Body, Whole};
use crate::checksum::{self, Checksum, ChecksumKind};
use crate::condition::WriteCondition;
use crate::error::BlobError;
use crate::key::Key;
use crate::listing::{ListPage, ListRequest, ListedObject, RollUp, Step};
use crate::meta::{ETag, Headers, NativeVersion, ObjectMeta, PartSize, Tags};
use crate::store::{
    BlobStore, CopyOptions, GetOptions, Maintained, Opened, PutOptions, ReservedWrite, StoreFuture,
    StoreKind, Written, copy_streamed,
};
use crate::upload::{
    CompleteOptions, MIN_PART_BYTES, PartChoice, PartInfo, PartPage, UploadId, UploadInfo,
    UploadOptions, UploadPage,
};

#[derive(Debug, Default)]
pub(super) struct MemoryStore(Mutex<Inside>);

#[derive(Debug, Default)]
struct Inside {
    objects: BTreeMap<Key, (ObjectMeta, Bytes)>,
    uploads: BTreeMap<(Key, UploadId), (UploadOptions, Parts)>,
    count: u64,
}

type Parts = BTreeMap<u16, (PartInfo, Bytes)>;

/// Something after 1970.
const NOW_MS: u64 = 1_700_000_000_123;

impl MemoryStore {
    fn lock(&self) -> MutexGuard<'_, Inside> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inside {
    fn publish(
        &mut self,
        key: &Key,
        meta: ObjectMeta,
        bytes: Bytes,
        condition: &WriteCondition,
    ) -> Result<Written, BlobError> {
        let there = self.objects.get(key).map(|(meta, _)| &meta.etag);
        condition.check(there, || BlobError::NotFound)?;
        let written = Written {
            etag: meta.etag.clone(),
            checksum: meta.checksum.clone(),
            modified_ms: meta.modified_ms,
        };
        self.objects.insert(key.clone(), (meta, bytes));
        Ok(written)
    }
}

fn meta(etag: ETag, checksum: Option<Checksum>, headers: Headers, tags: Tags) -> ObjectMeta {
    ObjectMeta {
        size: 0,
        modified_ms: NOW_MS,
        etag,
        checksum,
        headers,
        tags,
        parts: Vec::new(),
        native: NativeVersion::default(),
    }
}

impl BlobStore for MemoryStore {
    fn name(&self) -> &'static str {
        "memory"
    }

    fn kind(&self) -> StoreKind {
        StoreKind::Fs
    }

    fn location(&self) -> Option<String> {
        None
    }

    fn accepts(&self, _key: &Key) -> Result<(), BlobError> {
        Ok(())
    }

    fn put<'a>(
        &'a self,
        key: &'a Key,
        mut body: Body,
        options: PutOptions,
    ) -> StoreFuture<'a, Written> {
        Box::pin(async move {
            let bytes = body.collect().await?;
            let digests = body.digests().expect("a clean end").clone();
            let etag = ETag::of_md5(digests.md5);
            let mut meta = meta(etag, digests.checksum, options.headers, options.tags);
            meta.size = bytes.len() as u64;
            self.lock().publish(key, meta, bytes, &options.condition)
        })
    }

    fn get<'a>(&'a self, key: &'a Key, options: GetOptions) -> StoreFuture<'a, Opened> {
        Box::pin(async move {
            let inside = self.lock();
            let (meta, bytes) = inside.objects.get(key).ok_or(BlobError::NotFound)?;
            options.conditions.check(meta)?;
            let range = options
                .span
                .map_or(Ok(0..meta.size), |span| span.of(meta.size))?;
            let (start, end) = (range.start as usize, range.end as usize);
            Ok(Opened {
                meta: meta.clone(),
                range,
                source: Box::new(Whole::new(bytes.slice(start..end))),
            })
        })
    }

    fn head<'a>(&'a self, key: &'a Key) -> StoreFuture<'a, ObjectMeta> {
        Box::pin(async move {
            let inside = self.lock();
            let found = inside.objects.get(key).map(|(meta, _)| meta.clone());
            found.ok_or(BlobError::NotFound)
        })
    }

    fn delete<'a>(&'a self, key: &'a Key, condition: WriteCondition) -> StoreFuture<'a, bool> {
        Box::pin(async move {
            let mut inside = self.lock();
            let there = inside.objects.get(key).map(|(meta, _)| &meta.etag);
            condition.check(there, || BlobError::NotFound)?;
            Ok(inside.objects.remove(key).is_some())
        })
    }

    fn list(&self, request: ListRequest) -> StoreFuture<'_, ListPage> {
        Box::pin(async move {
            let mut page = RollUp::new(request);
            for (key, (meta, _)) in &self.lock().objects {
                let listed = ListedObject {
                    key: key.clone(),
                    size: meta.size,
                    modified_ms: meta.modified_ms,
                    etag: meta.etag.clone(),
                };
                if page.push(listed) == Step::Full {
                    break;
                }
            }
            Ok(page.finish())
        })
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
        Box::pin(async move {
            let mut inside = self.lock();
            let (meta, _) = inside.objects.get_mut(key).ok_or(BlobError::NotFound)?;
            meta.tags = tags;
            Ok(())
        })
    }

    fn create_upload<'a>(
        &'a self,
        key: &'a Key,
        options: UploadOptions,
    ) -> StoreFuture<'a, UploadId> {
        Box::pin(async move {
            let mut inside = self.lock();
            inside.count += 1;
            let id = UploadId(format!("upload-{}", inside.count));
            let place = (key.clone(), id.clone());
            inside.uploads.insert(place, (options, BTreeMap::new()));
            Ok(id)
        })
    }

    fn put_part<'a>(
        &'a self,
        key: &'a Key,
        upload: &'a UploadId,
        number: u16,
        mut body: Body,
    ) -> StoreFuture<'a, PartInfo> {
        Box::pin(async move {
            let bytes = body.collect().await?;
            let digests = body.digests().expect("a clean end").clone();
            let mut inside = self.lock();
            let place = (key.clone(), upload.clone());
            let (_, parts) = inside
                .uploads
                .get_mut(&place)
                .ok_or(BlobError::NoSuchUpload)?;
            let part = PartInfo {
                number,
                size: bytes.len() as u64,
                etag: ETag::of_md5(digests.md5),
                checksum: digests.checksum,
                modified_ms: NOW_MS,
            };
            parts.insert(number, (part.clone(), bytes));
            Ok(part)
        })
    }

    fn complete_upload<'a>(
        &'a self,
        key: &'a Key,
        upload: &'a UploadId,
        parts: Vec<PartChoice>,
        options: CompleteOptions,
    ) -> StoreFuture<'a, Written> {
        Box::pin(async move {
            let mut inside = self.lock();
            let place = (key.clone(), upload.clone());
            let (begun, stored) = inside.uploads.get(&place).ok_or(BlobError::NoSuchUpload)?;
            let (mut bytes, mut md5s, mut sums) = (Vec::new(), Vec::new(), Vec::new());
            let mut sizes = Vec::new();
            for (index, chosen) in parts.iter().enumerate() {
                let number = chosen.number;
                let wrong = BlobError::InvalidPart { number };
                let (part, data) = stored.get(&number).ok_or(wrong.clone())?;
                if part.etag != chosen.etag {
                    return Err(wrong);
                }
                let size = part.size;
                if size < MIN_PART_BYTES && index + 1 < parts.len() {
                    return Err(BlobError::PartTooSmall { number, size });
                }
                bytes.extend_from_slice(data);
                md5s.extend_from_slice(&part.etag.md5().expect("an MD5"));
                sums.extend(part.checksum.iter().flat_map(|sum| sum.value.clone()));
                sizes.push(PartSize { number, size });
            }
            let checksum = begun.checksum.map(|(algorithm, _)| Checksum {
                algorithm,
                value: checksum::of(algorithm, &sums),
                kind: ChecksumKind::Composite {
                    parts: u32::try_from(parts.len()).expect("few parts"),
                },
            });
            let etag = ETag::of_parts(checksum::md5(&md5s), parts.len());
            let mut meta = meta(etag, checksum, begun.headers.clone(), begun.tags.clone());
            meta.size = bytes.len() as u64;
            meta.parts = sizes;
            let written = inside.publish(key, meta, bytes.into(), &options.condition)?;
            inside.uploads.remove(&place);
            Ok(written)
        })
    }

    fn abort_upload<'a>(&'a self, key: &'a Key, upload: &'a UploadId) -> StoreFuture<'a, ()> {
        Box::pin(async move {
            let place = (key.clone(), upload.clone());
            let removed = self.lock().uploads.remove(&place);
            removed.map(|_| ()).ok_or(BlobError::NoSuchUpload)
        })
    }

    fn list_parts<'a>(
        &'a self,
        key: &'a Key,
        upload: &'a UploadId,
        after: u16,
        limit: usize,
    ) -> StoreFuture<'a, PartPage> {
        Box::pin(async move {
            let inside = self.lock();
            let place = (key.clone(), upload.clone());
            let (begun, parts) = inside.uploads.get(&place).ok_or(BlobError::NoSuchUpload)?;
            let behind = parts.range(after.saturating_add(1)..);
            let mut parts: Vec<PartInfo> = behind.map(|(_, (part, _))| part.clone()).collect();
            let more = parts.len() > limit;
            parts.truncate(limit);
            Ok(PartPage {
                parts,
                more,
                checksum: begun.checksum,
            })
        })
    }

    fn list_uploads(
        &self,
        prefix: Bytes,
        after: Option<(Key, Option<UploadId>)>,
        limit: usize,
    ) -> StoreFuture<'_, UploadPage> {
        Box::pin(async move {
            let inside = self.lock();
            let behind = |key: &Key, id: &UploadId| match &after {
                None => true,
                Some((after, None)) => key > after,
                Some((after, Some(after_id))) => (key, id) > (after, after_id),
            };
            let mut uploads: Vec<UploadInfo> = inside
                .uploads
                .keys()
                .filter(|(key, id)| key.as_bytes().starts_with(&prefix) && behind(key, id))
                .map(|(key, id)| UploadInfo {
                    key: key.clone(),
                    id: id.clone(),
                    begun_ms: NOW_MS,
                })
                .collect();
            let more = uploads.len() > limit;
            uploads.truncate(limit);
            Ok(UploadPage { uploads, more })
        })
    }

    fn read_reserved<'a>(&'a self, _name: &'a str) -> StoreFuture<'a, Option<Bytes>> {
        Box::pin(async { Ok(None) })
    }

    fn write_reserved<'a>(
        &'a self,
        _name: &'a str,
        _bytes: Bytes,
        _how: ReservedWrite,
    ) -> StoreFuture<'a, bool> {
        Box::pin(async { Ok(false) })
    }

    fn delete_reserved<'a>(&'a self, _name: &'a str) -> StoreFuture<'a, ()> {
        Box::pin(async { Ok(()) })
    }

    fn list_reserved<'a>(
        &'a self,
        _prefix: &'a str,
        _after: Option<&'a str>,
    ) -> StoreFuture<'a, Vec<String>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn probe(&self) -> StoreFuture<'_, ()> {
        Box::pin(async { Ok(()) })
    }

    fn maintain(&self, _expired_before_ms: u64) -> StoreFuture<'_, Maintained> {
        Box::pin(async { Ok(Maintained::default()) })
    }
}
