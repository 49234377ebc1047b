//! Objects come back as they were written: bytes, ranges, headers, tags.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use breccia_blob::body::Body;
use breccia_blob::checksum;
use breccia_blob::condition::WriteCondition;
use breccia_blob::error::BlobError;
use breccia_blob::key::Key;
use breccia_blob::meta::{ETag, Headers};
use breccia_blob::store::{BlobStore, BlobStoreExt, GetOptions, PutOptions, Span};

use super::{Chunks, expect_absent, expect_bytes, expect_error, key, pattern};

/// The sizes around every border that members have.
const SIZES: [usize; 11] = [
    0, 1, 1000, 65_535, 65_536, 65_537, 262_143, 262_145, 1_048_579, 5_242_880, 7_000_001,
];

pub(super) async fn check(store: &dyn BlobStore) -> Result<()> {
    expect_absent(store, &key("never")).await?;
    ensure!(
        store
            .delete(&key("never"), WriteCondition::Always)
            .await
            .is_ok(),
        "a delete of nothing is no error"
    );
    sizes(store).await.context("sizes")?;
    spans(store).await.context("spans")?;
    headers(store).await.context("headers")?;
    overwrites(store).await.context("overwrites")?;
    slow_reader(store)
        .await
        .context("an overwrite during a slow read")
}

async fn sizes(store: &dyn BlobStore) -> Result<()> {
    for size in SIZES {
        let (key, bytes) = (key(&format!("size/{size}")), pattern(size, 1));
        let body = Chunks::new(bytes.clone(), 40_000).body();
        let written = store.put(&key, body, PutOptions::default()).await;
        let written = written.with_context(|| format!("put of {size} bytes"))?;
        let etag = ETag::of_md5(checksum::md5(&bytes));
        ensure!(
            written.etag == etag,
            "{size} bytes: the tag is {}",
            written.etag
        );
        expect_bytes(store, &key, &bytes).await?;
        let meta = store.head(&key).await?;
        ensure!(
            meta.size == size as u64 && meta.etag == etag,
            "head says {meta:?}"
        );
        ensure!(
            meta.modified_ms > 1_600_000_000_000,
            "it was written long ago: {meta:?}"
        );
        ensure!(
            store.delete(&key, WriteCondition::Always).await?,
            "there was one"
        );
        expect_absent(store, &key).await?;
    }
    Ok(())
}

async fn spans(store: &dyn BlobStore) -> Result<()> {
    let (key, bytes) = (key("spans"), pattern(700_001, 2));
    store.put_bytes(&key, bytes.clone()).await?;
    let size = bytes.len() as u64;
    for span in [
        Span::Between(0, 0),
        Span::Between(1, 65_535),
        Span::Between(65_536, 131_071),
        Span::Between(65_535, 65_536),
        Span::Between(262_140, 600_000),
        Span::Between(700_000, 900_000),
        Span::From(699_999),
        Span::From(0),
        Span::Last(1),
        Span::Last(70_000),
        Span::Last(10_000_000),
    ] {
        let wanted = span.of(size)?;
        let options = GetOptions {
            span: Some(span),
            ..GetOptions::default()
        };
        let opened = store
            .get(&key, options)
            .await
            .with_context(|| format!("{span:?}"))?;
        ensure!(opened.range == wanted, "{span:?} gives {:?}", opened.range);
        ensure!(
            opened.meta.size == size,
            "{span:?}: the size is {}",
            opened.meta.size
        );
        let length = wanted.end - wanted.start;
        let found = Body::new(opened.source, length).collect().await?;
        let (start, end) = (usize::try_from(wanted.start)?, usize::try_from(wanted.end)?);
        ensure!(
            found == bytes.slice(start..end),
            "{span:?} gives other bytes"
        );
    }
    for span in [
        Span::From(size),
        Span::Between(size, size + 5),
        Span::Last(0),
    ] {
        let options = GetOptions {
            span: Some(span),
            ..GetOptions::default()
        };
        let right =
            |error: &BlobError| matches!(error, BlobError::Range { size } if *size == 700_001);
        expect_error(store.get(&key, options).await, &format!("{span:?}"), right)?;
    }
    Ok(())
}

fn all_headers() -> Headers {
    let text = |text: &str| Some(text.to_owned());
    Headers {
        content_type: text("text/x-breccia; charset=utf-8"),
        cache_control: text("max-age=60, private"),
        content_disposition: text("attachment; filename=\"a b.txt\""),
        content_encoding: text("gzip"),
        content_language: text("de-CH"),
        expires: text("Thu, 01 Dec 2044 16:00:00 GMT"),
        website_redirect: None,
        user: BTreeMap::from([
            ("colour".to_owned(), "green and blue".to_owned()),
            ("x-2_y".to_owned(), "=?\"'".to_owned()),
        ]),
    }
}

