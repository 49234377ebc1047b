//! Where a session stands: it leaves a primary that was left, and carries what it has seen.
//!
//! Not how stale a read may be under load (`freshness.rs`). Invariant: what a test says of a replica
//! is read from that replica's log.

use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};
use breccia_testkit::{Breccia, PostgresCluster, SqlClient, free_port, wait_until};

use crate::rig::{Extra, Gateway, LIMIT, cluster};

/// A cluster with a database of a row.
pub(crate) fn prepared() -> Result<PostgresCluster> {
    let cluster = cluster(None)?;
    cluster.primary().create_database("p")?;
    let table =
        "CREATE TABLE t (id serial PRIMARY KEY, v text); INSERT INTO t (v) VALUES ('first')";
    cluster.primary().query("p", table)?;
    Ok(cluster)
}

/// The code of a statement, be it an answer's or the last word of a connection.
fn code(client: &mut SqlClient, sql: &str) -> String {
    match client.simple(sql) {
        Ok(reply) => reply.code().to_owned(),
        Err(error) => error.to_string(),
    }
}

#[test]
fn sessions_that_keep_a_connection_leave_a_primary_that_is_not_alone() -> Result<()> {
    let cluster = prepared()?;
    let gateway = Gateway::over(&cluster, "p", Extra::default())?;
    let session_mode = Extra {
        listener: "pool-mode = \"session\"",
        ..Extra::default()
    };
    let other = Gateway::over(&cluster, "p", session_mode)?;
    let mut pinned = gateway.client("p")?;
    pinned.run("LISTEN news")?;
    let mut open = gateway.client("p")?;
    open.run("BEGIN")?;
    open.run("INSERT INTO t (v) VALUES ('open')")?;
    let mut own = other.client("p")?;
    own.run("INSERT INTO t (v) VALUES ('before')")?;
    let mut running = gateway.client("p")?;
    running.query("SELECT pg_sleep(20), pg_advisory_xact_lock(7)");
    running.flush()?;
    cluster.promote(1)?;
    // Who is idle is told without asking; each gateway finds out by itself.
    for client in [&mut pinned, &mut own] {
        client.set_patience(Duration::from_secs(5))?;
        let (kind, body) = client.read_frame()?;
        let text = String::from_utf8_lossy(&body).into_owned();
        ensure!(kind == b'E' && text.contains("57P01"), "{kind}: {text}");
    }
    let code = code(&mut open, "COMMIT");
    ensure!(code.contains("57P01"), "COMMIT: {code:?}");
    running.set_patience(Duration::from_secs(5))?;
    let reply = running.read_reply().map(|reply| reply.code().to_owned());
    let unknown = reply.unwrap_or_else(|error| error.to_string());
    ensure!(unknown.contains("08007"), "what ran: {unknown:?}");
    let count = "SELECT count(*) FROM t WHERE v = 'open'";
    assert_eq!(cluster.primary().query("p", count)?.trim(), "0");
    Ok(())
}

/// The server, by its number, whose log has this text; fails if it is in none or in several.
pub(crate) fn ran_on(cluster: &PostgresCluster, tag: &str) -> Result<usize> {
    let logs = (0..3).filter(|number| cluster.server(*number).log().contains(tag));
    match logs.collect::<Vec<_>>().as_slice() {
        [one] => Ok(*one),
        several => anyhow::bail!("{tag} ran on {several:?}"),
    }
}

/// Runs reads with tags of their own until one runs on a replica; which.
pub(crate) fn on_replica(
    cluster: &PostgresCluster,
    tag: &str,
    mut read: impl FnMut(&str) -> Result<()>,
) -> Result<usize> {
    let mut round = 0;
    wait_until(LIMIT, "a read on a replica", || {
        round += 1;
        let tag = format!("{tag}-{round}-");
        read(&tag)?;
        let place = ran_on(cluster, &tag)?;
        Ok((place > 0).then_some(place))
    })
}

fn read(client: &mut SqlClient, tag: &str) -> Result<()> {
    client.run(&format!("SELECT count(*) FROM t /* {tag} */"))?;
    Ok(())
}

