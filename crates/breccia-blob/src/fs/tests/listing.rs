//! Listings against a sorted model.
//!
//! Not the rolling up itself (see `crate::listing`). Invariant: pages put end to end give what one
//! endless page would.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::condition::WriteCondition;
use crate::listing::{ListItem, ListRequest, check_page};

async fn page(store: &FsStore, request: &ListRequest) -> (Vec<Vec<u8>>, bool) {
    let page = store.list(request.clone()).await.expect("a page");
    check_page("disk", request, &page).expect("in order");
    let names = page.items.iter().map(|item| item.name().to_vec());
    (names.collect(), page.more)
}

fn model(keys: &BTreeSet<Vec<u8>>, request: &ListRequest) -> Vec<Vec<u8>> {
    let under = keys.iter().filter(|key| key.starts_with(&request.prefix));
    let items: BTreeSet<Vec<u8>> = under
        .filter(|key| request.start().allows(key))
        .map(|key| request.common_prefix(key).unwrap_or(key).to_vec())
        .collect();
    items.into_iter().collect()
}

fn name() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop::sample::select(vec![b'a', b'b', b'/', b'0', 0xff, 0]);
    prop::collection::vec(byte, 1..6)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]

    #[test]
    fn pages_are_those_of_a_sorted_model(
        puts in prop::collection::vec(name(), 1..40),
        deletes in prop::collection::vec(name(), 0..10),
        prefix in prop::collection::vec(prop::sample::select(vec![b'a', b'/', 0xff]), 0..3),
        delimited: bool,
        limit in 1_usize..7,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(async {
            let (_folder, store) = fresh();
            let mut keys: BTreeSet<Vec<u8>> = BTreeSet::new();
            for name in &puts {
                keys.insert(name.clone());
            }
            let names: Vec<_> = puts.iter().map(key).collect();
            let written = names.iter().map(|name| store.put_bytes(name, "x"));
            for written in futures_util::future::join_all(written).await {
                written.expect("put");
            }
            for name in deletes.into_iter().chain(keys.first().cloned()) {
                let there = store.delete(&key(&name), WriteCondition::Always).await;
                assert_eq!(there.expect("delete"), keys.remove(&name));
            }
            let mut request = ListRequest {
                prefix: prefix.into(),
                after: None,
                delimiter: delimited.then(|| Bytes::from_static(b"/")),
                limit,
            };
            let expected = model(&keys, &request);
            let mut found = Vec::new();
            loop {
                let (names, more) = page(&store, &request).await;
                assert!(names.len() <= limit);
                found.extend(names);
                if !more {
                    break;
                }
                request.after = found.last().cloned().map(Bytes::from);
            }
            assert_eq!(found, expected);
        });
    }
}

#[tokio::test]
async fn a_page_does_not_read_what_it_rolls_up() {
    let (_folder, store) = fresh();
    for folder in ["a", "b", "c"] {
        for name in 0..30 {
            let name = format!("{folder}/{name:02}");
            store.put_bytes(&key(name), "x").await.expect("put");
        }
    }
    let request = ListRequest {
        delimiter: Some(Bytes::from_static(b"/")),
        limit: 1000,
        ..ListRequest::default()
    };
    let page = store.list(request).await.expect("a page");
    let prefixes = ["a/", "b/", "c/"].map(|p| ListItem::Prefix(Bytes::from_static(p.as_bytes())));
    assert_eq!((page.items.as_slice(), page.more), (&prefixes[..], false));
}
