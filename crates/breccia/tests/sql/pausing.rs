//! Statements that are held back while an administrator works at the servers.
//!
//! Not drains of replicas. Invariant: what waited for the end of a pause is answered as if there had
//! been none.

use std::io::Write as _;
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use breccia_testkit::{SqlClient, http, wait_until};

use crate::pooling::{database, together};
use crate::rig::{Extra, Gateway, LIMIT, cluster};

/// Steers a store: the answer's status and body.
fn steer(gateway: &Gateway, store: &str, action: &str) -> Result<(u16, serde_json::Value)> {
    let path = format!("/stores/{store}/{action}");
    let (status, body) = http(gateway.breccia.admin_port(), "POST", &path)?;
    Ok((status, serde_json::from_str(&body).context(body)?))
}

fn status(gateway: &Gateway) -> Result<serde_json::Value> {
    let (_, body) = gateway.breccia.admin("/status")?;
    let status: serde_json::Value = serde_json::from_str(&body)?;
    let cluster = status.pointer("/clusters/0");
    cluster.cloned().context("no cluster in /status")
}

fn wait_waiting(gateway: &Gateway, count: u64) -> Result<()> {
    wait_until(LIMIT, &format!("{count} sessions to wait"), || {
        let waiting = status(gateway)?;
        let waiting = waiting.get("waiting").and_then(serde_json::Value::as_u64);
        Ok((waiting == Some(count)).then_some(()))
    })
}

#[test]
fn a_paused_composite_lets_transactions_end_and_holds_the_rest_back() -> Result<()> {
    let cluster = database("pausing")?;
    let extra = Extra {
        listener: "queue-timeout = \"20s\"",
        ..Extra::default()
    };
    let gateway = &Gateway::over(&cluster, "pausing", extra)?;
    let mut open = gateway.client("pausing")?;
    open.run("BEGIN")?;
    open.run("INSERT INTO t (own) VALUES (1)")?;
    let mut pinned = gateway.client("pausing")?;
    pinned.run("CREATE TEMP TABLE mine (a int)")?;
    let held = AtomicBool::new(true);
    thread::scope(|scope| -> Result<()> {
        let pausing = scope.spawn(|| steer(gateway, "db", "pause"));
        wait_until(LIMIT, "the pause", || {
            let (_, metrics) = gateway.breccia.admin("/metrics")?;
            let shown = metrics.contains("breccia_store_paused{store=\"db\"} 1");
            Ok(shown.then_some(()))
        })?;
        let work = |sql: &'static str, client: Option<SqlClient>| {
            let held = &held;
            move || -> Result<()> {
                let mut client = client.map_or_else(|| gateway.client("pausing"), Ok)?;
                client.run(sql).context(sql)?;
                ensure!(!held.load(Ordering::SeqCst), "{sql} was not held back");
                Ok(())
            }
        };
        let threads = [
            scope.spawn(work("SELECT count(*) FROM t", None)),
            scope.spawn(work("INSERT INTO t (own) VALUES (2)", None)),
            scope.spawn(work("INSERT INTO mine VALUES (3)", Some(pinned))),
        ];
        wait_waiting(gateway, 3)?;
        // The transaction goes on.
        open.run("INSERT INTO t (own) VALUES (1)")?;
        open.run("COMMIT")?;
        let (code, body) = pausing.join().expect("no panic")?;
        ensure!(code == 200 && body["running"] == 0, "{code} {body}");
        let seen = status(gateway)?;
        ensure!(seen["paused"][0] == "db" && seen["waiting"] == 3, "{seen}");
        ensure!(
            seen["pools"]
                .as_array()
                .is_some_and(|it| it.iter().all(|it| it["idle"] == 0))
        );
        let (ready, line) = gateway.breccia.admin("/readyz")?;
        ensure!(ready == 200 && line.contains("/stores/db/resume"), "{line}");
        held.store(false, Ordering::SeqCst);
        let (code, body) = steer(gateway, "db", "resume")?;
        ensure!(code == 200 && body["paused"] == false, "{body}");
        for thread in threads {
            thread.join().expect("no panic")?;
        }
        Ok(())
    })?;
    let seen = status(gateway)?;
    ensure!(
        seen["paused"] == serde_json::json!([]) && seen["waiting"] == 0,
        "{seen}"
    );
    ensure!(
        gateway
            .breccia
            .metric("breccia_store_paused{store=\"db\"}")?
            < 0.5
    );
    Ok(())
}

