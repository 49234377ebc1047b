//! What every blob store and every composite of them must do.
//!
//! The checks keep to keys under `conformance/`, and remove them. Invariant: what a store refuses,
//! it refuses with the right error, and leaves everything as it was.

use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use breccia_blob::body::{Body, ByteSource, NextChunk};
use breccia_blob::condition::WriteCondition;
use breccia_blob::error::BlobError;
use breccia_blob::key::Key;
use breccia_blob::listing::{ListItem, ListRequest, MAX_PAGE};
use breccia_blob::store::{BlobStore, BlobStoreExt, GetOptions};
use bytes::Bytes;

mod conditions;
mod copies;
mod integrity;
mod keys;
mod lists;
mod objects;
mod reserved;
mod uploads;

/// Runs all checks against a store.
pub async fn blob_conformance(store: &Arc<dyn BlobStore>) -> Result<()> {
    clear(&**store).await.context("clear")?;
    store.probe().await.context("probe")?;
    objects::check(&**store).await.context("objects")?;
    integrity::check(&**store).await.context("integrity")?;
    // The odd keys lie anywhere: nothing else may be there.
    clear(&**store).await.context("clear before keys")?;
    keys::check(&**store).await.context("keys")?;
    clear(&**store).await.context("clear before listings")?;
    lists::check(&**store).await.context("lists")?;
    conditions::check(store).await.context("conditions")?;
    copies::check(&**store).await.context("copies")?;
    uploads::check(store).await.context("uploads")?;
    reserved::check(&**store)
        .await
        .context("reserved objects")?;
    clear(&**store).await.context("clear at the end")
}

/// A key of the suite's own.
fn key(name: &str) -> Key {
    Key::new(format!("conformance/{name}").into_bytes()).expect("names of the suite are short")
}

/// Removes everything of the suite.
async fn clear(store: &dyn BlobStore) -> Result<()> {
    let uploads = store.list_uploads(Bytes::new(), None, MAX_PAGE).await?;
    for upload in &uploads.uploads {
        store.abort(upload).await?;
    }
    loop {
        let page = store.list(request("", None, None, MAX_PAGE)).await?;
        if page.items.is_empty() {
            return Ok(());
        }
        for item in &page.items {
            if let ListItem::Object(object) = item {
                store.delete(&object.key, WriteCondition::Always).await?;
            }
        }
    }
}

fn request(
    prefix: &str,
    delimiter: Option<&str>,
    after: Option<&[u8]>,
    limit: usize,
) -> ListRequest {
    ListRequest {
        prefix: Bytes::from(prefix.as_bytes().to_vec()),
        after: after.map(Bytes::copy_from_slice),
        delimiter: delimiter.map(|text| Bytes::from(text.as_bytes().to_vec())),
        limit,
    }
}

/// Bytes that differ from block to block, and from seed to seed.
fn pattern(size: usize, seed: u8) -> Bytes {
    let mut state = u32::from(seed).wrapping_mul(2_654_435_761).wrapping_add(1);
    let mut bytes = Vec::with_capacity(size);
    while bytes.len() < size {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(size);
    bytes.into()
}

/// Reads an object whole and holds it against what it should be.
async fn expect_bytes(store: &dyn BlobStore, key: &Key, expected: &[u8]) -> Result<()> {
    let (meta, bytes) = store
        .get_bytes(key)
        .await
        .with_context(|| format!("get {key}"))?;
    ensure!(
        meta.size == expected.len() as u64,
        "{key}: its size is {}",
        meta.size
    );
    ensure!(
        bytes == expected,
        "{key}: {} bytes came back, and they are not those that were written",
        bytes.len()
    );
    Ok(())
}

/// There must be no such object, in any way of asking.
async fn expect_absent(store: &dyn BlobStore, key: &Key) -> Result<()> {
    match store.head(key).await {
        Err(BlobError::NotFound) => {}
        other => bail!("head of {key} must find nothing, but: {other:?}"),
    }
    match store.get(key, GetOptions::default()).await {
        Err(BlobError::NotFound) => {}
        other => bail!("get of {key} must find nothing, but: {other:?}"),
    }
    let name = String::from_utf8_lossy(key.as_bytes()).into_owned();
    let page = store.list(request(&name, None, None, 10)).await?;
    let listed = page.items.iter().any(|item| item.name() == key.as_bytes());
    ensure!(!listed, "{key} is listed though it is not there");
    Ok(())
}

fn expect_error<T: std::fmt::Debug>(
    answer: Result<T, BlobError>,
    what: &str,
    right: impl Fn(&BlobError) -> bool,
) -> Result<()> {
    match answer {
        Err(error) if right(&error) => Ok(()),
        other => bail!("{what}: not the right answer: {other:?}"),
    }
}

/// Gives chunks of a size, and may break off with an error after some.
struct Chunks {
    bytes: Bytes,
    chunk: usize,
    fail_after: Option<usize>,
}

impl Chunks {
    fn new(bytes: Bytes, chunk: usize) -> Self {
        Self {
            bytes,
            chunk,
            fail_after: None,
        }
    }

    fn body(self) -> Body {
        let size = self.bytes.len() as u64;
        Body::new(Box::new(self), size)
    }
}

impl ByteSource for Chunks {
    fn next(&mut self) -> NextChunk<'_> {
        Box::pin(async move {
            if let Some(left) = &mut self.fail_after {
                if *left == 0 {
                    let fault = breccia_blob::error::BodyFault::Gone;
                    return Some(Err(BlobError::Body { fault }));
                }
                *left -= 1;
            }
            if self.bytes.is_empty() {
                return None;
            }
            let take = self.chunk.min(self.bytes.len());
            Some(Ok(self.bytes.split_to(take)))
        })
    }
}
