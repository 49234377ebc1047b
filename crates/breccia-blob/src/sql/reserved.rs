//! Reserved objects: a table of their own, so that no listing of keys can show them.
//!
//! Not large: each is one row. Invariant: of two that write the same name if it is absent, one wins.

use breccia_core::error::Effect;
use bytes::Bytes;

use super::driver::Value;
use super::fault::Fault;
use super::list::{behind, end_of, page_values};
use super::pool::Session;
use super::record::name_bytes;
use super::statements::Query;
use super::store::Inner;
use super::transaction::Work;
use crate::error::BlobError;
use crate::listing::MAX_PAGE;
use crate::store::{MAX_RESERVED_BYTES, MAX_RESERVED_NAME_BYTES, ReservedWrite};

fn named(name: &str) -> Value {
    Value::Bytes(name_bytes(name))
}

impl Inner {
    /// Reads one.
    pub(super) async fn read_reserved(&self, name: &str) -> Result<Option<Bytes>, BlobError> {
        let answer = self.ask(Query::FindReserved, vec![named(name)]).await?;
        let bytes = answer.first().map(|mut row| row.bytes()).transpose();
        bytes.map_err(|fault| self.told(fault))
    }

    /// Writes one; answers whether it was written.
    pub(super) async fn write_reserved(
        &self,
        name: &str,
        bytes: Bytes,
        how: ReservedWrite,
    ) -> Result<bool, BlobError> {
        if name.len() > MAX_RESERVED_NAME_BYTES {
            let length = name.len();
            return Err(BlobError::KeyTooLong { length });
        }
        if bytes.len() > MAX_RESERVED_BYTES {
            return Err(BlobError::TooLarge {
                store: self.name.clone(),
                limit: MAX_RESERVED_BYTES as u64,
            });
        }
        self.transact(&WriteReserved { name, bytes, how }).await
    }

    /// Removes one.
    pub(super) async fn delete_reserved(&self, name: &str) -> Result<(), BlobError> {
        self.write(Query::DeleteReserved, vec![named(name)], Effect::Unknown)
            .await?;
        Ok(())
    }

    /// Their names.
    pub(super) async fn list_reserved(
        &self,
        prefix: &str,
        after: Option<&str>,
    ) -> Result<Vec<String>, BlobError> {
        let mut from = name_bytes(prefix);
        if let Some(after) = after {
            from = from.max(behind(after.as_bytes()));
        }
        if from >= end_of(prefix.as_bytes()) {
            return Ok(Vec::new());
        }
        let values = page_values(from, prefix.as_bytes(), MAX_PAGE);
        let answer = self.ask(Query::ListReserved, values).await?;
        let names = answer.rows.into_iter().map(|mut row| row.text());
        let names: Result<Vec<String>, Fault> = names.collect();
        names.map_err(|fault| self.told(fault))
    }
}

struct WriteReserved<'a> {
    name: &'a str,
    bytes: Bytes,
    how: ReservedWrite,
}

impl Work for WriteReserved<'_> {
    type Output = bool;

    async fn run(&self, session: &mut Session) -> Result<bool, Fault> {
        let values = vec![named(self.name), self.bytes.clone().into()];
        let inserted = session.run(Query::InsertReserved, values).await?;
        if inserted.affected > 0 {
            return Ok(true);
        }
        if self.how == ReservedWrite::IfAbsent {
            return Ok(false);
        }
        let values = vec![self.bytes.clone().into(), named(self.name)];
        session.run(Query::UpdateReserved, values).await?;
        Ok(true)
    }
}
