//! Rows of objects: found, placed, removed, tagged.
//!
//! Not their bytes. Invariant: a row that goes or names other generations leaves those it named in
//! `garbage`, in the same transaction.

use super::driver::{Row, Value};
use super::fault::Fault;
use super::pool::Session;
use super::put::row_values;
use super::record::{self, StoredObject};
use super::statements::Query;
use super::store::Inner;
use super::transaction::Work;
use crate::condition::WriteCondition;
use crate::error::BlobError;
use crate::key::Key;
use crate::meta::{ETag, Tags};

/// How often a row may come and go between two statements before the unit of work begins anew.
const MAX_ROUNDS: usize = 4;

/// An object's row as it is written.
pub(super) struct ObjectRow<'a> {
    /// That of its bytes, or of its first part's.
    pub(super) generation: i64,
    pub(super) size: u64,
    pub(super) modified_ms: u64,
    pub(super) etag: &'a ETag,
    pub(super) record: String,
    pub(super) tags: String,
}

/// What a write finds in its way.
struct There {
    generation: i64,
    etag: ETag,
    record: String,
}

fn name(key: &Key) -> Value {
    Value::Bytes(key.bytes())
}

async fn lock(session: &mut Session, key: &Key) -> Result<Option<There>, Fault> {
    let answer = session.run(Query::LockObject, vec![name(key)]).await?;
    let read = |mut row: Row| {
        Ok(There {
            generation: row.integer()?,
            etag: ETag::from_text(row.text()?),
            record: row.text()?,
        })
    };
    answer.first().map(read).transpose()
}

async fn discard(session: &mut Session, there: &There) -> Result<(), Fault> {
    let all = record::generations_of(there.generation, &there.record)?;
    let values = vec![there.generation.into(), all.into()];
    session.run(Query::InsertGarbage, values).await?;
    Ok(())
}

/// Makes a row the object of this key, if the condition holds.
pub(super) async fn place(
    session: &mut Session,
    key: &Key,
    row: &ObjectRow<'_>,
    condition: &WriteCondition,
) -> Result<(), Fault> {
    for _ in 0..MAX_ROUNDS {
        if !matches!(condition, WriteCondition::IfMatch(_)) {
            let mut values = vec![name(key)];
            values.extend(row_values(row));
            if session.run(Query::InsertObject, values).await?.affected > 0 {
                return Ok(());
            }
        }
        if *condition == WriteCondition::IfAbsent {
            return Err(BlobError::PreconditionFailed.into());
        }
        let there = lock(session, key).await?;
        let etag = there.as_ref().map(|there| &there.etag);
        condition.check(etag, || BlobError::NotFound)?;
        let Some(there) = there else {
            continue;
        };
        let mut values = row_values(row);
        values.push(name(key));
        session.run(Query::UpdateObject, values).await?;
        return discard(session, &there).await;
    }
    Err(Fault::Busy)
}

impl Inner {
    /// An object's row, if there is one.
    pub(super) async fn find(&self, key: &Key) -> Result<Option<StoredObject>, BlobError> {
        let answer = self.ask(Query::FindObject, vec![name(key)]).await?;
        answer
            .first()
            .map(|mut row| StoredObject::read(&mut row).map_err(|fault| self.told(fault)))
            .transpose()
    }

    /// Removes an object; answers whether there was one.
    pub(super) async fn delete(
        &self,
        key: &Key,
        condition: WriteCondition,
    ) -> Result<bool, BlobError> {
        self.transact(&Delete { key, condition }).await
    }

    /// Replaces an object's tags.
    pub(super) async fn set_tags(&self, key: &Key, tags: Tags) -> Result<(), BlobError> {
        let tags = record::to_text(&tags);
        self.transact(&SetTags { key, tags }).await
    }
}

struct Delete<'a> {
    key: &'a Key,
    condition: WriteCondition,
}

impl Work for Delete<'_> {
    type Output = bool;

    async fn run(&self, session: &mut Session) -> Result<bool, Fault> {
        let there = lock(session, self.key).await?;
        let etag = there.as_ref().map(|there| &there.etag);
        self.condition.check(etag, || BlobError::NotFound)?;
        let Some(there) = there else {
            return Ok(false);
        };
        session
            .run(Query::DeleteObject, vec![name(self.key)])
            .await?;
        discard(session, &there).await?;
        Ok(true)
    }
}

struct SetTags<'a> {
    key: &'a Key,
    tags: String,
}

impl Work for SetTags<'_> {
    type Output = ();

    async fn run(&self, session: &mut Session) -> Result<(), Fault> {
        // Asked first: MySQL counts a row that already has these tags as not changed.
        if lock(session, self.key).await?.is_none() {
            return Err(BlobError::NotFound.into());
        }
        let values = vec![self.tags.as_str().into(), name(self.key)];
        session.run(Query::UpdateTags, values).await?;
        Ok(())
    }
}
