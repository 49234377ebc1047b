//! What stands before the servers: Breccia, with one worker and 16 connections to a server, and `HAProxy`
//! with one thread.
//!
//! Invariant: nothing is measured before reads go to replicas.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::Target;
use super::cluster::{Cluster, DATABASE, PASSWORD, USER, mariadb, own_folder};
use crate::bench::sql::cluster::wait;
use crate::bench::sql::rig::{Routed, breccia_routed, tree_cpu_seconds};
use crate::process::{self, Server, which};
use crate::test::setup;

/// Connections to each server.
const POOL: u32 = 16;

/// What is measured beside Breccia, and with what.
const PROGRAMS: [(&str, &str); 4] = [
    ("haproxy", "haproxy"),
    ("mariadb", "mariadb-client"),
    ("mariadbd", "mariadb-server"),
    ("sysbench", "sysbench"),
];

/// Everything running.
pub(crate) struct Rig {
    breccia: Server,
    haproxy: Server,
    admin: u16,
    cluster: Cluster,
    // Last: the files go when nobody uses them any more.
    folder: Folder,
}

struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _gone = std::fs::remove_dir_all(&self.0);
    }
}

impl Rig {
    /// Starts all servers.
    pub(crate) fn start() -> Result<Rig> {
        setup::bring(&PROGRAMS)?;
        let path = std::env::temp_dir().join(format!("breccia-bench-mysql-{}", std::process::id()));
        let folder = Folder(path);
        own_folder(&folder.0)?;
        let cluster = Cluster::start(&folder.0)?;
        let admin = process::free_port()?;
        let rig = Rig {
            breccia: breccia(&folder.0, &cluster, admin)?,
            haproxy: haproxy(&folder.0, &cluster)?,
            admin,
            cluster,
            folder,
        };
        let port = rig.port(Target::Breccia);
        wait("reads on replicas", || {
            let read = format!("SELECT c FROM {DATABASE}.sbtest1 WHERE id = 1");
            let before = rig.routed(Target::Breccia)?.standbys;
            let read = mariadb(port, &read);
            Ok(read.is_ok() && rig.routed(Target::Breccia)?.standbys > before)
        })
        .with_context(|| rig.log())?;
        Ok(rig)
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.0.join("breccia/log")).unwrap_or_default()
    }

    /// Where files of a run may lie.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder.0
    }

    /// Where a load connects.
    pub(crate) fn port(&self, target: Target) -> u16 {
        match target {
            Target::Direct => self.cluster.port(0),
            Target::HaProxy => self.haproxy.port,
            Target::Breccia => self.breccia.port,
        }
    }

    /// CPU seconds that a proxy has used; 0 for the primary alone.
    pub(crate) fn proxy_cpu(&self, target: Target) -> Result<f64> {
        match target {
            Target::Direct => Ok(0.0),
            Target::HaProxy => tree_cpu_seconds(self.haproxy.id()),
            Target::Breccia => tree_cpu_seconds(self.breccia.id()),
        }
    }

    /// CPU seconds that the three servers have used together.
    pub(crate) fn servers_cpu(&self) -> Result<f64> {
        let servers = self.cluster.servers.iter();
        servers.map(|server| tree_cpu_seconds(server.id())).sum()
    }

    /// What Breccia says of where it sent statements.
    pub(crate) fn routed(&self, target: Target) -> Result<Routed> {
        match target {
            Target::Direct | Target::HaProxy => Ok(Routed::default()),
            Target::Breccia => breccia_routed(self.admin)
                .with_context(|| format!("Breccia tells no metrics; its log:\n{}", self.log())),
        }
    }

    /// The versions of all that is not Breccia.
    pub(crate) fn versions(&self) -> Result<String> {
        let server = self.cluster.query(0, "SELECT VERSION()")?;
        let server = server.trim().split('-').next().unwrap_or("?");
        let mut sysbench = Command::new(which("sysbench").context("sysbench")?);
        let loader = process::output(sysbench.arg("--version"))?;
        let loader = loader.trim();
        let relay = process::output(Command::new("haproxy").arg("-v"))?;
        let relay = relay.split_whitespace().nth(2).unwrap_or("?");
        Ok(format!(
            "MariaDB {server} (no flushes), HAProxy {relay}, {loader}"
        ))
    }
}

fn breccia(folder: &Path, cluster: &Cluster, admin: u16) -> Result<Server> {
    let port = process::free_port()?;
    let own = folder.join("breccia");
    std::fs::create_dir_all(&own)?;
    let mut config = format!(
        "workers = 1\n\n[state]\ndir = '{}'\n\n[admin]\nbind = \"127.0.0.1:{admin}\"\n\n\
         [store.db]\ntype = \"sql-read-replica\"\nprimary = \"my-0\"\n\
         replicas = [\"my-1\", \"my-2\"]\nconsistency = \"session\"\ntransactions = \"lazy\"\n\n\
         [listener.bench]\nprotocol = \"mysql\"\nbind = \"127.0.0.1:{port}\"\n\
         store = \"db\"\npool-size = {POOL}\n\n[[listener.bench.user]]\nname = \"{USER}\"\n\
         password = \"{PASSWORD}\"\n",
        own.join("state").display()
    );
    for number in 0..cluster.servers.len() {
        write!(
            config,
            "\n[store.my-{number}]\ntype = \"mysql\"\nhost = \"127.0.0.1\"\nport = {}\n\
             user = \"{USER}\"\npassword = \"{PASSWORD}\"\n",
            cluster.port(number)
        )?;
    }
    let path = own.join("breccia.toml");
    std::fs::write(&path, config)?;
    let built = || process::built("release/breccia");
    let binary = std::env::var_os("BRECCIA_BIN").map_or_else(built, PathBuf::from);
    if !binary.is_file() {
        bail!("{} is not there: leave --no-build away", binary.display());
    }
    let mut command = Command::new(binary);
    command.args(["serve", "--config"]).arg(&path);
    let log = std::fs::File::create(own.join("log"))?;
    Server::start(command.stderr(log), port)
        .with_context(|| std::fs::read_to_string(own.join("log")).unwrap_or_default())
}

/// Passes bytes between a client and the primary, and does nothing else.
fn haproxy(folder: &Path, cluster: &Cluster) -> Result<Server> {
    let port = process::free_port()?;
    let path = folder.join("haproxy.cfg");
    let config = format!(
        "global\n    nbthread 1\n\ndefaults\n    mode tcp\n    timeout connect 5s\n    \
         timeout client 1h\n    timeout server 1h\n\nlisten primary\n    bind 127.0.0.1:{port}\n    \
         server my-0 127.0.0.1:{}\n",
        cluster.port(0)
    );
    std::fs::write(&path, config)?;
    let mut command = Command::new(which("haproxy").context("haproxy")?);
    command.arg("-db").arg("-f").arg(&path);
    let log = std::fs::File::create(folder.join("haproxy.log"))?;
    Server::start(command.stderr(log), port).context("haproxy")
}
