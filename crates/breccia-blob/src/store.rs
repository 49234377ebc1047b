//! The trait every blob store and every composite implements.
//!
//! Not a wire format and not a composite. Invariant: what a member cannot do exactly is refused
//! with a reason, never approximated; and an object is visible whole or not at all.

use std::fmt::Debug;
use std::future::Future;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;

use crate::body::{Body, ByteSource};
use crate::checksum::Checksum;
use crate::condition::{ConditionalSupport, ReadConditions, Support, WriteCondition};
use crate::error::BlobError;
use crate::http::Lane;
use crate::key::Key;
use crate::listing::{ListPage, ListRequest};
use crate::meta::{ETag, Headers, ObjectMeta, Tags};
use crate::upload::{
    CompleteOptions, PartChoice, PartInfo, PartPage, UploadId, UploadInfo, UploadOptions,
    UploadPage,
};

/// The answer of a store.
pub type StoreFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, BlobError>> + Send + 'a>>;

/// What a store is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StoreKind {
    /// Files of this machine.
    Fs,
    /// A bucket of an S3 server.
    S3,
    /// A container of Azure Blob Storage.
    Azure,
    /// A bucket of Google Cloud Storage.
    Gcs,
    /// Tables of a PostgreSQL database.
    Postgresql,
    /// Tables of a MySQL or MariaDB database.
    Mysql,
    /// An SQLite file.
    Sqlite,
    /// A composite.
    Sharded,
}

impl StoreKind {
    /// The store's `type`, as in a configuration.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Fs => "fs",
            Self::S3 => "s3",
            Self::Azure => "azure",
            Self::Gcs => "gcs",
            Self::Postgresql => "postgresql",
            Self::Mysql => "mysql",
            Self::Sqlite => "sqlite",
            Self::Sharded => "sharded-blob",
        }
    }
}

/// What a put brings beside the bytes.
#[derive(Debug, Clone, Default)]
pub struct PutOptions {
    /// The object's headers.
    pub headers: Headers,
    /// The object's tags.
    pub tags: Tags,
    /// The condition, decided together with the publication.
    pub condition: WriteCondition,
}

/// What a put, a copy or a complete has made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// Its tag.
    pub etag: ETag,
    /// Its checksum, if one is kept with it.
    pub checksum: Option<Checksum>,
    /// When it was written, in milliseconds since the Unix epoch.
    pub modified_ms: u64,
}

/// Which bytes of an object are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Span {
    /// From the first to the last, both included.
    Between(u64, u64),
    /// From here to the end.
    From(u64),
    /// The last so many.
    Last(u64),
}

impl Span {
    /// The bytes of an object of this size.
    ///
    /// # Errors
    /// [`BlobError::Range`] if the object has none of them.
    pub fn of(self, size: u64) -> Result<Range<u64>, BlobError> {
        let outside = BlobError::Range { size };
        match self {
            Self::Between(first, last) if first < size && first <= last => {
                Ok(first..last.saturating_add(1).min(size))
            }
            Self::From(first) if first < size => Ok(first..size),
            Self::Last(count) if count > 0 && size > 0 => Ok(size.saturating_sub(count)..size),
            _ => Err(outside),
        }
    }
}

/// What a get asks for.
#[derive(Debug, Clone, Default)]
pub struct GetOptions {
    /// Which bytes; `None`: all.
    pub span: Option<Span>,
    /// The conditions, held against the very version whose bytes are given.
    pub conditions: ReadConditions,
    /// Whether the bytes are to be written elsewhere. The read then holds nothing that a write may
    /// wait for: else copies in both directions could wait for each other.
    pub for_copy: bool,
}

impl GetOptions {
    /// The connections that a member may take for this.
    pub(crate) fn lane(&self) -> Lane {
        if self.for_copy {
            Lane::CopySources
        } else {
            Lane::Requests
        }
    }
}

/// An object that is being read.
pub struct Opened {
    /// What is known of it: of the same version as the bytes.
    pub meta: ObjectMeta,
    /// Which of its bytes come.
    pub range: Range<u64>,
    /// The bytes, verified as far as the member can before they are given.
    pub source: Box<dyn ByteSource>,
}

impl Debug for Opened {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Opened")
            .field("meta", &self.meta)
            .field("range", &self.range)
            .finish_non_exhaustive()
    }
}

/// How a copy is made.
#[derive(Debug, Clone, Default)]
pub struct CopyOptions {
    /// Conditions on the source.
    pub source: ReadConditions,
    /// Headers in place of the source's; `None`: those of the source.
    pub headers: Option<Headers>,
    /// Tags in place of the source's; `None`: those of the source.
    pub tags: Option<Tags>,
    /// The condition on the target.
    pub condition: WriteCondition,
}