#[test]
fn who_waits_too_long_is_refused_and_goes_on_later() -> Result<()> {
    let cluster = database("impatient")?;
    let extra = Extra {
        listener: "queue-timeout = \"700ms\"",
        ..Extra::default()
    };
    let gateway = Gateway::over(&cluster, "impatient", extra)?;
    // A read finds no replica for as long as none has come to where its session stands.
    let reads = |client: &mut SqlClient, sql: &str| {
        wait_until(LIMIT, sql, || {
            let reply = client.simple(sql)?;
            ensure!(["", "57P03"].contains(&reply.code()), "{reply:?}");
            Ok(reply.code().is_empty().then_some(()))
        })
    };
    let mut plain = gateway.client("impatient")?;
    let mut pinned = gateway.client("impatient")?;
    pinned.run("CREATE TEMP TABLE mine AS SELECT 7 AS a")?;
    // A write is held back, reads go to the replicas.
    steer(&gateway, "pg0", "pause")?;
    for client in [&mut plain, &mut pinned] {
        let begun = Instant::now();
        let reply = client.simple("INSERT INTO t (own) VALUES (1)")?;
        ensure!(reply.code() == "57P03" && reply.status == 'I', "{reply:?}");
        ensure!(begun.elapsed() >= Duration::from_millis(700), "too early");
        let told = format!("{reply:?}");
        ensure!(told.contains("POST /stores/pg0/resume"), "{told}");
        let reply = client.extended("INSERT INTO t (own) VALUES (1)", &[])?;
        ensure!(reply.code() == "57P03" && reply.status == 'I', "{reply:?}");
    }
    let mut reader = gateway.client("impatient")?;
    let before = gateway.replica_reads()?;
    reads(&mut reader, "SELECT count(*) FROM t")?;
    ensure!(gateway.replica_reads()? > before, "the read ran elsewhere");
    let seen = status(&gateway)?;
    ensure!(seen["paused"][0] == "pg0", "{seen}");
    // Of all three servers nobody serves, and nobody new comes in.
    steer(&gateway, "db", "pause")?;
    ensure!(reader.simple("SELECT 1")?.code() == "57P03");
    let stranger = gateway.client("impatient").map(drop);
    let error = format!("{:#}", stranger.expect_err("a login"));
    ensure!(error.contains("57P03"), "{error}");
    // A pause of the whole is apart from one of a server.
    steer(&gateway, "db", "resume")?;
    reads(&mut reader, "SELECT 1")?;
    ensure!(plain.simple("DELETE FROM t")?.code() == "57P03");
    steer(&gateway, "pg0", "resume")?;
    plain.run("DELETE FROM t")?;
    ensure!(pinned.run("SELECT a FROM mine")?.value() == Some("7"));
    for line in [
        "a statement is refused",
        "state=\"57P03\"",
        "\"DELETE FROM t\"",
    ] {
        ensure!(gateway.breccia.log().contains(line), "{line}");
    }
    Ok(())
}

#[test]
fn a_pause_tells_what_still_runs() -> Result<()> {
    let cluster = database("still")?;
    let gateway = Gateway::over(&cluster, "still", Extra::default())?;
    let mut open = gateway.client("still")?;
    open.run("BEGIN")?;
    open.run("DELETE FROM t")?;
    let (code, body) = steer(&gateway, "pg0", "pause")?;
    ensure!(code == 202 && body["running"] == 1, "{code} {body}");
    open.run("ROLLBACK")?;
    let (code, body) = steer(&gateway, "pg0", "pause")?;
    ensure!(code == 200 && body["running"] == 0, "{code} {body}");
    let (code, body) = steer(&gateway, "db", "drain")?;
    ensure!(code == 409, "{code} {body}");
    let (code, body) = steer(&gateway, "pg7", "pause")?;
    ensure!(
        code == 404
            && body["refused"]
                .as_str()
                .is_some_and(|it| it.contains("pg1")),
        "{body}"
    );
    steer(&gateway, "pg0", "resume")?;
    open.run("DELETE FROM t").map(drop)
}

