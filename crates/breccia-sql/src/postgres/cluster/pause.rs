//! Servers that an administrator holds statements back from, and what still runs on them.
//!
//! Not who waits, nor for how long: sessions do that. Invariant: once a server is paused and was seen
//! with nothing running, nothing begins there before it is resumed. A session says that it begins
//! before it looks whether it may, and an administrator pauses before looking what runs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use tokio::sync::watch;

use super::{Cluster, Server};

/// The pauses of a cluster.
#[derive(Debug)]
pub(super) struct Pauses {
    /// All of it is paused.
    all: AtomicBool,
    /// Sessions that wait for the end of a pause.
    waiting: AtomicUsize,
    /// Told whenever a wait may be over.
    turns: watch::Sender<()>,
}

impl Default for Pauses {
    fn default() -> Self {
        Self {
            all: AtomicBool::new(false),
            waiting: AtomicUsize::new(0),
            turns: watch::Sender::new(()),
        }
    }
}

impl Pauses {
    /// Something changed that others may wait for.
    pub(super) fn turn(&self) {
        self.turns.send_replace(());
    }
}

impl Server {
    /// Whether this server is paused by itself, whatever its composite is.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.paused.load(Ordering::SeqCst)
    }

    /// Statements and transactions that run there now.
    #[must_use]
    pub fn running(&self) -> usize {
        self.running.load(Ordering::SeqCst)
    }
}

impl Cluster {
    /// Holds back what has not begun: on one server, or on all. `false`: no more.
    pub fn pause(&self, server: Option<usize>, paused: bool) {
        match server {
            None => self.pauses.all.store(paused, Ordering::SeqCst),
            Some(number) => {
                if let Some(server) = self.server(number) {
                    server.paused.store(paused, Ordering::SeqCst);
                }
            }
        }
        self.pauses.turn();
    }

    /// Whether nothing may begin on a server; a number that is nobody's stands for one to come.
    #[must_use]
    pub fn holds_back(&self, server: usize) -> bool {
        self.is_paused() || self.server(server).is_some_and(Server::is_paused)
    }

    /// Whether all of it is paused.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.pauses.all.load(Ordering::SeqCst)
    }

    /// Sessions that wait for the end of a pause.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.pauses.waiting.load(Ordering::Relaxed)
    }

    /// Waits until there is another view than that of `version`.
    pub async fn left(&self, version: u64) {
        let mut turns = self.pauses.turns.subscribe();
        // The sender lives in `self`, so the channel cannot close while this waits.
        while self.version() == version && turns.changed().await.is_ok() {}
    }

    /// Waits until `may_go`, which is asked again whenever a server is resumed or the view changes;
    /// whether it came to that by `end`.
    pub async fn wait_turn(&self, end: Instant, mut may_go: impl FnMut() -> bool) -> bool {
        let mut turns = self.pauses.turns.subscribe();
        let _waits = Waits::new(&self.pauses.waiting);
        loop {
            if may_go() {
                return true;
            }
            let turn = tokio::time::timeout_at(end.into(), turns.changed()).await;
            if !matches!(turn, Ok(Ok(()))) {
                return may_go();
            }
        }
    }
}

/// Counts one that waits.
struct Waits<'a>(&'a AtomicUsize);

impl<'a> Waits<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Counts a session as running something on a server.
#[derive(Debug)]
pub struct Running {
    cluster: Arc<Cluster>,
    server: usize,
    rests: bool,
}

impl Running {
    /// One more runs something on `server`.
    #[must_use]
    pub fn on(cluster: &Arc<Cluster>, server: usize) -> Self {
        let mut running = Self {
            cluster: Arc::clone(cluster),
            server,
            rests: true,
        };
        running.begin();
        running
    }

    /// It begins something; whether it may. If not, it rests.
    pub fn begins(&mut self) -> bool {
        self.begin();
        let may = !self.cluster.holds_back(self.server);
        if !may {
            self.rest();
        }
        may
    }

