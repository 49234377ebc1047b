//! A real `MariaDB` primary with GTID replicas.
//!
//! Not a failover manager: nobody follows a promoted replica by itself. Invariant: servers are numbered
//! in one way everywhere, 0 for the primary as started; the `server_id` is the number plus one.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tempfile::TempDir;

use crate::mariadb::{
    MariaDb, MariaDbOptions, PASSWORD, SYSTEM_USER, USER, initialise, own_folder,
};
use crate::process::{run, tied, wait_until};

const LIMIT: Duration = Duration::from_mins(1);
/// What the `mariadb` program works in; every server has it.
const DATABASE: &str = "mysql";

/// How a [`MariaDbCluster`] is set up.
#[derive(Debug, Clone, Default)]
pub struct MariaDbClusterOptions {
    /// How many replicas there are.
    pub replicas: usize,
    /// Further arguments of every server.
    pub arguments: Vec<String>,
}

/// A primary and its replicas, each on its own port of 127.0.0.1.
#[derive(Debug)]
pub struct MariaDbCluster {
    /// The primary as started, then the replicas.
    servers: Vec<MariaDb>,
}

impl MariaDbCluster {
    /// Starts a primary and its replicas, all at once, and waits until each replica replicates.
    pub fn start(options: &MariaDbClusterOptions) -> Result<MariaDbCluster> {
        let first = own_folder()?;
        initialise(first.path())?;
        let mut folders = Vec::new();
        for _ in 0..options.replicas {
            folders.push(copy_of(first.path())?);
        }
        folders.insert(0, first);
        let mut servers = Vec::new();
        for (number, folder) in folders.into_iter().enumerate() {
            let mut arguments = arguments(number + 1);
            arguments.extend(options.arguments.iter().cloned());
            let options = MariaDbOptions {
                fsync: false,
                arguments,
            };
            servers.push(MariaDb::open(folder, options)?);
        }
        for server in &mut servers {
            server.wait_ready()?;
        }
        let cluster = MariaDbCluster { servers };
        for number in 1..=options.replicas {
            cluster.follow(number, 0)?;
        }
        cluster.wait_caught_up(LIMIT)?;
        Ok(cluster)
    }

    /// The primary as started, whatever was promoted since.
    pub fn primary(&self) -> &MariaDb {
        self.server(0)
    }

    /// The replica of this number, from 1; it stays this one when it is promoted.
    pub fn replica(&self, number: usize) -> &MariaDb {
        assert_ne!(number, 0, "replicas are numbered from 1");
        self.server(number)
    }

    /// The server of this number: 0 is the primary as started.
    pub fn server(&self, number: usize) -> &MariaDb {
        self.servers.get(number).expect("a number of this cluster")
    }

    /// The server of this number, to kill, freeze or restart it.
    pub fn server_mut(&mut self, number: usize) -> &mut MariaDb {
        let server = self.servers.get_mut(number);
        server.expect("a number of this cluster")
    }

    /// Every server, in the order of their numbers.
    pub fn servers(&self) -> &[MariaDb] {
        &self.servers
    }

    /// Runs SQL on a server; rows as lines, columns divided by tabs.
    pub fn query(&self, number: usize, sql: &str) -> Result<String> {
        self.server(number).query(DATABASE, sql)
    }

    /// Lets a server replicate from another, from where it has come to, be it as a primary.
    pub fn follow(&self, number: usize, source: usize) -> Result<()> {
        let port = self.server(source).port();
        let sql = format!(
            "STOP SLAVE; SET GLOBAL gtid_slave_pos = @@GLOBAL.gtid_current_pos; \
             CHANGE MASTER TO MASTER_HOST = '127.0.0.1', MASTER_PORT = {port}, \
             MASTER_USER = '{USER}', MASTER_PASSWORD = '{PASSWORD}', \
             MASTER_USE_GTID = slave_pos, MASTER_CONNECT_RETRY = 1, \
             MASTER_HEARTBEAT_PERIOD = 1; START SLAVE"
        );
        self.query(number, &sql)?;
        Ok(())
    }

    /// Makes a primary of a replica, which applies what it has received first.
    ///
    /// The primary as started is not told, and the other replicas go on following that one.
    pub fn promote(&self, number: usize) -> Result<()> {
        let received = self.status(number, "Gtid_IO_Pos")?;
        if !received.is_empty() {
            let wait = format!("SELECT MASTER_GTID_WAIT('{received}', 10)");
            self.query(number, &wait)?;
        }
        let sql = "STOP SLAVE; RESET SLAVE ALL; SET GLOBAL read_only = OFF";
        self.query(number, sql)?;
        Ok(())
    }

    /// Stops the SQL thread of a replica, which goes on receiving.
    pub fn pause_replay(&self, number: usize) -> Result<()> {
        self.query(number, "STOP SLAVE SQL_THREAD")?;
        Ok(())
    }

    /// Ends [`MariaDbCluster::pause_replay`].
    pub fn resume_replay(&self, number: usize) -> Result<()> {
        self.query(number, "START SLAVE SQL_THREAD")?;
        Ok(())
    }

    /// Lets a replica apply each transaction this long after the primary made it; 0 for at once.
    pub fn set_delay(&self, number: usize, seconds: u32) -> Result<()> {
        let sql = format!("STOP SLAVE; CHANGE MASTER TO MASTER_DELAY = {seconds}; START SLAVE");
        self.query(number, &sql)?;
        Ok(())
    }

    /// Waits until every live replica has applied what the primary has committed by now.
    ///
    /// Replicas that have ended or were promoted are passed over; one that is paused or delayed is not.
    pub fn wait_caught_up(&self, limit: Duration) -> Result<()> {
        let begun = Instant::now();
        let position = self.query(0, "SELECT @@GLOBAL.gtid_binlog_pos")?;
        let position = position.trim();
        for number in 1..self.servers.len() {
            let server = self.server(number);
            if !server.is_live() || self.query(number, "SHOW ALL SLAVES STATUS")?.is_empty() {
                continue;
            }
            let what = format!("replica {number} to apply {position}");
            let left = limit.saturating_sub(begun.elapsed());
            let sql = format!("SELECT MASTER_GTID_WAIT('{position}', 1)");
            wait_until(left, &what, || {
                Ok((self.query(number, &sql)?.trim() == "0").then_some(()))
            })?;
        }
        Ok(())
    }

    /// A column of a replica's status; empty of a server that is none.
    pub fn status(&self, number: usize, column: &str) -> Result<String> {
        let server = self.server(number);
        let text = server.query_vertically(DATABASE, "SHOW ALL SLAVES STATUS")?;
        let line = text.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            (name.trim() == column).then(|| value.trim().to_owned())
        });
        Ok(line.unwrap_or_default())
    }
}

fn arguments(server_id: usize) -> Vec<String> {
    vec![
        format!("--server-id={server_id}"),
        "--log-bin=binary".to_owned(),
        "--relay-log=relay".to_owned(),
        "--log-slave-updates=ON".to_owned(),
        "--gtid-domain-id=0".to_owned(),
        "--binlog-format=ROW".to_owned(),
        // A replica that lost its source comes back quickly.
        "--slave-net-timeout=4".to_owned(),
    ]
}

/// A folder with a copy of a server's data that was never started.
fn copy_of(first: &Path) -> Result<TempDir> {
    let folder = own_folder()?;
    let mut command = tied("cp", Some(SYSTEM_USER));
    command
        .arg("-a")
        .arg(first.join("data"))
        .arg(first.join("users.sql"))
        .arg(folder.path());
    run(command.current_dir(folder.path())).context("the copy of a server's data")?;
    Ok(folder)
}
