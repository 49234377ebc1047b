//! Deleting a bucket, and bringing back one whose delete has died.
//!
//! Not the writers' side. Invariant: the record is marked before anybody looks whether the bucket is
//! empty, and it is removed only by whoever marked it, while nobody else can have changed it.

use std::time::Duration;

use breccia_core::error::Effect;
use breccia_net::clock;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::record::{Record, State, nonce};
use super::{Inner, home};
use crate::bucket::{BucketName, Deleted};
use crate::error::BlobError;
use crate::listing::{ListRequest, MAX_PAGE};
use crate::store::ReservedWrite;

/// How long a delete may take.
pub(super) const LIMIT: Duration = Duration::from_secs(30);
/// After this long, in milliseconds, a delete is taken to have died.
pub(super) const STALE_MS: u64 = 120_000;

/// Who deletes, and since when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Holder {
    nonce: String,
    since_ms: u64,
}

fn holder_name(name: &BucketName) -> String {
    format!("bucket-delete/{name}")
}

fn in_bucket(name: &BucketName) -> Bytes {
    format!("{name}/").into()
}

pub(super) async fn delete(inner: &Inner, name: &BucketName) -> Result<Deleted, BlobError> {
    inner.forget(name);
    // Before anything is marked: most deletes that fail, fail here. It asks every shard.
    if !is_empty(inner, name).await? {
        let there = inner.read_home(name).await?;
        return Ok(there.map_or(Deleted::Missing, |_| Deleted::NotEmpty));
    }
    let holder = Holder {
        nonce: nonce()?,
        since_ms: clock::unix_ms(),
    };
    if !hold(inner, name, &holder).await? {
        return Err(inner.conflict());
    }
    let Ok(ended) = tokio::time::timeout(LIMIT, delete_held(inner, name)).await else {
        // Nothing more is touched: others may take this delete to have died by now.
        return Err(BlobError::Timeout {
            store: inner.store.name().to_owned(),
            effect: Effect::Unknown,
        });
    };
    if ended.settled {
        let_go(inner, name).await;
    }
    inner.forget(name);
    ended.outcome
}

/// How a delete has ended.
struct Ended {
    outcome: Result<Deleted, BlobError>,
    /// The record is gone, or alive as before. If not, the delete stays held, and whoever meets it
    /// when it is stale brings the bucket back.
    settled: bool,
}

impl Ended {
    fn settled(outcome: Result<Deleted, BlobError>) -> Self {
        Self {
            outcome,
            settled: true,
        }
    }
}

async fn hold(inner: &Inner, name: &BucketName, holder: &Holder) -> Result<bool, BlobError> {
    let text = serde_json::to_vec(holder).unwrap_or_default();
    let held = holder_name(name);
    let written = inner
        .store
        .write_reserved(&held, text.clone().into(), ReservedWrite::IfAbsent);
    if written.await? {
        return Ok(true);
    }
    revive_if_stale(inner, name).await?;
    let again = inner
        .store
        .write_reserved(&held, text.into(), ReservedWrite::IfAbsent);
    again.await
}

async fn let_go(inner: &Inner, name: &BucketName) {
    if let Err(error) = inner.store.delete_reserved(&holder_name(name)).await {
        // It counts as dead after a while.
        tracing::warn!(bucket = %name, %error, "the end of a bucket's delete could not be noted");
    }
}

/// Deletes while `bucket-delete/NAME` is held.
async fn delete_held(inner: &Inner, name: &BucketName) -> Ended {
    let before = match inner.read_home(name).await {
        Ok(Some(before)) => before,
        Ok(None) => {
            // Copies may have been left behind by a delete that died.
            let removed = inner.remove_copies(name).await;
            return Ended::settled(removed.map(|()| Deleted::Missing));
        }
        Err(error) => return Ended::settled(Err(error)),
    };
    let mut marked = before.clone();
    marked.state = State::Deleting;
    let written = inner.write_home(name, &marked, ReservedWrite::Always);
    let emptied = match written.await {
        Ok(_) => empty_out(inner, name).await,
        Err(error) => Err(error),
    };
    match emptied {
        Ok(true) => remove(inner, name, &marked).await,
        Ok(false) => put_back(inner, name, before, Ok(Deleted::NotEmpty)).await,
        Err(error) => put_back(inner, name, before, Err(error)).await,
    }
}

