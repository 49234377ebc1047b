//! `cargo xtask bench mysql`: Breccia before a MariaDB primary and two replicas, beside the primary alone.
//!
//! `HAProxy`, which only passes bytes on, shows what the machine asks of any proxy. All take turns in every
//! round, so a noisy neighbour meets each of them. The figure to trust is CPU
//! time per statement: throughput shares the cores with sysbench and the servers. Invariant: a figure of
//! the page can be found again in the raw rounds that are kept beside it.

mod cluster;
mod load;
mod report;
mod rig;

use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::process;
use rig::Rig;

/// Who answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target {
    Direct,
    /// A bare relay of bytes to the primary: what any proxy must pay on this machine.
    HaProxy,
    Breccia,
}

impl Target {
    const ALL: [Target; 3] = [Target::Direct, Target::HaProxy, Target::Breccia];

    fn name(self) -> &'static str {
        match self {
            Target::Direct => "direct",
            Target::HaProxy => "haproxy",
            Target::Breccia => "breccia",
        }
    }
}

/// What is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Script {
    /// One read by key.
    PointSelect,
    /// 95 reads by key for five updates by key, each a statement alone.
    Mix,
    /// Fourteen reads in an explicit transaction.
    ReadOnly,
    /// Those and four writes.
    ReadWrite,
    /// `PyMySQL` with autocommit off, under READ COMMITTED: a read by key, then COMMIT.
    PyMysql,
}

impl Script {
    fn name(self) -> &'static str {
        match self {
            Script::PointSelect => "oltp_point_select",
            Script::Mix => "95/5",
            Script::ReadOnly => "oltp_read_only",
            Script::ReadWrite => "oltp_read_write",
            Script::PyMysql => "PyMySQL, lazy",
        }
    }
}

/// One kind of load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Load {
    script: Script,
    /// Whether statements are prepared once and then executed.
    prepared: bool,
    clients: u32,
    seconds: u32,
}

/// What the loader measured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Measured {
    statements: f64,
    per_second: f64,
    p50_ms: f64,
    p99_ms: f64,
}

/// One run, as it is kept.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sample {
    round: u32,
    load: Load,
    target: Target,
    measured: Measured,
    /// User and system seconds per 100,000 statements.
    proxy_cpu: f64,
    servers_cpu: f64,
    /// Of the statements that Breccia routed, how many went to replicas; by its own counters.
    share: f64,
}

struct Options {
    quick: bool,
    build: bool,
    rounds: u32,
}

/// Runs the bench.
pub(crate) fn run(words: &[&str]) -> Result<()> {
    let options = options(words)?;
    if options.build {
        process::run(
            Command::new("cargo")
                .args(["build", "--release", "--locked"])
                .current_dir(process::root()),
        )?;
    }
    let rig = Rig::start()?;
    let mut samples = Vec::new();
    for round in 1..=options.rounds {
        for load in loads() {
            for turn in 0..Target::ALL.len() {
                let target = Target::ALL.get((turn + round as usize) % Target::ALL.len());
                let sample = measure(&rig, round, load, *target.context("a target")?)?;
                println!("{}", report::line(&sample));
                samples.push(sample);
            }
        }
    }
    let table = report::table(&samples);
    println!("\n{table}");
    if options.quick {
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
    };
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match *word {
            "--quick" => (options.quick, options.rounds) = (true, 1),
            "--no-build" => options.build = false,
            "--rounds" => {
                options.rounds = words.next().context("--rounds needs a number")?.parse()?;
            }
            other => bail!("unknown option {other:?}"),
        }
    }
    ensure!(options.rounds > 0, "--rounds needs at least 1");
    Ok(options)
}

fn loads() -> Vec<Load> {
    let mut loads = Vec::new();
    for script in [
        Script::PointSelect,
        Script::Mix,
        Script::ReadOnly,
        Script::ReadWrite,
    ] {
        for prepared in [true, false] {
            for clients in [16, 128] {
                loads.push(Load {
                    script,
                    prepared,
                    clients,
                    seconds: 4,
                });
            }
        }
    }
    loads.push(Load {
        script: Script::PyMysql,
        prepared: false,
        clients: 1,
        seconds: 4,
    });
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
    let per_100k = |seconds: f64| seconds * 1e5 / measured.statements;
    let after = rig.routed(target)?;
    let (all, replicas) = (after.all - before.2.all, after.standbys - before.2.standbys);
    Ok(Sample {
        round,
        load,
        target,
        measured,
        proxy_cpu: per_100k(rig.proxy_cpu(target)? - before.0),
        servers_cpu: per_100k(rig.servers_cpu()? - before.1),
        share: if all > 0.0 { replicas / all } else { f64::NAN },
    })
}
