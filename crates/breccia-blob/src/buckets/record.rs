//! A bucket's record as it is stored: JSON.
//!
//! Invariant: a record that cannot be read is an error, never no bucket.

use bytes::Bytes;
use ring::rand::{SecureRandom as _, SystemRandom};
use serde::{Deserialize, Serialize};

use crate::bucket::{BucketName, BucketRecord};
use crate::error::BlobError;
use crate::meta::hex;

/// Whether a bucket may be written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum State {
    Alive,
    Deleting,
}

/// What is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) created_ms: u64,
    pub(super) state: State,
    /// Tells a bucket from an earlier one of its name.
    pub(super) nonce: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) owner: Option<String>,
}

impl Record {
    pub(super) fn new(owner: Option<&str>) -> Result<Self, BlobError> {
        Ok(Self {
            created_ms: breccia_net::clock::unix_ms(),
            state: State::Alive,
            nonce: nonce()?,
            owner: owner.map(str::to_owned),
        })
    }

    pub(super) fn read(store: &str, text: &[u8]) -> Result<Self, BlobError> {
        serde_json::from_slice(text).map_err(|error| BlobError::Damaged {
            store: store.to_owned(),
            problem: format!("a bucket's record: {error}"),
        })
    }

    pub(super) fn write(&self) -> Bytes {
        // Numbers and strings always have a JSON form.
        serde_json::to_vec(self).unwrap_or_default().into()
    }

    pub(super) fn shown(&self, name: &BucketName) -> BucketRecord {
        BucketRecord {
            name: name.clone(),
            created_ms: self.created_ms,
            owner: self.owner.clone(),
        }
    }
}

/// A text that nobody else has made.
pub(super) fn nonce() -> Result<String, BlobError> {
    let mut bytes = [0; 16];
    let filled = SystemRandom::new().fill(&mut bytes);
    filled.map_err(|_| BlobError::System {
        store: "this machine".to_owned(),
        what: "random numbers".to_owned(),
        reason: "there are none".to_owned(),
        effect: breccia_core::error::Effect::NotApplied,
    })?;
    Ok(hex(&bytes))
}
