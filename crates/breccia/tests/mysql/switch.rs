//! A primary that gives way to another one while sessions wait, rest, or keep something there.
//!
//! Not servers that die. Invariant: what waited runs on the primary of now, what was open on the old one
//! ends with an error at once, and the old one gets no statement after it has given way.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use breccia_testkit::{MariaDbCluster, MyClient, MyReply, wait_until};

use crate::rig::{Extra, Gateway, LIMIT, cluster, fresh};

/// How long it may take until who rests is told that what it had open is lost.
const SOON: Duration = Duration::from_secs(5);

/// Servers of one test's own, with a table to write to, and a gateway in front.
fn start(listener: &str) -> Result<(MariaDbCluster, Gateway)> {
    let cluster = cluster()?;
    fresh(&cluster, "switched")?;
    cluster.query(0, "CREATE TABLE switched.w (v varchar(40))")?;
    let extra = Extra {
        listener,
        ..Extra::default()
    };
    let gateway = Gateway::over(&cluster, extra)?;
    Ok((cluster, gateway))
}

/// A switchover as an administrator makes one: the old primary takes no more writes, and follows the new.
fn switch_over(cluster: &MariaDbCluster, gateway: &Gateway) -> Result<()> {
    cluster.query(0, "SET GLOBAL read_only = ON")?;
    cluster.wait_caught_up(LIMIT)?;
    cluster.promote(1)?;
    cluster.follow(0, 1)?;
    cluster.follow(2, 1)?;
    wait_until(LIMIT, "the new primary to be known", || {
        // In between, it is nobody or two, and logins are refused.
        let primary = gateway
            .client("")
            .and_then(|mut it| it.value("SHOW breccia.primary"));
        Ok(primary.is_ok_and(|it| it == "my1").then_some(()))
    })
}

fn rows(cluster: &MariaDbCluster) -> Result<String> {
    let sql = "SELECT IFNULL(GROUP_CONCAT(v ORDER BY v), '') FROM switched.w";
    Ok(cluster.query(1, sql)?.trim().to_owned())
}

/// What a client is told of its loss.
fn lost(reply: &Result<MyReply>, what: &str) -> Result<()> {
    let fault = reply.as_ref().ok().and_then(|reply| reply.fault.as_ref());
    let fault = fault.with_context(|| format!("{what}: {reply:?}"))?;
    let text = fault.to_string();
    ensure!(fault.code == 1053, "{what}: {text}");
    ensure!(
        text.contains("my0") && text.contains("lost"),
        "{what}: {text}"
    );
    Ok(())
}

/// What sessions do before a pause, and whether it is something that cannot move.
const SESSIONS: &[(&str, &[&str], bool)] = &[
    ("new", &[], false),
    ("wrote", &["INSERT INTO w VALUES ('wrote before')"], false),
    ("sets", &["SET NAMES latin1, autocommit = 1"], false),
    ("begins", &["COMMIT", "SET autocommit = 0"], false),
    ("variable", &["SET @a = 1"], true),
    ("temporary", &["CREATE TEMPORARY TABLE mine (a int)"], true),
    ("locks", &["DO GET_LOCK('switched', 0)"], true),
];

#[test]
fn what_waits_in_a_pause_moves_with_the_primary_and_what_was_pinned_ends() -> Result<()> {
    let (cluster, gateway) = start("queue-timeout = \"30s\"")?;
    let mut sessions = Vec::new();
    for (name, before, _) in SESSIONS {
        let mut client = gateway.client("switched")?;
        for sql in *before {
            client.run(sql)?;
        }
        sessions.push((*name, client));
    }
    gateway.post("/stores/db/pause")?;
    let replies = thread::scope(|scope| -> Result<Vec<_>> {
        let waiting: Vec<_> = sessions
            .iter_mut()
            .map(|(name, client)| {
                let sql = format!("INSERT INTO w VALUES ('{name}')");
                scope.spawn(move || client.query(&sql))
            })
            .collect();
        // They are on their way by then; one that is not yet finds what the others find.
        thread::sleep(Duration::from_millis(300));
        switch_over(&cluster, &gateway)?;
        gateway.post("/stores/db/resume")?;
        Ok(waiting
            .into_iter()
            .map(|it| it.join().expect("no panic"))
            .collect())
    })?;
    for ((name, _, pinned), reply) in SESSIONS.iter().zip(&replies) {
        if *pinned {
            lost(reply, name)?;
        } else {
            let reply = reply.as_ref().ok().context("no reply")?;
            ensure!(reply.fault.is_none(), "{name}: {:?}", reply.fault);
        }
    }
    for ((name, _, pinned), (_, client)) in SESSIONS.iter().zip(&mut sessions) {
        if *pinned {
            ensure!(client.is_closed(), "{name}: it goes on");
            continue;
        }
        client.run("COMMIT")?;
        let server = client.value("SHOW breccia.server")?;
        ensure!(server == "my1", "{name}: on {server}");
    }
    let left = rows(&cluster)?;
    ensure!(left == "begins,new,sets,wrote,wrote before", "{left}");
    let diverged = cluster.query(0, "SELECT COUNT(*) FROM switched.w WHERE v = 'variable'")?;
    ensure!(diverged.trim() == "0", "the old primary was written to");
    Ok(())
}

