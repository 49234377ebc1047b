//! Another server becomes the primary.
//!
//! Not standbys that fail (`faults.rs`). Invariant: a row whose commit a client was told of is
//! there afterwards, as the standby that is promoted is the synchronous one.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use breccia_testkit::{PostgresCluster, wait_until};

use crate::rig::{Extra, Gateway, LIMIT, cluster};

fn prepare(cluster: &PostgresCluster) -> Result<()> {
    cluster.primary().create_database("p")?;
    cluster
        .primary()
        .query("p", "CREATE TABLE t (v text PRIMARY KEY)")?;
    Ok(())
}

/// Rows that writers were told are committed, and when the last one was.
struct Writers<'a> {
    gateway: &'a Gateway,
    done: AtomicBool,
    acknowledged: Mutex<(BTreeSet<String>, Instant)>,
    /// Sessions that did not see what they had written.
    behind: Mutex<Vec<String>>,
}

impl Writers<'_> {
    fn count(&self) -> usize {
        self.acknowledged.lock().expect("no panic").0.len()
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
                    None => self.gateway.client("p")?,
                };
                let client = client.insert(made);
                client.run(&format!("INSERT INTO t VALUES ('{value}')"))?;
                let mut acknowledged = self.acknowledged.lock().expect("no panic");
                acknowledged.0.insert(value.clone());
                acknowledged.1 = Instant::now();
                drop(acknowledged);
                let seen = client.run(&format!("SELECT v FROM t WHERE v = '{value}'"))?;
                if seen.value() != Some(&value) {
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

    /// Waits for writes that begin after now.
    fn resume(&self, limit: Duration) -> Result<Duration> {
        let begun = Instant::now();
        let before = self.count();
        wait_until(limit, "writes to go on", || {
            Ok((self.count() > before + 16).then_some(begun.elapsed()))
        })
    }
}

#[test]
fn no_acknowledged_write_is_lost_by_a_promotion() -> Result<()> {
    let mut cluster = cluster(Some(1))?;
    prepare(&cluster)?;
    let gateway = Gateway::over(&cluster, "p", Extra::default())?;
    let writers = Writers {
        gateway: &gateway,
        done: AtomicBool::new(false),
        acknowledged: Mutex::new((BTreeSet::new(), Instant::now())),
        behind: Mutex::default(),
    };
    thread::scope(|scope| {
        let writers = &writers;
        for number in 0..8 {
            scope.spawn(move || writers.write(number));
        }
        let worked = promote_under(&mut cluster, &gateway, writers);
        writers.done.store(true, Ordering::Relaxed);
        worked
    })?;
    let present = cluster.standby(1).query("p", "SELECT v FROM t")?;
    let present: BTreeSet<&str> = present.lines().collect();
    let acknowledged = writers.acknowledged.lock().expect("no panic");
    let lost: Vec<&String> = acknowledged
        .0
        .iter()
        .filter(|it| !present.contains(it.as_str()))
        .collect();
    println!("{} rows were acknowledged", acknowledged.0.len());
    ensure!(lost.is_empty(), "{} rows are lost: {lost:?}", lost.len());
    let behind = writers.behind.lock().expect("no panic");
    ensure!(behind.is_empty(), "sessions did not see {behind:?}");
    Ok(())
}

fn promote_under(
    cluster: &mut PostgresCluster,
    gateway: &Gateway,
    writers: &Writers<'_>,
) -> Result<()> {
    writers.resume(LIMIT).context("at the start")?;
    cluster.server_mut(0).kill9();
    cluster.promote(1)?;
    // It waits for nobody: it was told so only by the primary it followed.
    let took = writers
        .resume(Duration::from_secs(5))
        .context("after the promotion")?;
    println!("writes went on after {took:?}");
    // The old primary is back, on the old timeline, and takes writes; nobody asks it for any.
    let alone = "ALTER SYSTEM RESET synchronous_standby_names";
    cluster.server_mut(0).restart_same_port()?;
    cluster.primary().query("postgres", alone)?;
    thread::sleep(Duration::from_secs(2));
    writers
        .resume(Duration::from_secs(5))
        .context("beside the old primary")?;
    let log = gateway.breccia.log();
    let told = log.lines().any(|line| {
        line.contains("set aside") && line.contains("pg0") && line.contains("older timeline")
    });
    ensure!(told, "nothing says that pg0 is set aside");
    Ok(())
}

#[test]
fn of_two_claimants_neither_is_written_to() -> Result<()> {
    let mut cluster = cluster(None)?;
    prepare(&cluster)?;
    // Both go on on timelines that the gateway, which begins now, cannot tell apart.
    cluster.promote(1)?;
    cluster.promote(2)?;
    cluster.server_mut(0).kill9();
    let gateway = Gateway::unready(&cluster)?;
    let write = || -> Result<String> {
        let reply = gateway
            .client("p")?
            .simple("INSERT INTO t VALUES ('claimed')")?;
        Ok(reply.code().to_owned())
    };
    let refused = || write().unwrap_or_else(|error| format!("{error:#}"));
    wait_until(LIMIT, "both to be known", || {
        let log = gateway.breccia.log();
        Ok(log.contains("all claim to be the primary").then_some(()))
    })?;
    for _ in 0..5 {
        let answer = refused();
        assert!(answer.contains("57P03"), "{answer:?}");
    }
    cluster.server_mut(2).kill9();
    let begun = Instant::now();
    wait_until(LIMIT, "a write on the one that is left", || {
        Ok(write().is_ok_and(|code| code.is_empty()).then_some(()))
    })?;
    println!("written after {:?}", begun.elapsed());
    let count = cluster.standby(1).query("p", "SELECT count(*) FROM t")?;
    assert_eq!(count.trim(), "1");
    Ok(())
}

#[test]
fn a_primary_that_is_live_beside_a_promoted_standby_is_left() -> Result<()> {
    // Both claim, yet the timelines tell which one is newer once it was followed.
    let cluster = cluster(None)?;
    prepare(&cluster)?;
    let gateway = Gateway::over(&cluster, "p", Extra::default())?;
    gateway
        .client("p")?
        .run("INSERT INTO t VALUES ('before')")?;
    cluster.wait_caught_up(LIMIT)?;
    cluster.promote(2)?;
    thread::sleep(Duration::from_secs(2));
    // Refused, or on one of the two alone: never on both.
    for round in 0..20 {
        let write = format!("INSERT INTO t VALUES ('after {round}')");
        let _refused = gateway
            .client("p")
            .and_then(|mut client| client.run(&write));
    }
    let count = |number: usize| -> Result<u32> {
        let sql = "SELECT count(*) FROM t WHERE v LIKE 'after%'";
        Ok(cluster.server(number).query("p", sql)?.trim().parse()?)
    };
    let (old, new) = (count(0)?, count(2)?);
    ensure!(
        old == 0 || new == 0,
        "{old} rows on one and {new} on the other"
    );
    ensure!(old == 0, "two live claimants, and {old} writes were taken");
    Ok(())
}
