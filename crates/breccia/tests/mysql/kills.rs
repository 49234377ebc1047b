//! KILL by the number that a client was greeted with.
//!
//! Invariant: it ends what it names, at once, and nobody else ever notices.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::rig::{Extra, Gateway, fresh, login, shared, together};
use crate::state::{expect, narrow, of_size};

/// Longer than any KILL may take, and much shorter than the waits it ends.
const SOON: Duration = Duration::from_secs(5);

#[test]
fn a_kill_by_the_number_of_the_greeting_ends_that_query_only() -> Result<()> {
    let _cluster = shared()?;
    let gateway = narrow("kills")?;
    for sleep in [
        "SELECT SLEEP(15)",
        "SELECT COUNT(*) FROM t WHERE SLEEP(15) = 0",
        "INSERT INTO t (v) SELECT SLEEP(15)",
    ] {
        let mut sleeper = gateway.client("kills")?;
        let number = sleeper.connection_id;
        let begun = std::time::Instant::now();
        let reply = std::thread::scope(|scope| {
            let sleeping = scope.spawn(|| sleeper.query(sleep));
            std::thread::sleep(std::time::Duration::from_millis(300));
            let killed = gateway
                .client("kills")
                .and_then(|mut it| it.run(&format!("KILL QUERY {number}")));
            let reply = sleeping.join().expect("a sleeper")?;
            killed.map(|_| reply)
        })?;
        ensure!(begun.elapsed().as_secs() < 10, "{sleep}: it slept on");
        let interrupted = reply.code() == 1317 || reply.text().as_deref() == Some("1");
        ensure!(interrupted, "{sleep}: {:?} {:?}", reply.fault, reply.text());
        expect(&mut sleeper, "SELECT 5", "5")?;
        expect(&mut sleeper, "SELECT CONNECTION_ID()", &number.to_string())?;
    }
    Ok(())
}

#[test]
fn a_killed_client_that_is_idle_ends_at_once_and_its_locks_are_gone() -> Result<()> {
    let _cluster = shared()?;
    let gateway = narrow("killidle")?;
    for opening in ["SELECT 1", "BEGIN; UPDATE t SET v = 'held' WHERE id = 1"] {
        let mut ended = gateway.client("killidle")?;
        for sql in opening.split("; ") {
            ended.run(sql)?;
        }
        let begun = Instant::now();
        let number = ended.connection_id;
        gateway
            .client("killidle")?
            .run(&format!("KILL CONNECTION {number}"))?;
        // It is told why, as a server does not, and then it is over.
        let (packet, _) = ended.packet()?;
        ensure!(packet.first() == Some(&0xff), "{packet:?}");
        ensure!(ended.is_closed(), "{opening}: it goes on");
        let mut other = gateway.client("killidle")?;
        other.run("UPDATE t SET v = 'free' WHERE id = 1")?;
        ensure!(begun.elapsed() < SOON, "{opening}: {:?}", begun.elapsed());
    }
    Ok(())
}

#[test]
fn a_killed_client_that_runs_or_waits_ends_too() -> Result<()> {
    let _cluster = shared()?;
    let gateway = of_size("killruns", 1)?;
    let mut holder = gateway.client("killruns")?;
    for (holds, sql) in [
        (false, "UPDATE t SET v = SLEEP(15) WHERE id = 1"),
        (
            true,
            "UPDATE t SET v = 'waits for a connection' WHERE id = 1",
        ),
    ] {
        if holds {
            holder.run("BEGIN")?;
            holder.run("UPDATE t SET v = 'held' WHERE id = 2")?;
        }
        let mut ended = gateway.client("killruns")?;
        let number = ended.connection_id;
        let begun = Instant::now();
        std::thread::scope(|scope| {
            let running = scope.spawn(|| {
                let reply = ended.query(sql);
                let interrupted =
                    matches!(&reply, Ok(reply) if matches!(reply.code(), 1317 | 1927));
                ensure!(
                    interrupted || reply.is_err(),
                    "{sql}: {:?}",
                    reply.map(|it| it.fault)
                );
                let goes_on = ended.query("SELECT 1").is_ok_and(|it| it.code() != 1927);
                ensure!(!goes_on && ended.is_closed(), "it goes on");
                Ok(())
            });
            std::thread::sleep(Duration::from_millis(300));
            let mut killer = gateway.client("killruns")?;
            killer.run(&format!("KILL {number}"))?;
            running.join().expect("a client")
        })?;
        ensure!(begun.elapsed() < SOON, "{sql}: {:?}", begun.elapsed());
    }
    holder.run("COMMIT")?;
    expect(&mut holder, "SELECT v FROM t WHERE id = 2", "held")
}

/// A KILL is on its way while the statement it was meant for ends and another client borrows the
/// connection.
#[test]
fn a_kill_that_comes_late_hits_nobody_else() -> Result<()> {
    const ROUNDS: usize = 300;
    let _cluster = shared()?;
    let gateway = of_size("killlate", 2)?;
    let target = gateway.client("killlate")?;
    let number = target.connection_id;
    let target = std::sync::Mutex::new(target);
    let done = std::sync::atomic::AtomicBool::new(false);
    let is_done = || done.load(std::sync::atomic::Ordering::Relaxed);
    together(4, |which| {
        if which == 0 {
            let mut target = target.lock().expect("one");
            for round in 0..ROUNDS {
                let sql = format!("UPDATE t SET v = 'r{round}' WHERE id = 1");
                let reply = target.query(&sql)?;
                ensure!(matches!(reply.code(), 0 | 1317), "{:?}", reply.fault);
            }
            done.store(true, std::sync::atomic::Ordering::Relaxed);
            return Ok(());
        }
        let mut client = gateway.client("killlate")?;
        while !is_done() {
            if which == 1 {
                client.run(&format!("KILL QUERY {number}"))?;
            } else {
                client
                    .run("INSERT INTO t (v) SELECT v FROM t LIMIT 2")
                    .with_context(|| format!("client {which} was hit"))?;
            }
        }
        Ok(())
    })
}

