//! Clusters and gateways, as most tests want them.
//!
//! Not a place for assertions. Invariant: a gateway that is handed out knows a primary and two
//! replicas that serve.

use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use anyhow::{Result, ensure};
use breccia_testkit::{
    Breccia, FaultyProxy, MariaDbCluster, MariaDbClusterOptions, MyClient, MyLogin, free_port,
    http, wait_until,
};

pub(crate) use breccia_testkit::Dice;

/// How long anything may take to settle.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);

/// A primary and two replicas that take large values.
pub(crate) fn cluster() -> Result<MariaDbCluster> {
    let arguments = [
        "--max-allowed-packet=256M",
        "--max-connections=400",
        // What was committed outlives a kill -9 of the server, though not the machine.
        "--innodb-flush-log-at-trx-commit=2",
    ];
    MariaDbCluster::start(&MariaDbClusterOptions {
        replicas: 2,
        arguments: arguments.map(str::to_owned).to_vec(),
    })
}

/// One cluster for all tests that run at the same time and leave its servers alone; it ends with
/// the last of them.
pub(crate) fn shared() -> Result<Arc<MariaDbCluster>> {
    static SHARED: Mutex<Weak<MariaDbCluster>> = Mutex::new(Weak::new());
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(cluster) = shared.upgrade() {
        return Ok(cluster);
    }
    let cluster = Arc::new(cluster()?);
    *shared = Arc::downgrade(&cluster);
    Ok(cluster)
}

/// The testkit's user in a database, with these capabilities.
pub(crate) fn login(database: &str, capabilities: u32) -> MyLogin<'_> {
    MyLogin {
        database,
        capabilities,
        ..MyLogin::default()
    }
}

/// Makes a database anew on the primary, and waits until the replicas have it too.
pub(crate) fn fresh(cluster: &MariaDbCluster, database: &str) -> Result<()> {
    let sql = format!("DROP DATABASE IF EXISTS {database}; CREATE DATABASE {database}");
    cluster.query(0, &sql)?;
    cluster.wait_caught_up(LIMIT)
}

/// What a gateway's file says beside its servers.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Extra<'a> {
    /// Top-level keys.
    pub(crate) top: &'a str,
    /// Keys of each server.
    pub(crate) server: &'a str,
    /// Keys of the composite.
    pub(crate) composite: &'a str,
    /// Keys of the listener.
    pub(crate) listener: &'a str,
}

/// A gateway over a cluster.
#[derive(Debug)]
pub(crate) struct Gateway {
    pub(crate) breccia: Breccia,
    pub(crate) port: u16,
}

/// The file of a gateway that listens on `port`.
pub(crate) fn file(cluster: &MariaDbCluster, port: u16, extra: Extra<'_>) -> String {
    let mut file = format!("{}\n", extra.top);
    for (number, server) in cluster.servers().iter().enumerate() {
        // Writing to a String cannot fail.
        let _ = write!(
            file,
            "[store.my{number}]\ntype = \"mysql\"\nhost = \"127.0.0.1\"\nport = {}\n\
             user = \"{}\"\npassword = \"{}\"\n{}\n",
            server.port(),
            server.user(),
            server.password(),
            extra.server,
        );
    }
    let primary = cluster.primary();
    file + &format!(
        "[store.db]\ntype = \"sql-read-replica\"\nprimary = \"my0\"\n\
         replicas = [\"my1\", \"my2\"]\n{}\n[listener.sql]\nprotocol = \"mysql\"\n\
         bind = \"127.0.0.1:{port}\"\nstore = \"db\"\n{}\n[[listener.sql.user]]\n\
         name = \"{}\"\npassword = \"{}\"\n",
        extra.composite,
        extra.listener,
        primary.user(),
        primary.password(),
    )
}

impl Gateway {
    /// A gateway whose reads go to replicas by now.
    pub(crate) fn over(cluster: &MariaDbCluster, extra: Extra<'_>) -> Result<Gateway> {
        let port = free_port()?;
        cluster.wait_caught_up(LIMIT)?;
        let breccia = Breccia::start(&file(cluster, port, extra))?;
        let gateway = Gateway { breccia, port };
        gateway.wait_reads(cluster)?;
        Ok(gateway)
    }

