//! The sharded composite: each key lives on the store its layout names.
//!
//! No wire format and no health: members bring that with them. It is a store itself, so composites
//! nest. Invariant: a key's shard is decided by the layout alone, never by which shards answer.

mod conditions;
mod listing;
mod merge;
mod misplaced;
mod opening;
pub(crate) mod reserved;

use std::collections::BTreeMap;
use std::sync::Arc;

use breccia_core::layout::Layout;
use breccia_net::metrics::Registry;
use bytes::Bytes;

use crate::body::Body;
use crate::condition::{ConditionalCall, ConditionalSupport, WriteCondition};
use crate::error::BlobError;
use crate::key::Key;
use crate::listing::{ListPage, ListRequest};
use crate::meta::{ObjectMeta, Tags};
use crate::store::{
    BlobStore, CopyOptions, GetOptions, Maintained, Opened, PutOptions, ReservedWrite, StoreFuture,
    StoreKind, Written, copy_streamed,
};
use crate::upload::{
    CompleteOptions, PartChoice, PartInfo, PartPage, UploadId, UploadOptions, UploadPage,
};
use misplaced::Misplaced;

pub use opening::{Member, ShardedBlobOptions};

/// A store made of stores.
#[derive(Debug)]
pub struct ShardedBlob {
    layout: Arc<Layout>,
    /// In the order of the layout's shards.
    members: Vec<Arc<dyn BlobStore>>,
    misplaced: Misplaced,
}

impl ShardedBlob {
    /// A composite with a layout that was opened before; members may come in any order. Their
    /// markers are the caller's matter: see [`crate::guarded`] and [`ShardedBlob::open`].
    ///
    /// # Errors
    /// [`BlobError::Members`] if they are not the layout's shards.
    pub fn new(layout: Arc<Layout>, members: Vec<Arc<dyn BlobStore>>) -> Result<Self, BlobError> {
        let wrong = |problem| BlobError::Members {
            composite: layout.composite().to_owned(),
            problem,
        };
        let count = members.len();
        let mut by_name: BTreeMap<String, Arc<dyn BlobStore>> = members
            .into_iter()
            .map(|member| (member.name().to_owned(), member))
            .collect();
        if by_name.len() != count {
            return Err(wrong("was given two members of one name".to_owned()));
        }
        let mut members = Vec::with_capacity(count);
        for shard in layout.shards() {
            let member = by_name.remove(shard);
            members.push(member.ok_or_else(|| wrong(format!("has no member '{shard}'")))?);
        }
        if let Some(name) = by_name.keys().next() {
            return Err(wrong(format!("has no shard '{name}' in its layout")));
        }
        Ok(Self {
            layout,
            members,
            misplaced: Misplaced::new(),
        })
    }

    /// Counts misplaced objects in `registry`.
    #[must_use]
    pub fn with_metrics(mut self, registry: &Registry) -> Self {
        self.misplaced.count_in(registry, self.layout.composite());
        self
    }

    /// The layout in force.
    #[must_use]
    pub fn layout(&self) -> &Arc<Layout> {
        &self.layout
    }

    fn composite(&self) -> &str {
        self.layout.composite()
    }

    fn index_of(&self, key: &[u8]) -> usize {
        self.layout.place(key).shard.as_usize()
    }

    fn member(&self, index: usize) -> &dyn BlobStore {
        let member = self.members.get(index);
        &**member.expect("a layout places keys on its own shards, and each has a member")
    }

    fn member_of(&self, key: &[u8]) -> &dyn BlobStore {
        self.member(self.index_of(key))
    }

    /// Whether a listed key lies where the layout looks for it; if not, it is noted.
    fn holds(&self, member: usize, key: &Key) -> bool {
        let home = self.index_of(key.as_bytes());
        if home != member {
            let (lies, belongs) = (self.member(member).name(), self.member(home).name());
            self.misplaced.note(self.composite(), key, lies, belongs);
        }
        home == member
    }

    /// Refuses a conditional call that is not offered for this key.
    async fn require(&self, key: &Key, call: Option<ConditionalCall>) -> Result<(), BlobError> {
        conditions::require(self, self.index_of(key.as_bytes()), call).await
    }

    /// Names this composite in a member's error.
    fn named<'a, T: 'a>(&'a self, answer: StoreFuture<'a, T>) -> StoreFuture<'a, T> {
        Box::pin(async move { answer.await.map_err(|error| error.within(self.composite())) })
    }

    async fn copy_across(
        &self,
        from: &Key,
        to: &Key,
        options: CopyOptions,
    ) -> Result<Written, BlobError> {
        self.require(to, conditions::of_put(&options.condition))
            .await?;
        let source = self.index_of(from.as_bytes());
        let target = self.index_of(to.as_bytes());
        let copied = if source == target {
            self.member(source).copy(from, to, options).await
        } else {
            let (source, target) = (self.member(source), self.member(target));
            copy_streamed(source, from, target, to, options).await
        };
        copied.map_err(|error| error.within(self.composite()))
    }
}

impl BlobStore for ShardedBlob {
    fn name(&self) -> &str {
        self.composite()
    }

    fn kind(&self) -> StoreKind {
        StoreKind::Sharded
    }

    fn location(&self) -> Option<String> {
        None
    }

    fn conditional(&self) -> ConditionalSupport {
        conditions::common(self)
    }

