//! Tables and files from samples.
//!
//! Invariant: a summary figure is a median over rounds, and the rounds are written out beside it; a
//! round without figures makes its cell say so.

use std::fmt::Write as _;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::{Load, Sample, Target};
use crate::bench::report::{Page, median};
use crate::process;

/// The section of `docs/benchmarks.md`, written once; below the table it is the bench's alone.
const SECTION: &str = "
## SQL read replicas

`cargo xtask bench sql` makes this table. It starts a PostgreSQL primary and two streaming standbys on
loopback (without fsync: disks are not what is measured; 1,000,000 accounts), and before them PgBouncer
(transaction mode, the primary only), pgpool-II (balancing over the three, 136 children) and Breccia
(release build, `workers = 1`, splitting on, `consistency = \"session\"`). PgBouncer and Breccia keep 16
connections to each server, and their clients log in by SCRAM. The loader is `pgbench -j 2`, in each of its query modes; \"select\" is its
`-S`, \"tpcb\" its TPC-B-like transaction, \"95/5\" reads and updates by key, each a statement alone.
All take turns within every round. Figures are medians over the rounds.

- **CPU is the figure to trust**: user and system time of the proxy's processes, in seconds per 100,000
  transactions. Throughput and latency share the machine with pgbench and three servers.
- The share on replicas is that of the statements a proxy sent, by its own counters; of an explicit
  transaction Breccia counts only its beginning. PgBouncer knows one server. pgpool-II picks a server for
  a session's reads when the session begins, the primary too; it promises nothing about their freshness.
- Latency percentiles are of all transactions, from pgbench's own log.

d is the primary alone, p PgBouncer, g pgpool-II, b Breccia; \"b ÷ p\" and \"b ÷ g\" compare CPU.

<!-- bench sql: begin -->
<!-- bench sql: end -->
";

/// A load in words.
pub(crate) fn title(load: &Load) -> String {
    let (script, mode) = (load.script.name(), load.mode);
    format!("{script} {mode} by {}", load.clients)
}

/// One run as a line, for the one who waits.
pub(crate) fn line(sample: &Sample) -> String {
    let (round, title) = (sample.round, title(&sample.load));
    let target = sample.target.name();
    match &sample.measured {
        Err(why) => format!("round {round} {title:<22} {target:<9} no figures: {why}"),
        Ok(measured) => format!(
            "round {round} {title:<22} {target:<9} {:>8.0} tps  average {:>7.3} p50 {:>7.3} p99 {:>7.3} ms  CPU s per 100k: proxy {:>6.2} servers {:>6.2}  on replicas {:>3.0} %",
            measured.per_second,
            measured.average_ms,
            measured.p50_ms,
            measured.p99_ms,
            sample.proxy_cpu,
            sample.servers_cpu,
            sample.share * 100.0,
        ),
    }
}

/// A figure of one load, by target.
struct Row<'a> {
    samples: &'a [Sample],
    load: Load,
}

impl Row<'_> {
    /// The median; not a number if a round has none.
    fn median(&self, target: Target, figure: &dyn Fn(&Sample) -> f64) -> f64 {
        let same = |sample: &&Sample| sample.load == self.load && sample.target == target;
        let figures: Vec<f64> = self.samples.iter().filter(same).map(figure).collect();
        if figures.iter().any(|figure| figure.is_nan()) {
            return f64::NAN;
        }
        median(figures)
    }

    fn cells(&self, digits: usize, targets: &[Target], figure: &dyn Fn(&Sample) -> f64) -> String {
        let each = targets
            .iter()
            .map(|target| shown(self.median(*target, figure), digits));
        each.collect::<Vec<_>>().join(" / ")
    }

    /// What the same transactions cost in the simple mode.
    fn simple(&self) -> Row<'_> {
        Row {
            samples: self.samples,
            load: Load {
                mode: "simple",
                ..self.load
            },
        }
    }
}

fn shown(figure: f64, digits: usize) -> String {
    if figure.is_nan() {
        return "–".to_owned();
    }
    format!("{figure:.digits$}")
}

fn of(sample: &Sample, figure: impl Fn(&super::Measured) -> f64) -> f64 {
    sample.measured.as_ref().map_or(f64::NAN, figure)
}

