//! Uploads in parts.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use breccia_blob::body::Body;
use breccia_blob::checksum;
use breccia_blob::condition::WriteCondition;
use breccia_blob::error::BlobError;
use breccia_blob::key::Key;
use breccia_blob::meta::{ETag, Headers};
use breccia_blob::store::{BlobStore, GetOptions, Span, StoreKind};
use breccia_blob::upload::{CompleteOptions, MIN_PART_BYTES, PartChoice, UploadId, UploadOptions};
use bytes::Bytes;

use super::{Chunks, expect_absent, expect_bytes, expect_error, key, pattern};

pub(super) async fn check(store: &Arc<dyn BlobStore>) -> Result<()> {
    whole(&**store).await.context("an upload")?;
    wrong(&**store).await.context("wrong completions")?;
    parallel(store).await.context("two uploads of one key")?;
    lists(&**store).await.context("lists")?;
    expiry(&**store).await.context("expiry")
}

async fn part(
    store: &dyn BlobStore,
    key: &Key,
    upload: &UploadId,
    number: u16,
    bytes: &Bytes,
) -> Result<PartChoice> {
    let body = Chunks::new(bytes.clone(), 90_000).body();
    let info = store.put_part(key, upload, number, body).await;
    let info = info.with_context(|| format!("part {number}"))?;
    ensure!(
        info.etag == ETag::of_md5(checksum::md5(bytes)),
        "part {number} has {}",
        info.etag
    );
    Ok(PartChoice {
        number,
        etag: info.etag,
        checksum: None,
    })
}

/// The tag of an object of these parts.
fn etag_of(parts: &[&Bytes]) -> ETag {
    let md5s: Vec<u8> = parts.iter().flat_map(|part| checksum::md5(part)).collect();
    ETag::of_parts(checksum::md5(&md5s), parts.len())
}

fn large() -> usize {
    usize::try_from(MIN_PART_BYTES).expect("it is 5 MiB")
}

async fn whole(store: &dyn BlobStore) -> Result<()> {
    let key = key("upload/whole");
    let options = UploadOptions {
        headers: Headers {
            content_type: Some("application/x-parts".to_owned()),
            user: BTreeMap::from([("parts".to_owned(), "three".to_owned())]),
            ..Headers::default()
        },
        ..UploadOptions::default()
    };
    let parts = [
        pattern(large(), 1),
        pattern(large() + 77, 2),
        pattern(3333, 3),
    ];
    let upload_all = async |left_out: bool| {
        let upload = store.create_upload(&key, options.clone()).await;
        let upload = upload.context("create")?;
        // Out of order, one of them twice, and maybe one that is not chosen.
        let mut chosen = Vec::new();
        if left_out {
            part(store, &key, &upload, 7, &pattern(1000, 9)).await?;
        }
        chosen.push(part(store, &key, &upload, 9, &parts[2]).await?);
        part(store, &key, &upload, 5, &pattern(large(), 8)).await?;
        chosen.push(part(store, &key, &upload, 5, &parts[1]).await?);
        chosen.push(part(store, &key, &upload, 2, &parts[0]).await?);
        chosen.reverse();
        expect_absent(store, &key).await?;
        anyhow::Ok((upload, chosen))
    };
    let complete = async |upload: &UploadId, chosen: &Vec<PartChoice>| {
        let (chosen, options) = (chosen.clone(), CompleteOptions::default());
        store.complete_upload(&key, upload, chosen, options).await
    };
    let (mut upload, mut chosen) = upload_all(true).await?;
    let mut done = complete(&upload, &chosen).await;
    if matches!(done, Err(BlobError::Unsupported { .. })) {
        // A member that must be given all parts says so, and the upload is as it was.
        store.abort_upload(&key, &upload).await.context("abort")?;
        (upload, chosen) = upload_all(false).await?;
        done = complete(&upload, &chosen).await;
    }
    let done = done.context("complete")?;
    let etag = etag_of(&[&parts[0], &parts[1], &parts[2]]);
    ensure!(done.etag == etag, "the tag is {}, not {etag}", done.etag);
    let bytes: Bytes = parts.concat().into();
    expect_bytes(store, &key, &bytes).await?;
    let meta = store.head(&key).await?;
    ensure!(
        meta.headers == options.headers,
        "the headers are {:?}",
        meta.headers
    );
    ensure!(meta.etag == etag, "head gives the tag {}", meta.etag);
    spans(store, &key, &bytes).await?;
    let again = complete(&upload, &chosen).await;
    expect_error(again, "completing twice", |error| {
        matches!(error, BlobError::NoSuchUpload)
    })?;
    ensure!(
        store.delete(&key, WriteCondition::Always).await?,
        "there was one"
    );
    expect_absent(store, &key).await
}

