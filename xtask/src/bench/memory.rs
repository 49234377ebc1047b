//! The memory that Breccia takes: when idle, under a deep pipeline, some seconds after it, and for
//! each client that is connected and says nothing.
//!
//! Not its speed. Invariant: every figure is of a process that was started for it, so none shows
//! what another load has left behind.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::report::{Page, versions};
use super::rig::Rig;
use super::{Load, Wire, memcached, redis};
use crate::process::{self, Server};
use crate::resp::Connection;

/// Clients that connect, ask once and stay.
const IDLE_CLIENTS: u32 = 10_000;
/// When the memory is looked at once more after a load.
const LATER: Duration = Duration::from_secs(30);
/// How long a process is left alone before it is looked at.
const SETTLING: Duration = Duration::from_secs(2);

/// Measures and writes the page's table.
pub(crate) fn run(rig: &Rig) -> Result<()> {
    let mut table =
        String::from("| | idle MiB | after the load | 30 s later |\n|---|---|---|---|\n");
    let mut rows = Vec::new();
    for (wire, test, workers) in [
        (Wire::Redis, "GET", 1),
        (Wire::Redis, "GET", 2),
        (Wire::RedisTls, "GET", 1),
        (Wire::Memcached, "get", 1),
    ] {
        rows.push(after_load(rig, (wire, test, workers), &mut table)?);
    }
    table.push_str("\n| idle clients | KiB for each |\n|---|---|\n");
    rows.push(idle_clients(rig, &mut table)?);
    println!("\n{table}");
    let page = Page {
        name: "kv-memory",
        versions: versions()?,
    };
    page.write(&rows, &table, 1)
}

fn after_load(
    rig: &Rig,
    (wire, test, workers): (Wire, &'static str, u32),
    table: &mut String,
) -> Result<Value> {
    let server = rig.breccia(wire, workers)?;
    std::thread::sleep(SETTLING);
    let idle = server.resident_bytes()?;
    let load = Load {
        wire,
        test,
        depth: 64,
        requests: 1_000_000,
    };
    match wire {
        Wire::Memcached => memcached::run(server.port, &load)?,
        Wire::Redis | Wire::RedisTls => redis::run(server.port, &load)?,
    };
    let loaded = server.resident_bytes()?;
    std::thread::sleep(LATER);
    let later = server.resident_bytes()?;
    let name = format!("{} {test} at depth 64, workers = {workers}", wire.name());
    writeln!(
        table,
        "| {name} | {} | {} | {} |",
        mib(idle),
        mib(loaded),
        mib(later)
    )?;
    Ok(json!({"load": name, "idle_bytes": idle, "loaded_bytes": loaded, "later_bytes": later}))
}

fn idle_clients(rig: &Rig, table: &mut String) -> Result<Value> {
    allow_open_files(std::process::id())?;
    let server = rig.breccia(Wire::Redis, 1)?;
    allow_open_files(server.id())?;
    // A load may have left other bytes there.
    Connection::open(server.port)?.call(&["SET", "key:000000000001", "xxx"])?;
    std::thread::sleep(SETTLING);
    let before = server.resident_bytes()?;
    let clients = (0..IDLE_CLIENTS)
        .map(|number| idle_client(&server, number))
        .collect::<Result<Vec<_>>>()?;
    std::thread::sleep(SETTLING * 2);
    let after = server.resident_bytes()?;
    drop(clients);
    #[expect(clippy::cast_precision_loss, reason = "some megabytes")]
    let each = after.saturating_sub(before) as f64 / f64::from(IDLE_CLIENTS) / 1024.0;
    writeln!(table, "| {IDLE_CLIENTS} over plain TCP | {each:.1} |")?;
    Ok(json!({"idle_clients": IDLE_CLIENTS, "before_bytes": before, "after_bytes": after}))
}

/// A client that has asked one thing and keeps its connection.
fn idle_client(server: &Server, number: u32) -> Result<TcpStream> {
    let connected = TcpStream::connect(("127.0.0.1", server.port));
    let mut stream = connected.with_context(|| format!("client {number}"))?;
    stream.write_all(b"*2\r\n$3\r\nGET\r\n$16\r\nkey:000000000001\r\n")?;
    let mut reply = [0; 9];
    stream.read_exact(&mut reply)?;
    ensure!(
        &reply == b"$3\r\nxxx\r\n",
        "client {number} was answered otherwise"
    );
    Ok(stream)
}

/// Lets a process have as many connections as this needs.
fn allow_open_files(process: u32) -> Result<()> {
    let mut command = Command::new("prlimit");
    command.args(["--pid", &process.to_string(), "--nofile=20000:"]);
    process::output(&mut command).map(drop)
}

fn mib(bytes: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "some megabytes")]
    let mib = bytes as f64 / f64::from(1 << 20);
    format!("{mib:.1}")
}
