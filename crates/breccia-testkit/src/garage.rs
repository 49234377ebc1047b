//! A real S3 server: Garage, one process, where its program is present.
//!
//! Debian has no package of it; `cargo install garage` takes minutes, so tests that use it ask
//! [`Garage::present`] first. It ignores conditional writes (`If-None-Match` overwrites silently), which is
//! what start-up probes have to find out. Invariant: it ends with the value or with the test process.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use tempfile::TempDir;

use crate::process::{Process, Signal, tied, which};
use crate::s3_server::S3Server;

const START_LIMIT: Duration = Duration::from_secs(30);
const ACCESS_KEY: &str = "GK0123456789abcdef01234567";
const SECRET_KEY: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
const REGION: &str = "garage";

/// The bucket that is there from the start.
const FIRST_BUCKET: &str = "first";

/// How a Garage is set up.
#[derive(Debug, Clone, Copy, Default)]
pub struct GarageOptions {
    /// Data and metadata are on disk before a write is answered.
    pub fsync: bool,
}

/// A running Garage on 127.0.0.1.
#[derive(Debug)]
pub struct Garage {
    process: Process,
    folder: TempDir,
    port: u16,
    server: S3Server,
}

impl Garage {
    /// The program: `GARAGE_BIN`, the one that `cargo xtask test setup` names, or one in PATH.
    pub fn program() -> Option<PathBuf> {
        let named = std::env::var_os("GARAGE_BIN").map(PathBuf::from);
        let built = crate::clients_folder().join("garage/bin/garage");
        named
            .or_else(|| Some(built).filter(|path| path.is_file()))
            .or_else(|| which("garage"))
    }

    /// Whether there is a program to start.
    pub fn present() -> bool {
        Garage::program().is_some()
    }

    /// Starts one without fsync.
    pub fn new() -> Result<Garage> {
        Garage::start(GarageOptions::default())
    }

    /// Starts one and waits until its key can sign requests.
    pub fn start(options: GarageOptions) -> Result<Garage> {
        let folder = tempfile::tempdir()?;
        let (port, rpc_port) = (crate::free_port()?, crate::free_port()?);
        write_config(folder.path(), options, port, rpc_port)?;
        let process = launch(folder.path())?;
        let server = S3Server::local(port, ACCESS_KEY, SECRET_KEY, REGION);
        let mut garage = Garage {
            process,
            folder,
            port,
            server,
        };
        garage.wait_ready()?;
        Ok(garage)
    }

    /// Where it is and how to sign.
    pub fn s3(&self) -> &S3Server {
        &self.server
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
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

    /// Ends [`Garage::sigstop`].
    pub fn sigcont(&mut self) -> Result<()> {
        self.process.signal(Signal::Cont)
    }

    /// Starts the server again on the same port and folder.
    pub fn restart_same_port(&mut self) -> Result<()> {
        self.process.kill();
        self.process = launch(self.folder.path())?;
        self.wait_ready()
    }

    fn wait_ready(&mut self) -> Result<()> {
        let server = self.server.clone();
        self.process.wait_ready(START_LIMIT, || {
            let reply = server.call("HEAD", &format!("/{FIRST_BUCKET}"), &[], b"");
            (reply.ok()?.status == 200).then_some(())
        })
    }
}

fn launch(folder: &Path) -> Result<Process> {
    let program = Garage::program().context(
        "no garage program; build it with: cargo install garage --locked --version 2.5.0 \
         --no-default-features --features bundled-libs,sqlite,lmdb --root target/clients/garage",
    )?;
    let mut command = tied(program, None);
    command
        .arg("-c")
        .arg(folder.join("garage.toml"))
        .args(["server", "--single-node", "--default-bucket"])
        .env("GARAGE_DEFAULT_ACCESS_KEY", ACCESS_KEY)
        .env("GARAGE_DEFAULT_SECRET_KEY", SECRET_KEY)
        .env("GARAGE_DEFAULT_BUCKET", FIRST_BUCKET)
        .env("RUST_LOG", "garage=warn");
    Process::start_tied(command, "nothing; build it", &folder.join("log"))
}

fn write_config(folder: &Path, options: GarageOptions, port: u16, rpc_port: u16) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    let (at, fsync) = (folder.display(), options.fsync);
    let text = format!(
        "metadata_dir = '{at}/meta'\ndata_dir = '{at}/data'\ndb_engine = 'sqlite'\n\
         metadata_fsync = {fsync}\ndata_fsync = {fsync}\nreplication_factor = 1\n\
         rpc_bind_addr = '127.0.0.1:{rpc_port}'\nrpc_public_addr = '127.0.0.1:{rpc_port}'\n\
         rpc_secret = '{SECRET_KEY}'\n\n\
         [s3_api]\ns3_region = '{REGION}'\napi_bind_addr = '127.0.0.1:{port}'\n"
    );
    let path = folder.join("garage.toml");
    std::fs::write(&path, text)?;
    // It refuses a file with its secret that others may read.
    Ok(std::fs::set_permissions(
        &path,
        std::fs::Permissions::from_mode(0o600),
    )?)
}
