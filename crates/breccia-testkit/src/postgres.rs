//! A real `PostgreSQL`, one cluster for each value.
//!
//! Not a client beyond [`Postgres::query`], which runs `psql`. Invariant: when the value is dropped the
//! postmaster has ended its children before it ended itself, so no process and no memory segment stays.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use tempfile::TempDir;

use crate::process::{Process, Signal, is_root, run, tied, which};

const START_LIMIT: Duration = Duration::from_mins(1);
const END_LIMIT: Duration = Duration::from_secs(5);
const PACKAGE: &str = "postgresql";

/// Where Debian keeps the programs of each version.
const VERSIONS: &str = "/usr/lib/postgresql";

/// It refuses to run as root; Debian makes this user for it.
pub(crate) const SYSTEM_USER: &str = "postgres";

pub(crate) const USER: &str = "breccia";
pub(crate) const PASSWORD: &str = "secret";

/// How a `PostgreSQL` is set up.
#[derive(Debug, Clone, Default)]
pub struct PostgresOptions {
    /// Every commit is on disk before it is answered; for tests that kill the server.
    pub fsync: bool,
    /// Settings of `postgresql.conf`, name and value.
    pub settings: Vec<(String, String)>,
}

/// A running `PostgreSQL` on 127.0.0.1.
#[derive(Debug)]
pub struct Postgres {
    process: Process,
    /// What the command line says in every start, name and value.
    settings: Vec<(String, String)>,
    folder: TempDir,
    port: u16,
}

impl Postgres {
    /// Starts one without fsync.
    pub fn new() -> Result<Postgres> {
        Postgres::start(PostgresOptions::default())
    }

    /// Starts `count` of them without fsync.
    pub fn many(count: usize) -> Result<Vec<Postgres>> {
        (0..count).map(|_| Postgres::new()).collect()
    }

    /// Makes a cluster, starts its server and waits until it answers.
    pub fn start(options: PostgresOptions) -> Result<Postgres> {
        let folder = own_folder()?;
        initialise(folder.path())?;
        Postgres::open(folder, command_line(options))
    }

    /// Starts a server on the cluster in `data` of a folder that [`own_folder`] made, and waits until
    /// it answers. The settings stay for later starts; `ALTER SYSTEM` cannot change them.
    pub(crate) fn open(folder: TempDir, settings: Vec<(String, String)>) -> Result<Postgres> {
        let port = crate::free_port()?;
        let process = launch(&settings, folder.path(), port)?;
        let mut postgres = Postgres {
            process,
            settings,
            folder,
            port,
        };
        postgres.wait_ready()?;
        Ok(postgres)
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// `127.0.0.1:PORT`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The folder with the Unix socket `.s.PGSQL.PORT`.
    pub fn socket_folder(&self) -> &Path {
        self.folder.path()
    }

    /// A superuser's name.
    pub fn user(&self) -> &'static str {
        USER
    }

    /// The superuser's password, checked by SCRAM over TCP and over the socket.
    pub fn password(&self) -> &'static str {
        PASSWORD
    }

    /// `postgres://breccia:secret@127.0.0.1:PORT/DATABASE`.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://{USER}:{PASSWORD}@{}/{database}", self.address())
    }

    /// Makes a database.
    pub fn create_database(&self, name: &str) -> Result<()> {
        self.query("postgres", &format!("CREATE DATABASE \"{name}\""))?;
        Ok(())
    }

    /// Runs SQL with `psql`; rows as lines, columns divided by `|`.
    pub fn query(&self, database: &str, sql: &str) -> Result<String> {
        psql(&self.url(database), sql)
    }

    /// Everything the server has logged since its first start, restarts included.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// The file that [`Postgres::log`] reads.
    pub fn log_path(&self) -> PathBuf {
        log_path(self.folder.path())
    }

    /// Whether the postmaster runs and is not frozen.
    pub fn is_live(&self) -> bool {
        let state = crate::process::state(self.process.id());
        state.is_some_and(|state| state != 'Z' && state != 'T')
    }

    /// The postmaster.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// kill -9 of the postmaster and all its children at once.
    pub fn kill9(&mut self) {
        let children = self.process.children().unwrap_or_default();
        self.process.kill();
        // The next start refuses to run beside a child that is left.
        crate::process::kill_all(&children);
    }

    /// Freezes the postmaster: new connections get no answer, open ones go on.
    pub fn sigstop(&mut self) -> Result<()> {
        self.process.signal(Signal::Stop)
    }

    /// Ends [`Postgres::sigstop`].
    pub fn sigcont(&mut self) -> Result<()> {
        self.process.signal(Signal::Cont)
    }

    /// Freezes the postmaster and every child, so that nothing at all answers.
    pub fn freeze_all(&mut self) -> Result<()> {
        self.process.signal(Signal::Stop)?;
        self.process.signal_children(Signal::Stop)
    }

    /// Ends [`Postgres::freeze_all`].
    pub fn thaw_all(&mut self) -> Result<()> {
        self.process.signal_children(Signal::Cont)?;
        self.process.signal(Signal::Cont)
    }

    /// Starts the server again on the same port and cluster.
    pub fn restart_same_port(&mut self) -> Result<()> {
        self.end();
        self.process = launch(&self.settings, self.folder.path(), self.port)?;
        self.wait_ready()
    }

    /// Immediate shutdown: children are told to quit; a kill if even that does not help.
    fn end(&mut self) {
        if self.process.ended().is_none() {
            let _thawed = self.process.signal(Signal::Cont);
            let _thawed = self.process.signal_children(Signal::Cont);
            let _told = self.process.signal(Signal::Quit);
            let _status = self.process.wait(END_LIMIT);
        }
        self.kill9();
    }

    fn wait_ready(&mut self) -> Result<()> {
        let url = self.url("postgres");
        let own_id = self.process.id().to_string();
        let pid_file = self.folder.path().join("data/postmaster.pid");
        self.process.wait_ready(START_LIMIT, || {
            let first = std::fs::read_to_string(&pid_file).ok()?;
            (first.lines().next()? == own_id).then_some(())?;
            psql(&url, "SELECT 1").ok()
        })?;
        Ok(())
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.end();
    }
}

