//! Tests of the store over a folder.
//!
//! Not the conformance suite, which every kind of store passes. Invariant: each test has a folder
//! of its own.

mod aside;
mod listing;
mod objects;
mod recovery;
mod uploads;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use tempfile::TempDir;

use super::{FsOptions, FsStore};
use crate::body::{ByteSource, NextChunk};
use crate::key::Key;
use crate::store::{BlobStore as _, BlobStoreExt as _, GetOptions, Span};

fn options(folder: &Path) -> FsOptions {
    FsOptions {
        name: "disk".to_owned(),
        path: folder.to_path_buf(),
    }
}

fn open(folder: &Path) -> Arc<FsStore> {
    FsStore::open(&options(folder)).expect("the store opens")
}

fn fresh() -> (TempDir, Arc<FsStore>) {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(folder.path());
    (folder, store)
}

fn key(name: impl AsRef<[u8]>) -> Key {
    Key::new(name.as_ref().to_vec()).expect("a key")
}

/// Bytes that differ from block to block.
fn bytes(size: usize, seed: usize) -> Bytes {
    (0..size)
        .map(|at| u8::try_from((at / 3 + at / 65_536 * 7 + seed * 31) % 251).expect("small"))
        .collect()
}

/// Every generation file, in order of its number.
fn files(folder: &Path) -> Vec<PathBuf> {
    let shards = std::fs::read_dir(folder.join("data")).expect("the data folder");
    let mut files: Vec<PathBuf> = shards
        .flat_map(|shard| std::fs::read_dir(shard.expect("a shard").path()).expect("it is read"))
        .map(|entry| entry.expect("a file").path())
        .collect();
    files.sort_by_key(|file| file.file_name().map(std::ffi::OsStr::to_owned));
    files
}

/// Waits until there are so many files: they are removed behind the answer.
async fn until_files(folder: &Path, count: usize) {
    for _ in 0..500 {
        if files(folder).len() == count {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("{} files, expected {count}", files(folder).len());
}

async fn read(store: &FsStore, name: &str) -> Option<Bytes> {
    match store.get_bytes(&key(name)).await {
        Ok((_, bytes)) => Some(bytes),
        Err(crate::BlobError::NotFound) => None,
        Err(error) => panic!("{name}: {error}"),
    }
}

async fn read_span(
    store: &FsStore,
    name: &str,
    span: Span,
) -> Result<(std::ops::Range<u64>, Vec<u8>), crate::BlobError> {
    let options = GetOptions {
        span: Some(span),
        ..GetOptions::default()
    };
    let mut opened = store.get(&key(name), options).await?;
    let mut found = Vec::new();
    while let Some(chunk) = opened.source.next().await {
        found.extend_from_slice(&chunk?);
    }
    Ok((opened.range, found))
}

/// Gives some bytes and then waits for ever.
struct Stuck(Option<Bytes>);

impl ByteSource for Stuck {
    fn next(&mut self) -> NextChunk<'_> {
        let chunk = self.0.take();
        Box::pin(async move {
            match chunk {
                Some(chunk) => Some(Ok(chunk)),
                None => std::future::pending().await,
            }
        })
    }
}
