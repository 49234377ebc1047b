//! Which bucket is where: fixed by the configuration, or made by clients.
//!
//! Not who may use it. Invariant: a write into a bucket of clients is acknowledged only after the
//! bucket was found alive behind it (see [`crate::bucket`]).

use std::collections::BTreeMap;
use std::sync::Arc;

use breccia_core::error::Effect;
use bytes::{BufMut, Bytes, BytesMut};

use crate::bucket::{BucketName, BucketStore, Confirmed};
use crate::condition::{ConditionalCall, ETagSet, Support, WriteCondition};
use crate::error::BlobError;
use crate::key::Key;
use crate::store::{BlobStore, Written};

use super::refusal::Refusal;

/// The buckets of a listener.
#[derive(Debug, Clone)]
pub enum Namespace {
    /// Each bucket is a store; keys lie in it as they are.
    Fixed {
        /// The stores by bucket.
        buckets: BTreeMap<String, Arc<dyn BlobStore>>,
        /// What clients are told of when the buckets were made, in milliseconds since the Unix epoch.
        since_ms: u64,
    },
    /// Buckets are made by clients; objects lie under `bucket/key`.
    ByClients {
        /// Where objects lie.
        store: Arc<dyn BlobStore>,
        /// Where the records of buckets lie.
        buckets: Arc<dyn BucketStore>,
    },
}

/// A bucket that was found.
#[derive(Debug, Clone)]
pub(super) struct Bucket {
    pub(super) name: String,
    pub(super) store: Arc<dyn BlobStore>,
    /// The bucket's name and the records, where clients make buckets.
    made: Option<(BucketName, Arc<dyn BucketStore>)>,
}

impl Namespace {
    /// The bucket of this name.
    pub(super) async fn find(&self, name: &str) -> Result<Bucket, Refusal> {
        let missing = || Refusal::NoSuchBucket {
            bucket: name.to_owned(),
        };
        match self {
            Self::Fixed { buckets, .. } => {
                let store = buckets.get(name).ok_or_else(missing)?;
                Ok(Bucket {
                    name: name.to_owned(),
                    store: Arc::clone(store),
                    made: None,
                })
            }
            Self::ByClients { store, buckets } => {
                let valid = BucketName::new(name).ok_or_else(missing)?;
                buckets.look_up(&valid).await?.ok_or_else(missing)?;
                Ok(Bucket {
                    name: name.to_owned(),
                    store: Arc::clone(store),
                    made: Some((valid, Arc::clone(buckets))),
                })
            }
        }
    }
}

/// Removes what was written into a bucket that is gone; not what somebody else has written since,
/// into a bucket that was made anew, wherever the shard can tell.
async fn undo(store: &dyn BlobStore, key: &Key, written: &Written) -> Result<(), BlobError> {
    let call = ConditionalCall::DeleteIfMatch;
    let condition = if store.conditional().of(call) == Support::Yes {
        WriteCondition::IfMatch(ETagSet::OneOf(vec![written.etag.clone()]))
    } else {
        WriteCondition::Always
    };
    match store.delete(key, condition).await {
        Ok(_) | Err(BlobError::NotFound | BlobError::PreconditionFailed) => Ok(()),
        // The object was written: it may be there still.
        Err(error) => Err(error.with_effect(Effect::Unknown)),
    }
}

impl Bucket {
    /// The key as it is stored.
    pub(super) fn key(&self, key: &[u8]) -> Result<Key, BlobError> {
        let key = Key::new(self.stored(key))?;
        self.store.accepts(&key)?;
        Ok(key)
    }

    /// A key, prefix or marker as it is stored.
    pub(super) fn stored(&self, name: &[u8]) -> Bytes {
        let Some((bucket, _)) = &self.made else {
            return Bytes::copy_from_slice(name);
        };
        let bucket = bucket.as_str();
        let mut stored =
            BytesMut::with_capacity(bucket.len().saturating_add(name.len()).saturating_add(1));
        stored.put_slice(bucket.as_bytes());
        stored.put_u8(b'/');
        stored.put_slice(name);
        stored.freeze()
    }

    /// A stored name as clients see it; `None` if it is not of this bucket.
    pub(super) fn visible<'a>(&self, stored: &'a [u8]) -> Option<&'a [u8]> {
        match &self.made {
            None => Some(stored),
            Some((bucket, _)) => stored
                .strip_prefix(bucket.as_str().as_bytes())?
                .strip_prefix(b"/"),
        }
    }

    /// Whether two buckets lie in one store.
    pub(super) fn shares_store(&self, other: &Self) -> bool {
        std::ptr::addr_eq(Arc::as_ptr(&self.store), Arc::as_ptr(&other.store))
    }

    /// Carries out a write under `key` and makes sure of its bucket, before it is acknowledged.
    ///
    /// Where clients make buckets it runs to its end even if the client goes away: an object that
    /// was published in a bucket that is gone must go. (A body whose client went away ends the
    /// write with an error.)
    pub(super) async fn publish(
        &self,
        key: &Key,
        write: impl Future<Output = Result<Written, Refusal>> + Send + 'static,
    ) -> Result<Written, Refusal> {
        let Some((name, buckets)) = self.made.clone() else {
            return write.await;
        };
        let (store, key) = (Arc::clone(&self.store), key.clone());
        let publishing = tokio::spawn(async move {
            let written = write.await?;
            match buckets.confirm_write(&name).await {
                Ok(Confirmed::Alive) => Ok(written),
                Ok(Confirmed::Gone) => {
                    undo(&*store, &key, &written).await?;
                    Err(Refusal::NoSuchBucket {
                        bucket: name.as_str().to_owned(),
                    })
                }
                Err(error) => Err(error.with_effect(Effect::Unknown).into()),
            }
        });
        publishing.await.unwrap_or_else(|_| {
            Err(Refusal::Internal {
                problem: "a task ended early; outcome unknown".to_owned(),
            })
        })
    }
}
