//! The composite over stores of kinds that are real: folders and SQLite files.
//!
//! Not the kinds that need a server. Invariant: what holds over stores in memory holds here.

use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use breccia_blob::bucket::{Confirmed, Deleted};
use breccia_blob::buckets::Buckets;
use breccia_blob::condition::WriteCondition;
use breccia_blob::fs::{FsOptions, FsStore};
use breccia_blob::object_store_adapter::ObjectStoreAdapter;
use breccia_blob::sharded::Member;
use breccia_blob::sql::{SqlOptions, SqlStore, SqliteOptions};
use breccia_blob::store::BlobStoreExt;
use breccia_blob::{
    BlobError, BlobStore, BucketName, BucketStore, ShardedBlob, ShardedBlobOptions,
};
use breccia_net::layout_store::LayoutStore;
use breccia_testkit::conformance::blob_conformance;
use object_store::integration;

use crate::shared::{everything, key};

fn folder(name: &str, path: &Path) -> Result<Member> {
    let options = FsOptions {
        name: name.to_owned(),
        path: path.to_path_buf(),
    };
    Ok(Member::from(FsStore::open(&options)?))
}

fn file(name: &str, path: &Path) -> Result<Member> {
    let file = SqliteOptions {
        path: path.to_path_buf(),
    };
    Ok(Member::from(Arc::new(SqlStore::open_sqlite(
        SqlOptions::new(name),
        &file,
    )?)))
}

/// Two folders and a file, the folders under these names.
fn mixed(place: &Path, names: [&str; 2]) -> Result<Vec<Member>> {
    Ok(vec![
        folder("a", &place.join(names[0]))?,
        folder("b", &place.join(names[1]))?,
        file("c", &place.join("c.sqlite"))?,
    ])
}

async fn open(state: &Path, members: Vec<Member>) -> Result<ShardedBlob> {
    let layouts = Arc::new(LayoutStore::open(state)?);
    Ok(ShardedBlob::open(&layouts, ShardedBlobOptions::new("all"), members).await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_composite_of_folders_and_a_file_conforms() -> Result<()> {
    let place = tempfile::tempdir()?;
    let store = open(
        &place.path().join("state"),
        mixed(place.path(), ["a", "b"])?,
    )
    .await?;
    let store: Arc<dyn BlobStore> = Arc::new(store);
    blob_conformance(&store).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_checks_of_object_store_pass_over_folders() -> Result<()> {
    let place = tempfile::tempdir()?;
    let path = |name: &str| place.path().join(name);
    let members = ["a", "b", "c"].map(|name| folder(name, &path(name)));
    let members: Result<Vec<Member>> = members.into_iter().collect();
    let store = open(&path("state"), members?).await?;
    let store = ObjectStoreAdapter::new(Arc::new(store));
    integration::put_get_delete_list(&store).await;
    integration::put_opts(&store, true).await;
    integration::list_with_delimiter(&store).await;
    integration::rename_and_copy(&store).await;
    integration::copy_if_not_exists(&store).await;
    integration::stream_get(&store).await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn members_are_known_again_after_a_restart_and_swapped_ones_refused() -> Result<()> {
    let place = tempfile::tempdir()?;
    let (state, path) = (place.path().join("state"), place.path());
    let store = open(&state, mixed(path, ["a", "b"])?).await?;
    for number in 0..60 {
        store.put_bytes(&key(format!("k{number}")), "x").await?;
    }
    drop(store);
    let store = open(&state, mixed(path, ["a", "b"])?).await?;
    assert_eq!(store.list(everything(100)).await?.items.len(), 60);
    let digest = store.layout().digest();
    drop(store);
    let swapped = open(&state, mixed(path, ["b", "a"])?).await;
    let error = swapped.expect_err("the folders are swapped").to_string();
    assert!(error.contains("put the addresses back"), "{error}");
    // Also by who knows no addresses.
    let fresh = path.join("fresh");
    let swapped = open(&fresh, mixed(path, ["b", "a"])?).await;
    let error = swapped.expect_err("the folders are swapped").to_string();
    assert!(error.contains("it is shard 'b'"), "{error}");
    let fresh = path.join("fresher");
    let mut reversed = mixed(path, ["a", "b"])?;
    reversed.reverse();
    let store = open(&fresh, reversed).await?;
    assert_eq!(store.layout().digest(), digest);
    drop(store);
    // An empty folder where the disk should be.
    let error = open(&state, mixed(path, ["a", "unmounted"])?).await;
    let error = error.expect_err("nothing is mounted there").to_string();
    assert!(error.contains("had a marker and has none now"), "{error}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delete_of_a_bucket_that_races_a_write_orphans_nothing() -> Result<()> {
    let place = tempfile::tempdir()?;
    let store = open(
        &place.path().join("state"),
        mixed(place.path(), ["a", "b"])?,
    )
    .await?;
    let store: Arc<dyn BlobStore> = Arc::new(store);
    let (one, two) = (
        Buckets::new(Arc::clone(&store)),
        Buckets::new(Arc::clone(&store)),
    );
    for round in 0..60 {
        let bucket = BucketName::new(&format!("bucket-{round}")).expect("a name");
        let object = key(format!("{bucket}/object"));
        one.create(&bucket, None).await?;
        let writer = async {
            store.put_bytes(&object, "x").await?;
            let confirmed = two.confirm_write(&bucket).await?;
            if confirmed == Confirmed::Gone {
                store.delete(&object, WriteCondition::Always).await?;
            }
            Ok::<_, BlobError>(confirmed)
        };
        let remover = async {
            tokio::time::sleep(std::time::Duration::from_micros(round * 100)).await;
            one.delete(&bucket).await
        };
        let (written, deleted) = tokio::join!(writer, remover);
        let written = written? == Confirmed::Alive;
        assert_ne!(written, deleted? == Deleted::Removed, "one of them wins");
        assert_eq!(store.head(&object).await.is_ok(), written);
        store.delete(&object, WriteCondition::Always).await?;
    }
    Ok(())
}