/// Writers that count, until they are told to end.
fn write(gateway: &Gateway, number: usize, done: &AtomicBool, written: &AtomicU32) -> Result<()> {
    let mut client = gateway.client("switch")?;
    while !done.load(Ordering::SeqCst) {
        if number.is_multiple_of(2) {
            client.run("INSERT INTO t (own) VALUES (1)")?;
        } else {
            client.run("BEGIN")?;
            client.run("INSERT INTO t (own) VALUES (1)")?;
            client.run("COMMIT")?;
        }
        let seen = client.run("SELECT count(*) FROM t")?;
        ensure!(seen.value() != Some("0"), "its own write is not there");
        written.fetch_add(1, Ordering::SeqCst);
    }
    Ok(())
}

#[test]
fn a_switchover_under_a_pause_costs_no_client_an_error() -> Result<()> {
    switch_over(true)
}

#[test]
fn nor_if_the_pause_ends_at_once_after_it() -> Result<()> {
    switch_over(false)
}

/// A pause, a switchover, and the end of the pause: once Breccia is seen to know the new primary, or as
/// a script ends it, which does not look.
fn switch_over(waits: bool) -> Result<()> {
    let mut cluster = cluster(None)?;
    cluster.primary().create_database("switch")?;
    let table = "CREATE TABLE t (id serial PRIMARY KEY, own int)";
    cluster.primary().query("switch", table)?;
    let extra = Extra {
        listener: "queue-timeout = \"60s\"",
        ..Extra::default()
    };
    let gateway = Gateway::over(&cluster, "switch", extra)?;
    let (done, written) = (AtomicBool::new(false), AtomicU32::new(0));
    let (gateway, done, written) = (&gateway, &done, &written);
    thread::scope(|scope| -> Result<()> {
        let writers =
            scope.spawn(move || together(8, |number| write(gateway, number, done, written)));
        thread::sleep(Duration::from_millis(500));
        let switched = (|| -> Result<()> {
            let (code, body) = steer(gateway, "db", "pause")?;
            ensure!(code == 200, "{body}");
            let before = written.load(Ordering::SeqCst);
            cluster.wait_caught_up(LIMIT)?;
            cluster.server_mut(0).kill9();
            cluster.promote(1)?;
            if waits {
                wait_until(LIMIT, "the new primary", || {
                    let status = status(gateway)?;
                    Ok((status.get("primary").is_some_and(|it| it == "pg1")).then_some(()))
                })?;
            }
            ensure!(
                written.load(Ordering::SeqCst) <= before + 8,
                "nobody was held back"
            );
            steer(gateway, "db", "resume")?;
            wait_until(LIMIT, "writes on the new primary", || {
                Ok((written.load(Ordering::SeqCst) > before + 100).then_some(()))
            })
        })();
        done.store(true, Ordering::SeqCst);
        let wrote = writers.join().expect("no panic");
        switched.and(wrote)
    })?;
    let count: u32 = cluster
        .server(1)
        .query("switch", "SELECT count(*) FROM t")?
        .trim()
        .parse()?;
    ensure!(
        count == written.load(Ordering::SeqCst),
        "{count} of {written:?}"
    );
    Ok(())
}

#[test]
fn a_pause_ends_though_whoever_ended_it_did_not_wait_for_the_answer() -> Result<()> {
    let mut cluster = cluster(None)?;
    let gateway = Gateway::over(&cluster, "postgres", Extra::default())?;
    steer(&gateway, "db", "pause")?;
    // Without a primary the answer takes a while.
    cluster.server_mut(0).kill9();
    let mut asking = TcpStream::connect(("127.0.0.1", gateway.breccia.admin_port()))?;
    asking.write_all(b"POST /stores/db/resume HTTP/1.1\r\nhost: breccia\r\n\r\n")?;
    thread::sleep(Duration::from_millis(300));
    drop(asking);
    let begun = Instant::now();
    wait_until(LIMIT, "the end of the pause", || {
        let paused = status(&gateway)?.get("paused").cloned();
        Ok((paused == Some(serde_json::json!([]))).then_some(()))
    })?;
    ensure!(
        begun.elapsed() > Duration::from_secs(1),
        "it did not look for a primary"
    );
    ensure!(
        gateway
            .breccia
            .log()
            .contains("a pause ends without a primary")
    );
    Ok(())
}
