//! The room that stores on this machine's disks have, for the metrics.
//!
//! Not what a full disk does to a request. Invariant: a disk that hangs holds back nothing but its
//! own numbers.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use breccia_blob::guarded::Guarded;
use breccia_config::StorePlan;
use breccia_net::metrics::{STORE_FREE_BYTES, STORE_SIZE_BYTES};

use super::Gateway;

/// Between two looks at a disk.
const EVERY: Duration = Duration::from_secs(5);

/// Looks at the disk of each store that lies on one, from now on.
pub(crate) fn watch_all(gateway: &Arc<Gateway>) {
    for (name, store) in &gateway.plan().stores {
        let path = match store {
            StorePlan::Fs(fs) => &fs.path,
            StorePlan::Sqlite(sqlite) => &sqlite.path,
            _ => continue,
        };
        if let Some(leaf) = gateway.blobs.leaf(name) {
            let watching = watch(Arc::clone(gateway), Arc::clone(leaf), path.clone());
            tokio::spawn(watching);
        }
    }
}

async fn watch(gateway: Arc<Gateway>, leaf: Arc<Guarded>, path: PathBuf) {
    let store = breccia_blob::BlobStore::name(&*leaf).to_owned();
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        // Else it may be the disk that the mount point itself lies on.
        if !leaf.is_ready() {
            continue;
        }
        let path = path.clone();
        let looked = tokio::task::spawn_blocking(move || space(&path)).await;
        // Asked again: it may have gone meanwhile.
        if let Ok(Ok(space)) = looked
            && leaf.is_ready()
        {
            // Made with the first number, so that nobody reads a disk without room.
            let gauge = |family| gateway.metrics.gauge(family, &[store.as_str()]);
            gauge(&STORE_FREE_BYTES).set(space.free);
            gauge(&STORE_SIZE_BYTES).set(space.size);
        }
    }
}

#[derive(Debug)]
struct Space {
    free: i64,
    size: i64,
}

/// The room on the file system of a path: free is what a user without special rights may take.
fn space(path: &Path) -> io::Result<Space> {
    let found = rustix::fs::statvfs(path)?;
    let bytes = |blocks: u64| i64::try_from(blocks.saturating_mul(found.f_frsize));
    Ok(Space {
        free: bytes(found.f_bavail).unwrap_or(i64::MAX),
        size: bytes(found.f_blocks).unwrap_or(i64::MAX),
    })
}
