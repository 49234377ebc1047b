//! The built `breccia` binary as a child process.
//!
//! Not the library in this process: tests see what an operator sees. Invariant: `start` returns only
//! once the gateway says it is ready.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use crate::process::{Process, Signal};

const START_LIMIT: Duration = Duration::from_secs(30);

/// A running gateway.
#[derive(Debug)]
pub struct Breccia {
    process: Process,
    folder: TempDir,
    admin: u16,
}

impl Breccia {
    /// Writes `config` (with an admin listener and a state folder added where it has none), starts
    /// the gateway and waits for `/readyz`.
    pub fn start(config: &str) -> Result<Breccia> {
        Breccia::launch(config, "/readyz", &[])
    }

    /// The same, but waits only for `/healthz`: for gateways over servers that are down.
    pub fn start_unready(config: &str) -> Result<Breccia> {
        Breccia::launch(config, "/healthz", &[])
    }

    /// The same as [`Breccia::start`] with environment variables.
    pub fn start_with(config: &str, environment: &[(&str, &str)]) -> Result<Breccia> {
        Breccia::launch(config, "/readyz", environment)
    }

    fn launch(config: &str, wait_for: &str, environment: &[(&str, &str)]) -> Result<Breccia> {
        let folder = tempfile::tempdir()?;
        let admin = crate::free_port()?;
        write_config(folder.path(), admin, config)?;
        let mut command = Command::new(binary()?);
        command
            .arg("serve")
            .arg("--config")
            .arg(folder.path().join("breccia.toml"));
        command.envs(environment.iter().copied());
        let process = Process::start(
            &mut command,
            "nothing; build it",
            &folder.path().join("log"),
        )?;
        let mut breccia = Breccia {
            process,
            folder,
            admin,
        };
        breccia.wait_for(wait_for)?;
        Ok(breccia)
    }

    /// Waits until an admin path answers 200.
    pub fn wait_for(&mut self, path: &str) -> Result<()> {
        let admin = self.admin;
        self.process.wait_ready(START_LIMIT, || {
            http(admin, "GET", path)
                .ok()
                .filter(|(status, _)| *status == 200)
                .map(drop)
        })
    }

    /// The admin port, if the config left it to the testkit.
    pub fn admin_port(&self) -> u16 {
        self.admin
    }

    /// The body of an admin page, whatever its status.
    pub fn admin(&self, path: &str) -> Result<(u16, String)> {
        http(self.admin, "GET", path)
    }

    /// The value of a metric whose line starts with `name` (labels included), 0 when absent.
    pub fn metric(&self, name: &str) -> Result<f64> {
        let (_, body) = self.admin("/metrics")?;
        let line = body.lines().find(|line| line.starts_with(name));
        let value = line.and_then(|line| line.rsplit(' ').next()).unwrap_or("0");
        Ok(value.parse()?)
    }

    /// Replaces the config file and asks for a reload by POST; the answer's status and body.
    pub fn reload(&self, config: &str) -> Result<(u16, String)> {
        write_config(self.folder.path(), self.admin, config)?;
        http(self.admin, "POST", "/reload")
    }

    /// Replaces the config file and asks for a reload by SIGHUP; `/status` shows what comes of it.
    pub fn hang_up(&mut self, config: &str) -> Result<()> {
        write_config(self.folder.path(), self.admin, config)?;
        self.process.signal(Signal::Hup)
    }

    /// The path of the config file.
    pub fn config_path(&self) -> PathBuf {
        self.folder.path().join("breccia.toml")
    }

