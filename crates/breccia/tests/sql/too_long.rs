//! Messages longer than `max-request-size`, of clients that write all of one before they read.
//!
//! Not texts that are held (`bounds.rs`). Invariant: who goes on writing hears why it is refused, and
//! nobody is listened to for ever.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use breccia_testkit::wait_until;

use crate::rig::{Extra, Gateway, LIMIT, shared};

const LIMITED: Extra<'static> = Extra {
    top: "",
    server: "",
    composite: "",
    listener: "max-request-size = \"100KiB\"",
};

/// Longer than a session that ends waits for its client to read.
const REST: Duration = Duration::from_millis(1_500);

/// A message's head, whose body is so long.
fn head(tag: u8, length: usize) -> Result<Vec<u8>> {
    let mut head = vec![tag];
    head.extend_from_slice(&u32::try_from(length + 4)?.to_be_bytes());
    Ok(head)
}

/// Writes all of a message, with a rest in the middle of it, and then reads to the end.
fn write_slowly(stream: &mut TcpStream, tag: u8, length: usize, rest: Duration) -> Result<String> {
    stream.set_read_timeout(Some(LIMIT))?;
    stream.set_write_timeout(Some(LIMIT))?;
    stream.write_all(&head(tag, length)?)?;
    let half = vec![b'x'; length / 2];
    stream.write_all(&half).context("the first half")?;
    thread::sleep(rest);
    stream.write_all(&half).context("the second half")?;
    if tag == b'P' {
        stream.write_all(&head(b'S', 0)?).context("a Sync")?;
    }
    let mut told = Vec::new();
    stream.read_to_end(&mut told).context("the answer")?;
    Ok(String::from_utf8_lossy(&told).into_owned())
}

/// Whether so many were refused, each told to the log and counted.
fn counted(gateway: &Gateway, count: usize) -> Result<()> {
    let told = |it: &&str| {
        let ends = it.contains("a session is ended") && it.contains("max-request-size");
        ends || (it.contains("a statement is refused") && it.contains("54000"))
    };
    wait_until(LIMIT, "a line for each", || {
        Ok((gateway.breccia.log().lines().filter(told).count() == count).then_some(()))
    })?;
    let metric = "breccia_limit_hits_total{listener=\"sql\",limit=\"max-request-size\"}";
    let hits = gateway.breccia.metric(metric)?;
    ensure!(hits.to_string() == count.to_string(), "{hits}");
    Ok(())
}

#[test]
fn who_writes_a_message_that_is_too_long_hears_why_it_is_refused() -> Result<()> {
    let cluster = shared()?;
    let gateway = Gateway::over(&cluster, "postgres", LIMITED)?;
    let rows = [
        (b'Q', 300_000, Duration::ZERO),
        (b'Q', 300_000, REST),
        (b'Q', 100_000_000, REST),
        (b'P', 300_000, REST),
        (b'P', 100_000_000, REST),
    ];
    for (tag, length, rest) in rows {
        for before in [
            "SELECT 1",
            "BEGIN; SELECT 1",
            "CREATE TEMP TABLE own (a int)",
        ] {
            let mut client = gateway.client("postgres")?;
            client.run(before)?;
            let what = format!("{} of {length} bytes after {before}", char::from(tag));
            let told = write_slowly(&mut client.raw()?, tag, length, rest).context(what.clone())?;
            ensure!(told.contains("54000"), "{what}: {told:?}");
            ensure!(told.contains("max-request-size"), "{what}: {told:?}");
        }
    }
    counted(&gateway, 3 * rows.len())
}

#[test]
fn libpq_tells_of_a_query_that_is_too_long() -> Result<()> {
    let cluster = shared()?;
    let gateway = Gateway::over(&cluster, "postgres", LIMITED)?;
    let folder = tempfile::tempdir()?;
    for length in [300_000, 3_000_000, 300_000_000] {
        let file = folder.path().join("long.sql");
        let text = format!("SELECT length('{}');\n", "x".repeat(length));
        std::fs::write(&file, text)?;
        let mut psql = Command::new("psql");
        psql.args([
            "-X",
            "-q",
            "-h",
            "127.0.0.1",
            "-U",
            cluster.primary().user(),
        ]);
        psql.args(["-p", &gateway.port.to_string(), "-d", "postgres"]);
        psql.env("PGPASSWORD", cluster.primary().password());
        psql.arg("-f").arg(&file);
        let output = psql.output().context("psql")?;
        let told = String::from_utf8_lossy(&output.stderr);
        ensure!(told.contains("max-request-size"), "{length}: {told}");
    }
    Ok(())
}

#[test]
fn who_stops_amid_a_message_that_is_too_long_is_not_waited_for() -> Result<()> {
    let cluster = shared()?;
    let gateway = Gateway::over(&cluster, "postgres", LIMITED)?;
    let client = gateway.client("postgres")?;
    let mut stream = client.raw()?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.write_all(&head(b'Q', 1_000_000)?)?;
    let mut told = [0; 16];
    let begun = Instant::now();
    stream.read_exact(&mut told)?;
    ensure!(begun.elapsed() < Duration::from_secs(2), "it is told late");
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest)?;
    let after = begun.elapsed();
    ensure!(after < Duration::from_secs(15), "the end after {after:?}");
    // One that never rests is not waited for either, nor listened to beyond its message.
    let client = gateway.client("postgres")?;
    let mut stream = client.raw()?;
    stream.write_all(&head(b'Q', 1_000_000)?)?;
    let begun = Instant::now();
    let piece = [b'x'; 10];
    wait_until(Duration::from_mins(1), "the end of a slow one", || {
        thread::sleep(Duration::from_millis(100));
        Ok(stream.write_all(&piece).is_err().then_some(()))
    })?;
    println!("a slow one ends after {:?}", begun.elapsed());
    Ok(())
}
