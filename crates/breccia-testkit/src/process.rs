//! A child process with signals, ended when dropped.
//!
//! Not a supervisor: nothing is restarted by itself. Invariant: no process started here outlives its
//! [`Process`], however the test ends, short of a kill -9 of the test itself.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// A signal that tests send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// Ask to end.
    Term,
    /// Re-read the configuration.
    Hup,
    /// End at once.
    Kill,
    /// Freeze.
    Stop,
    /// Thaw.
    Cont,
}

/// A running child process.
#[derive(Debug)]
pub struct Process {
    child: Child,
    name: String,
    log: PathBuf,
}

impl Process {
    /// Starts `command`, its standard output and error going to `log`.
    ///
    /// `package` is the Debian package that has the program, for the message when it is missing.
    pub fn start(command: &mut Command, package: &str, log: &Path) -> Result<Process> {
        let name = command.get_program().to_string_lossy().into_owned();
        let file = File::options().create(true).append(true).open(log)?;
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .with_context(|| {
                format!("cannot start {name}; install it with: apt-get install {package}")
            })?;
        Ok(Process {
            child,
            name,
            log: log.to_owned(),
        })
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Everything it printed so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Sends a signal.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        let word = match signal {
            Signal::Term => "TERM",
            Signal::Hup => "HUP",
            Signal::Stop => "STOP",
            Signal::Cont => "CONT",
            Signal::Kill => return self.child.kill().context("kill"),
        };
        // The shell's own `kill`: the program of that name is not on every machine.
        let status = Command::new("sh")
            .args(["-c", "kill -s \"$0\" \"$1\"", word, &self.id().to_string()])
            .status()?;
        if !status.success() {
            bail!("cannot send {word} to {} ({})", self.name, self.id());
        }
        Ok(())
    }

    /// The exit status, if it has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Waits for the end.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        wait_until(limit, &format!("the end of {}", self.name), || {
            Ok(self.child.try_wait()?)
        })
    }

    /// Kills with SIGKILL and waits for the end.
    pub fn kill(&mut self) {
        let _gone = self.child.kill();
        let _status = self.child.wait();
    }

    /// Waits until `probe` gives a value; fails at once when the process ends first.
    pub fn wait_ready<T>(
        &mut self,
        limit: Duration,
        mut probe: impl FnMut() -> Option<T>,
    ) -> Result<T> {
        let what = format!("{} to be ready", self.name);
        let outcome = wait_until(limit, &what, || match (self.child.try_wait()?, probe()) {
            (Some(status), _) => bail!("{} ended at once ({status})", self.name),
            (None, value) => Ok(value),
        });
        outcome.with_context(|| format!("its output:\n{}", self.log()))
    }

    /// User and system time used so far, in seconds, from `/proc`.
    pub fn cpu_seconds(&self) -> Result<f64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.id()))?;
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

    /// Resident memory in bytes, from `/proc`.
    pub fn resident_bytes(&self) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let text = line
            .and_then(|rest| rest.split_whitespace().next())
            .context("no VmRSS")?;
        Ok(text.parse::<u64>()? * 1024)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let tail = log.lines().rev().take(20).collect::<Vec<_>>();
            eprintln!("--- last lines of {} ({})", self.name, self.id());
            tail.iter().rev().for_each(|line| eprintln!("    {line}"));
        }
        self.kill();
    }
}

/// Calls `probe` until it gives a value, for at most `limit`.
pub fn wait_until<T>(
    limit: Duration,
    what: &str,
    mut probe: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let begun = Instant::now();
    loop {
        if let Some(value) = probe()? {
            return Ok(value);
        }
        if begun.elapsed() > limit {
            bail!("waited {limit:?} for {what}");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}
