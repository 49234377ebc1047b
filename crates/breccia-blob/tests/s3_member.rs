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

#[tokio::test]
async fn a_versioned_bucket_is_warned_of() -> Result<()> {
    let server = Rgw::shared()?.s3();
    let store = member(server, "versioned", KeyMode::Plain)?;
    ensure!(store.describe().await?.is_empty(), "not versioned yet");
    let body = "<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>";
    let answer = server.call("PUT", "/versioned?versioning", &[], body.as_bytes())?;
    answer.success().context("versioning")?;
    let words = store.describe().await?;
    ensure!(
        words.len() == 1 && words.iter().all(|text| text.contains("enabled")),
        "{words:?}"
    );
    Ok(())
}

#[tokio::test]
async fn a_missing_bucket_and_a_wrong_secret_are_told_in_words() -> Result<()> {
    let server = Rgw::shared()?.s3();
    let known = member(server, "known", KeyMode::Plain)?;
    known.probe().await?;
    let with = |bucket: &str, secret_key: &str| {
        S3Store::new(S3Options {
            endpoint: Some(server.endpoint.clone()),
            credentials: CredentialSource::Given {
                access_key: server.access_key.clone(),
                secret_key: secret_key.to_owned(),
                session_token: None,
            },
            ..S3Options::new("member", bucket)
        })
    };
    let error = with("unknown", &server.secret_key)?.probe().await;
    let words = error.expect_err("no bucket").to_string();
    ensure!(words.contains("bucket does not exist"), "{words}");
    let error = with("known", "wrong")?.probe().await;
    let words = error.expect_err("no right").to_string();
    ensure!(
        words.contains(&server.access_key) && !words.contains("wrong"),
        "{words}"
    );
    Ok(())
}
