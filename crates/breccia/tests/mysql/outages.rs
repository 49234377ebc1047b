//! The end of a gateway under load, a primary that falls silent, and an old one that comes back.
//!
//! Not servers that are killed, which other tests do. Invariant: whatever a client was told is true of
//! the rows afterwards, and each answer or refusal comes in a time that is known.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use breccia_testkit::{MariaDbCluster, MyClient, MyReply, wait_until};

use crate::rig::{Extra, Gateway, LIMIT, cluster, fresh};

/// A database with a table to read and one to write to.
fn prepare(cluster: &MariaDbCluster) -> Result<()> {
    fresh(cluster, "outage")?;
    let sql = "USE outage; CREATE TABLE t (id int PRIMARY KEY, v varchar(20)); \
               INSERT INTO t SELECT seq, CONCAT('row ', seq) FROM seq_1_to_100; \
               CREATE TABLE w (v varchar(40) PRIMARY KEY)";
    cluster.query(0, sql)?;
    cluster.wait_caught_up(LIMIT)
}

fn rows(cluster: &MariaDbCluster, server: usize) -> Result<BTreeSet<String>> {
    let rows = cluster.query(server, "SELECT v FROM outage.w")?;
    Ok(rows.lines().map(str::to_owned).collect())
}

/// Clients that work until their gateway ends, and what came of it.
#[derive(Debug, Default)]
struct Work {
    committed: Mutex<Vec<String>>,
    /// What went wrong, where nothing may go wrong.
    wrong: Mutex<Vec<String>>,
    reads: AtomicU32,
    ending: AtomicBool,
}

impl Work {
    fn complain(&self, what: String) {
        self.wrong.lock().expect("no panic").push(what);
    }

    /// Transactions of two rows each. Once one has begun, it goes through.
    fn write(&self, gateway: &Gateway, number: usize) {
        let Ok(mut client) = gateway.client("outage") else {
            return;
        };
        let is_done = |reply: Result<MyReply>| reply.is_ok_and(|it| it.fault.is_none());
        for round in 0.. {
            if !is_done(client.query("BEGIN")) {
                break;
            }
            let name = format!("{number}-{round}");
            for half in ["a", "b"] {
                let sql = format!("INSERT INTO w VALUES ('{name}-{half}')");
                let reply = client.query(&sql);
                thread::sleep(Duration::from_millis(3));
                match reply.map(|it| it.fault) {
                    Ok(None) => {}
                    other => self.complain(format!("{sql}: {other:?}")),
                }
            }
            match client.query("COMMIT").map(|it| it.fault) {
                Ok(None) => self.committed.lock().expect("no panic").push(name),
                other => self.complain(format!("COMMIT: {other:?}")),
            }
        }
        if !self.ending.load(Ordering::SeqCst) {
            self.complain(format!("client {number} was cut off too early"));
        }
    }

    fn read(&self, gateway: &Gateway) {
        let Ok(mut client) = gateway.client("outage") else {
            return;
        };
        while let Ok(reply) = client.query("SELECT v FROM t WHERE id = 7") {
            if let Some(fault) = reply.fault {
                if fault.code != 1053 {
                    self.complain(format!("a read: {fault}"));
                }
                break;
            }
            if reply.text().as_deref() != Some("row 7") {
                self.complain(format!("a read: {:?}", reply.text()));
            }
            self.reads.fetch_add(1, Ordering::Relaxed);
        }
        if !self.ending.load(Ordering::SeqCst) {
            self.complain("a reader was cut off too early".to_owned());
        }
    }
}

#[test]
fn the_end_of_a_gateway_under_load_breaks_no_transaction() -> Result<()> {
    let cluster = cluster()?;
    prepare(&cluster)?;
    let extra = Extra {
        top: "drain-timeout = \"20s\"",
        listener: "pool-size = 4\nqueue-timeout = \"20s\"",
        ..Extra::default()
    };
    let mut gateway = Gateway::over(&cluster, extra)?;
    let id = gateway.breccia.process().id();
    let work = Work::default();
    let (work, shared) = (&work, &gateway);
    thread::scope(|scope| -> Result<()> {
        for number in 0..8 {
            scope.spawn(move || work.write(shared, number));
            scope.spawn(move || work.read(shared));
        }
        wait_until(LIMIT, "some work", || {
            let some = work.committed.lock().expect("no panic").len() > 40;
            Ok((some && work.reads.load(Ordering::Relaxed) > 200).then_some(()))
        })?;
        work.ending.store(true, Ordering::SeqCst);
        let mut kill = std::process::Command::new("kill");
        breccia_testkit::process::run(kill.args(["-TERM", &id.to_string()])).map(drop)
    })?;
    let begun = Instant::now();
    let status = gateway.breccia.process().wait(Duration::from_secs(20))?;
    ensure!(status.success(), "{status}");
    println!("ended {:?} after the last client", begun.elapsed());
    let wrong = work.wrong.lock().expect("no panic");
    ensure!(wrong.is_empty(), "{wrong:#?}");
    let committed = work.committed.lock().expect("no panic");
    let expected: BTreeSet<String> = committed
        .iter()
        .flat_map(|name| [format!("{name}-a"), format!("{name}-b")])
        .collect();
    let found = rows(&cluster, 0)?;
    println!("{} transactions, {:?} reads", committed.len(), work.reads);
    ensure!(
        found == expected,
        "{} rows instead of {}",
        found.len(),
        expected.len()
    );
    Ok(())
}

