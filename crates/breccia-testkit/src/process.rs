//! A child process with signals, ended when dropped.
//!
//! Not a supervisor: nothing is restarted by itself. Invariant: no process started here outlives its
//! [`Process`], however the test ends, short of a kill -9 of the test itself; one that is made by
//! [`tied`] does not outlive even that.

use std::ffi::OsStr;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError, mpsc};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// A signal that tests send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// Ask to end.
    Term,
    /// Re-read the configuration.
    Hup,
    /// Ask to end at once.
    Quit,
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
        redirect(command, log)?;
        Process::of(command.spawn(), name, package, log)
    }

    /// Starts a command that [`tied`] made, from a thread that lives as long as the test process.
    pub fn start_tied(mut command: Command, package: &str, log: &Path) -> Result<Process> {
        redirect(&mut command, log)?;
        let words = std::iter::once(command.get_program()).chain(command.get_args());
        let program = words.skip_while(|word| *word != "--").nth(1);
        let name = program.map_or_else(String::new, |word| word.to_string_lossy().into_owned());
        Process::of(launch(command), name, package, log)
    }

    fn of(
        child: std::io::Result<Child>,
        name: String,
        package: &str,
        log: &Path,
    ) -> Result<Process> {
        let child = child.with_context(|| {
            format!("cannot start {name}; install it with: apt-get install {package}")
        })?;
        let log = log.to_owned();
        Ok(Process { child, name, log })
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Everything it printed so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Sends a signal. Who is stopped stands still once this returns.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        match signal {
            Signal::Kill => self.child.kill().context("kill"),
            _ => send(signal, self.id()).with_context(|| self.name.clone()),
        }
    }

    /// Sends a signal to every child of the process.
    pub fn signal_children(&mut self, signal: Signal) -> Result<()> {
        for id in self.children()? {
            // A child may have ended since.
            let _sent = send(signal, id);
        }
        Ok(())
    }

    /// The process ids of its children, from `/proc`.
    pub fn children(&self) -> Result<Vec<u32>> {
        let id = self.id();
        let text = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children"))?;
        Ok(text.split_whitespace().flat_map(str::parse).collect())
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

fn send(signal: Signal, id: u32) -> Result<()> {
    let word = match signal {
        Signal::Term => "TERM",
        Signal::Hup => "HUP",
        Signal::Quit => "QUIT",
        Signal::Kill => "KILL",
        Signal::Stop => "STOP",
        Signal::Cont => "CONT",
    };
    // The shell's own `kill`: the program of that name is not on every machine.
    let status = Command::new("sh")
        .args(["-c", "kill -s \"$0\" \"$1\"", word, &id.to_string()])
        .stderr(Stdio::null())
        .status()?;
    if !status.success() {
        bail!("cannot send {word} to {id}");
    }
    if signal == Signal::Stop {
        // Its threads stop one after the other; until the last has, it may still answer.
        let what = format!("{id} to stand still");
        return wait_until(Duration::from_secs(10), &what, || {
            Ok(stands_still(id).then_some(()))
        });
    }
    Ok(())
}

/// Whether no thread of a process runs.
fn stands_still(id: u32) -> bool {
    let Ok(tasks) = std::fs::read_dir(format!("/proc/{id}/task")) else {
        return true;
    };
    tasks.flatten().all(|task| {
        let state = state_in(&task.path().join("stat"));
        state.is_none_or(|state| "TtZX".contains(state))
    })
}

/// Kills processes that are not children of this one and waits until they run no more.
pub(crate) fn kill_all(ids: &[u32]) {
    for id in ids {
        let _sent = send(Signal::Kill, *id);
    }
    let _gone = wait_until(Duration::from_secs(5), "killed processes", || {
        Ok((!ids.iter().any(|id| runs(*id))).then_some(()))
    });
}

/// Whether a process of this id runs; one that has ended and waits for its parent does not.
pub fn runs(id: u32) -> bool {
    state(id).is_some_and(|state| state != 'Z')
}

/// The kernel's letter for what a process does: `T` frozen, `Z` ended and not yet waited for.
pub(crate) fn state(id: u32) -> Option<char> {
    state_in(Path::new(&format!("/proc/{id}/stat")))
}

fn state_in(stat: &Path) -> Option<char> {
    let stat = std::fs::read_to_string(stat).ok()?;
    let (_, state) = stat.rsplit_once(") ")?;
    state.chars().next()
}

fn redirect(command: &mut Command, log: &Path) -> Result<()> {
    let file = File::options().create(true).append(true).open(log)?;
    command
        .stdin(Stdio::null())
        .stdout(file.try_clone()?)
        .stderr(file);
    Ok(())
}

/// `program`, run by `setpriv` so that the kernel sends it SIGKILL when this process has ended.
///
/// With `user`, it runs as that user where this process may change users (as root), and as the
/// user of this process otherwise.
pub fn tied(program: impl AsRef<OsStr>, user: Option<&str>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL"]);
    if let Some(user) = user.filter(|_| is_root()) {
        command.args(["--reuid", user, "--regid", user, "--init-groups"]);
    }
    command.arg("--").arg(program);
    command
}

/// Runs a command to its end; its standard output, or an error with everything it printed.
pub fn run(command: &mut Command) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start {name}; `cargo xtask test setup` installs it"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr);
        bail!("{command:?}: {}\n{text}{errors}", output.status);
    }
    Ok(text)
}

/// Whether this process may become another user.
pub(crate) fn is_root() -> bool {
    static ROOT: OnceLock<bool> = OnceLock::new();
    *ROOT.get_or_init(|| {
        let output = Command::new("id").arg("-u").output();
        output.is_ok_and(|output| output.stdout.trim_ascii() == b"0")
    })
}

/// A program's path in PATH or in the folders of system programs.
pub(crate) fn which(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|folder| folder.join(program))
        .find(|candidate| candidate.is_file())
}

type Order = (Command, mpsc::Sender<std::io::Result<Child>>);

/// Starts a command from one thread that never ends: the kernel's signal comes at the end of the
/// thread that started the child, and a test's thread may end long before its process does.
fn launch(command: Command) -> std::io::Result<Child> {
    static LAUNCHER: OnceLock<Mutex<mpsc::Sender<Order>>> = OnceLock::new();
    let launcher = LAUNCHER.get_or_init(|| {
        let (sender, orders) = mpsc::channel::<Order>();
        std::thread::spawn(move || {
            for (mut command, answer) in orders {
                let _nobody_waits = answer.send(command.spawn());
            }
        });
        Mutex::new(sender)
    });
    let gone = || std::io::Error::other("the launching thread has ended");
    let (answer, child) = mpsc::channel();
    let sent = launcher
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .send((command, answer));
    sent.map_err(|_| gone())?;
    child.recv().map_err(|_| gone())?
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
