//! The guard before a leaf: health, and markers before each first use.
//!
//! Not opening. Invariant: a request that the guard refuses never reaches the leaf.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Result;
use breccia_blob::guarded::Guarded;
use breccia_blob::markers::{Composite, MarkedLeaf, marker_name};
use breccia_blob::store::{BlobStoreExt, ReservedWrite};
use breccia_blob::{BlobError, BlobStore};
use breccia_core::layout::{Layout, Role};
use breccia_net::health::{EndpointHealth, ProbeConfig};
use breccia_net::layout_store::LayoutStore;
use breccia_net::metrics::{Registry, STORE_REQUESTS};

use crate::memory::Memory;
use crate::shared::{key, layout, stores, text};

fn marked(memory: &Arc<Memory>) -> MarkedLeaf {
    let layout: Arc<Layout> = layout("all", Role::Outer, &[memory.name(), "other"]);
    let composite = Composite::of("all", &stores(std::slice::from_ref(memory)));
    let layouts = std::collections::BTreeMap::from([("all".to_owned(), layout)]);
    let leaves = MarkedLeaf::all(&[composite], &layouts);
    leaves.into_iter().next().expect("one leaf")
}

fn guard(memory: &Arc<Memory>) -> Guarded {
    Guarded::new(marked(memory), Arc::new(LayoutStore::ephemeral()))
}

#[tokio::test]
async fn markers_are_looked_at_once_by_all_who_come_at_the_same_time() -> Result<()> {
    let memory = Memory::new("a");
    let guarded = Arc::new(guard(&memory));
    let requests = (0..50).map(|number| {
        let guarded = Arc::clone(&guarded);
        tokio::spawn(async move { guarded.put_bytes(&key(format!("k{number}")), "x").await })
    });
    for request in requests.collect::<Vec<_>>() {
        request.await??;
    }
    // Read, others' names, one page, write, read.
    assert_eq!(memory.requests.load(Ordering::SeqCst), 50 + 5);
    Ok(())
}

#[tokio::test]
async fn a_refusal_is_told_at_once_and_looked_at_again_after_a_while() -> Result<()> {
    let memory = Memory::new("a");
    memory.put_bytes(&key("old"), "x").await?;
    let guarded = guard(&memory);
    let error = guarded
        .head(&key("old"))
        .await
        .expect_err("it is not adopted");
    assert!(error.to_string().contains("layout adopt"), "{error}");
    assert!(guarded.refusal().is_some());
    let asked = memory.requests.load(Ordering::SeqCst);
    for _ in 0..10 {
        let again = guarded.head(&key("old")).await;
        assert!(matches!(again, Err(BlobError::NotUsed { .. })));
    }
    assert_eq!(memory.requests.load(Ordering::SeqCst), asked);
    let marker = marked(&memory).markers[0].to_text();
    memory
        .write_reserved(&marker_name("all"), text(&marker), ReservedWrite::Always)
        .await?;
    tokio::time::sleep(Duration::from_millis(1100)).await;
    guarded.head(&key("old")).await?;
    assert!(guarded.is_ready() && guarded.refusal().is_none());
    Ok(())
}

#[tokio::test]
async fn markers_are_looked_at_again_after_the_leaf_was_unreachable() -> Result<()> {
    let memory = Memory::new("a");
    let guarded = guard(&memory);
    guarded.put_bytes(&key("k"), "x").await?;
    memory.set_down(true);
    assert!(matches!(
        guarded.head(&key("k")).await,
        Err(BlobError::Down { .. })
    ));
    assert!(!guarded.is_ready());
    // Another disk is mounted there now.
    memory.empty();
    memory.set_down(false);
    let error = guarded
        .put_bytes(&key("k"), "x")
        .await
        .expect_err("it is another one");
    assert!(error.to_string().contains("has none now"), "{error}");
    assert!(memory.keys().is_empty());
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_leaf_that_is_down_is_not_asked_until_its_prober_sees_it_again() -> Result<()> {
    let memory = Memory::new("a");
    let health = EndpointHealth::located("a".to_owned(), "memory".to_owned());
    let guarded = Arc::new(guard(&memory).with_health(Arc::clone(&health)));
    let config = ProbeConfig {
        interval: Duration::from_secs(1),
        timeout: Duration::from_secs(1),
    };
    let watching = tokio::spawn(Arc::clone(&guarded).watch(config));
    guarded.put_bytes(&key("k"), "x").await?;
    memory.set_down(true);
    assert!(guarded.head(&key("k")).await.is_err());
    assert!(!health.is_up(), "the failed request brought the news");
    let asked = memory.requests.load(Ordering::SeqCst);
    let error = guarded.head(&key("k")).await.expect_err("it is down");
    assert!(
        error.to_string().contains("connection refused, for"),
        "{error}"
    );
    assert_eq!(
        memory.requests.load(Ordering::SeqCst),
        asked,
        "it was not asked"
    );
    memory.set_down(false);
    tokio::time::sleep(Duration::from_secs(2)).await;
    guarded.head(&key("k")).await?;

    // An outage that no request has met is one all the same.
    memory.set_down(true);
    tokio::time::sleep(Duration::from_secs(5)).await;
    memory.empty();
    memory.set_down(false);
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(health.is_up());
    let error = guarded.put_bytes(&key("k"), "x").await;
    assert!(matches!(error, Err(BlobError::NotUsed { .. })), "{error:?}");

    // Probes that are never answered are an outage too.
    memory.stuck.store(true, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert!(!health.is_up());
    watching.abort();
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn no_request_waits_for_ever_for_a_marker() {
    let memory = Memory::new("a");
    memory.stuck.store(true, Ordering::SeqCst);
    let guarded = guard(&memory);
    let error = guarded.head(&key("k")).await.expect_err("nothing answers");
    assert!(matches!(error, BlobError::NotUsed { .. }), "{error}");
}

#[tokio::test]
async fn requests_are_counted_by_outcome() -> Result<()> {
    let memory = Memory::new("a");
    let registry = Registry::new();
    let guarded = guard(&memory).with_metrics(&registry);
    guarded.put_bytes(&key("k"), "x").await?;
    assert!(guarded.head(&key("none")).await.is_err());
    memory.set_down(true);
    assert!(guarded.head(&key("k")).await.is_err());
    let totals = registry.totals(&STORE_REQUESTS, "outcome");
    let expected = [("error", 0), ("ok", 2), ("refused", 1), ("unknown", 0)];
    assert_eq!(
        totals,
        expected
            .map(|(outcome, count)| (outcome.to_owned(), count))
            .into()
    );
    Ok(())
}
