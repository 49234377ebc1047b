//! Uploads in parts: rules, reading across parts, and what they leave behind.
//!
//! Not which parts fit (see `complete`). Invariant: nothing of an upload is seen before it is
//! completed, and nothing of it is left once it has ended.

use super::*;
use crate::body::Body;
use crate::condition::WriteCondition;
use crate::error::BlobError;
use crate::meta::{ETag, PartSize};
use crate::upload::{CompleteOptions, PartChoice, PartInfo, UploadId, UploadOptions};

const LARGE: usize = 5 * 1024 * 1024;

pub(super) async fn begin(store: &FsStore, name: &str) -> UploadId {
    let options = UploadOptions::default();
    store
        .create_upload(&key(name), options)
        .await
        .expect("begun")
}

pub(super) async fn part(
    store: &FsStore,
    name: &str,
    upload: &UploadId,
    number: u16,
    bytes: Bytes,
) -> PartInfo {
    let body = Body::from_bytes(bytes);
    let part = store.put_part(&key(name), upload, number, body).await;
    part.expect("the part is put")
}

pub(super) fn choices(parts: &[&PartInfo]) -> Vec<PartChoice> {
    let choice = |part: &&PartInfo| PartChoice {
        number: part.number,
        etag: part.etag.clone(),
        checksum: None,
    };
    parts.iter().map(choice).collect()
}

async fn complete(
    store: &FsStore,
    name: &str,
    upload: &UploadId,
    parts: &[&PartInfo],
    condition: WriteCondition,
) -> Result<ETag, BlobError> {
    let options = CompleteOptions {
        condition,
        checksum: None,
    };
    let name = key(name);
    let done = store.complete_upload(&name, upload, choices(parts), options);
    Ok(done.await?.etag)
}

#[tokio::test]
async fn an_upload_becomes_an_object_and_leaves_nothing_else() {
    let (folder, store) = fresh();
    store.put_bytes(&key("o"), "old").await.expect("put");
    let upload = begin(&store, "o").await;
    part(&store, "o", &upload, 2, bytes(100, 9)).await;
    let second = part(&store, "o", &upload, 2, bytes(LARGE + 7, 2)).await;
    let first = part(&store, "o", &upload, 1, bytes(LARGE, 1)).await;
    let unused = part(&store, "o", &upload, 5, bytes(10, 5)).await;
    let last = part(&store, "o", &upload, 10_000, bytes(70_000, 3)).await;
    assert_eq!(read(&store, "o").await.as_deref(), Some(&b"old"[..]));
    let page = store
        .list_parts(&key("o"), &upload, 0, 2)
        .await
        .expect("a page");
    assert_eq!(
        (page.parts, page.more),
        (vec![first.clone(), second.clone()], true)
    );
    let page = store
        .list_parts(&key("o"), &upload, 2, 2)
        .await
        .expect("a page");
    assert_eq!((page.parts, page.more), (vec![unused, last.clone()], false));

    let chosen = [&first, &second, &last];
    let refused = complete(&store, "o", &upload, &chosen, WriteCondition::IfAbsent).await;
    assert!(matches!(refused, Err(BlobError::PreconditionFailed)));
    let etag = complete(&store, "o", &upload, &chosen, WriteCondition::Always).await;
    let etag = etag.expect("completed");
    let again = complete(&store, "o", &upload, &chosen, WriteCondition::Always).await;
    assert!(matches!(again, Err(BlobError::NoSuchUpload)));

    let whole = [bytes(LARGE, 1), bytes(LARGE + 7, 2), bytes(70_000, 3)].concat();
    let (meta, found) = store.get_bytes(&key("o")).await.expect("get");
    assert!(found == whole);
    let sizes = [(1, LARGE), (2, LARGE + 7), (10_000, 70_000)];
    let parts = sizes.map(|(number, size)| PartSize {
        number,
        size: size as u64,
    });
    assert_eq!((meta.etag, &meta.parts[..]), (etag.clone(), &parts[..]));
    assert!(etag.as_str().ends_with("-3"));
    read_across_parts(&store, &whole).await;
    // The manifest and three parts.
    until_files(folder.path(), 4).await;
    replaced_while_it_is_read(&folder, &store, &whole).await;
}

