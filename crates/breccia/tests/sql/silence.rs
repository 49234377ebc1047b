//! Clients that say nothing, or take nothing, for as long as they may and no longer.
//!
//! Not servers that are silent (`faults.rs`). Invariant: each limit here is longer than a session
//! waits at once, and shorter than the test.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use breccia_testkit::{PostgresCluster, SqlClient, wait_until};

use crate::pooling::database;
use crate::rig::{Extra, Gateway, LIMIT};

/// Longer than any limit of a test.
const LONG: Duration = Duration::from_millis(2_500);

fn gateway(name: &str, limits: &str) -> Result<(Arc<PostgresCluster>, Gateway)> {
    let cluster = database(name)?;
    let extra = Extra {
        listener: limits,
        ..Extra::default()
    };
    let gateway = Gateway::over(&cluster, name, extra)?;
    Ok((cluster, gateway))
}

/// Whether so many sessions were ended by a limit, each told to the log and counted.
fn ended(gateway: &Gateway, limit: &str, count: usize) -> Result<()> {
    let line = format!("limit=\"{limit}\"");
    let told = |it: &&str| it.contains("a session is ended") && it.contains(&line);
    wait_until(LIMIT, &format!("{count} ends by {limit}"), || {
        Ok((gateway.breccia.log().lines().filter(told).count() == count).then_some(()))
    })?;
    let metric = format!("breccia_limit_hits_total{{listener=\"sql\",limit=\"{limit}\"}}");
    let counted = gateway.breccia.metric(&metric)?;
    ensure!(counted.to_string() == count.to_string(), "{counted}");
    Ok(())
}

#[test]
fn who_has_taken_all_answers_may_be_silent() -> Result<()> {
    for mode in ["transaction", "session"] {
        let name = format!("silent_{mode}");
        let limits = format!("pool-mode = \"{mode}\"\nwrite-timeout = \"700ms\"");
        let (_cluster, gateway) = gateway(&name, &limits)?;
        for before in [
            "SELECT 1",
            "INSERT INTO t (own) VALUES (1)",
            "BEGIN",
            "BEGIN; SELECT count(*) FROM t",
            "BEGIN READ ONLY",
            "CREATE TEMP TABLE kept (a int)",
            "SELECT 1; SELECT pg_sleep(1.5)",
        ] {
            let mut client = gateway.client(&name)?;
            client.run(before)?;
            thread::sleep(LONG / 2);
            let after = client.run("SELECT 7").context(before)?;
            ensure!(after.value() == Some("7"), "{before}: {:?}", after.rows);
        }
        // The first of two answers was taken long before the second one comes.
        let mut client = gateway.client(&name)?;
        client
            .query("SELECT 1")
            .query("SELECT pg_sleep(1.5), 2")
            .flush()?;
        for _ in 0..2 {
            client.read_reply()?.good()?;
        }
    }
    Ok(())
}

/// How long it takes until a client that is silent after `before` is told this.
fn told_after(gateway: &Gateway, name: &str, before: &str, state: &str) -> Result<Duration> {
    let mut client: SqlClient = gateway.client(name)?;
    client.run(before)?;
    let begun = Instant::now();
    client.set_patience(2 * LONG)?;
    let (kind, body) = client.read_frame().with_context(|| before.to_owned())?;
    let text = String::from_utf8_lossy(&body).into_owned();
    ensure!(kind == b'E' && text.contains(state), "{before}: {text:?}");
    Ok(begun.elapsed())
}

#[test]
fn who_is_silent_for_too_long_is_told_so() -> Result<()> {
    let least = Duration::from_millis(1_100);
    for (name, limit, before, state) in [
        ("limit_idle", "idle-timeout", "SELECT 1", "57P05"),
        (
            "limit_open",
            "idle-in-transaction-timeout",
            "BEGIN; SELECT 1",
            "25P03",
        ),
        (
            "limit_long",
            "transaction-timeout",
            "BEGIN; SELECT 1",
            "57014",
        ),
    ] {
        for mode in ["transaction", "session"] {
            if (mode, limit) == ("session", "idle-timeout") {
                continue;
            }
            let database = format!("{name}_{mode}");
            let limits = format!("pool-mode = \"{mode}\"\n{limit} = \"1200ms\"");
            let (_cluster, gateway) = gateway(&database, &limits)?;
            let after = told_after(&gateway, &database, before, state)?;
            ensure!(after >= least && after < LONG, "{limit}, {mode}: {after:?}");
            ended(&gateway, limit, 1)?;
        }
    }
    Ok(())
}

#[test]
fn who_takes_nothing_does_not_keep_a_connection() -> Result<()> {
    let name = "deaf";
    let (_cluster, gateway) = gateway(
        name,
        "pool-size = 1\nwrite-timeout = \"1s\"\nqueue-timeout = \"20s\"",
    )?;
    let mut other = gateway.client(name)?;
    let mut all = Vec::new();
    for sql in [
        "SELECT repeat('x', 1000) FROM generate_series(1, 100000)",
        "/* breccia: primary */ SELECT repeat('x', 1000) FROM generate_series(1, 100000)",
    ] {
        let mut deaf = gateway.client(name)?;
        deaf.query(sql).flush()?;
        thread::sleep(Duration::from_millis(300));
        let begun = Instant::now();
        let hint = sql.split("SELECT").next().unwrap_or_default();
        let found = other.run(&format!("{hint} SELECT 7"))?;
        ensure!(found.value() == Some("7"));
        ensure!(begun.elapsed() < 4 * LONG, "{sql}: {:?}", begun.elapsed());
        all.push(deaf);
    }
    ended(&gateway, "write-timeout", 2)
}
