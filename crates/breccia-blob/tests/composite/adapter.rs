//! `object_store`'s own checks, over a composite of three shards.
//!
//! Not those of its `MultipartStore`, which the adapter does not offer. Invariant: who knows
//! `object_store` finds nothing unusual.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use anyhow::Result;
use breccia_blob::BlobStore;
use breccia_blob::condition::WriteCondition;
use breccia_blob::object_store_adapter::ObjectStoreAdapter;
use breccia_blob::store::{BlobStoreExt, PutOptions};
use breccia_blob::{Body, ShardedBlob};
use futures_util::TryStreamExt;
use object_store::path::Path;
use object_store::{Attribute, Error, ObjectStore, ObjectStoreExt, integration};

use crate::shared::{key, memories, sharded};

fn adapter() -> (Arc<ShardedBlob>, ObjectStoreAdapter) {
    let memories = memories(&["a", "b", "c"]);
    // Small pages, so that every listing goes on.
    for memory in &memories {
        memory.page.store(2, Ordering::SeqCst);
    }
    let store = sharded(&memories);
    let adapter = ObjectStoreAdapter::new(Arc::clone(&store) as Arc<dyn BlobStore>);
    (store, adapter)
}

#[tokio::test]
async fn the_checks_of_object_store_pass() {
    let (_, store) = adapter();
    integration::put_get_delete_list(&store).await;
    integration::put_get_attributes(&store).await;
    store.delete(&Path::from("attributes")).await.unwrap();
    integration::get_opts(&store).await;
    store.delete(&Path::from("test")).await.unwrap();
    integration::put_opts(&store, true).await;
    integration::list_uses_directories_correctly(&store).await;
    integration::list_with_delimiter(&store).await;
    integration::rename_and_copy(&store).await;
    integration::copy_if_not_exists(&store).await;
    integration::copy_rename_nonexistent_object(&store).await;
    integration::list_with_offset_exclusivity(&store).await;
    let missing = integration::get_nonexistent_object(&store, None).await;
    assert!(matches!(missing, Err(Error::NotFound { .. })));
}

#[tokio::test]
async fn the_multipart_checks_of_object_store_pass() {
    let (_, store) = adapter();
    integration::stream_get(&store).await;
    integration::multipart_race_condition(&store, true).await;
    integration::multipart_out_of_order(&store).await;
}

#[tokio::test]
async fn parts_of_any_size_make_the_object_of_their_order() -> Result<()> {
    let (store, adapter) = adapter();
    let mut expected = Vec::new();
    let mut upload = adapter.put_multipart(&Path::from("parts")).await?;
    for size in [1, 3 << 20, 3 << 20, 0, 9 << 20, 7, 5 << 20, 2] {
        let part = vec![u8::try_from(expected.len() % 251)?; size];
        expected.extend_from_slice(&part);
        upload.put_part(part.into()).await?;
    }
    upload.complete().await?;
    let (meta, bytes) = store.get_bytes(&key("parts")).await?;
    assert!(bytes == expected, "the bytes are those of the parts");
    assert_eq!(meta.parts.len(), 4);
    Ok(())
}

#[tokio::test]
async fn renaming_an_object_to_itself_keeps_it() -> Result<()> {
    let (store, adapter) = adapter();
    let path = Path::from("self");
    adapter.put(&path, "x".into()).await?;
    adapter.rename(&path, &path).await?;
    let again = adapter.rename_if_not_exists(&path, &path).await;
    assert!(
        matches!(again, Err(Error::AlreadyExists { .. })),
        "{again:?}"
    );
    assert_eq!(store.get_bytes(&key("self")).await?.1, "x");
    Ok(())
}

#[tokio::test]
async fn what_a_path_cannot_name_is_an_error_and_never_another_path() -> Result<()> {
    let (store, adapter) = adapter();
    for name in ["a/", "a//b", "/a"] {
        store.put_bytes(&key(name), "x").await?;
        let listed: Result<Vec<_>, _> = adapter.list(None).try_collect().await;
        let error = listed.expect_err("it is no path").to_string();
        assert!(error.contains(name), "{error}");
        store.delete(&key(name), WriteCondition::Always).await?;
    }
    store
        .put(&key("ok"), Body::from_bytes("x"), PutOptions::default())
        .await?;
    let listed: Vec<_> = adapter.list(None).try_collect().await?;
    assert_eq!(listed.len(), 1);
    let attributes = [(Attribute::StorageClass, "COLD")];
    let attributes = object_store::Attributes::from_iter(attributes);
    let refused = adapter
        .put_opts(&Path::from("x"), "x".into(), attributes.into())
        .await;
    assert!(
        matches!(refused, Err(Error::NotSupported { .. })),
        "{refused:?}"
    );
    Ok(())
}
