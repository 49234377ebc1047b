//! Connections to servers that are lost while something of a session is open there, or on its way.
//!
//! Not servers that die: each of these connections is cut where a test wants it. Invariant: what was
//! open is never carried on elsewhere as if nothing had happened.

use std::io::Write as _;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use breccia_testkit::{Fault, FaultyProxy, MariaDbCluster, MyClient, MyReply, http, wait_until};

use crate::rig::{Extra, Gateway, LIMIT, behind_proxies, cluster, cut, fresh, shared};

/// What a client was told, be it by an error or by the end of its connection.
fn told(reply: Result<MyReply>) -> Result<String> {
    match reply {
        Ok(reply) => Ok(reply.fault.context("no error was told")?.to_string()),
        Err(error) => Ok(format!("{error:#}")),
    }
}

/// A database with a table to write to.
fn prepare(cluster: &MariaDbCluster, database: &str) -> Result<()> {
    fresh(cluster, database)?;
    let sql = format!(
        "CREATE TABLE {database}.t (id int PRIMARY KEY, v varchar(20)); \
         INSERT INTO {database}.t VALUES (1, 'a'); \
         CREATE TABLE {database}.w (v varchar(40))"
    );
    cluster.query(0, &sql)?;
    cluster.wait_caught_up(LIMIT)
}

fn rows(cluster: &MariaDbCluster, server: usize, database: &str) -> Result<String> {
    let sql = format!("SELECT IFNULL(GROUP_CONCAT(v ORDER BY v), '') FROM {database}.w");
    Ok(cluster.query(server, &sql)?.trim().to_owned())
}

/// What a session does until it is cut off, and what must not outlive that.
#[derive(Debug)]
struct Open {
    what: &'static str,
    before: &'static [&'static str],
}

const OPEN: &[Open] = &[
    Open {
        what: "a transaction",
        before: &["BEGIN", "INSERT INTO w VALUES ('early')"],
    },
    Open {
        what: "a transaction of autocommit = 0",
        before: &["SET autocommit = 0", "INSERT INTO w VALUES ('early')"],
    },
    Open {
        what: "no transaction yet of autocommit = 0",
        before: &["SET autocommit = 0"],
    },
    Open {
        what: "a user variable",
        before: &["SET @a = 1"],
    },
    Open {
        what: "a temporary table",
        before: &["CREATE TEMPORARY TABLE mine (a int)"],
    },
    Open {
        what: "a lock",
        before: &["DO GET_LOCK('lost', 0)"],
    },
];

/// Whether a session goes on as if nothing were lost: it must not.
fn goes_on(client: &mut MyClient) -> bool {
    client
        .query("INSERT INTO w VALUES ('late')")
        .is_ok_and(|reply| reply.fault.is_none())
}

#[test]
fn what_was_open_on_a_lost_connection_ends_its_session() -> Result<()> {
    let cluster = shared()?;
    prepare(&cluster, "lostopen")?;
    let (gateway, proxies) = behind_proxies(&cluster, Extra::default())?;
    let primary = proxies.first().context("a proxy")?;
    for open in OPEN {
        let mut client = gateway.client("lostopen")?;
        for sql in open.before {
            client.run(sql)?;
        }
        primary.set(Fault::CutAfter(0));
        let reply = client.query("UPDATE t SET v = 'b'");
        primary.set(Fault::None);
        let why = told(reply).context(open.what)?;
        ensure!(why.contains("unknown"), "{}: {why}", open.what);
        ensure!(!goes_on(&mut client), "{}: it goes on", open.what);
        let left = rows(&cluster, 0, "lostopen")?;
        ensure!(left.is_empty(), "{}: {left} is there", open.what);
        wait_writes(&gateway, "lostopen")?;
    }
    Ok(())
}

/// Waits until the primary is known to be there again.
fn wait_writes(gateway: &Gateway, database: &str) -> Result<()> {
    wait_until(LIMIT, "a write", || {
        let wrote = gateway
            .client(database)
            .and_then(|mut it| it.run("UPDATE t SET v = 'c'").map(drop));
        Ok(wrote.is_ok().then_some(()))
    })
}

