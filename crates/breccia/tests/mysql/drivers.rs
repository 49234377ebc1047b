//! What some drivers rest on that the others never look at.
//!
//! Invariant: it is as over one server.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use breccia_testkit::{MY_OLD, MY_SESSION_TRACK, MariaDbCluster, MyClient, MyValue};

use crate::rig::{Extra, Gateway, fresh, login, shared};

fn over(cluster: &MariaDbCluster, database: &str) -> Result<Gateway> {
    fresh(cluster, database)?;
    cluster.query(0, &format!("CREATE TABLE {database}.t (v varchar(20))"))?;
    Gateway::over(cluster, Extra::default())
}

/// The collation that a server greets with.
fn greeted(port: u16) -> Result<u8> {
    let (packet, _) = MyClient::greeted(port)?.packet()?;
    // Behind the version's NUL: a number, eight bytes of a nonce, a filler, two bytes of capabilities.
    let end = packet.iter().position(|it| *it == 0).context("a version")?;
    packet.get(end + 16).copied().context("a collation")
}

#[test]
fn a_client_is_greeted_with_the_servers_collation() -> Result<()> {
    let cluster = shared()?;
    let gateway = over(&cluster, "greeted")?;
    let (direct, through) = (greeted(cluster.server(0).port())?, greeted(gateway.port)?);
    ensure!(through == direct, "{through} and not {direct}");
    Ok(())
}

#[test]
fn a_kill_that_is_prepared_ends_what_it_names() -> Result<()> {
    let cluster = shared()?;
    let gateway = over(&cluster, "killsprepared")?;
    for (query, text) in [(true, false), (true, true), (false, false)] {
        let mut sleeper = gateway.client("killsprepared")?;
        let number = sleeper.connection_id;
        let begun = Instant::now();
        let code = std::thread::scope(|scope| -> Result<u16> {
            let sleeping = scope.spawn(|| sleeper.query("SELECT v FROM t UNION SELECT SLEEP(15)"));
            std::thread::sleep(Duration::from_millis(300));
            let mut other = gateway.client("killsprepared")?;
            let written = number.to_string();
            let value = if text {
                MyValue::Bytes(written.as_bytes())
            } else {
                MyValue::Int(i64::from(number))
            };
            let sql = if query { "KILL QUERY ?" } else { "KILL ?" };
            other.once(sql, &[value])?.good()?;
            Ok(sleeping.join().expect("a sleeper")?.code())
        })?;
        ensure!(matches!(code, 0 | 1317 | 1927), "{code}");
        ensure!(begun.elapsed() < Duration::from_secs(8), "it slept on");
        ensure!(
            sleeper.query("SELECT 1").is_ok() == query,
            "KILL ends sessions"
        );
    }
    Ok(())
}

#[test]
fn a_session_that_kills_itself_is_told_as_by_a_server() -> Result<()> {
    let cluster = shared()?;
    let gateway = over(&cluster, "killsitself")?;
    for kill in ["KILL", "KILL QUERY"] {
        let mut direct = MyClient::connect(cluster.server(0).port(), "killsitself")?;
        let mut through = gateway.client("killsitself")?;
        let mut seen = Vec::new();
        for client in [&mut direct, &mut through] {
            let number = client.connection_id;
            let code = client.query(&format!("{kill} {number}"))?.code();
            seen.push((code, client.query("SELECT 1").is_ok()));
        }
        ensure!(seen[0] == seen[1], "{kill}: {seen:?}");
    }
    Ok(())
}

#[test]
fn a_session_whose_connection_the_server_closes_while_it_rests_ends() -> Result<()> {
    let cluster = shared()?;
    let gateway = over(&cluster, "rested")?;
    for before in ["BEGIN; INSERT INTO t VALUES ('lost')", "SET @a = 1"] {
        let mut client = gateway.client("rested")?;
        client.run("SET wait_timeout = 1")?;
        for sql in before.split("; ") {
            client.run(sql)?;
        }
        let begun = Instant::now();
        ensure!(client.is_closed(), "{before}: it goes on");
        ensure!(
            begun.elapsed() < Duration::from_secs(5),
            "{:?}",
            begun.elapsed()
        );
    }
    let log = gateway.breccia.log();
    ensure!(log.contains("has closed the session's connection"), "{log}");
    let left = cluster.query(0, "SELECT COUNT(*) FROM rested.t")?;
    ensure!(left.trim() == "0", "{left}");
    Ok(())
}

#[test]
fn a_client_that_asks_for_more_of_its_session_is_told() -> Result<()> {
    let cluster = shared()?;
    let gateway = over(&cluster, "tracked")?;
    let login = login("tracked", MY_OLD | MY_SESSION_TRACK);
    let mut client = MyClient::connect_as(gateway.port, login)?;
    client.run(
        "SET session_track_transaction_info = 'CHARACTERISTICS', session_track_state_change = 1, \
         session_track_system_variables = 'time_zone'",
    )?;
    let reply = client.run("START TRANSACTION READ ONLY")?;
    let wanted = b"START TRANSACTION READ ONLY";
    let told = |(packet, _): &(Vec<u8>, u8)| packet.windows(wanted.len()).any(|it| it == wanted);
    ensure!(reply.packets.iter().any(told), "{:?}", reply.packets);
    Ok(())
}
