//! Few upstream connections for many clients.
//!
//! Not what a session keeps (`sessions.rs`). Invariant: every client here is answered, whatever
//! the others do.

use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use breccia_testkit::{PostgresCluster, SqlClient, wait_until};

use crate::rig::{Dice, Extra, Gateway, LIMIT, shared};

/// A database of the shared cluster, with one table.
pub(crate) fn database(name: &str) -> Result<std::sync::Arc<PostgresCluster>> {
    let cluster = shared()?;
    cluster.primary().create_database(name)?;
    cluster.primary().query(
        name,
        "CREATE TABLE t (id serial PRIMARY KEY, own int, v text)",
    )?;
    Ok(cluster)
}

/// Runs `work` with the numbers from 0 in threads of their own; the first error.
pub(crate) fn together(count: usize, work: impl Fn(usize) -> Result<()> + Sync) -> Result<()> {
    let work = &work;
    thread::scope(|scope| {
        let threads: Vec<_> = (0..count).map(|it| scope.spawn(move || work(it))).collect();
        let ends: Vec<Result<()>> = threads
            .into_iter()
            .map(|it| it.join().expect("a thread without panic"))
            .collect();
        ends.into_iter().collect()
    })
}

#[test]
fn one_upstream_connection_is_enough_for_twenty_clients_of_four_workers() -> Result<()> {
    let cluster = database("single")?;
    let extra = Extra {
        top: "workers = 4",
        listener: "pool-size = 1\nqueue-timeout = \"20s\"",
        ..Extra::default()
    };
    let gateway = Gateway::over(&cluster, "single", extra)?;
    together(20, |number| {
        let mut client = gateway.client("single")?;
        for round in 0..25 {
            let own = format!("{number}-{round}");
            client.run("BEGIN")?;
            client
                .extended("INSERT INTO t (own, v) VALUES (1, $1)", &[&own])?
                .good()?;
            client.run("COMMIT")?;
            let seen = client
                .extended("SELECT v FROM t WHERE v = $1", &[&own])?
                .good()?;
            ensure!(seen.value() == Some(&own), "{own} is {:?}", seen.value());
        }
        Ok(())
    })?;
    let count = cluster
        .primary()
        .query("single", "SELECT count(*) FROM t")?;
    assert_eq!(count.trim(), "500");
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE datname = 'single' AND pid <> \
               pg_backend_pid() AND backend_type = 'client backend'";
    // One of the pool, and one that reads the catalogue at times.
    let count: u32 = cluster.primary().query("single", sql)?.trim().parse()?;
    ensure!(count <= 2, "{count} upstream connections");
    Ok(())
}

#[test]
fn pgbench_with_128_prepared_clients_has_no_errors() -> Result<()> {
    let cluster = database("bench")?;
    let pgbench = |port: u16, words: &[&str]| {
        let mut command = Command::new("timeout");
        command.args(["60", "pgbench", "-h", "127.0.0.1", "-p", &port.to_string()]);
        command.args(["-U", "breccia"]).args(words).arg("bench");
        breccia_testkit::process::run(command.env("PGPASSWORD", "secret"))
    };
    pgbench(cluster.primary().port(), &["-i", "-q", "-s", "1"])?;
    let extra = Extra {
        listener: "pool-size = 20",
        ..Extra::default()
    };
    let gateway = Gateway::over(&cluster, "bench", extra)?;
    for words in [
        &["-S", "-n", "-M", "prepared", "-c", "128", "-t", "40"][..],
        &["-n", "-M", "prepared", "-c", "16", "-t", "40"][..],
        &["-S", "-n", "-M", "extended", "-c", "32", "-t", "100"][..],
    ] {
        let text = pgbench(gateway.port, words)?;
        assert!(text.contains("number of failed transactions: 0 "), "{text}");
        let tps = text
            .lines()
            .find(|line| line.starts_with("tps"))
            .with_context(|| format!("{words:?}: {text}"))?;
        println!("{words:?}: {tps}");
    }
    let sums = "SELECT (SELECT sum(abalance) FROM pgbench_accounts) = \
                (SELECT sum(delta) FROM pgbench_history)";
    assert_eq!(cluster.primary().query("bench", sums)?.trim(), "t");
    Ok(())
}

