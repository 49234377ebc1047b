//! Runs other programs: to their end, or as servers that die with the value that holds them.
//!
//! Not a supervisor. Invariant: a server started here is gone when its [`Server`] is dropped.

use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// The folder of the workspace.
pub(crate) fn root() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest).to_owned()
}

/// A program that cargo has built, `release/breccia` for one.
pub(crate) fn built(path: &str) -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR");
    target
        .map_or_else(|| root().join("target"), PathBuf::from)
        .join(path)
}

/// A program's path in PATH, if it is installed.
pub(crate) fn which(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|folder| folder.join(program))
        .find(|candidate| candidate.is_file())
}

/// Whether `cargo NAME` is an installed command.
pub(crate) fn cargo_has(name: &str) -> bool {
    let probe = Command::new("cargo").args([name, "--version"]).output();
    probe.is_ok_and(|output| output.status.success())
}

/// A loopback port that was free a moment ago.
pub(crate) fn free_port() -> Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

/// A running server.
pub(crate) struct Server {
    child: Child,
    pub(crate) port: u16,
}

impl Server {
    /// Starts a program and waits until it accepts connections on `port`.
    pub(crate) fn start(command: &mut Command, port: u16) -> Result<Server> {
        let program = command.get_program().to_string_lossy().into_owned();
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .with_context(|| format!("cannot start {program}; is its package installed?"))?;
        let mut server = Server { child, port };
        let begun = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            if let Some(status) = server.child.try_wait()? {
                bail!("{program} ended at once ({status})");
            }
            if begun.elapsed() > Duration::from_secs(20) {
                bail!("{program} does not accept connections on port {port}");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(server)
    }

    /// The process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// User and system time of the whole process so far, in seconds.
    pub(crate) fn cpu_seconds(&self) -> Result<f64> {
        cpu_seconds_of(self.child.id())
    }

    /// The most memory it has had resident since the last [`Server::forget_peak`], in bytes.
    pub(crate) fn peak_resident_bytes(&self) -> Result<u64> {
        self.status_bytes("VmHWM:")
    }

    /// The memory it has resident now, in bytes.
    pub(crate) fn resident_bytes(&self) -> Result<u64> {
        self.status_bytes("VmRSS:")
    }

    fn status_bytes(&self, name: &'static str) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let text = line
            .and_then(|rest| rest.split_whitespace().next())
            .context(name)?;
        Ok(text.parse::<u64>()? * 1024)
    }

    /// Begins to measure [`Server::peak_resident_bytes`] anew.
    pub(crate) fn forget_peak(&self) {
        // Where the kernel does not allow it, the peak is of the whole run.
        let _ignored = std::fs::write(format!("/proc/{}/clear_refs", self.child.id()), "5");
    }

    /// Starts a plain redis-server that writes nothing to disk.
    pub(crate) fn redis(folder: &Path) -> Result<Server> {
        let port = free_port()?;
        let mut command = Command::new("redis-server");
        command.args([
            "--port",
            &port.to_string(),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
        ]);
        command
            .args(["--appendonly", "no"])
            .arg("--dir")
            .arg(folder);
        Server::start(&mut command, port)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _status = self.child.wait();
    }
}

/// User and system time of a whole process so far, in seconds.
pub(crate) fn cpu_seconds_of(id: u32) -> Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat"))?;
    let after_name = stat
        .rsplit_once(')')
        .context("no name in /proc/PID/stat")?
        .1;
    let ticks = |field: usize| -> Result<f64> {
        let text = after_name
            .split_whitespace()
            .nth(field)
            .context("a short /proc/PID/stat")?;
        Ok(text.parse()?)
    };
    // Linux counts these in hundredths of a second on every architecture (USER_HZ).
    Ok((ticks(11)? + ticks(12)?) / 100.0)
}

/// Runs a program to its end with this process's own output; an error if it fails.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let shown = shown(command);
    let status = command
        .status()
        .with_context(|| format!("cannot start {shown}"))?;
    if !status.success() {
        bail!("{shown}: {status}");
    }
    Ok(())
}

/// Runs a program to its end and returns its standard output; an error shows its standard error.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let shown = shown(command);
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start {shown}"))?;
    if !output.status.success() {
        bail!(
            "{shown}: {}\n{}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words
        .map(|word| word.to_string_lossy().into_owned())
        .collect::<Vec<_>>()
        .join(" ")
}