/// How long a refusal may take while a primary is silent: its `timeout` is 2 s.
const SOON: Duration = Duration::from_secs(10);

#[test]
fn a_silent_primary_costs_writes_an_error_in_time_and_reads_nothing() -> Result<()> {
    let mut cluster = cluster()?;
    prepare(&cluster)?;
    let extra = Extra {
        server: "timeout = \"2s\"",
        listener: "queue-timeout = \"3s\"",
        ..Extra::default()
    };
    let gateway = &Gateway::over(&cluster, extra)?;
    let mut open = gateway.client("outage")?;
    open.run("BEGIN")?;
    open.run("INSERT INTO w VALUES ('open')")?;
    let mut wrote = gateway.client("outage")?;
    wrote.run("INSERT INTO w VALUES ('wrote')")?;
    // What it writes may be told to be unknown: it reads from nobody else then.
    let mut late = gateway.client("outage")?;
    cluster.wait_caught_up(LIMIT)?;
    let mut reader = gateway.client("outage")?;
    read_on_a_replica(&mut reader)?;
    read_on_a_replica(&mut wrote)?;
    cluster.server_mut(0).sigstop()?;
    let timed = |what: &str, work: &mut dyn FnMut() -> Result<MyReply>| -> Result<()> {
        let begun = Instant::now();
        let reply = work();
        let took = begun.elapsed();
        let told = match reply {
            Ok(reply) => format!("{:?}", reply.fault.context("it went well")?),
            Err(error) => format!("{error:#}"),
        };
        println!("{what}: {told} after {took:?}");
        ensure!(took < SOON, "{what}: {told} after {took:?} only");
        ensure!(told.contains("breccia"), "{what}: {told}");
        Ok(())
    };
    thread::scope(|scope| -> Result<()> {
        let writing = scope.spawn(|| {
            let mut client = gateway.client("outage")?;
            timed("a write", &mut || {
                client.query("INSERT INTO w VALUES ('unknown')")
            })
        });
        let within = scope.spawn(|| {
            timed("a write in a transaction", &mut || {
                open.query("INSERT INTO w VALUES ('within')")
            })
        });
        writing.join().expect("no panic")?;
        within.join().expect("no panic")
    })?;
    timed("one more write", &mut || {
        late.query("INSERT INTO w VALUES ('late')")
    })?;
    for _ in 0..20 {
        reads_go_on(gateway, &mut reader, &mut wrote)?;
    }
    cluster.server_mut(0).sigcont()?;
    wait_until(LIMIT, "writes to go on", || {
        let reply = wrote.query("INSERT INTO w VALUES ('after')")?;
        Ok(reply.fault.is_none().then_some(()))
    })?;
    ensure!(wrote.value("SELECT COUNT(*) FROM w WHERE v = 'after'")? == "1");
    let found = rows(&cluster, 0)?;
    let mut expected = BTreeSet::from(["wrote", "after"].map(str::to_owned));
    // They were told to be unknown.
    for unknown in ["unknown", "late"] {
        expected.extend(found.get(unknown).cloned());
    }
    ensure!(found == expected, "{found:?}");
    Ok(())
}

/// Reads until that is done on a replica: who has read on the primary may have seen more than they have.
fn read_on_a_replica(client: &mut MyClient) -> Result<()> {
    wait_until(LIMIT, "a read on a replica", || {
        client.run("SELECT v FROM t WHERE id = 7")?;
        Ok((client.value("SHOW breccia.server")? != "my0").then_some(()))
    })
}