/// Ranges that begin and end at both sides of parts' borders.
async fn read_across_parts(store: &FsStore, whole: &[u8]) {
    let borders = [LARGE, 2 * LARGE + 7, whole.len()];
    for border in borders.map(|border| border as u64) {
        for (from, to) in [
            (border - 3, border + 2),
            (border - 1, border - 1),
            (1, border),
        ] {
            let (range, found) = read_span(store, "o", Span::Between(from, to))
                .await
                .expect("r");
            let start = usize::try_from(range.start).expect("small");
            let end = usize::try_from(range.end).expect("small");
            assert!(found == whole[start..end], "{from} to {to}");
        }
    }
}

/// A slow reader keeps the parts, and they go behind it.
async fn replaced_while_it_is_read(folder: &TempDir, store: &FsStore, whole: &[u8]) {
    let mut slow = store
        .get(&key("o"), GetOptions::default())
        .await
        .expect("open");
    store.put_bytes(&key("o"), "new").await.expect("put");
    let mut found = Vec::new();
    while let Some(chunk) = slow.source.next().await {
        found.extend_from_slice(&chunk.expect("its parts are kept"));
        tokio::task::yield_now().await;
    }
    assert!(found == whole);
    drop(slow);
    until_files(folder.path(), 1).await;
}

#[tokio::test]
async fn uploads_are_listed_aborted_and_expire() {
    let (folder, store) = fresh();
    let mut expected = Vec::new();
    for name in ["a", "a", "b/1", "c"] {
        expected.push((key(name), begin(&store, name).await));
    }
    expected.sort();
    let list = async |prefix: &'static str, after, limit| {
        let page = store.list_uploads(Bytes::from_static(prefix.as_bytes()), after, limit);
        let page = page.await.expect("a page");
        let uploads = page
            .uploads
            .into_iter()
            .map(|upload| (upload.key, upload.id));
        (uploads.collect::<Vec<_>>(), page.more)
    };
    assert_eq!(list("", None, 10).await, (expected.clone(), false));
    assert_eq!(list("", None, 3).await, (expected[..3].to_vec(), true));
    let after = |at: usize| {
        let (key, id) = expected[at].clone();
        Some((key, Some(id)))
    };
    assert_eq!(
        list("", after(0), 10).await,
        (expected[1..].to_vec(), false)
    );
    let behind = Some((key("a"), None));
    assert_eq!(list("", behind, 10).await, (expected[2..].to_vec(), false));
    assert_eq!(list("b", None, 10).await, (expected[2..3].to_vec(), false));

    let (name, id) = &expected[2];
    part(&store, "b/1", id, 1, bytes(10, 1)).await;
    let wrong = store
        .put_part(&key("a"), id, 1, Body::from_bytes("x"))
        .await;
    assert!(
        matches!(wrong, Err(BlobError::NoSuchUpload)),
        "an upload is of its key"
    );
    for number in [0, 10_001] {
        let refused = store
            .put_part(name, id, number, Body::from_bytes("x"))
            .await;
        assert!(matches!(refused, Err(BlobError::InvalidPart { .. })));
    }
    store.abort_upload(name, id).await.expect("aborted");
    let again = store.abort_upload(name, id).await;
    assert!(matches!(again, Err(BlobError::NoSuchUpload)));
    let late = store.put_part(name, id, 1, Body::from_bytes("x")).await;
    assert!(matches!(late, Err(BlobError::NoSuchUpload)));
    let none = store.list_parts(name, id, 0, 10).await;
    assert!(matches!(none, Err(BlobError::NoSuchUpload)));
    assert_eq!(store.maintain(0).await.expect("maintained").uploads, 0);
    assert_eq!(
        store.maintain(u64::MAX).await.expect("maintained").uploads,
        3
    );
    assert_eq!(list("", None, 10).await, (Vec::new(), false));
    until_files(folder.path(), 0).await;
}
