//! A place as a store: every request goes to the store there as it is, once it is open.
//!
//! Not the opening. Invariant: only a reserved object makes a store where none was begun.

use bytes::Bytes;

use super::LocalStore;
use crate::body::Body;
use crate::condition::{ConditionalSupport, Support, WriteCondition};
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

impl LocalStore {
    /// Sends a request to the store.
    fn run<'a, T, F>(&'a self, request: F) -> StoreFuture<'a, T>
    where
        T: Send + 'a,
        F: FnOnce(&'a dyn BlobStore) -> StoreFuture<'a, T> + Send + 'a,
    {
        // The way of nearly every request: nothing is awaited or boxed once more.
        if let Some(opened) = self.opened() {
            return request(opened);
        }
        Box::pin(async move {
            match self.ready(false).await? {
                Some(opened) => request(opened).await,
                None => Err(self.down("there is no store yet".to_owned())),
            }
        })
    }

    /// The same for a question that a place without a store answers as an empty store does.
    fn ask<'a, T, F, E>(&'a self, request: F, empty: E) -> StoreFuture<'a, T>
    where
        T: Send + 'a,
        F: FnOnce(&'a dyn BlobStore) -> StoreFuture<'a, T> + Send + 'a,
        E: FnOnce() -> T + Send + 'a,
    {
        if let Some(opened) = self.opened() {
            return request(opened);
        }
        Box::pin(async move {
            match self.ready(false).await? {
                Some(opened) => request(opened).await,
                None => Ok(empty()),
            }
        })
    }
}

impl BlobStore for LocalStore {
    fn name(&self) -> &str {
        self.shared.place.name()
    }

    fn kind(&self) -> StoreKind {
        self.shared.place.kind()
    }

    fn location(&self) -> Option<String> {
        let opened = self.opened().and_then(BlobStore::location);
        Some(opened.unwrap_or_else(|| self.location.clone()))
    }

    fn conditional(&self) -> ConditionalSupport {
        // All that lies on a disk of ours can.
        ConditionalSupport::all(Support::Yes)
    }

    fn accepts(&self, key: &Key) -> Result<(), BlobError> {
        self.opened().map_or(Ok(()), |opened| opened.accepts(key))
    }

    fn put<'a>(
        &'a self,
        key: &'a Key,
        body: Body,
        options: PutOptions,
    ) -> StoreFuture<'a, Written> {
        self.run(move |store| store.put(key, body, options))
    }

    fn get<'a>(&'a self, key: &'a Key, options: GetOptions) -> StoreFuture<'a, Opened> {
        self.run(move |store| store.get(key, options))
    }

    fn head<'a>(&'a self, key: &'a Key) -> StoreFuture<'a, ObjectMeta> {
        self.run(move |store| store.head(key))
    }

    fn delete<'a>(&'a self, key: &'a Key, condition: WriteCondition) -> StoreFuture<'a, bool> {
        self.run(move |store| store.delete(key, condition))
    }

    fn list(&self, request: ListRequest) -> StoreFuture<'_, ListPage> {
        let seen = || self.seen.as_ref().map(|seen| seen.first.clone());
        self.ask(
            move |store| store.list(request),
            move || seen().unwrap_or_default(),
        )
    }

    fn copy<'a>(
        &'a self,
        from: &'a Key,
        to: &'a Key,
        options: CopyOptions,
    ) -> StoreFuture<'a, Written> {
        self.run(move |store| store.copy(from, to, options))
    }

    fn set_tags<'a>(&'a self, key: &'a Key, tags: Tags) -> StoreFuture<'a, ()> {
        self.run(move |store| store.set_tags(key, tags))
    }

    fn create_upload<'a>(
        &'a self,
        key: &'a Key,
        options: UploadOptions,
    ) -> StoreFuture<'a, UploadId> {
        self.run(move |store| store.create_upload(key, options))
    }

    fn put_part<'a>(
        &'a self,
        key: &'a Key,
        upload: &'a UploadId,
        number: u16,
        body: Body,
    ) -> StoreFuture<'a, PartInfo> {
        self.run(move |store| store.put_part(key, upload, number, body))
    }

    fn complete_upload<'a>(
        &'a self,
        key: &'a Key,
        upload: &'a UploadId,
        parts: Vec<PartChoice>,
        options: CompleteOptions,
    ) -> StoreFuture<'a, Written> {
        self.run(move |store| store.complete_upload(key, upload, parts, options))
    }

    fn abort_upload<'a>(&'a self, key: &'a Key, upload: &'a UploadId) -> StoreFuture<'a, ()> {
        self.run(move |store| store.abort_upload(key, upload))
    }

    fn list_parts<'a>(
        &'a self,
        key: &'a Key,
        upload: &'a UploadId,
        after: u16,
        limit: usize,
    ) -> StoreFuture<'a, PartPage> {
        self.run(move |store| store.list_parts(key, upload, after, limit))
    }

    fn list_uploads(
        &self,
        prefix: Bytes,
        after: Option<(Key, Option<UploadId>)>,
        limit: usize,
    ) -> StoreFuture<'_, UploadPage> {
        self.ask(
            move |store| store.list_uploads(prefix, after, limit),
            UploadPage::default,
        )
    }

    fn read_reserved<'a>(&'a self, name: &'a str) -> StoreFuture<'a, Option<Bytes>> {
        let seen = || self.seen.as_ref().and_then(|seen| seen.markers.get(name));
        self.ask(
            move |store| store.read_reserved(name),
            move || seen().cloned(),
        )
    }

    fn write_reserved<'a>(
        &'a self,
        name: &'a str,
        bytes: Bytes,
        how: ReservedWrite,
    ) -> StoreFuture<'a, bool> {
        Box::pin(async move {
            match self.ready(true).await? {
                Some(opened) => opened.write_reserved(name, bytes, how).await,
                None => Err(self.down("it is only looked at".to_owned())),
            }
        })
    }

    fn delete_reserved<'a>(&'a self, name: &'a str) -> StoreFuture<'a, ()> {
        self.ask(move |store| store.delete_reserved(name), || ())
    }

    fn list_reserved<'a>(
        &'a self,
        prefix: &'a str,
        after: Option<&'a str>,
    ) -> StoreFuture<'a, Vec<String>> {
        let seen = move || {
            let names = self.seen.iter().flat_map(|seen| seen.markers.keys());
            let names = names.filter(|name| name.starts_with(prefix));
            let behind = names.filter(|name| after.is_none_or(|after| name.as_str() > after));
            behind.cloned().collect()
        };
        self.ask(move |store| store.list_reserved(prefix, after), seen)
    }

    fn describe(&self) -> StoreFuture<'_, Vec<String>> {
        self.ask(BlobStore::describe, Vec::new)
    }

    fn probe(&self) -> StoreFuture<'_, ()> {
        if let Some(opened) = self.opened() {
            return opened.probe();
        }
        Box::pin(async move {
            if let Some(opened) = self.ready(false).await? {
                opened.probe().await
            } else {
                // A place in which a store can be made is well.
                let place = &self.shared.place;
                place.writable().map_err(|error| place.told(error))
            }
        })
    }

    fn maintain(&self, expired_before_ms: u64) -> StoreFuture<'_, Maintained> {
        self.ask(
            move |store| store.maintain(expired_before_ms),
            Maintained::default,
        )
    }
}
