//! What stands before the servers: `PgBouncer`, pgpool-II and Breccia.
//!
//! Not tuned in anybody's favour: one process or worker each where there is a choice, 16 connections
//! to a server, no TLS, no log of statements. Invariant: what cannot be started is left out with words.

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::Target;
use super::cluster::{
    Cluster, DATABASE, PASSWORD, USER, as_postgres, is_root, own_folder, program, psql, wait,
};
use crate::process::{self, Server, which};
use crate::test::setup::apt;

/// Connections of a proxy to each server.
const POOL: u32 = 16;
/// pgpool-II serves each client by a process of its own.
const PGPOOL_CHILDREN: u32 = 136;

/// Statements that a proxy has sent.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Routed {
    pub(crate) all: f64,
    pub(crate) standbys: f64,
}

/// Everything running.
pub(crate) struct Rig {
    pgbouncer: Server,
    pgpool: Option<Pgpool>,
    breccia: Server,
    admin: u16,
    skipped: Vec<String>,
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
        let mut skipped = Vec::new();
        install(&mut skipped)?;
        let path = std::env::temp_dir().join(format!("breccia-bench-sql-{}", std::process::id()));
        let folder = Folder(path);
        own_folder(&folder.0)?;
        let cluster = Cluster::start(&folder.0)?;
        let pgpool = match Pgpool::start(&folder.0, &cluster) {
            Ok(pgpool) => Some(pgpool),
            Err(error) => {
                skipped.push(format!("pgpool-II was left out: {error:#}"));
                None
            }
        };
        let admin = process::free_port()?;
        let rig = Rig {
            pgbouncer: pgbouncer(&folder.0, &cluster)?,
            pgpool,
            breccia: breccia(&folder.0, &cluster, admin)?,
            admin,
            skipped,
            cluster,
            folder,
        };
        rig.wait_until_it_splits()?;
        skipped_are_told(&rig.skipped);
        Ok(rig)
    }

    /// Those that could be started.
    pub(crate) fn targets(&self) -> Vec<Target> {
        let here = |target: &Target| *target != Target::Pgpool || self.pgpool.is_some();
        Target::ALL.into_iter().filter(here).collect()
    }

    /// Why others could not.
    pub(crate) fn skipped(&self) -> &[String] {
        &self.skipped
    }

    /// Where files of a run may lie.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder.0
    }

    /// Where a load connects.
    pub(crate) fn port(&self, target: Target) -> u16 {
        self.proxy(target)
            .map_or_else(|| self.cluster.port(0), |proxy| proxy.port)
    }

    /// CPU seconds that the proxy and its children have used; 0 where there is none.
    pub(crate) fn proxy_cpu(&self, target: Target) -> Result<f64> {
        self.proxy(target)
            .map_or(Ok(0.0), |proxy| tree_cpu_seconds(proxy.id()))
    }

    /// CPU seconds that the three servers have used together.
    pub(crate) fn servers_cpu(&self) -> Result<f64> {
        let servers = self.cluster.servers.iter();
        servers.map(|server| tree_cpu_seconds(server.id())).sum()
    }

    /// What a proxy that balances says of where it sent statements.
    pub(crate) fn routed(&self, target: Target) -> Result<Routed> {
        match target {
            Target::Direct | Target::PgBouncer => Ok(Routed::default()),
            Target::Pgpool => pgpool_routed(self.port(target)),
            Target::Breccia => breccia_routed(self.admin).with_context(|| {
                let log = self.folder.0.join("breccia/log");
                let log = std::fs::read_to_string(log).unwrap_or_default();
                format!("Breccia tells no metrics; its log:\n{log}")
            }),
        }
    }

    /// The versions of all that is not Breccia.
    pub(crate) fn versions(&self) -> Result<String> {
        let mut all = vec![format!("PostgreSQL {} (fsync off)", self.server_version()?)];
        let first = |text: String| text.lines().next().unwrap_or("?").to_owned();
        let mut bouncer = Command::new(which("pgbouncer").context("pgbouncer")?);
        all.push(first(process::output(bouncer.arg("--version"))?));
        if self.pgpool.is_some() {
            let mut pgpool = Command::new(which("pgpool").context("pgpool")?);
            let output = pgpool.arg("--version").output()?;
            let text = [output.stdout, output.stderr].concat();
            let text = first(String::from_utf8_lossy(&text).into_owned());
            let name = text.split(" (").next().unwrap_or_default();
            all.push(name.replace("pgpool-II version", "pgpool-II"));
        }
        Ok(all.join(", "))
    }

    fn server_version(&self) -> Result<String> {
        let version = self.cluster.query(0, "postgres", "SHOW server_version")?;
        Ok(version.split_whitespace().next().unwrap_or("?").to_owned())
    }

    fn proxy(&self, target: Target) -> Option<&Server> {
        match target {
            Target::Direct => None,
            Target::PgBouncer => Some(&self.pgbouncer),
            Target::Pgpool => self.pgpool.as_ref().map(|pgpool| &pgpool.server),
            Target::Breccia => Some(&self.breccia),
        }
    }

    /// Breccia reads a database's catalogue when it is first met; until then all goes to the primary.
    fn wait_until_it_splits(&self) -> Result<()> {
        let sql = "SELECT abalance FROM pgbench_accounts WHERE aid = 1";
        wait("Breccia to send reads to standbys", || {
            let _answer = psql(self.breccia.port, DATABASE, sql);
            Ok(breccia_routed(self.admin)?.standbys > 0.0)
        })
    }
}