/// Reads of those who have seen no more than the replicas have go on, new ones too.
fn reads_go_on(gateway: &Gateway, reader: &mut MyClient, wrote: &mut MyClient) -> Result<()> {
    let begun = Instant::now();
    ensure!(reader.value("SELECT v FROM t WHERE id = 7")? == "row 7");
    ensure!(wrote.value("SELECT COUNT(*) FROM w WHERE v = 'wrote'")? == "1");
    let mut new = gateway.client("outage")?;
    ensure!(new.value("SELECT v FROM t WHERE id = 8")? == "row 8");
    ensure!(begun.elapsed() < SOON, "reads took {:?}", begun.elapsed());
    Ok(())
}

/// Connections to the primary lie in the pool, one is in a transaction, one is kept.
fn sessions(gateway: &Gateway) -> Result<Vec<MyClient>> {
    let mut sessions = Vec::new();
    for before in [
        &["INSERT INTO w VALUES ('early')"][..],
        &["SET @a = 1"],
        &["BEGIN", "INSERT INTO w VALUES ('open')"],
    ] {
        let mut client = gateway.client("outage")?;
        for sql in before {
            client.run(sql)?;
        }
        sessions.push(client);
    }
    Ok(sessions)
}

/// Takes back what the old primary alone has: whoever makes a replica of it must.
fn take_back(cluster: &MariaDbCluster, common: &str) -> Result<()> {
    let sql = format!(
        "SET sql_log_bin = 0; DELETE FROM outage.w WHERE v = 'new'; RESET MASTER; \
         SET GLOBAL gtid_slave_pos = '{}'",
        common.trim()
    );
    cluster.query(0, &sql).map(drop)
}

#[test]
fn an_old_primary_that_comes_back_gets_no_write() -> Result<()> {
    let mut cluster = cluster()?;
    prepare(&cluster)?;
    let extra = Extra {
        server: "timeout = \"2s\"",
        ..Extra::default()
    };
    let gateway = Gateway::over(&cluster, extra)?;
    let mut sessions = sessions(&gateway)?;
    cluster.wait_caught_up(LIMIT)?;
    let common = cluster.query(0, "SELECT @@GLOBAL.gtid_binlog_pos")?;
    cluster.server_mut(0).sigstop()?;
    cluster.promote(1)?;
    cluster.follow(2, 1)?;
    let written = |value: &str| -> Result<Option<()>> {
        let client = gateway.client("outage");
        let Ok(mut client) = client else {
            return Ok(None);
        };
        let reply = client.query(&format!("INSERT INTO w VALUES ('{value}')"))?;
        let done = reply.fault.is_none();
        ensure!(
            !done || client.value("SHOW breccia.server")? == "my1",
            "{value} was written elsewhere"
        );
        Ok(done.then_some(()))
    };
    wait_until(LIMIT, "writes on the new primary", || written("new"))?;
    cluster.server_mut(0).sigcont()?;
    // It is seen again, as one that is set aside.
    wait_until(LIMIT, "the old one to be seen", || {
        let log = gateway.breccia.log();
        let mut aside = log.lines().filter(|line| line.contains("is set aside"));
        Ok(aside.any(|line| line.contains("my0")).then_some(()))
    })?;
    for round in 0..100 {
        written(&format!("after {round}"))?.context("a refusal")?;
    }
    for (number, client) in sessions.iter_mut().enumerate() {
        for sql in ["INSERT INTO w VALUES (LEFT(UUID(), 20))", "COMMIT"] {
            let fault = client.query(sql).map(|it| it.fault);
            println!("session {number}: {sql}: {fault:?}");
        }
    }
    let old = rows(&cluster, 0)?;
    // What was on its way when it fell silent was told to be unknown, and may be there.
    let known = ["early", "new"];
    ensure!(old.iter().all(|it| known.contains(&it.as_str())), "{old:?}");
    ensure!(rows(&cluster, 1)?.len() >= 102);
    if old.contains("new") {
        take_back(&cluster, &common)?;
    }
    // Once it follows the new one, it serves reads.
    cluster.follow(0, 1)?;
    wait_until(LIMIT, "reads on the old one", || {
        let mut client = gateway.client("outage")?;
        client.run("SELECT v FROM t WHERE id = 9")?;
        Ok((client.value("SHOW breccia.server")? == "my0").then_some(()))
    })
}

