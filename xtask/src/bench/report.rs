//! Tables and files from samples.
//!
//! Invariant: a summary figure is a median over rounds, and the rounds are written out beside it.

use std::fmt::Write as _;
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::{Load, Sample, Target, Wire};
use crate::process;

/// One run as a line, for the one who waits.
pub(crate) fn line(sample: &Sample) -> String {
    format!(
        "round {} {:>7} depth {:>2} {:<10} {:>9.0}/s  p50 {:>7.3} ms  p99 {:>7.3} ms  CPU s per 1M: proxy {:>6.2} servers {:>6.2}",
        sample.round,
        sample.load.test,
        sample.load.depth,
        sample.target.name(),
        sample.measured.per_second,
        sample.measured.p50_ms,
        sample.measured.p99_ms,
        sample.proxy_cpu,
        sample.servers_cpu,
    )
}

/// The summary as a Markdown table.
pub(crate) fn table(samples: &[Sample]) -> String {
    let mut out = String::from(
        "| test | depth | op/s d / n / b / b2 | p50 ms d / n / b / b2 | p99 ms d / n / b / b2 | proxy CPU s per 1M n / b / b2 | b ÷ n | servers' CPU s per 1M d / n / b / b2 |\n\
         |---|---|---|---|---|---|---|---|\n",
    );
    let mut seen: Vec<(Wire, &str, u32)> = Vec::new();
    for Load {
        wire, test, depth, ..
    } in samples.iter().map(|sample| sample.load)
    {
        if seen.contains(&(wire, test, depth)) {
            continue;
        }
        seen.push((wire, test, depth));
        let median = |target: Target, figure: &dyn Fn(&Sample) -> f64| {
            let same = |sample: &&Sample| {
                let Load {
                    wire: own,
                    test: of,
                    ..
                } = sample.load;
                (own, of, sample.load.depth, sample.target) == (wire, test, depth, target)
            };
            median(samples.iter().filter(same).map(figure).collect())
        };
        let each = |targets: &[Target], digits: usize, figure: &dyn Fn(&Sample) -> f64| {
            let figures = targets.iter().map(|target| {
                let median = median(*target, figure);
                if median.is_nan() {
                    return "–".to_owned();
                }
                format!("{median:.digits$}")
            });
            figures.collect::<Vec<_>>().join(" / ")
        };
        let all = |digits, figure| each(&Target::ALL, digits, figure);
        let proxies = Target::ALL.get(1..).unwrap_or_default();
        let nutcracker = median(Target::Nutcracker, &|sample| sample.proxy_cpu);
        let breccia = median(Target::Breccia, &|sample| sample.proxy_cpu);
        let name = match wire {
            Wire::Redis => "",
            Wire::RedisTls => "TLS ",
            Wire::Memcached => "memcached ",
        };
        let ratio = if nutcracker.is_nan() {
            "–".to_owned()
        } else {
            format!("{:.2}", breccia / nutcracker)
        };
        let _infallible = writeln!(
            out,
            "| {name}{test} | {depth} | {} | {} | {} | {} | {ratio} | {} |",
            all(0, &|sample| sample.measured.per_second),
            all(2, &|sample| sample.measured.p50_ms),
            all(2, &|sample| sample.measured.p99_ms),
            each(proxies, 2, &|sample| sample.proxy_cpu),
            all(2, &|sample| sample.servers_cpu),
        );
    }
    out
}

/// Puts the table into `docs/benchmarks.md` and the rounds into a file beside it.
pub(crate) fn write(samples: &[Sample], table: &str, rounds: u32) -> Result<()> {
    let rows: Vec<Value> = samples.iter().map(row).collect();
    let page = Page {
        name: "kv",
        versions: versions()?,
    };
    page.write(&rows, table, rounds)
}

/// A table's place in `docs/benchmarks.md`: between the marks of its name.
pub(crate) struct Page {
    pub(crate) name: &'static str,
    /// What was measured beside Breccia.
    pub(crate) versions: String,
}

