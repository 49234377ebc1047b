//! `cargo xtask fuzz`: every fuzz target for a given time.
//!
//! With cargo-fuzz where it is installed (libFuzzer and coverage, on the stable toolchain through
//! `RUSTC_BOOTSTRAP`), else the same targets in a mutation loop. Invariant: the first finding ends the
//! run with an error.

use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::process;

const TARGETS: [&str; 22] = [
    "resp_request",
    "resp_reply",
    "memcached_request",
    "memcached_reply",
    "resp_portable",
    "memcached_typed",
    "command_keys",
    "layout_document",
    "config",
    "s3_chunked",
    "s3_range",
    "s3_xml",
    "s3_key_encoding",
    "s3_authorization",
    "pg_startup",
    "pg_frames",
    "pg_scram",
    "pg_lexer",
    "my_frames",
    "my_handshake",
    "my_auth",
    "my_lexer",
];

/// Runs all targets, or those named.
pub(crate) fn run(words: &[&str]) -> Result<()> {
    let (mut seconds, mut stable, mut only) = (600_u64, false, Vec::new());
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match *word {
            "--seconds" => {
                seconds = words.next().context("--seconds needs a number")?.parse()?;
            }
            "--stable" => stable = true,
            target if TARGETS.contains(&target) => only.push(target),
            other => bail!(
                "unknown option or target {other:?}; targets: {}",
                TARGETS.join(", ")
            ),
        }
    }
    let guided = !stable && process::cargo_has("fuzz");
    println!(
        "fuzz: {seconds} s for each target, {}",
        if guided {
            "with cargo-fuzz"
        } else {
            "by mutation on stable"
        }
    );
    for target in TARGETS
        .iter()
        .filter(|target| only.is_empty() || only.contains(target))
    {
        if guided {
            libfuzzer(target, seconds)?;
        } else {
            mutate(&[target, &seconds.to_string()])?;
        }
    }
    Ok(())
}

fn mutate(arguments: &[&str]) -> Result<()> {
    let common = [
        "run",
        "--quiet",
        "--profile",
        "fuzz",
        "--package",
        "breccia-fuzz",
    ];
    process::run(
        Command::new("cargo")
            .args(common)
            .args(["--example", "mutate", "--"])
            .args(arguments)
            .current_dir(process::root()),
    )
}

fn libfuzzer(target: &str, seconds: u64) -> Result<()> {
    let corpus = format!("fuzz/corpus/{target}");
    std::fs::create_dir_all(process::root().join(&corpus))?;
    mutate(&[target, "--seeds", &corpus])?;
    process::run(
        Command::new("cargo")
            .args(["fuzz", "run", "--features", "libfuzzer", target, "--"])
            .arg(format!("-max_total_time={seconds}"))
            .args(["-max_len=8192", "-timeout=10", "-print_final_stats=1"])
            // No input of 8 KiB has a reason to take this much at once.
            .arg("-malloc_limit_mb=8")
            .env("RUSTC_BOOTSTRAP", "1")
            // Linking with LTO takes minutes for each target and finds nothing more.
            .env("CARGO_PROFILE_RELEASE_LTO", "off")
            .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16")
            .current_dir(process::root()),
    )
}
