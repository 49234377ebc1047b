//! The servers of the bench: a PostgreSQL primary and two streaming standbys, on loopback.
//!
//! Made here and not by the tests' kit, because a chore depends on nothing of the product. Without
//! fsync: the disk is not what is measured. Invariant: the servers have ended before their files go.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::process::{self, Server, which};

pub(crate) const USER: &str = "bench";
pub(crate) const PASSWORD: &str = "bench";
pub(crate) const DATABASE: &str = "bench";
/// 100,000 accounts each.
pub(crate) const SCALE: u32 = 10;

/// `PostgreSQL` and `PgBouncer` refuse to run as root; Debian makes this user.
const SYSTEM_USER: &str = "postgres";
/// Where Debian keeps the programs of each version.
const VERSIONS: &str = "/usr/lib/postgresql";

const SETTINGS: &str = "\nlisten_addresses = '127.0.0.1'\nmax_connections = 400\nfsync = off\n\
    wal_level = replica\nhot_standby = on\nwal_keep_size = '256MB'\nmax_wal_size = '4GB'\n\
    shared_buffers = '256MB'\ndynamic_shared_memory_type = mmap\nlogging_collector = off\n";

/// A primary and its standbys.
pub(crate) struct Cluster {
    /// The primary first.
    pub(crate) servers: Vec<Server>,
    folders: Vec<PathBuf>,
}

impl Cluster {
    /// Makes and starts the servers and fills the tables of pgbench.
    pub(crate) fn start(folder: &Path) -> Result<Cluster> {
        let mut cluster = Cluster {
            servers: Vec::new(),
            folders: Vec::new(),
        };
        let first = folder.join("pg-0");
        own_folder(&first)?;
        let options = [
            "-U",
            USER,
            "-A",
            "trust",
            "-E",
            "UTF8",
            "--locale=C",
            "-N",
            "-D",
        ];
        let mut initdb = as_postgres(program("initdb")?);
        process::output(initdb.args(options).arg(first.join("data")))?;
        let settings = first.join("data/postgresql.conf");
        let text = std::fs::read_to_string(&settings)? + SETTINGS;
        std::fs::write(&settings, text)?;
        cluster.open(first)?;
        cluster.query(0, "postgres", &format!("CREATE DATABASE {DATABASE}"))?;
        let port = cluster.port(0).to_string();
        for number in 1..=2 {
            let copy = folder.join(format!("pg-{number}"));
            own_folder(&copy)?;
            let mut backup = as_postgres(program("pg_basebackup")?);
            backup.args(["-R", "-X", "stream", "-c", "fast", "-N", "-D"]);
            backup.arg(copy.join("data"));
            process::output(backup.args(["-h", "127.0.0.1", "-p", &port, "-U", USER]))?;
            cluster.open(copy)?;
        }
        let scale = SCALE.to_string();
        let mut fill = Command::new(program("pgbench")?);
        fill.args(["-i", "-q", "-s", &scale, "-h", "127.0.0.1", "-p", &port]);
        process::output(fill.args(["-U", USER, DATABASE]))?;
        cluster.wait_caught_up()?;
        Ok(cluster)
    }

    fn open(&mut self, folder: PathBuf) -> Result<()> {
        let port = process::free_port()?;
        let log = std::fs::File::create(folder.join("log"))?;
        let mut command = as_postgres(program("postgres")?);
        command
            .args(["-p", &port.to_string(), "-k"])
            .arg(&folder)
            .arg("-D")
            .arg(folder.join("data"));
        self.servers.push(Server::start(command.stderr(log), port)?);
        self.folders.push(folder);
        let number = self.servers.len() - 1;
        wait("a server to answer", || {
            Ok(self.query(number, "postgres", "SELECT 1").is_ok())
        })
    }

    /// The port of a server; 0 is the primary.
    pub(crate) fn port(&self, number: usize) -> u16 {
        self.servers.get(number).map_or(0, |server| server.port)
    }

    /// Asks a server something.
    pub(crate) fn query(&self, number: usize, database: &str, sql: &str) -> Result<String> {
        psql(self.port(number), database, sql)
    }

    /// Waits until the standbys have replayed all that the primary has written.
    fn wait_caught_up(&self) -> Result<()> {
        let now = self.query(0, "postgres", "SELECT pg_current_wal_flush_lsn()")?;
        let sql = format!("SELECT pg_last_wal_replay_lsn() >= '{}'", now.trim());
        for number in 1..self.servers.len() {
            wait("a standby to catch up", || {
                Ok(self.query(number, "postgres", &sql)?.trim() == "t")
            })?;
        }
        Ok(())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let Ok(pg_ctl) = program("pg_ctl") else {
            return;
        };
        for folder in &self.folders {
            let mut command = as_postgres(pg_ctl.clone());
            command.args(["stop", "-w", "-m", "immediate", "-D"]);
            let _ended = process::output(command.arg(folder.join("data")));
        }
    }
}

/// Runs SQL; rows as lines, columns divided by `|`.
pub(crate) fn psql(port: u16, database: &str, sql: &str) -> Result<String> {
    let mut command = Command::new(program("psql")?);
    command.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1"]);
    command.args(["-h", "127.0.0.1", "-p", &port.to_string()]);
    command.args(["-U", USER, "-d", database, "-c", sql]);
    command
        .env("PGPASSWORD", PASSWORD)
        .env("PGSSLMODE", "disable");
    process::output(&mut command)
}

/// Waits until something is so, for a minute at most.
pub(crate) fn wait(what: &str, mut is_so: impl FnMut() -> Result<bool>) -> Result<()> {
    let begun = Instant::now();
    while !is_so()? {
        if begun.elapsed() > Duration::from_mins(1) {
            bail!("waited a minute for {what}");
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// A program of the newest PostgreSQL that Debian has installed, or else in PATH.
pub(crate) fn program(name: &str) -> Result<PathBuf> {
    let version = |path: &Path| -> Option<u32> { path.file_name()?.to_str()?.parse().ok() };
    let installed = std::fs::read_dir(VERSIONS).ok().into_iter().flatten();
    let folders = installed.flatten().map(|entry| entry.path());
    let newest = folders
        .filter(|folder| folder.join("bin").join(name).is_file())
        .max_by_key(|folder| version(folder));
    newest
        .map(|folder| folder.join("bin").join(name))
        .or_else(|| which(name))
        .with_context(|| format!("no {name}; install it with: apt-get install postgresql"))
}

/// A program that ends with this process, and runs as PostgreSQL's user where this one is root.
pub(crate) fn as_postgres(program: PathBuf) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL"]);
    if is_root() {
        command.args([
            "--reuid",
            SYSTEM_USER,
            "--regid",
            SYSTEM_USER,
            "--init-groups",
        ]);
    }
    command.arg("--").arg(program);
    // Wherever this was started, that user may not look there.
    command.current_dir("/");
    command
}

/// Makes a folder that PostgreSQL's user owns.
pub(crate) fn own_folder(folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder)?;
    if is_root() {
        let owner = format!("{SYSTEM_USER}:");
        process::output(Command::new("chown").arg(owner).arg(folder))?;
    }
    Ok(())
}

pub(crate) fn is_root() -> bool {
    process::output(Command::new("id").arg("-u")).is_ok_and(|id| id.trim() == "0")
}
