//! Many clients: pgbench with scripts of its own, and ten thousand that do nothing.
//!
//! Not how fast it is. Invariant: no client meets an error, and there are never more connections to a
//! server than `pool-size` allows.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use breccia_testkit::{
    Certificates, PostgresCluster, SqlClient, clients_folder, free_port, process, wait_until,
};

use crate::pooling::together;
use crate::rig::{Extra, Gateway, LIMIT, logging};
use crate::secure::listener_tls;

/// One cluster for all tests that send so much that a log of it would be in the way.
pub(crate) fn quiet() -> Result<Arc<PostgresCluster>> {
    static SHARED: Mutex<Weak<PostgresCluster>> = Mutex::new(Weak::new());
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(cluster) = shared.upgrade() {
        return Ok(cluster);
    }
    let cluster = Arc::new(logging("none", None)?);
    *shared = Arc::downgrade(&cluster);
    Ok(cluster)
}

/// The most connections that were open to a database at once, while `work` runs.
fn most_connections(
    cluster: &PostgresCluster,
    database: &str,
    work: impl FnOnce() -> Result<()> + Send,
) -> Result<u32> {
    let over = AtomicBool::new(false);
    let sql = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = '{database}' \
         AND backend_type = 'client backend' AND application_name = 'pgbench'"
    );
    let watch = || -> Result<u32> {
        let mut client = SqlClient::connect(cluster.primary().port(), "postgres")?;
        let mut most = 0;
        while !over.load(Ordering::Relaxed) {
            most = most.max(client.run(&sql)?.value().unwrap_or("0").parse()?);
            thread::sleep(Duration::from_millis(10));
        }
        Ok(most)
    };
    thread::scope(|scope| {
        let watching = scope.spawn(watch);
        let done = work();
        over.store(true, Ordering::Relaxed);
        let most = watching.join().expect("a watcher without panic");
        done.and(most)
    })
}

/// Several statements a transaction, results in variables, pipelines, savepoints, reads alone.
const SCRIPTS: [(&str, &str); 4] = [
    (
        "transfer",
        "\\set one random(1, 500)
         \\set two random(501, 1000)
         BEGIN;
         SELECT v AS before FROM accounts WHERE id = :one FOR UPDATE \\gset
         UPDATE accounts SET v = :before - 1 WHERE id = :one;
         SAVEPOINT a;
         UPDATE accounts SET v = v + 1 WHERE id = :two;
         ROLLBACK TO a;
         UPDATE accounts SET v = v + 1 WHERE id = :two;
         INSERT INTO moves (one, two) VALUES (:one, :two);
         END;",
    ),
    (
        "own",
        "\\set x random(1, 1000000)
         INSERT INTO notes (v) VALUES (:x) RETURNING id \\gset
         SELECT v - :x AS wrong FROM notes WHERE id = :id \\gset
         SELECT 1 / (1 - abs(:wrong)) AS fine;",
    ),
    (
        "pipeline",
        "\\set x random(1, 1000)
         \\startpipeline
         SELECT v FROM accounts WHERE id = :x;
         INSERT INTO notes (v) VALUES (0 - :x::int);
         SELECT count(*) FROM notes WHERE v = 0 - :x::int;
         \\endpipeline
         \\startpipeline
         SELECT v FROM accounts WHERE id = :x;
         SELECT v + :x FROM accounts WHERE id = :x;
         \\endpipeline",
    ),
    (
        "reads",
        "\\set x random(1, 1000)
         SELECT v FROM accounts WHERE id = :x;
         SELECT id, v FROM accounts WHERE id BETWEEN :x AND :x + 5 ORDER BY id;
         SELECT sum(v) FROM accounts WHERE id % 100 = :x % 100;",
    ),
];

const TABLES: [&str; 6] = [
    "CREATE TABLE accounts (id int PRIMARY KEY, v bigint)",
    "INSERT INTO accounts SELECT g, 1000 FROM generate_series(1, 1000) g",
    "CREATE TABLE moves (id bigserial, one int, two int)",
    "CREATE TABLE notes (id bigserial PRIMARY KEY, v int)",
    "CREATE INDEX ON notes (v)",
    "ANALYZE",
];

