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
use breccia_blob::gcs::{GcsCredential, GcsOptions, GcsStore};
use breccia_blob::key::Key;
use breccia_blob::key_names::KeyMode;
use breccia_blob::listing::{ListRequest, MAX_PAGE};
use breccia_blob::meta::Tags;
use breccia_blob::store::{BlobStore, BlobStoreExt, CopyOptions, PutOptions};
use breccia_blob::upload::{CompleteOptions, MIN_PART_BYTES, PartChoice, UploadOptions};
use breccia_testkit::conformance::blob_conformance;
use breccia_testkit::{Azurite, GcsStub};
use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

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

/// A bucket of its own on a stub.
fn gcs(stub: &GcsStub, bucket: &str, mode: KeyMode) -> Result<GcsStore> {
    stub.create_bucket(bucket);
    let options = GcsOptions {
        endpoint: stub.endpoint(),
        key_prefix: "some/prefix-".to_owned(),
        keys: mode,
        timeout: Duration::from_secs(20),
        ..GcsOptions::new("member", bucket, GcsCredential::Anonymous)
    };
    Ok(GcsStore::open(options)?)
}

#[tokio::test]
async fn the_stub_of_gcs_conforms_with_plain_and_encoded_keys() -> Result<()> {
    let stub = GcsStub::start()?;
    for (bucket, mode) in [("plain", KeyMode::Plain), ("encoded", KeyMode::Encoded)] {
        let store: Arc<dyn BlobStore> = Arc::new(gcs(&stub, bucket, mode)?);
        blob_conformance(&store).await.context(bucket)?;
    }
    Ok(())
}

#[tokio::test]
async fn every_conditional_call_is_offered() -> Result<()> {
    let stub = GcsStub::start()?;
    let stores: [Box<dyn BlobStore>; 2] = [
        Box::new(azure("probed", KeyMode::Plain)?),
        Box::new(gcs(&stub, "probed", KeyMode::Plain)?),
    ];
    for store in stores {
        let name = store.kind().name();
        ensure!(store.conditional() == ConditionalSupport::all(Support::Unprobed));
        let options = PutOptions {
            condition: WriteCondition::IfAbsent,
            ..PutOptions::default()
        };
        let early = store.put(&key("a")?, Body::from_bytes("x"), options).await;
        ensure!(
            matches!(early, Err(BlobError::ConditionUnprobed { .. })),
            "{name}: {early:?}"
        );
        let found = store.probe_conditional().await.context(name)?;
        for call in ConditionalCall::ALL {
            ensure!(found.of(*call) == Support::Yes, "{name}: {}", call.name());
        }
        let page = store.list(everything(None)).await?;
        ensure!(page.items.is_empty(), "{name}: cleaned up, but: {page:?}");
    }
    Ok(())
}

fn everything(after: Option<Bytes>) -> ListRequest {
    ListRequest {
        after,
        limit: MAX_PAGE,
        ..ListRequest::default()
    }
}

#[tokio::test]
async fn five_thousand_keys_are_listed_in_pages() -> Result<()> {
    const KEYS: usize = 5000;
    let store = Arc::new(azure("many", KeyMode::Plain)?);
    let names = (0..KEYS).map(|number| format!("{}/{number:05}", number % 7));
    let mut expected: Vec<String> = names.collect();
    stream::iter(expected.clone())
        .map(|name| {
            let store = Arc::clone(&store);
            async move { anyhow::Ok(store.put_bytes(&key(&name)?, "x").await.map(drop)?) }
        })
        .buffer_unordered(16)
        .try_collect::<()>()
        .await?;
    expected.sort_unstable();
    let mut found = Vec::new();
    let mut after = None;
    loop {
        let page = store.list(everything(after)).await?;
        let names = page.items.iter().map(|item| item.name().to_vec());
        found.extend(names.filter_map(|name| String::from_utf8(name).ok()));
        if !page.more {
            break;
        }
        after = page
            .items
            .last()
            .map(|item| Bytes::copy_from_slice(item.name()));
    }
    ensure!(found == expected, "{} of {KEYS} keys", found.len());
    let rolled_up = ListRequest {
        delimiter: Some(Bytes::from_static(b"/")),
        ..everything(None)
    };
    let page = store.list(rolled_up).await?;
    ensure!(page.items.len() == 7 && !page.more, "{page:?}");
    Ok(())
}

