//! A real `MariaDB`, one data folder for each value.
//!
//! Not a client beyond [`MariaDb::query`], which runs `mariadb`. Nothing is set that changes what a statement
//! may be: `max_allowed_packet` is the default. Invariant: it ends with the value or with the test process.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use tempfile::TempDir;

use crate::postgres::give_to;
use crate::process::{Process, Signal, run, tied, which};

const START_LIMIT: Duration = Duration::from_mins(1);
const PACKAGE: &str = "mariadb-server";

/// Debian makes this user for it.
pub(crate) const SYSTEM_USER: &str = "mysql";

pub(crate) const USER: &str = "breccia";
pub(crate) const PASSWORD: &str = "secret";

/// How a `MariaDB` is set up.
#[derive(Debug, Clone, Default)]
pub struct MariaDbOptions {
    /// Every commit is on disk before it is answered; for tests that kill the server.
    pub fsync: bool,
    /// Further arguments of mariadbd.
    pub arguments: Vec<String>,
}

/// A running `MariaDB` on 127.0.0.1.
#[derive(Debug)]
pub struct MariaDb {
    process: Process,
    options: MariaDbOptions,
    folder: TempDir,
    port: u16,
}

impl MariaDb {
    /// Starts one without fsync.
    pub fn new() -> Result<MariaDb> {
        MariaDb::start(MariaDbOptions::default())
    }

    /// Starts `count` of them without fsync.
    pub fn many(count: usize) -> Result<Vec<MariaDb>> {
        (0..count).map(|_| MariaDb::new()).collect()
    }

    /// Makes a data folder, starts its server and waits until it answers.
    pub fn start(options: MariaDbOptions) -> Result<MariaDb> {
        let folder = own_folder()?;
        initialise(folder.path())?;
        let mut mariadb = MariaDb::open(folder, options)?;
        mariadb.wait_ready()?;
        Ok(mariadb)
    }

    /// Starts the server of a folder that is set up, and does not wait for it.
    pub(crate) fn open(folder: TempDir, options: MariaDbOptions) -> Result<MariaDb> {
        let port = crate::free_port()?;
        let process = launch(&options, folder.path(), port)?;
        Ok(MariaDb {
            process,
            options,
            folder,
            port,
        })
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// `127.0.0.1:PORT`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The Unix socket.
    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("socket")
    }

    /// The name of a user who may do everything.
    pub fn user(&self) -> &'static str {
        USER
    }

    /// That user's password.
    pub fn password(&self) -> &'static str {
        PASSWORD
    }

    /// `mysql://breccia:secret@127.0.0.1:PORT/DATABASE`.
    pub fn url(&self, database: &str) -> String {
        format!("mysql://{USER}:{PASSWORD}@{}/{database}", self.address())
    }

    /// Makes a database.
    pub fn create_database(&self, name: &str) -> Result<()> {
        self.query("mysql", &format!("CREATE DATABASE `{name}`"))?;
        Ok(())
    }

    /// Runs SQL with the `mariadb` program; rows as lines, columns divided by tabs.
    pub fn query(&self, database: &str, sql: &str) -> Result<String> {
        mariadb(self.port, database, &["-N", "-B"], sql)
    }

    /// Runs SQL with the `mariadb` program; each column on its own line, `name: value`.
    pub fn query_vertically(&self, database: &str, sql: &str) -> Result<String> {
        mariadb(self.port, database, &["-E"], sql)
    }

    /// The child process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// kill -9.
    pub fn kill9(&mut self) {
        self.process.kill();
    }

    /// Freezes the server.
    pub fn sigstop(&mut self) -> Result<()> {
        self.process.signal(Signal::Stop)
    }

    /// Ends [`MariaDb::sigstop`].
    pub fn sigcont(&mut self) -> Result<()> {
        self.process.signal(Signal::Cont)
    }

    /// Starts the server again on the same port and folder.
    pub fn restart_same_port(&mut self) -> Result<()> {
        self.process.kill();
        self.process = launch(&self.options, self.folder.path(), self.port)?;
        self.wait_ready()
    }

    /// Whether it runs, and is not frozen.
    pub fn is_live(&self) -> bool {
        let state = crate::process::state(self.process.id());
        state.is_some_and(|state| state != 'Z' && state != 'T')
    }

    /// Waits until it answers.
    pub(crate) fn wait_ready(&mut self) -> Result<()> {
        let port = self.port;
        self.process
            .wait_ready(START_LIMIT, || mariadb(port, "mysql", &[], "SELECT 1").ok())?;
        Ok(())
    }
}

