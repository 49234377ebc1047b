//! What a server tells of no change, or tells in its status flags alone.
//!
//! Not what it tells, which `state.rs` has. Invariant: what one session sets or was warned of is its own.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use breccia_testkit::MyClient;

use crate::rig::shared;
use crate::state::{expect, narrow, of_size};

/// `CURSOR_TYPE_READ_ONLY`.
const CURSOR: u8 = 1;

/// Sessions that come after, over all connections: what each sees.
fn others(gateway: &crate::rig::Gateway, database: &str, sql: &str) -> Result<Vec<String>> {
    let mut clients = Vec::new();
    for _ in 0..2 {
        let mut client = gateway.client(database)?;
        client.run("BEGIN")?;
        let seen = client.value(&format!("{sql} FROM t LIMIT 1 FOR UPDATE"))?;
        clients.push((client, seen));
        // The next one finds another connection, or waits for none.
        if let Some((client, _)) = clients.last_mut() {
            client.run("COMMIT")?;
        }
    }
    Ok(clients.into_iter().map(|it| it.1).collect())
}

#[test]
fn variables_that_are_set_by_two_at_signs_stay_with_their_session() -> Result<()> {
    let cluster = shared()?;
    let gateway = narrow("atsigns")?;
    let direct = |sql: &str| {
        let text = cluster.query(0, &format!("SELECT {sql}"));
        text.map(|text| text.trim().to_owned())
    };
    for (set, asked, value) in [
        ("SET @@max_error_count = 3", "@@max_error_count", "3"),
        (
            "SET @@sql_mode = 'ANSI_QUOTES'",
            "@@sql_mode",
            "ANSI_QUOTES",
        ),
        (
            "SET time_zone = '+01:00', @@div_precision_increment = 9",
            "@@div_precision_increment",
            "9",
        ),
        (
            "/*!50000 SET @@lc_time_names = 'de_DE' */",
            "@@lc_time_names",
            "de_DE",
        ),
        ("SET @@`timestamp` = 1", "NOW() + 0 < 20000000000000", "1"),
        (
            "SET @@session.`group_concat_max_len` = 7",
            "@@group_concat_max_len",
            "7",
        ),
    ] {
        let usual = direct(asked)?;
        for prepared in [false, true] {
            let mut client = gateway.client("atsigns")?;
            if prepared && !set.starts_with("/*") {
                client.once(set, &[])?.good().context(set)?;
            } else {
                client.run(set)?;
            }
            std::thread::sleep(Duration::from_millis(250));
            expect(&mut client, &format!("SELECT {asked}"), value)?;
            drop(client);
            for seen in others(&gateway, "atsigns", &format!("SELECT {asked}"))? {
                ensure!(seen == usual, "{set}: another session sees {seen}");
            }
        }
    }
    Ok(())
}

#[test]
fn a_write_is_not_lost_to_anothers_autocommit() -> Result<()> {
    let cluster = shared()?;
    let gateway = narrow("offleft")?;
    MyClient::connect(cluster.primary().port(), "offleft")?
        .run("CREATE PROCEDURE turns_off() SET @@autocommit = 0")?;
    for (number, set) in ["SET @@autocommit = 0", "CALL turns_off()"]
        .iter()
        .enumerate()
    {
        for _ in 0..4 {
            // It leaves nothing but that.
            gateway.client("offleft")?.run(set)?;
            let mut other = gateway.client("offleft")?;
            other.run("INSERT INTO t (v) VALUES ('kept')")?;
        }
        let mut client = gateway.client("offleft")?;
        client.run(set)?;
        client.run("INSERT INTO t (v) VALUES ('not committed')")?;
        let reply = client.ping()?.good()?;
        ensure!(reply.status() & 3 == 1, "{set}: {}", reply.status());
        drop(client);
        let sql = "SELECT COUNT(*) FROM offleft.t WHERE v = 'kept'";
        let rows = cluster.query(0, sql)?;
        ensure!(
            rows.trim() == (4 * (number + 1)).to_string(),
            "{set}: {rows}"
        );
        let sql = "SELECT COUNT(*) FROM offleft.t WHERE v = 'not committed'";
        ensure!(
            cluster.query(0, sql)?.trim() == "0",
            "{set}: it is committed"
        );
    }
    Ok(())
}

/// The status flags of commands that a gateway may answer by itself.
fn flags(client: &mut MyClient, modes: &str) -> Result<Vec<u16>> {
    client.run(&format!("SET sql_mode = '{modes}'"))?;
    let statement = client.prepare("SELECT 1")?.ok().context("prepared")?;
    std::thread::sleep(Duration::from_millis(250));
    let mut flags = vec![
        client.ping()?.good()?.status(),
        client.reset_statement(statement.id)?.good()?.status(),
    ];
    for sql in [
        "START TRANSACTION READ ONLY",
        "COMMIT",
        "ROLLBACK",
        "BEGIN",
        "ROLLBACK",
    ] {
        flags.push(client.run(sql)?.status());
        if sql == "START TRANSACTION READ ONLY" {
            flags.push(client.ping()?.good()?.status());
        }
    }
    Ok(flags)
}

