//! Tables and files from samples.
//!
//! Invariant: a summary figure is a median over rounds, and the rounds are written out beside it.

use std::fmt::Write as _;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::{Load, Sample, Target};
use crate::bench::report::{Page, median};
use crate::process;

/// The section of `docs/benchmarks.md`, written once; below the table it is the bench's alone.
const SECTION: &str = "
## SQL read replicas of MariaDB

`cargo xtask bench mysql` makes this table. It starts a MariaDB primary and two GTID replicas on loopback
(without flushes: disks are not what is measured; 100,000 rows), and before them Breccia (release build,
`workers = 1`, splitting on, `consistency = \"session\"`, `transactions = \"lazy\"`, 16 connections to each
server). The loader is Debian's sysbench with its own scripts, with prepared statements
(`--db-ps-mode=auto`) and without (`disable`); \"95/5\" is reads and updates by key, each a statement
alone; \"PyMySQL, lazy\" is PyMySQL as it comes, with autocommit off, under READ COMMITTED, where each
read by key and its COMMIT count as one. Direct, HAProxy and Breccia take turns within every round.
Figures are medians over the rounds.

- **CPU is the figure to trust**: user and system time of the proxy, in seconds per 100,000 statements.
  Throughput and latency share the machine with sysbench and three servers.
- HAProxy (`mode tcp`, one thread, to the primary alone) reads and writes the same packets and looks at
  none: its CPU is what this machine's kernel asks of any proxy, and the measure of the machine.
- The share on replicas is that of the statements Breccia routed, by its own counters; of an explicit
  transaction it counts only the beginning. sysbench's transactions are REPEATABLE READ, MariaDB's
  default, and run on the primary.
- Latency percentiles are of all events, from sysbench's own histogram; an event of oltp_read_only or
  oltp_read_write is a whole transaction.

d is the primary alone, h HAProxy, b Breccia.

<!-- bench mysql: begin -->
<!-- bench mysql: end -->
";

fn mode(load: &Load) -> &'static str {
    if load.prepared { "prepared" } else { "text" }
}

/// A load in words.
pub(crate) fn title(load: &Load) -> String {
    format!("{} {} by {}", load.script.name(), mode(load), load.clients)
}

/// One run as a line, for the one who waits.
pub(crate) fn line(sample: &Sample) -> String {
    let (round, title) = (sample.round, title(&sample.load));
    let (target, measured) = (sample.target.name(), &sample.measured);
    format!(
        "round {round} {title:<34} {target:<8} {:>8.0} statements/s  p50 {:>7.3} p99 {:>7.3} ms  CPU s per 100k: proxy {:>6.2} servers {:>6.2}  on replicas {:>3.0} %",
        measured.per_second,
        measured.p50_ms,
        measured.p99_ms,
        sample.proxy_cpu,
        sample.servers_cpu,
        sample.share * 100.0,
    )
}

fn shown(figure: f64, digits: usize) -> String {
    if figure.is_nan() {
        return "–".to_owned();
    }
    format!("{figure:.digits$}")
}

/// The summary as a Markdown table.
pub(crate) fn table(samples: &[Sample]) -> String {
    let mut out = String::from(
        "| test | protocol | clients | statements/s d / h / b | b ÷ d | p50 ms d / h / b | p99 ms d / h / b | proxy CPU s per 100k h / b | b ÷ h | servers' CPU s per 100k d / h / b | % on replicas |\n\
         |---|---|---|---|---|---|---|---|---|---|---|\n",
    );
    let mut seen: Vec<Load> = Vec::new();
    for load in samples.iter().map(|sample| sample.load) {
        if seen.contains(&load) {
            continue;
        }
        seen.push(load);
        let of = |target: Target, figure: &dyn Fn(&Sample) -> f64| {
            let same = |it: &&Sample| it.load == load && it.target == target;
            median(samples.iter().filter(same).map(figure).collect())
        };
        let each = |digits: usize, figure: &dyn Fn(&Sample) -> f64| {
            let all = Target::ALL.map(|target| shown(of(target, figure), digits));
            all.join(" / ")
        };
        let rate = |sample: &Sample| sample.measured.per_second;
        let cpu = |sample: &Sample| sample.proxy_cpu;
        let (relay, own) = (of(Target::HaProxy, &cpu), of(Target::Breccia, &cpu));
        let ratio = of(Target::Breccia, &rate) / of(Target::Direct, &rate);
        let _infallible = writeln!(
            out,
            "| {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} |",
            load.script.name(),
            mode(&load),
            load.clients,
            each(0, &rate),
            shown(ratio, 2),
            each(2, &|sample| sample.measured.p50_ms),
            each(2, &|sample| sample.measured.p99_ms),
            [relay, own].map(|cpu| shown(cpu, 2)).join(" / "),
            shown(own / relay, 2),
            each(2, &|sample| sample.servers_cpu),
            shown(of(Target::Breccia, &|sample| sample.share * 100.0), 0),
        );
    }
    out
}

/// Puts the table into `docs/benchmarks.md` and the rounds into a file beside it.
pub(crate) fn write(samples: &[Sample], table: &str, rounds: u32, versions: String) -> Result<()> {
    let path = process::root().join("docs/benchmarks.md");
    let page = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    if !page.contains("<!-- bench mysql: begin -->") {
        std::fs::write(&path, page + SECTION)?;
    }
    let rows: Vec<Value> = samples.iter().map(row).collect();
    let page = Page {
        name: "mysql",
        versions,
    };
    page.write(&rows, table, rounds)
}

fn row(sample: &Sample) -> Value {
    json!({
        "round": sample.round,
        "test": sample.load.script.name(),
        "protocol": mode(&sample.load),
        "clients": sample.load.clients,
        "seconds": sample.load.seconds,
        "target": sample.target.name(),
        "statements": sample.measured.statements,
        "per_second": sample.measured.per_second,
        "p50_ms": sample.measured.p50_ms,
        "p99_ms": sample.measured.p99_ms,
        "proxy_cpu_s_per_100k": sample.proxy_cpu,
        "servers_cpu_s_per_100k": sample.servers_cpu,
        "share_on_replicas": sample.share,
    })
}