    fn probe_conditional(&self) -> StoreFuture<'_, ConditionalSupport> {
        Box::pin(async { Ok(conditions::probe(self).await) })
    }

    fn shards(&self) -> Vec<Arc<dyn BlobStore>> {
        self.members.clone()
    }

    fn accepts(&self, key: &Key) -> Result<(), BlobError> {
        let accepted = self.member_of(key.as_bytes()).accepts(key);
        accepted.map_err(|error| error.within(self.composite()))
    }

    fn put<'a>(
        &'a self,
        key: &'a Key,
        body: Body,
        options: PutOptions,
    ) -> StoreFuture<'a, Written> {
        Box::pin(async move {
            let call = conditions::of_put(&options.condition);
            self.require(key, call).await?;
            let member = self.member_of(key.as_bytes());
            self.named(member.put(key, body, options)).await
        })
    }

    fn get<'a>(&'a self, key: &'a Key, options: GetOptions) -> StoreFuture<'a, Opened> {
        self.named(self.member_of(key.as_bytes()).get(key, options))
    }

    fn head<'a>(&'a self, key: &'a Key) -> StoreFuture<'a, ObjectMeta> {
        self.named(self.member_of(key.as_bytes()).head(key))
    }

    fn delete<'a>(&'a self, key: &'a Key, condition: WriteCondition) -> StoreFuture<'a, bool> {
        Box::pin(async move {
            let call = conditions::of_delete(&condition);
            self.require(key, call).await?;
            let member = self.member_of(key.as_bytes());
            self.named(member.delete(key, condition)).await
        })
    }

    fn list(&self, request: ListRequest) -> StoreFuture<'_, ListPage> {
        Box::pin(listing::list(self, request))
    }

    fn copy<'a>(
        &'a self,
        from: &'a Key,
        to: &'a Key,
        options: CopyOptions,
    ) -> StoreFuture<'a, Written> {
        Box::pin(self.copy_across(from, to, options))
    }

    fn set_tags<'a>(&'a self, key: &'a Key, tags: Tags) -> StoreFuture<'a, ()> {
        self.named(self.member_of(key.as_bytes()).set_tags(key, tags))
    }

    fn create_upload<'a>(
        &'a self,
        key: &'a Key,
        options: UploadOptions,
    ) -> StoreFuture<'a, UploadId> {
        self.named(self.member_of(key.as_bytes()).create_upload(key, options))
    }

    fn put_part<'a>(
        &'a self,
        key: &'a Key,
        upload: &'a UploadId,
        number: u16,
        body: Body,
    ) -> StoreFuture<'a, PartInfo> {
        let member = self.member_of(key.as_bytes());
        self.named(member.put_part(key, upload, number, body))
    }

    fn complete_upload<'a>(
        &'a self,
        key: &'a Key,
        upload: &'a UploadId,
        parts: Vec<PartChoice>,
        options: CompleteOptions,
    ) -> StoreFuture<'a, Written> {
        Box::pin(async move {
            let call = conditions::of_complete(&options.condition);
            self.require(key, call).await?;
            let member = self.member_of(key.as_bytes());
            self.named(member.complete_upload(key, upload, parts, options))
                .await
        })
    }

    fn abort_upload<'a>(&'a self, key: &'a Key, upload: &'a UploadId) -> StoreFuture<'a, ()> {
        self.named(self.member_of(key.as_bytes()).abort_upload(key, upload))
    }

    fn list_parts<'a>(
        &'a self,
        key: &'a Key,
        upload: &'a UploadId,
        after: u16,
        limit: usize,
    ) -> StoreFuture<'a, PartPage> {
        let member = self.member_of(key.as_bytes());
        self.named(member.list_parts(key, upload, after, limit))
    }

    fn list_uploads(
        &self,
        prefix: Bytes,
        after: Option<(Key, Option<UploadId>)>,
        limit: usize,
    ) -> StoreFuture<'_, UploadPage> {
        Box::pin(listing::list_uploads(self, prefix, after, limit))
    }

    fn read_reserved<'a>(&'a self, name: &'a str) -> StoreFuture<'a, Option<Bytes>> {
        self.named(self.member_of(name.as_bytes()).read_reserved(name))
    }

    fn write_reserved<'a>(
        &'a self,
        name: &'a str,
        bytes: Bytes,
        how: ReservedWrite,
    ) -> StoreFuture<'a, bool> {
        let member = self.member_of(name.as_bytes());
        self.named(member.write_reserved(name, bytes, how))
    }

    fn delete_reserved<'a>(&'a self, name: &'a str) -> StoreFuture<'a, ()> {
        self.named(self.member_of(name.as_bytes()).delete_reserved(name))
    }

    fn list_reserved<'a>(
        &'a self,
        prefix: &'a str,
        after: Option<&'a str>,
    ) -> StoreFuture<'a, Vec<String>> {
        Box::pin(reserved::list(self, prefix, after))
    }

    fn probe(&self) -> StoreFuture<'_, ()> {
        Box::pin(async move {
            for member in &self.members {
                self.named(member.probe()).await?;
            }
            Ok(())
        })
    }

    fn maintain(&self, expired_before_ms: u64) -> StoreFuture<'_, Maintained> {
        Box::pin(async move {
            let mut all = Maintained::default();
            for member in &self.members {
                match self.named(member.maintain(expired_before_ms)).await {
                    Ok(cleared) => {
                        all.uploads = all.uploads.saturating_add(cleared.uploads);
                        all.leftovers = all.leftovers.saturating_add(cleared.leftovers);
                    }
                    // It is tried again with the next round.
                    Err(error) => tracing::warn!(%error, "a shard could not be maintained"),
                }
            }
            Ok(all)
        })
    }
}
