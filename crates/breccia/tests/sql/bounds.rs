//! What a client that is logged in can make the gateway hold.
//!
//! Not what strangers can (`logins.rs`). Invariant: memory is looked at from outside, in the system's
//! own numbers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use breccia_testkit::{PostgresCluster, SqlClient, wait_until};

use crate::pooling::database;
use crate::rig::{Extra, Gateway, LIMIT};

/// The most memory a gateway has held so far, in bytes.
pub(crate) fn peak(gateway: &mut Gateway) -> Result<u64> {
    let path = format!("/proc/{}/status", gateway.breccia.process().id());
    let status = std::fs::read_to_string(&path).context(path)?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.context("no VmHWM")?.trim().trim_end_matches(" kB");
    Ok(kib.trim().parse::<u64>()? * 1024)
}

fn gateway(name: &str) -> Result<(Arc<PostgresCluster>, Gateway)> {
    let cluster = database(name)?;
    let gateway = Gateway::over(&cluster, name, Extra::default())?;
    Ok((cluster, gateway))
}

/// Reads frames up to a `ReadyForQuery`; how many of each of two kinds.
fn count(client: &mut SqlClient, kinds: [u8; 2]) -> Result<[usize; 2]> {
    let mut found = [0; 2];
    loop {
        let (kind, body) = client.read_frame()?;
        ensure!(kind != b'E', "{}", String::from_utf8_lossy(&body));
        for (wanted, found) in kinds.iter().zip(&mut found) {
            *found += usize::from(kind == *wanted);
        }
        if kind == b'Z' {
            return Ok(found);
        }
    }
}

#[test]
fn answers_that_wait_for_a_statement_are_few() -> Result<()> {
    const CLOSES: usize = 60_000;
    let (cluster, gateway) = gateway("bounds_waiting")?;
    let mut holder = SqlClient::connect(cluster.primary().port(), "bounds_waiting")?;
    holder.run("SELECT pg_advisory_lock(21)")?;
    let mut client = gateway.client("bounds_waiting")?;
    client
        .parse("", "SELECT pg_advisory_lock(21)")
        .bind("", &[])
        .execute();
    client.frame(b'H', &[]).flush()?;
    let writer = std::thread::spawn(move || -> Result<SqlClient> {
        let name = "x".repeat(1_000);
        for _ in 0..CLOSES / 1_000 {
            for _ in 0..1_000 {
                client.close(&name);
            }
            client.flush()?;
        }
        client.sync().flush()?;
        Ok(client)
    });
    // More than the system's buffers hold: somebody must take it, or it waits.
    for _ in 0..50 {
        std::thread::sleep(Duration::from_millis(100));
        ensure!(!writer.is_finished(), "all of it was taken");
    }
    holder.run("SELECT pg_advisory_unlock(21)")?;
    let mut client = writer.join().expect("a thread without panic")?;
    ensure!(count(&mut client, *b"3D")? == [CLOSES, 1]);
    Ok(())
}

#[test]
fn many_answers_of_its_own_behind_one_that_no_server_has_sent_yet() -> Result<()> {
    let (_cluster, gateway) = gateway("bounds_behind")?;
    let mut client = gateway.client("bounds_behind")?;
    client.set_patience(Duration::from_secs(10))?;
    client.run("BEGIN")?;
    for round in 0..2 {
        client.parse(
            &format!("new{round}"),
            &format!("SELECT {round}, pg_backend_pid()"),
        );
        for _ in 0..40_000 {
            client.close("none");
        }
        client.sync().flush()?;
        ensure!(count(&mut client, *b"31")? == [40_000, 1], "round {round}");
    }
    Ok(())
}

