//! Buckets that clients make: several gateways over the same stores.
//!
//! Not the wire. Invariant: no acknowledged object lies in a bucket that is gone.

use std::sync::Arc;

use anyhow::Result;
use breccia_blob::bucket::{Confirmed, Created, Deleted};
use breccia_blob::buckets::Buckets;
use breccia_blob::condition::WriteCondition;
use breccia_blob::store::{BlobStoreExt, ReservedWrite};
use breccia_blob::upload::UploadOptions;
use breccia_blob::{BlobError, BlobStore, BucketName, BucketStore, ShardedBlob};
use breccia_core::error::Effect;
use breccia_net::clock;

use crate::memory::Memory;
use crate::shared::{everything, key, memories, sharded, text};

fn name(name: &str) -> BucketName {
    BucketName::new(name).expect("a name")
}

struct Gateways {
    memories: Vec<Arc<Memory>>,
    store: Arc<ShardedBlob>,
    one: Arc<Buckets>,
    two: Arc<Buckets>,
}

fn gateways() -> Gateways {
    let memories = memories(&["a", "b", "c"]);
    let store = sharded(&memories);
    let buckets =
        |store: &Arc<ShardedBlob>| Arc::new(Buckets::new(Arc::clone(store) as Arc<dyn BlobStore>));
    Gateways {
        one: buckets(&store),
        two: buckets(&sharded(&memories)),
        memories,
        store,
    }
}

impl Gateways {
    /// The shard that a bucket's home record lies on.
    fn home(&self, name: &BucketName) -> &Arc<Memory> {
        let record = format!("bucket/{name}");
        let shard = self.store.layout().place(record.as_bytes()).shard;
        let memory = self.memories.get(shard.as_usize());
        memory.expect("a layout places on its shards")
    }

    fn bucket_records(&self) -> usize {
        let names = self
            .memories
            .iter()
            .flat_map(|memory| memory.reserved_names());
        names.filter(|name| name.starts_with("bucket")).count()
    }
}

#[tokio::test]
async fn a_bucket_is_made_once_and_seen_by_all() -> Result<()> {
    let all = gateways();
    let bucket = name("photos");
    assert_eq!(all.two.look_up(&bucket).await?, None);
    let made = all.one.create(&bucket, Some("alice")).await?;
    let Created::New(record) = made else {
        panic!("it is new: {made:?}");
    };
    let again = all.two.create(&bucket, Some("bob")).await?;
    assert_eq!(again, Created::Existed(record.clone()));
    assert_eq!(all.two.look_up(&bucket).await?, Some(record.clone()));
    all.two.create(&name("abc"), None).await?;
    let names: Vec<String> = all
        .one
        .list()
        .await?
        .iter()
        .map(|r| r.name.to_string())
        .collect();
    assert_eq!(names, ["abc", "photos"]);
    assert_eq!(
        all.bucket_records(),
        2 * 4,
        "a home record and a copy on each leaf"
    );
    assert!(all.store.list(everything(9)).await?.items.is_empty());
    assert_eq!(all.one.confirm_write(&bucket).await?, Confirmed::Alive);

    assert_eq!(all.two.delete(&bucket).await?, Deleted::Removed);
    assert_eq!(all.two.delete(&bucket).await?, Deleted::Missing);
    assert_eq!(all.two.look_up(&bucket).await?, None);
    assert_eq!(all.one.confirm_write(&bucket).await?, Confirmed::Gone);
    assert_eq!(all.bucket_records(), 4);
    Ok(())
}

#[tokio::test]
async fn a_bucket_with_objects_stays_and_one_with_uploads_goes() -> Result<()> {
    let all = gateways();
    let bucket = name("photos");
    all.one.create(&bucket, None).await?;
    all.store.put_bytes(&key("photos/a"), "x").await?;
    assert_eq!(all.one.delete(&bucket).await?, Deleted::NotEmpty);
    assert_eq!(all.two.confirm_write(&bucket).await?, Confirmed::Alive);
    all.store
        .delete(&key("photos/a"), WriteCondition::Always)
        .await?;
    // One whose name begins the same is another.
    all.store.put_bytes(&key("photos2/a"), "x").await?;
    for number in 0..5 {
        let name = key(format!("photos/{number}"));
        all.store
            .create_upload(&name, UploadOptions::default())
            .await?;
    }
    assert_eq!(all.one.delete(&bucket).await?, Deleted::Removed);
    let left = all.store.list_uploads(bytes::Bytes::new(), None, 9).await?;
    assert!(left.uploads.is_empty());
    assert_eq!(all.bucket_records(), 0);
    Ok(())
}

