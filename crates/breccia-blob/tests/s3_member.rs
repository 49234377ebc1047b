//! The `s3` member against real servers: Ceph's gateway, and Garage where it is installed.
//!
//! Not faults: those are tested against a server that misbehaves as told. Invariant: each test has a
//! bucket of its own.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use breccia_blob::condition::{ConditionalCall, Support};
use breccia_blob::key_names::KeyMode;
use breccia_blob::s3::backend::{CredentialSource, S3Options, S3Store};
use breccia_blob::store::BlobStore;
use breccia_testkit::conformance::blob_conformance;
use breccia_testkit::{Garage, Rgw, S3Server};

/// A bucket of its own on a server.
fn member(server: &S3Server, bucket: &str, mode: KeyMode) -> Result<S3Store> {
    server.create_bucket(bucket)?;
    let options = S3Options {
        endpoint: Some(server.endpoint.clone()),
        region: Some(server.region.clone()),
        credentials: CredentialSource::Given {
            access_key: server.access_key.clone(),
            secret_key: server.secret_key.clone(),
            session_token: None,
        },
        key_prefix: "some/prefix-".to_owned(),
        keys: mode,
        timeout: Duration::from_secs(20),
        ..S3Options::new("member", bucket)
    };
    Ok(S3Store::new(options)?)
}

#[tokio::test]
async fn rgw_conforms_with_plain_keys() -> Result<()> {
    let store = member(Rgw::shared()?.s3(), "plain", KeyMode::Plain)?;
    let store: Arc<dyn BlobStore> = Arc::new(store);
    blob_conformance(&store).await
}

#[tokio::test]
async fn rgw_conforms_with_encoded_keys() -> Result<()> {
    let store = member(Rgw::shared()?.s3(), "encoded", KeyMode::Encoded)?;
    let store: Arc<dyn BlobStore> = Arc::new(store);
    blob_conformance(&store).await
}

#[tokio::test]
async fn garage_conforms() -> Result<()> {
    if !Garage::present() {
        return Ok(());
    }
    let garage = Garage::new()?;
    for (bucket, mode) in [("plain", KeyMode::Plain), ("encoded", KeyMode::Encoded)] {
        let store = member(garage.s3(), bucket, mode)?;
        let store: Arc<dyn BlobStore> = Arc::new(store);
        blob_conformance(&store).await.context(bucket)?;
    }
    Ok(())
}

#[tokio::test]
async fn the_probe_tells_what_each_server_honours() -> Result<()> {
    let check = async |store: &S3Store, expected: [Support; 3]| {
        let found = store.probe_conditional().await?;
        let calls = [
            ConditionalCall::PutIfAbsent,
            ConditionalCall::PutIfMatch,
            ConditionalCall::CompleteIfAbsent,
        ];
        ensure!(calls.map(|call| found.of(call)) == expected, "{found:?}");
        ensure!(
            store.list_reserved("probe", None).await?.is_empty(),
            "cleaned up"
        );
        ensure!(
            store
                .list_uploads("".into(), None, 10)
                .await?
                .uploads
                .is_empty(),
            "aborted"
        );
        Ok(())
    };
    let rgw = member(Rgw::shared()?.s3(), "probed", KeyMode::Plain)?;
    check(&rgw, [Support::Yes, Support::Yes, Support::No]).await?;
    if Garage::present() {
        let garage = Garage::new()?;
        let store = member(garage.s3(), "probed", KeyMode::Plain)?;
        check(&store, [Support::No; 3]).await?;
    }
    Ok(())
}