    /// Posts to the admin listener; another answer than 200 is an error.
    pub(crate) fn post(&self, path: &str) -> Result<()> {
        let (status, body) = http(self.breccia.admin_port(), "POST", path)?;
        ensure!(status == 200, "{path}: {status} {body}");
        Ok(())
    }

    /// A client in this database.
    pub(crate) fn client(&self, database: &str) -> Result<MyClient> {
        MyClient::connect(self.port, database)
    }

    /// A client of these capabilities.
    pub(crate) fn client_of(&self, database: &str, capabilities: u32) -> Result<MyClient> {
        MyClient::connect_as(self.port, login(database, capabilities))
    }

    /// Runs SQL through it with the `mariadb` program.
    pub(crate) fn query(&self, cluster: &MariaDbCluster, sql: &str) -> Result<String> {
        let primary = cluster.primary();
        let mut command = std::process::Command::new("mariadb");
        command
            .args(["--no-defaults", "--protocol=tcp", "-h", "127.0.0.1"])
            .args(["-P", &self.port.to_string(), "-u", primary.user()])
            .args(["-N", "-B", "-e", sql])
            .env("MYSQL_PWD", primary.password());
        breccia_testkit::process::run(&mut command)
    }

    /// Statements that went to replicas so far.
    pub(crate) fn replica_reads(&self) -> Result<f64> {
        self.breccia
            .metric("breccia_sql_routed_total{target=\"replica\"")
    }

    /// Waits until a replica answers a read.
    pub(crate) fn wait_reads(&self, cluster: &MariaDbCluster) -> Result<()> {
        wait_until(LIMIT, "a read on a replica", || {
            let before = self.replica_reads()?;
            // A gateway that has just begun knows no primary yet, and its clients are told so.
            let read = self.query(cluster, "SELECT 1");
            Ok((read.is_ok() && self.replica_reads()? > before).then_some(()))
        })
    }
}

impl Drop for Gateway {
    /// What it said last; shown when its test fails.
    fn drop(&mut self) {
        let log = self.breccia.log();
        let lines: Vec<&str> = log.lines().collect();
        for line in lines.iter().skip(lines.len().saturating_sub(20)) {
            println!("gateway: {line}");
        }
    }
}

/// A gateway all of whose servers stand behind proxies, in the order of their numbers.
pub(crate) fn behind_proxies(
    cluster: &MariaDbCluster,
    extra: Extra<'_>,
) -> Result<(Gateway, Vec<FaultyProxy>)> {
    let port = free_port()?;
    let mut text = file(cluster, port, extra);
    let mut proxies = Vec::new();
    for server in cluster.servers() {
        let proxy = FaultyProxy::start(&server.address())?;
        text = text.replace(
            &format!("port = {}\n", server.port()),
            &format!("port = {}\n", proxy.port()),
        );
        proxies.push(proxy);
    }
    let breccia = Breccia::start(&text)?;
    let gateway = Gateway { breccia, port };
    gateway.wait_reads(cluster)?;
    Ok((gateway, proxies))
}

#[test]
fn a_gateway_over_mariadb_checks_its_servers_and_serves() -> Result<()> {
    let cluster = shared()?;
    let gateway = Gateway::over(&cluster, Extra::default())?;
    let answer = gateway.query(&cluster, "SELECT 1 + 1")?;
    ensure!(answer.trim() == "2", "{answer}");
    Ok(())
}

/// Runs `work` with the numbers from 0 in threads of their own; the first error.
pub(crate) fn together(count: usize, work: impl Fn(usize) -> Result<()> + Sync) -> Result<()> {
    let work = &work;
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..count).map(|it| scope.spawn(move || work(it))).collect();
        let ends: Vec<Result<()>> = threads
            .into_iter()
            .map(|it| it.join().expect("a thread without panic"))
            .collect();
        ends.into_iter().collect()
    })
}

/// Ends the connections of a server whose schema is `database`; how many.
pub(crate) fn cut(cluster: &MariaDbCluster, server: usize, database: &str) -> Result<usize> {
    let list = format!(
        "SELECT CONCAT('KILL ', ID) FROM information_schema.PROCESSLIST WHERE DB = '{database}'"
    );
    let kills = cluster.query(server, &list)?;
    // One may have ended by itself since.
    let ended = kills
        .lines()
        .filter(|kill| cluster.query(server, kill).is_ok());
    Ok(ended.count())
}

/// A turn of those tests that use one database, or the whole machine.
pub(crate) fn turn() -> std::sync::MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}
