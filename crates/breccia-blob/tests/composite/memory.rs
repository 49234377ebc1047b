//! A store in memory, for tests: whole, and with switches for trouble.
//!
//! Not a product. Invariant: it obeys the conformance suite while no switch is set.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use breccia_blob::body::{Body, Digests, Whole};
use breccia_blob::checksum::{self, Checksum, ChecksumKind};
use breccia_blob::condition::{ConditionalSupport, Support, WriteCondition};
use breccia_blob::error::{BlobError, BodyFault};
use breccia_blob::listing::{ListPage, ListRequest, ListedObject, MAX_PAGE, RollUp, Step};
use breccia_blob::meta::{ETag, NativeVersion, ObjectMeta, PartSize, Tags};
use breccia_blob::store::{
    BlobStore, CopyOptions, GetOptions, Maintained, Opened, PutOptions, ReservedWrite, StoreFuture,
    StoreKind, Written, copy_streamed,
};
use breccia_blob::upload::{
    ChecksumChoice, CompleteOptions, MIN_PART_BYTES, PartChoice, PartInfo, PartPage, UploadId,
    UploadInfo, UploadOptions, UploadPage,
};
use breccia_blob::{Key, checksum::Algorithm};
use breccia_core::error::Effect;
use breccia_net::clock;
use bytes::Bytes;

#[derive(Debug)]
struct Upload {
    options: UploadOptions,
    begun_ms: u64,
    parts: BTreeMap<u16, (PartInfo, Bytes)>,
}

#[derive(Debug, Default)]
struct State {
    objects: BTreeMap<Key, (ObjectMeta, Bytes)>,
    uploads: BTreeMap<(Key, UploadId), Upload>,
    reserved: BTreeMap<String, Bytes>,
}

/// See the module's page.
#[derive(Debug)]
pub(crate) struct Memory {
    name: String,
    state: Mutex<State>,
    next_id: AtomicU64,
    /// The most items it gives in a page.
    pub(crate) page: AtomicUsize,
    /// It cannot be reached.
    pub(crate) down: AtomicBool,
    /// It never answers.
    pub(crate) stuck: AtomicBool,
    /// It lists backwards.
    pub(crate) backwards: AtomicBool,
    /// How many requests it has had.
    pub(crate) requests: AtomicU64,
    /// What it says of conditional calls.
    pub(crate) support: Mutex<ConditionalSupport>,
    /// What a probe of it finds.
    pub(crate) probed: Mutex<Option<ConditionalSupport>>,
    /// How it writes keys.
    pub(crate) mode: Mutex<Option<&'static str>>,
}

impl Memory {
    pub(crate) fn new(name: &str) -> Arc<Self> {
        Arc::new(Self {
            name: name.to_owned(),
            state: Mutex::default(),
            next_id: AtomicU64::new(0),
            page: AtomicUsize::new(MAX_PAGE),
            down: AtomicBool::new(false),
            stuck: AtomicBool::new(false),
            backwards: AtomicBool::new(false),
            requests: AtomicU64::new(0),
            support: Mutex::new(ConditionalSupport::all(Support::Yes)),
            probed: Mutex::new(None),
            mode: Mutex::new(None),
        })
    }

    /// The same data under another name.
    pub(crate) fn moved(&self, name: &str) -> Arc<Self> {
        let other = Self::new(name);
        *other.lock() = std::mem::take(&mut *self.lock());
        other
    }

    /// Forgets everything.
    pub(crate) fn empty(&self) {
        *self.lock() = State::default();
    }

    pub(crate) fn set_down(&self, down: bool) {
        self.down.store(down, Ordering::SeqCst);
    }

    pub(crate) fn reserved_names(&self) -> Vec<String> {
        self.lock().reserved.keys().cloned().collect()
    }

    pub(crate) fn remove_reserved(&self, name: &str) {
        self.lock().reserved.remove(name);
    }

    pub(crate) fn keys(&self) -> Vec<Key> {
        self.lock().objects.keys().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state
            .lock()
            .expect("no test panics while it holds this")
    }

    async fn enter(&self) -> Result<(), BlobError> {
        self.requests.fetch_add(1, Ordering::SeqCst);
        // Others get their turn, as with a real store.
        tokio::task::yield_now().await;
        if self.stuck.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        if self.down.load(Ordering::SeqCst) {
            return Err(BlobError::Down {
                store: self.name.clone(),
                reason: "connection refused".to_owned(),
                effect: Effect::NotApplied,
            });
        }
        Ok(())
    }