/// How a reserved object is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReservedWrite {
    /// Over whatever is there.
    Always,
    /// Only if there is none. A member without atomic create-if-absent looks first and says so in
    /// its documentation.
    IfAbsent,
}

/// The longest name of a reserved object, in bytes.
pub const MAX_RESERVED_NAME_BYTES: usize = 256;
/// The largest reserved object, in bytes.
pub const MAX_RESERVED_BYTES: usize = 1024 * 1024;

/// A store of objects.
///
/// Methods return boxed futures, so that stores of any kind can be mixed behind `dyn`. Dropping a
/// future cancels the request; a put that is cancelled leaves nothing visible.
pub trait BlobStore: Debug + Send + Sync {
    /// The store's name, as in a configuration.
    fn name(&self) -> &str;

    /// What it is.
    fn kind(&self) -> StoreKind;

    /// Where its data lies, as one text without secrets; `None` for a composite.
    fn location(&self) -> Option<String>;

    /// How it writes clients' keys, `plain` or `encoded`, if that is a choice that must never change
    /// once it holds objects; `None` where any key is held as it is. Kept beside the markers.
    fn key_mode(&self) -> Option<&'static str> {
        None
    }

    /// Which conditional calls it offers, as far as is known now.
    fn conditional(&self) -> ConditionalSupport {
        ConditionalSupport::all(Support::Yes)
    }

    /// Finds out which conditional calls it offers, by trying them on reserved keys if need be.
    fn probe_conditional(&self) -> StoreFuture<'_, ConditionalSupport> {
        Box::pin(async { Ok(self.conditional()) })
    }

    /// The stores a composite places keys on, in the order of its layout; none for others.
    fn shards(&self) -> Vec<Arc<dyn BlobStore>> {
        Vec::new()
    }

    /// Whether this store can hold this key; cheap, no request.
    ///
    /// # Errors
    /// [`BlobError::KeyRefused`], [`BlobError::KeyTooLong`].
    fn accepts(&self, key: &Key) -> Result<(), BlobError>;

    /// Writes an object whole, or nothing.
    fn put<'a>(&'a self, key: &'a Key, body: Body, options: PutOptions)
    -> StoreFuture<'a, Written>;

    /// Opens an object for reading.
    fn get<'a>(&'a self, key: &'a Key, options: GetOptions) -> StoreFuture<'a, Opened>;

    /// What is known of an object, with its tags.
    fn head<'a>(&'a self, key: &'a Key) -> StoreFuture<'a, ObjectMeta>;

    /// Removes an object. `Ok(false)`: there was none (only where the member tells; else `true`).
    fn delete<'a>(&'a self, key: &'a Key, condition: WriteCondition) -> StoreFuture<'a, bool>;

    /// One page of a listing.
    fn list(&self, request: ListRequest) -> StoreFuture<'_, ListPage>;

    /// Copies within this store, in the member's own way if it has one that keeps the promises.
    fn copy<'a>(
        &'a self,
        from: &'a Key,
        to: &'a Key,
        options: CopyOptions,
    ) -> StoreFuture<'a, Written>;

    /// Replaces the tags of an object; nothing else of it changes.
    fn set_tags<'a>(&'a self, key: &'a Key, tags: Tags) -> StoreFuture<'a, ()>;

    /// Begins an upload in parts.
    fn create_upload<'a>(
        &'a self,
        key: &'a Key,
        options: UploadOptions,
    ) -> StoreFuture<'a, UploadId>;

    /// Writes a part, in place of one of the same number.
    fn put_part<'a>(
        &'a self,
        key: &'a Key,
        upload: &'a UploadId,
        number: u16,
        body: Body,
    ) -> StoreFuture<'a, PartInfo>;

    /// Makes the object of the chosen parts, and ends the upload.
    fn complete_upload<'a>(
        &'a self,
        key: &'a Key,
        upload: &'a UploadId,
        parts: Vec<PartChoice>,
        options: CompleteOptions,
    ) -> StoreFuture<'a, Written>;

    /// Ends an upload and forgets its parts.
    fn abort_upload<'a>(&'a self, key: &'a Key, upload: &'a UploadId) -> StoreFuture<'a, ()>;

    /// The parts of an upload with numbers above `after`, by number.
    fn list_parts<'a>(
        &'a self,
        key: &'a Key,
        upload: &'a UploadId,
        after: u16,
        limit: usize,
    ) -> StoreFuture<'a, PartPage>;

    /// The uploads of keys with this prefix, by key and then id, behind `after`.
    fn list_uploads(
        &self,
        prefix: Bytes,
        after: Option<(Key, Option<UploadId>)>,
        limit: usize,
    ) -> StoreFuture<'_, UploadPage>;

    /// Reads a reserved object: a name outside of the clients' keys.
    fn read_reserved<'a>(&'a self, name: &'a str) -> StoreFuture<'a, Option<Bytes>>;

    /// Writes a reserved object; answers whether it was written.
    fn write_reserved<'a>(
        &'a self,
        name: &'a str,
        bytes: Bytes,
        how: ReservedWrite,
    ) -> StoreFuture<'a, bool>;

    /// Removes a reserved object; there may be none.
    fn delete_reserved<'a>(&'a self, name: &'a str) -> StoreFuture<'a, ()>;

    /// The names of reserved objects with this prefix behind `after`, in byte order, at most
    /// [`crate::listing::MAX_PAGE`].
    fn list_reserved<'a>(
        &'a self,
        prefix: &'a str,
        after: Option<&'a str>,
    ) -> StoreFuture<'a, Vec<String>>;

    /// What an operator should know of the place where the data lies, a sentence each: for `check`.
    fn describe(&self) -> StoreFuture<'_, Vec<String>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    /// A sign of life: one cheap question to the place where the data lies.
    fn probe(&self) -> StoreFuture<'_, ()>;

    /// Clears away what is no longer needed: called from time to time by one task of the process.
    /// Uploads begun before `expired_before_ms` (milliseconds since the Unix epoch) end.
    fn maintain(&self, expired_before_ms: u64) -> StoreFuture<'_, Maintained>;
}

