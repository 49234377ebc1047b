//! Clients that leave while what they sent runs, and servers that end a connection behind an answer.
//!
//! Invariant: of what a client has sent, nothing is carried out without what came before it; and a client is
//! told of its own statements only.

use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};
use breccia_testkit::wait_until;

use crate::pooling::database;
use crate::rig::{Extra, Gateway, LIMIT};

#[test]
fn of_statements_in_a_row_the_later_does_not_go_on_without_the_earlier() -> Result<()> {
    let cluster = database("leaving")?;
    let extra = Extra {
        listener: "pool-mode = \"session\"",
        ..Extra::default()
    };
    let gateway = Gateway::over(&cluster, "leaving", extra)?;
    let mut owner = gateway.client("leaving")?;
    owner.run("CREATE TABLE left_over (v text)")?;
    let rounds = 10;
    for round in 0..rounds {
        let mut client = gateway.client("leaving")?;
        client.run("SELECT 1")?;
        client.query(&format!(
            "INSERT INTO left_over SELECT 'a{round}' FROM (SELECT pg_sleep(0.2)) it"
        ));
        client.query(&format!("INSERT INTO left_over VALUES ('b{round}')"));
        client.flush()?;
        thread::sleep(Duration::from_millis(50));
        client.hang_up();
    }
    // What goes on has come to its end.
    wait_until(LIMIT, "nothing to run", || {
        let running = owner.run(
            "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE 'INSERT INTO left%'",
        )?;
        Ok((running.value() == Some("0")).then_some(()))
    })?;
    let alone = owner.run(
        "SELECT count(*) FROM left_over b WHERE v LIKE 'b%' AND NOT EXISTS \
         (SELECT FROM left_over a WHERE a.v = 'a' || substr(b.v, 2))",
    )?;
    ensure!(
        alone.value() == Some("0"),
        "{:?} later ones alone",
        alone.value()
    );
    Ok(())
}

#[test]
fn a_batch_in_pieces_that_waits_in_vain_is_told_why() -> Result<()> {
    let cluster = database("leavepieces")?;
    let extra = Extra {
        listener: "pool-size = 1\nqueue-timeout = \"1s\"",
        ..Extra::default()
    };
    let gateway = Gateway::over(&cluster, "leavepieces", extra)?;
    let mut owner = gateway.client("leavepieces")?;
    owner.run("CREATE TABLE big (v text)")?;
    owner.run("BEGIN")?;
    owner.run("INSERT INTO big VALUES ('held')")?;
    let value = "y".repeat(2 << 20);
    for cancels in [false, true] {
        let mut client = gateway.client("leavepieces")?;
        client.set_patience(LIMIT)?;
        let cancel = client.canceller();
        let canceller = thread::spawn(move || {
            thread::sleep(Duration::from_millis(400));
            if cancels { cancel() } else { Ok(()) }
        });
        client
            .parse("", "INSERT INTO big VALUES ($1)")
            .bind("", &[&value]);
        let ended = client
            .execute()
            .sync()
            .ask()
            .map(|reply| reply.code().to_owned());
        canceller.join().expect("no panic")?;
        let told = ended.unwrap_or_else(|error| error.to_string());
        let expected = if cancels { "57014" } else { "53300" };
        ensure!(told.starts_with(expected), "{cancels}: {told}");
    }
    Ok(())
}