    fn publish(
        &self,
        key: &Key,
        condition: &WriteCondition,
        mut meta: ObjectMeta,
        bytes: Bytes,
        before: impl FnOnce(&mut State) -> Result<(), BlobError>,
    ) -> Result<Written, BlobError> {
        let mut state = self.lock();
        let there = state.objects.get(key).map(|(meta, _)| &meta.etag);
        condition.check(there, || BlobError::NotFound)?;
        before(&mut state)?;
        meta.modified_ms = clock::unix_ms();
        let written = Written {
            etag: meta.etag.clone(),
            checksum: meta.checksum.clone(),
            modified_ms: meta.modified_ms,
        };
        state.objects.insert(key.clone(), (meta, bytes));
        Ok(written)
    }
}

async fn read(mut body: Body) -> Result<(Bytes, Digests), BlobError> {
    let bytes = body.collect().await?;
    let digests = body.digests().cloned();
    Ok((
        bytes,
        digests.expect("a body that ended cleanly has digests"),
    ))
}

fn meta(bytes: &Bytes, etag: ETag, checksum: Option<Checksum>, options: PutOptions) -> ObjectMeta {
    ObjectMeta {
        size: bytes.len() as u64,
        modified_ms: 0,
        etag,
        checksum,
        headers: options.headers,
        tags: options.tags,
        parts: Vec::new(),
        native: NativeVersion::default(),
    }
}

fn chosen(upload: &Upload, choices: &[PartChoice]) -> Result<Vec<(PartInfo, Bytes)>, BlobError> {
    let mut parts: Vec<(PartInfo, Bytes)> = Vec::new();
    for choice in choices {
        let number = choice.number;
        if parts.last().is_some_and(|(part, _)| part.number >= number) {
            return Err(BlobError::PartOrder);
        }
        let part = upload.parts.get(&number);
        let part = part.filter(|(part, _)| {
            let same = |checksum: &Checksum| part.checksum.as_ref() == Some(checksum);
            part.etag == choice.etag && choice.checksum.as_ref().is_none_or(same)
        });
        parts.push(part.ok_or(BlobError::InvalidPart { number })?.clone());
    }
    if parts.is_empty() {
        return Err(BlobError::InvalidPart { number: 1 });
    }
    for (part, _) in parts.iter().rev().skip(1).rev() {
        if part.size < MIN_PART_BYTES {
            let (number, size) = (part.number, part.size);
            return Err(BlobError::PartTooSmall { number, size });
        }
    }
    Ok(parts)
}

fn whole_checksum(upload: &Upload, parts: &[(PartInfo, Bytes)], bytes: &[u8]) -> Option<Checksum> {
    let same = |algorithm: Algorithm| {
        let of = |part: &PartInfo| part.checksum.as_ref().map(|checksum| checksum.algorithm);
        parts.iter().all(|(part, _)| of(part) == Some(algorithm))
    };
    let first = parts.first()?.0.checksum.as_ref()?.algorithm;
    let (algorithm, choice) = upload
        .options
        .checksum
        .unwrap_or((first, ChecksumChoice::Composite));
    if !same(algorithm) {
        return None;
    }
    Some(match choice {
        ChecksumChoice::FullObject => Checksum::full(algorithm, checksum::of(algorithm, bytes)),
        ChecksumChoice::Composite => {
            let values = parts.iter().filter_map(|(part, _)| part.checksum.as_ref());
            let values: Vec<u8> = values.flat_map(|checksum| checksum.value.clone()).collect();
            Checksum {
                algorithm,
                value: checksum::of(algorithm, &values),
                kind: ChecksumKind::Composite {
                    parts: u32::try_from(parts.len()).expect("few parts"),
                },
            }
        }
    })
}

impl BlobStore for Memory {
    fn name(&self) -> &str {
        &self.name
    }

    fn kind(&self) -> StoreKind {
        StoreKind::Fs
    }

    fn location(&self) -> Option<String> {
        None
    }

