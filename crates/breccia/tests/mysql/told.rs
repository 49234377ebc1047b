//! What log and counters tell of statements, sessions and logins that came to a bad end.
//!
//! Not what their clients are told. Invariant: a line or a number is that of what ended, and not of what
//! came before it.

use std::io::Write as _;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use breccia_testkit::{Breccia, Certificates, MyClient, MyLogin, free_port, wait_until};

use crate::limits::with_tls;
use crate::rig::{Extra, Gateway, LIMIT, cluster, cut, file, fresh, shared};

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
        line(
            &gateway,
            &["a statement is lost", "unknown", "reason=\"function\""],
        )?;
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

/// What a counter of the listener counts.
fn count(breccia: &Breccia, name: &str, labels: &str) -> Result<i32> {
    let metric = format!("breccia_{name}_total{{listener=\"sql\",{labels}}}");
    Ok(breccia.metric(&metric)?.to_string().parse()?)
}

/// How many clients of a listener were turned away.
fn turned_away(breccia: &Breccia, reason: &str) -> Result<i32> {
    let label = format!("reason=\"{reason}\"");
    count(breccia, "connections_refused", &label)
}

#[test]
fn what_is_no_login_is_told_and_counted_once() -> Result<()> {
    let cluster = shared()?;
    let certificates = Certificates::new()?;
    let tls = with_tls(&certificates);
    let extra = Extra {
        listener: &tls,
        ..Extra::default()
    };
    let port = free_port()?;
    let breccia = Breccia::start(&file(&cluster, port, extra))?;
    // Whoever only looks whether the port is open is none.
    drop(MyClient::greeted(port)?);
    let mut asks_for_tls = vec![32, 0, 0, 1, 0, 0x0a];
    asks_for_tls.resize(36, 0);
    asks_for_tls.extend(b"no handshake at all");
    let rows: &[(&[u8], &str, &str)] = &[
        (b"GET / HTTP/1.1\r\n\r\n", "login", "5522759 bytes"),
        (
            b"\x04\0\0\x01\0\x02\0\0",
            "login",
            "Malformed communication",
        ),
        (b"\x04\0\0\x07\0\x02\0\0", "login", "out of order"),
        (b"\x05\0\0\x01\x05\0\0\0\0", "login", "older than 4.1"),
        (&asks_for_tls, "tls", "the TLS handshake failed"),
    ];
    for (bytes, reason, part) in rows {
        let before = (
            turned_away(&breccia, "login")?,
            turned_away(&breccia, "tls")?,
        );
        let client = MyClient::greeted(port)?;
        client.raw()?.write_all(bytes)?;
        wait_until(LIMIT, part, || {
            let log = breccia.log();
            let told = |line: &str| line.contains("a login is refused") && line.contains(part);
            Ok(log.lines().any(told).then_some(()))
        })?;
        let login = turned_away(&breccia, "login")? - before.0;
        let tls = turned_away(&breccia, "tls")? - before.1;
        let wanted = if *reason == "tls" { [0, 1] } else { [1, 0] };
        ensure!([login, tls] == wanted, "{part}: {login} {tls}");
    }
    let log = breccia.log();
    let told = log.lines().filter(|it| it.contains("a login is refused"));
    ensure!(told.count() == rows.len(), "{log}");
    Ok(())
}

