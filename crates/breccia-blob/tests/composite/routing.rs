//! Where a composite sends what it is asked.
//!
//! Not listings. Invariant: the layout alone decides; an error says on which shard it happened.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use anyhow::Result;
use breccia_blob::condition::{
    ConditionalCall, ConditionalSupport, ETagSet, Support, WriteCondition,
};
use breccia_blob::meta::ETag;
use breccia_blob::store::{BlobStoreExt, CopyOptions, PutOptions, ReservedWrite};
use breccia_blob::upload::{CompleteOptions, UploadOptions};
use breccia_blob::{BlobError, BlobStore, Body, Key, ShardedBlob};
use breccia_core::layout::Role;

use crate::shared::{key, key_on, layout, memories, sharded, stores, text};

fn conditional(condition: WriteCondition) -> PutOptions {
    PutOptions {
        condition,
        ..PutOptions::default()
    }
}

#[tokio::test]
async fn each_key_lies_on_the_shard_of_its_layout() -> Result<()> {
    let memories = memories(&["a", "b", "c"]);
    let store = sharded(&memories);
    for number in 0..300 {
        store.put_bytes(&key(format!("key/{number}")), "x").await?;
    }
    for (index, memory) in memories.iter().enumerate() {
        let keys = memory.keys();
        assert!(keys.len() > 50, "the keys are spread");
        for key in keys {
            let hash = breccia_core::HashKind::Xxh3_64.hash(key.as_bytes());
            assert_eq!(hash % 3, index as u64, "{key}: hash and modulus");
        }
    }
    Ok(())
}

#[tokio::test]
async fn members_come_in_any_order_and_must_be_the_layouts() {
    let stores = stores(&memories(&["a", "b", "c"]));
    let check = |shards: &[&str], wrong: &str| {
        let members = shards.iter().map(|shard| {
            let found = stores.iter().find(|store| store.name() == *shard);
            Arc::clone(found.expect("one of them"))
        });
        let layout = layout("all", Role::Outer, &["a", "b"]);
        match ShardedBlob::new(layout, members.collect()) {
            Ok(store) => {
                assert!(wrong.is_empty());
                let names: Vec<String> = store
                    .shards()
                    .iter()
                    .map(|shard| shard.name().to_owned())
                    .collect();
                assert_eq!(names, ["a", "b"]);
            }
            Err(error) => assert!(error.to_string().contains(wrong), "{error}"),
        }
    };
    check(&["a", "b"], "");
    check(&["b", "a"], "");
    check(&["a"], "no member 'b'");
    check(&["a", "b", "c"], "no shard 'c'");
    check(&["a", "a"], "two members");
}

#[tokio::test]
async fn nested_composites_route_by_both_layouts() -> Result<()> {
    let leaves = memories(&["a", "b", "c", "d"]);
    let inner = |name: &str, names: [&str; 2], leaves| {
        let layout = layout(name, Role::Inner, &names);
        ShardedBlob::new(Arc::clone(&layout), stores(leaves)).map(|store| (layout, Arc::new(store)))
    };
    let (x_layout, x) = inner("x", ["a", "b"], &leaves[..2])?;
    let (y_layout, y) = inner("y", ["c", "d"], &leaves[2..])?;
    let outer_layout = layout("all", Role::Outer, &["x", "y"]);
    let outer = ShardedBlob::new(Arc::clone(&outer_layout), vec![x, y])?;
    for number in 0..400 {
        outer.put_bytes(&key(format!("k{number}")), "x").await?;
    }
    for leaf in &leaves {
        assert!(leaf.keys().len() > 50, "no leaf stays empty");
        for key in leaf.keys() {
            let at = outer_layout.place(key.as_bytes()).shard;
            let inner = match outer_layout.shard_name(at) {
                Some("x") => &x_layout,
                _ => &y_layout,
            };
            let at = inner.place(key.as_bytes()).shard;
            assert_eq!(inner.shard_name(at), Some(leaf.name()));
        }
    }
    let name = leaves[3].keys()[0].clone();
    leaves[3].set_down(true);
    let error = outer.head(&name).await.expect_err("it is down").to_string();
    assert!(error.starts_with("all/y/d is unreachable"), "{error}");
    Ok(())
}

