//! What is seen of a MariaDB primary and its replicas, on real servers.
//!
//! Not sessions. Invariant: needs `MariaDB` and nothing built.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use breccia_core::address::Address;
use breccia_net::health::{EndpointHealth, ProbeConfig};
use breccia_net::metrics::Registry;
use breccia_sql::SqlError;
use breccia_sql::freshness::Position as _;
use breccia_sql::mysql::cluster::{Cluster, ClusterOptions, Consistency, Server, ServerOptions};
use breccia_sql::mysql::gtid::Gtids;
use breccia_sql::mysql::monitor;
use breccia_sql::mysql::upstream::{Credential, Endpoint, Upstream, UpstreamTls};
use breccia_testkit::{MariaDb, MariaDbCluster, MariaDbClusterOptions};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

const INTERVAL: Duration = Duration::from_millis(200);
const PATIENCE: Duration = Duration::from_secs(10);
const MAX_LAG: Duration = Duration::from_secs(1);

/// Servers with a table everywhere.
fn servers() -> Result<MariaDbCluster> {
    let servers = MariaDbCluster::start(&MariaDbClusterOptions {
        replicas: 2,
        ..MariaDbClusterOptions::default()
    })?;
    servers.query(0, "CREATE DATABASE t; CREATE TABLE t.t (a INT)")?;
    servers.wait_caught_up(PATIENCE)?;
    Ok(servers)
}

/// What is watched from now on, as `user` or as one who may do everything.
fn watched(servers: &MariaDbCluster, user: Option<&str>) -> Arc<Cluster> {
    let ports: Vec<u16> = servers.servers().iter().map(MariaDb::port).collect();
    watched_at(servers, &ports, user)
}

/// The same where the servers are behind other ports.
fn watched_at(servers: &MariaDbCluster, ports: &[u16], user: Option<&str>) -> Arc<Cluster> {
    let options = ClusterOptions {
        name: "db".to_owned(),
        consistency: Consistency::Session,
        max_lag: MAX_LAG,
        replica_wait: Duration::from_millis(10),
        lazy: false,
        read_functions: Vec::new(),
    };
    let server = |(number, server): (usize, &MariaDb)| {
        let name = format!("my-{number}");
        let address = Address::Tcp {
            host: "127.0.0.1".to_owned(),
            port: ports.get(number).copied().unwrap_or(0),
        };
        let full = || {
            let password = server.password().to_owned();
            (server.user().to_owned(), Credential::Password(password))
        };
        let own = user.map(|user| (user.to_owned(), Credential::None));
        ServerOptions {
            endpoint: Endpoint {
                name: name.clone(),
                address: address.clone(),
                tls: UpstreamTls::Off,
                health: None,
                timeout: Duration::from_secs(2),
                own: Vec::new(),
            },
            client_login: None,
            own_login: Some(own.unwrap_or_else(full)),
            weight: 1,
            health: EndpointHealth::new(name, address),
        }
    };
    let all = servers.servers().iter().enumerate().map(server).collect();
    let registry = Registry::new();
    let cluster = Arc::new(Cluster::new(options, all, &registry));
    let probes = ProbeConfig {
        interval: INTERVAL,
        timeout: Duration::from_millis(500),
    };
    tokio::spawn(monitor::watch(Arc::clone(&cluster), probes, registry));
    cluster
}