#[test]
fn what_was_open_on_an_old_primary_ends_with_a_promotion() -> Result<()> {
    let cluster = cluster()?;
    prepare(&cluster, "promoted")?;
    let gateway = Gateway::over(&cluster, Extra::default())?;
    let mut open = Vec::new();
    for row in OPEN.iter().filter(|row| !row.what.starts_with("no ")) {
        let mut client = gateway.client("promoted")?;
        for sql in row.before {
            client.run(sql)?;
        }
        open.push((row.what, client));
    }
    let mut idle = gateway.client("promoted")?;
    idle.run("SET NAMES latin1")?;
    cluster.promote(1)?;
    cluster.follow(2, 1)?;
    wait_until(LIMIT, "the naming of the new primary", || {
        let path = "/stores/my1/primary";
        let (status, _) = http(gateway.breccia.admin_port(), "POST", path)?;
        Ok((status == 200).then_some(()))
    })?;
    wait_until(LIMIT, "writes on the new primary", || {
        let mut client = gateway.client("promoted")?;
        let wrote = client.query("UPDATE t SET v = 'd'")?.fault.is_none();
        Ok((wrote && client.value("SHOW breccia.server")? == "my1").then_some(()))
    })?;
    for (what, mut client) in open {
        let why = told(client.query("INSERT INTO w VALUES ('late')")).context(what)?;
        println!("{what}: {why}");
        ensure!(why.contains("1053"), "{what}: {why}");
        ensure!(why.contains("my0"), "{what}: {why}");
        ensure!(!goes_on(&mut client), "{what}: it goes on");
    }
    let (old, new) = (
        rows(&cluster, 0, "promoted")?,
        rows(&cluster, 1, "promoted")?,
    );
    ensure!(old.is_empty() && new.is_empty(), "{old} and {new}");
    // Whoever had nothing open goes on, with its settings.
    idle.run("INSERT INTO w VALUES ('idle')")?;
    ensure!(idle.value("SELECT @@character_set_client")? == "latin1");
    ensure!(rows(&cluster, 1, "promoted")? == "idle");
    Ok(())
}

#[test]
fn a_long_command_whose_server_is_lost_is_told_of() -> Result<()> {
    let cluster = shared()?;
    prepare(&cluster, "lostbig")?;
    let (gateway, proxies) = behind_proxies(&cluster, Extra::default())?;
    let primary = proxies.first().context("a proxy")?;
    let text = format!(
        "INSERT INTO t VALUES (2, LEFT('{}', 9))",
        "x".repeat(40 << 20)
    );
    for after in [100, 20 << 20] {
        let mut client = gateway.client("lostbig")?;
        client.run("SELECT v FROM t")?;
        primary.set(Fault::CutRequestAfter(after));
        let sent = client.command(3, text.as_bytes());
        let reply = sent.and_then(|()| client.results(false));
        primary.set(Fault::None);
        println!("after {after}: {}", told(reply)?);
        // If it lives, it is answered rightly.
        if let Ok(reply) = client.query("SELECT 41 + 1") {
            let right = reply.text().as_deref() == Some("42") || reply.fault.is_some();
            ensure!(right, "after {after}: {:?}", reply.text());
        }
        wait_writes(&gateway, "lostbig")?;
    }
    let rows = cluster.query(0, "SELECT COUNT(*) FROM lostbig.t")?;
    ensure!(rows.trim() == "1", "{rows}");
    Ok(())
}

/// Sends the beginning of a long INSERT, cuts the connections of the primary, and goes on in small pieces;
/// what the client is told.
fn lose_a_long_command(
    client: &mut MyClient,
    primary: &FaultyProxy,
    gateway: &Gateway,
) -> Result<Vec<u8>> {
    let mut raw = client.raw()?;
    let mut begin = (8_u32 << 20).to_le_bytes().to_vec();
    begin.extend(b"\x03INSERT INTO t VALUES (2, LEFT('");
    begin.resize(2 << 20, b'x');
    raw.write_all(&begin)?;
    primary.reset_all();
    wait_writes(gateway, "lostlong")?;
    // The loss is noticed in the course of this; what comes then would be a command of its own.
    client.set_patience(Duration::from_millis(100))?;
    for _ in 0..100 {
        raw.write_all(&[b'x'; 4096])?;
        if let Ok((packet, _)) = client.packet() {
            return Ok(packet);
        }
    }
    Ok(Vec::new())
}

#[test]
fn the_rest_of_a_long_command_is_no_command() -> Result<()> {
    let cluster = shared()?;
    prepare(&cluster, "lostlong")?;
    let (gateway, proxies) = behind_proxies(&cluster, Extra::default())?;
    let primary = proxies.first().context("a proxy")?;
    let mut lost = None;
    for _ in 0..10 {
        let mut client = gateway.client("lostlong")?;
        let told = lose_a_long_command(&mut client, primary, &gateway)?;
        if !told.is_empty() {
            lost = Some((client, told));
            break;
        }
        // A busy gateway had not begun to send it when its connections were cut.
    }
    let (mut client, told) = lost.context("no long command was lost")?;
    ensure!(told.first() == Some(&0xff), "{}", told.escape_ascii());
    wait_writes(&gateway, "lostlong")?;
    client.set_patience(LIMIT)?;
    let reply = client.query("INSERT INTO w VALUES ('a part of a text')");
    ensure!(reply.is_err(), "a part of a text was run: {reply:?}");
    ensure!(rows(&cluster, 0, "lostlong")?.is_empty());
    Ok(())
}

