//! A blob store sharded over three folders, embedded in a program, also as an `ObjectStore`.
//!
//! Run it: `cargo run -p breccia --example embedded_blobs -- /tmp/blobs`. It keeps its layout beside
//! the folders: the invariant is that the same folders, in any order, find the same objects again.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use breccia::blob::fs::{FsOptions, FsStore};
use breccia::blob::listing::{ListRequest, MAX_PAGE};
use breccia::blob::store::BlobStoreExt;
use breccia::blob::{BlobStore, Key, ShardedBlob, ShardedBlobOptions};
use breccia::net::layout_store::LayoutStore;

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let root = std::env::args().nth(1).context("name a folder")?;
    let root = PathBuf::from(root);
    let mut members = Vec::new();
    for name in ["disk-a", "disk-b", "disk-c"] {
        let options = FsOptions {
            name: name.to_owned(),
            path: root.join(name),
        };
        members.push(FsStore::open(&options)?.into());
    }
    let layouts = Arc::new(LayoutStore::open(&root.join("layouts"))?);
    let options = ShardedBlobOptions::new("blobs");
    let store = Arc::new(ShardedBlob::open(&layouts, options, members).await?);

    for number in 0..10 {
        let key = Key::new(format!("greeting/{number}"))?;
        store.put_bytes(&key, format!("hello {number}")).await?;
    }
    let all = ListRequest {
        limit: MAX_PAGE,
        ..ListRequest::default()
    };
    for item in store.list(all).await?.items {
        let key = Key::new(item.name().to_vec())?;
        let shard = store.layout().place(key.as_bytes()).shard;
        let shard = store.layout().shard_name(shard).unwrap_or_default();
        let (_, bytes) = store.get_bytes(&key).await?;
        println!("{key} on {shard}: {}", String::from_utf8_lossy(&bytes));
    }
    Ok(())
}
