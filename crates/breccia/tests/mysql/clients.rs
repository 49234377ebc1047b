//! Client programs and libraries of several languages, unchanged, in both pool modes.
//!
//! What they do is in the programs beside this file, Rust's in `clients/mysql`. Invariant: what a program
//! prints through a gateway is, byte for byte, what it prints of the primary itself.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use breccia_testkit::{clients_folder, process};

use crate::rig::{Extra, Gateway, shared};

/// How long one run may take, in seconds; a machine that is busy with other tests is slow.
const SECONDS: &str = "150";

/// The interpreter that has Debian's mysqlclient.
const SYSTEM_PYTHON: &str = "/usr/bin/python3";

/// A program beside this file.
fn program(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/mysql")
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

/// Runs a client against the primary itself, and through a gateway in each pool mode. `words` and the
/// variable start it; the port and a database of its own follow.
fn check(name: &str, words: &[PathBuf], variable: (&str, &Path)) -> Result<()> {
    let database = format!("of_{}", name.replace('-', "_"));
    let cluster = shared()?;
    let primary = cluster.primary();
    let run = |port: u16| -> Result<String> {
        primary.query("mysql", &format!("DROP DATABASE IF EXISTS {database}"))?;
        primary.create_database(&database)?;
        let mut command = Command::new("timeout");
        command.arg(SECONDS).args(words).env(variable.0, variable.1);
        command.args([&port.to_string(), &database]);
        let text = process::run(&mut command)?;
        ensure!(text.lines().last() == Some("all good"), "{name}: {text}");
        Ok(text)
    };
    let direct = run(primary.port()).context("without a gateway")?;
    for mode in ["transaction", "session"] {
        let listener = format!("pool-mode = \"{mode}\"\npool-size = 40");
        let extra = Extra {
            listener: &listener,
            // Programs with pools read on one connection what they wrote on another.
            composite: "consistency = \"store\"",
            ..Extra::default()
        };
        let gateway = Gateway::over(&cluster, extra)?;
        let through = run(gateway.port).with_context(|| format!("pool-mode {mode}"))?;
        let reads = gateway.replica_reads()?;
        println!("{name}, {mode}: {reads} reads on replicas");
        same(&direct, &through).with_context(|| format!("{name}, pool-mode {mode}"))?;
    }
    // Long values fill disks three times over, in tables and in logs.
    cluster.query(0, &format!("DROP DATABASE {database}"))?;
    for server in 0..cluster.servers().len() {
        cluster.query(server, "FLUSH BINARY LOGS; PURGE BINARY LOGS BEFORE NOW()")?;
    }
    Ok(())
}

/// Whether two runs printed the same; else the first lines that differ.
fn same(direct: &str, through: &str) -> Result<()> {
    let lines = direct.lines().zip(through.lines());
    for (number, (one, other)) in lines.enumerate() {
        let number = number + 1;
        ensure!(
            one == other,
            "line {number}:\n direct: {one}\nthrough: {other}"
        );
    }
    let (one, other) = (direct.lines().count(), through.lines().count());
    ensure!(one == other, "{one} lines direct, {other} through");
    Ok(())
}

fn python(name: &str, script: &str, driver: &[&str]) -> Result<()> {
    let python = brought(clients_folder().join("mysql-python/bin/python"))?;
    let mut words = vec![python, program(script)];
    words.extend(driver.iter().map(PathBuf::from));
    check(name, &words, ("PYTHONUNBUFFERED", Path::new("1")))
}

fn javascript(name: &str, script: &str) -> Result<()> {
    let modules = brought(clients_folder().join("mysql-node/node_modules"))?;
    check(
        name,
        &["node".into(), program(script)],
        ("NODE_PATH", &modules),
    )
}

fn rust(name: &str) -> Result<()> {
    let program = brought(clients_folder().join("mysql-rust/debug/mysql-clients"))?;
    let none = Path::new("0");
    check(name, &[program, name.into()], ("RUST_BACKTRACE", none))
}

#[test]
fn pymysql_works_as_over_one_server() -> Result<()> {
    python("pymysql", "dbapi.py", &["pymysql"])
}

#[test]
fn mysqlclient_works_as_over_one_server() -> Result<()> {
    let python = brought(SYSTEM_PYTHON.into())?;
    let words = [python, program("dbapi.py"), "mysqldb".into()];
    check("mysqlclient", &words, ("PYTHONUNBUFFERED", Path::new("1")))
}

#[test]
fn mysql_connector_works_as_over_one_server() -> Result<()> {
    python("connector", "dbapi.py", &["connector"])
}

#[test]
fn aiomysql_works_as_over_one_server() -> Result<()> {
    python("aiomysql", "aio.py", &["aiomysql"])
}

#[test]
fn asyncmy_works_as_over_one_server() -> Result<()> {
    python("asyncmy", "aio.py", &["asyncmy"])
}

#[test]
fn sqlalchemy_works_as_over_one_server() -> Result<()> {
    python("sqlalchemy", "alchemy.py", &[])
}

#[test]
fn mysql2_of_javascript_works_as_over_one_server() -> Result<()> {
    javascript("mysql2", "mysql2.js")
}

#[test]
fn mariadb_of_javascript_works_as_over_one_server() -> Result<()> {
    javascript("mariadb-js", "mariadb.js")
}

#[test]
fn mysql_async_works_as_over_one_server() -> Result<()> {
    rust("mysql-async")
}

#[test]
fn sqlx_works_as_over_one_server() -> Result<()> {
    rust("sqlx")
}

#[test]
fn the_mariadb_program_works_as_over_one_server() -> Result<()> {
    let words = ["sh".into(), program("cli.sh")];
    check("cli", &words, ("LC_ALL", Path::new("C.UTF-8")))
}