/// Waits until a session that has seen what is there reads it on a replica.
fn wait_away(client: &mut MyClient) -> Result<()> {
    let mut reason = String::new();
    wait_until(LIMIT, "a read on a replica", || {
        client.run("SELECT v FROM t")?;
        let away = client.value("SHOW breccia.server")? != "my0";
        let now = client.value("SHOW breccia.reason")?;
        if now != reason {
            println!("a read: {now}");
            reason = now;
        }
        Ok(away.then_some(()))
    })
}

/// A gateway whose transactions are lazy.
fn lazy(database: &str) -> Result<(Gateway, Vec<FaultyProxy>)> {
    let cluster = shared()?;
    prepare(&cluster, database)?;
    let extra = Extra {
        composite: "transactions = \"lazy\"",
        ..Extra::default()
    };
    behind_proxies(&cluster, extra)
}

/// A session of it that is READ COMMITTED.
fn lazy_client(gateway: &Gateway, database: &str) -> Result<MyClient> {
    let mut client = gateway.client(database)?;
    client.run("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED")?;
    wait_away(&mut client)?;
    Ok(client)
}

#[test]
fn a_lazy_transaction_does_not_go_on_without_itself() -> Result<()> {
    let cluster = shared()?;
    let (gateway, proxies) = lazy("lazylost")?;
    let mut unknown = 0;
    for begin in ["BEGIN", "SET autocommit = 0"] {
        // It is cut in the answer to what begins it, or in that of the statement behind.
        for after in (0..160).step_by(20) {
            let mut client = lazy_client(&gateway, "lazylost")?;
            client.run(begin)?;
            client.run("SELECT v FROM t")?;
            let server = client.value("SHOW breccia.server")?;
            let primary = proxies.first().context("a proxy")?;
            primary.set(Fault::CutAfter(after));
            let reply = client.query("INSERT INTO w VALUES ('early')");
            primary.set(Fault::None);
            if let Ok(why) = told(reply) {
                println!("{begin} on {server}, {after}: {why}");
                unknown += u32::from(why.contains("unknown"));
            }
            wait_writes(&gateway, "lazylost")?;
            // Whatever the session may still do is of that transaction, and undone with it.
            let _late = client.query("INSERT INTO w VALUES ('late')");
            let _undone = client.query("ROLLBACK");
            drop(client);
            let left = rows(&cluster, 0, "lazylost")?;
            ensure!(left.is_empty(), "{begin}, {after}: {left} is committed");
        }
    }
    ensure!(unknown > 1, "only {unknown} answers were cut");
    Ok(())
}

#[test]
fn a_prepared_commit_ends_a_lazy_transaction() -> Result<()> {
    let cluster = shared()?;
    for end in ["COMMIT", "ROLLBACK"] {
        let (gateway, _proxies) = lazy("lazyend")?;
        let mut client = lazy_client(&gateway, "lazyend")?;
        let statement = client.prepare(end)?.ok().context("prepared")?;
        client.run("BEGIN")?;
        ensure!(client.value("SELECT v FROM t")? == "a");
        let server = client.value("SHOW breccia.server")?;
        ensure!(server != "my0", "a read on {server}");
        let reply = client.execute(&statement, &[])?.good()?;
        ensure!(reply.status() & 1 == 0, "in a transaction after {end}");
        let reply = client.run("INSERT INTO w VALUES ('after')")?;
        ensure!(reply.status() & 1 == 0, "in a transaction after {end}");
        let left = rows(&cluster, 0, "lazyend")?;
        ensure!(left == "after", "after {end}: {left:?}");
    }
    Ok(())
}

