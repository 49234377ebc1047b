//! No session reads less than it is promised, however far the standbys are behind.
//!
//! Not how fast a position is known. Invariant: a test that asks for 0 stale reads also sees reads
//! on replicas, so a gateway that asks the primary for everything passes none.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use breccia_testkit::{PostgresCluster, SqlClient, SqlReply};

use crate::rig::{Extra, Gateway, cluster};

/// One test at a time: each sets delays of the same standbys.
static TURN: Mutex<()> = Mutex::new(());

/// A cluster whose standbys are held back as a test wants.
pub(crate) fn slow() -> Result<(Arc<PostgresCluster>, MutexGuard<'static, ()>)> {
    static SHARED: Mutex<Weak<PostgresCluster>> = Mutex::new(Weak::new());
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    let present = shared.upgrade();
    let made = present.map_or_else(|| cluster(None).map(Arc::new), Ok)?;
    *shared = Arc::downgrade(&made);
    drop(shared);
    Ok((made, TURN.lock().unwrap_or_else(PoisonError::into_inner)))
}

/// Makes a database with a table, and no delays.
pub(crate) fn prepare(cluster: &PostgresCluster, database: &str) -> Result<()> {
    for number in [1, 2] {
        cluster.resume_replay(number)?;
        cluster.set_delay(number, 0)?;
    }
    cluster.primary().create_database(database)?;
    let table = "CREATE TABLE t (id serial PRIMARY KEY, v text)";
    cluster.primary().query(database, table)?;
    Ok(())
}

/// While it lives, the replay of standby 1 stops and goes on every 50 ms.
struct Stutter(Arc<AtomicBool>, Option<thread::JoinHandle<Result<()>>>);

impl Stutter {
    fn begin(cluster: &PostgresCluster) -> Result<Stutter> {
        let end = Arc::new(AtomicBool::new(false));
        let mut standby = SqlClient::connect(cluster.standby(1).port(), "postgres")?;
        let told = Arc::clone(&end);
        let work = move || {
            while !told.load(Ordering::Relaxed) {
                for sql in [
                    "SELECT pg_wal_replay_pause()",
                    "SELECT pg_wal_replay_resume()",
                ] {
                    standby.run(sql)?;
                    thread::sleep(Duration::from_millis(50));
                }
            }
            Ok(())
        };
        Ok(Stutter(end, Some(thread::spawn(work))))
    }
}

impl Drop for Stutter {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
        if let Some(thread) = self.1.take() {
            let _ended = thread.join();
        }
    }
}

/// Whether a row is seen.
fn sees(client: &mut SqlClient, value: &str, extended: bool) -> Result<bool> {
    let reply = if extended {
        client
            .extended("SELECT v FROM t WHERE v = $1", &[value])?
            .good()?
    } else {
        client.run(&format!("SELECT v FROM t WHERE v = '{value}'"))?
    };
    Ok(reply.value() == Some(value))
}

fn insert(client: &mut SqlClient, value: &str, extended: bool) -> Result<()> {
    if extended {
        client
            .extended("INSERT INTO t (v) VALUES ($1)", &[value])?
            .good()?;
    } else {
        client.run(&format!("INSERT INTO t (v) VALUES ('{value}')"))?;
    }
    Ok(())
}

/// Sessions that write and read at the same time, and the rounds of each.
const WRITERS: usize = 5;
const ROUNDS: usize = 2_000;

/// One session's rounds; how many of its reads were stale.
fn write_and_read(client: &mut SqlClient, name: &str) -> Result<usize> {
    let mut stale = 0;
    for round in 0..ROUNDS {
        let (value, extended) = (format!("{name} {round}"), round % 2 == 0);
        if round % 3 == 0 {
            client.run("BEGIN")?;
            insert(client, &value, extended)?;
            client.run("COMMIT")?;
        } else {
            insert(client, &value, extended)?;
        }
        stale += usize::from(!sees(client, &value, round % 4 < 2)?);
        if round % 20 == 0 {
            thread::sleep(Duration::from_millis(25));
            stale += usize::from(!sees(client, &value, extended)?);
        }
    }
    Ok(stale)
}

