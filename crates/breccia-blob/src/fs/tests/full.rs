//! A disk that runs full.
//!
//! Run by hand, on a file system of some megabytes:
//! `mount -t tmpfs -o size=8m tmpfs DIR; BRECCIA_SMALL_DISK=DIR cargo test -p breccia-blob fs::tests::full -- --ignored`.
//! Invariant: what was acknowledged is there, what was refused is not, and deletes make room.

use super::*;
use crate::condition::WriteCondition;
use crate::error::BlobError;

async fn fill(store: &FsStore, size: usize) -> usize {
    for count in 0.. {
        let name = key(format!("{size}/{count}"));
        match store.put_bytes(&name, bytes(size, count)).await {
            Ok(_) => {}
            Err(BlobError::Full { .. }) => return count,
            Err(other) => panic!("{other}"),
        }
    }
    0
}

async fn check(store: &FsStore, size: usize, count: usize) {
    for at in 0..count {
        let found = read(store, &format!("{size}/{at}")).await;
        assert!(
            found.expect("acknowledged") == bytes(size, at),
            "{size}/{at}"
        );
    }
    assert_eq!(read(store, &format!("{size}/{count}")).await, None);
}

#[tokio::test]
#[ignore = "needs a small file system"]
async fn a_full_disk_refuses_writes_and_works_again_when_there_is_room() {
    let disk = std::env::var_os("BRECCIA_SMALL_DISK").expect("a small file system");
    let folder = PathBuf::from(disk).join("store");
    let store = open(&folder);
    let mut counts = Vec::new();
    for size in [1_000_000, 100_000, 1000, 1] {
        counts.push((size, fill(&store, size).await));
    }
    println!("{counts:?}");
    for (size, count) in counts.clone() {
        check(&store, size, count).await;
    }
    for (size, count) in counts {
        for at in 0..count {
            let name = key(format!("{size}/{at}"));
            let gone = store.delete(&name, WriteCondition::Always).await;
            assert!(gone.expect("a delete finds room"), "{name}");
        }
    }
    until_files(&folder, 0).await;
    let count = fill(&store, 1_000_000).await;
    println!("and {count} again");
    assert!(count > 2);
    drop(store);
    let store = open(&folder);
    check(&store, 1_000_000, count).await;
    drop(store);
    std::fs::remove_dir_all(&folder).expect("cleared");
}