#[test]
fn whoever_comes_while_all_connections_are_lent_is_let_in() -> Result<()> {
    let cluster = database("crowded")?;
    let extra = Extra {
        listener: "pool-size = 1\nqueue-timeout = \"20s\"",
        ..Extra::default()
    };
    let gateway = Gateway::over(&cluster, "crowded", extra)?;
    let mut first = gateway.client("crowded")?;
    first.run("BEGIN")?;
    first.run("INSERT INTO t (own, v) VALUES (1, 'a')")?;
    let begun = Instant::now();
    let mut second = gateway.client("crowded")?;
    let pools = second.run("SHOW breccia.pools")?;
    ensure!(!pools.rows.is_empty(), "{pools:?}");
    ensure!(begun.elapsed() < Duration::from_secs(10), "it has waited");
    first.run("COMMIT")?;
    assert_eq!(
        second
            .run("/* breccia: primary */ SELECT v FROM t")?
            .value(),
        Some("a")
    );
    assert_eq!(
        second.run("SHOW server_version")?.value(),
        first.run("SHOW server_version")?.value()
    );
    Ok(())
}

/// Frames that begin a lot and end nothing.
fn unfinished(client: &mut SqlClient, kind: u64) {
    match kind {
        0 => client
            .query("BEGIN")
            .query("INSERT INTO t (own) VALUES (666)"),
        1 => client
            .parse("", "INSERT INTO t (own) VALUES (666)")
            .bind("", &[])
            .execute(),
        2 => client
            .query("COPY t (own) FROM STDIN")
            .frame(b'd', b"666\n"),
        3 => client.query("SELECT pg_sleep(0.2)").query("SELECT 1"),
        4 => client.query("SELECT repeat('x', 1000) FROM generate_series(1, 20000)"),
        5 => client.query("BEGIN").query("SELECT 1/0"),
        6 => client
            .parse("p", "SELECT 1")
            .sync()
            .bind("p", &[])
            .execute(),
        7 => client
            .query("SET work_mem = '6MB'")
            .query("SELECT pg_advisory_lock(666)"),
        _ => client
            .query("CREATE TEMP TABLE left_over (a int)")
            .query("LISTEN left_over"),
    };
}

#[test]
fn clients_that_vanish_leave_nothing_behind() -> Result<()> {
    let cluster = database("vanish")?;
    let extra = Extra {
        listener: "pool-size = 3",
        ..Extra::default()
    };
    let gateway = Gateway::over(&cluster, "vanish", extra)?;
    let seed = Dice::printed().roll(u64::MAX);
    together(4, |number| {
        let mut dice = Dice::new(seed ^ (number as u64 * 7_919));
        for _ in 0..50 {
            let mut client = gateway.client("vanish")?;
            for _ in 0..=dice.roll(3) {
                let kind = dice.roll(9);
                unfinished(&mut client, kind);
            }
            let part = dice.roll(20);
            client.flush_part(usize::try_from(part)? * 10)?;
            thread::sleep(Duration::from_millis(dice.roll(20)));
            drop(client);
        }
        Ok(())
    })?;
    let left = "SELECT (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'), \
                (SELECT count(*) FROM pg_stat_activity WHERE datname = 'vanish' \
                 AND state LIKE 'idle in%'), (SELECT count(*) FROM t WHERE own = 666)";
    wait_until(LIMIT, "locks and transactions to end", || {
        let text = cluster.primary().query("vanish", left)?;
        let mut parts = text.trim().split('|');
        // What was sent whole outside a transaction counts; half of it does not.
        Ok((parts.next() == Some("0") && parts.next() == Some("0")).then_some(()))
    })?;
    together(6, |_| {
        let mut client = gateway.client("vanish")?;
        ensure!(client.run("SHOW work_mem")?.value() == Some("4MB"));
        ensure!(client.simple("SELECT * FROM left_over")?.code() == "42P01");
        ensure!(client.run("SELECT 7")?.value() == Some("7"));
        Ok(())
    })
}