#[test]
fn sessions_read_their_own_writes_ten_thousand_times() -> Result<()> {
    let (cluster, _turn) = slow()?;
    prepare(&cluster, "own")?;
    cluster.primary().query("own", "CREATE INDEX ON t (v)")?;
    let gateway = Gateway::over(&cluster, "own", Extra::default())?;
    cluster.set_delay(2, 20)?;
    let stutter = Stutter::begin(&cluster)?;
    let (stale, before) = (AtomicUsize::new(0), gateway.replica_reads()?);
    crate::pooling::together(WRITERS, |number| {
        let found = write_and_read(&mut gateway.client("own")?, &format!("row {number}"))?;
        stale.fetch_add(found, Ordering::Relaxed);
        Ok(())
    })?;
    drop(stutter);
    let (stale, all) = (stale.into_inner(), WRITERS * ROUNDS * 21 / 20);
    let reads = gateway.replica_reads()? - before;
    println!("{reads} of {all} reads on replicas");
    ensure!(stale == 0, "{stale} of {all} reads were stale");
    ensure!(reads > 100.0, "only {reads} reads on replicas");
    Ok(())
}

#[test]
fn what_eventual_consistency_shows_is_stale() -> Result<()> {
    let (cluster, _turn) = slow()?;
    prepare(&cluster, "eventual")?;
    let composite = "consistency = \"eventual\"";
    let extra = Extra {
        composite,
        ..Extra::default()
    };
    let gateway = Gateway::over(&cluster, "eventual", extra)?;
    cluster.set_delay(1, 30)?;
    cluster.set_delay(2, 30)?;
    let (mut client, mut stale) = (gateway.client("eventual")?, 0);
    for round in 0..100 {
        let value = format!("row {round}");
        insert(&mut client, &value, false)?;
        stale += u32::from(!sees(&mut client, &value, false)?);
    }
    ensure!(
        stale > 50,
        "the delays of this file hide {stale} of 100 writes only"
    );
    Ok(())
}

#[test]
fn a_token_carries_what_a_session_has_seen() -> Result<()> {
    let (cluster, _turn) = slow()?;
    prepare(&cluster, "token")?;
    let gateway = Gateway::over(&cluster, "token", Extra::default())?;
    cluster.set_delay(1, 15)?;
    cluster.set_delay(2, 20)?;
    let (mut writer, before) = (gateway.client("token")?, gateway.replica_reads()?);
    let mut stale = 0;
    for round in 0..200 {
        let value = format!("row {round}");
        insert(&mut writer, &value, round % 2 == 0)?;
        let token = writer.run("SHOW breccia.token")?;
        let token = token.value().unwrap_or_default().to_owned();
        ensure!(token.split(':').count() == 3, "a token is no {token:?}");
        let mut reader = gateway.client("token")?;
        reader.run(&format!("SET breccia.token = '{token}'"))?;
        stale += u32::from(!sees(&mut reader, &value, round % 3 == 0)?);
        if round % 10 == 0 {
            thread::sleep(Duration::from_millis(25));
            stale += u32::from(!sees(&mut reader, &value, false)?);
        }
    }
    let reads = gateway.replica_reads()? - before;
    ensure!(stale == 0, "{stale} of 220 reads were stale");
    ensure!(reads > 5.0, "only {reads} reads on replicas");
    let mut reader = gateway.client("token")?;
    assert_eq!(
        reader.simple("SET breccia.token = 'nonsense'")?.code(),
        "22023"
    );
    reader.run("SET breccia.token = '1:1:0/0'")?;
    reader.run("SELECT count(*) FROM t")?;
    Ok(())
}

