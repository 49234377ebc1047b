//! `cargo xtask bench kv`: Breccia with one worker and with two beside nutcracker and beside one bare
//! server, over plain TCP and over TLS; then the memory it takes.
//!
//! All take turns in every round, so a noisy neighbour meets all of them. The figure to trust is
//! CPU time per request: throughput shares the cores with the loader and the servers. Invariant: every
//! figure in `docs/benchmarks.md` can be found again in the raw rounds that are kept beside it.

pub(crate) mod blob;
mod large;
mod memcached;
mod memory;
pub(crate) mod mysql;
mod redis;
pub(crate) mod report;
mod rig;
pub(crate) mod sql;

use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::process;
use rig::Rig;

/// Who answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Target {
    Direct,
    Nutcracker,
    Breccia,
    BrecciaTwo,
}

impl Target {
    const ALL: [Target; 4] = [
        Target::Direct,
        Target::Nutcracker,
        Target::Breccia,
        Target::BrecciaTwo,
    ];

    fn name(self) -> &'static str {
        match self {
            Target::Direct => "direct",
            Target::Nutcracker => "nutcracker",
            Target::Breccia => "breccia",
            Target::BrecciaTwo => "breccia-2",
        }
    }
}

/// The wire under test.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Wire {
    Redis,
    /// Redis over TLS, on both sides of a proxy.
    RedisTls,
    Memcached,
}

impl Wire {
    const ALL: [Wire; 3] = [Wire::Redis, Wire::RedisTls, Wire::Memcached];

    fn name(self) -> &'static str {
        match self {
            Wire::Redis => "redis",
            Wire::RedisTls => "tls",
            Wire::Memcached => "memcached",
        }
    }
}

/// One kind of request at one pipeline depth.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    wire: Wire,
    test: &'static str,
    depth: u32,
    requests: u64,
}

/// What a loader measured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Measured {
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
    /// User and system seconds per million requests.
    proxy_cpu: f64,
    servers_cpu: f64,
}

struct Options {
    quick: bool,
    build: bool,
    rounds: u32,
    only: Option<Wire>,
    depth: Option<u32>,
    memory_only: bool,
    large_only: bool,
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
    let part = options.quick || options.only.is_some() || options.depth.is_some();
    if options.large_only {
        return large::run(&rig, options.rounds);
    }
    if !options.memory_only {
        let samples = rounds(&rig, &options)?;
        let table = report::table(&samples);
        println!("\n{table}");
        if part {
            println!("a part of the bench: docs/benchmarks.md is left as it is");
        } else {
            report::write(&samples, &table, options.rounds)?;
        }
    }
    if part && !options.memory_only {
        return Ok(());
    }
    large::run(&rig, options.rounds)?;
    memory::run(&rig)
}

/// Every load on every target, in turn, as often as was asked for.
fn rounds(rig: &Rig, options: &Options) -> Result<Vec<Sample>> {
    let loads: Vec<Load> = loads(options).collect();
    let mut samples = Vec::new();
    for round in 1..=options.rounds {
        for load in &loads {
            for turn in 0..Target::ALL.len() {
                let target = Target::ALL.get((turn + round as usize) % Target::ALL.len());
                let target = *target.context("a target")?;
                if !rig.has(load.wire, target) {
                    continue;
                }
                let sample = measure(rig, round, *load, target)?;
                println!("{}", report::line(&sample));
                samples.push(sample);
            }
        }
    }
    Ok(samples)
}

fn options(words: &[&str]) -> Result<Options> {
    let mut options = Options {
        quick: false,
        build: true,
        rounds: 5,
        only: None,
        depth: None,
        memory_only: false,
        large_only: false,
    };
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match *word {
            "--quick" => (options.quick, options.rounds) = (true, 1),
            "--no-build" => options.build = false,
            "--memory" => options.memory_only = true,
            "--large" => options.large_only = true,
            "--rounds" => {
                options.rounds = words.next().context("--rounds needs a number")?.parse()?;
            }
            "--depth" => {
                options.depth = Some(words.next().context("--depth needs a number")?.parse()?);
            }
            "--only" => {
                let word = words.next().copied().unwrap_or_default();
                let wire = Wire::ALL.into_iter().find(|wire| wire.name() == word);
                options.only = Some(wire.context("--only needs redis, tls or memcached")?);
            }
            other => bail!("unknown option {other:?}"),
        }
    }
    ensure!(options.rounds > 0, "--rounds needs at least 1");
    Ok(options)
}

/// Every load, with enough requests for some seconds each.
fn loads(options: &Options) -> impl Iterator<Item = Load> {
    let (only, depth) = (options.only, options.depth);
    let divisor = if options.quick { 5 } else { 1 };
    let rows = [
        (Wire::Redis, "SET", [100_000, 500_000, 1_000_000]),
        (Wire::Redis, "GET", [100_000, 500_000, 1_000_000]),
        (Wire::Redis, "MGET-10", [50_000, 80_000, 80_000]),
        (Wire::RedisTls, "SET", [60_000, 300_000, 500_000]),
        (Wire::RedisTls, "GET", [60_000, 300_000, 500_000]),
        (Wire::Memcached, "set", [100_000, 400_000, 600_000]),
        (Wire::Memcached, "get", [100_000, 250_000, 400_000]),
    ];
    let all = rows.into_iter().flat_map(move |(wire, test, requests)| {
        let depths = [1, 16, 64].into_iter().zip(requests);
        depths.map(move |(depth, requests)| Load {
            wire,
            test,
            depth,
            requests: requests / divisor,
        })
    });
    all.filter(move |load| only.is_none_or(|only| only == load.wire))
        .filter(move |load| depth.is_none_or(|depth| depth == load.depth))
}

fn measure(rig: &Rig, round: u32, load: Load, target: Target) -> Result<Sample> {
    let port = rig.port(load.wire, target);
    let (proxy, servers) = (
        rig.proxy_cpu(load.wire, target)?,
        rig.servers_cpu(load.wire)?,
    );
    let measured = match load.wire {
        Wire::Redis | Wire::RedisTls => redis::run(port, &load),
        Wire::Memcached => memcached::run(port, &load),
    }
    .with_context(|| format!("{} depth {} on {}", load.test, load.depth, target.name()))?;
    #[expect(clippy::cast_precision_loss, reason = "a few millions")]
    let millions = load.requests as f64 / 1e6;
    Ok(Sample {
        round,
        load,
        target,
        measured,
        proxy_cpu: (rig.proxy_cpu(load.wire, target)? - proxy) / millions,
        servers_cpu: (rig.servers_cpu(load.wire)? - servers) / millions,
    })
}