#[test]
fn a_cancel_hits_its_own_session_only() -> Result<()> {
    let cluster = database("cancels")?;
    let extra = Extra {
        listener: "pool-size = 4",
        ..Extra::default()
    };
    let gateway = Gateway::over(&cluster, "cancels", extra)?;
    let mut victims = Vec::new();
    for _ in 0..3 {
        let client = gateway.client("cancels")?;
        victims.push((client.canceller(), std::sync::Mutex::new(client)));
    }
    let done = AtomicBool::new(false);
    let (victims, done, gateway) = (&victims, &done, &gateway);
    thread::scope(|scope| -> Result<()> {
        let mut threads = Vec::new();
        for number in 0..6 {
            threads.push(scope.spawn(move || -> Result<u32> {
                let mut client = gateway.client("cancels")?;
                while !done.load(Ordering::Relaxed) {
                    client.run("SELECT 1")?;
                    client.run("UPDATE t SET own = 1 WHERE id = -1")?;
                    client.run(&format!("SELECT pg_sleep(0.00{number})"))?;
                }
                Ok(0)
            }));
        }
        let mut shots = Vec::new();
        for (canceller, client) in victims {
            threads.push(scope.spawn(move || -> Result<u32> {
                let (mut client, mut hits) = (client.lock().expect("one user"), 0);
                while !done.load(Ordering::Relaxed) {
                    let reply = client.simple("SELECT pg_sleep(0.01)")?;
                    ensure!(["", "57014"].contains(&reply.code()), "{:?}", reply.fault);
                    hits += u32::from(reply.code() == "57014");
                }
                Ok(hits)
            }));
            shots.push(scope.spawn(move || -> Result<()> {
                for _ in 0..100 {
                    canceller()?;
                    thread::sleep(Duration::from_millis(7));
                }
                Ok(())
            }));
        }
        let shot: Result<Vec<()>> = shots
            .into_iter()
            .map(|it| it.join().expect("a canceller"))
            .collect();
        done.store(true, Ordering::Relaxed);
        let hits: Result<Vec<u32>> = threads
            .into_iter()
            .map(|it| it.join().expect("a client"))
            .collect();
        let hits: u32 = hits?.iter().sum();
        shot?;
        ensure!(hits > 20, "only {hits} of 300 cancels hit");
        Ok(())
    })
}

/// A gateway whose only connection sleeps, and a client whose statement waits for it.
fn behind_a_sleeper(
    gateway: &Gateway,
    database: &str,
    work: impl FnOnce(&mut SqlClient) -> Result<()>,
) -> Result<()> {
    let mut sleeper = gateway.client(database)?;
    let mut waiter = gateway.client(database)?;
    let wakes = sleeper.canceller();
    sleeper.query("SELECT pg_sleep(30)").flush()?;
    thread::sleep(Duration::from_millis(500));
    waiter.query("INSERT INTO t (own) VALUES (99)").flush()?;
    thread::sleep(Duration::from_millis(500));
    work(&mut waiter)?;
    wakes()?;
    ensure!(sleeper.read_reply()?.code() == "57014");
    // The connection is anybody's again.
    ensure!(
        gateway
            .client(database)?
            .run("SELECT count(*) FROM t WHERE own = 99")?
            .value()
            == Some("0")
    );
    Ok(())
}

#[test]
fn a_statement_that_waits_for_a_connection_can_be_cancelled_and_left() -> Result<()> {
    let cluster = database("waits")?;
    let extra = Extra {
        listener: "pool-size = 1\nqueue-timeout = \"20s\"",
        ..Extra::default()
    };
    let gateway = Gateway::over(&cluster, "waits", extra)?;
    let mut watcher = gateway.client("waits")?;
    let begun = Instant::now();
    behind_a_sleeper(&gateway, "waits", |waiter| {
        waiter.canceller()()?;
        ensure!(waiter.read_reply()?.code() == "57014");
        Ok(())
    })?;
    behind_a_sleeper(&gateway, "waits", |waiter| {
        waiter.hang_up();
        wait_until(Duration::from_secs(5), "nobody waits", || {
            let pools = watcher.run("SHOW breccia.pools")?.rows;
            let waits = |row: &Vec<Option<String>>| row.last() != Some(&Some("0".to_owned()));
            Ok((!pools.iter().any(waits)).then_some(()))
        })
    })?;
    ensure!(
        begun.elapsed() < Duration::from_secs(15),
        "{:?}",
        begun.elapsed()
    );
    Ok(())
}

#[test]
fn a_cancel_ends_a_long_statement_at_once() -> Result<()> {
    let cluster = database("long")?;
    for mode in ["transaction", "session"] {
        let listener = format!("pool-mode = \"{mode}\"");
        let extra = Extra {
            listener: &listener,
            ..Extra::default()
        };
        let gateway = Gateway::over(&cluster, "long", extra)?;
        let mut client = gateway.client("long")?;
        // On the primary, and on a replica.
        let read = "SELECT count(*) FROM generate_series(1, 1000000000) a";
        for sql in ["SELECT pg_sleep(20)", read] {
            let cancel = client.canceller();
            let begun = Instant::now();
            let told = thread::spawn(move || {
                thread::sleep(Duration::from_millis(300));
                cancel()
            });
            let reply = client.simple(sql)?;
            told.join().expect("the canceller")?;
            assert_eq!(reply.code(), "57014", "{sql}");
            assert!(
                begun.elapsed() < Duration::from_secs(3),
                "{sql}: {:?}",
                begun.elapsed()
            );
            assert_eq!(client.run("SELECT 5")?.value(), Some("5"));
        }
    }
    Ok(())
}
