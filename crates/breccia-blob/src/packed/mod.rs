//! What the members `azure` and `gcs` share: each keeps one packed record with every object.
//!
//! ```text
//! azure, gcs ─▶ Member (a page, a look, a small write, a removal) ◀─ listing, guard, uploads, reserved
//! ```
//!
//! Not their protocols. Invariant: the record is committed together with the bytes it describes, so
//! what it says is of that version and no other.

pub(crate) mod assembly;
pub(crate) mod guard;
pub(crate) mod listing;
pub(crate) mod record;
pub(crate) mod reserved;
pub(crate) mod store;
pub(crate) mod uploads;

use std::sync::Mutex;

use breccia_core::error::Effect;
use bytes::Bytes;
use ring::rand::{SecureRandom, SystemRandom};

pub(crate) use self::guard::Guard;
pub(crate) use self::listing::{Question, RawPage};
pub(crate) use self::record::{Record, Seen};
use crate::condition::ConditionalSupport;
use crate::error::BlobError;
use crate::key_names::KeyNames;
use crate::meta::hex;
use crate::store::{BlobStore, StoreFuture};

/// The largest body that is read before it is sent, so that its record can hold all its digests.
pub(crate) const MAX_COLLECTED_BYTES: u64 = 256 * 1024;
/// How many requests of one call are under way at the same time.
pub(crate) const PARALLEL: usize = 8;

/// What a member can do with names, from which the rest is made.
pub(crate) trait Member: BlobStore {
    /// What objects are called there.
    fn names(&self) -> &KeyNames;

    /// Which conditional calls were seen to be honoured.
    fn offered(&self) -> &Mutex<ConditionalSupport>;

    /// One page of names.
    fn page(&self, question: Question) -> StoreFuture<'_, RawPage>;

    /// What is known of an object.
    fn look<'a>(&'a self, name: &'a str) -> StoreFuture<'a, Seen>;

    /// Reads a small object, if there is one.
    fn read_small<'a>(&'a self, name: &'a str) -> StoreFuture<'a, Option<Bytes>>;

    /// Writes a small object with a record; without a guard it may be written twice.
    fn write_small<'a>(
        &'a self,
        name: &'a str,
        bytes: Bytes,
        note: &'a str,
        guard: &'a Guard,
    ) -> StoreFuture<'a, ()>;

    /// Removes an object; whether there was one.
    fn remove<'a>(&'a self, name: &'a str, guard: &'a Guard) -> StoreFuture<'a, bool>;

    /// Publishes one object as another, in the way that completes an upload.
    fn publish<'a>(&'a self, from: &'a str, to: &'a str, guard: &'a Guard) -> StoreFuture<'a, ()>;

    /// Removes what an upload was put together in.
    fn discard_stage<'a>(&'a self, id: &'a str) -> StoreFuture<'a, ()>;
}

/// Random hex digits, for names.
pub(crate) fn random<const N: usize>(store: &str) -> Result<String, BlobError> {
    let mut bytes = [0; N];
    SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| BlobError::System {
            store: store.to_owned(),
            what: "random bytes".to_owned(),
            reason: "the machine gives none".to_owned(),
            effect: Effect::NotApplied,
        })?;
    Ok(hex(&bytes))
}

/// An answer that makes no sense.
pub(crate) fn nonsense(store: &str, problem: impl Into<String>, writes: bool) -> BlobError {
    BlobError::Protocol {
        store: store.to_owned(),
        problem: problem.into(),
        effect: effect(writes),
    }
}

/// What is known of a request that may have been carried out.
pub(crate) fn effect(maybe_applied: bool) -> Effect {
    if maybe_applied {
        Effect::Unknown
    } else {
        Effect::NotApplied
    }
}
