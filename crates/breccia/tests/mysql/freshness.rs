//! Reads over replicas that lag.
//!
//! Not how positions are compared, which is tested beside that code. Invariant: a read that a session
//! may not have is stale here by the rows it shows, whatever the gateway says of it.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};
use breccia_testkit::{MariaDbCluster, MyClient, MyValue};

use crate::rig::{Dice, Extra, Gateway, LIMIT, cluster, fresh, together};

/// One test at a time: each sets delays of the same replicas.
static TURN: Mutex<()> = Mutex::new(());

/// A cluster whose replicas are held back as a test wants.
fn slow() -> Result<(Arc<MariaDbCluster>, MutexGuard<'static, ()>)> {
    static SHARED: Mutex<Weak<MariaDbCluster>> = Mutex::new(Weak::new());
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    let present = shared.upgrade();
    let made = present.map_or_else(|| cluster().map(Arc::new), Ok)?;
    *shared = Arc::downgrade(&made);
    drop(shared);
    Ok((made, TURN.lock().unwrap_or_else(PoisonError::into_inner)))
}

/// Makes a database with a table, and no delays.
fn prepare(cluster: &MariaDbCluster, database: &str) -> Result<()> {
    for number in [1, 2] {
        cluster.set_delay(number, 0)?;
        cluster.resume_replay(number)?;
    }
    fresh(cluster, database)?;
    let table = format!(
        "CREATE TABLE {database}.t (id int AUTO_INCREMENT PRIMARY KEY, v varchar(40), KEY (v))"
    );
    cluster.query(0, &table)?;
    cluster.wait_caught_up(LIMIT)
}

/// While it lives, the SQL thread of a replica stops and goes on every 50 ms.
struct Stutter(Arc<AtomicBool>, Option<thread::JoinHandle<Result<()>>>);