#[tokio::test]
async fn two_uploads_of_one_key_at_once_both_complete() -> Result<()> {
    let store = azure("uploads", KeyMode::Plain)?;
    let key = key("both")?;
    let first = store.create_upload(&key, UploadOptions::default()).await?;
    let second = store.create_upload(&key, UploadOptions::default()).await?;
    let large = usize::try_from(MIN_PART_BYTES)?;
    let mut choices = [Vec::new(), Vec::new()];
    for number in 1..=2_u16 {
        for (place, upload) in [&first, &second].into_iter().enumerate() {
            let byte = u8::try_from(place)? * 16 + u8::try_from(number)?;
            let body = Body::from_bytes(vec![byte; large]);
            let part = store.put_part(&key, upload, number, body).await?;
            choices[place].push(PartChoice {
                number,
                etag: part.etag,
                checksum: None,
            });
        }
    }
    let [of_first, of_second] = choices;
    for (upload, parts, byte) in [(&second, of_second, 17_u8), (&first, of_first, 1)] {
        let options = CompleteOptions::default();
        store.complete_upload(&key, upload, parts, options).await?;
        let (meta, bytes) = store.get_bytes(&key).await?;
        ensure!(meta.etag.as_str().ends_with("-2") && meta.parts.len() == 2);
        ensure!(bytes.len() == 2 * large && bytes.first() == Some(&byte));
    }
    let left = store.maintain(0).await?;
    ensure!(left.uploads == 0 && left.leftovers == 0, "{left:?}");
    Ok(())
}

#[tokio::test]
async fn uploads_of_many_pages_are_listed_in_order_and_expire() -> Result<()> {
    // More than one page of names, which the service has by id and not by key.
    const UPLOADS: usize = 1_203;
    let stub = GcsStub::start()?;
    let store = gcs(&stub, "uploads", KeyMode::Plain)?;
    let mut expected = Vec::new();
    for number in 0..UPLOADS {
        let key = key(&format!("{:04}", number * 7 % UPLOADS))?;
        let id = store.create_upload(&key, UploadOptions::default()).await?;
        expected.push((key, id));
    }
    expected.sort();
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let page = store.list_uploads(Bytes::new(), after, 500).await?;
        let uploads = page.uploads.into_iter();
        found.extend(uploads.map(|upload| (upload.key, upload.id)));
        if !page.more {
            break;
        }
        after = found.last().cloned().map(|(key, id)| (key, Some(id)));
    }
    ensure!(found == expected, "{} of {UPLOADS} uploads", found.len());
    let (key, id) = expected.first().context("an upload")?;
    let part = Body::from_bytes(vec![1; 10]);
    store.put_part(key, id, 1, part).await?;
    let ended = store.maintain(u64::MAX).await?;
    ensure!(ended.uploads == UPLOADS as u64, "{ended:?}");
    let page = store.list_uploads(Bytes::new(), None, 500).await?;
    ensure!(page.uploads.is_empty() && !page.more, "{page:?}");
    Ok(())
}