fn sees(client: &mut SqlClient, value: &str) -> Result<bool> {
    let sql = format!("SELECT v FROM t WHERE v = '{value}'");
    Ok(client.run(&sql)?.value() == Some(value))
}

fn pause(cluster: &PostgresCluster) -> Result<()> {
    (1..=2).try_for_each(|number| cluster.pause_replay(number))
}

#[test]
fn a_token_takes_a_session_from_the_replica_it_reads_on() -> Result<()> {
    let cluster = prepared()?;
    let gateway = Gateway::over(&cluster, "p", Extra::default())?;
    let mut settled = gateway.client("p")?;
    on_replica(&cluster, "settled", |tag| read(&mut settled, tag))?;
    let mut inside = gateway.client("p")?;
    inside.run("BEGIN READ ONLY")?;
    read(&mut inside, "inside-the-transaction")?;
    ensure!(ran_on(&cluster, "inside-the-transaction")? > 0, "held");
    pause(&cluster)?;
    let mut writer = gateway.client("p")?;
    writer.run("INSERT INTO t (v) VALUES ('carried')")?;
    let token = writer.run("SHOW breccia.token")?;
    let token = token.value().unwrap_or_default().to_owned();
    for (name, client) in [("settled", &mut settled), ("inside", &mut inside)] {
        client.run(&format!("SET breccia.token = '{token}'"))?;
        ensure!(sees(client, "carried")?, "{name} is behind its token");
    }
    inside.run("COMMIT")?;
    Ok(())
}

#[test]
fn what_a_lost_replica_has_shown_stays_seen() -> Result<()> {
    let mut cluster = prepared()?;
    let gateway = Gateway::over(&cluster, "p", Extra::default())?;
    cluster.pause_replay(2)?;
    let insert = "INSERT INTO t (v) VALUES ('shown')";
    cluster.primary().query("p", insert)?;
    let ahead = "SELECT count(*) FROM t WHERE v = 'shown'";
    wait_until(LIMIT, "standby 1 to have the row", || {
        let count = cluster.standby(1).query("p", ahead)?;
        Ok((count.trim() == "1").then_some(()))
    })?;
    let mut client = wait_until(LIMIT, "a transaction that sees it", || {
        let mut client = gateway.client("p")?;
        client.run("BEGIN READ ONLY")?;
        Ok(sees(&mut client, "shown")?.then_some(client))
    })?;
    cluster.server_mut(1).kill9();
    for round in 0..3 {
        ensure!(sees(&mut client, "shown")?, "unseen again in round {round}");
    }
    client.run("COMMIT")?;
    Ok(())
}

#[test]
fn each_read_of_a_transaction_hides_no_commit_of_anybody() -> Result<()> {
    let cluster = prepared()?;
    let extra = Extra {
        composite: "consistency = \"store\"",
        ..Extra::default()
    };
    let gateway = Gateway::over(&cluster, "p", extra)?;
    let mut client = gateway.client("p")?;
    let mut begin = |tag: &str| {
        let _ended = client.run("ROLLBACK");
        client.run("BEGIN READ ONLY")?;
        read(&mut client, tag)
    };
    on_replica(&cluster, "held", &mut begin)?;
    // As long as it has all there is, it goes on serving.
    read(&mut client, "second")?;
    let second = ran_on(&cluster, "second")?;
    println!("the second read ran on {second}");
    pause(&cluster)?;
    let insert = "INSERT INTO t (v) VALUES ('anybodys')";
    cluster.primary().query("p", insert)?;
    ensure!(sees(&mut client, "anybodys")?, "a commit is hidden");
    client.run("COMMIT")?;
    Ok(())
}

