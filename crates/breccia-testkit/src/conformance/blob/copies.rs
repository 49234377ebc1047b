//! Copies carry bytes, headers and tags, or those that replace them.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use breccia_blob::body::Body;
use breccia_blob::condition::{ETagSet, ReadConditions};
use breccia_blob::error::BlobError;
use breccia_blob::meta::{ETag, Headers};
use breccia_blob::store::{BlobStore, CopyOptions, PutOptions};

use super::{expect_absent, expect_bytes, expect_error, key, pattern};

pub(super) async fn check(store: &dyn BlobStore) -> Result<()> {
    let (from, bytes) = (key("copy/from"), pattern(400_000, 9));
    let headers = |value: &str| Headers {
        content_type: Some("text/plain".to_owned()),
        user: BTreeMap::from([("a".to_owned(), value.to_owned())]),
        ..Headers::default()
    };
    let mut tags = BTreeMap::from([("t".to_owned(), "1".to_owned())]);
    if !super::objects::keeps_tags(store).await? {
        tags.clear();
    }
    let options = PutOptions {
        headers: headers("source"),
        tags: tags.clone(),
        ..PutOptions::default()
    };
    let written = store
        .put(&from, Body::from_bytes(bytes.clone()), options)
        .await?;
    // Some of these lie on another shard of a composite.
    for number in 0..8 {
        let to = key(&format!("copy/to/{number}"));
        let copied = store
            .copy(&from, &to, CopyOptions::default())
            .await
            .context("copy")?;
        ensure!(
            copied.etag == written.etag,
            "the copy has the tag {}",
            copied.etag
        );
        expect_bytes(store, &to, &bytes).await?;
        let meta = store.head(&to).await?;
        ensure!(
            meta.headers == headers("source"),
            "the copy has {:?}",
            meta.headers
        );
        ensure!(meta.tags == tags, "the copy has the tags {:?}", meta.tags);
    }
    let to = key("copy/replaced");
    let options = CopyOptions {
        headers: Some(headers("replaced")),
        tags: Some(BTreeMap::new()),
        ..CopyOptions::default()
    };
    store
        .copy(&from, &to, options)
        .await
        .context("copy with headers")?;
    let meta = store.head(&to).await?;
    ensure!(
        meta.headers == headers("replaced") && meta.tags.is_empty(),
        "{meta:?}"
    );
    let onto_itself = CopyOptions {
        headers: Some(headers("again")),
        ..CopyOptions::default()
    };
    store
        .copy(&from, &from, onto_itself)
        .await
        .context("copy onto itself")?;
    ensure!(
        store.head(&from).await?.headers == headers("again"),
        "headers are replaced"
    );
    expect_bytes(store, &from, &bytes).await?;
    failures(store).await
}

async fn failures(store: &dyn BlobStore) -> Result<()> {
    let (from, to) = (key("copy/from"), key("copy/not"));
    let missing = store
        .copy(&key("copy/never"), &to, CopyOptions::default())
        .await;
    expect_error(missing, "a source that is not there", |error| {
        matches!(error, BlobError::NotFound)
    })?;
    let options = CopyOptions {
        source: ReadConditions {
            if_match: Some(ETagSet::OneOf(vec![ETag::from_text("0".repeat(32))])),
            ..ReadConditions::default()
        },
        ..CopyOptions::default()
    };
    let failed = store.copy(&from, &to, options).await;
    expect_error(failed, "another source", |error| {
        matches!(error, BlobError::PreconditionFailed)
    })?;
    expect_absent(store, &to).await
}
