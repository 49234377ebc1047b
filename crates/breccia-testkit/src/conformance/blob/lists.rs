//! Listings are those of a sorted model, whatever the page size.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use breccia_blob::condition::WriteCondition;
use breccia_blob::key::Key;
use breccia_blob::listing::{ListItem, ListRequest};
use breccia_blob::store::{BlobStore, BlobStoreExt};

use super::request;

/// Keys with nested common prefixes, neighbours of the delimiter, and a prefix that is a key.
fn keys() -> BTreeSet<Vec<u8>> {
    let mut keys = BTreeSet::new();
    for name in [
        "l/a",
        "l/a/",
        "l/a/1",
        "l/a/2",
        "l/a/b/c",
        "l/a-b",
        "l/a0",
        "l/b/c/d/e",
        "l/b/c/d/f",
        "l/c",
        "l/é/1",
        "l/é/2",
        "l/z//x",
        "l/z//y",
        "l/z/x",
        "l0",
        "m",
    ] {
        keys.insert(name.as_bytes().to_vec());
    }
    for number in 0..40 {
        keys.insert(format!("l/many/{}/{number}", number % 7).into_bytes());
    }
    keys
}

/// The items of a model, all pages at once.
fn model(keys: &BTreeSet<Vec<u8>>, request: &ListRequest) -> Vec<Vec<u8>> {
    let after = request.after.as_deref();
    let mut items: Vec<Vec<u8>> = Vec::new();
    for key in keys.iter().filter(|key| key.starts_with(&request.prefix)) {
        if after.is_some_and(|after| key.as_slice() <= after) {
            continue;
        }
        let name = request.common_prefix(key).unwrap_or(key);
        if after == Some(name) || items.last().is_some_and(|last| last == name) {
            continue;
        }
        items.push(name.to_vec());
    }
    items
}

pub(super) async fn check(store: &dyn BlobStore) -> Result<()> {
    let keys = keys();
    for key in &keys {
        store.put_bytes(&Key::new(key.clone())?, "x").await?;
    }
    for prefix in [
        "",
        "l/",
        "l/a",
        "l/a/",
        "l/z/",
        "l/many/",
        "l/many/3/",
        "none",
        "m",
    ] {
        for delimiter in [None, Some("/"), Some("a"), Some("//")] {
            for limit in [1, 2, 3, 7, 1000] {
                let request = request(prefix, delimiter, None, limit);
                let what = format!("prefix {prefix:?}, delimiter {delimiter:?}, by {limit}");
                pages(store, &keys, request).await.context(what)?;
            }
            for after in [
                "l/a",
                "l/a/",
                "l/a/1",
                "l/a/zz",
                "l/many/3/",
                "l/z//",
                "zz",
                "l/é",
            ] {
                let request = request(prefix, delimiter, Some(after.as_bytes()), 1000);
                let what = format!("prefix {prefix:?}, delimiter {delimiter:?} after {after:?}");
                pages(store, &keys, request).await.context(what)?;
            }
        }
    }
    for key in &keys {
        store
            .delete(&Key::new(key.clone())?, WriteCondition::Always)
            .await?;
    }
    let empty = store.list(request("", None, None, 1000)).await?;
    ensure!(
        empty.items.is_empty() && !empty.more,
        "nothing is left, but: {empty:?}"
    );
    Ok(())
}

async fn pages(
    store: &dyn BlobStore,
    keys: &BTreeSet<Vec<u8>>,
    request: ListRequest,
) -> Result<()> {
    let expected = model(keys, &request);
    let mut found: Vec<Vec<u8>> = Vec::new();
    let mut next = request;
    loop {
        let page = store.list(next.clone()).await?;
        ensure!(
            page.items.len() <= next.limit,
            "a page of {}",
            page.items.len()
        );
        for item in &page.items {
            let name = item.name().to_vec();
            let rolled_up = next.common_prefix(&name).is_some();
            let is_prefix = matches!(item, ListItem::Prefix(_));
            ensure!(is_prefix == rolled_up, "{item:?} is of the wrong kind");
            found.push(name);
        }
        let Some(last) = page.items.last().filter(|_| page.more) else {
            ensure!(!page.more, "a page without items says that there are more");
            break;
        };
        next.after = Some(last.name().to_vec().into());
    }
    let shown = |names: &[Vec<u8>]| {
        let names = names.iter().map(|name| name.escape_ascii().to_string());
        names.collect::<Vec<_>>().join(" ")
    };
    ensure!(
        found == expected,
        "found {}\nexpected {}",
        shown(&found),
        shown(&expected)
    );
    Ok(())
}