/// Whether the store keeps tags. One that does not refuses them, and then nothing was written.
pub(super) async fn keeps_tags(store: &dyn BlobStore) -> Result<bool> {
    let key = key("tagged");
    let options = PutOptions {
        tags: BTreeMap::from([("a".to_owned(), "b".to_owned())]),
        ..PutOptions::default()
    };
    match store.put(&key, Body::from_bytes("x"), options).await {
        Ok(_) => {
            store.delete(&key, WriteCondition::Always).await?;
            Ok(true)
        }
        Err(BlobError::Unsupported { .. }) => {
            expect_absent(store, &key).await?;
            Ok(false)
        }
        Err(error) => Err(error).context("a put with tags"),
    }
}

/// The headers the store keeps: those with underscores in names of user metadata may be refused.
async fn kept_headers(store: &dyn BlobStore) -> Result<Headers> {
    let (key, mut headers) = (key("underscores"), all_headers());
    let options = PutOptions {
        headers: headers.clone(),
        ..PutOptions::default()
    };
    match store.put(&key, Body::from_bytes("x"), options).await {
        Ok(_) => {
            store.delete(&key, WriteCondition::Always).await?;
        }
        Err(BlobError::Unsupported { .. }) => {
            expect_absent(store, &key).await?;
            headers.user.retain(|name, _| !name.contains('_'));
        }
        Err(error) => return Err(error).context("a put with headers"),
    }
    Ok(headers)
}

async fn headers(store: &dyn BlobStore) -> Result<()> {
    let key = key("headers");
    let (tagged, kept) = (keeps_tags(store).await?, kept_headers(store).await?);
    let mut tags = BTreeMap::from([
        ("team".to_owned(), "mail & web".to_owned()),
        ("empty".to_owned(), String::new()),
    ]);
    if !tagged {
        tags.clear();
    }
    let options = PutOptions {
        headers: kept.clone(),
        tags: tags.clone(),
        ..PutOptions::default()
    };
    store.put(&key, Body::from_bytes("x"), options).await?;
    let meta = store.head(&key).await?;
    ensure!(
        meta.headers == kept,
        "head gives other headers: {:?}",
        meta.headers
    );
    ensure!(meta.tags == tags, "head gives other tags: {:?}", meta.tags);
    let opened = store.get(&key, GetOptions::default()).await?;
    ensure!(opened.meta.headers == kept, "get gives other headers");
    drop(opened);
    if tagged {
        retag(store, &key).await.context("set_tags")?;
    }
    expect_bytes(store, &key, b"x").await?;
    // A put replaces everything.
    store.put_bytes(&key, "y").await?;
    let meta = store.head(&key).await?;
    ensure!(
        meta.headers.user.is_empty() && meta.tags.is_empty(),
        "old metadata stayed: {meta:?}"
    );
    if tagged {
        let missing = store.set_tags(&super::key("never"), BTreeMap::new()).await;
        expect_error(missing, "tags of nothing", |error| {
            matches!(error, BlobError::NotFound)
        })?;
    }
    Ok(())
}

async fn retag(store: &dyn BlobStore, key: &Key) -> Result<()> {
    let before = store.head(key).await?;
    let other = BTreeMap::from([("one".to_owned(), "1".to_owned())]);
    store.set_tags(key, other.clone()).await?;
    let after = store.head(key).await?;
    ensure!(
        after.tags == other,
        "other tags were set than {:?}",
        after.tags
    );
    ensure!(
        (after.etag, after.headers) == (before.etag, before.headers),
        "tags change nothing else"
    );
    store.set_tags(key, BTreeMap::new()).await?;
    ensure!(
        store.head(key).await?.tags.is_empty(),
        "tags can be removed"
    );
    Ok(())
}

async fn overwrites(store: &dyn BlobStore) -> Result<()> {
    let key = key("overwritten");
    for round in 0..6_u8 {
        let bytes = pattern(if round % 2 == 0 { 300_000 } else { 10 }, round);
        store.put_bytes(&key, bytes.clone()).await?;
        expect_bytes(store, &key, &bytes).await?;
    }
    ensure!(
        store.delete(&key, WriteCondition::Always).await?,
        "there was one"
    );
    expect_absent(store, &key).await
}

/// A reader gets one version to its end, or an error; never parts of two.
async fn slow_reader(store: &dyn BlobStore) -> Result<()> {
    let (key, first, second) = (key("slow"), pattern(6_000_000, 7), pattern(6_000_000, 8));
    store.put_bytes(&key, first.clone()).await?;
    let mut opened = store.get(&key, GetOptions::default()).await?;
    let mut found = Vec::new();
    let chunk = opened.source.next().await.context("a first chunk")??;
    found.extend_from_slice(&chunk);
    store.put_bytes(&key, second.clone()).await?;
    loop {
        match opened.source.next().await {
            Some(Ok(chunk)) => found.extend_from_slice(&chunk),
            None => {
                ensure!(found == first, "the reader got bytes of two versions");
                break;
            }
            // Honest, where a member cannot hold on to a version.
            Some(Err(_)) => {
                ensure!(
                    first.starts_with(&found),
                    "the reader got bytes of two versions"
                );
                break;
            }
        }
    }
    expect_bytes(store, &key, &second).await
}
