//! The composite over stores of the tests, through the suite that every store passes.
//!
//! Invariant: a composite is a store like any other.

use std::sync::Arc;

use anyhow::Result;
use breccia_blob::{BlobStore, ShardedBlob};
use breccia_core::layout::Role;
use breccia_testkit::conformance::blob_conformance;

use crate::memory::Memory;
use crate::shared::{layout, memories, sharded, stores};

#[tokio::test]
async fn the_tests_own_store_conforms() -> Result<()> {
    let store: Arc<dyn BlobStore> = Memory::new("a");
    blob_conformance(&store).await
}

#[tokio::test]
async fn a_composite_conforms() -> Result<()> {
    for names in [&["a"][..], &["a", "b", "c"]] {
        let store: Arc<dyn BlobStore> = sharded(&memories(names));
        blob_conformance(&store).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_composite_of_composites_conforms() -> Result<()> {
    let inner = |name: &str, names: &[&str]| -> Result<Arc<dyn BlobStore>> {
        let layout = layout(name, Role::Inner, names);
        Ok(Arc::new(ShardedBlob::new(
            layout,
            stores(&memories(names)),
        )?))
    };
    let shards = vec![inner("x", &["a", "b"])?, inner("y", &["c", "d", "e"])?];
    let outer = ShardedBlob::new(layout("all", Role::Outer, &["x", "y"]), shards)?;
    let store: Arc<dyn BlobStore> = Arc::new(outer);
    blob_conformance(&store).await
}