/// The summary as a Markdown table, and below it what could not be measured.
pub(crate) fn table(samples: &[Sample], skipped: &[String]) -> String {
    let mut out = String::from(
        "| test | mode | clients | tps d / p / g / b | p50 ms d / p / g / b | p99 ms d / p / g / b | proxy CPU s per 100k p / g / b | b ÷ p | b ÷ g | servers' CPU s per 100k d / p / g / b | % on replicas g / b |\n\
         |---|---|---|---|---|---|---|---|---|---|---|\n",
    );
    let mut seen: Vec<Load> = Vec::new();
    for load in samples.iter().map(|sample| sample.load) {
        if seen.contains(&load) {
            continue;
        }
        seen.push(load);
        let row = Row { samples, load };
        let cpu = |sample: &Sample| sample.proxy_cpu;
        let breccia = row.median(Target::Breccia, &cpu);
        let bouncer = row.median(Target::PgBouncer, &cpu);
        let beside = if bouncer.is_nan() {
            let simple = row.simple().median(Target::PgBouncer, &cpu);
            format!("{} of simple", shown(breccia / simple, 2))
        } else {
            shown(breccia / bouncer, 2)
        };
        let all = &Target::ALL;
        let [_, proxies @ ..] = all;
        let balancers = [Target::Pgpool, Target::Breccia];
        let _infallible = writeln!(
            out,
            "| {} | {} | {} | {} | {} | {} | {} | {beside} | {} | {} | {} |",
            load.script.name(),
            load.mode,
            load.clients,
            row.cells(0, all, &|sample| of(sample, |it| it.per_second)),
            row.cells(2, all, &|sample| of(sample, |it| it.p50_ms)),
            row.cells(2, all, &|sample| of(sample, |it| it.p99_ms)),
            row.cells(2, proxies, &cpu),
            shown(breccia / row.median(Target::Pgpool, &cpu), 2),
            row.cells(2, all, &|sample| sample.servers_cpu),
            row.cells(0, &balancers, &|sample| sample.share * 100.0),
        );
    }
    out.push_str(&notes(samples, skipped));
    out
}

/// What is missing in the table and why.
fn notes(samples: &[Sample], skipped: &[String]) -> String {
    let mut lines: Vec<String> = skipped.iter().map(|line| format!("- {line}")).collect();
    for sample in samples {
        let Err(why) = &sample.measured else {
            continue;
        };
        let (target, mode) = (sample.target.name(), sample.load.mode);
        let hint = match (sample.target, mode) {
            (Target::PgBouncer, "prepared") => {
                " (its transaction mode knows prepared statements from release 1.21 on); \"b ÷ p\" \
                 compares with its simple mode there"
            }
            _ => "",
        };
        let script = sample.load.script.name();
        let about = match hint {
            "" => format!("{target}, {script} {mode}"),
            _ => format!("{target}, {mode}"),
        };
        let line = format!("- {about}: no figures: {}{hint}.", without_numbers(why));
        if !lines.contains(&line) {
            lines.push(line);
        }
    }
    if lines.is_empty() {
        return String::new();
    }
    format!("\n{}\n", lines.join("\n"))
}

/// Names that differ from run to run, such as `P_7`, look alike.
fn without_numbers(text: &str) -> String {
    let mut out = String::new();
    for one in text.chars() {
        match one {
            '0'..='9' if out.ends_with('N') => {}
            '0'..='9' => out.push('N'),
            _ => out.push(one),
        }
    }
    out
}

/// Puts the table into `docs/benchmarks.md` and the rounds into a file beside it.
pub(crate) fn write(samples: &[Sample], table: &str, rounds: u32, versions: String) -> Result<()> {
    let path = process::root().join("docs/benchmarks.md");
    let page = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    if !page.contains("<!-- bench sql: begin -->") {
        std::fs::write(&path, page + SECTION)?;
    }
    let rows: Vec<Value> = samples.iter().map(row).collect();
    let page = Page {
        name: "sql",
        versions,
    };
    page.write(&rows, table, rounds)
}

fn row(sample: &Sample) -> Value {
    let mut row = json!({
        "round": sample.round,
        "test": sample.load.script.name(),
        "mode": sample.load.mode,
        "clients": sample.load.clients,
        "seconds": sample.load.seconds,
        "target": sample.target.name(),
    });
    let figures = match &sample.measured {
        Err(why) => json!({ "failed": why }),
        Ok(measured) => json!({
            "transactions": measured.transactions,
            "per_second": measured.per_second,
            "average_ms": measured.average_ms,
            "p50_ms": measured.p50_ms,
            "p99_ms": measured.p99_ms,
            "proxy_cpu_s_per_100k": sample.proxy_cpu,
            "servers_cpu_s_per_100k": sample.servers_cpu,
            "share_on_replicas": sample.share,
        }),
    };
    if let (Some(row), Value::Object(figures)) = (row.as_object_mut(), figures) {
        row.extend(figures);
    }
    row
}

#[cfg(test)]
mod tests {
    use super::without_numbers;

    #[test]
    fn errors_that_differ_in_numbers_are_one() {
        assert_eq!(without_numbers("\"P_10\" of 2"), "\"P_N\" of N");
    }
}