#[test]
fn who_comes_while_the_primary_is_down_sets_and_reads() -> Result<()> {
    let mut cluster = cluster()?;
    prepare(&cluster)?;
    let gateway = Gateway::over(&cluster, Extra::default())?;
    // Without a catalogue nothing is known to be a read.
    gateway.wait_reads(&cluster)?;
    cluster.server_mut(0).kill9();
    wait_until(LIMIT, "the loss to be known", || {
        let mut client = gateway.client("outage")?;
        let reply = client.query("INSERT INTO w VALUES ('lost')")?;
        Ok((reply.code() == 1053).then_some(()))
    })?;
    let sql = "SELECT CONCAT(v, ' ', @@time_zone, ' ', @@character_set_connection, ' ', \
               @@collation_connection) FROM t WHERE id = 7";
    for _ in 0..5 {
        // As drivers begin.
        let mut client = gateway.client("")?;
        for set in [
            "SET NAMES latin1 COLLATE latin1_bin",
            "SET NAMES latin1",
            "SET time_zone = '+01:00'",
            "SET autocommit = 1",
            "USE outage",
        ] {
            client.run(set).context(set)?;
        }
        // As the command that is USE.
        client.enter("outage")?.good().context("COM_INIT_DB")?;
        let row = client.value(sql)?;
        ensure!(row == "row 7 +01:00 latin1 latin1_swedish_ci", "{row}");
        // What one has set is nobody else's.
        let mut other = gateway.client("outage")?;
        let row = other.value(sql)?;
        ensure!(row.starts_with("row 7 SYSTEM utf8mb4 "), "{row}");
        let mut lazy = gateway.client("outage")?;
        let reply = lazy.run("SET autocommit = 0")?;
        ensure!(reply.status() & 2 == 0, "autocommit is on");
        let reply = lazy.query("INSERT INTO w VALUES ('lost')")?;
        ensure!(reply.code() == 1053, "{:?}", reply.fault);
    }
    // Settings that are made there cost no connection.
    let made = || -> Result<u32> {
        let sql = "SELECT VARIABLE_VALUE FROM information_schema.GLOBAL_STATUS \
                   WHERE VARIABLE_NAME = 'CONNECTIONS'";
        let count = |server: usize| anyhow::Ok(cluster.query(server, sql)?.trim().parse::<u32>()?);
        Ok(count(1)? + count(2)?)
    };
    let before = made()?;
    for _ in 0..60 {
        let mut client = gateway.client("outage")?;
        client.run("SET NAMES latin1")?;
        client.run("SET autocommit = 1")?;
        client.run("SELECT v FROM t WHERE id = 7")?;
    }
    let made = made()? - before;
    ensure!(made < 40, "{made} connections for 60 clients");
    cluster.server_mut(0).restart_same_port()?;
    wait_until(LIMIT, "writes to go on", || {
        let wrote = gateway
            .client("outage")
            .and_then(|mut it| it.run("INSERT INTO w VALUES ('after')"));
        Ok(wrote.is_ok().then_some(()))
    })?;
    ensure!(rows(&cluster, 0)? == BTreeSet::from(["after".to_owned()]));
    Ok(())
}

/// What sessions do that were there before their primary stands still, each with a limit of its own.
const BESIDE_A_FROZEN: &[&str] = &[
    "USE outage",
    "SET @x = 1",
    "SET NAMES latin1",
    "SET autocommit = 0",
    "SELECT @@server_id",
    "SELECT v FROM t WHERE id = 3",
    "SELECT LAST_INSERT_ID()",
    "INSERT INTO w VALUES ('frozen')",
    "BEGIN",
    "SELECT ROW_COUNT()",
];

#[test]
fn nobody_waits_for_a_frozen_primary_longer_than_it_takes_to_notice() -> Result<()> {
    let mut cluster = cluster()?;
    prepare(&cluster)?;
    let gateway = Gateway::over(&cluster, Extra::default())?;
    gateway.wait_reads(&cluster)?;
    // Some have just written, so that a connection is still theirs; the others have none, and other settings.
    let mut sessions = Vec::new();
    for (number, sql) in BESIDE_A_FROZEN.iter().enumerate() {
        for kind in ["plain", "set", "wrote"] {
            let mut client = gateway.client("outage")?;
            match kind {
                "set" => client.run(&format!("SET time_zone = '+0{}:00'", number % 9))?,
                "wrote" => client.run(&format!("INSERT INTO w VALUES ('{number}')"))?,
                _ => client.run("SELECT v FROM t WHERE id = 1")?,
            };
            client.set_patience(LIMIT)?;
            sessions.push((*sql, kind, client));
        }
    }
    cluster.server_mut(0).sigstop()?;
    let waits = thread::scope(|scope| {
        let asking: Vec<_> = sessions
            .iter_mut()
            .map(|(sql, kind, client)| {
                scope.spawn(move || {
                    let begun = Instant::now();
                    let reply = client.query(sql);
                    (*sql, *kind, begun.elapsed(), reply.map(|it| it.fault))
                })
            })
            .collect();
        let ends = asking.into_iter().map(|it| it.join().expect("no panic"));
        ends.collect::<Vec<_>>()
    });
    cluster.server_mut(0).sigcont()?;
    let mut late = 0;
    for (sql, kind, took, reply) in &waits {
        if *took > Duration::from_secs(5) {
            late += 1;
            println!("{sql} ({kind}) took {took:?}: {reply:?}");
        }
    }
    ensure!(late == 0, "{late} of {} waited for long", waits.len());
    Ok(())
}

