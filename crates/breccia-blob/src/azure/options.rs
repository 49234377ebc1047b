//! What an `azure` member is opened with.
//!
//! Not the configuration file. Invariant: nothing here is shown with a secret in it.

use std::fmt;
use std::time::Duration;

use breccia_net::tls::TlsClientOptions;

use crate::key_names::KeyMode;

/// How an `azure` member is reached.
#[derive(Debug, Clone)]
pub struct AzureOptions {
    /// The store's name, as in a configuration.
    pub name: String,
    /// The storage account.
    pub account: String,
    /// The container.
    pub container: String,
    /// Who asks.
    pub credential: AzureCredential,
    /// `https://ACCOUNT.blob.core.windows.net`, or another place; may have a path.
    pub endpoint: String,
    /// What all blob names begin with.
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

impl AzureOptions {
    /// The usual, for a container.
    #[must_use]
    pub fn new(
        name: impl Into<String>,
        account: impl Into<String>,
        container: impl Into<String>,
        credential: AzureCredential,
    ) -> Self {
        let account = account.into();
        Self {
            name: name.into(),
            endpoint: format!("https://{account}.blob.core.windows.net"),
            account,
            container: container.into(),
            credential,
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
#[derive(Clone)]
pub enum AzureCredential {
    /// The account, with one of its keys in base64.
    AccessKey(String),
    /// Whoever holds this token: read, add, create, write, delete and list on the container.
    SasToken(String),
}

impl fmt::Debug for AzureCredential {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::AccessKey(_) => "AccessKey",
            Self::SasToken(_) => "SasToken",
        })
    }
}