/// Waits until something holds; for how long that took.
async fn until(what: &str, cluster: &Cluster, holds: impl Fn() -> bool) -> Result<Duration> {
    let begun = Instant::now();
    while !holds() {
        if begun.elapsed() > PATIENCE {
            anyhow::bail!("{what}: {:?}", cluster.view());
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(begun.elapsed())
}

/// Inserts a row; where the server was after that.
fn insert(servers: &MariaDbCluster, number: usize) -> Result<Gtids> {
    let sql = "INSERT INTO t.t VALUES (1); SELECT @@last_gtid";
    let told = servers.query(number, sql)?;
    told.trim().parse().context("a position")
}

fn soon(seconds: u64) -> Instant {
    Instant::now() + Duration::from_secs(seconds)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn roles_positions_and_lag_are_seen() -> Result<()> {
    let servers = servers()?;
    let cluster = watched(&servers, None);
    let both = || {
        let view = cluster.view();
        view.primary == Ok(0) && view.replicas == [1, 2]
    };
    until("roles", &cluster, both).await?;
    let committed = insert(&servers, 0)?;
    assert!(cluster.is_of_here(&committed) && cluster.is_whole(&committed));
    assert!(!cluster.is_of_here(&"77-1-1".parse()?));
    for replica in [1, 2] {
        assert!(
            cluster
                .wait_for(replica, &committed, soon(5))
                .await
                .is_some()
        );
    }
    let sampler = &cluster.server(0).context("a primary")?.sampler;
    let sample = sampler.wait(sampler.ticket(), soon(5)).await;
    let sample = sample.context("a position")?;
    assert!(!sample.replica && sample.position.covers(&committed) && sample.run > 0);

    // Held up, it is known how far it is, and soon serves nobody.
    servers.pause_replay(1)?;
    let later = insert(&servers, 0)?;
    assert!(cluster.wait_for(1, &later, soon(1)).await.is_none());
    assert!(cluster.wait_for(2, &later, soon(5)).await.is_some());
    let sampler = &cluster.server(1).context("a replica")?.sampler;
    let sample = sampler.wait(sampler.ticket(), soon(5)).await;
    let sample = sample.context("a position")?;
    assert!(sample.replica && sample.seen.covers(&later) && !sample.position.covers(&later));
    let late = || cluster.view().replicas == [2];
    until("a replica that is late", &cluster, late).await?;
    let why = cluster.unused(&cluster.view(), 1).unwrap_or_default();
    assert!(
        why.contains("more than max-lag") && why.contains("SQL thread is stopped"),
        "{why}"
    );
    assert!(cluster.lag(1).is_some_and(|lag| lag > MAX_LAG));
    servers.resume_replay(1)?;
    until("a replica that has come up", &cluster, both).await?;

    servers.set_delay(2, 3)?;
    let delayed = insert(&servers, 0)?;
    assert!(cluster.wait_for(1, &delayed, soon(5)).await.is_some());
    assert!(cluster.wait_for(2, &delayed, soon(1)).await.is_none());
    assert!(cluster.wait_for(2, &delayed, soon(5)).await.is_some());
    Ok(())
}

/// Counts the functions of all schemas.
struct Functions(Arc<AtomicU64>);

impl monitor::Catalogue for Functions {
    type Read = u64;

    async fn read(
        &self,
        endpoint: &Endpoint,
        upstream: &mut Upstream,
    ) -> Result<(u64, u64), SqlError> {
        let sql = "SELECT COUNT(*) FROM information_schema.ROUTINES WHERE ROUTINE_SCHEMA = 't'";
        let rows = endpoint.ask(upstream, sql).await?;
        let count = rows
            .first()
            .and_then(|row| row.first()?.as_deref()?.parse().ok());
        let count = count.unwrap_or(u64::MAX);
        Ok((count, count))
    }

    fn put(&self, _: &Cluster, read: u64, _: u64) {
        self.0.store(read, Ordering::SeqCst);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn schemas_are_read_again_after_a_change_and_hold_from_there() -> Result<()> {
    let servers = servers()?;
    let cluster = watched(&servers, None);
    let count = Arc::new(AtomicU64::new(77));
    let functions = Functions(Arc::clone(&count));
    tokio::spawn(monitor::keep_schemas(Arc::clone(&cluster), functions));
    let read = |expected| {
        let (cluster, count) = (&cluster, &count);
        async move {
            let read = || count.load(Ordering::SeqCst) == expected;
            until("the schemas", cluster, read).await
        }
    };
    read(0).await?;
    let committed = insert(&servers, 0)?;
    assert!(
        !cluster.catalogue_floor().covers(&committed),
        "nothing new was read"
    );
    servers.query(0, "CREATE FUNCTION t.f() RETURNS INT NO SQL RETURN 1")?;
    cluster.ddl_seen();
    read(1).await?;
    assert!(cluster.catalogue_floor().covers(&committed));
    // One whose end is not heard is found too.
    cluster.ddl_doubted();
    tokio::time::sleep(Duration::from_millis(500)).await;
    servers.query(0, "CREATE FUNCTION t.g() RETURNS INT NO SQL RETURN 1")?;
    read(2).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_promotion_is_followed_and_the_old_primary_is_fenced() -> Result<()> {
    let mut servers = servers()?;
    let cluster = watched(&servers, None);
    until("roles", &cluster, || cluster.view().replicas == [1, 2]).await?;
    let first = cluster.view();
    let run = cluster
        .server(2)
        .and_then(Server::replayed)
        .context("a position")?
        .run;
    servers.server_mut(0).kill9();
    servers.promote(1)?;
    let followed = || cluster.view().primary == Ok(1);
    let took = until("the promotion", &cluster, followed).await?;
    println!("followed {took:?} after the promotion");
    assert!(took < Duration::from_secs(2), "{took:?}");
    assert!(cluster.view().epoch > first.epoch && cluster.version() > 0);
    servers.follow(2, 1)?;
    until("the other replica", &cluster, || {
        cluster.view().replicas == [2]
    })
    .await?;
    let committed = insert(&servers, 1)?;
    assert!(cluster.wait_for(2, &committed, soon(5)).await.is_some());

    servers.server_mut(0).restart_same_port()?;
    let fenced = || {
        let why = cluster.unused(&cluster.view(), 0).unwrap_or_default();
        why.contains("my-1 has taken its place")
    };
    until("the fence", &cluster, fenced).await?;
    assert_eq!(cluster.view().primary, Ok(1));
    servers.follow(0, 1)?;
    until("the old primary", &cluster, || {
        cluster.view().replicas == [0, 2]
    })
    .await?;

    // Another run of a replica: what it had before says nothing.
    servers.server_mut(2).restart_same_port()?;
    let other_run = || {
        let replayed = cluster.server(2).and_then(Server::replayed);
        replayed.is_some_and(|it| it.run != run)
    };
    until("another run", &cluster, other_run).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_primaries_refuse_writes_until_one_is_named() -> Result<()> {
    let mut servers = servers()?;
    let cluster = watched(&servers, None);
    until("roles", &cluster, || cluster.view().replicas == [1, 2]).await?;
    // One that is frozen serves nobody soon, and is back by itself.
    servers.server_mut(2).sigstop()?;
    let took = until("the frost", &cluster, || cluster.view().replicas == [1]).await?;
    assert!(took < Duration::from_secs(3), "{took:?}");
    servers.server_mut(2).sigcont()?;
    until("the thaw", &cluster, || cluster.view().replicas == [1, 2]).await?;
    servers.promote(1)?;
    until("the rival", &cluster, || cluster.view().primary.is_err()).await?;
    assert_eq!(cluster.view().replicas, [2], "reads go on");
    cluster.name_primary(Some(1));
    assert_eq!(cluster.view().primary, Ok(1));
    let why = cluster.unused(&cluster.view(), 2).unwrap_or_default();
    assert!(why.contains("which is not the primary"), "{why}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_without_the_privilege_is_told_which() -> Result<()> {
    let servers = servers()?;
    servers.query(0, "CREATE USER watcher@'%'")?;
    servers.wait_caught_up(PATIENCE)?;
    let cluster = watched(&servers, Some("watcher"));
    let told = || {
        let why = cluster.unused(&cluster.view(), 0).unwrap_or_default();
        why.contains("GRANT SLAVE MONITOR ON *.*")
    };
    until("the reason", &cluster, told).await?;
    assert!(cluster.view().primary.is_err());
    servers.query(0, "GRANT SLAVE MONITOR ON *.* TO watcher@'%'")?;
    until("roles", &cluster, || cluster.view().replicas == [1, 2]).await?;
    Ok(())
}

/// A way to a server on which, once it hangs, logins succeed and no question is answered any more.
#[derive(Debug, Default)]
struct Hanging {
    hangs: AtomicBool,
    made: AtomicUsize,
}

impl Hanging {
    async fn serve(self: Arc<Self>, listener: TcpListener, port: u16) {
        while let Ok((client, _)) = listener.accept().await {
            self.made.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(Arc::clone(&self).pass(client, port));
        }
    }

    async fn pass(self: Arc<Self>, client: TcpStream, port: u16) -> std::io::Result<()> {
        let server = TcpStream::connect(("127.0.0.1", port)).await?;
        let (mut from_client, mut to_client) = client.into_split();
        let (mut from_server, mut to_server) = server.into_split();
        let asked = Arc::new(AtomicBool::new(false));
        let asks = Arc::clone(&asked);
        let back = tokio::spawn(async move {
            let mut bytes = vec![0; 16 * 1024];
            while let Ok(read @ 1..) = from_server.read(&mut bytes).await {
                let hangs = self.hangs.load(Ordering::SeqCst) && asked.load(Ordering::SeqCst);
                if !hangs
                    && to_client
                        .write_all(bytes.get(..read).unwrap_or_default())
                        .await
                        .is_err()
                {
                    break;
                }
            }
        });
        let mut bytes = vec![0; 16 * 1024];
        while let Ok(read @ 1..) = from_client.read(&mut bytes).await {
            // The first questions of those that Breccia has for itself.
            let text = String::from_utf8_lossy(bytes.get(..read).unwrap_or_default()).into_owned();
            if text.contains("UPTIME") || text.contains("gtid_slave_pos") {
                asks.store(true, Ordering::SeqCst);
            }
            to_server
                .write_all(bytes.get(..read).unwrap_or_default())
                .await?;
        }
        back.abort();
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_leaves_questions_unanswered_is_not_filled_with_connections() -> Result<()> {
    let servers = servers()?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let mut ports: Vec<u16> = servers.servers().iter().map(MariaDb::port).collect();
    let way = Arc::new(Hanging::default());
    let second = ports.get_mut(1).context("a second server")?;
    let behind = std::mem::replace(second, listener.local_addr()?.port());
    tokio::spawn(Arc::clone(&way).serve(listener, behind));
    let cluster = watched_at(&servers, &ports, None);
    until("two replicas", &cluster, || {
        cluster.view().replicas.len() == 2
    })
    .await?;
    let before = way.made.load(Ordering::SeqCst);
    way.hangs.store(true, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_secs(8)).await;
    let made = way.made.load(Ordering::SeqCst) - before;
    let why = cluster.unused(&cluster.view(), 1).unwrap_or_default();
    anyhow::ensure!(made <= 6, "{made} connections were made: {why}");
    // As soon as it answers again, it is asked again.
    way.hangs.store(false, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_millis(100)).await;
    // What hung is answered by nobody any more.
    until("its return", &cluster, || {
        cluster.view().replicas.len() == 2
    })
    .await
    .map(drop)
}
