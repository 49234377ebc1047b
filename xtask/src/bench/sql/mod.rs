//! `cargo xtask bench sql`: Breccia before a primary and two standbys, beside `PgBouncer`, pgpool-II
//! and the primary alone.
//!
//! All take turns in every round, so a noisy neighbour meets each of them. The figure to trust is CPU
//! time per transaction: throughput shares the cores with pgbench and the servers. Invariant: what a
//! target could not do is said in its words and never left out in silence.

pub(crate) mod cluster;
mod load;
mod report;
pub(crate) mod rig;

use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::process;
use rig::Rig;

/// Who answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Target {
    Direct,
    PgBouncer,
    Pgpool,
    Breccia,
}

impl Target {
    const ALL: [Target; 4] = [
        Target::Direct,
        Target::PgBouncer,
        Target::Pgpool,
        Target::Breccia,
    ];

    fn name(self) -> &'static str {
        match self {
            Target::Direct => "direct",
            Target::PgBouncer => "pgbouncer",
            Target::Pgpool => "pgpool",
            Target::Breccia => "breccia",
        }
    }
}

/// What a transaction is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Script {
    /// `pgbench -S`: one read by key.
    Select,
    /// 95 reads by key for five updates by key, each a statement alone.
    Mix,
    /// pgbench's own: five statements in an explicit transaction.
    TpcB,
}

impl Script {
    const ALL: [Script; 3] = [Script::Select, Script::Mix, Script::TpcB];

    fn name(self) -> &'static str {
        match self {
            Script::Select => "select",
            Script::Mix => "95/5",
            Script::TpcB => "tpcb",
        }
    }
}

/// One kind of transaction, in one of pgbench's query modes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Load {
    script: Script,
    mode: &'static str,
    clients: u32,
    seconds: u32,
}

impl Load {
    fn name(&self) -> String {
        format!("{} {} {}", self.script.name(), self.mode, self.clients)
    }
}

/// What pgbench measured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Measured {
    transactions: f64,
    per_second: f64,
    average_ms: f64,
    p50_ms: f64,
    p99_ms: f64,
}

/// One run, as it is kept.
#[derive(Debug, Clone)]
pub(crate) struct Sample {
    round: u32,
    load: Load,
    target: Target,
    /// `Err`: why there are no figures.
    measured: Result<Measured, String>,
    /// User and system seconds per 100,000 transactions.
    proxy_cpu: f64,
    servers_cpu: f64,
    /// Of the statements that the proxy sent, how many went to standbys; by its own counters.
    share: f64,
}

struct Options {
    quick: bool,
    build: bool,
    rounds: u32,
    /// Rows whose name has this in it, such as `select simple 16`.
    only: String,
}

/// Runs the bench.
pub(crate) fn run(words: &[&str]) -> Result<()> {
    let options = options(words)?;
    let mut loads = loads();
    loads.retain(|it| it.name().contains(&options.only));
    ensure!(
        !loads.is_empty(),
        "no row has {:?} in its name, which is as `select simple 16`",
        options.only
    );
    if options.build {
        process::run(
            Command::new("cargo")
                .args(["build", "--release", "--locked"])
                .current_dir(process::root()),
        )?;
    }
    let rig = Rig::start()?;
    let targets = rig.targets();
    let mut samples = Vec::new();
    for round in 1..=options.rounds {
        for load in &loads {
            for turn in 0..targets.len() {
                let target = targets.get((turn + round as usize) % targets.len());
                let sample = measure(&rig, round, *load, *target.context("a target")?)?;
                println!("{}", report::line(&sample));
                samples.push(sample);
            }
        }
    }
    let table = report::table(&samples, rig.skipped());
    println!("\n{table}");
    if options.quick || !options.only.is_empty() {
        println!("a part of the bench: docs/benchmarks.md is left as it is");
        return Ok(());
    }
    report::write(&samples, &table, options.rounds, rig.versions()?)
}

fn options(words: &[&str]) -> Result<Options> {
    let mut options = Options {
        quick: false,
        build: true,
        rounds: 5,
        only: String::new(),
    };
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match *word {
            "--quick" => (options.quick, options.rounds) = (true, 1),
            "--no-build" => options.build = false,
            "--rounds" => {
                options.rounds = words.next().context("--rounds needs a number")?.parse()?;
            }
            "--only" => {
                let words = words.next().context("--only needs the name of a row")?;
                (*words).clone_into(&mut options.only);
            }
            other => bail!("unknown option {other:?}"),
        }
    }
    ensure!(options.rounds > 0, "--rounds needs at least 1");
    Ok(options)
}

fn loads() -> Vec<Load> {
    let mut loads = Vec::new();
    for script in Script::ALL {
        for mode in ["simple", "extended", "prepared"] {
            for clients in [16, 128] {
                // pgbench counts the time it takes to connect.
                let seconds = if clients > 16 { 6 } else { 4 };
                loads.push(Load {
                    script,
                    mode,
                    clients,
                    seconds,
                });
            }
        }
    }
    loads
}

fn measure(rig: &Rig, round: u32, load: Load, target: Target) -> Result<Sample> {
    let before = (
        rig.proxy_cpu(target)?,
        rig.servers_cpu()?,
        rig.routed(target)?,
    );
    let measured = load::run(rig.folder(), rig.port(target), &load)
        .with_context(|| format!("{} on {}", report::title(&load), target.name()))?;
    let transactions = measured.as_ref().map_or(f64::NAN, |it| it.transactions);
    let per_100k = |seconds: f64| seconds * 1e5 / transactions;
    let after = rig.routed(target)?;
    let (all, standbys) = (after.all - before.2.all, after.standbys - before.2.standbys);
    Ok(Sample {
        round,
        load,
        target,
        measured,
        proxy_cpu: per_100k(rig.proxy_cpu(target)? - before.0),
        servers_cpu: per_100k(rig.servers_cpu()? - before.1),
        share: if all > 0.0 { standbys / all } else { f64::NAN },
    })
}
