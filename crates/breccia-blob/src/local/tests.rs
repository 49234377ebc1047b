//! Tests of places that are not there yet.
//!
//! Not of a gateway over them: those are the binary's. Invariant: each place lies in a folder of its
//! test.

use std::path::Path;

use super::*;
use crate::listing::ListRequest;
use crate::store::{BlobStoreExt as _, ReservedWrite};

fn places(folder: &Path) -> [Place; 2] {
    let (name, path) = ("local".to_owned(), folder.join("fs"));
    let file = SqliteOptions {
        path: folder.join("file ?#%.sqlite"),
    };
    [
        Place::Fs(FsOptions { name, path }),
        Place::Sqlite(SqlOptions::new("local"), file),
    ]
}

#[tokio::test]
async fn nothing_is_made_before_the_first_marker_is_written() {
    let folder = tempfile::tempdir().unwrap();
    for place in places(folder.path()) {
        let store = LocalStore::open(place.clone()).unwrap();
        assert_eq!(store.read_reserved("marker/all").await.unwrap(), None);
        let names = store.list_reserved("marker/", None).await.unwrap();
        assert!(names.is_empty());
        let page = store.list(ListRequest::default()).await.unwrap();
        assert!(page.items.is_empty());
        store.probe().await.unwrap();
        let key = crate::Key::new("key").unwrap();
        let put = store.put_bytes(&key, "bytes").await;
        assert!(matches!(put, Err(BlobError::Down { .. })), "{put:?}");
        assert!(!place.path().exists(), "{place:?}");
        assert!(matches!(look(&place), Ok(Looked::Nothing)));
        let (text, how) = ("text".into(), ReservedWrite::IfAbsent);
        assert!(store.write_reserved("marker/all", text, how).await.unwrap());
        store.put_bytes(&key, "bytes").await.unwrap();
        drop(store);
        let Looked::Store(contents) = look(&place).unwrap() else {
            panic!("{place:?}");
        };
        let seen = LocalStore::seen(place, contents);
        let marker = seen.read_reserved("marker/all").await.unwrap();
        assert_eq!(marker.as_deref(), Some(b"text".as_slice()));
        let page = seen.list(ListRequest::default()).await.unwrap();
        assert_eq!(page.items.len(), 1);
        assert!(seen.put_bytes(&key, "more").await.is_err());
    }
}

#[tokio::test]
async fn a_folder_in_use_is_told_as_that() {
    let folder = tempfile::tempdir().unwrap();
    let [place, _] = places(folder.path());
    let store = LocalStore::open(place.clone()).unwrap();
    let how = ReservedWrite::Always;
    store
        .write_reserved("marker/all", "text".into(), how)
        .await
        .unwrap();
    assert!(matches!(look(&place), Ok(Looked::InUse(_))));
    let second = LocalStore::open(place);
    assert!(matches!(second, Err(BlobError::Options { .. })));
}

#[tokio::test]
async fn a_file_in_the_place_of_a_folder_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let [place, _] = places(folder.path());
    std::fs::write(place.path(), "a file").unwrap();
    let opened = LocalStore::open(place);
    assert!(matches!(opened, Err(BlobError::Options { .. })));
}
