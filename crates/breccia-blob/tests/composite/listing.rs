//! Listings of a composite: as if there were one store.
//!
//! Not a member's own listing. Invariant: whatever is asked, the pages are those of a sorted model.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Result;
use breccia_blob::condition::WriteCondition;
use breccia_blob::listing::{ListItem, ListRequest, ListedObject, RollUp, Step};
use breccia_blob::meta::ETag;
use breccia_blob::store::BlobStoreExt;
use breccia_blob::upload::{UploadId, UploadOptions};
use breccia_blob::{BlobError, BlobStore, Key, ShardedBlob};
use breccia_core::layout::Role;
use breccia_net::metrics::{BLOB_MISPLACED, Registry};
use bytes::Bytes;
use proptest::prelude::*;

use crate::memory::Memory;
use crate::shared::{everything, key, key_on, layout, memories, sharded, stores};

/// Names and `more`, as the composite and as the model give them.
type Page = (Vec<(Vec<u8>, bool)>, bool);

fn shown(items: &[ListItem]) -> Vec<(Vec<u8>, bool)> {
    let is_prefix = |item: &ListItem| matches!(item, ListItem::Prefix(_));
    items
        .iter()
        .map(|item| (item.name().to_vec(), is_prefix(item)))
        .collect()
}

fn model(keys: &BTreeSet<Vec<u8>>, request: &ListRequest) -> Page {
    let mut roll_up = RollUp::new(request.clone());
    for name in keys {
        let object = ListedObject {
            key: key(name),
            size: 0,
            modified_ms: 0,
            etag: ETag::from_text("x"),
        };
        if roll_up.push(object) == Step::Full {
            break;
        }
    }
    let page = roll_up.finish();
    (shown(&page.items), page.more)
}

async fn filled(keys: &BTreeSet<Vec<u8>>, page: usize) -> (Vec<Arc<Memory>>, Arc<ShardedBlob>) {
    let memories = memories(&["a", "b", "c"]);
    let store = sharded(&memories);
    for name in keys {
        store.put_bytes(&key(name), "x").await.expect("it is up");
    }
    for memory in &memories {
        memory.page.store(page, Ordering::SeqCst);
    }
    (memories, store)
}

fn name() -> impl Strategy<Value = Vec<u8>> {
    let letter = prop_oneof![
        6 => Just(b'a'), 6 => Just(b'b'), 6 => Just(b'/'), 1 => Just(0), 1 => Just(0xff),
    ];
    prop::collection::vec(letter, 1..7)
}

fn part() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        Just(Vec::new()),
        name().prop_map(|mut name| {
            name.truncate(3);
            name
        })
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn pages_are_those_of_one_sorted_store(
        keys in prop::collection::btree_set(name(), 0..60),
        prefix in part(),
        after in prop::option::of(name()),
        delimiter in prop::option::of(prop_oneof![Just(&b"/"[..]), Just(&b"a/"[..])]),
        limit in 1..12_usize,
        page in 1..9_usize,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(async {
            let (_memories, store) = filled(&keys, page).await;
            let mut request = ListRequest {
                prefix: prefix.into(),
                after: after.map(Bytes::from),
                delimiter: delimiter.map(Bytes::from_static),
                limit,
            };
            // One page after the other, to the end.
            for _ in 0..100 {
                let found = store.list(request.clone()).await.expect("it is up");
                let found = (shown(&found.items), found.more);
                prop_assert_eq!(&found, &model(&keys, &request), "{:?}", request);
                match found.0.last() {
                    Some((last, _)) if found.1 => request.after = Some(last.clone().into()),
                    _ => return Ok(()),
                }
            }
            prop_assert!(false, "the pages have no end");
            Ok(())
        })?;
    }
}

