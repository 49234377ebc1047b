//! Opening composites: layouts, markers, and members that are not what they were.
//!
//! Not what a running guard does. Invariant: nobody writes to a shard that was not proven to be the
//! one of the layout.

use std::sync::Arc;

use anyhow::Result;
use breccia_blob::markers::marker_name;
use breccia_blob::sharded::Member;
use breccia_blob::store::BlobStoreExt;
use breccia_blob::{BlobError, BlobStore, ShardedBlob, ShardedBlobOptions};
use breccia_net::layout_store::LayoutStore;

use crate::memory::Memory;
use crate::shared::{everything, key, key_on, members, memories, open};

fn folder() -> Result<(tempfile::TempDir, Arc<LayoutStore>)> {
    let folder = tempfile::tempdir()?;
    let layouts = Arc::new(LayoutStore::open(folder.path())?);
    Ok((folder, layouts))
}

fn forgetful() -> Arc<LayoutStore> {
    Arc::new(LayoutStore::ephemeral())
}

async fn refused(layouts: &Arc<LayoutStore>, memories: &[Arc<Memory>], words: &[&str]) {
    let opened = open(layouts, memories).await;
    let error = opened.expect_err("it is refused").to_string();
    for word in words {
        assert!(error.contains(word), "{word:?} is missing in: {error}");
    }
}

#[tokio::test]
async fn every_leaf_carries_the_marker_and_no_listing_shows_it() -> Result<()> {
    let (_folder, layouts) = folder()?;
    let memories = memories(&["a", "b", "c"]);
    let store = open(&layouts, &memories).await?;
    for memory in &memories {
        let text = memory
            .read_reserved(&marker_name("all"))
            .await?
            .expect("a marker");
        let head = format!(
            "breccia marker: composite \"all\", shard \"{}\", layout {}\n",
            memory.name(),
            store.layout().digest()
        );
        assert!(text.starts_with(head.as_bytes()));
    }
    assert!(store.list(everything(9)).await?.items.is_empty());
    store.put_bytes(&key("k"), "x").await?;
    drop(store);
    let store = open(&layouts, &memories).await?;
    assert_eq!(store.get_bytes(&key("k")).await?.1, "x");
    Ok(())
}

