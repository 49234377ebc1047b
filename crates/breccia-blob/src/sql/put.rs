//! Putting: chunks under a fresh generation, then one transaction that publishes.
//!
//! Not uploads in parts, though a part's bytes are stored by the same code. Invariant: a publication
//! and the sweep of what is left over exclude each other by the generation's row in `pending`.

use std::time::{Duration, Instant};

use breccia_core::error::Effect;
use breccia_net::clock;
use bytes::{Bytes, BytesMut};
use ring::rand::{SecureRandom, SystemRandom};

use super::CHUNK;
use super::driver::{Value, signed};
use super::fault::Fault;
use super::objects::{ObjectRow, place};
use super::pool::Session;
use super::record::{self, ChecksumRecord, ObjectRecord};
use super::statements::Query;
use super::store::Inner;
use super::transaction::Work;
use crate::body::{Body, Digests};
use crate::condition::WriteCondition;
use crate::error::BlobError;
use crate::key::Key;
use crate::meta::ETag;
use crate::store::{PutOptions, Written};

/// A put says that it lives when this part of `pending_age` has passed since the last time.
const BEATS_PER_PENDING_AGE: u32 = 8;

/// A body that was stored, and that nobody sees yet.
pub(super) struct Stored {
    pub(super) generation: i64,
    pub(super) size: u64,
    pub(super) digests: Digests,
    /// All of it, if it is one chunk at most: then it goes into the publishing transaction.
    inline: Option<Bytes>,
}

impl Inner {
    /// Puts an object.
    pub(super) async fn put(
        &self,
        key: &Key,
        body: Body,
        options: PutOptions,
    ) -> Result<Written, BlobError> {
        if options.condition != WriteCondition::Always && !is_small(&body) {
            // Says no before the bytes are stored; what counts is decided with the publication.
            let there = self.find(key).await?;
            let etag = there.as_ref().map(|object| &object.meta.etag);
            options.condition.check(etag, || BlobError::NotFound)?;
        }
        let stored = self.store_body(body).await?;
        let checksum = stored.digests.checksum.clone();
        let written = Written {
            etag: ETag::of_md5(stored.digests.md5),
            checksum,
            modified_ms: clock::unix_ms(),
        };
        let record = ObjectRecord {
            headers: options.headers,
            checksum: written.checksum.as_ref().map(ChecksumRecord::from),
            chunk: CHUNK as u64,
            parts: Vec::new(),
        };
        let publish = PublishObject {
            key,
            row: ObjectRow {
                generation: stored.generation,
                size: stored.size,
                modified_ms: written.modified_ms,
                etag: &written.etag,
                record: record::to_text(&record),
                tags: record::to_text(&options.tags),
            },
            stored: &stored,
            condition: &options.condition,
            store: &self.name,
        };
        let published = self.transact(&publish).await;
        self.settle_failure(&stored, published).await?;
        Ok(written)
    }

    /// Stores the bytes of a body. Those of a failed one are given up.
    pub(super) async fn store_body(&self, mut body: Body) -> Result<Stored, BlobError> {
        let generation = self.generation()?;
        let (size, small) = (body.size(), is_small(&body));
        let inline = if small {
            Some(body.collect().await?)
        } else {
            let started = self.store_chunks(generation, &mut body).await;
            if let Err(error) = started {
                let from_body = matches!(error, BlobError::Body { .. });
                self.abandon(generation, from_body).await;
                return Err(error);
            }
            None
        };
        let digests = body.digests().cloned().ok_or_else(|| BlobError::Protocol {
            store: self.name.clone(),
            problem: "a body without digests".to_owned(),
            effect: Effect::NotApplied,
        })?;
        Ok(Stored {
            generation,
            size,
            digests,
            inline,
        })
    }

    async fn store_chunks(&self, generation: i64, body: &mut Body) -> Result<(), BlobError> {
        let not_applied = Effect::NotApplied;
        self.write(Query::InsertPending, vec![generation.into()], not_applied)
            .await?;
        let mut beat = clock::now();
        let mut gathered = BytesMut::with_capacity(CHUNK);
        let mut sequence = 0_i64;
        while let Some(piece) = body.next().await {
            let mut piece = piece?;
            while !piece.is_empty() {
                let room = CHUNK.saturating_sub(gathered.len());
                gathered.extend_from_slice(&piece.split_to(room.min(piece.len())));
                if gathered.len() == CHUNK {
                    let full = std::mem::replace(&mut gathered, BytesMut::with_capacity(CHUNK));
                    self.beat(generation, &mut beat).await?;
                    self.store_chunk(generation, sequence, full.freeze())
                        .await?;
                    sequence = sequence.saturating_add(1);
                }
            }
        }
        if !gathered.is_empty() {
            self.beat(generation, &mut beat).await?;
            self.store_chunk(generation, sequence, gathered.freeze())
                .await?;
        }
        Ok(())
    }

