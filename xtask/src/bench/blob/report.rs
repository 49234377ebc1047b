//! Tables and files from samples.
//!
//! Invariant: a summary figure is a median over rounds, and the rounds are written out beside it.

use std::fmt::Write as _;

use anyhow::Result;
use serde_json::{Value, json};

use super::{Load, Sample, Target};
use crate::bench::report::{Page, median};

/// A size as people write it.
fn size(bytes: usize) -> String {
    match bytes {
        0..1_048_576 => format!("{} KiB", bytes / 1024),
        _ => format!("{} MiB", bytes / 1_048_576),
    }
}

/// A load in words.
pub(crate) fn title(load: &Load) -> String {
    let clients = load.clients;
    format!("{} {} by {clients}", load.verb.name(), size(load.size))
}

/// One run as a line, for the one who waits.
pub(crate) fn line(sample: &Sample) -> String {
    format!(
        "round {} {:<20} {:<10} {:>9.1}/s  p50 {:>9.3} ms  p99 {:>9.3} ms  CPU ms: proxy {:>8.3} servers {:>8.3}  peak {:>4} MiB",
        sample.round,
        title(&sample.load),
        sample.target.name(),
        sample.measured.per_second,
        sample.measured.p50_ms,
        sample.measured.p99_ms,
        sample.proxy_cpu_ms,
        sample.servers_cpu_ms,
        sample.peak_bytes >> 20,
    )
}

/// The summary as a Markdown table.
pub(crate) fn table(samples: &[Sample]) -> String {
    let mut out = String::from(
        "| test | op/s d / s / f | s ÷ d | f ÷ d | p50 ms d / s / f | p99 ms d / s / f | Breccia's CPU ms s / f | servers' CPU ms d / s | Breccia's peak MiB s / f |\n\
         |---|---|---|---|---|---|---|---|---|\n",
    );
    for load in loads(samples) {
        let figure =
            |target: Target, of: &dyn Fn(&Sample) -> f64| figure(samples, load, target, of);
        let all = |digits: usize, targets: &[Target], of: &dyn Fn(&Sample) -> f64| {
            let each = targets
                .iter()
                .map(|target| format!("{:.digits$}", figure(*target, of)));
            each.collect::<Vec<_>>().join(" / ")
        };
        let rate = |target| figure(target, &|sample| sample.measured.per_second);
        let direct = rate(Target::Direct);
        let _infallible = writeln!(
            out,
            "| {} | {} | {:.2} | {:.2} | {} | {} | {} | {} | {} |",
            title(&load),
            all(1, &Target::ALL, &|sample| sample.measured.per_second),
            rate(Target::OverS3) / direct,
            rate(Target::OverFiles) / direct,
            all(2, &Target::ALL, &|sample| sample.measured.p50_ms),
            all(2, &Target::ALL, &|sample| sample.measured.p99_ms),
            all(2, &[Target::OverS3, Target::OverFiles], &|sample| sample
                .proxy_cpu_ms),
            all(2, &[Target::Direct, Target::OverS3], &|sample| sample
                .servers_cpu_ms),
            all(0, &[Target::OverS3, Target::OverFiles], &mebibytes),
        );
    }
    out.push('\n');
    out.push_str(&ceph_table(samples));
    out
}

fn ceph_table(samples: &[Sample]) -> String {
    let mut out = String::from(
        "| Ceph RGW, one client | p50 ms c / s | s ÷ c | p99 ms c / s | Breccia's CPU ms | servers' CPU ms c / s |\n\
         |---|---|---|---|---|---|\n",
    );
    for load in loads(samples).into_iter().filter(|load| load.clients == 1) {
        let both = |of: &dyn Fn(&Sample) -> f64| {
            Target::CEPH.map(|target| figure(samples, load, target, of))
        };
        let [direct, over] = both(&|sample| sample.measured.p50_ms);
        let [direct_p99, over_p99] = both(&|sample| sample.measured.p99_ms);
        let [_, proxy] = both(&|sample| sample.proxy_cpu_ms);
        let [servers, servers_over] = both(&|sample| sample.servers_cpu_ms);
        let _infallible = writeln!(
            out,
            "| {} | {direct:.2} / {over:.2} | {:.2} | {direct_p99:.2} / {over_p99:.2} | {proxy:.2} | {servers:.2} / {servers_over:.2} |",
            title(&load),
            over / direct,
        );
    }
    out
}

/// The loads, each once, in their order.
fn loads(samples: &[Sample]) -> Vec<Load> {
    let mut seen: Vec<Load> = Vec::new();
    for load in samples.iter().map(|sample| sample.load) {
        if !seen.contains(&load) {
            seen.push(load);
        }
    }
    seen
}

/// The median of a figure over the rounds.
fn figure(samples: &[Sample], load: Load, target: Target, of: &dyn Fn(&Sample) -> f64) -> f64 {
    let same = |sample: &&Sample| sample.load == load && sample.target == target;
    median(samples.iter().filter(same).map(of).collect())
}

#[expect(clippy::cast_precision_loss, reason = "below 2^53")]
fn mebibytes(sample: &Sample) -> f64 {
    sample.peak_bytes as f64 / 1_048_576.0
}

/// Puts the table into `docs/benchmarks.md` and the rounds into a file beside it.
pub(crate) fn write(samples: &[Sample], table: &str, rounds: u32) -> Result<()> {
    let rows: Vec<Value> = samples.iter().map(row).collect();
    let page = Page {
        name: "blob",
        versions: "Garage 2.5.0 with data_fsync and metadata_fsync".to_owned(),
    };
    page.write(&rows, table, rounds)
}

fn row(sample: &Sample) -> Value {
    json!({
        "round": sample.round,
        "test": sample.load.verb.name(),
        "size": sample.load.size,
        "clients": sample.load.clients,
        "requests": sample.load.clients * sample.load.requests,
        "target": sample.target.name(),
        "per_second": sample.measured.per_second,
        "p50_ms": sample.measured.p50_ms,
        "p99_ms": sample.measured.p99_ms,
        "proxy_cpu_ms": sample.proxy_cpu_ms,
        "servers_cpu_ms": sample.servers_cpu_ms,
        "peak_bytes": sample.peak_bytes,
    })
}
