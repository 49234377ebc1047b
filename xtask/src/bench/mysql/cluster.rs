//! The servers of the bench: a MariaDB primary and two GTID replicas, on loopback.
//!
//! Made here and not by the tests' kit, because a chore depends on nothing of the product. Without
//! flushes: the disk is not what is measured. Invariant: the servers have ended before their files go.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::bench::sql::cluster::{is_root, wait};
use crate::process::{self, Server, which};

pub(crate) const USER: &str = "bench";
pub(crate) const PASSWORD: &str = "bench";
pub(crate) const DATABASE: &str = "bench";
/// Rows of the one table.
pub(crate) const ROWS: u32 = 100_000;

/// `MariaDB` refuses to run as root; Debian makes this user.
const SYSTEM_USER: &str = "mysql";

/// A primary and its replicas.
pub(crate) struct Cluster {
    /// The primary first.
    pub(crate) servers: Vec<Server>,
}

impl Cluster {
    /// Makes and starts the servers and fills the table of sysbench.
    pub(crate) fn start(folder: &Path) -> Result<Cluster> {
        let mut cluster = Cluster {
            servers: Vec::new(),
        };
        for number in 0..3 {
            let own = folder.join(format!("my-{number}"));
            own_folder(&own)?;
            cluster.open(&own, number)?;
        }
        let port = cluster.port(0);
        for number in 1..3 {
            let follow = format!(
                "CHANGE MASTER TO MASTER_HOST = '127.0.0.1', MASTER_PORT = {port}, \
                 MASTER_USER = '{USER}', MASTER_PASSWORD = '{PASSWORD}', \
                 MASTER_USE_GTID = slave_pos; START SLAVE"
            );
            cluster.query(number, &follow)?;
        }
        cluster.query(0, &format!("CREATE DATABASE {DATABASE}"))?;
        let mut fill = super::load::sysbench(port)?;
        process::output(fill.args(["oltp_common", "prepare"]))?;
        cluster.wait_caught_up()?;
        Ok(cluster)
    }

    fn open(&mut self, folder: &Path, number: usize) -> Result<()> {
        let at = |name: &str| folder.join(name).display().to_string();
        let users = format!(
            "CREATE USER IF NOT EXISTS '{USER}'@'%' IDENTIFIED BY '{PASSWORD}';\n\
             GRANT ALL ON *.* TO '{USER}'@'%';\n"
        );
        std::fs::write(folder.join("users.sql"), users)?;
        let mut install = as_mysql("mariadb-install-db")?;
        // A server that starts deletes the temporary tables of others in the same folder.
        install.env("TMPDIR", folder);
        install
            .args(["--no-defaults", "--auth-root-authentication-method=normal"])
            .args(["--skip-test-db", "--skip-name-resolve"])
            .args(["--innodb-use-native-aio=0"])
            .arg(format!("--datadir={}", at("data")));
        process::output(&mut install)?;
        let port = process::free_port()?;
        let log = std::fs::File::create(folder.join("log"))?;
        let mut command = as_mysql("mariadbd")?;
        command.env("TMPDIR", folder);
        command
            .args(["--no-defaults", "--bind-address=127.0.0.1"])
            .args(["--skip-name-resolve", "--max-connections=400"])
            .args(["--innodb-use-native-aio=0", "--sync-binlog=0"])
            .args(["--innodb-flush-log-at-trx-commit=0"])
            .args(["--innodb-buffer-pool-size=256M"])
            .args([
                "--log-bin=bin",
                "--log-slave-updates",
                "--binlog-format=ROW",
            ])
            .args(["--gtid-strict-mode=ON"])
            .arg(format!("--server-id={}", number + 1))
            .arg(format!("--port={port}"))
            .arg(format!("--datadir={}", at("data")))
            .arg(format!("--socket={}", at("socket")))
            .arg(format!("--pid-file={}", at("pid")));
        // Whoever replicates would get the first server's user a second time.
        command.arg("--skip-slave-start");
        command.arg(format!("--init-file={}", at("users.sql")));
        self.servers.push(Server::start(command.stderr(log), port)?);
        wait("a server to answer", || {
            Ok(self.query(number, "SELECT 1").is_ok())
        })?;
        // What the server did to make its user is no part of the replication.
        self.query(number, "RESET MASTER").map(drop)
    }

    /// The port of a server; 0 is the primary.
    pub(crate) fn port(&self, number: usize) -> u16 {
        self.servers.get(number).map_or(0, |server| server.port)
    }

    /// Asks a server something.
    pub(crate) fn query(&self, number: usize, sql: &str) -> Result<String> {
        mariadb(self.port(number), sql)
    }

    /// Waits until the replicas have applied all that the primary has written.
    fn wait_caught_up(&self) -> Result<()> {
        let now = self.query(0, "SELECT @@GLOBAL.gtid_binlog_pos")?;
        let sql = format!("SELECT MASTER_GTID_WAIT('{}', 1)", now.trim());
        for number in 1..self.servers.len() {
            wait("a replica to catch up", || {
                Ok(self.query(number, &sql)?.trim() == "0")
            })?;
        }
        Ok(())
    }
}

/// Runs SQL; rows as lines, columns divided by tabs.
pub(crate) fn mariadb(port: u16, sql: &str) -> Result<String> {
    let mut command = Command::new("mariadb");
    command
        .args(["--no-defaults", "--protocol=tcp", "-h", "127.0.0.1"])
        .args(["-P", &port.to_string(), "-u", USER, "-N", "-B", "-e", sql])
        .env("MYSQL_PWD", PASSWORD);
    process::output(&mut command)
}

/// A program that ends with this process, and runs as the server's user where this one is root.
fn as_mysql(name: &str) -> Result<Command> {
    let program = which(name)
        .with_context(|| format!("no {name}; install it with: apt-get install mariadb-server"))?;
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL"]);
    if is_root() {
        let user = ["--reuid", SYSTEM_USER, "--regid", SYSTEM_USER];
        command.args(user).arg("--init-groups");
    }
    command.arg("--").arg(program);
    // Wherever this was started, that user may not look there.
    command.current_dir("/");
    Ok(command)
}

/// Makes a folder that the server's user owns.
pub(crate) fn own_folder(folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder)?;
    if is_root() {
        let owner = format!("{SYSTEM_USER}:");
        process::output(Command::new("chown").arg(owner).arg(folder))?;
    }
    Ok(())
}