#[test]
fn a_read_waits_for_all_full_pools_together_no_longer_than_for_one() -> Result<()> {
    let cluster = crate::rig::shared()?;
    let extra = Extra {
        listener: "pool-size = 1\nqueue-timeout = \"2s\"",
        ..Extra::default()
    };
    let gateway = Gateway::over(&cluster, extra)?;
    let mut holders = Vec::new();
    for (begin, read) in [
        ("BEGIN", "SELECT 1 FOR UPDATE"),
        ("START TRANSACTION READ ONLY", "SELECT 1"),
        ("START TRANSACTION READ ONLY", "SELECT 1"),
    ] {
        let mut holder = gateway.client("")?;
        holder.run(begin)?;
        holder.run(read)?;
        holders.push((holder.value("SHOW breccia.server")?, holder));
    }
    holders.sort_by(|one, other| one.0.cmp(&other.0));
    let servers: Vec<_> = holders.iter().map(|(server, _)| server.as_str()).collect();
    ensure!(servers == ["my0", "my1", "my2"], "{servers:?}");
    let mut waiting = gateway.client("")?;
    let begun = Instant::now();
    let fault = waiting.query("SELECT 1")?.fault.context("all are full")?;
    let took = begun.elapsed();
    ensure!(fault.code == 1040, "{fault}");
    ensure!(
        took < Duration::from_millis(3_500),
        "{fault} after {took:?}"
    );
    for (_, holder) in &mut holders {
        holder.run("COMMIT")?;
    }
    ensure!(waiting.value("SELECT 1")? == "1", "afterwards");
    Ok(())
}

#[test]
fn a_client_that_is_silent_amid_a_long_command_keeps_no_connection() -> Result<()> {
    let cluster = crate::rig::shared()?;
    let extra = Extra {
        listener: "pool-size = 1\nqueue-timeout = \"15s\"\nidle-timeout = \"1500ms\"",
        ..Extra::default()
    };
    let gateway = Gateway::over(&cluster, extra)?;
    let client = gateway.client("")?;
    // A query of three mebibytes, of which one comes.
    let mut start = vec![0, 0, 0x30, 0, 3];
    start.extend_from_slice(b"SELECT 1 FOR UPDATE -- ");
    start.resize(0x0010_0000, b'x');
    client.raw()?.write_all(&start)?;
    let mut other = gateway.client("")?;
    ensure!(other.value("SELECT 2 FOR UPDATE")? == "2", "another client");
    Ok(())
}

#[test]
fn a_primary_that_cannot_be_asked_any_more_is_told_of() -> Result<()> {
    let cluster = crate::rig::shared()?;
    let sql = "CREATE USER asker IDENTIFIED BY 'one'; GRANT ALL ON *.* TO asker";
    cluster.query(0, sql)?;
    cluster.wait_caught_up(LIMIT)?;
    let extra = Extra {
        server: "monitor-user = \"asker\"\nmonitor-password = \"one\"",
        ..Extra::default()
    };
    let gateway = Gateway::over(&cluster, extra)?;
    ensure!(
        !gateway.breccia.admin("/readyz")?.1.contains("asked"),
        "well"
    );
    cluster.query(0, "ALTER USER asker IDENTIFIED BY 'two'")?;
    let of = "SELECT ID FROM information_schema.PROCESSLIST WHERE USER = 'asker'";
    for id in cluster.query(0, of)?.split_whitespace() {
        let _ended_before = cluster.query(0, &format!("KILL {id}"));
    }
    wait_until(LIMIT, "what /readyz says", || {
        let (status, text) = gateway.breccia.admin("/readyz")?;
        let told = text.contains("my0 stays the primary and cannot be asked")
            && text.contains("Access denied for user 'asker'");
        Ok((status == 200 && told).then_some(()))
    })?;
    let status = gateway.breccia.admin("/status")?.1;
    ensure!(status.contains("\"primary_cannot_be_asked\""), "{status}");
    cluster.query(0, "ALTER USER asker IDENTIFIED BY 'one'")?;
    wait_until(LIMIT, "it to be asked again", || {
        let text = gateway.breccia.admin("/readyz")?.1;
        Ok((!text.contains("asked")).then_some(()))
    })
}