#[test]
fn a_store_hides_no_commit_of_anybody() -> Result<()> {
    let (cluster, _turn) = slow()?;
    prepare(&cluster, "store")?;
    let extra = Extra {
        composite: "consistency = \"store\"",
        ..Extra::default()
    };
    let gateway = Gateway::over(&cluster, "store", extra)?;
    let other = Gateway::over(&cluster, "store", Extra::default())?;
    cluster.set_delay(2, 20)?;
    let stutter = Stutter::begin(&cluster)?;
    let mut writers = [
        SqlClient::connect(cluster.primary().port(), "store")?,
        other.client("store")?,
    ];
    let (mut client, before) = (gateway.client("store")?, gateway.replica_reads()?);
    let mut stale = 0;
    for round in 0..500 {
        let value = format!("row {round}");
        let writer = writers.get_mut(round % 2).expect("one of two");
        insert(writer, &value, false)?;
        stale += u32::from(!sees(&mut client, &value, round % 4 < 2)?);
    }
    drop(stutter);
    let reads = gateway.replica_reads()? - before;
    println!("{reads} of 500 reads on replicas");
    ensure!(stale == 0, "{stale} of 500 reads were stale");
    ensure!(reads > 5.0, "only {reads} reads on replicas");
    Ok(())
}

#[test]
fn what_a_session_reads_never_goes_back() -> Result<()> {
    let (cluster, _turn) = slow()?;
    prepare(&cluster, "monotonic")?;
    cluster.primary().query(
        "monotonic",
        "CREATE TABLE c (n int); INSERT INTO c VALUES (0)",
    )?;
    let gateway = Gateway::over(&cluster, "monotonic", Extra::default())?;
    cluster.set_delay(1, 5)?;
    cluster.set_delay(2, 60)?;
    let before = gateway.replica_reads()?;
    let done = AtomicBool::new(false);
    let writer = || -> Result<()> {
        let mut client = SqlClient::connect(cluster.primary().port(), "monotonic")?;
        client.run("SET synchronous_commit = off")?;
        while !done.load(Ordering::Relaxed) {
            client.run("UPDATE c SET n = n + 1").context("writing")?;
            thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    };
    let reader = &|seed: u64| -> Result<u32> {
        let mut dice = crate::rig::Dice::new(seed);
        let (mut client, mut last, mut back) = (gateway.client("monotonic")?, 0, 0);
        for _ in 0..1_000 {
            let hint = if dice.roll(20) == 0 {
                "/* breccia: primary */"
            } else {
                ""
            };
            let sql = format!("SELECT n FROM c {hint}");
            let extended = dice.roll(2) == 0;
            let reply = if extended {
                client.extended(&sql, &[])
            } else {
                client.simple(&sql)
            };
            let what = || format!("reading {sql:?}, extended: {extended}, after {last}");
            let reply = reply.and_then(SqlReply::good).with_context(what)?;
            let now: i64 = reply.value().unwrap_or("-1").parse()?;
            back += u32::from(now < last);
            last = now;
            if dice.roll(10) == 0 {
                thread::sleep(Duration::from_millis(dice.roll(30)));
            }
        }
        Ok(back)
    };
    let back = thread::scope(|scope| -> Result<u32> {
        let running = scope.spawn(writer);
        let readers: Vec<_> = (1..=4)
            .map(|seed| scope.spawn(move || reader(seed * 977)))
            .collect();
        let backs: Vec<Result<u32>> = readers
            .into_iter()
            .map(|it| it.join().expect("a reader"))
            .collect();
        done.store(true, Ordering::Relaxed);
        running.join().expect("the writer")?;
        backs.into_iter().sum()
    })?;
    let reads = gateway.replica_reads()? - before;
    println!("{reads} of 4000 reads on replicas");
    ensure!(back == 0, "{back} of 4000 reads went back");
    ensure!(reads > 20.0, "only {reads} reads on replicas");
    Ok(())
}