    /// The state folder, if the config left it to the testkit.
    pub fn state_folder(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    /// The child process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Everything it printed so far.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// SIGTERM, then waits for the end.
    pub fn terminate(&mut self, limit: Duration) -> Result<ExitStatus> {
        self.process.signal(Signal::Term)?;
        self.process.wait(limit)
    }

    /// Ends the gateway, if it runs, and starts it again over the same state folder with another
    /// config.
    pub fn restart(&mut self, config: &str) -> Result<()> {
        self.restart_until(config, "/readyz")
    }

    /// The same, but waits only for `/healthz`: for gateways over servers that are down.
    pub fn restart_unready(&mut self, config: &str) -> Result<()> {
        self.restart_until(config, "/healthz")
    }

    fn restart_until(&mut self, config: &str, path: &str) -> Result<()> {
        if self.process.ended().is_none() {
            self.terminate(Duration::from_secs(20))?;
        }
        write_config(self.folder.path(), self.admin, config)?;
        let mut command = Command::new(binary()?);
        command.arg("serve").arg("--config").arg(self.config_path());
        self.process = Process::start(
            &mut command,
            "nothing; build it",
            &self.folder.path().join("log"),
        )?;
        self.wait_for(path)
    }

    /// Ends the gateway and tries to start it with a config that must be refused: exit status and
    /// everything printed.
    pub fn restart_refused(&mut self, config: &str) -> Result<(ExitStatus, String)> {
        if self.process.ended().is_none() {
            self.terminate(Duration::from_secs(20))?;
        }
        write_config(self.folder.path(), self.admin, config)?;
        let config = self.config_path();
        let mut command = Command::new(binary()?);
        command.arg("serve").arg("--config").arg(config);
        ended(&mut command, &self.folder.path().join("refused.log"))
    }

    /// Runs `breccia` with these arguments to its end, in `folder`.
    pub fn run(folder: &Path, arguments: &[&str]) -> Result<Output> {
        let mut command = Command::new(binary()?);
        command.args(arguments).current_dir(folder);
        command.output().context("cannot run breccia")
    }

    /// Starts `serve` with a config that must be refused; exit status and everything printed.
    pub fn refused(config: &str) -> Result<(ExitStatus, String)> {
        let folder = tempfile::tempdir()?;
        write_config(folder.path(), crate::free_port()?, config)?;
        let mut command = Command::new(binary()?);
        command
            .arg("serve")
            .arg("--config")
            .arg(folder.path().join("breccia.toml"));
        ended(&mut command, &folder.path().join("log"))
    }
}

fn ended(command: &mut Command, log: &Path) -> Result<(ExitStatus, String)> {
    let _absent = std::fs::remove_file(log);
    let mut process = Process::start(command, "nothing; build it", log)?;
    let status = process
        .wait(Duration::from_secs(15))
        .context("it was expected to refuse")?;
    Ok((status, process.log()))
}

fn write_config(folder: &Path, admin: u16, config: &str) -> Result<()> {
    let mut text = config.to_owned();
    if !text.contains("[admin]") {
        writeln!(text, "\n[admin]\nbind = \"127.0.0.1:{admin}\"")?;
    }
    if !text.contains("[state]") {
        writeln!(
            text,
            "\n[state]\ndir = '{}'",
            folder.join("state").display()
        )?;
    }
    let path = folder.join("breccia.toml");
    std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// The built binary: `BRECCIA_BIN`, what Cargo says, or beside the test's own target folder.
pub fn binary() -> Result<PathBuf> {
    for name in ["BRECCIA_BIN", "CARGO_BIN_EXE_breccia"] {
        if let Some(path) = std::env::var_os(name) {
            return Ok(path.into());
        }
    }
    let test = std::env::current_exe()?;
    let beside = test
        .ancestors()
        .skip(1)
        .map(|folder| folder.join("breccia"));
    match beside.take(3).find(|path| path.is_file()) {
        Some(path) => Ok(path),
        None => bail!("the binary is not built: run `cargo build`, or set BRECCIA_BIN to its path"),
    }
}

/// One HTTP/1.0 request to a local port: status and body.
pub fn http(port: u16, method: &str, path: &str) -> Result<(u16, String)> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
    );
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer);
    let status = answer
        .split(' ')
        .nth(1)
        .context("no HTTP answer")?
        .parse()?;
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    Ok((status, body.to_owned()))
}