#[test]
fn positions_at_the_start_of_a_segment_are_reached() -> Result<()> {
    let cluster = prepared()?;
    let extra = Extra {
        composite: "max-lag = \"1s\"",
        ..Extra::default()
    };
    let gateway = Gateway::over(&cluster, "p", extra)?;
    let mut client = gateway.client("p")?;
    client.run("INSERT INTO t (v) VALUES ('last')")?;
    let switched = "SELECT pg_switch_wal(); SELECT pg_current_wal_insert_lsn()";
    cluster.primary().query("p", switched)?;
    // Longer than max-lag: nobody is late, since there is nothing to come.
    thread::sleep(Duration::from_secs(3));
    let end = cluster.primary().query("p", switched)?;
    ensure!(end.trim().ends_with("000028"), "the log goes on: {end}");
    for round in 0..3 {
        let tag = format!("idle-{round}-");
        read(&mut client, &tag)?;
        ensure!(ran_on(&cluster, &tag)? > 0, "round {round}");
    }
    Ok(())
}

#[test]
fn a_session_leaves_the_primary_without_ever_waiting() -> Result<()> {
    let cluster = prepared()?;
    let extra = Extra {
        composite: "replica-wait = \"0s\"",
        ..Extra::default()
    };
    let gateway = Gateway::over(&cluster, "p", extra)?;
    let mut client = gateway.client("p")?;
    for round in 0..3 {
        let value = format!("unhurried-{round}");
        client.run(&format!("INSERT INTO t (v) VALUES ('{value}')"))?;
        let mut reads = 0;
        on_replica(&cluster, &value, |tag| {
            reads += 1;
            thread::sleep(Duration::from_millis(100));
            ensure!(sees(&mut client, &value)?, "its own write");
            read(&mut client, tag)
        })?;
        ensure!(reads <= 10, "{reads} reads");
    }
    Ok(())
}

/// Passes connections on to a port that can be changed, as a name with several addresses does.
fn switchboard(first: u16) -> Result<(u16, Arc<AtomicU16>)> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let port = listener.local_addr()?.port();
    let target = Arc::new(AtomicU16::new(first));
    let shared = Arc::clone(&target);
    thread::spawn(move || {
        for client in listener.incoming() {
            let to = ("127.0.0.1", shared.load(Ordering::Relaxed));
            let (Ok(client), Ok(server)) = (client, TcpStream::connect(to)) else {
                continue;
            };
            for (from, to) in [(&client, &server), (&server, &client)] {
                let (Ok(mut from), Ok(mut to)) = (from.try_clone(), to.try_clone()) else {
                    continue;
                };
                thread::spawn(move || {
                    let _ended = std::io::copy(&mut from, &mut to);
                    let _gone = to.shutdown(Shutdown::Both);
                });
            }
        }
    });
    Ok((port, target))
}

#[test]
fn a_position_says_nothing_of_another_server_behind_the_same_name() -> Result<()> {
    let cluster = prepared()?;
    cluster.primary().create_database("other")?;
    let table = "CREATE TABLE t (id serial PRIMARY KEY, v text)";
    cluster.primary().query("other", table)?;
    cluster.wait_caught_up(LIMIT)?;
    let (one, two) = (cluster.standby(1).port(), cluster.standby(2).port());
    let (shared, target) = switchboard(one)?;
    let port = free_port()?;
    let file = crate::rig::file(&cluster, port, Extra::default());
    let file = file.replace(&format!("port = {one}\n"), &format!("port = {shared}\n"));
    let gateway = Gateway {
        breccia: Breccia::start(&file)?,
        port,
    };
    gateway.wait_reads("p")?;
    gateway.wait_reads("other")?;
    // Questions go on over the connections they have, to standby 1; what is new comes to standby 2.
    target.store(two, Ordering::Relaxed);
    cluster.pause_replay(2)?;
    let work = |number: usize| -> Result<u32> {
        let mut client = gateway.client("other")?;
        let mut stale = 0;
        for round in 0..20 {
            let value = format!("{number}-{round}");
            client.run(&format!("INSERT INTO t (v) VALUES ('{value}')"))?;
            stale += u32::from(!sees(&mut client, &value)?);
        }
        Ok(stale)
    };
    // Several at once, so that new connections are made.
    let stale = thread::scope(|scope| -> Result<u32> {
        let work = &work;
        let threads: Vec<_> = (0..8)
            .map(|number| scope.spawn(move || work(number)))
            .collect();
        let counts = threads.into_iter().map(|it| it.join().expect("a client"));
        counts.sum()
    })?;
    ensure!(stale == 0, "{stale} of 160 reads were stale");
    let others = cluster.standby(2).log();
    let reached = others.lines().filter(|line| line.contains("WHERE v = '"));
    ensure!(reached.count() == 0, "reads came to the other server");
    Ok(())
}

