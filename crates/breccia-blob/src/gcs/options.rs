//! What a `gcs` member is opened with.
//!
//! Not the configuration file. Invariant: nothing here is a secret; key files are named only.

use std::path::PathBuf;
use std::time::Duration;

use breccia_net::tls::TlsClientOptions;

use crate::key_names::KeyMode;

/// The service's own place.
const DEFAULT_ENDPOINT: &str = "https://storage.googleapis.com";

/// How a `gcs` member is reached.
#[derive(Debug, Clone)]
pub struct GcsOptions {
    /// The store's name, as in a configuration.
    pub name: String,
    /// The bucket.
    pub bucket: String,
    /// Who asks.
    pub credential: GcsCredential,
    /// `https://storage.googleapis.com`, or another place that speaks the JSON API.
    pub endpoint: String,
    /// What all object names begin with.
    pub key_prefix: String,
    /// How keys are written.
    pub keys: KeyMode,
    /// How long the server may keep silent.
    pub timeout: Duration,
    /// How often a request that may be repeated is.
    pub max_retries: u32,
    /// The most connections at a time.
    pub max_connections: usize,
    /// TLS, for `https`.
    pub tls: TlsClientOptions,
}

impl GcsOptions {
    /// The usual, for a bucket.
    #[must_use]
    pub fn new(
        name: impl Into<String>,
        bucket: impl Into<String>,
        credential: GcsCredential,
    ) -> Self {
        Self {
            name: name.into(),
            bucket: bucket.into(),
            credential,
            endpoint: DEFAULT_ENDPOINT.to_owned(),
            key_prefix: String::new(),
            keys: KeyMode::Plain,
            timeout: Duration::from_secs(30),
            max_retries: 3,
            max_connections: 64,
            tls: TlsClientOptions::default(),
        }
    }
}

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GcsCredential {
    /// A service account, whose key is in this file of JSON.
    File(PathBuf),
    /// The machine's own account, by its metadata server (`GCE_METADATA_HOST` names another).
    Metadata,
    /// Nobody.
    Anonymous,
}
