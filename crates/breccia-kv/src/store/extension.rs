//! The comfortable methods over [`KvStore`]: what a program that embeds a store calls.
//!
//! Nothing here is overridden by members, and nothing here knows a wire. Invariant: each method is
//! one atomic `apply` on its key, or says that it is not.

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;

use super::{KeyedOperation, KvStore, ScanRequest};
use crate::entry::{Condition, Expiry, ExpiryCondition, Lifetime, Operation, Outcome, TimeUnit};
use crate::entry::{Refusal, Value};
use crate::error::KvError;

/// How to write a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SetOptions<'a> {
    /// What must hold; [`Condition::Always`] by default.
    pub condition: Condition<'a>,
    /// When it ends; [`Expiry::Never`] by default.
    pub expiry: Expiry,
    /// A number to keep beside it (only memcached and memory members keep one other than 0).
    pub flags: u32,
}

impl Default for SetOptions<'_> {
    fn default() -> Self {
        Self {
            condition: Condition::Always,
            expiry: Expiry::Never,
            flags: 0,
        }
    }
}

impl<'a> SetOptions<'a> {
    /// A value that ends after `ttl`.
    #[must_use]
    pub fn with_ttl(ttl: Duration) -> Self {
        Self {
            expiry: expiry_after(ttl),
            ..Self::default()
        }
    }

    /// The same, only if `condition` holds.
    #[must_use]
    pub fn only(self, condition: Condition<'a>) -> Self {
        Self { condition, ..self }
    }
}

fn expiry_after(ttl: Duration) -> Expiry {
    Expiry::After(u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX))
}

/// Comfort over [`KvStore`]; every store has it.
pub trait KvStoreExt: KvStore {
    /// Reads a value.
    fn get(&self, key: &[u8]) -> impl Future<Output = Result<Option<Value>, KvError>> + Send {
        async move {
            match self.apply_one(key, Operation::Get).await? {
                Outcome::Value(value) => Ok(value),
                other => Err(self.misfit(&other)),
            }
        }
    }

    /// Reads many values, each shard's at once. One failure fails the whole: never a value that
    /// is missing only because its shard could not be asked.
    fn get_many(
        &self,
        keys: &[&[u8]],
    ) -> impl Future<Output = Result<Vec<Option<Value>>, KvError>> + Send {
        async move {
            let requests = keyed(keys, Operation::Get);
            let mut values = Vec::with_capacity(keys.len());
            for outcome in self.apply_each(&requests).await? {
                match outcome {
                    Outcome::Value(value) => values.push(value),
                    // As Redis's MGET: what is not a string reads as nothing.
                    Outcome::Refused(Refusal::WrongType) => values.push(None),
                    other => return Err(self.misfit(&other)),
                }
            }
            Ok(values)
        }
    }

    /// Writes a value; `false` if the condition did not hold.
    fn set(
        &self,
        key: &[u8],
        data: &[u8],
        options: SetOptions<'_>,
    ) -> impl Future<Output = Result<bool, KvError>> + Send {
        async move {
            let SetOptions {
                condition,
                expiry,
                flags,
            } = options;
            let set = Operation::Set {
                data,
                flags,
                condition,
                expiry,
                want_old: false,
            };
            match self.apply_one(key, set).await? {
                Outcome::Stored { .. } => Ok(true),
                Outcome::NotStored { .. } => Ok(false),
                other => Err(self.misfit(&other)),
            }
        }
    }

    /// Removes an entry; `false` if there was none.
    fn delete(&self, key: &[u8]) -> impl Future<Output = Result<bool, KvError>> + Send {
        async move {
            match self.apply_one(key, Operation::delete()).await? {
                Outcome::Deleted { .. } => Ok(true),
                Outcome::NotDeleted { .. } => Ok(false),
                other => Err(self.misfit(&other)),
            }
        }
    }

    /// Removes many entries, each shard's at once, and counts those there were.
    fn delete_many(&self, keys: &[&[u8]]) -> impl Future<Output = Result<u64, KvError>> + Send {
        async move {
            let requests = keyed(keys, Operation::delete());
            let outcomes = self.apply_each(&requests).await?;
            let deleted = outcomes
                .iter()
                .filter(|one| matches!(one, Outcome::Deleted { .. }));
            Ok(deleted.count() as u64)
        }
    }

    /// Whether the key has an entry.
    fn exists(&self, key: &[u8]) -> impl Future<Output = Result<bool, KvError>> + Send {
        async move { self.flag(key, Operation::Exists).await }
    }

    /// Adds to a counter, which starts from 0. With a `ttl`, the counter ends that long after its
    /// last increment.
    fn increment(
        &self,
        key: &[u8],
        delta: i64,
        ttl: Option<Duration>,
    ) -> impl Future<Output = Result<i64, KvError>> + Send {
        async move {
            let increment = Operation::Increment { delta };
            let outcomes = match ttl {
                None => self.apply(key, &[increment]).await?,
                Some(ttl) => {
                    let expiry = expiry_after(ttl);
                    let expire = Operation::Expire {
                        expiry,
                        condition: ExpiryCondition::Always,
                    };
                    self.apply(key, &[increment, expire]).await?
                }
            };
            match outcomes.into_iter().next() {
                Some(Outcome::Integer(value)) => Ok(value),
                other => Err(self.misfit(&other.unwrap_or(Outcome::Flag(false)))),
            }
        }
    }

