//! Clusters and gateways, as most tests want them.
//!
//! Not a place for assertions. Invariant: a gateway that is handed out knows a primary and two
//! replicas that serve.

use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use anyhow::Result;
use breccia_testkit::{Breccia, ClusterOptions, PostgresCluster, SqlClient, free_port, wait_until};

pub(crate) use breccia_testkit::Dice;

/// How long anything may take to settle.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);

/// A primary and two standbys that log every statement.
pub(crate) fn cluster(synchronous: Option<usize>) -> Result<PostgresCluster> {
    logging("all", synchronous)
}

/// The same, with other statements logged (`log_statement`).
pub(crate) fn logging(
    statements: &'static str,
    synchronous: Option<usize>,
) -> Result<PostgresCluster> {
    let settings = [
        ("log_statement", statements),
        ("log_min_messages", "warning"),
        ("max_connections", "300"),
        ("shared_buffers", "32MB"),
        ("autovacuum", "off"),
        ("max_prepared_transactions", "10"),
    ];
    PostgresCluster::start(ClusterOptions {
        standbys: 2,
        synchronous,
        settings: settings
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .to_vec(),
        ..ClusterOptions::default()
    })
}

/// One cluster for all tests that run at the same time and leave its servers alone; it ends with
/// the last of them.
pub(crate) fn shared() -> Result<Arc<PostgresCluster>> {
    static SHARED: Mutex<Weak<PostgresCluster>> = Mutex::new(Weak::new());
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(cluster) = shared.upgrade() {
        return Ok(cluster);
    }
    let cluster = Arc::new(cluster(None)?);
    *shared = Arc::downgrade(&cluster);
    Ok(cluster)
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
pub(crate) fn file(cluster: &PostgresCluster, port: u16, extra: Extra<'_>) -> String {
    let mut file = format!("{}\n", extra.top);
    for (number, server) in cluster.servers().iter().enumerate() {
        // Writing to a String cannot fail.
        let _ = write!(
            file,
            "[store.pg{number}]\ntype = \"postgresql\"\nhost = \"127.0.0.1\"\nport = {}\n\
             user = \"{}\"\npassword = \"{}\"\n{}\n",
            server.port(),
            server.user(),
            server.password(),
            extra.server,
        );
    }
    let primary = cluster.primary();
    file + &format!(
        "[store.db]\ntype = \"sql-read-replica\"\nprimary = \"pg0\"\n\
         replicas = [\"pg1\", \"pg2\"]\n{}\n[listener.sql]\nprotocol = \"postgresql\"\n\
         bind = \"127.0.0.1:{port}\"\nstore = \"db\"\n{}\n[[listener.sql.user]]\n\
         name = \"{}\"\npassword = \"{}\"\n",
        extra.composite,
        extra.listener,
        primary.user(),
        primary.password(),
    )
}

impl Gateway {
    /// A gateway whose reads of `database` go to replicas by now.
    pub(crate) fn over(
        cluster: &PostgresCluster,
        database: &str,
        extra: Extra<'_>,
    ) -> Result<Gateway> {
        let port = free_port()?;
        cluster.wait_caught_up(LIMIT)?;
        let breccia = Breccia::start(&file(cluster, port, extra))?;
        let gateway = Gateway { breccia, port };
        gateway.wait_reads(database)?;
        Ok(gateway)
    }

    /// A gateway over servers that are not what they should be.
    pub(crate) fn unready(cluster: &PostgresCluster) -> Result<Gateway> {
        let port = free_port()?;
        let breccia = Breccia::start_unready(&file(cluster, port, Extra::default()))?;
        Ok(Gateway { breccia, port })
    }

    /// A client in this database.
    pub(crate) fn client(&self, database: &str) -> Result<SqlClient> {
        SqlClient::connect(self.port, database)
    }

    /// Statements that went to replicas so far.
    pub(crate) fn replica_reads(&self) -> Result<f64> {
        self.breccia
            .metric("breccia_sql_routed_total{target=\"replica\"")
    }

    /// Waits until reads of a database are known for what they are, and a replica answers them.
    pub(crate) fn wait_reads(&self, database: &str) -> Result<()> {
        wait_until(LIMIT, "a read on a replica", || {
            let before = self.replica_reads()?;
            // A gateway that has just begun knows no primary yet, and its clients are told so.
            let read = self
                .client(database)
                .and_then(|mut client| client.run("SELECT 1"));
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
