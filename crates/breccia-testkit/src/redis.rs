//! A real redis-server, one for each value.
//!
//! Not a client; see [`crate::RespClient`]. Invariant: the server that answers on the port is the
//! child started here, checked by its process id.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use tempfile::TempDir;

use crate::certificates::Certificates;
use crate::process::{Process, Signal};
use crate::resp::RespClient;

const START_LIMIT: Duration = Duration::from_secs(20);

/// How a Redis is set up.
#[derive(Debug, Clone, Default)]
pub struct RedisOptions {
    /// Listens with TLS on a further port, with these files.
    pub tls: Option<Certificates>,
    /// Clients must show a certificate of the same authority.
    pub tls_clients: bool,
    /// Listens on a Unix socket too.
    pub unix_socket: bool,
    /// Password of the default user.
    pub password: Option<String>,
    /// Further users, in the words of ACL SETUSER: `"app on >secret ~* &* +@all"`.
    pub users: Vec<String>,
    /// Every write is on disk before it is answered.
    pub append_only: bool,
    /// Further arguments of redis-server.
    pub arguments: Vec<String>,
}

/// A running redis-server on 127.0.0.1.
#[derive(Debug)]
pub struct Redis {
    process: Process,
    options: RedisOptions,
    folder: TempDir,
    port: u16,
    tls_port: Option<u16>,
}

impl Redis {
    /// Starts a plain one.
    pub fn new() -> Result<Redis> {
        Redis::start(RedisOptions::default())
    }

    /// Starts `count` plain ones.
    pub fn many(count: usize) -> Result<Vec<Redis>> {
        (0..count).map(|_| Redis::new()).collect()
    }

    /// Starts one and waits until it answers.
    pub fn start(options: RedisOptions) -> Result<Redis> {
        let folder = tempfile::tempdir()?;
        let port = crate::free_port()?;
        let tls_port = options
            .tls
            .as_ref()
            .map(|_| crate::free_port())
            .transpose()?;
        let process = launch(&options, folder.path(), port, tls_port)?;
        let mut redis = Redis {
            process,
            options,
            folder,
            port,
            tls_port,
        };
        redis.wait_ready()?;
        Ok(redis)
    }

    /// The plain port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The TLS port, if there is one.
    pub fn tls_port(&self) -> Option<u16> {
        self.tls_port
    }

    /// `127.0.0.1:PORT`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// `redis://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("redis://{}", self.address())
    }

    /// The Unix socket, present with [`RedisOptions::unix_socket`].
    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("redis.sock")
    }

    /// The child process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// A connection, logged in where a password is set.
    pub fn client(&self) -> Result<RespClient> {
        let mut client = RespClient::connect(&self.address())?;
        if let Some(password) = &self.options.password {
            client.expect_ok(&[b"AUTH", password.as_bytes()])?;
        }
        Ok(client)
    }

    /// kill -9.
    pub fn kill9(&mut self) {
        self.process.kill();
    }

    /// Freezes the server: its socket still accepts bytes, nothing answers.
    pub fn sigstop(&mut self) -> Result<()> {
        self.process.signal(Signal::Stop)
    }

    /// Ends [`Redis::sigstop`].
    pub fn sigcont(&mut self) -> Result<()> {
        self.process.signal(Signal::Cont)
    }

    /// Starts the server again on the same port and folder, after [`Redis::kill9`].
    pub fn restart_same_port(&mut self) -> Result<()> {
        self.process.kill();
        self.process = launch(&self.options, self.folder.path(), self.port, self.tls_port)?;
        self.wait_ready()
    }

    fn wait_ready(&mut self) -> Result<()> {
        let address = self.address();
        let password = self.options.password.clone();
        let child = format!("process_id:{}\r", self.process.id());
        self.process.wait_ready(START_LIMIT, || {
            let mut client = RespClient::connect(&address).ok()?;
            if let Some(password) = &password {
                client.expect_ok(&[b"AUTH", password.as_bytes()]).ok()?;
            }
            let info = client.call(&[b"INFO", b"server"]).ok()?;
            String::from_utf8_lossy(&info)
                .contains(&child)
                .then_some(())
        })
    }
}

fn launch(
    options: &RedisOptions,
    folder: &Path,
    port: u16,
    tls_port: Option<u16>,
) -> Result<Process> {
    let mut command = Command::new("redis-server");
    command.args([
        "--port",
        &port.to_string(),
        "--bind",
        "127.0.0.1",
        "--save",
        "",
    ]);
    command.args(["--loglevel", "warning", "--enable-debug-command", "yes"]);
    command.arg("--dir").arg(folder);
    if options.append_only {
        command.args(["--appendonly", "yes", "--appendfsync", "always"]);
    }
    if options.unix_socket {
        command.arg("--unixsocket").arg(folder.join("redis.sock"));
    }
    if let (Some(files), Some(tls_port)) = (&options.tls, tls_port) {
        command.args(["--tls-port", &tls_port.to_string()]);
        command.arg("--tls-cert-file").arg(&files.server_cert);
        command.arg("--tls-key-file").arg(&files.server_key);
        command.arg("--tls-ca-cert-file").arg(&files.ca);
        command.args([
            "--tls-auth-clients",
            if options.tls_clients { "yes" } else { "no" },
        ]);
    }
    if let Some(password) = &options.password {
        command.args(["--requirepass", password]);
    }
    for user in &options.users {
        command.arg("--user").args(user.split(' '));
    }
    command.args(&options.arguments);
    Process::start(&mut command, "redis-server", &folder.join("log"))
        .context("a test needs a real Redis")
}