#[tokio::test]
async fn many_parts_are_composed_in_levels() -> Result<()> {
    const PARTS: u16 = 40;
    let stub = GcsStub::start()?;
    let store = gcs(&stub, "levels", KeyMode::Plain)?;
    let key = key("levels")?;
    let upload = store.create_upload(&key, UploadOptions::default()).await?;
    let mut parts = Vec::new();
    let large = usize::try_from(MIN_PART_BYTES)?;
    for number in 1..=PARTS {
        let body = Body::from_bytes(vec![u8::try_from(number)?; large]);
        let part = store.put_part(&key, &upload, number, body).await?;
        parts.push(PartChoice {
            number,
            etag: part.etag,
            checksum: None,
        });
    }
    let options = CompleteOptions::default();
    let written = store.complete_upload(&key, &upload, parts, options).await?;
    let (meta, bytes) = store.get_bytes(&key).await?;
    ensure!(meta.etag == written.etag && meta.parts.len() == usize::from(PARTS));
    for number in 0..usize::from(PARTS) {
        ensure!(bytes.get(number * large) == Some(&u8::try_from(number + 1)?));
    }
    let composed = |request: &&String| request.contains("/compose?");
    ensure!(stub.requests().iter().filter(composed).count() == 3);
    let left = store.maintain(u64::MAX).await?;
    ensure!(left.uploads == 0 && left.leftovers == 0, "{left:?}");
    Ok(())
}

#[tokio::test]
async fn a_service_account_gets_tokens_and_new_ones_when_they_end() -> Result<()> {
    let stub = GcsStub::start()?;
    stub.create_bucket("account");
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("key.json");
    stub.service_account(&file)?;
    let options = |credential| GcsOptions {
        endpoint: stub.endpoint(),
        ..GcsOptions::new("member", "account", credential)
    };
    let nobody = GcsStore::open(options(GcsCredential::Anonymous))?;
    let refused = nobody.probe().await;
    ensure!(
        matches!(refused, Err(BlobError::Server { status: 401, .. })),
        "{refused:?}"
    );
    let store = GcsStore::open(options(GcsCredential::File(file)))?;
    store.put_bytes(&key("a")?, "x").await?;
    store.put_bytes(&key("b")?, vec![7; 1_000_000]).await?;
    stub.revoke_tokens();
    store.put_bytes(&key("c")?, "z").await?;
    ensure!(store.list(everything(None)).await?.items.len() == 3);
    let tokens = stub.requests();
    let tokens = tokens.iter().filter(|request| *request == "POST /token");
    ensure!(tokens.count() == 2, "one token until it ends");
    let missing = GcsCredential::File(folder.path().join("none"));
    ensure!(GcsStore::open(options(missing)).is_err());
    Ok(())
}

#[tokio::test]
async fn a_copy_in_several_calls_is_seen_at_its_end() -> Result<()> {
    let stub = GcsStub::start()?;
    let store = gcs(&stub, "copies", KeyMode::Plain)?;
    let (from, to) = (key("from")?, key("to")?);
    let written = store.put_bytes(&from, vec![3; 500_000]).await?;
    stub.set_rewrite_calls(3);
    let copied = store.copy(&from, &to, CopyOptions::default()).await?;
    ensure!(copied.etag == written.etag);
    ensure!(store.get_bytes(&to).await?.1.len() == 500_000);
    Ok(())
}

#[tokio::test]
async fn tags_set_at_once_change_nothing_else() -> Result<()> {
    let stub = GcsStub::start()?;
    let stores: [Arc<dyn BlobStore>; 2] = [
        Arc::new(azure("tags", KeyMode::Plain)?),
        Arc::new(gcs(&stub, "tags", KeyMode::Plain)?),
    ];
    for store in stores {
        let key = key("tagged")?;
        store.put_bytes(&key, "x").await?;
        let before = store.head(&key).await?;
        let mut tasks = tokio::task::JoinSet::new();
        for number in 0..4 {
            let (store, key) = (Arc::clone(&store), key.clone());
            let tags = Tags::from([("n".to_owned(), format!("{number}"))]);
            tasks.spawn(async move { store.set_tags(&key, tags).await });
        }
        for done in tasks.join_all().await {
            done?;
        }
        let after = store.head(&key).await?;
        ensure!(after.tags.len() == 1, "{after:?}");
        ensure!(
            (&after.etag, after.modified_ms) == (&before.etag, before.modified_ms),
            "{after:?}"
        );
    }
    Ok(())
}