#[test]
fn a_killed_query_leaves_the_last_insert_id_alone() -> Result<()> {
    let _cluster = shared()?;
    let gateway = narrow("killid")?;
    let mut sleeper = gateway.client("killid")?;
    sleeper.run("INSERT INTO t (v) VALUES ('mine')")?;
    let id = sleeper.value("SELECT LAST_INSERT_ID()")?;
    let number = sleeper.connection_id;
    std::thread::scope(|scope| {
        let sleeping = scope.spawn(|| sleeper.query("UPDATE t SET v = SLEEP(15) WHERE id = 1"));
        std::thread::sleep(Duration::from_millis(300));
        let mut killer = gateway.client("killid")?;
        killer.run(&format!("KILL QUERY {number}"))?;
        killer.run("INSERT INTO t (v) VALUES ('another')")?;
        sleeping.join().expect("a client").map(drop)
    })?;
    expect(&mut sleeper, "SELECT LAST_INSERT_ID()", &id)
}

#[test]
fn a_password_that_is_guessed_by_changing_users_counts_as_one_at_the_door() -> Result<()> {
    let _cluster = shared()?;
    let gateway = narrow("killguess")?;
    // All have come before: a good login wipes the slate.
    let clients: Vec<_> = (0..8)
        .map(|_| gateway.client("killguess").map(std::sync::Mutex::new))
        .collect::<Result<_>>()?;
    let mut slowest = Duration::ZERO;
    for clients in clients.chunks(4) {
        let begun = Instant::now();
        together(clients.len(), |which| {
            let wrong = breccia_testkit::MyLogin {
                password: "wrong",
                ..login("killguess", 0)
            };
            let mut client = clients[which].lock().expect("one");
            ensure!(client.change_user(wrong).is_err(), "it is let in");
            Ok(())
        })?;
        slowest = slowest.max(begun.elapsed());
    }
    // Each alone would take a second.
    ensure!(slowest >= Duration::from_secs(3), "{slowest:?}");
    let log = gateway.breccia.log();
    ensure!(log.contains("a login is refused"), "{log}");
    Ok(())
}

#[test]
fn whoever_changes_the_user_becomes_one_of_now() -> Result<()> {
    let cluster = shared()?;
    fresh(&cluster, "killlist")?;
    let gateway = Gateway::over(&cluster, Extra::default())?;
    let mut client = gateway.client("killlist")?;
    let later = breccia_testkit::MyLogin {
        user: "later",
        password: "pw",
        ..login("killlist", breccia_testkit::MY_MODERN)
    };
    let mut early = gateway.client("killlist")?;
    ensure!(early.change_user(later).is_err(), "it is let in");
    let listener = "[[listener.sql.user]]\nname = \"later\"\npassword = \"pw\"";
    let extra = Extra {
        listener,
        ..Extra::default()
    };
    let file = crate::rig::file(&cluster, gateway.port, extra);
    let (status, body) = gateway.breccia.reload(&file)?;
    ensure!(status == 200, "{status} {body}");
    client.change_user(later)?;
    ensure!(client.value("SELECT 1")? == "1");
    Ok(())
}

#[test]
fn who_waits_in_a_pause_can_be_killed() -> Result<()> {
    let cluster = shared()?;
    let gateway = of_size("killpause", 2)?;
    let mut killer = gateway.client("killpause")?;
    for (kill, code) in [("KILL QUERY", 1317), ("KILL CONNECTION", 1927)] {
        let mut waiter = gateway.client("killpause")?;
        let number = waiter.connection_id;
        gateway.post("/stores/db/pause")?;
        let reply = std::thread::scope(|scope| -> Result<_> {
            let waiting = scope.spawn(|| waiter.query("INSERT INTO t (v) VALUES ('killed')"));
            std::thread::sleep(Duration::from_millis(300));
            let begun = Instant::now();
            killer.run(&format!("{kill} {number}"))?;
            let reply = waiting.join().expect("a client");
            ensure!(begun.elapsed() < SOON, "{kill}: {:?}", begun.elapsed());
            Ok(reply)
        });
        gateway.post("/stores/db/resume")?;
        let reply = reply?;
        if code == 1317 {
            ensure!(reply?.code() == code, "{kill}");
            expect(&mut waiter, "SELECT 5", "5")?;
        } else {
            let told = reply.map(|it| it.code());
            let is_told = !matches!(told, Ok(told) if told != 1317 && told != code);
            ensure!(is_told, "{kill}: {told:?}");
            let goes_on = waiter.query("SELECT 1").is_ok_and(|it| it.code() != code);
            ensure!(!goes_on && waiter.is_closed(), "{kill}: it goes on");
        }
    }
    let rows = cluster.query(0, "SELECT COUNT(*) FROM killpause.t WHERE v = 'killed'")?;
    ensure!(rows.trim() == "0", "it was carried out");
    Ok(())
}