/// A function of the name `f` that takes a lock, or not.
fn function(locks: bool) -> String {
    let body = if locks {
        "SELECT 1 WHERE pg_try_advisory_xact_lock(5)"
    } else {
        "SELECT 1"
    };
    format!(
        "CREATE OR REPLACE FUNCTION f() RETURNS int LANGUAGE sql STABLE AS $body$ {body} $body$"
    )
}

#[test]
fn a_replica_serves_what_the_catalogue_proves_once_it_has_come_so_far() -> Result<()> {
    let cluster = prepared()?;
    cluster.primary().query("p", &function(true))?;
    let gateway = Gateway::over(&cluster, "p", Extra::default())?;
    let call = |client: &mut SqlClient, tag: &str| {
        let sql = format!("SELECT f() /* {tag} */");
        client.run(&sql).map(drop)
    };
    let mut early = gateway.client("p")?;
    on_replica(&cluster, "home", |tag| read(&mut early, tag))?;
    pause(&cluster)?;
    gateway.client("p")?.run(&function(false))?;
    let begun = std::time::Instant::now();
    let mut round = 0;
    while begun.elapsed() < Duration::from_secs(3) {
        round += 1;
        for (name, client) in [("early", &mut early), ("late", &mut gateway.client("p")?)] {
            let tag = format!("{name}-{round}-");
            call(client, &tag)?;
            ensure!(ran_on(&cluster, &tag)? == 0, "{tag}: it takes a lock there");
        }
    }
    (1..=2).try_for_each(|number| cluster.resume_replay(number))?;
    on_replica(&cluster, "there", |tag| call(&mut early, tag))?;
    Ok(())
}

#[test]
fn what_a_prepared_transaction_changes_is_known_when_it_is_committed() -> Result<()> {
    let cluster = prepared()?;
    cluster.primary().query("p", &function(false))?;
    let gateway = Gateway::over(&cluster, "p", Extra::default())?;
    let mut client = gateway.client("p")?;
    let mut other = gateway.client("p")?;
    client.run("BEGIN")?;
    client.run(&function(true))?;
    client.run("PREPARE TRANSACTION 'change'")?;
    let call = |client: &mut SqlClient, tag: &str| {
        let sql = format!("SELECT f() /* {tag} */");
        client.run(&sql).map(drop)
    };
    on_replica(&cluster, "as-before", |tag| call(&mut other, tag))?;
    client.run("COMMIT PREPARED 'change'")?;
    cluster.wait_caught_up(LIMIT)?;
    for round in 0..20 {
        let tag = format!("changed-{round}-");
        call(&mut other, &tag)?;
        ensure!(ran_on(&cluster, &tag)? == 0, "{tag}: it takes a lock there");
        thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

#[test]
fn what_a_routine_changes_is_known_when_it_was_called() -> Result<()> {
    let cluster = prepared()?;
    cluster.primary().query("p", &function(false))?;
    let body = function(true);
    let change = format!(
        "CREATE FUNCTION change() RETURNS void LANGUAGE plpgsql AS $outer$BEGIN {body}; END$outer$"
    );
    cluster.primary().query("p", &change)?;
    let gateway = Gateway::over(&cluster, "p", Extra::default())?;
    let mut client = gateway.client("p")?;
    let call = |client: &mut SqlClient, tag: &str| {
        let sql = format!("SELECT f() /* {tag} */");
        client.run(&sql).map(drop)
    };
    on_replica(&cluster, "as-before", |tag| call(&mut client, tag))?;
    client.run("SELECT change()")?;
    cluster.wait_caught_up(LIMIT)?;
    for round in 0..20 {
        let tag = format!("changed-{round}-");
        call(&mut client, &tag)?;
        ensure!(ran_on(&cluster, &tag)? == 0, "{tag}: it takes a lock there");
        thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}