#[tokio::test]
async fn what_is_there_all_the_time_is_listed_once_while_others_write() -> Result<()> {
    let keys: BTreeSet<Vec<u8>> = (0..300).map(|n| format!("k/{n:04}").into_bytes()).collect();
    let (_memories, store) = filled(&keys, 7).await;
    let done = Arc::new(AtomicBool::new(false));
    let writer = tokio::spawn({
        let (store, done) = (Arc::clone(&store), Arc::clone(&done));
        async move {
            let mut number = 0_u64;
            while !done.load(Ordering::SeqCst) {
                let name = key(format!("k/{:04}.{number}", number * 7 % 300));
                store.put_bytes(&name, "x").await.expect("it is up");
                if !number.is_multiple_of(3) {
                    store
                        .delete(&name, WriteCondition::Always)
                        .await
                        .expect("it is up");
                }
                number += 1;
            }
        }
    });
    for round in 0..40 {
        let mut seen: Vec<Vec<u8>> = Vec::new();
        let mut request = everything(3 + round);
        loop {
            let page = store.list(request.clone()).await?;
            seen.extend(page.items.iter().map(|item| item.name().to_vec()));
            if !page.more {
                break;
            }
            request.after = seen.last().cloned().map(Bytes::from);
        }
        assert!(seen.is_sorted_by(|a, b| a < b), "in order, and none twice");
        let seen: BTreeSet<Vec<u8>> = seen.into_iter().collect();
        assert!(keys.is_subset(&seen), "none is missed");
    }
    done.store(true, Ordering::SeqCst);
    writer.await?;
    Ok(())
}

#[tokio::test]
async fn a_shard_that_fails_fails_the_listing_by_its_name() -> Result<()> {
    let keys = (0..30).map(|n| format!("k{n}").into_bytes()).collect();
    let (memories, store) = filled(&keys, 1000).await;
    memories[2].set_down(true);
    let error = store.list(everything(5)).await.expect_err("c is down");
    assert!(
        matches!(&error, BlobError::Down { store, .. } if store == "all/c"),
        "{error}"
    );
    memories[2].set_down(false);
    memories[0].backwards.store(true, Ordering::SeqCst);
    let error = store
        .list(everything(500))
        .await
        .expect_err("a is out of order");
    assert!(
        matches!(&error, BlobError::OutOfOrder { store, .. } if store == "all/a"),
        "{error}"
    );
    Ok(())
}

#[tokio::test]
async fn misplaced_objects_are_left_out_and_counted() -> Result<()> {
    let memories = memories(&["a", "b", "c"]);
    let registry = Registry::new();
    let layout = layout("all", Role::Outer, &["a", "b", "c"]);
    let store = ShardedBlob::new(layout, stores(&memories))?.with_metrics(&registry);
    let names: Vec<Key> = ["a", "b", "c"]
        .iter()
        .map(|shard| key_on(&store, shard))
        .collect();
    for name in &names {
        store.put_bytes(name, "right").await?;
        // The same key on another shard, as a reordered configuration would have put it.
        memories[0].put_bytes(name, "wrong").await?;
    }
    store.put_bytes(&names[0], "right").await?;
    let page = store.list(everything(1000)).await?;
    assert_eq!(page.items.len(), 3);
    assert!(!page.more);
    let page = store.list(everything(3)).await?;
    assert!(!page.more, "what is left out is no more");
    let totals = registry.totals(&BLOB_MISPLACED, "store");
    assert_eq!(totals.get("all"), Some(&4));
    Ok(())
}

#[tokio::test]
async fn members_are_asked_for_little_more_than_their_share() -> Result<()> {
    let keys = (0..3000).map(|n| format!("k{n:05}").into_bytes()).collect();
    let (memories, store) = filled(&keys, 1000).await;
    let requests = || {
        memories
            .iter()
            .map(|m| m.requests.load(Ordering::SeqCst))
            .sum::<u64>()
    };
    let before = requests();
    let page = store.list(everything(1000)).await?;
    assert_eq!((page.items.len(), page.more), (1000, true));
    assert!(requests() - before <= 6, "{} requests", requests() - before);
    let before = requests();
    store.list(everything(1)).await?;
    assert_eq!(requests() - before, 3);
    Ok(())
}

