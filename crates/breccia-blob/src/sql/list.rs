//! Listing: pages of names in byte order, rolled up at a delimiter by seeking behind it.
//!
//! Not a scan: what is rolled up is skipped, not read. Invariant: a page costs in proportion to its
//! items, however many keys lie under a common prefix.

use bytes::{BufMut, Bytes, BytesMut};

use super::driver::{Answer, Value};
use super::fault::Fault;
use super::statements::Query;
use super::store::Inner;
use crate::error::BlobError;
use crate::key::{Key, MAX_KEY_BYTES};
use crate::listing::{
    ListPage, ListRequest, ListedObject, MAX_PAGE, RollUp, Start, Step, successor,
};
use crate::meta::ETag;

/// With a delimiter, how many keys are fetched first: more only while few are rolled up.
const FIRST_BATCH: usize = 32;
/// The fewest keys fetched at once.
const LEAST_BATCH: usize = 4;

impl Inner {
    /// One page.
    pub(super) async fn list(&self, request: ListRequest) -> Result<ListPage, BlobError> {
        let limit = request.limit.clamp(1, MAX_PAGE);
        let request = ListRequest { limit, ..request };
        let end = end_of(&request.prefix);
        let most = limit.saturating_add(1);
        let mut batch = match request.delimiter {
            None => most,
            Some(_) => FIRST_BATCH.min(most),
        };
        let mut roll_up = RollUp::new(request);
        while let Some(from) = first_of(roll_up.next()) {
            if from >= end {
                break;
            }
            let fetched = self.fetch(from, end.clone(), batch).await?;
            let (full, last) = (fetched.len() == batch, fetched.last().cloned());
            let mut used = 0;
            for object in fetched {
                match roll_up.push(object) {
                    Step::Full => return Ok(roll_up.finish()),
                    Step::Skip | Step::Go => used += 1,
                }
                // Nothing that is left at hand can give an item.
                let behind = last
                    .as_ref()
                    .is_none_or(|last| roll_up.next().allows(last.key.as_bytes()));
                if !behind {
                    break;
                }
            }
            if !full {
                break;
            }
            batch = if used * 2 < batch {
                (batch / 4).max(LEAST_BATCH.min(most))
            } else {
                (batch * 2).min(most)
            };
        }
        Ok(roll_up.finish())
    }

    async fn fetch(
        &self,
        from: Bytes,
        end: Bytes,
        limit: usize,
    ) -> Result<Vec<ListedObject>, BlobError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let values = vec![from.into(), end.into(), limit.into()];
        let answer = self.ask(Query::ListObjects, values).await?;
        read(answer).map_err(|fault| self.told(fault))
    }
}

fn read(answer: Answer) -> Result<Vec<ListedObject>, Fault> {
    let object = |mut row: super::driver::Row| {
        Ok(ListedObject {
            key: Key::new(row.bytes()?)?,
            size: row.unsigned()?,
            modified_ms: row.unsigned()?,
            etag: ETag::from_text(row.text()?),
        })
    };
    answer.rows.into_iter().map(object).collect()
}

/// The least name that a listing from here may give; `None`: there is none.
fn first_of(start: &Start) -> Option<Bytes> {
    match start {
        Start::At(name) => Some(name.clone()),
        Start::Behind(name) => Some(behind(name)),
        Start::Nowhere => None,
    }
}

/// The least byte string behind this one.
pub(super) fn behind(name: &[u8]) -> Bytes {
    let mut next = BytesMut::with_capacity(name.len().saturating_add(1));
    next.extend_from_slice(name);
    next.put_u8(0);
    next.freeze()
}

/// A byte string behind every name with this prefix.
pub(super) fn end_of(prefix: &[u8]) -> Bytes {
    let last = || Bytes::from(vec![u8::MAX; MAX_KEY_BYTES.saturating_add(1)]);
    successor(prefix).unwrap_or_else(last)
}

/// The parameters of a page of names with a prefix, at or behind `from`.
pub(super) fn page_values(from: Bytes, prefix: &[u8], limit: usize) -> Vec<Value> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    vec![from.into(), end_of(prefix).into(), limit.into()]
}
