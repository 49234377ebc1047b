//! Client libraries of other languages, unchanged, in both pool modes.
//!
//! What they do is in the scripts beside this file. Each script holds against the primary itself
//! first, so it asks for nothing that is not the server's own way. Invariant: a script that ends
//! well has said so.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};
use breccia_testkit::{clients_folder, process};

use crate::rig::{Extra, Gateway, shared};

/// Runs a script against the server itself, and through a gateway in each pool mode.
fn check(script: &str) -> Result<()> {
    let name = script.split('.').next().unwrap_or(script);
    let cluster = shared()?;
    cluster.primary().create_database(name)?;
    run(script, cluster.primary().port(), name)?;
    for mode in ["transaction", "session"] {
        let listener = format!("pool-mode = \"{mode}\"\npool-size = 40");
        let extra = Extra {
            listener: &listener,
            ..Extra::default()
        };
        let gateway = Gateway::over(&cluster, name, extra)?;
        run(script, gateway.port, name).map_err(|error| error.context(mode))?;
    }
    Ok(())
}

fn run(script: &str, port: u16, database: &str) -> Result<()> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/sql")
        .join(script);
    let mut command = Command::new("timeout");
    command.arg("60");
    if Path::new(script).extension().is_some_and(|end| end == "js") {
        let modules = clients_folder().join("sql-node/node_modules");
        ensure!(
            modules.is_dir(),
            "run `cargo xtask test setup`: no {}",
            modules.display()
        );
        command.arg("node").env("NODE_PATH", modules);
    } else {
        command.arg(clients_folder().join("sql-python/bin/python"));
    }
    command.arg(path).args([&port.to_string(), database]);
    let text = process::run(&mut command)?;
    ensure!(text.lines().last() == Some("all good"), "{script}: {text}");
    Ok(())
}

#[test]
fn psycopg_3_works_as_over_one_server() -> Result<()> {
    check("psycopg3.py")
}

#[test]
fn psycopg_2_works_as_over_one_server() -> Result<()> {
    check("psycopg_2.py")
}

#[test]
fn asyncpg_works_as_over_one_server() -> Result<()> {
    check("asyncpg_pool.py")
}

#[test]
fn sqlalchemy_works_as_over_one_server() -> Result<()> {
    check("alchemy.py")
}

#[test]
fn pg_of_javascript_works_as_over_one_server() -> Result<()> {
    check("node_pg.js")
}