#[tokio::test]
async fn many_shards_that_share_their_prefixes_are_merged_in_bounded_requests() -> Result<()> {
    let names: Vec<String> = (0..40).map(|number| format!("s{number:02}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let memories = memories(&names);
    let store = sharded(&memories);
    let name = |number: usize| format!("{:03}/{number}", number % 300).into_bytes();
    let keys: BTreeSet<Vec<u8>> = (0..6000).map(name).collect();
    for name in &keys {
        store.put_bytes(&key(name), "x").await?;
    }
    let requests = || {
        memories
            .iter()
            .map(|m| m.requests.load(Ordering::SeqCst))
            .sum::<u64>()
    };
    for (delimiter, limit, most) in [
        (Some("/"), 1000, 40 * 8),
        (Some("/"), 40, 40 * 6),
        (None, 1000, 40 * 6),
    ] {
        let mut request = everything(limit);
        request.delimiter = delimiter.map(crate::shared::text);
        let before = requests();
        let page = store.list(request.clone()).await?;
        assert_eq!((shown(&page.items), page.more), model(&keys, &request));
        let asked = requests() - before;
        assert!(
            asked <= most,
            "{asked} requests for {delimiter:?} and {limit}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn uploads_of_all_shards_are_listed_by_key_and_id() -> Result<()> {
    let memories = memories(&["a", "b", "c"]);
    let store = sharded(&memories);
    let mut expected: Vec<(Key, UploadId)> = Vec::new();
    for number in 0..40 {
        let name = key(format!("u/{}", number % 25));
        let id = store.create_upload(&name, UploadOptions::default()).await?;
        expected.push((name, id));
    }
    expected.sort();
    for memory in &memories {
        memory.page.store(2, Ordering::SeqCst);
    }
    let mut found = Vec::new();
    let mut after = None;
    loop {
        let page = store
            .list_uploads(Bytes::from_static(b"u/"), after, 7)
            .await?;
        found.extend(
            page.uploads
                .iter()
                .map(|upload| (upload.key.clone(), upload.id.clone())),
        );
        if !page.more {
            break;
        }
        after = found
            .last()
            .map(|(key, id)| (key.clone(), Some(id.clone())));
    }
    assert_eq!(found, expected);
    let after = Some((key("u/9"), None));
    let page = store.list_uploads(Bytes::new(), after, 7).await?;
    assert!(
        page.uploads.is_empty() && !page.more,
        "behind all uploads of the last key"
    );
    for (name, id) in &expected {
        store.abort_upload(name, id).await?;
    }
    Ok(())
}

/// Every page from the beginning to the end.
async fn all_pages(store: &ShardedBlob, mut request: ListRequest) -> Vec<Vec<u8>> {
    let mut names: Vec<Vec<u8>> = Vec::new();
    loop {
        let page = store.list(request.clone()).await.expect("all are up");
        names.extend(page.items.iter().map(|item| item.name().to_vec()));
        match names.last().filter(|_| page.more) {
            Some(last) => request.after = Some(last.clone().into()),
            None => return names,
        }
    }
}

#[tokio::test]
async fn a_hundred_thousand_keys_are_listed_to_the_last() {
    let name = |number: usize| format!("d{}/{}", number % 97, number * 7919 % 100_003);
    let keys: BTreeSet<Vec<u8>> = (0..100_000)
        .map(|number| name(number).into_bytes())
        .collect();
    let (_memories, store) = filled(&keys, 1000).await;
    let found = all_pages(&store, everything(1000)).await;
    assert!(found.iter().eq(&keys), "{} of {}", found.len(), keys.len());
    let rolled_up = ListRequest {
        delimiter: Some(Bytes::from_static(b"/")),
        ..everything(10)
    };
    assert_eq!(all_pages(&store, rolled_up).await.len(), 97);
    let one_by_one = ListRequest {
        prefix: Bytes::from_static(b"d1/"),
        ..everything(1)
    };
    let few: Vec<_> = keys.iter().filter(|key| key.starts_with(b"d1/")).collect();
    let found = all_pages(&store, one_by_one).await;
    assert!(
        found.len() > 1000 && found.iter().eq(few),
        "{}",
        found.len()
    );
}
