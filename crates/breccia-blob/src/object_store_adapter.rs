//! Any blob store as an `object_store::ObjectStore`, for Rust programs that speak that trait.
//!
//! Not a backend: nothing here reaches a server by itself. Invariant: a path is the key of the same
//! bytes; a key that no path can name is an error in a listing, never another path.
//!
//! What `object_store` has and a blob store has not is refused: versions, storage classes.

mod convert;
mod upload;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt as _, TryStreamExt as _};
use object_store::path::Path;
use object_store::{
    CopyMode, CopyOptions, Extensions, GetOptions, GetResult, GetResultPayload, ListResult,
    MultipartUpload, ObjectMeta, ObjectStore, PutMode, PutMultipartOptions, PutOptions, PutPayload,
    PutResult, RenameOptions, RenameTargetMode, Result,
};

use crate::condition::WriteCondition;
use crate::error::BlobError;
use crate::listing::{ListItem, ListRequest, MAX_PAGE};
use crate::store::{self, BlobStore, Opened};
use crate::upload::UploadOptions;
use convert::{Asked, failed, key_of};
use upload::Upload;

/// How many objects of a stream are deleted at once.
const MAX_DELETED: usize = 10;
/// What `object_store` joins the parts of a path with.
const DELIMITER: &[u8] = b"/";

/// What methods of `object_store`'s traits give back, where those are async.
type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T>> + Send + 'a>>;

/// A blob store as `object_store` knows stores.
#[derive(Debug, Clone)]
pub struct ObjectStoreAdapter {
    store: Arc<dyn BlobStore>,
}

impl ObjectStoreAdapter {
    /// This store through the other trait.
    #[must_use]
    pub fn new(store: Arc<dyn BlobStore>) -> Self {
        Self { store }
    }

    async fn put(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        let (condition, asked) = match &options.mode {
            PutMode::Overwrite => (WriteCondition::Always, Asked::Anything),
            PutMode::Create => (WriteCondition::IfAbsent, Asked::Create),
            PutMode::Update(version) => (convert::update(location, version)?, Asked::Update),
        };
        let put = store::PutOptions {
            headers: convert::headers(&options.attributes)?,
            tags: convert::tags(&options.tags),
            condition,
        };
        let body = convert::body(payload);
        let written = self.store.put(&key_of(location)?, body, put).await;
        let written = written.map_err(|error| failed(error, location, asked))?;
        Ok(convert::put_result(&written.etag))
    }

    async fn get(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let key = key_of(location)?;
        let wrong = |error| failed(error, location, Asked::Anything);
        let conditions = convert::conditions(&options)?;
        if options.head {
            let meta = self.store.head(&key).await.map_err(wrong)?;
            conditions.check(&meta).map_err(wrong)?;
            return Ok(GetResult {
                payload: GetResultPayload::Stream(stream::empty().boxed()),
                range: 0..meta.size,
                attributes: convert::attributes(&meta.headers),
                meta: convert::object_meta(location.clone(), &meta),
                extensions: Extensions::default(),
            });
        }
        let span = options.range.as_ref().map(convert::span).transpose()?;
        let get = store::GetOptions {
            span,
            conditions,
            for_copy: false,
        };
        let opened = self.store.get(&key, get).await.map_err(wrong)?;
        Ok(result_of(location, opened))
    }

    async fn copy(&self, from: &Path, to: &Path, create: bool) -> Result<()> {
        let (condition, asked) = if create {
            (WriteCondition::IfAbsent, Asked::Create)
        } else {
            (WriteCondition::Always, Asked::Anything)
        };
        let options = store::CopyOptions {
            condition,
            ..store::CopyOptions::default()
        };
        let (source, target) = (key_of(from)?, key_of(to)?);
        let copied = self.store.copy(&source, &target, options).await;
        copied.map(|_| ()).map_err(|error| match error {
            BlobError::NotFound => failed(error, from, Asked::Anything),
            error => failed(error, to, asked),
        })
    }

    async fn rename(&self, from: &Path, to: &Path, create: bool) -> Result<()> {
        if from == to {
            // Copied over itself and then deleted, it would be gone.
            let there = self.get(from, GetOptions::new().with_head(true)).await;
            let there = there.map(|_| ());
            return match there {
                Ok(()) if create => Err(failed(BlobError::PreconditionFailed, to, Asked::Create)),
                there => there,
            };
        }
        self.copy(from, to, create).await?;
        let key = key_of(from)?;
        let deleted = self.store.delete(&key, WriteCondition::Always).await;
        deleted
            .map(|_| ())
            .map_err(|error| failed(error, from, Asked::Anything))
    }