fn mariadb(port: u16, database: &str, options: &[&str], sql: &str) -> Result<String> {
    let mut command = Command::new("mariadb");
    command
        .args(["--no-defaults", "--protocol=tcp", "-h", "127.0.0.1"])
        .args(["-P", &port.to_string(), "-u", USER])
        .args(options)
        .args(["-e", sql])
        .arg(database)
        .env("MYSQL_PWD", PASSWORD);
    run(&mut command)
}

/// On a busy machine the installation fails now and then.
const INSTALL_ATTEMPTS: usize = 3;

/// A new folder, which belongs to the user that servers run as.
pub(crate) fn own_folder() -> Result<TempDir> {
    let folder = tempfile::tempdir()?;
    give_to(SYSTEM_USER, folder.path())?;
    Ok(folder)
}

/// Makes the data of a server that was never started.
pub(crate) fn initialise(folder: &Path) -> Result<()> {
    // At each start, so it must not come into the binary log.
    let users = format!(
        "SET SESSION sql_log_bin = 0;\n\
         CREATE USER IF NOT EXISTS '{USER}'@'%' IDENTIFIED BY '{PASSWORD}';\n\
         GRANT ALL ON *.* TO '{USER}'@'%' WITH GRANT OPTION;\n"
    );
    std::fs::write(folder.join("users.sql"), users)?;
    let data = folder.join("data");
    let mut outcome = Ok(());
    for _ in 0..INSTALL_ATTEMPTS {
        outcome = install(folder, &data);
        if outcome.is_ok() {
            break;
        }
        // What a failed attempt has left would fail the next one.
        let _gone = std::fs::remove_dir_all(&data);
    }
    outcome
}

/// Makes the system tables.
fn install(folder: &Path, data: &Path) -> Result<()> {
    let mut command = tied("mariadb-install-db", Some(SYSTEM_USER));
    command.env("TMPDIR", folder);
    command
        .args(["--no-defaults", "--auth-root-authentication-method=normal"])
        .args(["--skip-test-db", "--skip-name-resolve"])
        // The empty tables may be lost: then the test has not begun.
        .args(["--debug-no-sync", "--innodb-flush-method=nosync"])
        .args(["--innodb-flush-log-at-trx-commit=0"])
        // Several at once may exhaust the machine's asynchronous requests.
        .args(["--innodb-use-native-aio=0"])
        .arg(format!("--datadir={}", data.display()));
    run(command.current_dir(folder)).map(drop)
}

fn launch(options: &MariaDbOptions, folder: &Path, port: u16) -> Result<Process> {
    let program = which("mariadbd")
        .with_context(|| format!("no mariadbd; install it with: apt-get install {PACKAGE}"))?;
    let at = |name: &str| folder.join(name).display().to_string();
    let mut command = tied(program, Some(SYSTEM_USER));
    command.current_dir(folder);
    // A server that starts deletes all temporary tables in its folder, those of other servers that
    // run too, and a server whose table is gone before it was opened crashes.
    command.env("TMPDIR", folder);
    command
        .args(["--no-defaults", "--bind-address=127.0.0.1"])
        .args(["--skip-name-resolve", "--max-connections=200"])
        .args(["--innodb-use-native-aio=0"])
        .arg(format!("--port={port}"))
        .arg(format!("--datadir={}", at("data")))
        .arg(format!("--socket={}", at("socket")))
        .arg(format!("--pid-file={}", at("pid")))
        .arg(format!("--init-file={}", at("users.sql")));
    let flush = u8::from(options.fsync);
    command.arg(format!("--innodb-flush-log-at-trx-commit={flush}"));
    command.args(&options.arguments);
    Process::start_tied(command, PACKAGE, &folder.join("log"))
}