fn pgbench(port: u16, database: &str, folder: &Path, words: &[&str]) -> Result<()> {
    let mut command = Command::new("timeout");
    command.args(["240", "pgbench", "-n", "-h", "127.0.0.1", "-U", "breccia"]);
    command.args(["-p", &port.to_string()]).args(words);
    for (name, _) in SCRIPTS {
        command.arg("-f").arg(folder.join(name));
    }
    let text = process::run(command.arg(database).env("PGPASSWORD", "secret"))?;
    ensure!(
        text.contains("number of failed transactions: 0 "),
        "{words:?}: {text}"
    );
    let tps = text.lines().find(|line| line.starts_with("tps"));
    println!("{words:?}: {}", tps.context("no tps")?);
    Ok(())
}

#[test]
fn scripts_of_128_clients_run_over_twenty_connections_without_an_error() -> Result<()> {
    let (cluster, folder) = (quiet()?, tempfile::tempdir()?);
    let primary = cluster.primary();
    primary.create_database("scripts")?;
    for sql in TABLES {
        primary.query("scripts", sql)?;
    }
    for (name, script) in SCRIPTS {
        std::fs::write(folder.path().join(name), script)?;
    }
    // All clients on one worker, and dealt to four; and each with a connection of its own.
    for (workers, mode, size) in [
        (1, "transaction", 20),
        (4, "transaction", 20),
        (2, "session", 128),
    ] {
        let (top, listener) = (
            format!("workers = {workers}"),
            format!("pool-mode = \"{mode}\"\npool-size = {size}\nqueue-timeout = \"60s\""),
        );
        let extra = Extra {
            top: &top,
            listener: &listener,
            ..Extra::default()
        };
        let gateway = Gateway::over(&cluster, "scripts", extra)?;
        let before = gateway.replica_reads()?;
        for protocol in ["prepared", "extended"] {
            let words = ["-c", "128", "-j", "4", "-t", "20", "-M", protocol];
            let most = most_connections(&cluster, "scripts", || {
                pgbench(gateway.port, "scripts", folder.path(), &words)
            })?;
            println!("{workers} workers, {mode}: {most} connections at most");
            ensure!(most <= size, "{most} connections to the primary");
            ensure!(
                most == size || mode == "session",
                "only {most} of {size} used"
            );
        }
        let reads = gateway.replica_reads()? - before;
        println!("{reads} reads on replicas");
        ensure!(reads > 100.0, "only {reads} reads on replicas");
    }
    let sums = "SELECT sum(v) FROM accounts";
    ensure!(primary.query("scripts", sums)?.trim() == "1000000");
    let sums = "SELECT count(*) FROM (SELECT id FROM accounts a WHERE v <> 1000 - (SELECT count(*) \
                FROM moves WHERE one = a.id) + (SELECT count(*) FROM moves WHERE two = a.id)) AS w";
    ensure!(
        primary.query("scripts", sums)?.trim() == "0",
        "lost or doubled moves"
    );
    Ok(())
}

const IDLE: usize = 10_000;
/// The most of the gateway's memory that an idle client may take.
const BYTES: u64 = 16 * 1024;

/// Lets this process and its children have enough files open, as far as it may.
fn allow_files(count: usize) -> Result<()> {
    let id = std::process::id().to_string();
    let (pid, limit) = (["--pid", &id], format!("--nofile={count}:"));
    let raised = process::run(Command::new("prlimit").args(pid).arg(limit));
    raised.map(drop).with_context(|| {
        format!("{count} open files are needed: raise the hard limit (`ulimit -Hn`)")
    })
}

