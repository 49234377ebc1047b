//! Standbys that die, freeze or stand alone, while clients read.
//!
//! Not promotions (`promotion.rs`). Invariant: a client here sees no error that it could have been
//! spared, and none waits longer than it must.

use std::io::Write as _;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use breccia_testkit::{PostgresCluster, SqlClient, wait_until};

use crate::rig::{Extra, Gateway, LIMIT, cluster};

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
        client
            .parse("p", "SELECT v FROM t WHERE id = $1::int")
            .sync()
            .ask()?
            .good()?;
        while !self.done.load(Ordering::Relaxed) {
            let begun = Instant::now();
            let reply = match number % 3 {
                0 => client.simple("SELECT v FROM t WHERE id = 7")?,
                1 => client.extended("SELECT v FROM t WHERE id = $1::int", &["7"])?,
                _ => client.bind("p", &["7"]).execute().sync().ask()?,
            };
            ensure!(reply.good()?.value() == Some("row 7"), "another row");
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

pub(crate) fn prepare(cluster: &PostgresCluster) -> Result<()> {
    cluster.primary().create_database("faults")?;
    let table = "CREATE TABLE t (id serial PRIMARY KEY, v text)";
    cluster.primary().query("faults", table)?;
    let rows = "INSERT INTO t (v) SELECT 'row ' || i FROM generate_series(1, 100) i";
    cluster.primary().query("faults", rows)?;
    Ok(())
}

/// Reads until a replica has answered.
fn read_on_a_replica(gateway: &Gateway, client: &mut SqlClient) -> Result<()> {
    wait_until(LIMIT, "a read on a replica", || {
        let before = gateway.replica_reads()?;
        client.run("SELECT v FROM t WHERE id = 7")?;
        Ok((gateway.replica_reads()? > before).then_some(()))
    })
}

/// How often a row was asked of this server: 7 by sessions that are there all the time, 8 by new ones.
fn asked(cluster: &PostgresCluster, number: usize, row: u32) -> usize {
    let log = cluster.server(number).log();
    log.matches(&format!("WHERE id = {row}")).count()
}

/// Sessions that read all the time do it on a standby again that was not there for a while.
fn has_its_share_again(cluster: &PostgresCluster, number: usize) -> Result<()> {
    let before = asked(cluster, number, 7);
    wait_until(
        LIMIT,
        &format!("older sessions on standby {number}"),
        || Ok((asked(cluster, number, 7) > before + 100).then_some(())),
    )
}

/// A standby that answered nothing for a while answers new sessions; older ones may still be elsewhere.
fn serves_again(cluster: &PostgresCluster, gateway: &Gateway, number: usize) -> Result<()> {
    let before = asked(cluster, number, 8);
    let what = format!("reads on standby {number}");
    wait_until(LIMIT, &what, || {
        gateway
            .client("faults")?
            .run("SELECT v FROM t WHERE id = 8")?;
        Ok((asked(cluster, number, 8) > before).then_some(()))
    })
}

#[test]
fn a_killed_or_frozen_standby_costs_no_client_an_error() -> Result<()> {
    let mut cluster = cluster(None)?;
    prepare(&cluster)?;
    let extra = Extra {
        server: "timeout = \"3s\"",
        ..Extra::default()
    };
    let gateway = Gateway::over(&cluster, "faults", extra)?;
    let readers = Readers::new(&gateway);
    readers.during(|| {
        cluster.server_mut(1).kill9();
        thread::sleep(Duration::from_millis(1_500));
        cluster.server_mut(1).restart_same_port()?;
        has_its_share_again(&cluster, 1)?;
        serves_again(&cluster, &gateway, 1)
    })?;
    println!(
        "killed: {:?} reads, longest {:?} ms",
        readers.reads, readers.longest_ms
    );
    let readers = Readers::new(&gateway);
    readers.during(|| {
        cluster.server_mut(2).freeze_all()?;
        thread::sleep(Duration::from_secs(6));
        cluster.server_mut(2).thaw_all()?;
        serves_again(&cluster, &gateway, 2)
    })?;
    let longest = readers.longest_ms.load(Ordering::Relaxed);
    println!("frozen: {:?} reads, longest {longest} ms", readers.reads);
    ensure!(longest < 8_000, "a read took {longest} ms");
    Ok(())
}

#[test]
fn reads_go_on_without_a_primary_and_writes_are_refused() -> Result<()> {
    let mut cluster = cluster(None)?;
    prepare(&cluster)?;
    let gateway = Gateway::over(&cluster, "faults", Extra::default())?;
    let mut early = gateway.client("faults")?;
    // Until its last read was a replica's: one that the primary served could not be followed.
    read_on_a_replica(&gateway, &mut early)?;
    cluster.server_mut(0).kill9();
    thread::sleep(Duration::from_millis(1_500));
    let mut late = gateway.client("faults")?;
    for client in [&mut early, &mut late] {
        let begun = Instant::now();
        for _ in 0..20 {
            let found = client.run("SELECT v FROM t WHERE id = 7")?;
            assert_eq!(found.value(), Some("row 7"));
        }
        assert!(
            begun.elapsed() < Duration::from_secs(3),
            "{:?}",
            begun.elapsed()
        );
    }
    let begun = Instant::now();
    let code = match gateway
        .client("faults")?
        .simple("INSERT INTO t (v) VALUES ('x')")
    {
        Ok(reply) => reply.code().to_owned(),
        Err(error) => error.to_string(),
    };
    let told = gateway
        .client("faults")?
        .run("SHOW breccia.primary")?
        .value()
        .map(str::to_owned);
    assert_eq!(told.as_deref(), Some(""), "nobody takes writes now");
    let retryable = ["57P03", "08006", "57P01"]
        .iter()
        .any(|it| code.contains(it));
    assert!(retryable, "{code:?}");
    assert!(
        begun.elapsed() < Duration::from_secs(3),
        "at once: {:?}",
        begun.elapsed()
    );
    cluster.server_mut(0).restart_same_port()?;
    wait_until(LIMIT, "a write on the primary that is back", || {
        let write = || {
            gateway
                .client("faults")?
                .run("INSERT INTO t (v) VALUES ('back')")
        };
        Ok(write().is_ok().then_some(()))
    })
}

#[test]
fn a_session_reads_on_without_a_primary_over_connections_that_are_new() -> Result<()> {
    let mut cluster = cluster(None)?;
    prepare(&cluster)?;
    let gateway = Gateway::over(&cluster, "faults", Extra::default())?;
    let mut client = gateway.client("faults")?;
    read_on_a_replica(&gateway, &mut client)?;
    cluster.server_mut(0).kill9();
    thread::sleep(Duration::from_millis(1_500));
    let cut = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
               WHERE datname = 'faults'";
    let cut = [1, 2].map(|number| cluster.standby(number).query("postgres", cut));
    ensure!(cut.iter().all(Result::is_ok), "{cut:?}");
    for _ in 0..5 {
        let found = client.run("SELECT v FROM t WHERE id = 7")?;
        ensure!(found.value() == Some("row 7"), "{found:?}");
    }
    Ok(())
}

#[test]
fn an_honest_error_ends_a_result_that_was_cut() -> Result<()> {
    let mut cluster = cluster(None)?;
    prepare(&cluster)?;
    let gateway = Gateway::over(&cluster, "faults", Extra::default())?;
    let mut client = gateway.client("faults")?;
    let big = "SELECT i, repeat('x', 500) FROM generate_series(1, 200000) i /* cut */";
    client.query(big).flush()?;
    let mut rows = 0_u32;
    // Some rows have come: now nothing but an error may end the result.
    while rows < 1_000 {
        let (kind, _) = client.read_frame()?;
        rows += u32::from(kind == b'D');
    }
    // Whichever it came from, and wherever it might be run again.
    (0..3).for_each(|number| cluster.server_mut(number).kill9());
    let mut fault = false;
    loop {
        match client.read_frame() {
            Ok((b'D', _)) => rows += 1,
            Ok((b'E', _)) => fault = true,
            Ok((b'C' | b'Z', _)) | Err(_) => break,
            Ok(_) => {}
        }
    }
    let on_primary = cluster.primary().log().contains("/* cut */");
    println!("{rows} rows, on the primary: {on_primary}");
    ensure!(rows < 200_000 && fault, "{rows} rows, an error: {fault}");
    Ok(())
}

#[test]
fn a_client_that_is_silent_amid_a_long_message_keeps_no_connection() -> Result<()> {
    let cluster = crate::rig::shared()?;
    let extra = Extra {
        listener: "pool-size = 1\nqueue-timeout = \"15s\"\nidle-timeout = \"1500ms\"",
        ..Extra::default()
    };
    let gateway = Gateway::over(&cluster, "postgres", extra)?;
    let client = gateway.client("postgres")?;
    // A query of three mebibytes, of which one comes.
    let mut start = vec![b'Q', 0, 0x30, 0, 0];
    start.extend_from_slice(b"SELECT 1 FOR UPDATE -- ");
    start.resize(0x0010_0000, b'x');
    client.raw()?.write_all(&start)?;
    let mut other = gateway.client("postgres")?;
    let reply = other.simple("SELECT 2 FOR UPDATE")?;
    ensure!(reply.good()?.value() == Some("2"), "another client");
    Ok(())
}
