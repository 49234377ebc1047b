//! Adoption of objects that others have placed.
//!
//! Invariant: nothing is marked unless every object lies where the layout looks for it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use anyhow::Result;
use breccia_blob::BlobStore;
use breccia_blob::adoption::{MAX_EXAMPLES, adopt};
use breccia_blob::markers::{Composite, marker_name};
use breccia_blob::store::BlobStoreExt;
use breccia_core::layout::Role;
use breccia_net::layout_store::LayoutStore;

use crate::memory::Memory;
use crate::shared::{key, layout, memories, open, sharded, stores};

async fn adopted(memories: &[Arc<Memory>]) -> Result<breccia_blob::adoption::AdoptionReport> {
    let names: Vec<&str> = memories.iter().map(|memory| memory.name()).collect();
    let layout = layout("all", Role::Outer, &names);
    let composite = Composite::of("all", &stores(memories));
    let mut told = 0;
    let mut progress = |_: &str, objects: u64| told = objects.max(told);
    let layouts = LayoutStore::ephemeral();
    let report = adopt(&layout, &composite, &layouts, &mut progress).await?;
    assert!(told > 0, "progress is told");
    Ok(report)
}

#[tokio::test]
async fn objects_that_lie_where_they_belong_are_adopted() -> Result<()> {
    let memories = memories(&["a", "b", "c"]);
    // As a program would have placed them, which hashes by itself.
    let store = sharded(&memories);
    for number in 0..200 {
        store.put_bytes(&key(format!("k{number}")), "x").await?;
    }
    for memory in &memories {
        memory.page.store(9, Ordering::SeqCst);
    }
    let layouts = Arc::new(LayoutStore::ephemeral());
    assert!(
        open(&layouts, &memories).await.is_err(),
        "it is not adopted yet"
    );
    let report = adopted(&memories).await?;
    assert_eq!((report.objects(), report.misplaced()), (200, 0));
    let store = open(&layouts, &memories).await?;
    store.head(&key("k7")).await?;
    Ok(())
}

#[tokio::test]
async fn misplaced_objects_are_counted_with_examples_and_nothing_is_marked() -> Result<()> {
    let memories = memories(&["a", "b"]);
    for number in 0..100 {
        memories[0]
            .put_bytes(&key(format!("k{number:02}")), "x")
            .await?;
    }
    let report = adopted(&memories).await?;
    assert_eq!(report.objects(), 100);
    assert!(report.misplaced() > 20 && !report.is_accepted());
    let first = &report.leaves[0];
    assert_eq!(first.examples.len(), MAX_EXAMPLES);
    assert!(first.examples.iter().all(|example| example.belongs == "b"));
    assert!(report.to_string().contains("belongs on 'b'"));
    assert!(
        memories
            .iter()
            .all(|memory| memory.reserved_names().is_empty())
    );
    Ok(())
}

#[tokio::test]
async fn one_shard_is_always_adopted() -> Result<()> {
    let memories = memories(&["a"]);
    for number in 0..50 {
        memories[0]
            .put_bytes(&key(format!("{number}")), "x")
            .await?;
    }
    assert!(adopted(&memories).await?.is_accepted());
    assert_eq!(memories[0].reserved_names(), [marker_name("all")]);
    Ok(())
}