/// What becomes of the old primary while all is paused.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Old {
    /// It follows the new one, and would still take writes.
    Follows,
    /// It is gone.
    Killed,
    /// It was started again, and is the primary still.
    Restarted,
    /// It stands still.
    Frozen,
}

/// A pause that ends at once after what was done, as a script ends it: nobody looks whether Breccia knows.
fn resume_at_once(old: Old) -> Result<()> {
    let (mut cluster, gateway) = start("queue-timeout = \"30s\"")?;
    let mut sessions: Vec<MyClient> = (0..4)
        .map(|_| gateway.client("switched"))
        .collect::<Result<_>>()?;
    // Half of them have a connection that lingers.
    for (number, client) in sessions.iter_mut().enumerate().skip(2) {
        client.run(&format!("INSERT INTO w VALUES ('before {number}')"))?;
    }
    cluster.wait_caught_up(LIMIT)?;
    gateway.post("/stores/db/pause")?;
    let replies = thread::scope(|scope| -> Result<Vec<_>> {
        let insert = |(number, client): (usize, &mut MyClient)| {
            client.query(&format!("INSERT INTO w VALUES ('waited {number}')"))
        };
        let waiting: Vec<_> = sessions
            .iter_mut()
            .enumerate()
            .map(|it| scope.spawn(move || insert(it)))
            .collect();
        thread::sleep(Duration::from_millis(300));
        match old {
            Old::Follows => {
                cluster.promote(1)?;
                cluster.follow(0, 1)?;
                cluster.query(0, "SET GLOBAL read_only = OFF")?;
            }
            Old::Killed => {
                cluster.server_mut(0).kill9();
                cluster.promote(1)?;
            }
            Old::Frozen => {
                cluster.server_mut(0).sigstop()?;
                cluster.promote(1)?;
            }
            Old::Restarted => {
                cluster.server_mut(0).kill9();
                cluster.server_mut(0).restart_same_port()?;
            }
        }
        gateway.post("/stores/db/resume")?;
        Ok(waiting
            .into_iter()
            .map(|it| it.join().expect("no panic"))
            .collect())
    })?;
    let primary = usize::from(old != Old::Restarted);
    for reply in &replies {
        let fault = reply.as_ref().ok().context("no reply")?.fault.as_ref();
        ensure!(fault.is_none(), "{old:?}: {fault:?}");
    }
    let sql = "SELECT COUNT(*) FROM switched.w WHERE v LIKE 'waited%'";
    let count = cluster.query(primary, sql)?;
    ensure!(count.trim() == "4", "{old:?}: {count} on the new primary");
    Ok(())
}

#[test]
fn a_pause_that_ends_at_once_after_a_switchover_leads_to_the_new_primary() -> Result<()> {
    resume_at_once(Old::Follows)?;
    resume_at_once(Old::Killed)
}

#[test]
fn a_pause_that_ends_at_once_after_a_restart_or_beside_a_frozen_primary_loses_nothing() -> Result<()>
{
    resume_at_once(Old::Restarted)?;
    resume_at_once(Old::Frozen)
}

