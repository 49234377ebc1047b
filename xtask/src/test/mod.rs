//! `cargo xtask test`: everything that must hold before a change is taken, on one machine.
//!
//! CI runs exactly this. Each step prints its own progress; the last line alone sums up. Invariant: a
//! missing server or client library is a failure, never a skipped test.

pub(crate) mod setup;

use std::fmt::Write as _;
use std::io::{BufRead, BufReader};
use std::num::NonZero;
use std::process::{Command, Stdio};
use std::thread::JoinHandle;
use std::time::Instant;

use anyhow::{Context, Result, anyhow, bail};

use crate::{commands, process, tidy};

/// What the steps came to.
#[derive(Debug, Default)]
struct Tally {
    passed: u64,
    failed: u64,
    failures: Vec<String>,
}

impl Tally {
    fn step(&mut self, name: &str, work: impl FnOnce() -> Result<()>) {
        println!("==> {name}");
        let begun = Instant::now();
        self.ended(name, begun, work());
    }

    fn ended(&mut self, name: &str, begun: Instant, outcome: Result<()>) {
        match outcome {
            Ok(()) => {
                self.passed += 1;
                println!("==> {name}: good, {:.0} s", begun.elapsed().as_secs_f64());
            }
            Err(error) => {
                self.failed += 1;
                println!("==> {name}: FAILED: {error:#}");
                self.failures.push(name.to_owned());
            }
        }
    }
}

/// What the tests need is brought in while the workspace is built: the one waits for the network and for
/// disks, the other for processors.
struct SettingUp {
    begun: Instant,
    thread: JoinHandle<Result<()>>,
}

impl SettingUp {
    fn begin() -> Self {
        println!("==> setup, beside the next steps");
        Self {
            begun: Instant::now(),
            thread: std::thread::spawn(setup::run),
        }
    }
}

fn finish(setting_up: Option<SettingUp>, tally: &mut Tally) {
    if let Some(SettingUp { begun, thread }) = setting_up {
        let outcome = thread.join();
        let outcome = outcome.unwrap_or_else(|_| Err(anyhow!("it panicked")));
        tally.ended("setup", begun, outcome);
    }
}

/// Runs all steps, or only those whose names are given.
pub(crate) fn run(only: &[&str]) -> Result<()> {
    let begun = Instant::now();
    let mut tally = Tally::default();
    let names = [
        "setup",
        "fmt",
        "tidy",
        "build",
        "clippy",
        "doc",
        "generated",
        "tests",
    ];
    if let Some(unknown) = only.iter().find(|name| !names.contains(name)) {
        bail!(
            "no step is called {unknown:?}; there are: {}",
            names.join(", ")
        );
    }
    let mut setting_up = None;
    for name in names
        .iter()
        .filter(|name| only.is_empty() || only.contains(*name))
    {
        match *name {
            "setup" => setting_up = Some(SettingUp::begin()),
            "fmt" => tally.step(name, || cargo(&["fmt", "--all", "--check"])),
            "tidy" => tally.step(name, || tidy::run().and_then(|()| tidy::deny())),
            "build" => {
                tally.step(name, || {
                    cargo(&["build", "--locked", "--workspace", "--all-targets"])
                });
            }
            "clippy" => tally.step(name, || {
                cargo(&[
                    "clippy",
                    "--locked",
                    "--workspace",
                    "--all-targets",
                    "--",
                    "-Dwarnings",
                ])
            }),
            "doc" => tally.step(name, doc),
            "generated" => tally.step(name, || commands::run(&["--check"])),
            _ => {
                finish(setting_up.take(), &mut tally);
                tests(&mut tally)?;
            }
        }
    }
    finish(setting_up, &mut tally);
    let mut summary = format!("==> all steps: {:.0} s", begun.elapsed().as_secs_f64());
    if !tally.failures.is_empty() {
        write!(summary, "; failed: {}", tally.failures.join(", "))?;
    }
    println!("{summary}");
    println!("{} passed, {} failed", tally.passed, tally.failed);
    if tally.failed > 0 {
        std::process::exit(1);
    }
    Ok(())
}

fn cargo(arguments: &[&str]) -> Result<()> {
    process::run(
        Command::new("cargo")
            .args(arguments)
            .current_dir(process::root()),
    )
}

fn doc() -> Result<()> {
    process::run(
        Command::new("cargo")
            .args(["doc", "--locked", "--workspace", "--no-deps"])
            .env("RUSTDOCFLAGS", "-Dwarnings")
            .current_dir(process::root()),
    )
}

/// On few cores so many tests run beside each other for each of them, and up to `FEW` in all: most of a
/// test's time is waiting for servers.
const TESTS_PER_CORE: usize = 2;
const FEW: usize = 8;

/// How many tests run beside each other, unless `RUST_TEST_THREADS` says otherwise.
fn test_threads() -> String {
    std::env::var("RUST_TEST_THREADS").unwrap_or_else(|_| {
        let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
        (cores * TESTS_PER_CORE).min(cores.max(FEW)).to_string()
    })
}

/// Runs the tests of the workspace and adds up what each test program says of itself.
fn tests(tally: &mut Tally) -> Result<()> {
    println!("==> tests");
    let mut child = Command::new("cargo")
        .args(["test", "--locked", "--workspace", "--no-fail-fast"])
        .env("BRECCIA_TEST_CLIENTS", setup::clients_folder())
        .env("RUST_TEST_THREADS", test_threads())
        .current_dir(process::root())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start cargo")?;
    let output = child.stdout.take().context("cargo's output")?;
    let (mut passed, mut failed) = (0, 0);
    for line in BufReader::new(output).lines() {
        let line = line?;
        println!("{line}");
        if let Some((more_passed, more_failed)) = result_line(&line) {
            passed += more_passed;
            failed += more_failed;
        }
    }
    let status = child.wait()?;
    // A test program that does not build, or crashes, prints no result line.
    if !status.success() && failed == 0 {
        failed = 1;
    }
    if passed == 0 {
        failed += 1;
        println!("==> tests: no test ran");
    }
    if failed > 0 {
        tally.failures.push("tests".to_owned());
    }
    tally.passed += passed;
    tally.failed += failed;
    Ok(())
}

/// Passed and failed of `test result: ok. 5 passed; 0 failed; …`.
fn result_line(line: &str) -> Option<(u64, u64)> {
    let rest = line.trim_start().strip_prefix("test result: ")?;
    let number_before = |word: &str| -> Option<u64> {
        rest.split(word)
            .next()?
            .trim_end()
            .rsplit(' ')
            .next()?
            .parse()
            .ok()
    };
    Some((number_before(" passed")?, number_before(" failed")?))
}

#[cfg(test)]
mod tests {
    use super::result_line;

    #[test]
    fn result_lines_are_read() {
        let check = |line, wanted| assert_eq!(result_line(line), wanted, "{line}");
        check(
            "test result: ok. 5 passed; 0 failed; 1 ignored; 0 measured",
            Some((5, 0)),
        );
        check(
            "test result: FAILED. 12 passed; 3 failed; 0 ignored",
            Some((12, 3)),
        );
        check("test a::b ... ok", None);
    }
}