#[tokio::test]
async fn a_second_gateway_with_another_order_and_no_state_agrees() -> Result<()> {
    let (_folder, layouts) = folder()?;
    let memories = memories(&["a", "b", "c"]);
    let first = open(&layouts, &memories).await?;
    for number in 0..100 {
        first.put_bytes(&key(format!("k{number}")), "x").await?;
    }
    let reversed: Vec<Arc<Memory>> = memories.iter().rev().map(Arc::clone).collect();
    let (_second_folder, second_layouts) = folder()?;
    let second = open(&second_layouts, &reversed).await?;
    assert_eq!(second.layout().digest(), first.layout().digest());
    for number in 0..100 {
        second.head(&key(format!("k{number}"))).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_lost_state_folder_is_restored_from_the_markers() -> Result<()> {
    let memories = memories(&["a", "b", "c"]);
    let digest = open(&forgetful(), &memories).await?.layout().digest();
    // One that answers is enough, whatever the order now.
    memories[0].set_down(true);
    memories[1].set_down(true);
    let reversed: Vec<Arc<Memory>> = memories.iter().rev().map(Arc::clone).collect();
    let layouts = forgetful();
    let store = open(&layouts, &reversed).await?;
    assert_eq!(store.layout().digest(), digest);
    // Who was restored is known to have carried a marker: it must not be missing later.
    memories[0].empty();
    memories[0].set_down(false);
    let error = store
        .put_bytes(&key_on(&store, "a"), "x")
        .await
        .expect_err("it is emptied");
    assert!(
        matches!(&error, BlobError::NotUsed { store, .. } if store == "all/a"),
        "{error}"
    );
    assert!(memories[0].keys().is_empty());
    Ok(())
}

#[tokio::test]
async fn markers_that_contradict_each_other_are_told_with_all_details() -> Result<()> {
    let memories = memories(&["a", "b", "c"]);
    let first = open(&forgetful(), &memories).await?.layout().digest();
    memories[2].empty();
    let other = [Memory::new("x"), Arc::clone(&memories[2])];
    let second = open(&forgetful(), &other).await?.layout().digest();
    let words = [
        &first,
        &second,
        "on a, b",
        "on c",
        "layout export",
        "layout import",
    ];
    refused(&forgetful(), &memories, &words).await;
    Ok(())
}

#[tokio::test]
async fn swapped_members_are_refused() -> Result<()> {
    let (_folder, layouts) = folder()?;
    let memories = memories(&["a", "b", "c"]);
    open(&layouts, &memories).await?;
    let swapped = [
        memories[1].moved("a"),
        memories[0].moved("b"),
        Arc::clone(&memories[2]),
    ];
    let words = [
        "store 'a'",
        "it is shard 'b'",
        "store 'b'",
        "it is shard 'a'",
        "layout mark",
    ];
    refused(&layouts, &swapped, &words).await;
    refused(&forgetful(), &swapped, &words).await;
    Ok(())
}

#[tokio::test]
async fn an_emptied_member_is_refused() -> Result<()> {
    let (_folder, layouts) = folder()?;
    let memories = memories(&["a", "b"]);
    open(&layouts, &memories).await?;
    memories[1].empty();
    let words = [
        "store 'b'",
        "had a marker and has none now",
        "mounted",
        "layout mark",
    ];
    refused(&layouts, &memories, &words).await;
    assert!(
        memories[1].reserved_names().is_empty(),
        "nothing was written"
    );
    Ok(())
}

#[tokio::test]
async fn a_full_member_without_a_marker_is_refused_and_told_of_adoption() -> Result<()> {
    let memories = memories(&["a", "b"]);
    memories[1].put_bytes(&key("old"), "x").await?;
    let layouts = forgetful();
    refused(&layouts, &memories, &["store 'b'", "layout adopt", "all"]).await;
    assert!(layouts.load("all")?.is_none(), "no layout was made");
    let names = [memories[0].reserved_names(), memories[1].reserved_names()];
    assert_eq!(names.concat(), Vec::<String>::new(), "nothing was written");
    Ok(())
}

#[tokio::test]
async fn a_leaf_of_another_composite_is_refused() -> Result<()> {
    let memories = memories(&["a", "b"]);
    open(&forgetful(), &memories).await?;
    let options = ShardedBlobOptions::new("renamed");
    let opened = ShardedBlob::open(&forgetful(), options, members(&memories)).await;
    let error = opened.expect_err("it carries another's marker").to_string();
    for word in ["the marker of 'all'", "layout rename"] {
        assert!(error.contains(word), "{error}");
    }
    Ok(())
}

#[tokio::test]
async fn a_renamed_composite_renames_its_markers() -> Result<()> {
    let (_folder, layouts) = folder()?;
    let memories = memories(&["a", "b"]);
    open(&layouts, &memories).await?;
    layouts.rename("all", "blobs")?;
    let options = ShardedBlobOptions::new("blobs");
    ShardedBlob::open(&layouts, options, members(&memories)).await?;
    for memory in &memories {
        assert_eq!(memory.reserved_names(), [marker_name("blobs")]);
    }
    Ok(())
}

#[tokio::test]
async fn changed_members_are_told_by_the_layout() -> Result<()> {
    let (_folder, layouts) = folder()?;
    let memories = memories(&["a", "b", "c"]);
    open(&layouts, &memories).await?;
    let fewer = open(&layouts, &memories[..2]).await;
    assert!(matches!(fewer, Err(BlobError::Layout { .. })), "{fewer:?}");
    let two = vec![Memory::new("a"), Memory::new("a")];
    refused(&forgetful(), &two, &["two stores of the name 'a'"]).await;
    Ok(())
}

#[tokio::test]
async fn the_way_keys_are_written_is_fixed() -> Result<()> {
    let (_folder, layouts) = folder()?;
    let memories = memories(&["a", "b"]);
    let set = |mode| *memories[0].mode.lock().expect("held shortly") = Some(mode);
    set("plain");
    open(&layouts, &memories).await?;
    set("encoded");
    let words = [
        "store 'a'",
        "keys = \"plain\"",
        "keys = \"encoded\"",
        "put it back",
    ];
    refused(&layouts, &memories, &words).await;
    refused(&forgetful(), &memories, &words).await;
    set("plain");
    open(&layouts, &memories).await?;
    Ok(())
}

#[tokio::test]
async fn a_shard_that_is_down_while_it_is_opened_is_looked_at_before_its_first_use() -> Result<()> {
    let memories = memories(&["a", "b", "c"]);
    memories[1].set_down(true);
    let layouts = forgetful();
    let store = open(&layouts, &memories).await?;
    let (on_a, on_b) = (key_on(&store, "a"), key_on(&store, "b"));
    store.put_bytes(&on_a, "x").await?;
    let error = store.put_bytes(&on_b, "x").await.expect_err("it is down");
    assert!(
        matches!(&error, BlobError::Down { store, .. } if store == "all/b"),
        "{error}"
    );
    memories[1].set_down(false);
    store.put_bytes(&on_b, "x").await?;
    assert_eq!(memories[1].reserved_names(), [marker_name("all")]);

    // The other way round: it comes up with what is not ours.
    let memories = crate::shared::memories(&["a", "b"]);
    memories[1].put_bytes(&key("old"), "x").await?;
    memories[1].set_down(true);
    let store = open(&forgetful(), &memories).await?;
    memories[1].set_down(false);
    let error = store.put_bytes(&key_on(&store, "b"), "x").await;
    assert!(matches!(error, Err(BlobError::NotUsed { .. })), "{error:?}");
    assert_eq!(memories[1].keys().len(), 1, "nothing was written there");
    Ok(())
}

#[tokio::test]
async fn nested_composites_are_opened_together_and_leaves_carry_both_markers() -> Result<()> {
    let (_folder, layouts) = folder()?;
    let leaves = memories(&["a", "b", "c"]);
    let tree = || {
        let inner = Member::Composite(ShardedBlobOptions::new("inner"), members(&leaves[..2]));
        vec![inner, Member::from(Arc::clone(&leaves[2]))]
    };
    let open = || ShardedBlob::open(&layouts, ShardedBlobOptions::new("all"), tree());
    let store = open().await?;
    for number in 0..100 {
        store.put_bytes(&key(format!("k{number}")), "x").await?;
    }
    let both = [marker_name("all"), marker_name("inner")];
    assert_eq!(leaves[0].reserved_names(), both);
    assert_eq!(leaves[1].reserved_names(), both);
    assert_eq!(leaves[2].reserved_names(), both[..1]);
    assert!(leaves.iter().all(|leaf| !leaf.keys().is_empty()));
    drop(store);
    open().await?;
    leaves[1].remove_reserved(&both[1]);
    let error = open()
        .await
        .expect_err("the inner marker is gone")
        .to_string();
    assert!(error.contains("'inner': the store 'b'"), "{error}");

    // A composite that is given as a leaf would carry markers in the wrong place.
    let options = ShardedBlobOptions::new("x");
    let inner = ShardedBlob::open(&forgetful(), options, members(&memories(&["p"]))).await?;
    let as_leaf = vec![Member::from(Arc::new(inner))];
    let opened = ShardedBlob::open(&forgetful(), ShardedBlobOptions::new("y"), as_leaf).await;
    assert!(matches!(opened, Err(BlobError::Members { .. })));
    Ok(())
}