#[test]
fn how_to_quote_is_told_with_every_answer() -> Result<()> {
    let cluster = shared()?;
    let gateway = narrow("quoting")?;
    for modes in [
        "",
        "NO_BACKSLASH_ESCAPES",
        "ANSI_QUOTES",
        "ANSI,NO_BACKSLASH_ESCAPES",
    ] {
        let mut direct = MyClient::connect(cluster.primary().port(), "quoting")?;
        let mut through = gateway.client("quoting")?;
        let wanted = flags(&mut direct, modes)?;
        let told = flags(&mut through, modes)?;
        ensure!(told == wanted, "{modes}: {told:x?} instead of {wanted:x?}");
    }
    Ok(())
}

#[test]
fn warnings_are_told_to_nobody_else() -> Result<()> {
    let cluster = shared()?;
    let gateway = narrow("warned")?;
    cluster.query(0, "CREATE TABLE warned.u (v varchar(40) UNIQUE)")?;
    for warns in [
        "INSERT IGNORE INTO u VALUES ('secret'), ('secret')",
        "SELECT CAST('secret' AS INT) FROM t",
        "INSERT INTO u VALUES ('secret')",
    ] {
        for between in [
            "SELECT @@server_id",
            "SELECT 1",
            "SET sql_mode = ''",
            "SAVEPOINT s",
            "BEGIN",
        ] {
            let mut client = gateway.client("warned")?;
            drop(client.query(warns)?);
            drop(client);
            for _ in 0..3 {
                let mut other = gateway.client("warned")?;
                other.run(between)?;
                let reply = other.query("SHOW WARNINGS")?;
                ensure!(reply.rows().is_empty(), "{warns}, {between}: {reply:?}");
                let count = other.query("SELECT @@warning_count")?;
                let none = count.code() != 0 || count.text().as_deref() == Some("0");
                ensure!(none, "{warns}, {between}: {count:?}");
            }
        }
    }
    Ok(())
}

#[test]
fn a_prepared_question_about_the_statement_before_is_not_asked_too_late() -> Result<()> {
    let _cluster = shared()?;
    let gateway = of_size("rowcount", 8)?;
    let mut client = gateway.client("rowcount")?;
    let asks = client
        .prepare("SELECT ROW_COUNT()")?
        .ok()
        .context("prepared")?;
    client.run("SET lc_time_names = 'de_DE'")?;
    std::thread::sleep(Duration::from_millis(250));
    // Others take the connection on which it is prepared.
    let mut others = Vec::new();
    for _ in 0..3 {
        let mut other = gateway.client("rowcount")?;
        other.run("BEGIN")?;
        other.run("SELECT id FROM t LIMIT 1")?;
        others.push(other);
    }
    client.run("INSERT INTO t (v) VALUES ('1'), ('2'), ('3')")?;
    let reply = client.execute(&asks, &[])?.good()?;
    ensure!(reply.text().as_deref() == Some("3"), "{reply:?}");
    Ok(())
}

#[test]
fn a_pause_waits_for_cursors_and_lets_them_go_on() -> Result<()> {
    let _cluster = shared()?;
    let gateway = &narrow("pausedcursor")?;
    let mut client = gateway.client("pausedcursor")?;
    let select = client
        .prepare("SELECT id FROM t ORDER BY id")?
        .ok()
        .context("prepared")?;
    client.execute_as(select.id, &[], CURSOR, true)?.good()?;
    std::thread::scope(|scope| -> Result<()> {
        let pausing = scope.spawn(|| gateway.post("/stores/db/pause"));
        std::thread::sleep(Duration::from_millis(300));
        client.set_patience(Duration::from_secs(5))?;
        let fetched = client.fetch(select.id, 2).context("in the pause")?.good()?;
        ensure!(!fetched.packets.is_empty());
        client.reset_statement(select.id)?.good()?;
        pausing.join().expect("no panic")?;
        gateway.post("/stores/db/resume")
    })
}

#[test]
fn a_ping_outlives_the_connection_of_the_last_read() -> Result<()> {
    let cluster = shared()?;
    let gateway = narrow("pinged")?;
    for _ in 0..5 {
        let mut client = gateway.client("pinged")?;
        client.run("SELECT COUNT(*) FROM t")?;
        let away = client.value("SHOW breccia.server")? != "my0";
        for number in 0..3 {
            crate::rig::cut(&cluster, number, "pinged")?;
        }
        let reply = client.ping()?;
        ensure!(reply.fault.is_none(), "away {away}: {:?}", reply.fault);
        client.run("SELECT COUNT(*) FROM t")?;
    }
    Ok(())
}

#[test]
fn a_variable_that_cannot_be_set_costs_no_transaction() -> Result<()> {
    let cluster = shared()?;
    let gateway = narrow("nosuchvar")?;
    let mut client = gateway.client("nosuchvar")?;
    client.run("BEGIN")?;
    client.run("INSERT INTO t (v) VALUES ('kept')")?;
    for (set, code) in [
        ("SET @@nosuch = 1", 1193),
        ("SET @@max_connections = 7", 1229),
        ("SET @@version = 'x'", 1238),
        ("SET @@sql_mode = 'nosuch'", 1231),
    ] {
        let reply = client.query(set)?;
        ensure!(reply.code() == code, "{set}: {:?}", reply.fault);
    }
    client.run("SET @@character_set_results = NULL")?;
    expect(&mut client, "SELECT @@character_set_results IS NULL", "1")?;
    client.run("COMMIT")?;
    let rows = cluster.query(0, "SELECT COUNT(*) FROM nosuchvar.t WHERE v = 'kept'")?;
    ensure!(rows.trim() == "1", "{rows}");
    expect(&mut client, "SELECT @@character_set_results IS NULL", "1")
}
