//! `cargo xtask bench blob`: one S3 server alone, Breccia over three of the same, and Breccia over
//! three folders.
//!
//! All take turns in every round, so a noisy neighbour meets each of them. Invariant: every server
//! that stores something stores it as safely as it can: Garage with `data_fsync` and
//! `metadata_fsync`, Breccia's `fs` stores as they are.

mod ceph;
mod load;
mod report;
mod rig;
mod s3;

use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::process;
use load::{Measured, Verb};
use rig::Rig;

/// Who answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Target {
    Direct,
    OverS3,
    OverFiles,
    Ceph,
    OverCeph,
}

impl Target {
    const ALL: [Target; 3] = [Target::Direct, Target::OverS3, Target::OverFiles];
    /// Those of the second table, which asks what one hop costs in front of a store that takes as
    /// long as stores do.
    const CEPH: [Target; 2] = [Target::Ceph, Target::OverCeph];

    fn name(self) -> &'static str {
        match self {
            Target::Direct => "direct",
            Target::OverS3 => "breccia-s3",
            Target::OverFiles => "breccia-fs",
            Target::Ceph => "ceph",
            Target::OverCeph => "breccia-ceph",
        }
    }
}

/// One kind of request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Load {
    verb: Verb,
    size: usize,
    clients: usize,
    /// Of each client.
    requests: usize,
}

/// One run, as it is kept.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sample {
    round: u32,
    load: Load,
    target: Target,
    measured: Measured,
    /// User and system milliseconds per request.
    proxy_cpu_ms: f64,
    servers_cpu_ms: f64,
    peak_bytes: u64,
}

struct Options {
    quick: bool,
    build: bool,
    rounds: u32,
    only: Option<bool>,
}

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// Runs the bench by an optimised build of this program: its loader shares the cores with what it
/// measures.
fn run_optimised(words: &[&str]) -> Result<()> {
    process::run(
        Command::new("cargo")
            .args([
                "run",
                "--quiet",
                "--release",
                "--locked",
                "--package",
                "xtask",
                "--",
            ])
            .args(["bench", "blob"])
            .args(words)
            .current_dir(process::root()),
    )
}

/// Runs the bench.
pub(crate) fn run(words: &[&str]) -> Result<()> {
    let options = options(words)?;
    if cfg!(debug_assertions) {
        return run_optimised(words);
    }
    if options.build {
        process::run(
            Command::new("cargo")
                .args(["build", "--release", "--locked"])
                .current_dir(process::root()),
        )?;
    }
    let rig = Rig::start()?;
    let loads = loads(&options);
    let mut samples = Vec::new();
    for round in 1..=options.rounds {
        for load in &loads {
            for targets in [&Target::ALL[..], &Target::CEPH[..]] {
                if targets == Target::CEPH && load.clients > 1 {
                    continue;
                }
                for turn in 0..targets.len() {
                    let target = targets.get((turn + round as usize) % targets.len());
                    let sample = measure(&rig, round, *load, *target.context("a target")?)?;
                    println!("{}", report::line(&sample));
                    samples.push(sample);
                }
            }
        }
    }
    let table = report::table(&samples);
    println!("\n{table}");
    if options.quick || options.only.is_some() {
        println!("a part of the bench: docs/benchmarks.md is left as it is");
        return Ok(());
    }
    report::write(&samples, &table, options.rounds)
}

fn options(words: &[&str]) -> Result<Options> {
    let mut options = Options {
        quick: false,
        build: true,
        rounds: 3,
        only: None,
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
                options.only = match words.next() {
                    Some(&"small") => Some(false),
                    Some(&"large") => Some(true),
                    _ => bail!("--only needs small or large"),
                };
            }
            other => bail!("unknown option {other:?}"),
        }
    }
    ensure!(options.rounds > 0, "--rounds needs at least 1");
    Ok(options)
}

/// Every load. A put comes before the get that reads what it wrote.
fn loads(options: &Options) -> Vec<Load> {
    let rows = [
        (KIB, 1, 600),
        (KIB, 32, 150),
        (64 * KIB, 1, 300),
        (64 * KIB, 32, 60),
        (8 * MIB, 1, 16),
        (8 * MIB, 32, 2),
        (100 * MIB, 1, 3),
        (100 * MIB, 32, 1),
    ];
    let divisor = if options.quick { 3 } else { 1 };
    let mut loads = Vec::new();
    for (size, clients, requests) in rows {
        if options.only.is_some_and(|large| large != (size >= MIB)) {
            continue;
        }
        for verb in [Verb::Put, Verb::Get] {
            // Reads of small objects are quick: more of them, for seconds and not milliseconds.
            let times = match verb {
                Verb::Get if size < 64 * KIB => 20,
                Verb::Get if size < MIB => 10,
                _ => 1,
            };
            loads.push(Load {
                verb,
                size,
                clients,
                requests: (requests * times / divisor).max(1),
            });
        }
    }
    loads
}

fn measure(rig: &Rig, round: u32, load: Load, target: Target) -> Result<Sample> {
    let before = (rig.proxy_cpu(target)?, rig.servers_cpu(target)?);
    rig.forget_peak(target);
    let measured = load::run(&rig.door(target), &load)
        .with_context(|| format!("{} on {}", report::title(&load), target.name()))?;
    #[expect(clippy::cast_precision_loss, reason = "some thousands")]
    let requests = (load.clients * load.requests) as f64;
    let per_request = |seconds: f64| seconds * 1000.0 / requests;
    Ok(Sample {
        round,
        load,
        target,
        measured,
        proxy_cpu_ms: per_request(rig.proxy_cpu(target)? - before.0),
        servers_cpu_ms: per_request(rig.servers_cpu(target)? - before.1),
        peak_bytes: rig.peak_bytes(target)?,
    })
}
