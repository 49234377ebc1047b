//! Leftovers that may have been objects: which are put aside, and for how long.
//!
//! Not those that are torn (see `recovery`). Invariant: the index loses commits here as it does by a
//! damaged log or an old copy, and no whole file is lost with them.

use std::time::{Duration, UNIX_EPOCH};

use super::super::aside::{Limits, clear};
use super::super::folder::Folder;
use super::uploads::{begin, part};
use super::*;
use crate::condition::WriteCondition;
use crate::meta::Tags;
use crate::store::ReservedWrite;

const DAY_MS: u64 = 24 * 60 * 60 * 1000;

/// What of the index is on the disk.
struct Copy(Vec<(PathBuf, Vec<u8>)>);

impl Copy {
    fn take(folder: &Path) -> Self {
        let paths = ["index.sqlite", "index.sqlite-wal"].map(|name| folder.join(name));
        Self(
            paths
                .map(|at| (at.clone(), std::fs::read(at).expect("read")))
                .into(),
        )
    }

    /// The commits since then are lost.
    fn put_back(&self) {
        for (at, bytes) in &self.0 {
            std::fs::write(at, bytes).expect("written");
        }
    }
}

fn aside(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder.join("set-aside")) else {
        return Vec::new();
    };
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("a file").path()).collect();
    files.sort();
    files
}

/// As an operator brings files back: each into the folder that its last two digits name.
fn bring_back(folder: &Path) {
    for file in aside(folder) {
        let name = file.file_name().expect("a name").to_str().expect("digits");
        let target = folder.join("data").join(&name[14..]).join(name);
        std::fs::rename(&file, target).expect("moved");
    }
}

#[tokio::test]
async fn objects_that_the_index_lost_are_put_aside_and_can_be_brought_back() {
    let (folder, store) = fresh();
    store.put_bytes(&key("known"), "known").await.expect("put");
    let early = begin(&store, "early").await;
    let copy = Copy::take(folder.path());
    store.put_bytes(&key("lost"), "lost").await.expect("put");
    let tags = Tags::from([("t".to_owned(), "v".to_owned())]);
    store.set_tags(&key("lost"), tags).await.expect("tags");
    store
        .set_tags(&key("known"), Tags::new())
        .await
        .expect("tags");
    part(&store, "early", &early, 1, bytes(10, 1)).await;
    let late = begin(&store, "late").await;
    part(&store, "late", &late, 1, bytes(10, 1)).await;
    let write = store.write_reserved("marker", Bytes::from_static(b"m"), ReservedWrite::Always);
    assert!(write.await.expect("written"));
    drop(store);
    copy.put_back();
    let store = open(folder.path());
    assert_eq!(read(&store, "known").await.as_deref(), Some(&b"known"[..]));
    assert_eq!(read(&store, "lost").await, None);
    assert_eq!(files(folder.path()).len(), 2);
    assert_eq!(aside(folder.path()).len(), 7);
    drop(store);
    bring_back(folder.path());
    std::fs::remove_file(folder.path().join("index.sqlite")).expect("removed");
    let store = open(folder.path());
    assert_eq!(aside(folder.path()).len(), 0);
    assert_eq!(read(&store, "lost").await.as_deref(), Some(&b"lost"[..]));
    let lost = store.head(&key("lost")).await.expect("head");
    assert_eq!(lost.tags.len(), 1);
    for (name, upload) in [("early", &early), ("late", &late)] {
        let parts = store.list_parts(&key(name), upload, 0, 9).await;
        assert_eq!(parts.expect("parts").parts.len(), 1, "{name}");
    }
    let marker = store.read_reserved("marker").await.expect("read");
    assert_eq!(marker.as_deref(), Some(&b"m"[..]));
}

/// Every file there is, to be put back after it was removed.
fn keep(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let read = |file: PathBuf| (file.clone(), std::fs::read(file).expect("read"));
    files(folder).into_iter().map(read).collect()
}

async fn delete(store: &FsStore, name: &str) {
    let name = key(name);
    let deleted = store.delete(&name, WriteCondition::Always).await;
    assert!(deleted.expect("deleted"));
}