/// A listener for the idle ones; with TLS if there are certificates.
fn many_clients(cluster: &PostgresCluster, files: Option<&Certificates>) -> Result<(Gateway, u16)> {
    let port = free_port()?;
    let mut composite = format!(
        "[listener.many]\nprotocol = \"postgresql\"\nbind = \"127.0.0.1:{port}\"\nstore = \"db\"\n\
         max-clients = 11000\nidle-timeout = \"10m\"\n"
    );
    if let Some(files) = files {
        writeln!(composite, "{}", listener_tls(files, None))?;
    }
    composite += "[[listener.many.user]]\nname = \"breccia\"\npassword = \"secret\"\n";
    let extra = Extra {
        composite: &composite,
        ..Extra::default()
    };
    Ok((Gateway::over(cluster, "postgres", extra)?, port))
}

#[test]
fn ten_thousand_idle_clients_take_little_memory() -> Result<()> {
    allow_files(IDLE + 2_000)?;
    let cluster = quiet()?;
    let (mut gateway, port) = many_clients(&cluster, None)?;
    let connect = || SqlClient::connect(port, "postgres");
    // What is made once only is there before it is counted.
    let warm = (0..50).map(|_| connect()).collect::<Result<Vec<_>>>()?;
    let before = gateway.breccia.process().resident_bytes()?;
    let clients = Mutex::new(warm);
    together(8, |_| {
        for _ in 0..IDLE / 8 {
            let mut client = connect()?;
            // Each has asked something and been answered.
            client.run("SELECT 1")?;
            clients.lock().expect("no panic").push(client);
        }
        Ok(())
    })?;
    let grown = gateway.breccia.process().resident_bytes()? - before;
    let each = grown / IDLE as u64;
    println!("{IDLE} idle clients: {each} bytes each");
    ensure!(each <= BYTES, "{each} bytes for each idle client");
    // All of them are alive.
    let mut clients = clients.into_inner().expect("no panic");
    for client in clients.iter_mut().step_by(97) {
        ensure!(client.run("SELECT 7")?.value() == Some("7"));
    }
    drop(clients);
    wait_until(LIMIT, "the clients to be gone", || {
        let open = gateway
            .breccia
            .metric("breccia_connections{listener=\"many\"}")?;
        Ok((open == 0.0).then_some(()))
    })
}

/// Opens idle connections under TLS, says so, and waits for the end of its input.
const TLS_CLIENTS: &str = "
import sys, psycopg
place = f'host=127.0.0.1 port={sys.argv[1]} user=breccia password=secret dbname=postgres'
all = [psycopg.connect(place, sslmode='require', autocommit=True) for _ in range(int(sys.argv[2]))]
for c in all:
    c.execute('select 1')
print('open', flush=True)
sys.stdin.read()
";

#[test]
fn an_idle_client_under_tls_takes_little_more() -> Result<()> {
    let (cluster, files) = (quiet()?, Certificates::new()?);
    let (mut gateway, port) = many_clients(&cluster, Some(&files))?;
    let open = |count: usize| -> Result<std::process::Child> {
        let mut command = Command::new(clients_folder().join("sql-python/bin/python"));
        command.args(["-c", TLS_CLIENTS, &port.to_string(), &count.to_string()]);
        command.stdin(std::process::Stdio::piped());
        let child = command.spawn().context("run `cargo xtask test setup`")?;
        Ok(child)
    };
    let wait = |gateway: &Gateway, wanted: f64| {
        wait_until(4 * LIMIT, "clients under TLS", || {
            let open = gateway
                .breccia
                .metric("breccia_connections{listener=\"many\"}")?;
            Ok((open >= wanted).then_some(()))
        })
    };
    let mut warm = open(20)?;
    wait(&gateway, 20.0)?;
    thread::sleep(Duration::from_millis(500));
    let before = gateway.breccia.process().resident_bytes()?;
    let mut many = open(1_000)?;
    wait(&gateway, 1_020.0)?;
    thread::sleep(Duration::from_secs(1));
    let grown = gateway.breccia.process().resident_bytes()? - before;
    for child in [&mut warm, &mut many] {
        drop(child.stdin.take());
        child.wait()?;
    }
    let each = grown / 1_000;
    println!("1000 idle clients under TLS: {each} bytes each");
    ensure!(
        each <= 4 * BYTES,
        "{each} bytes for each idle client under TLS"
    );
    Ok(())
}