#[test]
fn names_may_come_and_go_in_one_transaction_but_not_without_a_sync() -> Result<()> {
    let (_cluster, gateway) = gateway("bounds_coming")?;
    let mut client = gateway.client("bounds_coming")?;
    client.run("BEGIN")?;
    client.run("INSERT INTO t (own) VALUES (1)")?;
    let pairs = |client: &mut SqlClient| {
        for _ in 0..1_000 {
            client.parse("s", "SELECT 1").close("s");
        }
    };
    for _ in 0..70 {
        pairs(&mut client);
        client.sync().flush()?;
        ensure!(count(&mut client, *b"13")? == [1_000, 1_000]);
    }
    client.run("COMMIT")?;
    let told = (0..70).try_for_each(|_| {
        pairs(&mut client);
        client.frame(b'H', &[]).flush()?;
        for _ in 0..2_000 {
            let (kind, body) = client.read_frame()?;
            ensure!(kind != b'E', "{}", String::from_utf8_lossy(&body));
        }
        Ok(())
    });
    let told = told.err().context("it goes on for ever")?.to_string();
    ensure!(told.contains("54000"), "{told}");
    Ok(())
}

/// Prepares a long text, and binds it many times; how long the binding takes.
fn bind_often(client: &mut SqlClient) -> Result<Duration> {
    let sql = format!("SELECT 1\n{}", "--\n".repeat(100_000));
    client.parse("s", &sql).sync().ask()?.good()?;
    client.bind("s", &[]).sync().ask()?.good()?;
    let started = Instant::now();
    for _ in 0..1_000 {
        client.bind("s", &[]);
    }
    client.sync().flush()?;
    ensure!(count(client, *b"2Z")? == [1_000, 1]);
    Ok(started.elapsed())
}

#[test]
fn a_long_statement_is_not_read_again_for_each_use() -> Result<()> {
    let (cluster, gateway) = gateway("bounds_long")?;
    let mut direct = SqlClient::connect(cluster.primary().port(), "bounds_long")?;
    let directly = bind_often(&mut direct)?;
    let took = bind_often(&mut gateway.client("bounds_long")?)?;
    println!("{directly:?} directly, {took:?} through the gateway");
    // Reading it once for each use takes minutes.
    ensure!(took < directly * 3 + Duration::from_secs(15));
    Ok(())
}

#[test]
fn texts_that_nobody_uses_any_more_are_let_go_of() -> Result<()> {
    let (_cluster, mut gateway) = gateway("bounds_texts")?;
    let before = peak(&mut gateway)?;
    let mut client = gateway.client("bounds_texts")?;
    for number in 0..60 {
        let sql = format!("SELECT {number} /*{}*/", "x".repeat(4_000_000));
        client.parse("s", &sql).sync().ask()?.good()?;
        client.close("s").sync().ask()?.good()?;
    }
    let grown = peak(&mut gateway)?.saturating_sub(before);
    ensure!(grown < 200 << 20, "it took {grown} bytes more");
    Ok(())
}

#[test]
fn what_a_read_says_before_its_first_row_is_not_kept_without_bound() -> Result<()> {
    const NOTICES: usize = 400_000;
    let (_cluster, mut gateway) = gateway("bounds_notices")?;
    let body = format!(
        "CREATE FUNCTION talks() RETURNS int STABLE LANGUAGE plpgsql AS $$ BEGIN \
         FOR i IN 1..{NOTICES} LOOP RAISE NOTICE '{}'; END LOOP; RETURN 7; END $$",
        "x".repeat(400)
    );
    let mut client = gateway.client("bounds_notices")?;
    client.run(&body)?;
    client.run(
        "CREATE FUNCTION few() RETURNS int STABLE LANGUAGE plpgsql AS $$ BEGIN RETURN 7; END $$",
    )?;
    wait_until(LIMIT, "the functions to be known", || {
        client.run("SELECT few()")?;
        let reason = client.run("SHOW breccia.reason")?;
        Ok((reason.value() == Some("read")).then_some(()))
    })?;
    for read in ["SELECT talks()", "/* breccia: primary */ SELECT talks(), 1"] {
        let mut client = gateway.client("bounds_notices")?;
        client.set_patience(Duration::from_secs(30))?;
        let before = peak(&mut gateway)?;
        client.query(read).flush()?;
        let [notices, rows] = count(&mut client, *b"ND")?;
        ensure!([notices, rows] == [NOTICES, 1], "{notices} and {rows}");
        let reason = client.run("SHOW breccia.reason")?;
        let grown = peak(&mut gateway)?.saturating_sub(before);
        println!("{read}: {:?}, {grown} bytes more", reason.value());
        ensure!(grown < 50 << 20, "{read}: it took {grown} bytes more");
    }
    Ok(())
}