    fn key_mode(&self) -> Option<&'static str> {
        *self.mode.lock().expect("held shortly")
    }

    fn conditional(&self) -> ConditionalSupport {
        *self.support.lock().expect("held shortly")
    }

    fn probe_conditional(&self) -> StoreFuture<'_, ConditionalSupport> {
        Box::pin(async {
            self.enter().await?;
            if let Some(found) = *self.probed.lock().expect("held shortly") {
                *self.support.lock().expect("held shortly") = found;
            }
            Ok(self.conditional())
        })
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
        Box::pin(async move {
            self.enter().await?;
            let (bytes, digests) = read(body).await?;
            let condition = options.condition.clone();
            let meta = meta(&bytes, ETag::of_md5(digests.md5), digests.checksum, options);
            self.publish(key, &condition, meta, bytes, |_| Ok(()))
        })
    }

    fn get<'a>(&'a self, key: &'a Key, options: GetOptions) -> StoreFuture<'a, Opened> {
        Box::pin(async move {
            self.enter().await?;
            let found = self.lock().objects.get(key).cloned();
            let (meta, bytes) = found.ok_or(BlobError::NotFound)?;
            options.conditions.check(&meta)?;
            let range = match options.span {
                Some(span) => span.of(meta.size)?,
                None => 0..meta.size,
            };
            let cut = |at: u64| usize::try_from(at).expect("small objects");
            let bytes = bytes.slice(cut(range.start)..cut(range.end));
            Ok(Opened {
                meta,
                range,
                source: Box::new(Whole::new(bytes)),
            })
        })
    }

    fn head<'a>(&'a self, key: &'a Key) -> StoreFuture<'a, ObjectMeta> {
        Box::pin(async move {
            self.enter().await?;
            let state = self.lock();
            let found = state.objects.get(key).map(|(meta, _)| meta.clone());
            found.ok_or(BlobError::NotFound)
        })
    }

    fn delete<'a>(&'a self, key: &'a Key, condition: WriteCondition) -> StoreFuture<'a, bool> {
        Box::pin(async move {
            self.enter().await?;
            let mut state = self.lock();
            let there = state.objects.get(key).map(|(meta, _)| &meta.etag);
            condition.check(there, || BlobError::NotFound)?;
            Ok(state.objects.remove(key).is_some())
        })
    }

    fn list(&self, request: ListRequest) -> StoreFuture<'_, ListPage> {
        Box::pin(async move {
            self.enter().await?;
            let mut request = request;
            request.limit = request.limit.min(self.page.load(Ordering::SeqCst));
            let mut roll_up = RollUp::new(request);
            for (key, (meta, _)) in &self.lock().objects {
                let object = ListedObject {
                    key: key.clone(),
                    size: meta.size,
                    modified_ms: meta.modified_ms,
                    etag: meta.etag.clone(),
                };
                if roll_up.push(object) == Step::Full {
                    break;
                }
            }
            let mut page = roll_up.finish();
            if self.backwards.load(Ordering::SeqCst) {
                page.items.reverse();
            }
            Ok(page)
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
            self.enter().await?;
            let mut state = self.lock();
            let (meta, _) = state.objects.get_mut(key).ok_or(BlobError::NotFound)?;
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
            self.enter().await?;
            let number = self.next_id.fetch_add(1, Ordering::SeqCst);
            let id = UploadId(format!("{}-{number:08}", self.name));
            let upload = Upload {
                options,
                begun_ms: clock::unix_ms(),
                parts: BTreeMap::new(),
            };
            let name = (key.clone(), id.clone());
            self.lock().uploads.insert(name, upload);
            Ok(id)
        })
    }

    fn put_part<'a>(
        &'a self,
        key: &'a Key,
        upload: &'a UploadId,
        number: u16,
        body: Body,
    ) -> StoreFuture<'a, PartInfo> {
        Box::pin(async move {
            self.enter().await?;
            let name = (key.clone(), upload.clone());
            if !self.lock().uploads.contains_key(&name) {
                return Err(BlobError::NoSuchUpload);
            }
            let (bytes, digests) = read(body).await?;
            let part = PartInfo {
                number,
                size: bytes.len() as u64,
                etag: ETag::of_md5(digests.md5),
                checksum: digests.checksum,
                modified_ms: clock::unix_ms(),
            };
            let mut state = self.lock();
            let upload = state
                .uploads
                .get_mut(&name)
                .ok_or(BlobError::NoSuchUpload)?;
            upload.parts.insert(number, (part.clone(), bytes));
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
            self.enter().await?;
            let name = (key.clone(), upload.clone());
            let (meta, bytes) = {
                let state = self.lock();
                let upload = state.uploads.get(&name).ok_or(BlobError::NoSuchUpload)?;
                let parts = chosen(upload, &parts)?;
                let bytes: Vec<u8> = parts.iter().flat_map(|(_, bytes)| bytes.to_vec()).collect();
                let md5s = parts.iter().filter_map(|(part, _)| part.etag.md5());
                let md5s: Vec<u8> = md5s.flatten().collect();
                let etag = ETag::of_parts(checksum::md5(&md5s), parts.len());
                let checksum = whole_checksum(upload, &parts, &bytes);
                if let Some(expected) = &options.checksum
                    && checksum.as_ref() != Some(expected)
                {
                    let algorithm = expected.algorithm;
                    let fault = BodyFault::Checksum { algorithm };
                    return Err(BlobError::Body { fault });
                }
                let put = PutOptions {
                    headers: upload.options.headers.clone(),
                    tags: upload.options.tags.clone(),
                    condition: WriteCondition::Always,
                };
                let bytes = Bytes::from(bytes);
                let mut meta = meta(&bytes, etag, checksum, put);
                let sizes = parts.iter().map(|(part, _)| PartSize {
                    number: part.number,
                    size: part.size,
                });
                meta.parts = sizes.collect();
                (meta, bytes)
            };
            self.publish(key, &options.condition, meta, bytes, |state| {
                let gone = state.uploads.remove(&name);
                gone.map(|_| ()).ok_or(BlobError::NoSuchUpload)
            })
        })
    }

    fn abort_upload<'a>(&'a self, key: &'a Key, upload: &'a UploadId) -> StoreFuture<'a, ()> {
        Box::pin(async move {
            self.enter().await?;
            let removed = self.lock().uploads.remove(&(key.clone(), upload.clone()));
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
            self.enter().await?;
            let state = self.lock();
            let upload = state.uploads.get(&(key.clone(), upload.clone()));
            let upload = upload.ok_or(BlobError::NoSuchUpload)?;
            let behind = upload.parts.range(after.saturating_add(1)..);
            let mut parts: Vec<PartInfo> = behind.map(|(_, (part, _))| part.clone()).collect();
            let more = parts.len() > limit;
            parts.truncate(limit);
            Ok(PartPage {
                parts,
                more,
                checksum: upload.options.checksum,
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
            self.enter().await?;
            let limit = limit.min(self.page.load(Ordering::SeqCst));
            let behind = |key: &Key, id: &UploadId| match &after {
                None => true,
                Some((after, None)) => key > after,
                Some((after, Some(after_id))) => (key, id) > (after, after_id),
            };
            let mut uploads: Vec<UploadInfo> = Vec::new();
            for ((key, id), upload) in &self.lock().uploads {
                if key.as_bytes().starts_with(&prefix) && behind(key, id) {
                    uploads.push(UploadInfo {
                        key: key.clone(),
                        id: id.clone(),
                        begun_ms: upload.begun_ms,
                    });
                }
            }
            let more = uploads.len() > limit;
            uploads.truncate(limit);
            Ok(UploadPage { uploads, more })
        })
    }

    fn read_reserved<'a>(&'a self, name: &'a str) -> StoreFuture<'a, Option<Bytes>> {
        Box::pin(async move {
            self.enter().await?;
            Ok(self.lock().reserved.get(name).cloned())
        })
    }

    fn write_reserved<'a>(
        &'a self,
        name: &'a str,
        bytes: Bytes,
        how: ReservedWrite,
    ) -> StoreFuture<'a, bool> {
        Box::pin(async move {
            self.enter().await?;
            let mut state = self.lock();
            if how == ReservedWrite::IfAbsent && state.reserved.contains_key(name) {
                return Ok(false);
            }
            state.reserved.insert(name.to_owned(), bytes);
            Ok(true)
        })
    }

    fn delete_reserved<'a>(&'a self, name: &'a str) -> StoreFuture<'a, ()> {
        Box::pin(async move {
            self.enter().await?;
            self.lock().reserved.remove(name);
            Ok(())
        })
    }

    fn list_reserved<'a>(
        &'a self,
        prefix: &'a str,
        after: Option<&'a str>,
    ) -> StoreFuture<'a, Vec<String>> {
        Box::pin(async move {
            self.enter().await?;
            let state = self.lock();
            let fits = |name: &&String| {
                name.starts_with(prefix) && after.is_none_or(|after| name.as_str() > after)
            };
            let names = state.reserved.keys().filter(fits).take(MAX_PAGE);
            Ok(names.cloned().collect())
        })
    }

    fn probe(&self) -> StoreFuture<'_, ()> {
        Box::pin(self.enter())
    }

    fn maintain(&self, expired_before_ms: u64) -> StoreFuture<'_, Maintained> {
        Box::pin(async move {
            self.enter().await?;
            let mut state = self.lock();
            let before = state.uploads.len();
            state
                .uploads
                .retain(|_, upload| upload.begun_ms >= expired_before_ms);
            let uploads = (before - state.uploads.len()) as u64;
            Ok(Maintained {
                uploads,
                leftovers: 0,
            })
        })
    }
}