/// Ranges across the border of two parts.
async fn spans(store: &dyn BlobStore, key: &Key, bytes: &Bytes) -> Result<()> {
    let border = MIN_PART_BYTES;
    for span in [
        Span::Between(border - 3, border + 2),
        Span::Last(4000),
        Span::Between(1, 9),
    ] {
        let options = GetOptions {
            span: Some(span),
            ..GetOptions::default()
        };
        let opened = store.get(key, options).await?;
        let range = opened.range.clone();
        let found = Body::new(opened.source, range.end - range.start)
            .collect()
            .await?;
        let (start, end) = (usize::try_from(range.start)?, usize::try_from(range.end)?);
        ensure!(
            found == bytes.slice(start..end),
            "{span:?} gives other bytes"
        );
    }
    Ok(())
}

async fn wrong(store: &dyn BlobStore) -> Result<()> {
    let key = key("upload/wrong");
    let upload = store.create_upload(&key, UploadOptions::default()).await?;
    let first = part(store, &key, &upload, 1, &pattern(large(), 1)).await?;
    let second = part(store, &key, &upload, 2, &pattern(100, 2)).await?;
    let third = part(store, &key, &upload, 3, &pattern(100, 3)).await?;
    let complete = async |parts: Vec<PartChoice>| {
        store
            .complete_upload(&key, &upload, parts, CompleteOptions::default())
            .await
    };
    let other = |number| PartChoice {
        number,
        etag: ETag::from_text("0".repeat(32)),
        checksum: None,
    };
    let invalid = |error: &BlobError| matches!(error, BlobError::InvalidPart { .. });
    expect_error(
        complete(vec![first.clone(), other(2)]).await,
        "a wrong tag",
        invalid,
    )?;
    expect_error(
        complete(vec![first.clone(), other(4)]).await,
        "a missing part",
        invalid,
    )?;
    let order = vec![second.clone(), first.clone()];
    expect_error(complete(order).await, "the order", |error| {
        matches!(error, BlobError::PartOrder)
    })?;
    let small = vec![first.clone(), second.clone(), third];
    expect_error(complete(small).await, "a small part", |error| {
        matches!(error, BlobError::PartTooSmall { .. })
    })?;
    expect_absent(store, &key).await?;
    let body = Body::from_bytes("x").expect_md5([1; 16]);
    let bad = store.put_part(&key, &upload, 2, body).await;
    expect_error(bad, "a bad part", |error| {
        matches!(error, BlobError::Body { .. })
    })?;
    // The upload is as good as before.
    match complete(vec![first, second]).await {
        Ok(_) => {}
        // A member that must be given all parts says so.
        Err(BlobError::Unsupported { .. }) => store.abort_upload(&key, &upload).await?,
        Err(error) => return Err(error).context("complete after all"),
    }
    let missing = UploadId("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA".to_owned());
    let no_upload = |error: &BlobError| matches!(error, BlobError::NoSuchUpload);
    let answer = store
        .put_part(&key, &missing, 1, Body::from_bytes("x"))
        .await;
    expect_error(answer, "a part of nothing", no_upload)?;
    expect_error(
        store.abort_upload(&key, &missing).await,
        "abort of nothing",
        no_upload,
    )?;
    let upload = store.create_upload(&key, UploadOptions::default()).await?;
    part(store, &key, &upload, 1, &pattern(100, 1)).await?;
    store.abort_upload(&key, &upload).await.context("abort")?;
    let answer = store.list_parts(&key, &upload, 0, 10).await;
    expect_error(answer, "parts after the abort", no_upload)
}

