//! How long clients and their transactions may take, and servers that fall silent.
//!
//! Not limits that a reload changes (`reload.rs`). Invariant: each limit here is longer than what the
//! gateway itself waits at once, so that it counts only if it runs on through what happens between.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use breccia_testkit::{SqlClient, wait_until};

use crate::pooling::database;
use crate::rig::{Extra, Gateway, LIMIT, cluster};

/// What a connection is told at its end, and when.
fn last_word(client: &mut SqlClient) -> Result<(String, Duration)> {
    let begun = Instant::now();
    client.set_patience(Duration::from_secs(8))?;
    match client.read_reply() {
        Ok(reply) => bail!("it goes on: {} {:?}", reply.frames.len(), reply.fault),
        Err(told) => Ok((format!("{told:#}"), begun.elapsed())),
    }
}

/// It is told this, and not before the limit of 1.5 s.
fn ends(client: &mut SqlClient, what: &str, code: &str) -> Result<()> {
    let (told, after) = last_word(client)?;
    ensure!(told.contains(code), "{what}: {told} after {after:?}");
    let in_time = after > Duration::from_millis(1_200) && after < Duration::from_secs(5);
    ensure!(in_time, "{what}: after {after:?}");
    Ok(())
}

#[test]
fn a_silent_client_is_told_to_go() -> Result<()> {
    let cluster = database("limits_silent")?;
    let keys = |mode: &str| {
        format!(
            "idle-in-transaction-timeout = \"1500ms\"\nidle-timeout = \"1500ms\"\n\
             pool-mode = \"{mode}\""
        )
    };
    for mode in ["transaction", "session"] {
        let listener = keys(mode);
        let extra = Extra {
            listener: &listener,
            composite: "transactions = \"lazy\"",
            ..Extra::default()
        };
        let gateway = Gateway::over(&cluster, "limits_silent", extra)?;
        for (code, statements) in [
            ("57P05", &[][..]),
            ("57P05", &["INSERT INTO t (own) VALUES (1)"]),
            ("57P05", &["LISTEN silence"]),
            ("57P05", &["BEGIN", "COMMIT"]),
            ("25P03", &["BEGIN", "INSERT INTO t (own) VALUES (1)"]),
            ("25P03", &["LISTEN silence", "BEGIN"]),
            ("25P03", &["BEGIN"]),
            ("25P03", &["BEGIN", "SELECT 1"]),
        ] {
            let mut client = gateway.client("limits_silent")?;
            for sql in statements {
                client.run(sql)?;
            }
            ends(&mut client, &format!("{mode} {statements:?}"), code)?;
        }
    }
    Ok(())
}

#[test]
fn a_transaction_that_takes_too_long_ends() -> Result<()> {
    let cluster = database("limits_long")?;
    for mode in ["transaction", "session"] {
        let listener = format!("transaction-timeout = \"1500ms\"\npool-mode = \"{mode}\"");
        let extra = Extra {
            listener: &listener,
            composite: "transactions = \"lazy\"",
            ..Extra::default()
        };
        let gateway = Gateway::over(&cluster, "limits_long", extra)?;
        for sql in ["SELECT 1", "UPDATE t SET own = 1"] {
            let mut client = gateway.client("limits_long")?;
            // Many short ones are not a long one.
            for _ in 0..6 {
                client.query("BEGIN").query(sql).query("COMMIT").flush()?;
                for _ in 0..3 {
                    client.read_reply()?.good()?;
                }
                thread::sleep(Duration::from_millis(300));
            }
            let begun = Instant::now();
            client.run("BEGIN")?;
            let told = loop {
                thread::sleep(Duration::from_millis(200));
                match client.run(sql) {
                    Ok(_) if begun.elapsed() > Duration::from_secs(5) => {
                        break "nothing".to_owned();
                    }
                    Ok(_) => {}
                    Err(error) => break format!("{error:#}"),
                }
            };
            let after = begun.elapsed();
            ensure!(told.contains("57014"), "{mode} {sql}: {told}");
            ensure!(
                after > Duration::from_millis(1_300),
                "{mode} {sql}: after {after:?}"
            );
        }
    }
    Ok(())
}