    /// Pages of a listing, one after the other.
    fn pages(&self, first: ListRequest) -> BoxStream<'static, Result<Vec<ListItem>>> {
        let store = Arc::clone(&self.store);
        let pages = stream::try_unfold(Some(first), move |request| {
            let store = Arc::clone(&store);
            async move {
                let Some(mut request) = request else {
                    return Ok(None);
                };
                let page = store.list(request.clone()).await;
                let page = page.map_err(|error| failed(error, &Path::ROOT, Asked::Anything))?;
                let last = page.items.last().filter(|_| page.more);
                let after = last.map(|last| Bytes::copy_from_slice(last.name()));
                let next = after.map(|after| {
                    request.after = Some(after);
                    request
                });
                Ok(Some((page.items, next)))
            }
        });
        pages.fuse().boxed()
    }

    fn objects(
        &self,
        prefix: Option<&Path>,
        after: Option<&Path>,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        let request = ListRequest {
            prefix: convert::folder(prefix),
            after: after.map(|after| Bytes::copy_from_slice(after.as_ref().as_bytes())),
            delimiter: None,
            limit: MAX_PAGE,
        };
        let pages = self.pages(request);
        let items = pages.map_ok(|items| stream::iter(items.into_iter().map(Ok)));
        let objects = items.try_flatten().try_filter_map(|item| async move {
            match item {
                ListItem::Object(object) => convert::listed(&object).map(Some),
                ListItem::Prefix(_) => Ok(None),
            }
        });
        objects.boxed()
    }

    async fn folder(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let request = ListRequest {
            prefix: convert::folder(prefix),
            after: None,
            delimiter: Some(Bytes::from_static(DELIMITER)),
            limit: MAX_PAGE,
        };
        let mut result = ListResult {
            common_prefixes: Vec::new(),
            objects: Vec::new(),
            extensions: Extensions::default(),
        };
        let mut pages = self.pages(request);
        while let Some(items) = pages.try_next().await? {
            for item in &items {
                match item {
                    ListItem::Object(object) => result.objects.push(convert::listed(object)?),
                    ListItem::Prefix(prefix) => {
                        let path = prefix.strip_suffix(DELIMITER).unwrap_or(prefix);
                        result.common_prefixes.push(convert::path_of(path)?);
                    }
                }
            }
        }
        Ok(result)
    }

    async fn begin(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let key = key_of(location)?;
        let begin = UploadOptions {
            headers: convert::headers(&options.attributes)?,
            tags: convert::tags(&options.tags),
            checksum: None,
        };
        let id = self.store.create_upload(&key, begin).await;
        let id = id.map_err(|error| failed(error, location, Asked::Anything))?;
        let store = Arc::clone(&self.store);
        Ok(Box::new(Upload::new(store, location.clone(), key, id)))
    }
}

fn result_of(location: &Path, opened: Opened) -> GetResult {
    let path = location.clone();
    let chunks = stream::unfold(Some(opened.source), move |source| {
        let path = path.clone();
        async move {
            let mut source = source?;
            match source.next().await? {
                Ok(chunk) => Some((Ok(chunk), Some(source))),
                Err(error) => Some((Err(failed(error, &path, Asked::Anything)), None)),
            }
        }
    });
    GetResult {
        payload: GetResultPayload::Stream(chunks.fuse().boxed()),
        range: opened.range,
        attributes: convert::attributes(&opened.meta.headers),
        meta: convert::object_meta(location.clone(), &opened.meta),
        extensions: Extensions::default(),
    }
}

impl fmt::Display for ObjectStoreAdapter {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Breccia({})", self.store.name())
    }
}

// The trait is written with a macro that this workspace does without: the signatures are what it
// makes of them.
impl ObjectStore for ObjectStoreAdapter {
    fn put_opts<'s, 'l, 'r>(
        &'s self,
        location: &'l Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Answer<'r, PutResult>
    where
        's: 'r,
        'l: 'r,
        Self: 'r,
    {
        Box::pin(self.put(location, payload, options))
    }

    fn put_multipart_opts<'s, 'l, 'r>(
        &'s self,
        location: &'l Path,
        options: PutMultipartOptions,
    ) -> Answer<'r, Box<dyn MultipartUpload>>
    where
        's: 'r,
        'l: 'r,
        Self: 'r,
    {
        Box::pin(self.begin(location, options))
    }

    fn get_opts<'s, 'l, 'r>(
        &'s self,
        location: &'l Path,
        options: GetOptions,
    ) -> Answer<'r, GetResult>
    where
        's: 'r,
        'l: 'r,
        Self: 'r,
    {
        Box::pin(self.get(location, options))
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let store = Arc::clone(&self.store);
        let deleted = locations.map(move |location| {
            let store = Arc::clone(&store);
            async move {
                let location = location?;
                let key = key_of(&location)?;
                match store.delete(&key, WriteCondition::Always).await {
                    Ok(_) => Ok(location),
                    Err(error) => Err(failed(error, &location, Asked::Anything)),
                }
            }
        });
        deleted.buffered(MAX_DELETED).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.objects(prefix, None)
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        self.objects(prefix, Some(offset))
    }

    fn list_with_delimiter<'s, 'p, 'r>(&'s self, prefix: Option<&'p Path>) -> Answer<'r, ListResult>
    where
        's: 'r,
        'p: 'r,
        Self: 'r,
    {
        Box::pin(self.folder(prefix))
    }

    fn copy_opts<'s, 'f, 't, 'r>(
        &'s self,
        from: &'f Path,
        to: &'t Path,
        options: CopyOptions,
    ) -> Answer<'r, ()>
    where
        's: 'r,
        'f: 'r,
        't: 'r,
        Self: 'r,
    {
        Box::pin(self.copy(from, to, options.mode == CopyMode::Create))
    }

    fn rename_opts<'s, 'f, 't, 'r>(
        &'s self,
        from: &'f Path,
        to: &'t Path,
        options: RenameOptions,
    ) -> Answer<'r, ()>
    where
        's: 'r,
        'f: 'r,
        't: 'r,
        Self: 'r,
    {
        let create = options.target_mode == RenameTargetMode::Create;
        Box::pin(self.rename(from, to, create))
    }
}
