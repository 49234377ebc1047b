//! Clearing away: puts that went silent, generations nobody may read any more, expired uploads.
//!
//! Not a task of its own: `maintain` is called from time to time. Invariant: the work of one call is
//! bounded, and two gateways that sweep at once do each other no harm.

use std::time::Duration;

use breccia_core::error::Effect;

use super::driver::{Value, signed};
use super::fault::Fault;
use super::pool::Session;
use super::record;
use super::statements::Query;
use super::store::Inner;
use super::transaction::Work;
use crate::error::BlobError;
use crate::key::Key;
use crate::store::Maintained;
use crate::upload::UploadId;

/// How many rows of one kind are looked at at a time.
const ROWS: usize = 100;
/// How often a call asks for further rows of one kind.
const MAX_ROUNDS: usize = 50;
/// How many chunks are deleted in one statement.
const CHUNKS_PER_DELETE: i64 = 32;
/// How many deletes of chunks one call makes at most.
const MAX_DELETES: usize = 4096;

fn ms(duration: Duration) -> Value {
    signed(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}

fn rows() -> Value {
    Value::Integer(i64::try_from(ROWS).unwrap_or(i64::MAX))
}

impl Inner {
    /// Clears away what is no longer needed.
    pub(super) async fn maintain(&self, expired_before_ms: u64) -> Result<Maintained, BlobError> {
        let uploads = self.expire_uploads(expired_before_ms).await?;
        self.expire_pending().await?;
        let leftovers = self.sweep_garbage().await?;
        Ok(Maintained { uploads, leftovers })
    }

    async fn expire_uploads(&self, before_ms: u64) -> Result<u64, BlobError> {
        let mut ended = 0_u64;
        for _ in 0..MAX_ROUNDS {
            let values = vec![signed(before_ms), rows()];
            let answer = self.ask(Query::ListExpiredUploads, values).await?;
            let found = answer.rows.len();
            for mut row in answer.rows {
                let named = row.bytes().and_then(|name| Ok((name, row.text()?)));
                let (name, id) = named.map_err(|fault| self.told(fault))?;
                match self.abort_upload(&Key::new(name)?, &UploadId(id)).await {
                    Ok(()) => ended = ended.saturating_add(1),
                    // Somebody else was faster.
                    Err(BlobError::NoSuchUpload) => {}
                    Err(error) => return Err(error),
                }
            }
            if found < ROWS {
                break;
            }
        }
        Ok(ended)
    }

    async fn expire_pending(&self) -> Result<(), BlobError> {
        for _ in 0..MAX_ROUNDS {
            let values = vec![ms(self.options.pending_age), rows()];
            let answer = self.ask(Query::ListPending, values).await?;
            let found = answer.rows.len();
            for mut row in answer.rows {
                let generation = row.integer().map_err(|fault| self.told(fault))?;
                let age = self.options.pending_age;
                self.transact(&Expire { generation, age }).await?;
            }
            if found < ROWS {
                break;
            }
        }
        Ok(())
    }

    async fn sweep_garbage(&self) -> Result<u64, BlobError> {
        let mut swept = 0_u64;
        let mut deletes = MAX_DELETES;
        for _ in 0..MAX_ROUNDS {
            let values = vec![ms(self.options.garbage_grace), rows()];
            let answer = self.ask(Query::ListGarbage, values).await?;
            let found = answer.rows.len();
            for mut row in answer.rows {
                let read = row.integer().and_then(|id| Ok((id, row.text()?)));
                let (id, generations) = read.map_err(|fault| self.told(fault))?;
                if !self.sweep(id, &generations, &mut deletes).await? {
                    return Ok(swept);
                }
                swept = swept.saturating_add(1);
            }
            if found < ROWS {
                break;
            }
        }
        Ok(swept)
    }

    /// Deletes the chunks of these generations and then the row that named them. `false`: this
    /// call has done enough, the row stays for the next.
    async fn sweep(
        &self,
        id: i64,
        generations: &str,
        deletes: &mut usize,
    ) -> Result<bool, BlobError> {
        let all: Vec<i64> = record::from_text(generations).map_err(|fault| self.told(fault))?;
        let not_applied = Effect::Unknown;
        for generation in all {
            while let Some(first) = self.first_chunk(generation).await? {
                if *deletes == 0 {
                    return Ok(false);
                }
                *deletes = deletes.saturating_sub(1);
                let end = first.saturating_add(CHUNKS_PER_DELETE);
                let values = vec![generation.into(), first.into(), end.into()];
                self.write(Query::DeleteChunks, values, not_applied).await?;
            }
        }
        self.write(Query::DeleteGarbage, vec![id.into()], not_applied)
            .await?;
        Ok(true)
    }

    async fn first_chunk(&self, generation: i64) -> Result<Option<i64>, BlobError> {
        let answer = self.ask(Query::FirstChunk, vec![generation.into()]).await?;
        let first = answer.first().map(|mut row| row.optional_integer());
        Ok(first
            .transpose()
            .map_err(|fault| self.told(fault))?
            .flatten())
    }
}

/// Takes a silent put for left over. Its garbage waits for the grace: a chunk on its way may still
/// arrive.
struct Expire {
    generation: i64,
    age: Duration,
}

impl Work for Expire {
    type Output = ();

    async fn run(&self, session: &mut Session) -> Result<(), Fault> {
        let generation = Value::from(self.generation);
        let values = vec![generation.clone(), ms(self.age)];
        if session.run(Query::ExpirePending, values).await?.affected > 0 {
            let all = record::generations_text(std::iter::once(self.generation));
            session
                .run(Query::InsertGarbage, vec![generation, all.into()])
                .await?;
        }
        Ok(())
    }
}
