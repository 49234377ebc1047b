//! An upload as `object_store` knows it: parts of any size, in the order in which they are given.
//!
//! Not retried, and not ended when dropped: the store ends it when it expires. Invariant: every part
//! that is sent but the last has at least [`MIN_PART_BYTES`]; smaller ones wait for the next.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use object_store::path::Path;
use object_store::{MultipartUpload, PutPayload, PutResult, Result, UploadPart};

use super::Answer;
use super::convert::{Asked, body_of, failed, generic, put_result};
use crate::key::Key;
use crate::store::BlobStore;
use crate::upload::{CompleteOptions, MAX_PART_NUMBER, MIN_PART_BYTES, PartChoice, UploadId};

/// See the module's page.
pub(super) struct Upload {
    target: Arc<Target>,
    /// What is too small to be sent yet.
    waiting: Vec<Bytes>,
    waiting_bytes: u64,
    /// How many parts were given a number.
    numbered: u16,
}

struct Target {
    store: Arc<dyn BlobStore>,
    location: Path,
    key: Key,
    id: UploadId,
    sent: Mutex<BTreeMap<u16, PartChoice>>,
}

impl fmt::Debug for Upload {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Upload")
            .field("key", &self.target.key)
            .field("numbered", &self.numbered)
            .finish_non_exhaustive()
    }
}

impl Upload {
    pub(super) fn new(store: Arc<dyn BlobStore>, location: Path, key: Key, id: UploadId) -> Self {
        let target = Target {
            store,
            location,
            key,
            id,
            sent: Mutex::default(),
        };
        Self {
            target: Arc::new(target),
            waiting: Vec::new(),
            waiting_bytes: 0,
            numbered: 0,
        }
    }

    /// Sends what waits as the next part.
    fn send(&mut self) -> UploadPart {
        let chunks = std::mem::take(&mut self.waiting);
        self.waiting_bytes = 0;
        if self.numbered >= MAX_PART_NUMBER {
            let problem = format!("an upload has at most {MAX_PART_NUMBER} parts");
            return Box::pin(async move { Err(generic(problem)) });
        }
        self.numbered = self.numbered.saturating_add(1);
        let (target, number) = (Arc::clone(&self.target), self.numbered);
        Box::pin(async move { target.send(number, chunks).await })
    }

    async fn finish(&mut self) -> Result<PutResult> {
        // An object of no bytes is made of one part of none.
        if self.waiting_bytes > 0 || self.numbered == 0 {
            self.send().await?;
        }
        let target = &self.target;
        let parts: Vec<PartChoice> = target.sent().values().cloned().collect();
        if parts.len() != usize::from(self.numbered) {
            return Err(generic("a part was not sent, or failed"));
        }
        let options = CompleteOptions::default();
        let completed = target
            .store
            .complete_upload(&target.key, &target.id, parts, options)
            .await;
        let written =
            completed.map_err(|error| failed(error, &target.location, Asked::Anything))?;
        Ok(put_result(&written.etag))
    }
}

impl Target {
    fn sent(&self) -> std::sync::MutexGuard<'_, BTreeMap<u16, PartChoice>> {
        self.sent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn send(&self, number: u16, chunks: Vec<Bytes>) -> Result<()> {
        let body = body_of(chunks.into_iter());
        let part = self.store.put_part(&self.key, &self.id, number, body).await;
        let part = part.map_err(|error| failed(error, &self.location, Asked::Anything))?;
        let choice = PartChoice {
            number,
            etag: part.etag,
            checksum: None,
        };
        self.sent().insert(number, choice);
        Ok(())
    }
}

impl MultipartUpload for Upload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        self.waiting_bytes = self
            .waiting_bytes
            .saturating_add(data.content_length() as u64);
        self.waiting.extend(data);
        if self.waiting_bytes < MIN_PART_BYTES {
            return Box::pin(async { Ok(()) });
        }
        self.send()
    }

    fn complete<'s, 'r>(&'s mut self) -> Answer<'r, PutResult>
    where
        's: 'r,
        Self: 'r,
    {
        Box::pin(self.finish())
    }

    fn abort<'s, 'r>(&'s mut self) -> Answer<'r, ()>
    where
        's: 'r,
        Self: 'r,
    {
        Box::pin(async {
            let target = &self.target;
            let aborted = target.store.abort_upload(&target.key, &target.id).await;
            aborted.map_err(|error| failed(error, &target.location, Asked::Anything))
        })
    }
}
