//! Client programs and libraries, unchanged.
//!
//! `cargo xtask test setup` puts the ones in other languages into `target/clients`; a missing one fails
//! its test. Each script holds against a plain server first, then against the gateway, so it asks for
//! nothing that is not the server's own way. Invariant: nothing in a script knows which of the two it
//! talks to.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

#[path = "../gateway/common.rs"]
mod common;
mod libraries;
mod memcached;
mod queues;
mod redis_cli;
mod redis_rs;

/// Where `cargo xtask test setup` has put client libraries.
fn folder() -> PathBuf {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/clients");
    std::env::var_os("BRECCIA_TEST_CLIENTS").map_or_else(beside, PathBuf::from)
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/clients")
        .join(name)
}

/// Runs a program to its end; what it printed.
fn run(command: &mut Command) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| {
        format!("{name} is missing; `cargo xtask test setup` installs what these tests need")
    })?;
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    ensure!(
        output.status.success(),
        "{name}: {}\n{text}\n(a module that is missing is installed by `cargo xtask test setup`)",
        output.status
    );
    Ok(text)
}

/// Runs a script with the Python of the virtual environment.
fn python(name: &str, arguments: &[&str]) -> Result<String> {
    run(Command::new(folder().join("python/bin/python"))
        // What Python compiles does not belong beside the tests.
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .arg(script(name))
        .args(arguments))
}

/// Runs a script with Node and the packages of the lock file.
fn javascript(name: &str, arguments: &[&str]) -> Result<String> {
    let modules = folder().join("node/node_modules");
    ensure!(
        modules.is_dir(),
        "{} is missing; `cargo xtask test setup` makes it",
        modules.display()
    );
    run(Command::new("node")
        .env("NODE_PATH", modules)
        .arg(script(name))
        .args(arguments))
}