    /// It keeps its connection, and runs nothing.
    pub fn rest(&mut self) {
        if !std::mem::replace(&mut self.rests, true)
            && let Some(server) = self.cluster.server(self.server)
        {
            server.running.fetch_sub(1, Ordering::SeqCst);
        }
    }

    /// Whether it runs nothing.
    #[must_use]
    pub fn rests(&self) -> bool {
        self.rests
    }

    fn begin(&mut self) {
        if std::mem::replace(&mut self.rests, false)
            && let Some(server) = self.cluster.server(self.server)
        {
            server.running.fetch_add(1, Ordering::SeqCst);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.rest();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use breccia_core::address::Address;
    use breccia_net::clock;
    use breccia_net::health::EndpointHealth;
    use breccia_net::metrics::Registry;

    use super::super::{ClusterOptions, Consistency, ServerOptions};
    use super::*;
    use crate::postgres::upstream::{Endpoint, UpstreamTls};

    fn cluster() -> Arc<Cluster> {
        let address = Address::Unix("/nowhere".into());
        let server = |name: &str| ServerOptions {
            endpoint: Endpoint {
                name: name.to_owned(),
                address: address.clone(),
                tls: UpstreamTls::Off,
                timeout: Duration::from_secs(1),
            },
            client_role: None,
            own_role: None,
            own_database: String::new(),
            weight: 1,
            health: EndpointHealth::new(name.to_owned(), address.clone()),
        };
        let options = ClusterOptions {
            name: "db".to_owned(),
            consistency: Consistency::Session,
            max_lag: Duration::from_secs(1),
            replica_wait: Duration::ZERO,
            read_functions: Vec::new(),
            lazy: false,
        };
        let servers = vec![server("a"), server("b")];
        Arc::new(Cluster::new(options, servers, &Registry::new()))
    }

    #[test]
    fn a_pause_of_all_and_pauses_of_servers_are_apart() {
        let cluster = cluster();
        let held = |cluster: &Cluster| [0, 1, usize::MAX].map(|it| cluster.holds_back(it));
        assert_eq!(held(&cluster), [false, false, false]);
        cluster.pause(Some(1), true);
        assert_eq!(held(&cluster), [false, true, false]);
        cluster.pause(None, true);
        assert_eq!(held(&cluster), [true, true, true]);
        cluster.pause(None, false);
        assert_eq!(held(&cluster), [false, true, false]);
        cluster.pause(Some(1), false);
        assert_eq!(held(&cluster), [false, false, false]);
    }

    #[test]
    fn what_rests_does_not_run_and_begins_only_where_it_may() {
        let cluster = cluster();
        let running = |cluster: &Cluster| cluster.server(0).map_or(9, Server::running);
        let mut one = Running::on(&cluster, 0);
        let two = Running::on(&cluster, 0);
        assert_eq!(running(&cluster), 2);
        one.rest();
        one.rest();
        assert_eq!((running(&cluster), one.rests()), (1, true));
        cluster.pause(Some(0), true);
        assert!(!one.begins() && one.rests());
        assert_eq!(running(&cluster), 1, "what ran goes on");
        cluster.pause(Some(0), false);
        assert!(one.begins() && !one.rests());
        drop((one, two));
        assert_eq!(running(&cluster), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_ends_with_the_pause_or_in_time() {
        let cluster = cluster();
        cluster.pause(Some(0), true);
        let start = clock::now();
        let end = start + Duration::from_secs(5);
        assert!(!cluster.wait_turn(end, || !cluster.holds_back(0)).await);
        assert_eq!(clock::now(), end);
        let resume = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            assert_eq!(cluster.waiting(), 1);
            cluster.pause(Some(0), false);
        };
        let again = end + Duration::from_secs(5);
        let waits = cluster.wait_turn(again, || !cluster.holds_back(0));
        assert!(tokio::join!(waits, resume).0);
        assert_eq!(clock::now(), end + Duration::from_secs(1));
        assert_eq!(cluster.waiting(), 0);
    }
}