#[test]
fn a_write_whose_answer_was_lost_is_seen_by_the_next_read() -> Result<()> {
    let cluster = cluster()?;
    prepare(&cluster, "lostanswer")?;
    let (gateway, proxies) = behind_proxies(&cluster, Extra::default())?;
    let primary = proxies.first().context("a proxy")?;
    let mut client = gateway.client("lostanswer")?;
    wait_away(&mut client)?;
    for number in [1, 2] {
        cluster.pause_replay(number)?;
    }
    primary.set(Fault::SwallowReplies);
    client.command(3, b"INSERT INTO w VALUES ('lost')")?;
    wait_until(LIMIT, "the write", || {
        let rows = rows(&cluster, 0, "lostanswer")?;
        Ok((rows == "lost").then_some(()))
    })?;
    primary.reset_all();
    primary.set(Fault::None);
    let why = told(client.results(false))?;
    ensure!(why.contains("unknown"), "{why}");
    // The primary may not be known yet to be there: then the read is refused.
    let count = wait_until(LIMIT, "a read", || {
        let reply = client.query("SELECT COUNT(*) FROM w")?;
        Ok(reply.fault.is_none().then(|| reply.text()))
    })?;
    ensure!(count.as_deref() == Some("1"), "{count:?} rows are read");
    Ok(())
}

#[test]
fn the_end_of_no_transaction_needs_no_answer() -> Result<()> {
    let cluster = shared()?;
    prepare(&cluster, "lostnothing")?;
    let (gateway, proxies) = behind_proxies(&cluster, Extra::default())?;
    let primary = proxies.first().context("a proxy")?;
    for end in ["COMMIT", "ROLLBACK"] {
        let mut client = gateway.client("lostnothing")?;
        client.run(&format!("INSERT INTO w VALUES ('{end}')"))?;
        primary.set(Fault::CutAfter(0));
        let reply = client.query(end);
        primary.set(Fault::None);
        let reply = reply?.good().context(end)?;
        ensure!(reply.status() & 1 == 0, "{end}: in a transaction");
        wait_writes(&gateway, "lostnothing")?;
        client.run("UPDATE t SET v = 'd'")?;
        // One that is open is another matter.
        client.run("BEGIN")?;
        client.run("UPDATE t SET v = 'e'")?;
        primary.set(Fault::CutAfter(0));
        let why = told(client.query(end)).context(end)?;
        primary.set(Fault::None);
        ensure!(why.contains("unknown"), "{end}: {why}");
        wait_writes(&gateway, "lostnothing")?;
    }
    ensure!(rows(&cluster, 0, "lostnothing")? == "COMMIT,ROLLBACK");
    Ok(())
}

/// A command without an answer is the first to find the connection gone: nothing tells its client.
#[test]
fn a_commit_after_a_loss_that_nothing_told_is_an_error() -> Result<()> {
    let cluster = shared()?;
    prepare(&cluster, "lostuntold")?;
    let gateway = Gateway::over(&cluster, Extra::default())?;
    for pinned in [false, true] {
        let mut client = gateway.client("lostuntold")?;
        let opened = if pinned {
            "SET @mine = 7"
        } else {
            "INSERT INTO w VALUES ('early')"
        };
        client.run("BEGIN")?;
        client.run(opened)?;
        let mut cursors = Vec::new();
        for _ in 0..2 {
            let found = client.prepare("SELECT v FROM t FOR UPDATE")?;
            let statement = found.map_err(|reply| anyhow::anyhow!("{reply:?}"))?;
            client.execute_as(statement.id, &[], 1, true)?.good()?;
            cursors.push(statement);
        }
        ensure!(cut(&cluster, 0, "lostuntold")? > 0, "nothing was cut");
        for statement in &cursors {
            // The first meets a socket that is closed, the second one that has said so.
            client.close(statement)?;
            thread::sleep(Duration::from_millis(200));
        }
        // Or the session has ended with its connection, as directly.
        if let Ok(reply) = client.query("COMMIT") {
            let end = told(Ok(reply))?;
            ensure!(end.contains("lost"), "{pinned}: {end}");
        }
    }
    let left = rows(&cluster, 0, "lostuntold")?;
    ensure!(left.is_empty(), "{left}");
    Ok(())
}

/// Far limits leave no connection with a session that has only to ask about its last answer.
#[test]
fn a_connection_that_lingers_is_given_back_in_time_however_far_other_limits_are() -> Result<()> {
    let cluster = shared()?;
    prepare(&cluster, "lingers")?;
    let listener = "pool-size = 1\nqueue-timeout = \"8s\"\nidle-timeout = \"8h\"\n\
                    idle-in-transaction-timeout = \"1h\"";
    let extra = Extra {
        listener,
        ..Extra::default()
    };
    let gateway = Gateway::over(&cluster, extra)?;
    let mut silent = gateway.client("lingers")?;
    silent.run("INSERT INTO w VALUES (REPEAT('x', 20))")?;
    // Whoever has waited for a client before has a timer that is set for the far limit.
    thread::sleep(Duration::from_millis(1_500));
    silent.run("INSERT IGNORE INTO t VALUES (1, 'again')")?;
    let begun = Instant::now();
    gateway
        .client("lingers")?
        .run("INSERT INTO w VALUES ('other')")?;
    let after = begun.elapsed();
    ensure!(after < Duration::from_secs(4), "after {after:?}");
    Ok(())
}