fn psql(url: &str, sql: &str) -> Result<String> {
    let options = ["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1"];
    run(Command::new("psql")
        .args(options)
        .args(["-d", url, "-c", sql]))
}

/// Lets a system user own a fresh folder, where this process may change users.
pub(crate) fn give_to(user: &str, folder: &Path) -> Result<()> {
    if is_root() {
        run(Command::new("chown").arg(format!("{user}:")).arg(folder))
            .with_context(|| format!("is the package of the user {user} installed?"))?;
    }
    Ok(())
}

/// A fresh folder in which a server may keep its files.
pub(crate) fn own_folder() -> Result<TempDir> {
    let folder = tempfile::tempdir()?;
    give_to(SYSTEM_USER, folder.path())?;
    Ok(folder)
}

/// A program: of the newest version that Debian has installed, or else in PATH.
pub(crate) fn program(name: &str) -> Result<PathBuf> {
    let version = |path: &Path| -> Option<u32> { path.file_name()?.to_str()?.parse().ok() };
    let installed = std::fs::read_dir(VERSIONS).ok().into_iter().flatten();
    let mut folders: Vec<PathBuf> = installed.flatten().map(|entry| entry.path()).collect();
    folders.sort_by_key(|path| version(path));
    let newest = folders
        .iter()
        .rev()
        .map(|folder| folder.join("bin").join(name))
        .find(|path| path.is_file());
    newest
        .or_else(|| which(name))
        .with_context(|| format!("no {name}; install it with: apt-get install {PACKAGE}"))
}

/// Makes a cluster in `data` of the folder; every user, replication too, comes in by SCRAM.
pub(crate) fn initialise(folder: &Path) -> Result<()> {
    let password = folder.join("password");
    std::fs::write(&password, PASSWORD)?;
    let mut command = tied(program("initdb")?, Some(SYSTEM_USER));
    command
        .args([
            "-U",
            USER,
            "-A",
            "scram-sha-256",
            "-E",
            "UTF8",
            "--locale=C",
        ])
        .args(["--no-sync", "--no-instructions", "-D"])
        .arg(folder.join("data"))
        .arg("--pwfile")
        .arg(&password);
    run(command.current_dir(folder)).map(drop)
}

/// What a server that stands alone is told.
fn command_line(options: PostgresOptions) -> Vec<(String, String)> {
    let own = [("max_connections", "200")];
    let unsafe_but_fast = [
        ("fsync", "off"),
        ("synchronous_commit", "off"),
        ("full_page_writes", "off"),
    ];
    let fast = unsafe_but_fast.iter().filter(|_| !options.fsync);
    let given = own.iter().chain(fast);
    given
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .chain(options.settings)
        .collect()
}

fn log_path(folder: &Path) -> PathBuf {
    folder.join("log")
}

fn launch(settings: &[(String, String)], folder: &Path, port: u16) -> Result<Process> {
    let mut command = tied(program("postgres")?, Some(SYSTEM_USER));
    command.current_dir(folder);
    command.arg("-D").arg(folder.join("data"));
    command.args(["-p", &port.to_string()]);
    let mut set = |name: &str, value: &str| {
        command.args(["-c", &format!("{name}={value}")]);
    };
    set("listen_addresses", "127.0.0.1");
    set("unix_socket_directories", &folder.to_string_lossy());
    // In the folder, so that nothing stays in /dev/shm whatever happens.
    set("dynamic_shared_memory_type", "mmap");
    // After a kill, one call instead of one for each of a thousand files.
    set("recovery_init_sync_method", "syncfs");
    for (name, value) in settings {
        set(name, value);
    }
    Process::start_tied(command, PACKAGE, &log_path(folder))
}
