//! What a gateway tells of itself: the log of slow and refused statements.
//!
//! Not what statements do. Invariant: a literal here is a word that stands nowhere else, and no log
//! ever holds it.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use breccia_testkit::{Breccia, SqlClient, free_port, wait_until};

use crate::pooling::{database, together};
use crate::rig::{Extra, Gateway, LIMIT, file};

/// A literal that nobody may see.
const SECRET: &str = "hunter2";

/// The log's lines that hold all `parts`, once there is one.
fn lines(gateway: &Gateway, parts: &[&str]) -> Result<Vec<String>> {
    let fits = |line: &str| parts.iter().all(|part| line.contains(part));
    wait_until(LIMIT, &format!("a line of the log with {parts:?}"), || {
        let log = gateway.breccia.log();
        let found: Vec<String> = log
            .lines()
            .filter(|it| fits(it))
            .map(str::to_owned)
            .collect();
        Ok((!found.is_empty()).then_some(found))
    })
    .with_context(|| gateway.breccia.log())
}

fn only(gateway: &Gateway, parts: &[&str]) -> Result<String> {
    let found = lines(gateway, parts)?;
    let [line] = found.as_slice() else {
        anyhow::bail!("{found:#?}");
    };
    ensure!(!gateway.breccia.log().contains(SECRET), "the secret");
    Ok(line.clone())
}

/// How a statement is sent.
type Send = fn(&mut SqlClient, &str) -> Result<()>;

fn simple(client: &mut SqlClient, sql: &str) -> Result<()> {
    client.run(sql).map(drop)
}

fn extended(client: &mut SqlClient, sql: &str) -> Result<()> {
    client.extended(sql, &[SECRET])?.good().map(drop)
}

fn prepared(client: &mut SqlClient, sql: &str) -> Result<()> {
    client.parse("p", sql).sync().ask()?.good()?;
    client.bind("p", &[SECRET]).execute().sync().ask()?.good()?;
    client.run("DEALLOCATE p").map(drop)
}

fn inside(client: &mut SqlClient, sql: &str) -> Result<()> {
    client.run("BEGIN")?;
    client.run("SELECT 1")?;
    client.run(sql)?;
    client.run("COMMIT").map(drop)
}

