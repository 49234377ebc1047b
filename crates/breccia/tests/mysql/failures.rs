//! Servers that die, freeze or give way to another one, while clients work.
//!
//! Not limits of a healthy cluster. Invariant: a write that a client was told of is there afterwards,
//! and an error that a client gets says what became of its statement.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use breccia_testkit::{Fault, MariaDbCluster, MyClient, MyValue, Signal, wait_until};

use crate::rig::{Extra, Gateway, LIMIT, behind_proxies, cluster, file, fresh};

/// More statements than Breccia sends of itself in any test.
const MANY: u64 = 3_000;

/// A database with a hundred rows.
fn prepare(cluster: &MariaDbCluster) -> Result<()> {
    fresh(cluster, "faults")?;
    let sql = "USE faults; CREATE TABLE t (id int PRIMARY KEY, v varchar(20)); \
               INSERT INTO t SELECT seq, CONCAT('row ', seq) FROM seq_1_to_100; \
               CREATE TABLE w (v varchar(40) PRIMARY KEY)";
    cluster.query(0, sql)?;
    cluster.wait_caught_up(LIMIT)
}

/// Clients that read until they are told to end.
struct Readers<'a> {
    gateway: &'a Gateway,
    done: AtomicBool,
    reads: AtomicU32,
    /// The longest that one read took, in milliseconds.
    longest_ms: AtomicU32,
}