#[test]
fn a_client_that_reads_nothing_is_let_go_however_much_it_says() -> Result<()> {
    let cluster = database("limits_unread")?;
    let extra = Extra {
        listener: "write-timeout = \"1500ms\"",
        ..Extra::default()
    };
    let gateway = Gateway::over(&cluster, "limits_unread", extra)?;
    let mut client = gateway.client("limits_unread")?;
    client
        .query("BEGIN")
        .query("SELECT repeat('x', 1000) FROM generate_series(1, 100000)");
    client.flush()?;
    for _ in 0..20 {
        thread::sleep(Duration::from_millis(250));
        // It may be gone by now.
        let _ = client.frame(b'H', &[]).flush();
    }
    let mut rows = 0;
    while let Ok((kind, _)) = client.read_frame() {
        rows += u32::from(kind == b'D');
    }
    ensure!(rows < 100_000, "it was not let go");
    // One that reads slowly is not.
    let mut client = gateway.client("limits_unread")?;
    client
        .query("SELECT repeat('x', 1000) FROM generate_series(1, 40000)")
        .flush()?;
    let mut rows = 0;
    while client.read_frame()?.0 != b'C' {
        rows += 1;
        if rows % 1_000 == 0 {
            thread::sleep(Duration::from_millis(100));
        }
    }
    ensure!(rows == 40_001, "{rows}");
    Ok(())
}

/// A client whose statement runs on a replica.
fn on_replica(gateway: &Gateway, send: impl Fn(&mut SqlClient) -> Result<()>) -> Result<SqlClient> {
    wait_until(LIMIT, "a statement on a replica", || {
        let mut client = gateway.client("mute")?;
        // That there is a connection which is old enough.
        client.run("SELECT 1")?;
        let before = gateway.replica_reads()?;
        send(&mut client)?;
        thread::sleep(Duration::from_millis(200));
        Ok((gateway.replica_reads()? > before).then_some(client))
    })
}

#[test]
fn a_server_that_falls_silent_keeps_nobody_waiting() -> Result<()> {
    let mut cluster = cluster(None)?;
    cluster.primary().create_database("mute")?;
    cluster.primary().query("mute", "CREATE TABLE t (a int)")?;
    let extra = Extra {
        server: "timeout = \"2s\"\nprobe-interval = \"200ms\"\nprobe-timeout = \"300ms\"",
        ..Extra::default()
    };
    let gateway = Gateway::over(&cluster, "mute", extra)?;
    let slow = "SELECT count(*) FROM generate_series(1, 20000) a, generate_series(1, 20000) b";
    // Neither of them may run again: of the one, there are two; of the other, rows are out.
    let mut two = on_replica(&gateway, |client| {
        for _ in 0..2 {
            client.parse("", slow).bind("", &[]).execute();
        }
        client.sync().flush()
    })?;
    let mut rows = on_replica(&gateway, |client| {
        let long = "SELECT repeat('x', 1000) FROM generate_series(1, 100000)";
        client.query(long).flush()?;
        client.read_frame().map(drop)
    })?;
    for number in [1, 2] {
        cluster.server_mut(number).freeze_all()?;
    }
    for client in [&mut two, &mut rows] {
        let (told, after) = last_word(client)?;
        ensure!(told.contains("57P01"), "{told} after {after:?}");
    }
    for number in [1, 2] {
        cluster.server_mut(number).thaw_all()?;
    }
    let mut writing = gateway.client("mute")?;
    writing
        .query("INSERT INTO t SELECT 1 FROM pg_sleep(20)")
        .flush()?;
    thread::sleep(Duration::from_millis(300));
    cluster.server_mut(0).freeze_all()?;
    let (told, after) = last_word(&mut writing)?;
    ensure!(told.contains("08007"), "{told} after {after:?}");
    cluster.server_mut(0).thaw_all()
}
