//! Two hundred sessions of two roles over four connections to the primary, with clients that vanish
//! at any byte and a storm of requests to cancel: nobody finds anything of anybody else.
//!
//! Not what happens when servers fail. Invariant: the schedule of each session comes from a printed
//! seed; `BRECCIA_TEST_SEED` gives it again. `BRECCIA_TEST_STATEMENTS` says how many statements there
//! are, 100,000 by default.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use breccia_testkit::{PostgresCluster, SqlClient, send_cancel, wait_until};

use crate::load::quiet;
use crate::pooling::together;
use crate::rig::{Dice, Extra, Gateway, LIMIT};

#[path = "isolation_model.rs"]
mod model;

use model::{PATIENCE, ROLES, Session, World};

const DATABASE: &str = "isolation";
const SESSIONS: usize = 180;
/// Sessions beside those whose own requests to cancel are fired at any time.
const VICTIMS: usize = 20;
/// Connections of each role to each server.
const SIZE: u64 = 2;

const SETUP: [&str; 5] = [
    "CREATE TABLE t (id bigserial, own int, owner name NOT NULL DEFAULT current_user)",
    "CREATE INDEX ON t (own)",
    "ALTER TABLE t ENABLE ROW LEVEL SECURITY",
    "CREATE POLICY own_rows ON t USING (owner = current_user) WITH CHECK (owner = current_user)",
    "INSERT INTO t (own, owner) VALUES (0, 'alice'), (0, 'bob'), (0, 'nobody')",
];

fn prepare(cluster: &PostgresCluster) -> Result<String> {
    let primary = cluster.primary();
    primary.create_database(DATABASE)?;
    let mut users = String::new();
    for role in ROLES {
        let make = format!("CREATE ROLE {role} LOGIN PASSWORD '{}'", primary.password());
        primary.query(DATABASE, &make)?;
        write!(
            users,
            "[[listener.sql.user]]\nname = \"{role}\"\npassword = \"{0}\"\n\
             upstream-user = \"{role}\"\nupstream-password = \"{0}\"\n",
            primary.password()
        )?;
    }
    for sql in SETUP {
        primary.query(DATABASE, sql)?;
    }
    for role in ROLES {
        let grant = format!("GRANT ALL ON t TO {role}; GRANT ALL ON SEQUENCE t_id_seq TO {role}");
        primary.query(DATABASE, &grant)?;
    }
    Ok(users)
}

fn statements() -> Result<u64> {
    match std::env::var("BRECCIA_TEST_STATEMENTS") {
        Ok(text) => text.parse().context("BRECCIA_TEST_STATEMENTS"),
        Err(_) => Ok(40_000),
    }
}

/// One that is cancelled by its own requests, and by nothing else hurt.
fn suffer(client: &Mutex<SqlClient>, world: &World, seed: u64) -> Result<u64> {
    let (mut client, mut dice, mut hits) = (client.lock().expect("one user"), Dice::new(seed), 0);
    while !world.is_over() {
        let value = dice.roll(1_000_000).to_string();
        let reply = match dice.roll(4) {
            0 => client.simple(&format!("SELECT '{value}' FROM pg_sleep(0.003)"))?,
            1 => client.extended("SELECT $1::text", &[&value])?,
            _ => client.simple(&format!("SELECT '{value}' FROM public.t LIMIT 1"))?,
        };
        world.count.fetch_add(1, Ordering::Relaxed);
        match reply.code() {
            "" => ensure!(reply.value() == Some(&value), "{:?}", reply.rows),
            "57014" => hits += 1,
            _ => return Err(reply.good().expect_err("a fault")),
        }
    }
    Ok(hits)
}

/// Requests to cancel: the victims' own, those of sessions that have ended, and guesses.
fn storm(world: &World, keys: &[Vec<u8>], seed: u64) -> Result<u64> {
    let (mut dice, mut shots) = (Dice::new(seed), 0);
    while !world.is_over() {
        let at = usize::try_from(dice.roll(keys.len() as u64))?;
        let mut key = keys.get(at).expect("one of them").clone();
        match dice.roll(6) {
            0 => {
                let stale = world.stale.lock().expect("no panic");
                let at = usize::try_from(dice.roll(stale.len().max(1) as u64))?;
                key = stale.get(at).cloned().unwrap_or(key);
            }
            1 => {
                // The process of somebody, and a secret that is a guess; or the other way round.
                let range = if dice.roll(2) == 0 { 4..8 } else { 0..4 };
                let guess = dice.roll(u64::MAX).to_le_bytes();
                key.iter_mut()
                    .enumerate()
                    .filter(|(at, _)| range.contains(at))
                    .zip(guess)
                    .for_each(|((_, byte), guess)| *byte = guess);
            }
            2 => key.iter_mut().for_each(|byte| {
                *byte = dice.roll(256).try_into().unwrap_or(0);
            }),
            _ => {}
        }
        send_cancel(world.port, &key)?;
        shots += 1;
        thread::sleep(Duration::from_millis(dice.roll(8)));
    }
    Ok(shots)
}