#[test]
fn what_waits_for_a_connection_runs_on_the_primary_of_then() -> Result<()> {
    let (cluster, gateway) = start("pool-size = 1\nqueue-timeout = \"30s\"")?;
    let mut holder = gateway.client("switched")?;
    holder.run("BEGIN")?;
    holder.run("INSERT INTO w VALUES ('open')")?;
    let mut waiter = gateway.client("switched")?;
    let (reply, told) = thread::scope(|scope| -> Result<_> {
        let waiting = scope.spawn(|| waiter.query("INSERT INTO w VALUES ('waited')"));
        thread::sleep(Duration::from_millis(300));
        // The transaction is told at once, though its client says nothing.
        let resting = scope.spawn(|| {
            let told = holder.packet();
            (told, Instant::now())
        });
        switch_over(&cluster, &gateway)?;
        let known = Instant::now();
        let (told, at) = resting.join().expect("no panic");
        let took = at.saturating_duration_since(known);
        ensure!(took < SOON, "it was told after {took:?}");
        Ok((waiting.join().expect("no panic")?, told?))
    })?;
    let told = String::from_utf8_lossy(&told.0).into_owned();
    ensure!(told.contains("my0") && told.contains("lost"), "{told}");
    ensure!(holder.is_closed(), "the holder goes on");
    if let Some(fault) = reply.fault {
        // Its turn came while nobody was the primary: it is told so, and may try again.
        let text = fault.to_string();
        ensure!(text.contains("no primary"), "{text}");
        ensure!(text.contains("nothing was carried out"), "{text}");
        waiter.run("INSERT INTO w VALUES ('waited')")?;
    }
    ensure!(waiter.value("SHOW breccia.server")? == "my1");
    let left = rows(&cluster)?;
    ensure!(left == "waited", "{left}");
    let old = cluster.query(0, "SELECT COUNT(*) FROM switched.w WHERE v = 'open'")?;
    ensure!(old.trim() == "0", "what was open was committed");
    Ok(())
}

/// What may be open while its session rests.
const RESTING: &[(&str, &str)] = &[
    ("a transaction", "BEGIN; INSERT INTO w VALUES ('resting')"),
    ("a user variable", "SET @a = 1"),
    ("a lock", "DO GET_LOCK('resting', 0)"),
];

#[test]
fn who_rests_with_something_open_on_an_old_primary_is_told_at_once() -> Result<()> {
    let (cluster, gateway) = start("")?;
    let mut sessions: Vec<(&str, MyClient)> = Vec::new();
    for (what, texts) in RESTING {
        let mut client = gateway.client("switched")?;
        for sql in texts.split("; ") {
            client.run(sql)?;
        }
        sessions.push((what, client));
    }
    let mut nothing = gateway.client("switched")?;
    nothing.run("SET time_zone = '+07:00'")?;
    switch_over(&cluster, &gateway)?;
    let known = Instant::now();
    for (what, client) in &mut sessions {
        client.set_patience(SOON)?;
        let (told, _) = client.packet().with_context(|| (*what).to_owned())?;
        let told = String::from_utf8_lossy(&told).into_owned();
        ensure!(told.contains("my0"), "{what}: {told}");
        ensure!(client.is_closed(), "{what}: it goes on");
    }
    println!("told {:?} after it was known", known.elapsed());
    ensure!(
        nothing.value("SELECT @@time_zone FROM w RIGHT JOIN (SELECT 1) AS o ON TRUE")? == "+07:00"
    );
    let left = rows(&cluster)?;
    ensure!(left.is_empty(), "{left}");
    Ok(())
}

#[test]
fn who_comes_in_a_pause_whose_primary_is_stopped_is_let_in_and_waits() -> Result<()> {
    let (mut cluster, gateway) = start("queue-timeout = \"20s\"")?;
    cluster.wait_caught_up(LIMIT)?;
    gateway.post("/stores/db/pause")?;
    cluster.server_mut(0).kill9();
    // Long enough for the loss to be known.
    thread::sleep(Duration::from_millis(1_200));
    let mut client = gateway.client("switched")?;
    let reply = thread::scope(|scope| -> Result<_> {
        let waiting = scope.spawn(|| client.query("INSERT INTO w VALUES ('came late')"));
        thread::sleep(Duration::from_millis(200));
        cluster.promote(1)?;
        gateway.post("/stores/db/resume")?;
        waiting.join().expect("no panic")
    })?;
    ensure!(reply.fault.is_none(), "{:?}", reply.fault);
    ensure!(rows(&cluster)? == "came late");
    Ok(())
}
