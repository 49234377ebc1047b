//! Tests of probing: what opens an endpoint and what closes it.
//!
//! Not the breaker's own rules, which core tests. Invariant: time is paused, so no test waits.

use std::cell::Cell;
use std::rc::Rc;

use super::*;
use crate::metrics::{Registry, STORE_UP};

const CONFIG: ProbeConfig = ProbeConfig {
    interval: Duration::from_secs(1),
    timeout: Duration::from_millis(500),
};

#[derive(Clone, Copy)]
enum Peer {
    Answers,
    Silent,
    Refuses,
}

struct Fixture {
    health: Arc<EndpointHealth>,
    peer: Rc<Cell<Peer>>,
    probes: Rc<Cell<u32>>,
}

impl Fixture {
    /// Must run inside a `LocalSet`.
    fn start(peer: Peer) -> Self {
        let address = "127.0.0.1:6379".parse().expect("an address");
        let fixture = Self {
            health: EndpointHealth::new("redis-a".to_owned(), address),
            peer: Rc::new(Cell::new(peer)),
            probes: Rc::default(),
        };
        let (peer, probes) = (Rc::clone(&fixture.peer), Rc::clone(&fixture.probes));
        let probe = move || {
            probes.set(probes.get() + 1);
            let peer = peer.get();
            async move {
                match peer {
                    Peer::Answers => Ok(()),
                    Peer::Silent => std::future::pending().await,
                    Peer::Refuses => Err(ProbeFailure::Connect("connection refused".to_owned())),
                }
            }
        };
        tokio::task::spawn_local(probe_loop(Arc::clone(&fixture.health), CONFIG, probe));
        fixture
    }

    fn text(&self) -> Option<String> {
        self.health.down().map(|reason| reason.text)
    }
}

/// Passes `ms` of paused time.
async fn wait(ms: u64) {
    tokio::time::sleep(Duration::from_millis(ms)).await;
}

async fn locally<F: Future<Output = ()>>(test: F) {
    tokio::task::LocalSet::new().run_until(test).await;
}

#[tokio::test(start_paused = true)]
async fn a_refused_probe_opens_at_once_and_an_answer_closes() {
    locally(async {
        let fixture = Fixture::start(Peer::Refuses);
        wait(1).await;
        assert_eq!(fixture.text().as_deref(), Some("connection refused"));
        fixture.peer.set(Peer::Answers);
        wait(1100).await;
        assert!(fixture.health.is_up());
        assert_eq!(fixture.text(), None);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn two_unanswered_probes_open_and_one_does_not() {
    locally(async {
        let fixture = Fixture::start(Peer::Silent);
        wait(600).await;
        assert!(fixture.health.is_up());
        wait(1500).await;
        assert_eq!(fixture.text().as_deref(), Some("it does not answer"));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn bytes_between_unanswered_probes_keep_it_up() {
    locally(async {
        let fixture = Fixture::start(Peer::Silent);
        for _ in 0..100 {
            wait(100).await;
            fixture.health.note_bytes();
            assert!(fixture.health.is_up());
        }
        assert!(fixture.probes.get() > 5);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_workers_failed_connect_opens_at_once_and_a_probe_follows_soon() {
    locally(async {
        let fixture = Fixture::start(Peer::Answers);
        let registry = Registry::new();
        fixture
            .health
            .show_in(registry.gauge(&STORE_UP, &["redis-a"]));
        wait(10).await;
        assert!(
            registry
                .render()
                .contains("breccia_store_up{store=\"redis-a\"} 1")
        );
        fixture.health.connect_failed("connection refused");
        assert_eq!(fixture.text().as_deref(), Some("connection refused"));
        assert!(
            registry
                .render()
                .contains("breccia_store_up{store=\"redis-a\"} 0")
        );
        wait(200).await;
        assert!(fixture.health.is_up());
        assert!(
            registry
                .render()
                .contains("breccia_store_up{store=\"redis-a\"} 1")
        );
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_probed_at_least_every_second_and_keeps_its_start() {
    locally(async {
        let fixture = Fixture::start(Peer::Refuses);
        wait(1).await;
        let since = fixture.health.down().expect("it is down").since;
        let before = fixture.probes.get();
        wait(60_000).await;
        let probes = fixture.probes.get() - before;
        assert!((55..=65).contains(&probes), "{probes}");
        assert_eq!(fixture.health.down().expect("it is down").since, since);
        fixture.peer.set(Peer::Answers);
        wait(1000).await;
        assert!(fixture.health.is_up());
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_prober_without_news_does_not_contradict_another_one() {
    locally(async {
        let fixture = Fixture::start(Peer::Refuses);
        wait(10).await;
        assert!(!fixture.health.is_up());
        // Another prober of the same endpoint finds it up; this one is told only that there were bytes.
        fixture.health.publish_up();
        fixture.health.note_bytes();
        fixture.health.news.notify_one();
        tokio::task::yield_now().await;
        tokio::task::yield_now().await;
        assert!(fixture.health.is_up(), "{:?}", fixture.health.down());
    })
    .await;
}