/// How much of the time a role has more than its two connections to the primary: a server process
/// whose client is gone may run its last statement to the end beside the one that takes its place.
fn watch(cluster: &PostgresCluster, world: &World, over: &AtomicBool) -> Result<f64> {
    let mut client = SqlClient::connect(cluster.primary().port(), "postgres")?;
    let sql = format!(
        "SELECT coalesce(max(n), 0) FROM (SELECT count(*) AS n FROM pg_stat_activity \
         WHERE datname = '{DATABASE}' AND usename IN ('alice', 'bob') GROUP BY usename) AS each"
    );
    let (mut samples, mut above, begun, mut told) = (0_u32, 0_u32, Instant::now(), 0);
    while !over.load(Ordering::Relaxed) {
        let most: u64 = client.run(&sql)?.value().unwrap_or("0").parse()?;
        ensure!(most <= 10 * SIZE, "{most} connections of one role");
        samples += 1;
        let tens = world.count.load(Ordering::Relaxed) / 10_000;
        if tens > told {
            told = tens;
            println!("{}0,000 statements after {:.0?}", tens, begun.elapsed());
        }
        above += u32::from(most > SIZE);
        thread::sleep(Duration::from_millis(20));
    }
    Ok(f64::from(above) / f64::from(samples.max(1)))
}

/// All of them at once, until there were enough statements.
fn run(world: &World, cluster: &PostgresCluster, seed: u64) -> Result<()> {
    let victims = (0..VICTIMS)
        .map(|number| {
            let role = ROLES.get(number % ROLES.len()).expect("a role");
            let mut client = SqlClient::connect_as(world.port, role, &[("database", DATABASE)])?;
            client.set_patience(PATIENCE)?;
            Ok(client)
        })
        .collect::<Result<Vec<_>>>()?;
    let keys: Vec<Vec<u8>> = victims.iter().map(|it| it.key().to_vec()).collect();
    let victims: Vec<Mutex<SqlClient>> = victims.into_iter().map(Mutex::new).collect();
    let (hits, shots) = (AtomicU64::new(0), AtomicU64::new(0));
    let failed = AtomicBool::new(false);
    let work = |number: usize| -> Result<()> {
        let seed = seed ^ (number as u64 + 1).wrapping_mul(104_729);
        if let Some(victim) = victims.get(number) {
            hits.fetch_add(suffer(victim, world, seed)?, Ordering::Relaxed);
        } else if number < VICTIMS + 4 {
            shots.fetch_add(storm(world, &keys, seed)?, Ordering::Relaxed);
        } else {
            let (number, mut dice) = (number as u64, Dice::new(seed));
            let mut session = Session::new(world, number)?;
            let mut step = 0_u64;
            while !world.is_over() {
                let done = session.step(&mut dice);
                done.with_context(|| format!("session {number}, step {step}"))?;
                step += 1;
            }
        }
        Ok(())
    };
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let watching = scope.spawn(|| watch(cluster, world, &over));
        let worked = together(VICTIMS + 4 + SESSIONS, |number| {
            let done = work(number);
            if done.is_err() {
                // The others need not go on, and what comes of their ends is of no interest.
                world.count.store(world.most, Ordering::Relaxed);
                if failed.swap(true, Ordering::Relaxed) {
                    return Ok(());
                }
            }
            done
        });
        over.store(true, Ordering::Relaxed);
        let over_size = watching.join().expect("a watcher without panic")?;
        worked?;
        let [hits, shots] = [&hits, &shots].map(|it| it.load(Ordering::Relaxed));
        println!("{shots} requests to cancel, {hits} hits");
        println!("{over_size:.3} of the time more than {SIZE} connections of a role");
        ensure!(
            over_size < 0.3,
            "too many connections for {over_size} of the time"
        );
        ensure!(hits > 20, "only {hits} of {shots} requests hit");
        Ok(())
    })
}

#[test]
fn two_hundred_sessions_over_four_connections_see_nothing_of_each_other() -> Result<()> {
    let cluster: Arc<PostgresCluster> = quiet()?;
    let users = prepare(&cluster)?;
    let listener = format!("pool-size = {SIZE}\nqueue-timeout = \"80s\"\n{users}");
    let extra = Extra {
        top: "workers = 2",
        listener: &listener,
        ..Extra::default()
    };
    let gateway = Gateway::over(&cluster, DATABASE, extra)?;
    let world = World {
        port: gateway.port,
        database: DATABASE,
        count: AtomicU64::new(0),
        most: statements()?,
        may_pin: Default::default(),
        stale: Mutex::default(),
    };
    let seed = Dice::printed().roll(u64::MAX);
    let (begun, before) = (Instant::now(), gateway.replica_reads()?);
    let ran = run(&world, &cluster, seed);
    let count = world.count.load(Ordering::Relaxed);
    let seconds = begun.elapsed().as_secs_f64();
    let reads = gateway.replica_reads()? - before;
    println!("{count} statements in {seconds:.0} s, {reads} on replicas");
    let (_, metrics) = gateway.breccia.admin("/metrics")?;
    let pinned = metrics
        .lines()
        .filter(|it| it.contains("sql_pinned_total{"));
    pinned.for_each(|it| println!("{it}"));
    ran?;
    ensure!(reads > 1_000.0, "only {reads} of {count} ran on replicas");
    let left = format!(
        "SELECT (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory') + (SELECT count(*) \
         FROM pg_stat_activity WHERE datname = '{DATABASE}' AND state LIKE 'idle in%')"
    );
    wait_until(LIMIT, "locks and transactions to end", || {
        let left = cluster.primary().query(DATABASE, &left)?;
        Ok((left.trim() == "0").then_some(()))
    })
}