async fn parallel(store: &Arc<dyn BlobStore>) -> Result<()> {
    let key = key("upload/parallel");
    let mut tasks = tokio::task::JoinSet::new();
    for seed in 1..=2_u8 {
        let (store, key) = (Arc::clone(store), key.clone());
        tasks.spawn(async move {
            let upload = store.create_upload(&key, UploadOptions::default()).await?;
            let (first, second) = (pattern(large(), seed), pattern(5000, seed));
            let chosen = vec![
                part(&*store, &key, &upload, 1, &first).await?,
                part(&*store, &key, &upload, 2, &second).await?,
            ];
            let done = store
                .complete_upload(&key, &upload, chosen, CompleteOptions::default())
                .await;
            // There are S3 servers where the one that is completed first ends the other.
            if store.kind() == StoreKind::S3 && matches!(done, Err(BlobError::NoSuchUpload)) {
                return Ok(None);
            }
            let done = done.with_context(|| format!("complete {seed}"))?;
            ensure!(
                done.etag == etag_of(&[&first, &second]),
                "upload {seed} has {}",
                done.etag
            );
            anyhow::Ok(Some([first, second].concat()))
        });
    }
    let mut contents = Vec::new();
    for done in tasks.join_all().await {
        contents.extend(done?.map(Bytes::from));
    }
    let (Some(first_content), Some(second_content)) = (contents.first(), contents.last()) else {
        anyhow::bail!("two uploads, but none was completed");
    };
    let meta = store.head(&key).await?;
    ensure!(
        meta.size == first_content.len() as u64,
        "its size is {}",
        meta.size
    );
    let first = expect_bytes(&**store, &key, first_content).await;
    match first {
        Ok(()) => Ok(()),
        Err(_) => expect_bytes(&**store, &key, second_content).await,
    }
}

async fn lists(store: &dyn BlobStore) -> Result<()> {
    let keys = [key("ul/a"), key("ul/b"), key("ul/c/d")];
    let mut begun = Vec::new();
    for key in &keys {
        begun.push((
            key.clone(),
            store.create_upload(key, UploadOptions::default()).await?,
        ));
    }
    let second = store
        .create_upload(&keys[1], UploadOptions::default())
        .await?;
    begun.push((keys[1].clone(), second));
    begun.sort();
    let prefix = Bytes::from_static(b"conformance/ul/");
    for limit in [1, 2, 100] {
        let mut found: Vec<(Key, UploadId)> = Vec::new();
        let mut after = None;
        loop {
            let page = store.list_uploads(prefix.clone(), after, limit).await?;
            ensure!(
                page.uploads.len() <= limit,
                "a page of {}",
                page.uploads.len()
            );
            found.extend(
                page.uploads
                    .iter()
                    .map(|info| (info.key.clone(), info.id.clone())),
            );
            let last = found.last().cloned().filter(|_| page.more);
            let Some((key, id)) = last else { break };
            after = Some((key, Some(id)));
        }
        // Ids of one key may come in the member's own order.
        found.sort();
        ensure!(
            found == begun,
            "by {limit}: found {found:?}, begun {begun:?}"
        );
    }
    parts(store, &begun).await?;
    for (key, upload) in &begun {
        store.abort_upload(key, upload).await?;
    }
    let page = store.list_uploads(prefix, None, 10).await?;
    ensure!(page.uploads.is_empty(), "all were aborted: {page:?}");
    Ok(())
}

async fn parts(store: &dyn BlobStore, begun: &[(Key, UploadId)]) -> Result<()> {
    let (key, upload) = begun.first().cloned().context("it was begun")?;
    for number in [3, 1, 20] {
        part(
            store,
            &key,
            &upload,
            number,
            &pattern(usize::from(number), 1),
        )
        .await?;
    }
    let numbers = async |after, limit| {
        let page = store.list_parts(&key, &upload, after, limit).await?;
        let numbers: Vec<u16> = page.parts.iter().map(|part| part.number).collect();
        anyhow::Ok((numbers, page.more))
    };
    ensure!(
        numbers(0, 10).await? == (vec![1, 3, 20], false),
        "all parts"
    );
    ensure!(numbers(0, 2).await? == (vec![1, 3], true), "the first two");
    ensure!(
        numbers(3, 10).await? == (vec![20], false),
        "behind the third"
    );
    let page = store.list_parts(&key, &upload, 0, 10).await?;
    ensure!(
        page.parts
            .iter()
            .all(|part| part.size == u64::from(part.number)),
        "{page:?}"
    );
    Ok(())
}

async fn expiry(store: &dyn BlobStore) -> Result<()> {
    let key = key("upload/expires");
    let upload = store.create_upload(&key, UploadOptions::default()).await?;
    part(store, &key, &upload, 1, &pattern(100, 1)).await?;
    store.maintain(1_000_000).await.context("maintain")?;
    ensure!(
        store.list_parts(&key, &upload, 0, 10).await?.parts.len() == 1,
        "it is young"
    );
    store
        .maintain(9_000_000_000_000)
        .await
        .context("maintain")?;
    let answer = store.list_parts(&key, &upload, 0, 10).await;
    expect_error(answer, "an upload that expired", |error| {
        matches!(error, BlobError::NoSuchUpload)
    })
}
