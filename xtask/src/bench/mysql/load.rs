//! The loaders: sysbench, and a program of `PyMySQL`; and what they print.
//!
//! Invariant: percentiles are of every event of a run, from sysbench's own histogram of them.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::cluster::{DATABASE, PASSWORD, ROWS, USER};
use super::{Load, Measured, Script};
use crate::process::{self, which};

const MIX: &str = include_str!("mix.lua");
const TRANSACTIONS: &str = include_str!("transactions.py");

/// sysbench for the servers' table at a port; its script and its command follow.
pub(crate) fn sysbench(port: u16) -> Result<Command> {
    let program = which("sysbench").context("no sysbench; run: cargo xtask test setup")?;
    let mut command = Command::new(program);
    command
        .args(["--db-driver=mysql", "--mysql-host=127.0.0.1"])
        .arg(format!("--mysql-port={port}"))
        .arg(format!("--mysql-user={USER}"))
        .arg(format!("--mysql-password={PASSWORD}"))
        .arg(format!("--mysql-db={DATABASE}"))
        .args(["--mysql-ssl=off", "--tables=1", "--rand-type=uniform"])
        .arg(format!("--table-size={ROWS}"));
    Ok(command)
}

/// Runs a load.
pub(crate) fn run(folder: &Path, port: u16, load: &Load) -> Result<Measured> {
    let script = match load.script {
        Script::PyMysql => return transactions(folder, port, load),
        Script::Mix => {
            let path = folder.join("mix.lua");
            std::fs::write(&path, MIX)?;
            path.display().to_string()
        }
        script => script.name().to_owned(),
    };
    let mut command = sysbench(port)?;
    command
        .arg(format!("--threads={}", load.clients))
        .arg(format!("--time={}", load.seconds))
        .args(["--histogram=on", "--percentile=99"])
        .arg(if load.prepared {
            "--db-ps-mode=auto"
        } else {
            "--db-ps-mode=disable"
        })
        .arg(&script);
    if load.script == Script::Mix {
        command.args(["--point-selects=1", "--non-index-updates=1"]);
    }
    let text = process::output(command.arg("run"))?;
    let measured = read(&text);
    measured.with_context(|| format!("sysbench has printed no figures:\n{text}"))
}

/// The figures that sysbench prints.
fn read(text: &str) -> Option<Measured> {
    let line = |name: &str| text.lines().find_map(|it| it.trim().strip_prefix(name));
    // "queries: 1000 (250.00 per sec.)"
    let (statements, rest) = line("queries:")?.trim().split_once('(')?;
    let per_second = rest.split(' ').next()?;
    let histogram = histogram(text);
    Some(Measured {
        statements: statements.trim().parse().ok()?,
        per_second: per_second.parse().ok()?,
        p50_ms: at(&histogram, 0.50)?,
        p99_ms: at(&histogram, 0.99)?,
    })
}

/// The rows `value |**** count` of a histogram: milliseconds, and how many.
fn histogram(text: &str) -> Vec<(f64, f64)> {
    let row = |line: &str| -> Option<(f64, f64)> {
        let (value, rest) = line.split_once('|')?;
        let count = rest.rsplit(['*', ' ', '|']).next()?;
        Some((value.trim().parse().ok()?, count.parse().ok()?))
    };
    text.lines().filter_map(row).collect()
}

/// The value that this part of all do not exceed.
fn at(histogram: &[(f64, f64)], part: f64) -> Option<f64> {
    let all: f64 = histogram.iter().map(|(_, count)| count).sum();
    let mut below = 0.0;
    histogram.iter().find_map(|(value, count)| {
        below += count;
        (below >= all * part).then_some(*value)
    })
}

/// `PyMySQL` with autocommit off; each of its transactions counts as one statement.
fn transactions(folder: &Path, port: u16, load: &Load) -> Result<Measured> {
    let python = process::root().join("target/clients/mysql-python/bin/python");
    if !python.is_file() {
        bail!("no {}: run `cargo xtask test setup`", python.display());
    }
    let path = folder.join("transactions.py");
    std::fs::write(&path, TRANSACTIONS)?;
    let mut command = Command::new(python);
    command
        .arg(path)
        .args([&port.to_string(), USER, PASSWORD, DATABASE])
        .args([ROWS.to_string(), load.seconds.to_string()]);
    let text = process::output(&mut command)?;
    let figures: Vec<f64> = text
        .split_whitespace()
        .filter_map(|it| it.parse().ok())
        .collect();
    let [statements, p50_ms, p99_ms] = figures[..] else {
        bail!("the program has printed no figures: {text}");
    };
    Ok(Measured {
        statements,
        per_second: statements / f64::from(load.seconds),
        p50_ms,
        p99_ms,
    })
}

#[cfg(test)]
mod tests {
    use super::{at, histogram, read};

    const TEXT: &str = "Latency histogram (values are in milliseconds)\n       value  ------------- \
        distribution ------------- count\n       0.043 |                                         1\n\
        \x20      0.100 |**************************************** 90\n       1.500 |****\
        \x20                                    9\n \nSQL statistics:\n    queries performed:\n        \
        read:                            100\n    transactions:                        100    (24.99 \
        per sec.)\n    queries:                             100    (25.50 per sec.)\n";

    #[test]
    fn figures_are_found_in_what_sysbench_prints() {
        let measured = read(TEXT).expect("figures");
        assert!((measured.statements - 100.0).abs() < 1e-9);
        assert!((measured.per_second - 25.5).abs() < 1e-9);
        assert!((measured.p50_ms - 0.1).abs() < 1e-9 && (measured.p99_ms - 1.5).abs() < 1e-9);
        assert!(read("nothing").is_none());
    }

    #[test]
    fn percentiles_are_of_the_histogram() {
        assert_eq!(histogram(TEXT).len(), 3);
        assert_eq!(at(&[], 0.5), None);
    }
}