#[tokio::test]
async fn copies_stay_on_a_shard_or_go_across() -> Result<()> {
    let store = sharded(&memories(&["a", "b", "c"]));
    let mut options = PutOptions::default();
    options.headers.content_type = Some("text/plain".to_owned());
    options.tags.insert("t".to_owned(), "1".to_owned());
    let (from, across) = (key_on(&store, "a"), key_on(&store, "c"));
    let same = (0..).map(|number| key(format!("same{number}")));
    let same = same.into_iter().find(|name| {
        store.layout().place(name.as_bytes()).shard == store.layout().place(from.as_bytes()).shard
    });
    store.put(&from, Body::from_bytes("bytes"), options).await?;
    for to in [same.expect("one of them"), across] {
        let written = store.copy(&from, &to, CopyOptions::default()).await?;
        let (meta, bytes) = store.get_bytes(&to).await?;
        assert_eq!((meta.etag, bytes), (written.etag, text("bytes")));
        assert_eq!(meta.headers.content_type.as_deref(), Some("text/plain"));
        assert_eq!(meta.tags.len(), 1);
        let again = CopyOptions {
            condition: WriteCondition::IfAbsent,
            ..CopyOptions::default()
        };
        let again = store.copy(&from, &to, again).await;
        assert!(matches!(again, Err(BlobError::PreconditionFailed)));
    }
    Ok(())
}

#[tokio::test]
async fn a_shard_that_is_down_fails_its_own_keys_alone() -> Result<()> {
    let memories = memories(&["a", "b", "c"]);
    let store = sharded(&memories);
    memories[1].set_down(true);
    store.put_bytes(&key_on(&store, "a"), "x").await?;
    store.put_bytes(&key_on(&store, "c"), "x").await?;
    let down = key_on(&store, "b");
    let error = store.put_bytes(&down, "x").await.expect_err("b is down");
    assert!(
        matches!(&error, BlobError::Down { store, .. } if store == "all/b"),
        "{error}"
    );
    assert!(store.probe().await.is_err());
    // The others are maintained all the same.
    let on_c = key_on(&store, "c");
    store.create_upload(&on_c, UploadOptions::default()).await?;
    assert_eq!(store.maintain(u64::MAX).await?.uploads, 1);
    Ok(())
}

#[tokio::test]
async fn a_conditional_call_is_offered_only_where_all_shards_offer_it() -> Result<()> {
    let memories = memories(&["a", "b", "c"]);
    let store = sharded(&memories);
    let set = |index: usize, support: ConditionalSupport| {
        *memories[index].support.lock().expect("held shortly") = support;
    };
    let yes = ConditionalSupport::all(Support::Yes);
    set(1, yes.with(ConditionalCall::PutIfAbsent, Support::No));
    set(2, yes.with(ConditionalCall::PutIfAbsent, Support::No));
    let on_a = key_on(&store, "a");
    let put = |condition| store.put(&on_a, Body::from_bytes("x"), conditional(condition));
    let error = put(WriteCondition::IfAbsent)
        .await
        .expect_err("b and c lack it");
    let expected = "Put with If-None-Match is not supported by all/b, all/c";
    assert_eq!(error.to_string(), expected);
    assert_eq!(
        store.conditional().of(ConditionalCall::PutIfAbsent),
        Support::No
    );
    put(WriteCondition::Always).await?;
    let etag = ETagSet::OneOf(vec![ETag::from_text("other")]);
    let other = put(WriteCondition::IfMatch(etag)).await;
    assert!(matches!(other, Err(BlobError::PreconditionFailed)));

    let upload = store.create_upload(&on_a, UploadOptions::default()).await?;
    set(2, yes.with(ConditionalCall::CompleteIfAbsent, Support::No));
    let complete = CompleteOptions {
        condition: WriteCondition::IfAbsent,
        checksum: None,
    };
    let complete = store
        .complete_upload(&on_a, &upload, Vec::new(), complete)
        .await;
    assert!(matches!(
        complete,
        Err(BlobError::ConditionUnsupported { .. })
    ));
    set(2, yes.with(ConditionalCall::DeleteIfMatch, Support::No));
    let delete = store
        .delete(&on_a, WriteCondition::IfMatch(ETagSet::Any))
        .await;
    assert!(matches!(
        delete,
        Err(BlobError::ConditionUnsupported { .. })
    ));
    Ok(())
}