#[tokio::test]
async fn any_copy_answers_while_the_home_shard_is_down() -> Result<()> {
    let all = gateways();
    let bucket = name("photos");
    all.one.create(&bucket, Some("alice")).await?;
    all.home(&bucket).set_down(true);
    let found = all.two.look_up(&bucket).await?.expect("a copy answers");
    assert_eq!(found.owner.as_deref(), Some("alice"));
    assert_eq!(all.two.list().await?, [found]);
    let error = all
        .two
        .confirm_write(&bucket)
        .await
        .expect_err("its home is down");
    assert_eq!(error.effect(), Effect::Unknown);
    let deleted = all.two.delete(&bucket).await;
    assert!(
        matches!(deleted, Err(BlobError::Down { .. })),
        "{deleted:?}"
    );
    let missing = all.two.look_up(&name("other")).await;
    let on_the_same = all.home(&name("other")).name() == all.home(&bucket).name();
    assert_eq!(
        missing.is_err(),
        on_the_same,
        "what nobody knows is not said to be missing"
    );
    all.home(&bucket).set_down(false);
    assert_eq!(all.two.delete(&bucket).await?, Deleted::Removed);
    Ok(())
}

#[tokio::test]
async fn a_bucket_is_not_deleted_while_any_shard_is_down() -> Result<()> {
    let all = gateways();
    let bucket = name("photos");
    all.one.create(&bucket, None).await?;
    for memory in &all.memories {
        memory.set_down(true);
        assert!(all.one.delete(&bucket).await.is_err());
        memory.set_down(false);
        assert_eq!(all.two.confirm_write(&bucket).await?, Confirmed::Alive);
        assert!(all.one.look_up(&bucket).await?.is_some());
    }
    Ok(())
}

#[tokio::test]
async fn a_delete_that_died_is_undone_when_it_is_stale() -> Result<()> {
    let all = gateways();
    let bucket = name("photos");
    all.one.create(&bucket, None).await?;
    let home = all.home(&bucket);
    let record = home
        .read_reserved("bucket/photos")
        .await?
        .expect("a record");
    let record = String::from_utf8(record.to_vec())?.replace("alive", "deleting");
    home.write_reserved("bucket/photos", text(&record), ReservedWrite::Always)
        .await?;
    let hold = async |age_ms: u64| {
        let since = clock::unix_ms() - age_ms;
        let holder = format!("{{\"nonce\":\"x\",\"since_ms\":{since}}}");
        let held = "bucket-delete/photos";
        all.store
            .write_reserved(held, text(&holder), ReservedWrite::Always)
            .await
    };
    hold(1000).await?;
    assert_eq!(all.two.look_up(&bucket).await?, None, "it is being deleted");
    let create = all.two.create(&bucket, None).await;
    assert!(matches!(create, Err(BlobError::Conflict { .. })));
    let delete = all.two.delete(&bucket).await;
    assert!(matches!(delete, Err(BlobError::Conflict { .. })));
    hold(600_000).await?;
    all.two.look_up(&bucket).await?;
    assert!(all.two.look_up(&bucket).await?.is_some(), "it is back");
    assert_eq!(all.one.delete(&bucket).await?, Deleted::Removed);
    assert_eq!(all.bucket_records(), 0);
    Ok(())
}

#[tokio::test]
async fn a_listing_gives_leaves_the_copies_that_they_missed() -> Result<()> {
    let all = gateways();
    let bucket = name("photos");
    let home = all.home(&bucket);
    let others = || {
        let memories = all.memories.iter();
        memories.filter(|memory| !Arc::ptr_eq(memory, home))
    };
    others().for_each(|memory| memory.set_down(true));
    all.one.create(&bucket, None).await?;
    others().for_each(|memory| memory.set_down(false));
    assert_eq!(all.two.list().await?.len(), 1);
    home.set_down(true);
    assert_eq!(all.two.list().await?.len(), 1, "the others know it now");
    home.set_down(false);
    assert_eq!(all.one.delete(&bucket).await?, Deleted::Removed);
    assert_eq!(all.bucket_records(), 0);
    Ok(())
}

