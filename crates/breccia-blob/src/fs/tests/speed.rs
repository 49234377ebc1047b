//! How fast small objects are put and got: run by hand, with `--release` and `--ignored`.
//!
//! Not a judge: it prints. Invariant: it measures what it says, with every put synced.

use super::*;

const TASKS: usize = 32;
const STORES: usize = 3;
const SECONDS: u64 = 5;
/// Of each task; a multiple of the stores, so that a name lies always on the same one.
const NAMES: usize = 99;

async fn measure(what: &str, stores: &[Arc<FsStore>], put: bool) {
    let end = breccia_net::clock::now() + std::time::Duration::from_secs(SECONDS);
    let tasks: Vec<_> = (0..TASKS)
        .map(|task| {
            let stores = stores.to_vec();
            tokio::spawn(async move {
                let mut count = 0_usize;
                while breccia_net::clock::now() < end {
                    let store = &stores[(task + count) % STORES];
                    let name = key(format!("{task}/{}", count % NAMES));
                    if put {
                        store
                            .put_bytes(&name, bytes(1024, count))
                            .await
                            .expect("put");
                    } else {
                        store.get_bytes(&name).await.expect("get");
                    }
                    count += 1;
                }
                count
            })
        })
        .collect();
    let mut total = 0;
    for task in tasks {
        total += task.await.expect("it ran");
    }
    println!("{what}: {} a second", total as u64 / SECONDS);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement, not a test"]
async fn small_objects_a_second() {
    let folder = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).expect("a folder");
    let stores: Vec<_> = (0..STORES)
        .map(|store| open(&folder.path().join(store.to_string())))
        .collect();
    for count in 0..NAMES {
        let stores = &stores;
        let puts = (0..TASKS).map(|task| async move {
            let name = key(format!("{task}/{count}"));
            let put = stores[(task + count) % STORES].put_bytes(&name, bytes(1024, count));
            put.await.expect("put")
        });
        futures_util::future::join_all(puts).await;
    }
    for round in 0..3 {
        measure(&format!("round {round}: puts of 1 KiB"), &stores, true).await;
        measure(&format!("round {round}: gets of 1 KiB"), &stores, false).await;
    }
}
