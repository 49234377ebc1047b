//! The Redis load: redis-benchmark, and its figures.
//!
//! Invariant: redis-benchmark stops at the first error reply, so every request counted was answered.

use std::process::Command;

use anyhow::{Context, Result};

use super::rig::KEYS;
use super::{Load, Measured, Wire};
use crate::process;

/// One run of redis-benchmark with 50 clients.
pub(crate) fn run(port: u16, load: &Load) -> Result<Measured> {
    let mut command = Command::new("redis-benchmark");
    command.args(["-h", "127.0.0.1", "-c", "50", "--csv"]);
    command.args(["-p", &port.to_string(), "-P", &load.depth.to_string()]);
    command.args(["-n", &load.requests.to_string(), "-r", &KEYS.to_string()]);
    if load.wire == Wire::RedisTls {
        command.args(["--tls", "--insecure"]);
    }
    match load.test {
        "SET" => command.args(["-t", "set"]),
        "GET" => command.args(["-t", "get"]),
        _ => command.arg("MGET").args(["key:__rand_int__"; 10]),
    };
    let output = process::output(&mut command)?;
    figures(&output).with_context(|| format!("redis-benchmark printed:\n{output}"))
}

/// Rate, p50 and p99 from the line after the heading.
fn figures(output: &str) -> Result<Measured> {
    let mut lines = output
        .lines()
        .skip_while(|line| !line.starts_with("\"test\""));
    let columns = |line: &str| -> Vec<String> {
        line.split("\",\"")
            .map(|cell| cell.trim_matches('"').to_owned())
            .collect()
    };
    let heading = columns(lines.next().context("no heading")?);
    let row = columns(lines.next().context("no figures")?);
    let number = |name: &str| -> Result<f64> {
        let column = heading
            .iter()
            .position(|column| column == name)
            .context("no such column")?;
        Ok(row.get(column).context("a short line")?.parse()?)
    };
    Ok(Measured {
        per_second: number("rps")?,
        p50_ms: number("p50_latency_ms")?,
        p99_ms: number("p99_latency_ms")?,
    })
}

#[cfg(test)]
mod tests {
    use super::figures;

    #[test]
    fn figures_are_read() {
        let output = "\"test\",\"rps\",\"avg_latency_ms\",\"min_latency_ms\",\"p50_latency_ms\",\"p95_latency_ms\",\"p99_latency_ms\",\"max_latency_ms\"\n\
                      \"SET\",\"50000.00\",\"0.7\",\"0.1\",\"0.615\",\"1.2\",\"2.5\",\"9.0\"\n";
        let measured = figures(output).unwrap();
        assert!((measured.per_second - 50_000.0).abs() < 0.1);
        assert!((measured.p50_ms - 0.615).abs() < 0.001 && (measured.p99_ms - 2.5).abs() < 0.001);
    }
}
