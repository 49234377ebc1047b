//! The `azure` member against Azurite, and the `gcs` member against the testkit's stub.
//!
//! Not the services themselves. Invariant: each test has a container or bucket of its own.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use breccia_blob::azure::{AzureCredential, AzureOptions, AzureStore};
use breccia_blob::body::Body;
use breccia_blob::condition::{ConditionalCall, ConditionalSupport, Support, WriteCondition};
use breccia_blob::error::BlobError;
use breccia_blob::key::Key;
use breccia_blob::key_names::KeyMode;
use breccia_blob::listing::{ListRequest, MAX_PAGE};
use breccia_blob::store::{BlobStore, BlobStoreExt, PutOptions};
use breccia_testkit::Azurite;
use breccia_testkit::conformance::blob_conformance;

fn azurite() -> Result<&'static Azurite> {
    static SHARED: OnceLock<Result<Azurite, String>> = OnceLock::new();
    let shared = SHARED.get_or_init(|| Azurite::start().map_err(|error| format!("{error:#}")));
    shared.as_ref().map_err(|error| anyhow::anyhow!("{error}"))
}

/// A container of its own.
fn azure(container: &str, mode: KeyMode) -> Result<AzureStore> {
    let server = azurite()?;
    server.create_container(container)?;
    let credential = AzureCredential::AccessKey(server.account_key().to_owned());
    let options = AzureOptions {
        endpoint: server.endpoint(),
        key_prefix: "some/prefix-".to_owned(),
        keys: mode,
        timeout: Duration::from_secs(20),
        ..AzureOptions::new("member", server.account(), container, credential)
    };
    Ok(AzureStore::open(options)?)
}

fn key(name: &str) -> Result<Key> {
    Ok(Key::new(name.as_bytes().to_vec())?)
}

#[tokio::test]
async fn azurite_conforms_with_plain_keys() -> Result<()> {
    let store: Arc<dyn BlobStore> = Arc::new(azure("plain", KeyMode::Plain)?);
    blob_conformance(&store).await
}

#[tokio::test]
async fn azurite_conforms_with_encoded_keys() -> Result<()> {
    let store: Arc<dyn BlobStore> = Arc::new(azure("encoded", KeyMode::Encoded)?);
    blob_conformance(&store).await
}
