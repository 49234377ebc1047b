//! One object: content, checksums, the metadata that a client may set, and its resource as JSON.
//!
//! Invariant: checksums are computed here from the content, never taken from a request.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use crc_fast::{CrcAlgorithm, checksum};
use md5::{Digest as _, Md5};
use serde_json::{Map, Value, json};

use super::request::Refusal;
use crate::utc::Utc;

/// Metadata that a client may set, besides `metadata` itself.
const SETTABLE: [&str; 7] = [
    "cacheControl",
    "contentDisposition",
    "contentEncoding",
    "contentLanguage",
    "contentType",
    "customTime",
    "storageClass",
];

/// A stored object.
#[derive(Debug, Clone)]
pub(super) struct Object {
    pub(super) content: Arc<Vec<u8>>,
    pub(super) generation: u64,
    pub(super) metageneration: u64,
    pub(super) set: Map<String, Value>,
    pub(super) components: u64,
    created: Utc,
    updated: Utc,
}

impl Object {
    pub(super) fn new(content: Arc<Vec<u8>>, set: Map<String, Value>, generation: u64) -> Object {
        let now = Utc::now();
        Object {
            content,
            generation,
            metageneration: 1,
            set,
            components: 0,
            created: now,
            updated: now,
        }
    }

    /// Merges a patch: null takes a field away, in `metadata` too.
    pub(super) fn patch(&mut self, patch: &Value) {
        for (name, value) in settable(patch) {
            match (value, self.set.get_mut(&name)) {
                (Value::Null, _) => {
                    self.set.remove(&name);
                }
                (Value::Object(new), Some(Value::Object(present))) => {
                    present.extend(new);
                    present.retain(|_, value| !value.is_null());
                }
                (Value::Object(mut new), _) => {
                    new.retain(|_, value| !value.is_null());
                    self.set.insert(name, Value::Object(new));
                }
                (value, _) => {
                    self.set.insert(name, value);
                }
            }
        }
        self.metageneration += 1;
        self.updated = Utc::now();
    }

    pub(super) fn text(&self, field: &str) -> Option<&str> {
        self.set.get(field).and_then(Value::as_str)
    }

    pub(super) fn crc32c(&self) -> String {
        crc32c(&self.content)
    }

    /// A composed object has no MD5.
    pub(super) fn md5(&self) -> Option<String> {
        (self.components == 0).then(|| md5(&self.content))
    }

    pub(super) fn etag(&self) -> String {
        STANDARD.encode(format!("{}/{}", self.generation, self.metageneration))
    }

    /// The object as the API shows it.
    pub(super) fn resource(&self, bucket: &str, name: &str) -> Value {
        let generation = self.generation.to_string();
        let mut resource = json!({
            "kind": "storage#object",
            "id": format!("{bucket}/{name}/{generation}"),
            "name": name,
            "bucket": bucket,
            "generation": generation,
            "metageneration": self.metageneration.to_string(),
            "size": self.content.len().to_string(),
            "crc32c": self.crc32c(),
            "etag": self.etag(),
            "storageClass": "STANDARD",
            "timeCreated": self.created.rfc3339(),
            "updated": self.updated.rfc3339(),
        });
        if let Some(fields) = resource.as_object_mut() {
            if let Some(md5) = self.md5() {
                fields.insert("md5Hash".to_owned(), md5.into());
            } else {
                fields.insert("componentCount".to_owned(), self.components.into());
            }
            fields.extend(self.set.clone());
        }
        resource
    }
}

/// What of a request's JSON a client may set.
pub(super) fn settable(value: &Value) -> Map<String, Value> {
    let mut kept = Map::new();
    for name in SETTABLE.into_iter().chain(["metadata"]) {
        if let Some(found) = value.get(name) {
            kept.insert(name.to_owned(), found.clone());
        }
    }
    kept
}

/// Refuses content that is not what the request's JSON says it is.
pub(super) fn verify(content: &[u8], resource: &Value) -> Result<(), Refusal> {
    let differs = |name: &str, actual: String| {
        let said = resource.get(name).and_then(Value::as_str);
        said.is_some_and(|said| said != actual)
    };
    if differs("crc32c", crc32c(content)) || differs("md5Hash", md5(content)) {
        let message = "Provided hash does not match the calculated hash.";
        return Err(Refusal::new(400, "invalid", message));
    }
    Ok(())
}

fn crc32c(content: &[u8]) -> String {
    let sum = checksum(CrcAlgorithm::Crc32Iscsi, content).to_be_bytes();
    STANDARD.encode(sum.get(4..).unwrap_or_default())
}

fn md5(content: &[u8]) -> String {
    STANDARD.encode(Md5::digest(content))
}