#[tokio::test]
async fn what_was_replaced_is_removed_and_what_was_deleted_is_put_aside() {
    let (folder, store) = fresh();
    let first = Tags::from([("t".to_owned(), "1".to_owned())]);
    let write = || store.write_reserved("marker", Bytes::new(), ReservedWrite::Always);
    store.put_bytes(&key("replaced"), "old").await.expect("put");
    store.put_bytes(&key("tagged"), "kept").await.expect("put");
    store.set_tags(&key("tagged"), first).await.expect("tags");
    let upload = begin(&store, "upload").await;
    part(&store, "upload", &upload, 1, bytes(10, 1)).await;
    assert!(write().await.expect("written"));
    store.put_bytes(&key("deleted"), "gone").await.expect("put");
    let kept = keep(folder.path());
    store.put_bytes(&key("replaced"), "new").await.expect("put");
    store
        .set_tags(&key("tagged"), Tags::new())
        .await
        .expect("tags");
    part(&store, "upload", &upload, 1, bytes(10, 2)).await;
    assert!(write().await.expect("written"));
    delete(&store, "deleted").await;
    drop(store);
    // As if the process had been killed before a file was removed.
    for (file, bytes) in kept {
        std::fs::write(file, bytes).expect("written");
    }
    let store = open(folder.path());
    assert_eq!(read(&store, "replaced").await.as_deref(), Some(&b"new"[..]));
    assert_eq!(read(&store, "deleted").await, None);
    assert_eq!(files(folder.path()).len(), 6);
    let aside = aside(folder.path());
    assert_eq!(aside.len(), 1, "{aside:?}");
    let bytes = std::fs::read(&aside[0]).expect("read");
    assert!(bytes.starts_with(b"gone"));
}

/// Puts files aside that were moved there `days` ago each.
fn lay_aside(folder: &Path, days: &[u64]) {
    std::fs::create_dir_all(folder.join("set-aside")).expect("made");
    for (number, days) in days.iter().enumerate() {
        let at = folder.join("set-aside").join(format!("{number:016x}"));
        std::fs::write(&at, vec![0; 100]).expect("written");
        let now = breccia_net::clock::unix_ms();
        let since = UNIX_EPOCH + Duration::from_millis(now - days * DAY_MS);
        let file = std::fs::File::open(&at).expect("open");
        file.set_modified(since).expect("its time is set");
    }
}

fn numbers(folder: &Path) -> Vec<u64> {
    let number = |file: &PathBuf| {
        let name = file.file_name().expect("a name").to_str().expect("digits");
        u64::from_str_radix(name, 16).expect("a number")
    };
    aside(folder).iter().map(number).collect()
}

#[tokio::test]
async fn what_lies_aside_goes_after_a_week_at_a_start_and_by_maintenance() {
    let (folder, store) = fresh();
    lay_aside(folder.path(), &[8, 6, 0]);
    let notes = folder.path().join("set-aside").join("notes.txt");
    std::fs::write(&notes, "not ours").expect("written");
    assert_eq!(store.maintain(0).await.expect("maintained").leftovers, 1);
    assert!(notes.exists());
    std::fs::remove_file(notes).expect("removed");
    assert_eq!(numbers(folder.path()), [1, 2]);
    drop(store);
    lay_aside(folder.path(), &[0, 8, 6]);
    open(folder.path());
    assert_eq!(numbers(folder.path()), [0, 2]);
}

#[test]
fn the_oldest_goes_first_if_too_much_lies_aside() {
    let check = |files: usize, bytes: u64, left: &[u64]| {
        let place = tempfile::tempdir().expect("a folder");
        let folder = Folder::open("disk", place.path()).expect("a folder");
        lay_aside(place.path(), &[1, 3, 0, 2]);
        let now = breccia_net::clock::unix_ms();
        let gone = clear(&folder, now, Limits { files, bytes });
        assert_eq!(numbers(place.path()), left, "{files} files, {bytes} bytes");
        assert_eq!(gone, 4 - left.len() as u64);
    };
    check(4, 400, &[0, 1, 2, 3]);
    check(3, 400, &[0, 2, 3]);
    check(4, 250, &[0, 2]);
    check(0, 400, &[]);
}

#[tokio::test]
async fn moving_aside_counts_from_the_move_and_keeps_the_number_taken() {
    let (folder, store) = fresh();
    store.put_bytes(&key("o"), "gone").await.expect("put");
    let (file, bytes) = keep(folder.path()).pop().expect("a file");
    delete(&store, "o").await;
    drop(store);
    std::fs::write(&file, bytes).expect("written");
    let handle = std::fs::File::open(&file).expect("open");
    handle.set_modified(UNIX_EPOCH).expect("its time is set");
    drop(open(folder.path()));
    // Written long ago, moved just now: a second start leaves it there.
    drop(open(folder.path()));
    let number = numbers(folder.path());
    assert_eq!(number.len(), 1);
    FsStore::rebuild(&options(folder.path())).expect("made anew");
    let store = open(folder.path());
    assert!(store.inner.generation().await.expect("a number") > number[0]);
}
