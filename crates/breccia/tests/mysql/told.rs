//! What log and counters tell of statements, sessions and logins that came to a bad end.
//!
//! Not what their clients are told. Invariant: a line or a number is that of what ended, and not of what
//! came before it.

use std::time::Duration;

use anyhow::{Result, ensure};
use breccia_testkit::{MyClient, wait_until};

use crate::rig::{Extra, Gateway, LIMIT, cluster, cut, fresh};

/// Waits until some line of the log holds all `parts`.
fn line(gateway: &Gateway, parts: &[&str]) -> Result<String> {
    wait_until(LIMIT, &format!("a line of the log with {parts:?}"), || {
        let log = gateway.breccia.log();
        let mut lines = log.lines();
        let found = lines.find(|line| parts.iter().all(|part| line.contains(part)));
        Ok(found.map(str::to_owned))
    })
}

/// What a session says of the statement before.
fn last(client: &mut MyClient) -> Result<(String, String)> {
    let server = client.value("SHOW breccia.server")?;
    Ok((server, client.value("SHOW breccia.reason")?))
}

#[test]
fn what_failed_is_told_with_its_own_place() -> Result<()> {
    let cluster = cluster()?;
    fresh(&cluster, "toldplace")?;
    cluster.query(0, "CREATE TABLE toldplace.t (id int PRIMARY KEY)")?;
    let extra = Extra {
        listener: "pool-size = 1\nqueue-timeout = \"300ms\"\nslow-statement = \"100ms\"",
        ..Extra::default()
    };
    let gateway = Gateway::over(&cluster, extra)?;
    let mut client = gateway.client("toldplace")?;
    let read = |client: &mut MyClient| -> Result<()> {
        wait_until(LIMIT, "a read on a replica", || {
            client.run("SELECT 1 FROM t")?;
            let (server, reason) = last(client)?;
            Ok((server != "my0" && reason == "read").then_some(()))
        })
    };
    // The connection is lost.
    cluster.wait_caught_up(LIMIT)?;
    read(&mut client)?;
    std::thread::scope(|scope| -> Result<()> {
        let ends = scope.spawn(|| {
            wait_until(LIMIT, "a connection to end", || {
                std::thread::sleep(Duration::from_millis(200));
                Ok((cut(&cluster, 0, "toldplace")? > 0).then_some(()))
            })
        });
        let code = client.query("SELECT SLEEP(20)")?.code();
        ensure!(code == 1158, "{code}");
        ends.join().expect("a thread without panic")
    })?;
    let told = last(&mut client)?;
    ensure!(told == ("my0".into(), "function".into()), "{told:?}");
    line(
        &gateway,
        &["a slow statement", "server=\"my0\"", "SELECT SLEEP(?)"],
    )?;
    // No connection becomes free.
    let mut holder = gateway.client("toldplace")?;
    holder.run("BEGIN")?;
    holder.run("SELECT * FROM t FOR UPDATE")?;
    read(&mut client)?;
    let code = client.query("DELETE FROM t")?.code();
    ensure!(code == 1040, "{code}");
    let told = last(&mut client)?;
    ensure!(told == ("my0".into(), "write".into()), "{told:?}");
    holder.run("ROLLBACK")?;
    // Nothing may begin.
    read(&mut client)?;
    gateway.post("/stores/db/pause")?;
    let code = client.query("DELETE FROM t")?.code();
    let told = last(&mut client)?;
    gateway.post("/stores/db/resume")?;
    ensure!(
        code == 1053 && told == (String::new(), String::new()),
        "{told:?}"
    );
    read(&mut client)?;
    cluster.query(2, "STOP SLAVE; RESET SLAVE ALL")?;
    wait_until(LIMIT, "the end of the primary", || {
        Ok((client.query("DELETE FROM t")?.code() == 1053).then_some(()))
    })?;
    let told = last(&mut client)?;
    ensure!(told == (String::new(), "write".into()), "{told:?}");
    Ok(())
}
