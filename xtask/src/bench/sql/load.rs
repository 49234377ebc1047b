//! The loader: pgbench, and what it prints and logs.
//!
//! Invariant: percentiles are of every transaction of a run, from pgbench's own log of them.

use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use super::cluster::{DATABASE, PASSWORD, USER, program};
use super::{Load, Measured, Script};
use crate::bench::report::median;

const READ: &str = "\\set aid random(1, 100000 * :scale)\n\
                    SELECT abalance FROM pgbench_accounts WHERE aid = :aid;\n";
const WRITE: &str = "\\set aid random(1, 100000 * :scale)\n\\set delta random(-5000, 5000)\n\
                     UPDATE pgbench_accounts SET abalance = abalance + :delta WHERE aid = :aid;\n";

/// Runs a load. The inner `Err` is a target that cannot do it, in its own words.
pub(crate) fn run(folder: &Path, port: u16, load: &Load) -> Result<Result<Measured, String>> {
    let log = folder.join("transactions");
    std::fs::create_dir_all(&log)?;
    let mut command = Command::new(program("pgbench")?);
    command
        .args(["-n", "-j", "2", "-M", load.mode])
        .args(["-c", &load.clients.to_string()])
        .args(["-T", &load.seconds.to_string()])
        .args(["-l", "--log-prefix"])
        .arg(log.join("log"))
        .args(["-s", &super::cluster::SCALE.to_string()])
        .args(scripts(folder, load.script)?)
        .args(["-h", "127.0.0.1", "-p", &port.to_string()])
        .args(["-U", USER, DATABASE]);
    let output = command
        .env("PGPASSWORD", PASSWORD)
        .env("PGSSLMODE", "disable")
        .stdin(Stdio::null())
        .output()
        .context("cannot start pgbench")?;
    let read = latencies(&log)?;
    std::fs::remove_dir_all(&log)?;
    let text = String::from_utf8_lossy(&output.stdout);
    let told = String::from_utf8_lossy(&output.stderr);
    let figure = |before: &str| number_after(&text, before);
    if figure("number of transactions actually processed: ") == Some(0.0) && told_no_error(&told) {
        return Ok(Err(
            "its time was over before all clients were connected".to_owned()
        ));
    }
    let figures = (
        figure("number of transactions actually processed: "),
        figure("latency average = "),
        figure("tps = "),
    );
    let (Some(transactions), Some(average_ms), Some(per_second)) = figures else {
        return Ok(Err(first_error(&told)));
    };
    if !output.status.success() {
        return Ok(Err(first_error(&told)));
    }
    Ok(Ok(Measured {
        transactions,
        per_second,
        average_ms,
        p50_ms: at(&read, 50),
        p99_ms: at(&read, 99),
    }))
}

fn scripts(folder: &Path, script: Script) -> Result<Vec<String>> {
    let file = |name: &str, text: &str, weight: u32| -> Result<String> {
        let path = folder.join(name);
        std::fs::write(&path, text)?;
        let mut shown = path.display().to_string();
        write!(shown, "@{weight}")?;
        Ok(shown)
    };
    Ok(match script {
        Script::Select => vec!["-S".to_owned()],
        Script::TpcB => vec!["-b".to_owned(), "tpcb-like".to_owned()],
        Script::Mix => vec![
            "-f".to_owned(),
            file("read.sql", READ, 95)?,
            "-f".to_owned(),
            file("write.sql", WRITE, 5)?,
        ],
    })
}

/// The latencies that pgbench's threads have logged, in milliseconds, from the smallest on.
fn latencies(folder: &Path) -> Result<Vec<f64>> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let text = std::fs::read_to_string(entry?.path())?;
        let third = |line: &str| line.split(' ').nth(2)?.parse::<f64>().ok();
        all.extend(text.lines().filter_map(third).map(|us| us / 1000.0));
    }
    all.sort_by(f64::total_cmp);
    Ok(all)
}

/// The figure that so many of a hundred do not exceed.
fn at(sorted: &[f64], percent: usize) -> f64 {
    if percent == 50 {
        return median(sorted.to_vec());
    }
    let index = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
    sorted.get(index).copied().unwrap_or(f64::NAN)
}

fn number_after(text: &str, before: &str) -> Option<f64> {
    let (_, rest) = text.split_once(before)?;
    let end = rest.find(|one: char| !one.is_ascii_digit() && one != '.');
    rest.get(..end.unwrap_or(rest.len()))?.parse().ok()
}

fn told_no_error(told: &str) -> bool {
    !told.contains("ERROR") && !told.contains("FATAL")
}

/// The first line that says what is wrong, without what differs from run to run.
fn first_error(told: &str) -> String {
    let line = told
        .lines()
        .find(|line| line.contains("ERROR") || line.contains("FATAL"))
        .or_else(|| told.lines().find(|line| line.contains("error")));
    let line = line.unwrap_or("pgbench ended without figures");
    let from = line.find("ERROR").or_else(|| line.find("FATAL"));
    line.get(from.unwrap_or(0)..).unwrap_or(line).to_owned()
}

#[cfg(test)]
mod tests {
    use super::{at, first_error, number_after};

    #[test]
    fn figures_are_found_in_what_pgbench_prints() {
        let text = "latency average = 1.061 ms\ntps = 15073.4 (without initial)\nprocessed: 75\n";
        assert_eq!(number_after(text, "latency average = "), Some(1.061));
        assert_eq!(number_after(text, "tps = "), Some(15073.4));
        assert_eq!(number_after(text, "processed: "), Some(75.0));
        assert_eq!(number_after(text, "nothing = "), None);
    }

    #[test]
    fn percentiles_are_of_sorted_figures() {
        let all: Vec<f64> = (1..=100).map(f64::from).collect();
        assert!((at(&all, 50) - 50.5).abs() < 1e-9 && (at(&all, 99) - 100.0).abs() < 1e-9);
        assert!(at(&[], 99).is_nan());
    }

    #[test]
    fn an_error_is_told_in_the_servers_words() {
        let told = "pgbench (15)\npgbench: error: client 3: ERROR:  no such thing\n";
        assert_eq!(first_error(told), "ERROR:  no such thing");
    }
}