    async fn store_chunk(
        &self,
        generation: i64,
        sequence: i64,
        data: Bytes,
    ) -> Result<(), BlobError> {
        let values = chunk_values(generation, sequence, data);
        self.write(Query::InsertChunk, values, Effect::NotApplied)
            .await?;
        Ok(())
    }

    /// Says that this put lives, if it is time to.
    async fn beat(&self, generation: i64, last: &mut Instant) -> Result<(), BlobError> {
        let interval: Duration = self.options.pending_age / BEATS_PER_PENDING_AGE;
        if clock::now().duration_since(*last) < interval {
            return Ok(());
        }
        let not_applied = Effect::NotApplied;
        let answer = self
            .write(Query::BeatPending, vec![generation.into()], not_applied)
            .await?;
        if answer.affected == 0 {
            return Err(self.too_slow());
        }
        *last = clock::now();
        Ok(())
    }

    fn too_slow(&self) -> BlobError {
        BlobError::Timeout {
            store: self.name.clone(),
            effect: Effect::NotApplied,
        }
    }

    /// Gives up what was stored, if it was certainly not published; passes the outcome on.
    pub(super) async fn settle_failure<T>(
        &self,
        stored: &Stored,
        outcome: Result<T, BlobError>,
    ) -> Result<T, BlobError> {
        if let Err(error) = &outcome
            && stored.inline.is_none()
            && error.effect() == Effect::NotApplied
        {
            self.abandon(stored.generation, true).await;
        }
        outcome
    }

    /// Makes garbage of a generation that will not be published: to be deleted at once if every
    /// chunk was answered, else after the grace, for a late one may still arrive. If even this
    /// fails, the sweep finds the generation in `pending`.
    async fn abandon(&self, generation: i64, all_answered: bool) {
        let abandon = Abandon {
            generation,
            all_answered,
        };
        if let Err(error) = self.transact(&abandon).await {
            tracing::debug!(store = %self.name, %error, "the leftovers of a put stay until the sweep");
        }
    }

    /// A fresh generation: 63 random bits.
    pub(super) fn generation(&self) -> Result<i64, BlobError> {
        let mut bytes = [0; 8];
        SystemRandom::new()
            .fill(&mut bytes)
            .map_err(|_| BlobError::System {
                store: self.name.clone(),
                what: "a random number".to_owned(),
                reason: "the system gives none".to_owned(),
                effect: Effect::NotApplied,
            })?;
        Ok(i64::from_be_bytes(bytes) & i64::MAX)
    }
}

fn is_small(body: &Body) -> bool {
    body.size() <= CHUNK as u64
}

fn chunk_values(generation: i64, sequence: i64, data: Bytes) -> Vec<Value> {
    let crc = record::crc(&data);
    vec![generation.into(), sequence.into(), crc.into(), data.into()]
}

/// Within the publishing transaction: the bytes are all there, and stay.
pub(super) async fn settle(
    session: &mut Session,
    stored: &Stored,
    store: &str,
) -> Result<(), Fault> {
    let Some(inline) = &stored.inline else {
        let answer = session
            .run(Query::DeletePending, vec![stored.generation.into()])
            .await?;
        if answer.affected == 0 {
            // Taken for left over: its chunks may be gone.
            return Err(Fault::Decided(BlobError::Timeout {
                store: store.to_owned(),
                effect: Effect::NotApplied,
            }));
        }
        return Ok(());
    };
    if !inline.is_empty() {
        let values = chunk_values(stored.generation, 0, inline.clone());
        session.run(Query::InsertChunk, values).await?;
    }
    Ok(())
}

struct PublishObject<'a> {
    key: &'a Key,
    row: ObjectRow<'a>,
    stored: &'a Stored,
    condition: &'a WriteCondition,
    store: &'a str,
}

impl Work for PublishObject<'_> {
    type Output = ();

    async fn run(&self, session: &mut Session) -> Result<(), Fault> {
        settle(session, self.stored, self.store).await?;
        place(session, self.key, &self.row, self.condition).await
    }
}

struct Abandon {
    generation: i64,
    all_answered: bool,
}

impl Work for Abandon {
    type Output = ();

    async fn run(&self, session: &mut Session) -> Result<(), Fault> {
        let generation = Value::from(self.generation);
        let answer = session
            .run(Query::DeletePending, vec![generation.clone()])
            .await?;
        if answer.affected == 0 {
            return Ok(());
        }
        let query = if self.all_answered {
            Query::InsertUnseenGarbage
        } else {
            Query::InsertGarbage
        };
        let all = record::generations_text(std::iter::once(self.generation));
        session.run(query, vec![generation, all.into()]).await?;
        Ok(())
    }
}

/// The columns of an object's row but its name.
pub(super) fn row_values(row: &ObjectRow<'_>) -> Vec<Value> {
    vec![
        row.generation.into(),
        signed(row.size),
        signed(row.modified_ms),
        row.etag.as_str().into(),
        row.record.as_str().into(),
        row.tags.as_str().into(),
    ]
}
