//! A real memcached, one for each value.
//!
//! Not a client; see [`crate::TextClient`]. Invariant: the server that answers on the port is the
//! child started here, checked by its process id.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use tempfile::TempDir;

use crate::process::{Process, Signal};
use crate::text::TextClient;

const START_LIMIT: Duration = Duration::from_secs(20);

/// A running memcached on 127.0.0.1.
#[derive(Debug)]
pub struct Memcached {
    process: Process,
    arguments: Vec<String>,
    folder: TempDir,
    port: u16,
}

impl Memcached {
    /// Starts one with one thread and 64 MiB.
    pub fn new() -> Result<Memcached> {
        Memcached::start(&[])
    }

    /// Starts `count` of them.
    pub fn many(count: usize) -> Result<Vec<Memcached>> {
        (0..count).map(|_| Memcached::new()).collect()
    }

    /// Starts one with further arguments and waits until it answers.
    pub fn start(arguments: &[&str]) -> Result<Memcached> {
        let folder = tempfile::tempdir()?;
        let port = crate::free_port()?;
        let arguments: Vec<String> = arguments.iter().map(|&word| word.to_owned()).collect();
        let process = launch(&arguments, &folder, port)?;
        let mut memcached = Memcached {
            process,
            arguments,
            folder,
            port,
        };
        memcached.wait_ready()?;
        Ok(memcached)
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// `127.0.0.1:PORT`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The child process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// A connection.
    pub fn client(&self) -> Result<TextClient> {
        TextClient::connect(&self.address())
    }

    /// kill -9.
    pub fn kill9(&mut self) {
        self.process.kill();
    }

    /// Freezes the server.
    pub fn sigstop(&mut self) -> Result<()> {
        self.process.signal(Signal::Stop)
    }

    /// Ends [`Memcached::sigstop`].
    pub fn sigcont(&mut self) -> Result<()> {
        self.process.signal(Signal::Cont)
    }

    /// Starts the server again on the same port, empty.
    pub fn restart_same_port(&mut self) -> Result<()> {
        self.process.kill();
        self.process = launch(&self.arguments, &self.folder, self.port)?;
        self.wait_ready()
    }

    fn wait_ready(&mut self) -> Result<()> {
        let address = self.address();
        let child = format!("STAT pid {}\r\n", self.process.id());
        self.process.wait_ready(START_LIMIT, || {
            let mut client = TextClient::connect(&address).ok()?;
            let stats = client.call(b"stats\r\n").ok()?;
            String::from_utf8_lossy(&stats)
                .contains(&child)
                .then_some(())
        })
    }
}

fn launch(arguments: &[String], folder: &TempDir, port: u16) -> Result<Process> {
    let mut command = Command::new("memcached");
    command.args([
        "-l",
        "127.0.0.1",
        "-p",
        &port.to_string(),
        "-U",
        "0",
        "-t",
        "1",
        "-m",
        "64",
    ]);
    // As root it insists on a user to run as.
    command.args(["-u", &user()]).args(arguments);
    Process::start(&mut command, "memcached", &folder.path().join("log"))
        .context("a test needs a real memcached")
}

/// The user to run as: this one.
fn user() -> String {
    let output = Command::new("id").arg("-un").output();
    let name = output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    name.ok()
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| "nobody".to_owned())
}