fn skipped_are_told(skipped: &[String]) {
    for line in skipped {
        println!("{line}");
    }
}

/// Installs as root what is missing. Only pgpool-II may stay away.
fn install(skipped: &mut Vec<String>) -> Result<()> {
    let mut missing = Vec::new();
    if program("pgbench").is_err() || program("postgres").is_err() {
        missing.push("postgresql");
    }
    for (name, package) in [("pgbouncer", "pgbouncer"), ("pgpool", "pgpool2")] {
        if which(name).is_none() {
            missing.push(package);
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    let shown = missing.join(" ");
    if is_root() && which("apt-get").is_some() {
        process::run(apt().arg("update"))?;
        for package in &missing {
            let install = ["install", "-y", "--no-install-recommends", package];
            if let Err(error) = process::run(apt().args(install)) {
                skipped.push(format!("{package} could not be installed: {error:#}"));
            }
        }
    } else {
        println!("missing; as root run: apt-get install -y --no-install-recommends {shown}");
    }
    if program("pgbench").is_err() || which("pgbouncer").is_none() {
        bail!("needed: postgresql and pgbouncer; missing were: {shown}");
    }
    Ok(())
}

fn pgbouncer(folder: &Path, cluster: &Cluster) -> Result<Server> {
    let port = process::free_port()?;
    let own = folder.join("pgbouncer");
    own_folder(&own)?;
    let users = own.join("users");
    // With the password itself it would derive keys for each login, which Breccia does once.
    let sql = format!("ALTER ROLE {USER} PASSWORD '{PASSWORD}'");
    cluster.query(0, "postgres", &sql)?;
    let sql = format!("SELECT rolpassword FROM pg_authid WHERE rolname = '{USER}'");
    let verifier = cluster.query(0, "postgres", &sql)?;
    std::fs::write(&users, format!("\"{USER}\" \"{}\"\n", verifier.trim()))?;
    let config = format!(
        "[databases]\n{DATABASE} = host=127.0.0.1 port={} dbname={DATABASE}\n[pgbouncer]\n\
         listen_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = scram-sha-256\n\
         auth_file = {}\npool_mode = transaction\ndefault_pool_size = {POOL}\n\
         max_client_conn = 300\nlogfile = {}\nlog_connections = 0\nlog_disconnections = 0\n",
        cluster.port(0),
        users.display(),
        own.join("log").display(),
    );
    let path = own.join("pgbouncer.ini");
    std::fs::write(&path, config)?;
    let mut command = as_postgres(which("pgbouncer").context("pgbouncer is not installed")?);
    Server::start(command.arg("-q").arg(path), port)
}

struct Pgpool {
    server: Server,
}

impl Pgpool {
    fn start(folder: &Path, cluster: &Cluster) -> Result<Pgpool> {
        let program = which("pgpool").context("it is not installed")?;
        let (port, pcp) = (process::free_port()?, process::free_port()?);
        let own = folder.join("pgpool");
        own_folder(&own)?;
        let mut config = format!(
            "backend_clustering_mode = 'streaming_replication'\nlisten_addresses = '127.0.0.1'\n\
             port = {port}\nsocket_dir = '{own}'\npcp_listen_addresses = '127.0.0.1'\n\
             pcp_port = {pcp}\npcp_socket_dir = '{own}'\npid_file_name = '{own}/pid'\n\
             logdir = '{own}'\nwork_dir = '{own}'\nnum_init_children = {PGPOOL_CHILDREN}\n\
             max_pool = 1\nenable_pool_hba = off\nload_balance_mode = on\nsr_check_user = '{USER}'\n\
             sr_check_database = 'postgres'\nhealth_check_period = 0\nuse_watchdog = off\n\
             failover_on_backend_error = off\nfailover_on_backend_shutdown = off\n",
            own = own.display(),
        );
        for number in 0..cluster.servers.len() {
            let line = format!(
                "backend_hostname{number} = '127.0.0.1'\nbackend_port{number} = {}\n\
                 backend_weight{number} = 1\nbackend_flag{number} = 'DISALLOW_TO_FAILOVER'\n",
                cluster.port(number)
            );
            config += &line;
        }
        let path = own.join("pgpool.conf");
        std::fs::write(&path, config)?;
        for name in ["pcp.conf", "pool_hba.conf", "pool_passwd"] {
            std::fs::write(own.join(name), "")?;
        }
        let mut command = as_postgres(program);
        command.arg("-n").arg("-f").arg(&path);
        command.arg("-F").arg(own.join("pcp.conf"));
        command.arg("-a").arg(own.join("pool_hba.conf"));
        let log = std::fs::File::create(own.join("log"))?;
        let server = Server::start(command.stderr(log), port)?;
        let pgpool = Pgpool { server };
        wait("pgpool-II to find primary and standbys", || {
            let rows = psql(port, DATABASE, "SHOW POOL_NODES").unwrap_or_default();
            let of = |role: &str| rows.lines().filter(|line| line.contains(role)).count();
            Ok(of("|primary") > 0 && of("|standby") == cluster.servers.len() - 1)
        })?;
        Ok(pgpool)
    }
}

impl Drop for Pgpool {
    /// Killed, it would leave its children and its shared memory behind; its own `stop` waits for a
    /// process that only its parent, which is this one, can take leave of.
    fn drop(&mut self) {
        let id = self.server.id().to_string();
        let mut interrupt = Command::new("sh");
        interrupt.args(["-c", "kill -s INT \"$0\"", &id]);
        if process::output(&mut interrupt).is_ok() {
            let _ended = wait("the end of pgpool-II", || Ok(has_ended(&id)));
        }
    }
}

/// Whether a child runs no more.
fn has_ended(id: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    let state = stat
        .rsplit_once(") ")
        .and_then(|(_, rest)| rest.chars().next());
    state.is_none_or(|state| state == 'Z')
}

fn pgpool_routed(port: u16) -> Result<Routed> {
    let rows = psql(port, DATABASE, "SHOW POOL_BACKEND_STATS")?;
    let mut routed = Routed::default();
    for row in rows.lines() {
        // Number, host, port, state, role, then counts: select, insert, update, delete. Others
        // follow, of what goes to every server alike.
        let columns: Vec<&str> = row.split('|').collect();
        let counts = columns.iter().skip(5).take(4);
        let sum: f64 = counts.filter_map(|count| count.parse::<f64>().ok()).sum();
        routed.all += sum;
        if columns.get(4) == Some(&"standby") {
            routed.standbys += sum;
        }
    }
    Ok(routed)
}

fn breccia(folder: &Path, cluster: &Cluster, admin: u16) -> Result<Server> {
    let port = process::free_port()?;
    let own = folder.join("breccia");
    std::fs::create_dir_all(&own)?;
    let mut config = format!(
        "workers = 1\n\n[state]\ndir = '{}'\n\n[admin]\nbind = \"127.0.0.1:{admin}\"\n\n\
         [store.db]\ntype = \"sql-read-replica\"\nprimary = \"pg-0\"\n\
         replicas = [\"pg-1\", \"pg-2\"]\nconsistency = \"session\"\n\n\
         [listener.bench]\nprotocol = \"postgresql\"\nbind = \"127.0.0.1:{port}\"\n\
         store = \"db\"\npool-size = {POOL}\n\n[[listener.bench.user]]\nname = \"{USER}\"\n\
         password = \"{PASSWORD}\"\n",
        own.join("state").display()
    );
    for number in 0..cluster.servers.len() {
        write!(
            config,
            "\n[store.pg-{number}]\ntype = \"postgresql\"\nhost = \"127.0.0.1\"\nport = {}\n\
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

/// What a Breccia with this admin listener says of where it sent statements.
pub(crate) fn breccia_routed(admin: u16) -> Result<Routed> {
    let mut stream = TcpStream::connect(("127.0.0.1", admin))?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let mut routed = Routed::default();
    let lines = text.lines().map(|line| line.split_once(' '));
    for (name, count) in lines.flatten() {
        if !name.starts_with("breccia_sql_routed_total{") {
            continue;
        }
        let count: f64 = count.parse()?;
        routed.all += count;
        if name.contains("target=\"replica\"") {
            routed.standbys += count;
        }
    }
    Ok(routed)
}

/// User and system seconds of a process, of those it has waited for, and of its living children.
pub(crate) fn tree_cpu_seconds(id: u32) -> Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat"))?;
    let (_, after_name) = stat.rsplit_once(')').context("no name in /proc/PID/stat")?;
    let ticks: f64 = after_name
        .split_whitespace()
        .skip(11)
        .take(4)
        .filter_map(|text| text.parse::<f64>().ok())
        .sum();
    let children = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children"))?;
    let children = children.split_whitespace().flat_map(str::parse);
    // A child that has ended in the meantime counts with its parent the next time.
    let theirs: f64 = children
        .filter_map(|child| tree_cpu_seconds(child).ok())
        .sum();
    // Linux counts these in hundredths of a second on every architecture (USER_HZ).
    Ok(ticks / 100.0 + theirs)
}