#[tokio::test]
async fn copies_that_were_left_behind_are_no_bucket() -> Result<()> {
    let all = gateways();
    all.one.create(&name("abc"), None).await?;
    let home = all.home(&name("abc"));
    let record = home.read_reserved("bucket/abc").await?.expect("a record");
    let stray = all.memories[0].write_reserved("bucket-copy/old", record, ReservedWrite::Always);
    stray.await?;
    assert_eq!(all.one.list().await?.len(), 1);
    assert_eq!(all.one.look_up(&name("old")).await?, None);
    Ok(())
}

/// What the frontend does, as the trait's page says.
async fn write(buckets: &Buckets, store: &ShardedBlob, bucket: &BucketName, object: &str) -> bool {
    if buckets.look_up(bucket).await.expect("all is up").is_none() {
        return false;
    }
    let name = key(format!("{bucket}/{object}"));
    store.put_bytes(&name, "x").await.expect("all is up");
    match buckets.confirm_write(bucket).await.expect("all is up") {
        Confirmed::Alive => true,
        Confirmed::Gone => {
            store
                .delete(&name, WriteCondition::Always)
                .await
                .expect("all is up");
            false
        }
    }
}

/// Gives the other side a turn at another place each time.
async fn wait(turns: usize) {
    for _ in 0..turns {
        tokio::task::yield_now().await;
    }
}

async fn race(turns: (usize, usize), all: &Gateways, bucket: &BucketName) -> Result<(bool, bool)> {
    all.one.create(bucket, None).await?;
    all.two.look_up(bucket).await?;
    let writer = async {
        wait(turns.0).await;
        write(&all.two, &all.store, bucket, "object").await
    };
    let remover = async {
        wait(turns.1).await;
        all.one.delete(bucket).await
    };
    let (written, deleted) = tokio::join!(writer, remover);
    let deleted = deleted?;
    assert_ne!(deleted, Deleted::Missing);
    Ok((written, deleted == Deleted::Removed))
}

#[tokio::test]
async fn no_object_is_orphaned_by_a_delete_that_races_a_write() -> Result<()> {
    let all = gateways();
    let mut outcomes = std::collections::BTreeMap::new();
    for round in 0..800_usize {
        let bucket = name(&format!("bucket-{round}"));
        let (written, removed) = race((round % 40, round / 40), &all, &bucket).await?;
        *outcomes.entry((written, removed)).or_insert(0_u32) += 1;
        assert!(
            !(written && removed),
            "an acknowledged object has lost its bucket"
        );
        let object = key(format!("{bucket}/object"));
        let there = all.store.head(&object).await.is_ok();
        assert_eq!(there, written, "what is not acknowledged as gone is there");
        let bucket_there = all.one.look_up(&bucket).await?.is_some();
        assert_eq!(bucket_there, !removed);
        if there {
            all.store.delete(&object, WriteCondition::Always).await?;
        }
        if !removed {
            assert_eq!(all.two.delete(&bucket).await?, Deleted::Removed);
        }
    }
    assert_eq!(all.bucket_records(), 0);
    assert_eq!(outcomes.len(), 2, "each side wins at times: {outcomes:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_object_is_orphaned_where_gateways_run_in_parallel() -> Result<()> {
    let all = Arc::new(gateways());
    let bucket = name("shared");
    let mut tasks = Vec::new();
    for number in 0..4_usize {
        let (all, bucket) = (Arc::clone(&all), bucket.clone());
        tasks.push(tokio::spawn(async move {
            let buckets = if number % 2 == 0 { &all.one } else { &all.two };
            for round in 0..300 {
                if number < 2 {
                    // Nobody knows what it finds: there are other gateways.
                    let _ = buckets.create(&bucket, None).await;
                    wait(round % 7).await;
                    let _ = buckets.delete(&bucket).await;
                    continue;
                }
                let object = format!("{number}-{round}");
                if write(buckets, &all.store, &bucket, &object).await {
                    let there = buckets.confirm_write(&bucket).await.expect("all is up");
                    assert_eq!(there, Confirmed::Alive, "it holds an object");
                    let name = key(format!("{bucket}/{object}"));
                    let deleted = all.store.delete(&name, WriteCondition::Always).await;
                    assert!(deleted.expect("all is up"), "the object is there");
                }
            }
        }));
    }
    for task in tasks {
        task.await?;
    }
    all.one.delete(&bucket).await?;
    assert!(all.store.list(everything(9)).await?.items.is_empty());
    assert_eq!(all.bucket_records(), 0);
    Ok(())
}