#[test]
fn a_session_that_a_limit_ends_is_told_and_counted() -> Result<()> {
    let cluster = shared()?;
    fresh(&cluster, "toldend")?;
    cluster.wait_caught_up(LIMIT)?;
    let big = "SELECT REPEAT('x', 1000) FROM seq_1_to_200000";
    let long = format!("SELECT '{}'", "x".repeat(8 << 10));
    for (limit, most, statements) in [
        ("idle-timeout", "1s", ["SELECT 1", "SELECT 2"]),
        (
            "idle-in-transaction-timeout",
            "1s",
            ["BEGIN", "SELECT 1 FOR UPDATE"],
        ),
        (
            "transaction-timeout",
            "1s",
            ["BEGIN", "SELECT 1 FOR UPDATE"],
        ),
        ("write-timeout", "1s", ["SELECT 1", big]),
        ("max-request-size", "4KiB", ["SELECT 1", &long]),
    ] {
        let listener = format!("{limit} = \"{most}\"");
        let extra = Extra {
            listener: &listener,
            ..Extra::default()
        };
        let gateway = Gateway::over(&cluster, extra)?;
        let mut client = gateway.client("toldend")?;
        client.run(statements[0])?;
        client.command(3, statements[1].as_bytes())?;
        let part = format!("limit=\"{limit}\"");
        let line = line(&gateway, &["a session is ended", &part])?;
        let who = format!("user=\"{}\"", cluster.primary().user());
        for part in [&who, "database=\"toldend\"", "listener=\"sql\""] {
            ensure!(line.contains(part), "no {part} in {line}");
        }
        let counted = count(&gateway.breccia, "limit_hits", &part)?;
        ensure!(counted == 1, "{limit}: {counted}");
    }
    Ok(())
}

#[test]
fn a_primary_that_takes_no_writes_is_told() -> Result<()> {
    let cluster = cluster()?;
    let gateway = Gateway::over(&cluster, Extra::default())?;
    let told = |path: &str, word: &str, wanted: bool| {
        wait_until(LIMIT, &format!("{word} in {path}: {wanted}"), || {
            let (code, page) = gateway.breccia.admin(path)?;
            Ok((code == 200 && page.contains(word) == wanted).then_some(()))
        })
    };
    for (value, shut) in [("OFF", false), ("ON", true), ("OFF", false)] {
        cluster.query(0, &format!("SET GLOBAL read_only = {value}"))?;
        told("/readyz", "read_only is ON at the primary", shut)?;
        told("/status", "primary_read_only", shut)?;
    }
    line(
        &gateway,
        &["read_only is ON at the primary", "primary=\"my0\""],
    )?;
    Ok(())
}

#[test]
fn a_session_that_ends_with_its_connection_is_told() -> Result<()> {
    let cluster = shared()?;
    fresh(&cluster, "toldcut")?;
    let gateway = Gateway::over(&cluster, Extra::default())?;
    let mut client = gateway.client("toldcut")?;
    client.run("BEGIN")?;
    client.run("SELECT 1 FOR UPDATE")?;
    std::thread::scope(|scope| -> Result<()> {
        let ends = scope.spawn(|| {
            wait_until(LIMIT, "a connection to end", || {
                std::thread::sleep(Duration::from_millis(200));
                Ok((cut(&cluster, 0, "toldcut")? > 0).then_some(()))
            })
        });
        let code = client.query("SELECT SLEEP(20)")?.code();
        ensure!(code == 1158, "{code}");
        ends.join().expect("no panic")
    })?;
    ensure!(client.is_closed(), "it goes on");
    line(
        &gateway,
        &["a session is ended", "code=1158", "database=\"toldcut\""],
    )?;
    Ok(())
}

#[test]
fn a_replica_that_is_gone_has_no_lag() -> Result<()> {
    let mut cluster = cluster()?;
    let gateway = Gateway::over(&cluster, Extra::default())?;
    let lags = || -> Result<String> {
        let (_, page) = gateway.breccia.admin("/metrics")?;
        let lines = page.lines();
        let lags = lines.filter(|it| it.starts_with("breccia_replica_lag_seconds"));
        Ok(lags.collect::<Vec<_>>().join("\n"))
    };
    let has = |one: bool| {
        wait_until(LIMIT, "the lag of one replica, or two", || {
            let lags = lags()?;
            let found = lags.contains("my2") && lags.contains("my1") == one;
            Ok(found.then_some(()))
        })
    };
    has(true)?;
    cluster.server_mut(1).kill9();
    has(false)?;
    cluster.server_mut(1).restart_same_port()?;
    has(true)?;
    cluster.server_mut(1).sigstop()?;
    let gone = has(false);
    cluster.server_mut(1).sigcont()?;
    gone
}