impl<'a> Readers<'a> {
    fn new(gateway: &'a Gateway) -> Readers<'a> {
        Readers {
            gateway,
            done: AtomicBool::new(false),
            reads: AtomicU32::new(0),
            longest_ms: AtomicU32::new(0),
        }
    }

    /// One client, until `done`.
    fn read(&self, number: usize) -> Result<()> {
        let mut client = self.gateway.client("faults")?;
        let sql = "SELECT v FROM t WHERE id = ?";
        let statement = client.prepare(sql)?.ok().context("prepared")?;
        while !self.done.load(Ordering::Relaxed) {
            let begun = Instant::now();
            let reply = match number % 3 {
                0 => client.query("SELECT v FROM t WHERE id = 7")?,
                1 => client.once(sql, &[MyValue::Int(7)])?,
                _ => client.execute(&statement, &[MyValue::Int(7)])?,
            };
            ensure!(
                reply.good()?.text().as_deref() == Some("row 7"),
                "another row"
            );
            let took = u32::try_from(begun.elapsed().as_millis())?;
            self.longest_ms.fetch_max(took, Ordering::Relaxed);
            self.reads.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Runs `work` while sixteen clients read.
    fn during(&self, work: impl FnOnce() -> Result<()>) -> Result<()> {
        thread::scope(|scope| {
            let threads: Vec<_> = (0..16)
                .map(|number| scope.spawn(move || self.read(number)))
                .collect();
            thread::sleep(Duration::from_millis(300));
            let worked = work();
            self.done.store(true, Ordering::Relaxed);
            let ends: Result<Vec<()>> = threads
                .into_iter()
                .map(|it| it.join().expect("a reader"))
                .collect();
            worked.and(ends.map(drop))
        })
    }
}

/// Waits until new sessions read on a server.
fn serves_again(gateway: &Gateway, name: &str) -> Result<()> {
    wait_until(LIMIT, &format!("reads on {name}"), || {
        let mut client = gateway.client("faults")?;
        client.run("SELECT v FROM t WHERE id = 8")?;
        Ok((client.value("SHOW breccia.server")? == name).then_some(()))
    })
}

/// Waits until sessions that have been there all the time read on a server: Breccia itself asks it less.
fn has_its_share_again(cluster: &MariaDbCluster, number: usize) -> Result<()> {
    let selects = || -> Result<u64> {
        let sql = "SELECT VARIABLE_VALUE FROM information_schema.GLOBAL_STATUS \
                   WHERE VARIABLE_NAME = 'COM_SELECT'";
        Ok(cluster.query(number, sql)?.trim().parse()?)
    };
    let before = selects()?;
    wait_until(LIMIT, &format!("older sessions on {number}"), || {
        Ok((selects()? > before + MANY).then_some(()))
    })
}

#[test]
fn a_killed_or_frozen_replica_costs_no_client_an_error() -> Result<()> {
    let mut cluster = cluster()?;
    prepare(&cluster)?;
    let extra = Extra {
        server: "timeout = \"3s\"",
        ..Extra::default()
    };
    let gateway = Gateway::over(&cluster, extra)?;
    let readers = Readers::new(&gateway);
    readers.during(|| {
        cluster.server_mut(1).kill9();
        thread::sleep(Duration::from_millis(1_500));
        cluster.server_mut(1).restart_same_port()?;
        has_its_share_again(&cluster, 1)?;
        serves_again(&gateway, "my1")
    })?;
    println!(
        "killed: {:?} reads, longest {:?} ms",
        readers.reads, readers.longest_ms
    );
    let readers = Readers::new(&gateway);
    readers.during(|| {
        cluster.server_mut(2).sigstop()?;
        thread::sleep(Duration::from_secs(6));
        cluster.server_mut(2).sigcont()?;
        serves_again(&gateway, "my2")
    })?;
    let longest = readers.longest_ms.load(Ordering::Relaxed);
    println!("frozen: {:?} reads, longest {longest} ms", readers.reads);
    ensure!(longest < 8_000, "a read took {longest} ms");
    Ok(())
}

/// Rows that writers were told are there, and the errors that they were told.
struct Writers<'a> {
    gateway: &'a Gateway,
    done: AtomicBool,
    acknowledged: Mutex<BTreeSet<String>>,
    refused: Mutex<Vec<(String, String)>>,
    behind: Mutex<Vec<String>>,
}

impl<'a> Writers<'a> {
    fn new(gateway: &'a Gateway) -> Writers<'a> {
        Writers {
            gateway,
            done: AtomicBool::new(false),
            acknowledged: Mutex::default(),
            refused: Mutex::default(),
            behind: Mutex::default(),
        }
    }

    fn count(&self) -> usize {
        self.acknowledged.lock().expect("no panic").len()
    }

    /// Writes row by row; whatever fails is left, and a new connection goes on.
    fn write(&self, number: usize) {
        let (mut client, mut round) = (None, 0_u32);
        while !self.done.load(Ordering::Relaxed) {
            round += 1;
            let value = format!("{number}-{round}");
            let mut once = || -> Result<()> {
                let made = match client.take() {
                    Some(client) => client,
                    None => self.gateway.client("faults")?,
                };
                let client = client.insert(made);
                let reply = client.query(&format!("INSERT INTO w VALUES ('{value}')"))?;
                if let Some(fault) = reply.fault {
                    let told = (value.clone(), fault.to_string());
                    self.refused.lock().expect("no panic").push(told);
                    anyhow::bail!("{fault}");
                }
                self.acknowledged
                    .lock()
                    .expect("no panic")
                    .insert(value.clone());
                let seen = client.run(&format!("SELECT v FROM w WHERE v = '{value}'"))?;
                if seen.text().as_deref() != Some(&value) {
                    self.behind.lock().expect("no panic").push(value.clone());
                }
                Ok(())
            };
            if once().is_err() {
                client = None;
                thread::sleep(Duration::from_millis(20));
            }
        }
    }

    /// Runs `work` while eight clients write.
    fn during(&self, work: impl FnOnce() -> Result<()>) -> Result<()> {
        thread::scope(|scope| {
            for number in 0..8 {
                scope.spawn(move || self.write(number));
            }
            let worked = work();
            self.done.store(true, Ordering::Relaxed);
            worked
        })
    }

    /// Waits for writes that begin after now.
    fn resume(&self, limit: Duration) -> Result<Duration> {
        let (begun, before) = (Instant::now(), self.count());
        wait_until(limit, "writes to go on", || {
            Ok((self.count() > before + 16).then_some(begun.elapsed()))
        })
    }

    /// Whether the rows of a server are what the writers were told.
    fn check(&self, present: &str) -> Result<()> {
        let present: BTreeSet<&str> = present.lines().collect();
        let acknowledged = self.acknowledged.lock().expect("no panic");
        let lost: Vec<_> = acknowledged
            .iter()
            .filter(|it| !present.contains(it.as_str()))
            .collect();
        println!("{} rows were acknowledged", acknowledged.len());
        ensure!(lost.is_empty(), "{} rows are lost: {lost:?}", lost.len());
        let behind = self.behind.lock().expect("no panic");
        ensure!(behind.is_empty(), "sessions did not see {behind:?}");
        for (value, told) in self.refused.lock().expect("no panic").iter() {
            let unknown = told.contains("unknown");
            let honest = unknown || !present.contains(value.as_str());
            ensure!(honest, "{value} is there, and its client was told {told}");
            ensure!(
                told.contains("breccia") || told.contains("1053"),
                "an error of nobody: {told}"
            );
        }
        let kinds: BTreeSet<String> = self
            .refused
            .lock()
            .expect("no panic")
            .iter()
            .map(|it| it.1.clone())
            .collect();
        println!("told: {kinds:#?}");
        Ok(())
    }
}

#[test]
fn a_primary_that_is_killed_and_comes_back_loses_no_acknowledged_write() -> Result<()> {
    let mut cluster = cluster()?;
    prepare(&cluster)?;
    let gateway = Gateway::over(&cluster, Extra::default())?;
    let writers = Writers::new(&gateway);
    writers.during(|| {
        writers.resume(LIMIT)?;
        for _ in 0..2 {
            cluster.server_mut(0).kill9();
            thread::sleep(Duration::from_secs(1));
            // Reads go on meanwhile.
            gateway
                .client("faults")?
                .run("SELECT v FROM t WHERE id = 7")
                .context("without a primary")?;
            cluster.server_mut(0).restart_same_port()?;
            let after = writers.resume(LIMIT)?;
            println!("writes after {after:?}");
        }
        Ok(())
    })?;
    writers.check(&cluster.query(0, "SELECT v FROM faults.w")?)
}

#[test]
fn a_promotion_by_hand_is_followed() -> Result<()> {
    let mut cluster = cluster()?;
    prepare(&cluster)?;
    let gateway = Gateway::over(&cluster, Extra::default())?;
    let writers = Writers::new(&gateway);
    writers.during(|| {
        writers.resume(LIMIT)?;
        // Nothing is committed from now on until the primary goes: replication is asynchronous, and
        // read_only does not hold those who may do everything.
        let mut lock = MyClient::connect(cluster.primary().port(), "")?;
        lock.run("FLUSH TABLES WITH READ LOCK")?;
        cluster.wait_caught_up(LIMIT)?;
        cluster.server_mut(0).kill9();
        thread::sleep(Duration::from_millis(500));
        cluster.promote(1)?;
        cluster.follow(2, 1)?;
        let after = writers.resume(LIMIT)?;
        println!("writes after {after:?}");
        ensure!(
            after < Duration::from_secs(15),
            "writes after {after:?} only"
        );
        serves_again(&gateway, "my2")
    })?;
    let mut client = gateway.client("faults")?;
    ensure!(
        client.value("SHOW breccia.primary")? == "my1",
        "the primary"
    );
    // The old one comes back as it was, and writes where nobody reads: it is no primary.
    cluster.server_mut(0).restart_same_port()?;
    thread::sleep(Duration::from_secs(3));
    for _ in 0..20 {
        client.run("INSERT INTO w VALUES (UUID())")?;
        ensure!(
            client.value("SHOW breccia.server")? == "my1",
            "a write on the old primary"
        );
    }
    writers.check(&cluster.query(1, "SELECT v FROM faults.w")?)
}

#[test]
fn two_primaries_are_refused_until_one_is_named() -> Result<()> {
    let cluster = cluster()?;
    prepare(&cluster)?;
    let gateway = Gateway::over(&cluster, Extra::default())?;
    let mut early = gateway.client("faults")?;
    early.run("INSERT INTO w VALUES ('before')")?;
    cluster.promote(1)?;
    cluster.query(1, "INSERT INTO faults.w VALUES ('on another')")?;
    cluster.query(0, "INSERT INTO faults.w VALUES ('on the first')")?;
    let told = wait_until(LIMIT, "a refusal", || {
        let mut client = match gateway.client("faults") {
            Ok(client) => client,
            Err(error) => return Ok(Some(format!("{error:#}"))),
        };
        let reply = client.query("INSERT INTO w VALUES (UUID())")?;
        Ok(reply.fault.map(|fault| fault.to_string()))
    })?;
    println!("two primaries: {told}");
    ensure!(told.contains("my0") && told.contains("my1"), "{told}");
    gateway.post("/stores/my1/primary")?;
    wait_until(LIMIT, "writes on the one that is named", || {
        let Ok(mut client) = gateway.client("faults") else {
            return Ok(None);
        };
        let wrote = client
            .query("INSERT INTO w VALUES (UUID())")?
            .fault
            .is_none();
        Ok((wrote && client.value("SHOW breccia.server")? == "my1").then_some(()))
    })
}

#[test]
fn a_result_that_is_cut_is_an_error_and_no_row_comes_twice() -> Result<()> {
    let cluster = cluster()?;
    prepare(&cluster)?;
    let (gateway, proxies) = behind_proxies(&cluster, Extra::default())?;
    let sql = "SELECT seq, REPEAT('x', 500) FROM seq_1_to_20000, t WHERE id = 1";
    let mut faults = 0;
    for after in [0, 10, 1_000, 100_000, 1_000_000] {
        let mut client = gateway.client("faults")?;
        client.run("SELECT v FROM t WHERE id = 7")?;
        for proxy in &proxies {
            proxy.set(Fault::CutAfter(after));
        }
        let reply = client.query(sql);
        for proxy in &proxies {
            proxy.set(Fault::None);
        }
        match reply {
            Ok(reply) => {
                let rows = reply.rows();
                let numbers: BTreeSet<_> = rows.iter().filter_map(|row| row.first()).collect();
                ensure!(
                    numbers.len() == rows.len(),
                    "after {after}: a row came twice"
                );
                ensure!(
                    reply.fault.is_some() || rows.len() == 20_000,
                    "after {after}: {} rows and no error",
                    rows.len()
                );
                faults += u32::from(reply.fault.is_some());
                println!("after {after}: {} rows, {:?}", rows.len(), reply.fault);
            }
            Err(error) => {
                faults += 1;
                println!("after {after}: {error:#}");
            }
        }
    }
    ensure!(faults >= 2, "only {faults} of five cuts were noticed");
    wait_until(LIMIT, "reads to come back", || {
        let read = gateway
            .client("faults")
            .and_then(|mut it| it.value("SELECT v FROM t WHERE id = 7"));
        Ok(read.is_ok_and(|it| it == "row 7").then_some(()))
    })
}

#[test]
fn a_write_whose_answer_is_lost_is_told_to_be_unknown() -> Result<()> {
    let cluster = cluster()?;
    prepare(&cluster)?;
    let (gateway, proxies) = behind_proxies(&cluster, Extra::default())?;
    let primary = proxies.first().context("a proxy")?;
    let mut client = gateway.client("faults")?;
    client.run("INSERT INTO w VALUES ('first')")?;
    primary.set(Fault::CutAfter(0));
    let reply = client.query("INSERT INTO w VALUES ('lost')");
    primary.set(Fault::None);
    let told = match reply {
        Ok(reply) => reply
            .fault
            .context("an OK for what nobody answered")?
            .to_string(),
        Err(error) => format!("{error:#}"),
    };
    println!("told: {told}");
    ensure!(told.contains("unknown"), "{told}");
    Ok(())
}

#[test]
fn a_pool_that_is_exhausted_says_so_in_time() -> Result<()> {
    let cluster = crate::rig::shared()?;
    let extra = Extra {
        listener: "pool-size = 1\nqueue-timeout = \"700ms\"",
        ..Extra::default()
    };
    let gateway = Gateway::over(&cluster, extra)?;
    let mut holder = gateway.client("")?;
    let mut waiting = gateway.client("")?;
    holder.run("BEGIN")?;
    holder.run("SELECT 1 FOR UPDATE")?;
    let begun = Instant::now();
    let reply = waiting.query("SELECT 2 FOR UPDATE")?;
    let (fault, took) = (
        reply.fault.context("there is but one connection")?,
        begun.elapsed(),
    );
    println!("{fault} after {took:?}");
    ensure!(fault.code == 1040 || fault.code == 1203, "{fault}");
    ensure!(
        took >= Duration::from_millis(600) && took < Duration::from_secs(5),
        "{took:?}"
    );
    holder.run("COMMIT")?;
    ensure!(waiting.value("SELECT 2 FOR UPDATE")? == "2", "afterwards");
    Ok(())
}

#[test]
fn a_paused_composite_holds_statements_back_and_a_drained_replica_serves_none() -> Result<()> {
    let cluster = crate::rig::shared()?;
    let extra = Extra {
        listener: "queue-timeout = \"20s\"",
        ..Extra::default()
    };
    let gateway = &Gateway::over(&cluster, extra)?;
    gateway.post("/stores/my1/drain")?;
    for _ in 0..40 {
        let mut client = gateway.client("")?;
        client.run("SELECT 1")?;
        ensure!(
            client.value("SHOW breccia.server")? != "my1",
            "a read on a drained replica"
        );
    }
    gateway.post("/stores/my1/resume")?;
    fresh(&cluster, "pausing")?;
    cluster.query(0, "CREATE TABLE pausing.t (a int)")?;
    let mut open = gateway.client("pausing")?;
    open.run("BEGIN")?;
    open.run("INSERT INTO t VALUES (1)")?;
    let released = AtomicBool::new(false);
    thread::scope(|scope| -> Result<()> {
        let pausing = scope.spawn(|| gateway.post("/stores/db/pause"));
        thread::sleep(Duration::from_millis(500));
        let held: Vec<_> = ["SELECT 1", "SELECT 1 FOR UPDATE"]
            .map(|sql| {
                let released = &released;
                scope.spawn(move || -> Result<()> {
                    gateway.client("")?.run(sql)?;
                    ensure!(released.load(Ordering::SeqCst), "{sql} was not held back");
                    Ok(())
                })
            })
            .into_iter()
            .collect();
        thread::sleep(Duration::from_millis(500));
        open.run("INSERT INTO t VALUES (2)")
            .context("the open transaction")?;
        open.run("COMMIT")?;
        pausing.join().expect("no panic")?;
        released.store(true, Ordering::SeqCst);
        gateway.post("/stores/db/resume")?;
        held.into_iter()
            .try_for_each(|it| it.join().expect("no panic"))
    })
}

#[test]
fn the_end_of_a_gateway_lets_statements_and_transactions_finish() -> Result<()> {
    let cluster = cluster()?;
    prepare(&cluster)?;
    let mut gateway = Gateway::over(&cluster, Extra::default())?;
    let mut open = gateway.client("faults")?;
    open.run("BEGIN")?;
    open.run("INSERT INTO w VALUES ('open')")?;
    let mut slow = gateway.client("faults")?;
    slow.command(3, b"INSERT INTO w SELECT CONCAT('slow ', SLEEP(1.5))")?;
    let mut idle = gateway.client("faults")?;
    thread::sleep(Duration::from_millis(200));
    gateway.breccia.process().signal(Signal::Term)?;
    thread::sleep(Duration::from_millis(300));
    open.run("INSERT INTO w VALUES ('late')")?;
    open.run("COMMIT")?;
    slow.results(false)?.good()?;
    ensure!(
        idle.ping().map_or(true, |it| it.fault.is_some()),
        "an idle client goes on"
    );
    let status = gateway.breccia.process().wait(Duration::from_secs(10))?;
    ensure!(status.success(), "{status}");
    let rows = cluster.query(
        0,
        "SELECT COUNT(*) FROM faults.w WHERE v IN ('open', 'late', 'slow 0')",
    )?;
    ensure!(rows.trim() == "3", "{rows}");
    Ok(())
}

#[test]
fn a_reload_drops_no_session_and_takes_effect() -> Result<()> {
    let cluster = cluster()?;
    prepare(&cluster)?;
    let gateway = Gateway::over(&cluster, Extra::default())?;
    let readers = Readers::new(&gateway);
    let mut open = gateway.client("faults")?;
    open.run("BEGIN")?;
    open.run("INSERT INTO w VALUES ('over a reload')")?;
    readers.during(|| {
        for round in 0..6 {
            let size = 5 + round;
            let listener = format!("pool-size = {size}");
            let extra = Extra {
                listener: &listener,
                ..Extra::default()
            };
            let (status, body) = gateway
                .breccia
                .reload(&file(&cluster, gateway.port, extra))?;
            ensure!(status == 200, "{status} {body}");
            thread::sleep(Duration::from_millis(200));
        }
        let faulty = file(&cluster, gateway.port, Extra::default()) + "\nnonsense = 1\n";
        let (status, body) = gateway.breccia.reload(&faulty)?;
        ensure!(
            status == 400 && body.contains("nonsense"),
            "{status} {body}"
        );
        Ok(())
    })?;
    open.run("COMMIT")?;
    ensure!(
        open.value("SELECT COUNT(*) FROM w")? == "1",
        "a transaction over a reload"
    );
    Ok(())
}