/// How it is sent, a statement, and its line's server, reason and statement.
fn slow_ones() -> Vec<(Send, String, [&'static str; 3])> {
    let primary = |reason, statement| ["server=\"pg0\"", reason, statement];
    let function = |statement| primary("reason=\"function\"", statement);
    let heavy = "SELECT count(*) FROM generate_series(1, 6000000) WHERE";
    vec![
        (
            simple,
            format!("SELECT pg_sleep(0.3) AS a, '{SECRET}' /* {SECRET} */"),
            function("\"SELECT pg_sleep(?) AS a, ?\""),
        ),
        (
            extended,
            "SELECT pg_sleep(0.3) AS b, $1::text".to_owned(),
            function("\"SELECT pg_sleep(?) AS b, $1::text\""),
        ),
        (
            prepared,
            "SELECT pg_sleep(0.3) AS c, $1::text".to_owned(),
            function("\"SELECT pg_sleep(?) AS c, $1::text\""),
        ),
        (
            inside,
            format!("SELECT pg_sleep(0.3) AS d, E'{SECRET}'"),
            primary("reason=\"transaction\"", "\"SELECT pg_sleep(?) AS d, ?\""),
        ),
        (
            simple,
            format!("{heavy} 'e' <> '{SECRET}'"),
            ["server=\"pg", "reason=\"read\"", "WHERE ? <> ?\""],
        ),
        (
            extended,
            format!("{heavy} $1::text <> 'f'"),
            ["server=\"pg", "reason=\"read\"", "WHERE $1::text <> ?\""],
        ),
    ]
}

#[test]
fn a_slow_statement_is_told_with_its_place_and_without_its_literals() -> Result<()> {
    let cluster = database("slow")?;
    let extra = Extra {
        composite: "replica-wait = \"10s\"",
        listener: "slow-statement = \"200ms\"",
        ..Extra::default()
    };
    let gateway = Gateway::over(&cluster, "slow", extra)?;
    let mut client = gateway.client("slow")?;
    let cases = slow_ones();
    for (send, sql, parts) in &cases {
        send(&mut client, sql).with_context(|| sql.clone())?;
        let line = only(&gateway, parts)?;
        for part in [
            "a slow statement",
            "listener=\"sql\"",
            "user=\"breccia\"",
            "database=\"slow\"",
            "ms=",
        ] {
            ensure!(line.contains(part), "{part} in {line}");
        }
        let read = line.contains("reason=\"read\"");
        ensure!(read != line.contains("server=\"pg0"), "{line}");
    }
    client.run("SELECT 1")?;
    let told = lines(&gateway, &["a slow statement"])?.len();
    ensure!(told == cases.len(), "{told} lines");
    Ok(())
}

#[test]
fn many_slow_statements_make_few_lines_and_a_count() -> Result<()> {
    let cluster = database("floods")?;
    let extra = Extra {
        listener: "slow-statement = \"1ms\"\npool-size = 40",
        ..Extra::default()
    };
    let gateway = Gateway::over(&cluster, "floods", extra)?;
    together(20, |_| {
        let mut client = gateway.client("floods")?;
        for _ in 0..20 {
            client.run("SELECT pg_sleep(0.02)")?;
        }
        Ok(())
    })?;
    // The next line tells of all that were left out in the second before.
    std::thread::sleep(Duration::from_millis(1_100));
    gateway.client("floods")?.run("SELECT pg_sleep(0.02)")?;
    let told = lines(&gateway, &["a slow statement"])?;
    let left_out: usize = told
        .iter()
        .filter_map(|line| {
            line.split("left_out=")
                .nth(1)?
                .split(' ')
                .next()?
                .parse::<usize>()
                .ok()
        })
        .sum();
    // The start of a gateway asks too.
    ensure!(
        told.len() < 100 && left_out >= 300,
        "{} lines, {left_out}",
        told.len()
    );
    ensure!(
        told.len() + left_out >= 401,
        "{} and {left_out}",
        told.len()
    );
    Ok(())
}

#[test]
fn a_refused_statement_is_told_too() -> Result<()> {
    let cluster = database("refusals")?;
    let extra = Extra {
        listener: "pool-size = 1\nqueue-timeout = \"300ms\"\ntransaction-timeout = \"1s\"",
        ..Extra::default()
    };
    let gateway = Gateway::over(&cluster, "refusals", extra)?;
    let mut waiting = gateway.client("refusals")?;
    let mut holder = gateway.client("refusals")?;
    holder.run("BEGIN")?;
    holder.run("INSERT INTO t (own) VALUES (1)")?;
    let reply = waiting.simple(&format!("DELETE FROM t WHERE v = '{SECRET}'"))?;
    ensure!(reply.code() == "53300", "{:?}", reply.fault);
    let parts = [
        "a statement is refused",
        "state=\"53300\"",
        "\"DELETE FROM t WHERE v = ?\"",
    ];
    let line = only(&gateway, &parts)?;
    ensure!(line.contains("queue-timeout"), "{line}");
    let ended = holder.simple(&format!("SELECT pg_sleep(3), '{SECRET}'"));
    ensure!(ended.is_err(), "{ended:?}");
    let parts = [
        "a statement is refused",
        "state=\"57014\"",
        "\"SELECT pg_sleep(?), ?\"",
    ];
    let line = only(&gateway, &parts)?;
    ensure!(line.contains("server=\"pg0\""), "{line}");
    Ok(())
}

#[test]
fn statements_refused_at_once_are_each_told() -> Result<()> {
    let cluster = database("refused_at_once")?;
    let gateway = Gateway::over(&cluster, "refused_at_once", Extra::default())?;
    let mut client = gateway.client("refused_at_once")?;
    for name in ["a", "b", "c", "d", "e"] {
        let reply = client.simple(&format!("SHOW breccia.of_{name}"))?;
        assert_eq!(reply.code(), "42704");
    }
    for name in ["a", "b", "c", "d", "e"] {
        let told = format!("SHOW breccia.of_{name}");
        lines(&gateway, &["a statement is refused", &told])?;
    }
    Ok(())
}

#[test]
fn a_login_that_is_refused_is_told_with_its_user_and_address() -> Result<()> {
    let cluster = database("strangers")?;
    let gateway = Gateway::over(&cluster, "strangers", Extra::default())?;
    let name = format!("stranger{}", "x".repeat(3_000));
    let refused = SqlClient::connect_as(gateway.port, &name, &[("database", "strangers")]);
    ensure!(refused.is_err(), "a stranger was let in");
    let line = only(&gateway, &["a login is refused", "stranger"])?;
    for part in ["peer=\"127.0.0.1", "listener=\"sql\"", "left_out=0"] {
        ensure!(line.contains(part), "{part} in {line}");
    }
    ensure!(line.len() < 1_000, "{} bytes of a stranger's", line.len());
    let lost = gateway.client("no_such_database").map(drop);
    ensure!(lost.is_err(), "a database that is none");
    lines(&gateway, &["a login is refused", "no_such_database"])?;
    // Whoever only looks whether the port is open is no line.
    drop(std::net::TcpStream::connect(("127.0.0.1", gateway.port))?);
    gateway.client("strangers")?.run("SELECT 1")?;
    let log = gateway.breccia.log();
    let told = log.lines().filter(|it| it.contains("a login is refused"));
    assert_eq!(told.count(), 2, "{log}");
    // Who sends what is no login is one.
    let metric = "breccia_connections_refused_total{listener=\"sql\",reason=\"login\"}";
    let before = gateway.breccia.metric(metric)?;
    let mut browser = std::net::TcpStream::connect(("127.0.0.1", gateway.port))?;
    std::io::Write::write_all(&mut browser, b"GET / HTTP/1.1\r\n\r\n")?;
    lines(
        &gateway,
        &["a login is refused", "it sent what is no login"],
    )?;
    assert!(gateway.breccia.metric(metric)? > before + 0.5);
    Ok(())
}

#[test]
fn an_explanation_names_what_is_not_proven_also_without_the_primary() -> Result<()> {
    let cluster = database("explained")?;
    cluster.primary().query(
        "explained",
        "CREATE FUNCTION touch() RETURNS int LANGUAGE sql AS 'DELETE FROM t RETURNING 1'; \
         CREATE VIEW touched AS SELECT touch(), id FROM t; ALTER TABLE t ENABLE ROW LEVEL SECURITY; \
         CREATE POLICY own ON t USING (v = current_setting('my.tenant'))",
    )?;
    cluster.wait_caught_up(LIMIT)?;
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("breccia.toml");
    let check = |config: &str, sql: &str, parts: &[&str]| -> Result<()> {
        std::fs::write(&path, config)?;
        let words = ["--database", "explained", "--sql", sql];
        let command = ["explain", "--config", &path.to_string_lossy(), "db"];
        let output = Breccia::run(folder.path(), &[&command[..], &words].concat())?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        for part in parts {
            ensure!(text.contains(part), "{sql}: no {part:?} in {text}");
        }
        Ok(())
    };
    let config = file(&cluster, free_port()?, Extra::default());
    let chain = "relation touched, which uses function touch, which is VOLATILE";
    let view = "-- recent ones\nSELECT id FROM touched";
    check(&config, view, &["read from pg0 now", "(relation)", chain])?;
    let guarded = [
        "policies",
        "relation t, which uses function current_setting",
    ];
    check(&config, "SELECT v FROM t", &guarded)?;
    // The primary is gone, and a replica knows the same.
    let own = format!("port = {}\n", cluster.primary().port());
    let config = config.replace(&own, &format!("port = {}\n", free_port()?));
    check(&config, view, &["read from pg1 now", chain])
}

#[test]
fn an_answer_that_is_an_error_is_not_counted_as_ok() -> Result<()> {
    let cluster = database("counted")?;
    let gateway = Gateway::over(&cluster, "counted", Extra::default())?;
    let counted = || -> Result<[f64; 3]> {
        let of = |command: &str, outcome: &str| {
            let labels = format!("listener=\"sql\",command=\"{command}\",outcome=\"{outcome}\"");
            gateway
                .breccia
                .metric(&format!("breccia_requests_total{{{labels}}}"))
        };
        Ok([
            of("primary", "ok")?,
            of("replica", "ok")?,
            of("any", "error")?,
        ])
    };
    let mut client = gateway.client("counted")?;
    for (sql, grows) in [
        ("/* breccia: primary */ SELECT 1", [1, 0, 0]),
        ("/* breccia: primary */ SELECT 1/0", [0, 0, 1]),
        ("SELEC 1", [0, 0, 1]),
        ("/* breccia: primary */ SELECT 1; SELECT 1/0", [0, 0, 1]),
    ] {
        let before = counted()?;
        client.query(sql).flush()?;
        client.read_reply()?;
        let now = counted()?;
        let grown: Vec<f64> = before.iter().zip(now).map(|(it, now)| now - it).collect();
        ensure!(grown == grows.map(f64::from), "{sql}: {grown:?}");
    }
    Ok(())
}

#[test]
fn a_wrong_password_of_a_store_is_not_told_as_the_clients() -> Result<()> {
    let cluster = database("watched")?;
    cluster.primary().query(
        "watched",
        "DROP ROLE IF EXISTS watch; CREATE ROLE watch LOGIN PASSWORD 'pw' IN ROLE pg_monitor",
    )?;
    cluster.wait_caught_up(LIMIT)?;
    let extra = Extra {
        server: "monitor-user = \"watch\"\nmonitor-password = \"pw\"",
        ..Extra::default()
    };
    let port = free_port()?;
    let right = file(&cluster, port, extra);
    let (stores, listener) = right.split_once("[listener.sql]").context("a listener")?;
    let own = format!("\npassword = \"{}\"", cluster.primary().password());
    let stores = stores.replace(&own, "\npassword = \"old\"");
    let breccia = Breccia::start(&format!("{stores}[listener.sql]{listener}"))?;
    wait_until(LIMIT, "the primary", || {
        Ok(breccia.log().contains("the primary is known").then_some(()))
    })?;
    let Err(error) = SqlClient::connect(port, "watched") else {
        anyhow::bail!("a session");
    };
    let told = format!("{error:#}");
    for part in [
        "28P01",
        "this is the login that store.pg0 has there, and not the client's: mend its `user` and",
    ] {
        ensure!(told.contains(part), "no {part:?} in {told}");
    }
    Ok(())
}
