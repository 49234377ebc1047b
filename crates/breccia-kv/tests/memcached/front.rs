//! A memcached listener in this process, on one worker thread.
//!
//! Invariant: it ends with the value.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use breccia_core::HashKind;
use breccia_core::address::Address;
use breccia_core::layout::{CompositeKind, Layout, LayoutSpec, Role};
use breccia_kv::endpoint::{Endpoint, Place, Terms};
use breccia_kv::front::settings::{ListenerSettings, SharedSettings};
use breccia_kv::memcached::frontend::{
    MemcachedBackend, MemcachedLeaf, MemcachedListener, MemcachedService, MemcachedWorker,
};
use breccia_kv::pipeline::PipelineLimits;
use breccia_kv::topology::{Branch, Topology};
use breccia_net::drain::Drain;
use breccia_net::health::{EndpointHealth, ProbeConfig, ProbeFailure, probe_loop};
use breccia_net::listener::{Bind, Listener};
use breccia_net::metrics::Registry;
use breccia_net::worker::{ListenerIndex, ListenerOptions, Service, WorkerPool};
use breccia_testkit::Memcached;

/// A running listener.
pub(crate) struct Front {
    runtime: tokio::runtime::Runtime,
    pool: Option<WorkerPool>,
    pub(crate) address: String,
    pub(crate) registry: Registry,
}

impl Front {
    /// A listener with these settings over a backend. On a busy machine even a live server takes
    /// its time, so its probes are patient.
    pub(crate) fn start(backend: MemcachedBackend, settings: ListenerSettings) -> Self {
        Self::start_probing(backend, settings, Duration::from_secs(5))
    }

    /// The same, where a probe may take so long.
    pub(crate) fn start_probing(
        backend: MemcachedBackend,
        settings: ListenerSettings,
        patience: Duration,
    ) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build();
        let runtime = runtime.unwrap();
        let (drain, registry) = (Drain::new(), Registry::new());
        let probed = match &backend {
            MemcachedBackend::Forward(topology) => topology.leaves().to_vec(),
            MemcachedBackend::Typed(_) => Vec::new(),
        };
        let listener = MemcachedListener {
            name: "front".into(),
            backend,
            settings: SharedSettings::new(settings),
            registry: registry.clone(),
            drain: drain.clone(),
        };
        let factory = move |_| {
            let worker = MemcachedWorker::new();
            let service: Rc<dyn Service> = MemcachedService::new(&worker, listener.clone());
            vec![service]
        };
        let pool = WorkerPool::start(1, drain.clone(), factory).unwrap();
        let handle = runtime.block_on(async {
            for leaf in &probed {
                spawn_probe(leaf, patience);
            }
            let listener = Listener::open(&Bind::Tcp("127.0.0.1:0".parse().unwrap())).unwrap();
            let options = ListenerOptions {
                name: "front".into(),
                tls: None,
                max_clients: 1000,
                refusal: b"",
                drain,
            };
            pool.listen(ListenerIndex(0), listener, options, &registry)
        });
        let address = handle.bind().to_string();
        Self {
            runtime,
            pool: Some(pool),
            address,
            registry,
        }
    }

    /// Over these servers, by the plain rule.
    pub(crate) fn over(servers: &[Memcached]) -> Self {
        Self::start(
            MemcachedBackend::Forward(topology(servers)),
            ListenerSettings::default(),
        )
    }

    /// Stops accepting and waits for clients.
    pub(crate) fn drain(&mut self, limit: Duration) -> usize {
        let pool = self.pool.take().expect("a front is drained once");
        self.runtime.block_on(pool.drain(limit)).cut
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        if let Some(pool) = self.pool.take() {
            self.runtime.block_on(pool.drain(Duration::ZERO));
        }
    }
}

/// The names of up to ten members.
const NAMES: [&str; 10] = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"];

fn endpoint(name: &str, address: Address) -> Arc<Endpoint> {
    let limits = PipelineLimits {
        stall_gate: Duration::from_millis(50),
        timeout: Duration::from_secs(2),
        max_in_flight: 16384,
        max_unsent_bytes: 64 << 20,
    };
    let health = EndpointHealth::new(name.into(), address.clone());
    Endpoint::new(Terms::simple(Place::plain(address), limits), health)
}

/// Servers as a composite (one server: as itself).
pub(crate) fn topology(servers: &[Memcached]) -> Arc<Topology<Arc<MemcachedLeaf>>> {
    let addresses: Vec<String> = servers.iter().map(Memcached::address).collect();
    topology_at(&addresses)
}

/// The same, for whatever listens at these addresses.
pub(crate) fn topology_at(servers: &[String]) -> Arc<Topology<Arc<MemcachedLeaf>>> {
    let leaf = |server: &str, name: &str| {
        Branch::Leaf(Arc::new(MemcachedLeaf {
            name: format!("cache/{name}"),
            store: name.into(),
            endpoint: endpoint(name, server.parse().unwrap()),
            connections: 1,
        }))
    };
    let mut branches: Vec<_> = servers
        .iter()
        .zip(NAMES)
        .map(|(server, name)| leaf(server, name))
        .collect();
    let root = if branches.len() == 1 {
        branches.remove(0)
    } else {
        let spec = LayoutSpec {
            composite: "cache".into(),
            kind: CompositeKind::InMemory,
            hash: HashKind::Xxh3_64,
            hash_tag: None,
            placement_key: breccia_core::PlacementKey::Raw,
            role: Role::Outer,
            shards: NAMES[..servers.len()]
                .iter()
                .map(|name| (*name).to_owned())
                .collect(),
        };
        Branch::Sharded(Arc::new(Layout::first(&spec).unwrap()), branches)
    };
    Arc::new(Topology::new("cache".into(), root).unwrap())
}

/// Which of `count` servers holds a key.
pub(crate) fn home(key: &str, count: usize) -> usize {
    usize::try_from(HashKind::Xxh3_64.hash(key.as_bytes()) % count as u64).unwrap()
}

fn spawn_probe(leaf: &MemcachedLeaf, timeout: Duration) {
    let config = ProbeConfig {
        interval: Duration::from_millis(200),
        timeout,
    };
    let address = leaf.endpoint.current().terms.place.address.to_string();
    let probe = move || {
        let address = address.clone();
        async move {
            use tokio::io::{AsyncReadExt, AsyncWriteExt};
            let refused = |error: std::io::Error| ProbeFailure::Connect(error.to_string());
            let mut stream = tokio::net::TcpStream::connect(address)
                .await
                .map_err(refused)?;
            stream.write_all(b"mn\r\n").await.map_err(refused)?;
            stream.read_u8().await.map_err(refused)?;
            Ok(())
        }
    };
    tokio::spawn(probe_loop(
        Arc::clone(leaf.endpoint.health()),
        config,
        probe,
    ));
}

/// Sends the whole input, half-closes, and reads to the end.
pub(crate) fn session(address: &str, input: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    let mut out = Vec::new();
    if stream.write_all(input).is_ok() {
        stream.shutdown(Shutdown::Write).unwrap();
    }
    stream.read_to_end(&mut out).unwrap();
    out
}

/// What the registry counts under a family's name, by line.
pub(crate) fn metric(registry: &Registry, start: &str) -> BTreeMap<String, String> {
    let text = registry.render();
    let lines = text.lines().filter(|line| line.starts_with(start));
    lines
        .filter_map(|line| line.rsplit_once(' '))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}