/// What a [`BlobStore::maintain`] has cleared away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Maintained {
    /// Uploads that had expired.
    pub uploads: u64,
    /// Leftovers of writes and deletes.
    pub leftovers: u64,
}

/// Comfort over [`BlobStore`].
pub trait BlobStoreExt: BlobStore {
    /// Writes bytes at hand, without conditions.
    fn put_bytes<'a>(&'a self, key: &'a Key, bytes: impl Into<Bytes>) -> StoreFuture<'a, Written> {
        self.put(key, Body::from_bytes(bytes), PutOptions::default())
    }

    /// Reads an object whole. Not for large ones: it is held in memory.
    fn get_bytes<'a>(&'a self, key: &'a Key) -> StoreFuture<'a, (ObjectMeta, Bytes)> {
        Box::pin(async move {
            let opened = self.get(key, GetOptions::default()).await?;
            let size = opened.range.end.saturating_sub(opened.range.start);
            let bytes = Body::new(opened.source, size).collect().await?;
            Ok((opened.meta, bytes))
        })
    }

    /// Aborts an upload that is known from a listing.
    fn abort<'a>(&'a self, upload: &'a UploadInfo) -> StoreFuture<'a, ()> {
        self.abort_upload(&upload.key, &upload.id)
    }
}

impl<T: BlobStore + ?Sized> BlobStoreExt for T {}

/// Copies by reading from one store and writing to another, as a stream: for members without a
/// copy of their own, and across shards. The tags and headers are the source's unless replaced.
///
/// # Errors
/// Those of the get and of the put.
pub async fn copy_streamed(
    from_store: &dyn BlobStore,
    from: &Key,
    to_store: &dyn BlobStore,
    to: &Key,
    options: CopyOptions,
) -> Result<Written, BlobError> {
    let get = GetOptions {
        span: None,
        conditions: options.source,
        for_copy: true,
    };
    let opened = from_store.get(from, get).await?;
    let mut body = Body::new(opened.source, opened.meta.size);
    if let Some(checksum) = &opened.meta.checksum {
        body = body.compute(checksum.algorithm);
    }
    let put = PutOptions {
        headers: options.headers.unwrap_or(opened.meta.headers),
        tags: options.tags.unwrap_or(opened.meta.tags),
        condition: options.condition,
    };
    to_store.put(to, body, put).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_cut_at_the_end_of_the_object() {
        let check = |span: Span, size, expected: Option<Range<u64>>| {
            assert_eq!(span.of(size).ok(), expected, "{span:?} of {size}");
        };
        check(Span::Between(0, 0), 1, Some(0..1));
        check(Span::Between(2, 9), 5, Some(2..5));
        check(Span::Between(5, 9), 5, None);
        check(Span::Between(3, 2), 5, None);
        check(Span::Between(0, u64::MAX), 5, Some(0..5));
        check(Span::From(4), 5, Some(4..5));
        check(Span::From(5), 5, None);
        check(Span::Last(2), 5, Some(3..5));
        check(Span::Last(9), 5, Some(0..5));
        check(Span::Last(0), 5, None);
        check(Span::Last(1), 0, None);
    }
}