#[test]
fn an_answer_that_is_an_error_is_not_counted_as_ok() -> Result<()> {
    let cluster = shared()?;
    let extra = Extra {
        listener: "idle-timeout = \"2s\"",
        ..Extra::default()
    };
    let gateway = Gateway::over(&cluster, extra)?;
    let counted = || -> Result<[i32; 3]> {
        let of = |command: &str, outcome: &str| {
            let labels = format!("command=\"{command}\",outcome=\"{outcome}\"");
            count(&gateway.breccia, "requests", &labels)
        };
        Ok([
            of("primary", "ok")?,
            of("replica", "ok")?,
            of("any", "error")?,
        ])
    };
    let mut client = gateway.client("")?;
    for (sql, grows) in [
        ("DO 1", [1, 0, 0]),
        ("SELEC 1", [0, 0, 1]),
        ("SELECT 1 FROM mysql.no_such_table", [0, 0, 1]),
        ("SET breccia.nonsense = 1", [0, 0, 1]),
        ("SELECT 1", [0, 1, 0]),
    ] {
        let before = counted()?;
        client.query(sql)?;
        let now = counted()?;
        let grown: Vec<i32> = before.iter().zip(now).map(|(it, now)| now - it).collect();
        ensure!(grown == grows, "{sql}: {grown:?}");
    }
    // The end of one that asks nothing is no answer.
    let before = counted()?;
    line(&gateway, &["a session is ended"])?;
    ensure!(counted()? == before, "{:?}", counted()?);
    Ok(())
}

#[test]
fn a_primary_that_is_down_is_none() -> Result<()> {
    let mut cluster = cluster()?;
    let gateway = Gateway::over(&cluster, Extra::default())?;
    let mut client = gateway.client("")?;
    ensure!(client.value("SHOW breccia.primary")? == "my0");
    cluster.server_mut(0).kill9();
    wait_until(LIMIT, "no primary", || {
        let shown = client.value("SHOW breccia.primary")?;
        Ok(shown.is_empty().then_some(()))
    })?;
    let (_, page) = gateway.breccia.admin("/status")?;
    let told = page.contains("\"primary\":null") || page.contains("\"primary\": null");
    ensure!(told, "{page}");
    Ok(())
}

#[test]
fn a_schema_that_is_forbidden_is_told_with_its_user() -> Result<()> {
    let cluster = shared()?;
    let gateway = Gateway::over(&cluster, Extra::default())?;
    let refused = gateway.client("nosuchschema").map(drop);
    ensure!(refused.is_err_and(|it| format!("{it:#}").contains("1049")));
    let line = line(&gateway, &["a login is refused", "nosuchschema"])?;
    let who = format!("user {:?}: my0: ", cluster.primary().user()).replace('"', "\\\"");
    ensure!(line.contains(&who), "no {who} in {line}");
    ensure!(!line.contains("question of Breccia"), "{line}");
    Ok(())
}

#[test]
fn what_begins_or_ends_a_transaction_is_routed_as_that() -> Result<()> {
    let cluster = shared()?;
    let gateway = Gateway::over(&cluster, Extra::default())?;
    let mut client = gateway.client("")?;
    for sql in ["BEGIN", "COMMIT", "START TRANSACTION", "ROLLBACK"] {
        client.run(sql)?;
        let (server, reason) = last(&mut client)?;
        ensure!(
            (&*server, &*reason) == ("my0", "transaction"),
            "{sql}: {reason}"
        );
    }
    Ok(())
}

#[test]
fn a_client_that_compresses_unasked_is_told_not_to() -> Result<()> {
    let cluster = shared()?;
    let gateway = Gateway::over(&cluster, Extra::default())?;
    for flag in [1 << 5, 1 << 26] {
        let usual = MyLogin::default();
        let login = MyLogin {
            capabilities: usual.capabilities | flag,
            ..usual
        };
        let refused = MyClient::connect_as(gateway.port, login).map(drop);
        let told = refused.map_or_else(|it| format!("{it:#}"), |()| "a session".to_owned());
        for part in ["1043", "turns on compression (CLIENT_COMPRESS"] {
            ensure!(told.contains(part), "no {part} in {told}");
        }
    }
    line(&gateway, &["a login is refused", "CLIENT_COMPRESS"]).map(drop)
}