impl Page {
    /// Writes the table there, and the rounds into a file beside the page.
    pub(crate) fn write(&self, rows: &[Value], table: &str, rounds: u32) -> Result<()> {
        let name = self.name;
        let date = process::output(Command::new("date").args(["-u", "+%Y-%m-%d"]))?;
        let date = date.trim();
        let docs = process::root().join("docs");
        let raw = format!("benchmarks/raw-{name}-{date}.json");
        std::fs::create_dir_all(docs.join("benchmarks"))?;
        let machine = machine(&self.versions)?;
        let mut text = format!(
            "{{\"date\": {}, \"machine\": {},\n\"runs\": [\n",
            json!(date),
            json!(machine)
        );
        let rows: Vec<String> = rows.iter().map(ToString::to_string).collect();
        text.push_str(&rows.join(",\n"));
        text.push_str("\n]}\n");
        std::fs::write(docs.join(&raw), text)?;

        let (begin, end) = (
            format!("<!-- bench {name}: begin -->"),
            format!("<!-- bench {name}: end -->"),
        );
        let path = docs.join("benchmarks.md");
        let page = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let (before, rest) = page
            .split_once(&begin)
            .context("docs/benchmarks.md has lost its begin mark")?;
        let (_, after) = rest
            .split_once(&end)
            .context("docs/benchmarks.md has lost its end mark")?;
        let note = format!("{date}, {rounds} rounds, {machine}. Raw rounds: [{raw}]({raw}).");
        std::fs::write(
            &path,
            format!("{before}{begin}\n{note}\n\n{table}{end}{after}"),
        )?;
        println!("wrote docs/benchmarks.md and docs/{raw}");
        Ok(())
    }
}

fn row(sample: &Sample) -> Value {
    json!({
        "round": sample.round,
        "wire": sample.load.wire.name(),
        "test": sample.load.test,
        "depth": sample.load.depth,
        "requests": sample.load.requests,
        "target": sample.target.name(),
        "per_second": sample.measured.per_second,
        "p50_ms": sample.measured.p50_ms,
        "p99_ms": sample.measured.p99_ms,
        "proxy_cpu_s_per_million": sample.proxy_cpu,
        "servers_cpu_s_per_million": sample.servers_cpu,
    })
}

/// Processor, cores, kernel and versions: what a reader needs to doubt the figures.
fn machine(versions: &str) -> Result<String> {
    let cpu = std::fs::read_to_string("/proc/cpuinfo")?;
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name"));
    let model = model
        .unwrap_or("unknown processor")
        .trim_start_matches(['\t', ' ', ':']);
    let cores = std::thread::available_parallelism()?;
    let kernel = process::output(Command::new("uname").arg("-sr"))?;
    Ok(format!(
        "{cores} cores of {model}, {}, {versions}, load average {}",
        kernel.trim(),
        std::fs::read_to_string("/proc/loadavg")?
            .split(' ')
            .next()
            .unwrap_or("?"),
    ))
}

/// The versions of the servers.
pub(crate) fn versions() -> Result<String> {
    let redis = process::output(Command::new("redis-server").arg("--version"))?;
    let redis = redis
        .split_whitespace()
        .find_map(|word| word.strip_prefix("v="))
        .unwrap_or("?");
    let memcached = process::output(Command::new("memcached").arg("--version"))?;
    Ok(format!("Redis {redis}, {}", memcached.trim()))
}

/// The middle of some figures.
pub(crate) fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    let middle = figures.len() / 2;
    let at = |index: usize| figures.get(index).copied().unwrap_or(f64::NAN);
    if figures.len() % 2 == 1 {
        at(middle)
    } else {
        f64::midpoint(at(middle.wrapping_sub(1)), at(middle))
    }
}

#[cfg(test)]
mod tests {
    use super::median;

    #[test]
    fn medians_are_in_the_middle() {
        let check = |figures: &[f64], wanted: f64| {
            assert!(
                (median(figures.to_vec()) - wanted).abs() < 1e-9,
                "{figures:?}"
            );
        };
        check(&[3.0, 1.0, 2.0], 2.0);
        check(&[4.0, 1.0, 2.0, 3.0], 2.5);
        check(&[7.0], 7.0);
    }
}
