//! What the tests here share.
//!
//! Not a store. Invariant: keys and layouts are made the same way everywhere.

use std::sync::Arc;

use breccia_blob::listing::ListRequest;
use breccia_blob::sharded::Member;
use breccia_blob::{BlobError, BlobStore, Key, ShardedBlob, ShardedBlobOptions};
use breccia_core::layout::{CompositeKind, Layout, LayoutSpec, Role};
use breccia_core::{HashKind, PlacementKey};
use breccia_net::layout_store::LayoutStore;
use bytes::Bytes;

use crate::memory::Memory;

pub(crate) fn key(name: impl AsRef<[u8]>) -> Key {
    Key::new(name.as_ref().to_vec()).expect("a key")
}

pub(crate) fn text(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

pub(crate) fn everything(limit: usize) -> ListRequest {
    ListRequest {
        limit,
        ..ListRequest::default()
    }
}

pub(crate) fn memories(names: &[&str]) -> Vec<Arc<Memory>> {
    names.iter().map(|name| Memory::new(name)).collect()
}

pub(crate) fn stores(memories: &[Arc<Memory>]) -> Vec<Arc<dyn BlobStore>> {
    let stores = memories.iter().map(Arc::clone);
    stores.map(|memory| memory as Arc<dyn BlobStore>).collect()
}

pub(crate) fn members(memories: &[Arc<Memory>]) -> Vec<Member> {
    stores(memories).into_iter().map(Member::from).collect()
}

pub(crate) fn layout(composite: &str, role: Role, shards: &[&str]) -> Arc<Layout> {
    let spec = LayoutSpec {
        composite: composite.to_owned(),
        kind: CompositeKind::Blob,
        hash: HashKind::default(),
        hash_tag: None,
        placement_key: PlacementKey::Raw,
        role,
        shards: shards.iter().map(|shard| (*shard).to_owned()).collect(),
    };
    Arc::new(Layout::first(&spec).expect("a layout"))
}

/// A composite `all` without markers.
pub(crate) fn sharded(memories: &[Arc<Memory>]) -> Arc<ShardedBlob> {
    let names: Vec<&str> = memories.iter().map(|memory| memory.name()).collect();
    let layout = layout("all", Role::Outer, &names);
    Arc::new(ShardedBlob::new(layout, stores(memories)).expect("its members fit"))
}

pub(crate) async fn open(
    layouts: &Arc<LayoutStore>,
    memories: &[Arc<Memory>],
) -> Result<ShardedBlob, BlobError> {
    let options = ShardedBlobOptions::new("all");
    ShardedBlob::open(layouts, options, members(memories)).await
}

/// A key that lies on this shard.
pub(crate) fn key_on(store: &ShardedBlob, shard: &str) -> Key {
    let on = |key: &Key| {
        let shard_of = store.layout().place(key.as_bytes()).shard;
        store.layout().shard_name(shard_of) == Some(shard)
    };
    let mut keys = (0..10_000).map(|number| key(format!("k{number}")));
    keys.find(on).expect("every shard has keys")
}
