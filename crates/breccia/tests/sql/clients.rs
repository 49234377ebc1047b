//! Client programs and libraries of several languages, unchanged, in both pool modes.
//!
//! What they do is in the programs beside this file, Rust's in `clients/sql`. Each holds against the
//! primary itself first, so it asks for nothing that is not the server's own way. Invariant: a program
//! that ends well has said so.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use breccia_testkit::{clients_folder, process};

use crate::rig::{Extra, Gateway, shared};

/// How long one run may take, in seconds; a machine that is busy with other tests is slow.
const SECONDS: &str = "150";

/// Where Debian keeps the JDBC driver.
const JDBC: &str = "/usr/share/java/postgresql.jar";

/// A program beside this file.
fn program(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/sql")
        .join(name)
}

/// What `cargo xtask test setup` has brought.
fn brought(path: PathBuf) -> Result<PathBuf> {
    ensure!(
        path.exists(),
        "no {}: run `cargo xtask test setup`",
        path.display()
    );
    Ok(path)
}

/// Runs a client against the server itself, and through a gateway in each pool mode. `words` and the
/// variable start it; the port and a database of its own follow.
fn check(name: &str, words: &[PathBuf], variable: (&str, &Path)) -> Result<()> {
    let database = name.replace('-', "_");
    let cluster = shared()?;
    let primary = cluster.primary();
    let run = |port: u16| -> Result<()> {
        let mut command = Command::new("timeout");
        command.arg(SECONDS).args(words).env(variable.0, variable.1);
        command.args([&port.to_string(), &database]);
        let text = process::run(&mut command)?;
        ensure!(text.lines().last() == Some("all good"), "{name}: {text}");
        Ok(())
    };
    for mode in ["", "transaction", "session"] {
        // Nothing of the run before is there.
        primary.query(
            "postgres",
            &format!("DROP DATABASE IF EXISTS \"{database}\" WITH (FORCE)"),
        )?;
        primary.create_database(&database)?;
        if mode.is_empty() {
            run(primary.port()).context("without a gateway")?;
            continue;
        }
        let listener = format!("pool-mode = \"{mode}\"\npool-size = 40");
        let extra = Extra {
            listener: &listener,
            ..Extra::default()
        };
        let gateway = Gateway::over(&cluster, &database, extra)?;
        run(gateway.port).with_context(|| format!("pool-mode {mode}"))?;
        let reads = gateway.replica_reads()?;
        println!("{name}, {mode}: {reads} reads on replicas");
    }
    Ok(())
}

fn python(name: &str, script: &str) -> Result<()> {
    let words = [
        brought(clients_folder().join("sql-python/bin/python"))?,
        program(script),
    ];
    check(name, &words, ("PYTHONUNBUFFERED", Path::new("1")))
}

fn rust(name: &str) -> Result<()> {
    let words = [
        brought(clients_folder().join("sql-rust/debug/sql-clients"))?,
        name.into(),
    ];
    check(name, &words, ("RUST_BACKTRACE", Path::new("0")))
}

#[test]
fn psycopg_3_works_as_over_one_server() -> Result<()> {
    python("psycopg3", "psycopg3.py")
}

#[test]
fn psycopg_2_works_as_over_one_server() -> Result<()> {
    python("psycopg2", "psycopg_2.py")
}

#[test]
fn asyncpg_works_as_over_one_server() -> Result<()> {
    python("asyncpg", "asyncpg_pool.py")
}

#[test]
fn sqlalchemy_works_as_over_one_server() -> Result<()> {
    python("sqlalchemy", "alchemy.py")
}

#[test]
fn pg_of_javascript_works_as_over_one_server() -> Result<()> {
    let modules = brought(clients_folder().join("sql-node/node_modules"))?;
    check(
        "node-pg",
        &["node".into(), program("node_pg.js")],
        ("NODE_PATH", &modules),
    )
}

#[test]
fn tokio_postgres_works_as_over_one_server() -> Result<()> {
    rust("tokio-postgres")
}

#[test]
fn sqlx_works_as_over_one_server() -> Result<()> {
    rust("sqlx")
}

#[test]
fn jdbc_works_as_over_one_server() -> Result<()> {
    let driver = brought(JDBC.into())?;
    check(
        "jdbc",
        &["java".into(), program("Jdbc.java")],
        ("CLASSPATH", &driver),
    )
}

#[test]
fn psql_and_pg_dump_work_as_over_one_server() -> Result<()> {
    check(
        "psql",
        &["sh".into(), program("psql.sh")],
        ("PSQL_HISTORY", Path::new("/dev/null")),
    )
}