async fn remove(inner: &Inner, name: &BucketName, marked: &Record) -> Ended {
    match inner.read_home(name).await {
        Ok(Some(there)) if there == *marked => {
            let removed = inner.store.delete_reserved(&home(name)).await;
            // If the outcome is unknown, the record must not be written again: it may be gone, and
            // somebody may have been told so.
            let settled = removed.is_ok();
            let outcome = removed.map(|()| Deleted::Removed);
            Ended { outcome, settled }
        }
        // Somebody took this delete to have died.
        Ok(_) => Ended::settled(Err(inner.conflict())),
        Err(error) => Ended {
            outcome: Err(error),
            settled: false,
        },
    }
}

/// The bucket is alive as before.
async fn put_back(
    inner: &Inner,
    name: &BucketName,
    mut before: Record,
    outcome: Result<Deleted, BlobError>,
) -> Ended {
    before.state = State::Alive;
    let written = inner.write_home(name, &before, ReservedWrite::Always).await;
    inner.write_copies(name, &before).await;
    let settled = written.is_ok();
    Ended { outcome, settled }
}

/// Whether the marked bucket is empty; if so, its uploads are ended and its copies removed.
async fn empty_out(inner: &Inner, name: &BucketName) -> Result<bool, BlobError> {
    if !is_empty(inner, name).await? {
        return Ok(false);
    }
    loop {
        let page = inner.store.list_uploads(in_bucket(name), None, MAX_PAGE);
        let page = page.await?;
        if page.uploads.is_empty() {
            break;
        }
        for upload in &page.uploads {
            match inner.store.abort_upload(&upload.key, &upload.id).await {
                Ok(()) | Err(BlobError::NoSuchUpload) => {}
                Err(error) => return Err(error),
            }
        }
    }
    inner.remove_copies(name).await?;
    Ok(true)
}

/// Whether no shard holds an object of the bucket; every shard must answer.
async fn is_empty(inner: &Inner, name: &BucketName) -> Result<bool, BlobError> {
    let request = ListRequest {
        prefix: in_bucket(name),
        limit: 1,
        ..ListRequest::default()
    };
    Ok(inner.store.list(request).await?.items.is_empty())
}

/// Makes a bucket alive again whose delete has died. To be called where a delete is in the way.
pub(super) async fn revive_if_stale(inner: &Inner, name: &BucketName) -> Result<(), BlobError> {
    let held = holder_name(name);
    let read = || async {
        let text = inner.store.read_reserved(&held).await?;
        // One that cannot be read is of nobody who still lives.
        Ok::<_, BlobError>(text.map(|text| serde_json::from_slice::<Holder>(&text).ok()))
    };
    let holder = read().await?;
    let stale = match &holder {
        Some(Some(holder)) => clock::unix_ms().saturating_sub(holder.since_ms) > STALE_MS,
        // It has just ended: nobody lets go before the record is settled.
        None => return Ok(()),
        Some(None) => true,
    };
    let record = inner.read_home(name).await?;
    if !stale || read().await? != holder {
        return Ok(());
    }
    if let Some(mut record) = record.filter(|record| record.state == State::Deleting) {
        record.state = State::Alive;
        inner
            .write_home(name, &record, ReservedWrite::Always)
            .await?;
        inner.write_copies(name, &record).await;
        tracing::warn!(bucket = %name, "the bucket's delete had died; it is as before");
    }
    inner.store.delete_reserved(&held).await
}
