//! The guard as a store: every request waits for the guard, then goes to the leaf as it is.
//!
//! Not the guard's decisions. Invariant: nothing of a request or an answer is changed.

use bytes::Bytes;

use super::Guarded;
use crate::body::Body;
use crate::condition::{ConditionalSupport, WriteCondition};
use crate::error::BlobError;
use crate::key::Key;
use crate::listing::{ListPage, ListRequest};
use crate::meta::{ObjectMeta, Tags};
use crate::store::{
    BlobStore, CopyOptions, GetOptions, Maintained, Opened, PutOptions, ReservedWrite, StoreFuture,
    StoreKind, Written,
};
use crate::upload::{
    CompleteOptions, PartChoice, PartInfo, PartPage, UploadId, UploadOptions, UploadPage,
};

impl BlobStore for Guarded {
    fn name(&self) -> &str {
        self.leaf.leaf.name()
    }

    fn kind(&self) -> StoreKind {
        self.leaf.leaf.kind()
    }

    fn location(&self) -> Option<String> {
        self.leaf.leaf.location()
    }

    fn key_mode(&self) -> Option<&'static str> {
        self.leaf.leaf.key_mode()
    }

    fn conditional(&self) -> ConditionalSupport {
        self.leaf.leaf.conditional()
    }

    fn probe_conditional(&self) -> StoreFuture<'_, ConditionalSupport> {
        self.run(|leaf| leaf.probe_conditional())
    }

    fn accepts(&self, key: &Key) -> Result<(), BlobError> {
        self.leaf.leaf.accepts(key)
    }

    fn put<'a>(
        &'a self,
        key: &'a Key,
        body: Body,
        options: PutOptions,
    ) -> StoreFuture<'a, Written> {
        self.run(move |leaf| leaf.put(key, body, options))
    }

    fn get<'a>(&'a self, key: &'a Key, options: GetOptions) -> StoreFuture<'a, Opened> {
        self.run(move |leaf| leaf.get(key, options))
    }

    fn head<'a>(&'a self, key: &'a Key) -> StoreFuture<'a, ObjectMeta> {
        self.run(move |leaf| leaf.head(key))
    }

    fn delete<'a>(&'a self, key: &'a Key, condition: WriteCondition) -> StoreFuture<'a, bool> {
        self.run(move |leaf| leaf.delete(key, condition))
    }

    fn list(&self, request: ListRequest) -> StoreFuture<'_, ListPage> {
        self.run(move |leaf| leaf.list(request))
    }

    fn copy<'a>(
        &'a self,
        from: &'a Key,
        to: &'a Key,
        options: CopyOptions,
    ) -> StoreFuture<'a, Written> {
        self.run(move |leaf| leaf.copy(from, to, options))
    }

    fn set_tags<'a>(&'a self, key: &'a Key, tags: Tags) -> StoreFuture<'a, ()> {
        self.run(move |leaf| leaf.set_tags(key, tags))
    }

    fn create_upload<'a>(
        &'a self,
        key: &'a Key,
        options: UploadOptions,
    ) -> StoreFuture<'a, UploadId> {
        self.run(move |leaf| leaf.create_upload(key, options))
    }

    fn put_part<'a>(
        &'a self,
        key: &'a Key,
        upload: &'a UploadId,
        number: u16,
        body: Body,
    ) -> StoreFuture<'a, PartInfo> {
        self.run(move |leaf| leaf.put_part(key, upload, number, body))
    }

    fn complete_upload<'a>(
        &'a self,
        key: &'a Key,
        upload: &'a UploadId,
        parts: Vec<PartChoice>,
        options: CompleteOptions,
    ) -> StoreFuture<'a, Written> {
        self.run(move |leaf| leaf.complete_upload(key, upload, parts, options))
    }

    fn abort_upload<'a>(&'a self, key: &'a Key, upload: &'a UploadId) -> StoreFuture<'a, ()> {
        self.run(move |leaf| leaf.abort_upload(key, upload))
    }

    fn list_parts<'a>(
        &'a self,
        key: &'a Key,
        upload: &'a UploadId,
        after: u16,
        limit: usize,
    ) -> StoreFuture<'a, PartPage> {
        self.run(move |leaf| leaf.list_parts(key, upload, after, limit))
    }

    fn list_uploads(
        &self,
        prefix: Bytes,
        after: Option<(Key, Option<UploadId>)>,
        limit: usize,
    ) -> StoreFuture<'_, UploadPage> {
        self.run(move |leaf| leaf.list_uploads(prefix, after, limit))
    }

    fn read_reserved<'a>(&'a self, name: &'a str) -> StoreFuture<'a, Option<Bytes>> {
        self.run(move |leaf| leaf.read_reserved(name))
    }

    fn write_reserved<'a>(
        &'a self,
        name: &'a str,
        bytes: Bytes,
        how: ReservedWrite,
    ) -> StoreFuture<'a, bool> {
        self.run(move |leaf| leaf.write_reserved(name, bytes, how))
    }

    fn delete_reserved<'a>(&'a self, name: &'a str) -> StoreFuture<'a, ()> {
        self.run(move |leaf| leaf.delete_reserved(name))
    }

    fn list_reserved<'a>(
        &'a self,
        prefix: &'a str,
        after: Option<&'a str>,
    ) -> StoreFuture<'a, Vec<String>> {
        self.run(move |leaf| leaf.list_reserved(prefix, after))
    }

    fn probe(&self) -> StoreFuture<'_, ()> {
        self.leaf.leaf.probe()
    }

    fn maintain(&self, expired_before_ms: u64) -> StoreFuture<'_, Maintained> {
        self.run(move |leaf| leaf.maintain(expired_before_ms))
    }
}