/// A read of a few seconds that says whose it is.
const SLOW_READ: &str = "SELECT /* the slow one */ COUNT(*) FROM s AS a, s AS b, s AS c";

/// The servers that run the slow read now, and its number there.
fn running(cluster: &MariaDbCluster) -> Vec<(usize, String)> {
    let sql = "SELECT ID FROM information_schema.PROCESSLIST WHERE INFO LIKE '%the slow one%' \
               AND ID <> CONNECTION_ID()";
    let mut found = Vec::new();
    for server in 0..cluster.servers().len() {
        // One that is gone runs nothing.
        let ids = cluster.query(server, sql).unwrap_or_default();
        found.extend(ids.split_whitespace().map(|id| (server, id.to_owned())));
    }
    found
}

/// Runs the slow read, and does something to the replica where it is seen.
fn interrupt(
    cluster: &mut MariaDbCluster,
    client: &mut MyClient,
    work: impl Fn(&mut MariaDbCluster, usize, &str) -> Result<()>,
) -> Result<Result<MyReply>> {
    for _ in 0..10 {
        let found = thread::scope(|scope| -> Result<_> {
            let reading = scope.spawn(|| client.query(SLOW_READ));
            let (server, id) = wait_until(LIMIT, "the read", || Ok(running(cluster).pop()))?;
            if server != 0 {
                work(cluster, server, &id)?;
            }
            let reply = reading.join().expect("no panic");
            Ok((server != 0).then_some(reply))
        })?;
        // No replica was known to be fresh enough in time: once more.
        if let Some(reply) = found {
            return Ok(reply);
        }
    }
    anyhow::bail!("it runs on the primary each time")
}

#[test]
fn a_read_that_is_ended_on_its_server_runs_nowhere_else_and_once_more_if_that_is_gone() -> Result<()>
{
    let mut cluster = cluster()?;
    prepare(&cluster, "ended")?;
    let rows = "CREATE TABLE ended.s (a int) AS SELECT seq AS a FROM seq_1_to_600";
    cluster.query(0, rows)?;
    cluster.wait_caught_up(LIMIT)?;
    let gateway = Gateway::over(&cluster, Extra::default())?;
    gateway.wait_reads(&cluster)?;
    let mut client = gateway.client("ended")?;
    for kill in ["KILL", "KILL QUERY", "KILL HARD"] {
        let begun = Instant::now();
        let reply = interrupt(&mut cluster, &mut client, |cluster, server, id| {
            cluster.query(server, &format!("{kill} {id}")).map(drop)
        })?;
        let told = told(reply)?;
        println!("{kill}: {told} after {:?}", begun.elapsed());
        ensure!(running(&cluster).is_empty(), "{kill}: it runs elsewhere");
        let server = client.value("SHOW breccia.server")?;
        ensure!(server != "my0", "{kill}: {told}: it ran on {server}");
        client.run("SELECT 1")?;
    }
    let reply = interrupt(&mut cluster, &mut client, |cluster, server, _| {
        cluster.server_mut(server).kill9();
        Ok(())
    })??;
    ensure!(reply.fault.is_none(), "{:?}", reply.fault);
    ensure!(client.value("SHOW breccia.server")? == "my0");
    ensure!(client.value("SHOW breccia.reason")? == "replica-lost");
    Ok(())
}

#[test]
fn a_kept_connection_that_is_closed_meanwhile_costs_nothing() -> Result<()> {
    let cluster = shared()?;
    prepare(&cluster, "lingered")?;
    let gateway = Gateway::over(&cluster, Extra::default())?;
    gateway.wait_reads(&cluster)?;
    let mut client = gateway.client("lingered")?;
    for round in 0..3 {
        // After an error its connection stays for a second.
        ensure!(client.query("INSERT INTO t VALUES (1, 'again')")?.code() == 1062);
        ensure!(cut(&cluster, 0, "lingered")? > 0, "no connection was kept");
        thread::sleep(Duration::from_millis(150));
        client.run(&format!("INSERT INTO w VALUES ('round {round}')"))?;
    }
    let left = rows(&cluster, 0, "lingered")?;
    ensure!(left == "round 0,round 1,round 2", "{left}");
    Ok(())
}
