//! What an `s3` member is opened with.
//!
//! Not the configuration file. Invariant: nothing here is shown with a secret in it.

use std::fmt;
use std::time::Duration;

use breccia_net::tls::TlsClientOptions;

use crate::key_names::KeyMode;

/// How an `s3` member is reached.
#[derive(Debug, Clone)]
pub struct S3Options {
    /// The store's name, as in a configuration.
    pub name: String,
    /// The bucket.
    pub bucket: String,
    /// `http://host:port` or `https://…`; without it, Amazon's endpoint of the region.
    pub endpoint: Option<String>,
    /// The region that requests are signed for; without it `AWS_REGION`, then `us-east-1`.
    pub region: Option<String>,
    /// Who asks.
    pub credentials: CredentialSource,
    /// The bucket in the path instead of in the host name; `None`: in the path if an endpoint is
    /// given.
    pub path_style: Option<bool>,
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

impl S3Options {
    /// The usual, for a bucket.
    #[must_use]
    pub fn new(name: impl Into<String>, bucket: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            bucket: bucket.into(),
            endpoint: None,
            region: None,
            credentials: CredentialSource::Surroundings,
            path_style: None,
            key_prefix: String::new(),
            keys: KeyMode::Plain,
            timeout: Duration::from_secs(30),
            max_retries: 3,
            max_connections: 64,
            tls: TlsClientOptions::default(),
        }
    }
}

/// Where the credentials come from.
#[derive(Clone)]
pub enum CredentialSource {
    /// They are given.
    Given {
        /// The access key's id.
        access_key: String,
        /// The secret.
        secret_key: String,
        /// The token of temporary ones.
        session_token: Option<String>,
    },
    /// The first of: `AWS_ACCESS_KEY_ID` and its like; a web identity's token file; the container's
    /// endpoint; the instance's role.
    Surroundings,
}

impl fmt::Debug for CredentialSource {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Given { access_key, .. } => write!(formatter, "Given({access_key})"),
            Self::Surroundings => formatter.write_str("Surroundings"),
        }
    }
}