#[test]
fn a_login_that_waits_in_vain_is_told_for_what() -> Result<()> {
    let cluster = shared()?;
    fresh(&cluster, "toldwait")?;
    cluster.query(0, "CREATE TABLE toldwait.t (id int PRIMARY KEY)")?;
    let extra = Extra {
        listener: "pool-size = 1\nqueue-timeout = \"10500ms\"",
        ..Extra::default()
    };
    let gateway = Gateway::over(&cluster, extra)?;
    // Nobody has logged in into a schema yet, so it is not known what connections there begin with.
    let mut holder = gateway.client("")?;
    for sql in ["USE toldwait", "BEGIN", "SELECT * FROM t FOR UPDATE"] {
        holder.run(sql)?;
    }
    let guess = || {
        let login = MyLogin {
            password: "wrong",
            ..MyLogin::default()
        };
        let refused = MyClient::connect_as(gateway.port, login).map(drop);
        refused.map_or_else(|it| format!("{it:#}"), |()| "a session".to_owned())
    };
    std::thread::scope(|scope| -> Result<()> {
        let waits = scope.spawn(|| match gateway.client("toldwait") {
            Ok(_) => "a session".to_owned(),
            Err(error) => format!("{error:#}"),
        });
        std::thread::sleep(Duration::from_millis(500));
        let first: Vec<_> = (0..3).map(|_| scope.spawn(guess)).collect();
        for guess in first {
            let told = guess.join().expect("a thread without panic");
            ensure!(told.contains("1045"), "{told}");
        }
        let more: Vec<_> = (0..12).map(|_| scope.spawn(guess)).collect();
        let mut throttled = 0;
        for guess in more {
            let told = guess.join().expect("a thread without panic");
            ensure!(told.contains("1045") || told.contains("1129"), "{told}");
            throttled += u32::from(told.contains("1129") && told.contains("too many logins"));
        }
        ensure!((2..6).contains(&throttled), "{throttled} were turned away");
        let told = waits.join().expect("a thread without panic");
        for part in ["1040", "(queue-timeout); pool-size is 1"] {
            ensure!(told.contains(part), "no {part} in {told}");
        }
        Ok(())
    })
}

#[test]
fn pools_that_the_status_shows_can_be_told_apart() -> Result<()> {
    let cluster = shared()?;
    fresh(&cluster, "toldpools")?;
    cluster.wait_caught_up(LIMIT)?;
    let gateway = Gateway::over(&cluster, Extra::default())?;
    for database in ["", "toldpools"] {
        let mut client = gateway.client(database)?;
        for sql in [
            "DO 1",
            "SELECT 1",
            "START TRANSACTION READ ONLY",
            "SELECT 1",
        ] {
            client.run(sql)?;
        }
    }
    let (_, page) = gateway.breccia.admin("/status")?;
    let page: serde_json::Value = serde_json::from_str(&page)?;
    let pools = page["clusters"][0]["pools"].as_array().context("pools")?;
    let mut logins: Vec<String> = Vec::new();
    for pool in pools {
        let mut login = pool.clone();
        for count in ["idle", "open", "waiting"] {
            let count = login.as_object_mut().and_then(|it| it.remove(count));
            ensure!(count.is_some(), "{pool}");
        }
        let login = login.to_string();
        ensure!(!logins.contains(&login), "{login} twice in {pools:#?}");
        logins.push(login);
    }
    let with_schema = |it: &bool| {
        logins
            .iter()
            .any(|login| login.contains(&format!("\"with_schema\":{it}")))
    };
    ensure!([true, false].iter().all(with_schema), "{logins:#?}");
    Ok(())
}