#[tokio::test]
async fn an_unprobed_shard_is_probed_when_a_condition_needs_it() -> Result<()> {
    let memories = memories(&["a", "b"]);
    let store = sharded(&memories);
    for memory in &memories {
        *memory.support.lock().expect("held shortly") = ConditionalSupport::all(Support::Unprobed);
    }
    let keys = [key_on(&store, "a"), key_on(&store, "b")];
    let put = |key: &Key| {
        let key = key.clone();
        let store = Arc::clone(&store);
        async move {
            let options = conditional(WriteCondition::IfAbsent);
            store.put(&key, Body::from_bytes("x"), options).await
        }
    };
    // Nothing can be learnt of it.
    memories[0].set_down(true);
    let error = put(&keys[0]).await.expect_err("it is not probed");
    assert!(matches!(&error, BlobError::ConditionUnprobed { store, .. } if store == "all/a"));
    memories[0].set_down(false);
    *memories[0].probed.lock().expect("held shortly") = Some(ConditionalSupport::all(Support::Yes));
    put(&keys[0]).await?;
    assert!(matches!(
        put(&keys[0]).await,
        Err(BlobError::PreconditionFailed)
    ));
    // The other one turns out to lack it: then it is lacking for all keys.
    *memories[1].probed.lock().expect("held shortly") = Some(ConditionalSupport::all(Support::No));
    for key in &keys[..1] {
        let again = put(key).await;
        assert!(
            matches!(again, Err(BlobError::PreconditionFailed)),
            "b is not asked"
        );
    }
    let error = put(&keys[1]).await.expect_err("b lacks it").to_string();
    assert!(error.ends_with("by all/b"), "{error}");
    let error = put(&keys[0]).await.expect_err("b lacks it").to_string();
    assert!(error.ends_with("by all/b"), "{error}");
    Ok(())
}

#[tokio::test]
async fn reserved_objects_lie_on_the_shard_of_their_name() -> Result<()> {
    let memories = memories(&["a", "b", "c"]);
    let store = sharded(&memories);
    let mut names: Vec<String> = (0..40).map(|number| format!("x/{number}")).collect();
    names.sort();
    for name in &names {
        assert!(
            store
                .write_reserved(name, text("1"), ReservedWrite::IfAbsent)
                .await?
        );
        assert!(
            !store
                .write_reserved(name, text("2"), ReservedWrite::IfAbsent)
                .await?
        );
        assert_eq!(store.read_reserved(name).await?, Some(text("1")));
    }
    for memory in &memories {
        assert!(memory.reserved_names().len() > 5);
        // On every leaf, as markers are: these are none of the composite's.
        memory
            .write_reserved("x/stray", text("1"), ReservedWrite::Always)
            .await?;
        memory
            .write_reserved("marker/all", text("1"), ReservedWrite::Always)
            .await?;
    }
    let mut expected = names.clone();
    expected.push("x/stray".to_owned());
    assert_eq!(store.list_reserved("x/", None).await?, expected);
    assert_eq!(store.list_reserved("x/", Some("x/8")).await?.len(), 2);
    store.delete_reserved(&names[0]).await?;
    assert_eq!(store.read_reserved(&names[0]).await?, None);
    for memory in &memories {
        memory.page.store(1, Ordering::SeqCst);
    }
    assert_eq!(
        store.list(crate::shared::everything(9)).await?.items.len(),
        0
    );
    Ok(())
}