impl Stutter {
    fn begin(cluster: &MariaDbCluster, number: usize) -> Result<Stutter> {
        let end = Arc::new(AtomicBool::new(false));
        let mut replica = MyClient::connect(cluster.server(number).port(), "")?;
        let told = Arc::clone(&end);
        let work = move || {
            while !told.load(Ordering::Relaxed) {
                for sql in ["STOP SLAVE SQL_THREAD", "START SLAVE SQL_THREAD"] {
                    replica.run(sql)?;
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
fn sees(client: &mut MyClient, value: &str, binary: bool) -> Result<bool> {
    let reply = if binary {
        let value = [MyValue::Bytes(value.as_bytes())];
        client.once("SELECT v FROM t WHERE v = ?", &value)?.good()?
    } else {
        client.run(&format!("SELECT v FROM t WHERE v = '{value}'"))?
    };
    Ok(reply.text().as_deref() == Some(value))
}

fn insert(client: &mut MyClient, value: &str, how: usize) -> Result<()> {
    match how % 4 {
        0 => {
            let value = [MyValue::Bytes(value.as_bytes())];
            client
                .once("INSERT INTO t (v) VALUES (?)", &value)?
                .good()?;
        }
        1 => {
            client.run(&format!(
                "INSERT INTO t (v) VALUES ('{value}') RETURNING id"
            ))?;
        }
        2 => {
            client.run("BEGIN")?;
            client.run(&format!("INSERT INTO t (v) VALUES ('{value}')"))?;
            client.run("COMMIT")?;
        }
        _ => {
            client.run(&format!("INSERT INTO t (v) VALUES ('{value}')"))?;
        }
    }
    Ok(())
}

/// Sessions that write and read at the same time.
const WRITERS: usize = 5;

/// One session's rounds; how many of its reads were stale.
fn write_and_read(client: &mut MyClient, name: &str, rounds: usize) -> Result<usize> {
    let mut stale = 0;
    for round in 0..rounds {
        let value = format!("{name} {round}");
        insert(client, &value, round)?;
        stale += usize::from(!sees(client, &value, round % 8 < 4)?);
        if round % 20 == 0 {
            thread::sleep(Duration::from_millis(25));
            stale += usize::from(!sees(client, &value, round % 40 == 0)?);
        }
    }
    Ok(stale)
}

/// So many rounds of each session: the stale reads, those on replicas, and all.
fn rounds(gateway: &Gateway, database: &str, each: usize) -> Result<(usize, f64, usize)> {
    let (stale, before) = (AtomicUsize::new(0), gateway.replica_reads()?);
    together(WRITERS, |number| {
        let mut client = gateway.client(database)?;
        let found = write_and_read(&mut client, &format!("row {number}"), each)?;
        stale.fetch_add(found, Ordering::Relaxed);
        Ok(())
    })?;
    let all = WRITERS * each * 21 / 20;
    let reads = gateway.replica_reads()? - before;
    println!("{reads} of {all} reads on replicas");
    Ok((stale.into_inner(), reads, all))
}

#[test]
fn sessions_read_their_own_writes_ten_thousand_times_beside_a_delayed_replica() -> Result<()> {
    let (cluster, _turn) = slow()?;
    prepare(&cluster, "own")?;
    let extra = Extra {
        composite: "replica-wait = \"100ms\"",
        ..Extra::default()
    };
    let gateway = Gateway::over(&cluster, extra)?;
    cluster.set_delay(2, 1)?;
    let (stale, reads, all) = rounds(&gateway, "own", 2_000)?;
    cluster.set_delay(2, 0)?;
    ensure!(stale == 0, "{stale} of {all} reads were stale");
    // The other replica is not delayed, so most reads are its.
    ensure!(reads > 5_000.0, "only {reads} of {all} reads on replicas");
    Ok(())
}

#[test]
fn sessions_read_their_own_writes_while_a_replica_stands_and_the_other_stutters() -> Result<()> {
    let (cluster, _turn) = slow()?;
    prepare(&cluster, "stands")?;
    let gateway = Gateway::over(&cluster, Extra::default())?;
    cluster.pause_replay(2)?;
    let stutter = Stutter::begin(&cluster, 1)?;
    let rounds = rounds(&gateway, "stands", 500);
    drop(stutter);
    cluster.resume_replay(2)?;
    let (stale, reads, all) = rounds?;
    ensure!(stale == 0, "{stale} of {all} reads were stale");
    ensure!(reads > 25.0, "only {reads} reads on replicas");
    Ok(())
}

#[test]
fn what_eventual_consistency_shows_is_stale() -> Result<()> {
    let (cluster, _turn) = slow()?;
    prepare(&cluster, "eventual")?;
    let extra = Extra {
        composite: "consistency = \"eventual\"",
        ..Extra::default()
    };
    let gateway = Gateway::over(&cluster, extra)?;
    cluster.set_delay(1, 1)?;
    cluster.set_delay(2, 1)?;
    let (mut client, mut stale) = (gateway.client("eventual")?, 0);
    for round in 0..100 {
        let value = format!("row {round}");
        insert(&mut client, &value, 3)?;
        stale += u32::from(!sees(&mut client, &value, false)?);
    }
    ensure!(
        stale > 50,
        "the delays of this file hide {stale} of 100 writes only"
    );
    Ok(())
}

#[test]
fn a_token_carries_what_a_session_has_seen_to_other_sessions_and_gateways() -> Result<()> {
    let (cluster, _turn) = slow()?;
    prepare(&cluster, "token")?;
    let gateway = Gateway::over(&cluster, Extra::default())?;
    let other = Gateway::over(&cluster, Extra::default())?;
    cluster.set_delay(2, 1)?;
    let stutter = Stutter::begin(&cluster, 1)?;
    let mut writer = gateway.client("token")?;
    let before = gateway.replica_reads()? + other.replica_reads()?;
    let mut stale = 0;
    for round in 0..200 {
        let value = format!("row {round}");
        insert(&mut writer, &value, round)?;
        let token = writer.value("SHOW breccia.token")?;
        let readers = if round % 2 == 0 { &gateway } else { &other };
        let mut reader = readers.client("token")?;
        reader.run(&format!("SET breccia.token = '{token}'"))?;
        stale += u32::from(!sees(&mut reader, &value, round % 3 == 0)?);
        if round % 5 == 0 {
            thread::sleep(Duration::from_millis(60));
            stale += u32::from(!sees(&mut reader, &value, false)?);
        }
    }
    drop(stutter);
    let reads = gateway.replica_reads()? + other.replica_reads()? - before;
    println!("{reads} of 240 reads on replicas");
    ensure!(stale == 0, "{stale} of 240 reads were stale");
    ensure!(reads > 5.0, "only {reads} reads on replicas");
    Ok(())
}

/// A text that writes, and then shows what somebody else has written meanwhile, is answered; whether its
/// session still sees that.
fn goes_on_from(
    cluster: &MariaDbCluster,
    gateway: &Gateway,
    sql: &str,
    round: usize,
) -> Result<()> {
    let (own, other) = (format!("own {round}"), format!("other {round}"));
    let sql = sql.replace("OWN", &own).replace("OTHER", &other);
    let mut client = gateway.client("several")?;
    std::thread::scope(|scope| {
        let answered = scope.spawn(|| client.run(&sql));
        for number in [1, 2] {
            let seen = format!("SELECT COUNT(*) FROM several.t WHERE v = '{own}'");
            breccia_testkit::wait_until(LIMIT, "the write on a replica", || {
                Ok((cluster.query(number, &seen)?.trim() == "1").then_some(()))
            })?;
            cluster.pause_replay(number)?;
        }
        cluster.query(0, &format!("INSERT INTO several.t (v) VALUES ('{other}')"))?;
        let shown = answered.join().expect("a client without panic")?;
        let mut rows = shown.results.iter().flat_map(|it| &it.rows).flatten();
        let seen = rows.any(|cell| cell.as_deref() == Some(other.as_bytes()));
        ensure!(seen, "{sql} did not show the other's row");
        Ok(())
    })?;
    ensure!(sees(&mut client, &other, false)?, "lost after {sql}");
    let token = client.value("SHOW breccia.token")?;
    let mut reader = gateway.client("several")?;
    reader.run(&format!("SET breccia.token = '{token}'"))?;
    ensure!(
        sees(&mut reader, &other, true)?,
        "not in the token of {sql}"
    );
    for number in [1, 2] {
        cluster.resume_replay(number)?;
    }
    cluster.wait_caught_up(LIMIT)
}

#[test]
fn what_a_text_shows_behind_its_write_is_not_unseen_again() -> Result<()> {
    let (cluster, _turn) = slow()?;
    prepare(&cluster, "several")?;
    let mut primary = MyClient::connect(cluster.primary().port(), "several")?;
    primary.run(
        "CREATE PROCEDURE waits(other varchar(40)) \
         REPEAT DO SLEEP(0.02); UNTIL EXISTS (SELECT 1 FROM t WHERE v = other) END REPEAT",
    )?;
    primary.run(
        "CREATE PROCEDURE shows(own varchar(40), other varchar(40)) BEGIN \
         INSERT INTO t (v) VALUES (own); CALL waits(other); SELECT v FROM t WHERE v = other; END",
    )?;
    cluster.wait_caught_up(LIMIT)?;
    let gateway = Gateway::over(&cluster, Extra::default())?;
    let texts = [
        "INSERT INTO t (v) VALUES ('OWN'); CALL waits('OTHER'); SELECT v FROM t WHERE v = 'OTHER'",
        "CALL shows('OWN', 'OTHER')",
    ];
    for (round, sql) in texts.into_iter().enumerate() {
        goes_on_from(&cluster, &gateway, sql, round)?;
    }
    Ok(())
}

#[test]
fn tokens_of_others_and_nonsense_do_no_harm() -> Result<()> {
    let (cluster, _turn) = slow()?;
    prepare(&cluster, "outside")?;
    let gateway = Gateway::over(&cluster, Extra::default())?;
    let mut client = gateway.client("outside")?;
    let token = client.value("SHOW breccia.token")?;
    println!("a token: {token}");
    for nonsense in [
        "",
        "nonsense",
        "0-1",
        "0-1-x",
        "mariadb:0-1-99999999999999999999999",
    ] {
        let reply = client.query(&format!("SET breccia.token = '{nonsense}'"))?;
        ensure!(
            reply.code() == 1193 || nonsense.is_empty(),
            "{nonsense:?}: {reply:?}"
        );
    }
    insert(&mut client, "still here", 3)?;
    ensure!(sees(&mut client, "still here", false)?, "after nonsense");
    // A position nobody has reached: the primary answers what it has.
    let ahead = token.replace("0-1-", "0-1-9");
    client.run(&format!("SET breccia.token = '{ahead}'"))?;
    ensure!(
        sees(&mut client, "still here", false)?,
        "after a token from the future"
    );
    let target = client.value("SHOW breccia.server")?;
    ensure!(
        target == "my0",
        "a read after a token from the future was on {target}"
    );
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
    let gateway = Gateway::over(&cluster, extra)?;
    let other = Gateway::over(&cluster, Extra::default())?;
    cluster.set_delay(2, 1)?;
    let stutter = Stutter::begin(&cluster, 1)?;
    let mut writers = [
        MyClient::connect(cluster.primary().port(), "store")?,
        other.client("store")?,
    ];
    let (mut client, before) = (gateway.client("store")?, gateway.replica_reads()?);
    let mut stale = 0;
    for round in 0..500 {
        let value = format!("row {round}");
        let writer = writers.get_mut(round % 2).expect("one of two");
        insert(writer, &value, round)?;
        stale += u32::from(!sees(&mut client, &value, round % 4 < 2)?);
    }
    drop(stutter);
    let reads = gateway.replica_reads()? - before;
    println!("{reads} of 500 reads on replicas");
    ensure!(stale == 0, "{stale} of 500 reads were stale");
    ensure!(reads > 5.0, "only {reads} reads on replicas");
    Ok(())
}

/// A session's reads of a number that only grows; how often it went back.
fn read_on(gateway: &Gateway, seed: u64) -> Result<u32> {
    let mut dice = Dice::new(seed);
    let (mut client, mut last, mut back) = (gateway.client("monotonic")?, 0, 0);
    for _ in 0..1_000 {
        let hint = if dice.roll(20) == 0 {
            "/* breccia: primary */"
        } else {
            ""
        };
        let sql = format!("SELECT n FROM c {hint}");
        let reply = if dice.roll(2) == 0 {
            client.once(&sql, &[])?.good()?
        } else {
            client.run(&sql)?
        };
        let now: i64 = reply.text().unwrap_or_default().parse()?;
        back += u32::from(now < last);
        last = now;
        if dice.roll(10) == 0 {
            thread::sleep(Duration::from_millis(dice.roll(30)));
        }
    }
    Ok(back)
}

#[test]
fn what_a_session_reads_never_goes_back() -> Result<()> {
    let (cluster, _turn) = slow()?;
    prepare(&cluster, "monotonic")?;
    let table = "CREATE TABLE monotonic.c (n int); INSERT INTO monotonic.c VALUES (0)";
    cluster.query(0, table)?;
    let gateway = Gateway::over(&cluster, Extra::default())?;
    let stutters = [Stutter::begin(&cluster, 1)?, Stutter::begin(&cluster, 2)?];
    let (before, done) = (gateway.replica_reads()?, AtomicBool::new(false));
    let (back, readers) = (AtomicUsize::new(0), 4);
    let left = AtomicUsize::new(readers);
    let outcome = together(readers + 1, |number| {
        if number < readers {
            let went = read_on(&gateway, 977 * (number as u64 + 1));
            if left.fetch_sub(1, Ordering::Relaxed) == 1 {
                done.store(true, Ordering::Relaxed);
            }
            back.fetch_add(usize::try_from(went?)?, Ordering::Relaxed);
            return Ok(());
        }
        let mut writer = MyClient::connect(cluster.primary().port(), "monotonic")?;
        while !done.load(Ordering::Relaxed) {
            writer.run("UPDATE c SET n = n + 1")?;
            thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    });
    drop(stutters);
    outcome?;
    let (back, reads) = (back.into_inner(), gateway.replica_reads()? - before);
    println!("{reads} of 4000 reads on replicas");
    ensure!(back == 0, "{back} of 4000 reads went back");
    ensure!(reads > 20.0, "only {reads} reads on replicas");
    Ok(())
}

#[test]
fn a_replica_that_lags_too_much_serves_nothing() -> Result<()> {
    let (cluster, _turn) = slow()?;
    prepare(&cluster, "lagging")?;
    let extra = Extra {
        composite: "consistency = \"eventual\"\nmax-lag = \"1s\"",
        ..Extra::default()
    };
    let gateway = Gateway::over(&cluster, extra)?;
    cluster.pause_replay(1)?;
    cluster.pause_replay(2)?;
    let mut client = gateway.client("lagging")?;
    insert(&mut client, "late", 3)?;
    breccia_testkit::wait_until(LIMIT, "reads to leave replicas that lag", || {
        client.run("SELECT 1")?;
        Ok((client.value("SHOW breccia.server")? == "my0").then_some(()))
    })?;
    ensure!(
        sees(&mut client, "late", false)?,
        "the primary has what it was told"
    );
    cluster.resume_replay(1)?;
    cluster.resume_replay(2)?;
    breccia_testkit::wait_until(LIMIT, "reads to come back", || {
        client.run("SELECT 1")?;
        Ok((client.value("SHOW breccia.server")? != "my0").then_some(()))
    })
}

#[test]
fn a_cursor_from_before_a_write_hides_it_from_no_later_read() -> Result<()> {
    let (cluster, _turn) = slow()?;
    prepare(&cluster, "oldcursor")?;
    cluster.query(0, "INSERT INTO oldcursor.t (v) VALUES ('a'), ('b'), ('c')")?;
    cluster.wait_caught_up(LIMIT)?;
    let gateway = Gateway::over(&cluster, Extra::default())?;
    gateway.wait_reads(&cluster)?;
    let mut client = gateway.client("oldcursor")?;
    let select = client.prepare("SELECT id FROM t ORDER BY id")?;
    let select = select.map_err(|reply| anyhow::anyhow!("{:?}", reply.fault))?;
    let primary = cluster.query(0, "SELECT @@server_id")?;
    client.run("START TRANSACTION READ ONLY")?;
    client.run("SELECT COUNT(*) FROM t")?;
    let server = client.value("SELECT @@server_id")?;
    ensure!(server != primary.trim(), "not on a replica");
    client.execute_as(select.id, &[], 1, true)?.good()?;
    client.run("COMMIT")?;
    for replica in [1, 2] {
        cluster.pause_replay(replica)?;
    }
    client.run("INSERT INTO t (v) VALUES ('d')")?;
    client.fetch(select.id, 1)?.good()?;
    client.reset_statement(select.id)?.good()?;
    for _ in 0..3 {
        let count = client.value("SELECT COUNT(*) FROM t")?;
        ensure!(count == "4", "{count} rows instead of 4");
    }
    for replica in [1, 2] {
        cluster.resume_replay(replica)?;
    }
    Ok(())
}