    /// Lets an entry end after `ttl`; `false` if there is none.
    fn expire(
        &self,
        key: &[u8],
        ttl: Duration,
    ) -> impl Future<Output = Result<bool, KvError>> + Send {
        async move {
            let expiry = expiry_after(ttl);
            let condition = ExpiryCondition::Always;
            self.flag(key, Operation::Expire { expiry, condition })
                .await
        }
    }

    /// How long the entry still lives.
    fn time_to_live(&self, key: &[u8]) -> impl Future<Output = Result<Lifetime, KvError>> + Send {
        async move {
            let unit = TimeUnit::Seconds;
            match self.apply_one(key, Operation::TimeToLive { unit }).await? {
                Outcome::Lifetime(lifetime) => Ok(lifetime),
                other => Err(self.misfit(&other)),
            }
        }
    }

    /// All keys that match a glob pattern (Redis's rules), without repeats. Reads the whole store;
    /// prefer [`KvStore::scan`] where many keys are expected.
    fn scan_all(
        &self,
        pattern: Option<&[u8]>,
    ) -> impl Future<Output = Result<Vec<Bytes>, KvError>> + Send {
        async move {
            let mut found = std::collections::BTreeSet::new();
            let mut request = ScanRequest {
                pattern,
                count: SCAN_COUNT,
                ..ScanRequest::default()
            };
            loop {
                let page = self.scan(request).await?;
                found.extend(page.keys);
                request.cursor = page.cursor;
                if page.cursor == 0 {
                    return Ok(found.into_iter().collect());
                }
            }
        }
    }

    /// Removes every entry whose key begins with `prefix`, and counts them. Not atomic: entries
    /// made meanwhile may stay, and a failure may leave some of them removed.
    fn delete_prefix(&self, prefix: &[u8]) -> impl Future<Output = Result<u64, KvError>> + Send {
        async move {
            let mut pattern = crate::glob::escape(prefix);
            pattern.push(b'*');
            let mut request = ScanRequest {
                pattern: Some(&pattern),
                count: SCAN_COUNT,
                ..ScanRequest::default()
            };
            let mut deleted = 0;
            loop {
                let page = self.scan(request).await?;
                if !page.keys.is_empty() {
                    let keys: Vec<&[u8]> = page.keys.iter().map(AsRef::as_ref).collect();
                    deleted += self.delete_many(&keys).await?;
                }
                request.cursor = page.cursor;
                if page.cursor == 0 {
                    return Ok(deleted);
                }
            }
        }
    }

    /// Takes a lock for `owner` until it is unlocked or `ttl` has passed; `false` if it is held,
    /// also by the same owner. Use an owner text that nobody else uses.
    fn try_lock(
        &self,
        key: &[u8],
        owner: &[u8],
        ttl: Duration,
    ) -> impl Future<Output = Result<bool, KvError>> + Send {
        self.set(
            key,
            owner,
            SetOptions::with_ttl(ttl).only(Condition::IfAbsent),
        )
    }

    /// Gives a lock back, only if `owner` still holds it; `false` if not.
    fn unlock(
        &self,
        key: &[u8],
        owner: &[u8],
    ) -> impl Future<Output = Result<bool, KvError>> + Send {
        async move {
            let condition = Condition::IfEquals(owner);
            match self
                .apply_one(
                    key,
                    Operation::Delete {
                        condition,
                        want_old: false,
                    },
                )
                .await?
            {
                Outcome::Deleted { .. } => Ok(true),
                Outcome::NotDeleted { .. } => Ok(false),
                other => Err(self.misfit(&other)),
            }
        }
    }

    /// Performs one operation on one key.
    fn apply_one(
        &self,
        key: &[u8],
        operation: Operation<'_>,
    ) -> impl Future<Output = Result<Outcome, KvError>> + Send {
        async move {
            let operations = [operation];
            let outcomes = self.apply(key, &operations).await?;
            let none = || KvError::Protocol {
                store: self.capabilities().name.clone(),
                problem: "no answer to an operation".into(),
                effect: breccia_core::error::Effect::Unknown,
            };
            outcomes.into_iter().next().ok_or_else(none)
        }
    }

    #[doc(hidden)]
    fn flag(
        &self,
        key: &[u8],
        operation: Operation<'_>,
    ) -> impl Future<Output = Result<bool, KvError>> + Send {
        async move {
            match self.apply_one(key, operation).await? {
                Outcome::Flag(flag) => Ok(flag),
                other => Err(self.misfit(&other)),
            }
        }
    }

    /// The error for an outcome that is not what the operation answers.
    #[doc(hidden)]
    fn misfit(&self, outcome: &Outcome) -> KvError {
        let store = self.capabilities().name.clone();
        match outcome {
            Outcome::Refused(refusal) => KvError::WrongValue {
                store,
                refusal: *refusal,
            },
            other => KvError::Protocol {
                store,
                problem: format!("an answer of another operation: {other:?}"),
                effect: breccia_core::error::Effect::Unknown,
            },
        }
    }
}

impl<S: KvStore + ?Sized> KvStoreExt for S {}

/// How many keys the comfortable scans look at per page.
const SCAN_COUNT: usize = 512;

fn keyed<'a>(keys: &[&'a [u8]], operation: Operation<'a>) -> Vec<KeyedOperation<'a>> {
    keys.iter()
        .map(|key| KeyedOperation { key, operation })
        .collect()
}
