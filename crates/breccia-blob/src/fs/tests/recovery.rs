//! Starts after crashes: leftovers, lost and damaged indexes, folders that cannot be used.
//!
//! Not power loss, which a test of this kind cannot cause. Invariant: what was acknowledged is there
//! after every start.

use super::uploads::{begin, choices, part};
use super::*;
use crate::body::Body;
use crate::condition::WriteCondition;
use crate::error::BlobError;
use crate::listing::ListRequest;
use crate::meta::{ObjectMeta, Tags};
use crate::store::{PutOptions, ReservedWrite};
use crate::upload::CompleteOptions;

fn refused(folder: &Path) -> String {
    match FsStore::open(&options(folder)) {
        Err(BlobError::Options { store, problem }) => {
            assert_eq!(store, "disk");
            problem
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_folder_that_cannot_be_used_is_named() {
    let (folder, store) = fresh();
    let problem = refused(folder.path());
    let path = folder.path().display().to_string();
    assert!(
        problem.contains(&path) && problem.contains("in use"),
        "{problem}"
    );
    drop(store);
    let file = folder.path().join("a file");
    std::fs::write(&file, "x").expect("written");
    let problem = refused(&file);
    assert!(
        problem.contains("a file") && problem.contains("`path`"),
        "{problem}"
    );
    open(folder.path());
}

#[tokio::test]
async fn torn_files_are_removed_at_the_start() {
    let (folder, store) = fresh();
    store.put_bytes(&key("o"), "kept").await.expect("put");
    drop(store);
    let file = files(folder.path()).pop().expect("a file");
    // Under a number that is not its own, it is nothing that we have written.
    std::fs::copy(&file, file.with_file_name(format!("{:016x}", 0x101))).expect("copied");
    std::fs::write(file.with_file_name(format!("{:016x}", 0x201)), "half").expect("written");
    std::fs::write(file.with_file_name("notes.txt"), "not ours").expect("written");
    let store = open(folder.path());
    assert_eq!(read(&store, "o").await.as_deref(), Some(&b"kept"[..]));
    assert_eq!(files(folder.path()).len(), 2);
    assert!(!folder.path().join("set-aside").exists());
    assert_eq!(
        store.list(everything()).await.expect("a page").items.len(),
        1
    );
}

fn everything() -> ListRequest {
    ListRequest {
        limit: 1000,
        ..ListRequest::default()
    }
}

type Contents = Vec<(ObjectMeta, Bytes)>;

async fn contents(store: &FsStore) -> Contents {
    let page = store.list(everything()).await.expect("a page");
    let mut contents = Vec::new();
    for item in page.items {
        let name = key(item.name());
        contents.push(store.get_bytes(&name).await.expect("get"));
    }
    contents
}

async fn fill(store: &FsStore) -> crate::upload::UploadId {
    let tags = |value: &str| Tags::from([("t".to_owned(), value.to_owned())]);
    for (seed, name) in ["a", "b", "b", "gone", "tagged", "b"]
        .into_iter()
        .enumerate()
    {
        let options = PutOptions {
            tags: tags("put"),
            ..PutOptions::default()
        };
        let body = Body::from_bytes(bytes(seed * 100_000, seed));
        store.put(&key(name), body, options).await.expect("put");
    }
    store
        .set_tags(&key("tagged"), tags("set"))
        .await
        .expect("tags");
    store
        .set_tags(&key("tagged"), tags("set again"))
        .await
        .expect("tags");
    store.set_tags(&key("b"), tags("old")).await.expect("tags");
    store.put_bytes(&key("b"), "newest").await.expect("put");
    assert!(
        store
            .delete(&key("gone"), WriteCondition::Always)
            .await
            .expect("deleted")
    );
    let reserved = Bytes::from_static(b"layout");
    for _ in 0..2 {
        let write = store.write_reserved("marker", reserved.clone(), ReservedWrite::Always);
        assert!(write.await.expect("written"));
    }
    let done = begin(store, "parts").await;
    let first = part(store, "parts", &done, 1, bytes(5 * 1024 * 1024, 1)).await;
    let second = part(store, "parts", &done, 3, bytes(10, 2)).await;
    let chosen = choices(&[&first, &second]);
    let (name, options) = (key("parts"), CompleteOptions::default());
    let complete = store.complete_upload(&name, &done, chosen, options);
    complete.await.expect("completed");
    let open = begin(store, "open").await;
    part(store, "open", &open, 1, bytes(10, 1)).await;
    part(store, "open", &open, 1, bytes(11, 2)).await;
    open
}

#[tokio::test]
async fn the_index_is_made_anew_from_the_files() {
    let (folder, store) = fresh();
    let upload = fill(&store).await;
    // Two objects, the tagged one and its tags, three of `parts`, a marker, an upload and its part.
    until_files(folder.path(), 10).await;
    let before = contents(&store).await;
    let parts = store
        .list_parts(&key("open"), &upload, 0, 9)
        .await
        .expect("parts")
        .parts;
    drop(store);
    for explicit in [false, true] {
        if explicit {
            FsStore::rebuild(&options(folder.path())).expect("made anew");
        } else {
            std::fs::remove_file(folder.path().join("index.sqlite")).expect("removed");
        }
        let store = open(folder.path());
        assert_eq!(files(folder.path()).len(), 10);
        assert!(contents(&store).await == before, "explicit: {explicit}");
        let marker = store.read_reserved("marker").await.expect("read");
        assert_eq!(marker.as_deref(), Some(&b"layout"[..]));
        let found = store
            .list_parts(&key("open"), &upload, 0, 9)
            .await
            .expect("parts");
        assert_eq!(found.parts, parts);
        let uploads = store
            .list_uploads(Bytes::new(), None, 9)
            .await
            .expect("uploads");
        assert_eq!(uploads.uploads.len(), 1);
        assert_eq!(uploads.uploads[0].id, upload);
    }
    // New numbers lie above the old ones.
    let store = open(folder.path());
    store.put_bytes(&key("b"), "after").await.expect("put");
    drop(store);
    std::fs::remove_file(folder.path().join("index.sqlite")).expect("removed");
    let store = open(folder.path());
    assert_eq!(read(&store, "b").await.as_deref(), Some(&b"after"[..]));
}

#[tokio::test]
async fn a_rebuild_puts_aside_what_it_cannot_read() {
    let (folder, store) = fresh();
    store.put_bytes(&key("good"), "good").await.expect("put");
    store.put_bytes(&key("bad"), "bad").await.expect("put");
    drop(store);
    let file = files(folder.path()).pop().expect("a file");
    let length = std::fs::metadata(&file).expect("metadata").len();
    let handle = std::fs::File::options()
        .write(true)
        .open(&file)
        .expect("open");
    handle.set_len(length - 1).expect("cut");
    let rebuilt = FsStore::rebuild(&options(folder.path())).expect("made anew");
    assert_eq!((rebuilt.files, rebuilt.damaged), (2, 1));
    let store = open(folder.path());
    assert_eq!(read(&store, "good").await.as_deref(), Some(&b"good"[..]));
    assert_eq!(read(&store, "bad").await, None);
    let aside = std::fs::read_dir(folder.path().join("damaged")).expect("the folder");
    assert_eq!(aside.count(), 1);
}

#[tokio::test]
async fn an_index_that_cannot_be_trusted_is_refused_and_nothing_removed() {
    let (folder, store) = fresh();
    store.put_bytes(&key("o"), "kept").await.expect("put");
    drop(store);
    let index = folder.path().join("index.sqlite");
    let good = std::fs::read(&index).expect("read");
    let mut flipped = good.clone();
    flipped[4096 + 7] ^= 0xff;
    flipped[4096] ^= 0xff;
    let mut newer = good.clone();
    newer[63] = 9;
    let cases = [
        (
            b"not an index at all, not in the least, no".repeat(200),
            "move",
        ),
        (Vec::new(), "there are files"),
        (flipped, "move"),
        (newer, "version 9"),
    ];
    for (bytes, expected) in cases {
        std::fs::write(&index, bytes).expect("written");
        let problem = refused(folder.path());
        assert!(problem.contains(expected), "{expected}: {problem}");
        assert!(problem.contains("index.sqlite"), "{problem}");
        assert_eq!(files(folder.path()).len(), 1);
    }
    std::fs::write(&index, &good).expect("written");
    let store = open(folder.path());
    for _ in 0..3 {
        store.put_bytes(&key("o"), "newer").await.expect("put");
    }
    drop(store);
    // An old copy of the index must not make newer files leftovers.
    std::fs::write(&index, &good).expect("written");
    let problem = refused(folder.path());
    assert!(problem.contains("older"), "{problem}");
    std::fs::remove_file(&index).expect("moved away");
    let store = open(folder.path());
    assert_eq!(read(&store, "o").await.as_deref(), Some(&b"newer"[..]));
}

#[tokio::test]
async fn numbers_of_files_are_reserved_as_they_are_used() {
    let (folder, store) = fresh();
    // More than one reservation, nearly all of them without a commit.
    for _ in 0..3 {
        for _ in 0..2000 {
            store.inner.generation().await.expect("a number");
        }
        store.put_bytes(&key("o"), "x").await.expect("put");
    }
    let mut last = 0;
    for _ in 0..9000 {
        let next = store.inner.generation().await.expect("a number");
        assert!(next > last);
        last = next;
    }
    drop(store);
    let store = open(folder.path());
    assert!(store.inner.generation().await.expect("a number") > last);
    assert_eq!(read(&store, "o").await.as_deref(), Some(&b"x"[..]));
}
