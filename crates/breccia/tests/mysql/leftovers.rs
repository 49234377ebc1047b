//! What a session leaves on its connection, or keeps it for, when the next one comes: ends of transactions
//! that chain, parameters that are very long, failures of which nobody knows what they left, questions.
//!
//! Invariant: nothing of one session is another's, and no session keeps what it does not need.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use breccia_testkit::{MY_OLD, MariaDbCluster, MyClient, MyValue, wait_until};

use crate::rig::{Extra, Gateway, LIMIT, fresh, login, shared};

/// Parameters of a statement that are too long for Breccia to keep.
const LONG: usize = 1_500_000;

fn over(cluster: &MariaDbCluster, database: &str, extra: Extra<'_>) -> Result<Gateway> {
    fresh(cluster, database)?;
    let sql = format!(
        "CREATE TABLE {database}.t (id int PRIMARY KEY AUTO_INCREMENT, v varchar(20)); \
         INSERT INTO {database}.t (v) VALUES ('a'), ('b'), ('c'); \
         CREATE PROCEDURE {database}.takes(IN it longtext) SELECT 42 INTO @inside; \
         CREATE PROCEDURE {database}.fails() SIGNAL SQLSTATE '45000'; \
         CREATE PROCEDURE {database}.sets() SET @@time_zone = '+06:00'; \
         CREATE SEQUENCE {database}.numbers"
    );
    cluster.query(0, &sql)?;
    Gateway::over(cluster, extra)
}

fn one_connection() -> Extra<'static> {
    Extra {
        listener: "pool-size = 1\nqueue-timeout = \"5s\"",
        ..Extra::default()
    }
}

fn count(cluster: &MariaDbCluster, database: &str, v: &str) -> Result<String> {
    let sql = format!("SELECT COUNT(*) FROM {database}.t WHERE v = '{v}'");
    Ok(cluster.query(0, &sql)?.trim().to_owned())
}

#[test]
fn a_transaction_that_chains_ends_with_its_session() -> Result<()> {
    let cluster = shared()?;
    let gateway = over(&cluster, "leftchain", one_connection())?;
    let again = login("leftchain", MY_OLD);
    for change_user in [false, true] {
        let mut first = gateway.client("leftchain")?;
        for sql in [
            "SET completion_type = 'CHAIN'",
            "BEGIN",
            "INSERT INTO t (v) VALUES ('mine')",
        ] {
            first.run(sql)?;
        }
        if change_user {
            first.change_user(again)?;
        } else {
            first.reset()?.good()?;
        }
        let mut other = gateway.client("leftchain")?;
        let reply = other.run("INSERT INTO t (v) VALUES ('theirs')")?;
        ensure!(reply.status() & 1 == 0, "{change_user}: in a transaction");
        drop((other, first));
        ensure!(count(&cluster, "leftchain", "mine")? == "0");
        ensure!(count(&cluster, "leftchain", "theirs")? == "1");
        cluster.query(0, "DELETE FROM leftchain.t WHERE v = 'theirs'")?;
    }
    Ok(())
}

#[test]
fn a_read_only_transaction_that_chains_leaves_its_replica_to_others() -> Result<()> {
    let cluster = shared()?;
    let gateway = over(&cluster, "leftaway", one_connection())?;
    let mut first = gateway.client("leftaway")?;
    for round in 0..4 {
        first.run("SET completion_type = 'CHAIN'")?;
        first.run("START TRANSACTION READ ONLY")?;
        first.run("SELECT v FROM t")?;
        ensure!(first.value("SHOW breccia.server")? != "my0");
        first.run(&format!("CREATE TABLE made{round} (id int)"))?;
        for _ in 0..4 {
            let mut other = gateway.client("leftaway")?;
            // What is known of the tables is read anew first.
            wait_until(LIMIT, "a read on a replica", || {
                other.run("SELECT v FROM t WHERE id = 1")?;
                let server = other.value("SHOW breccia.server")?;
                Ok((server != "my0").then_some(()))
            })?;
            other.run("INSERT INTO t (v) VALUES ('w')")?;
        }
        wait_until(LIMIT, "a read on a replica", || {
            first.run("SELECT v FROM t")?;
            Ok((first.value("SHOW breccia.server")? != "my0").then_some(()))
        })?;
    }
    Ok(())
}

/// Runs a statement with a long parameter, or says what was refused.
fn long(client: &mut MyClient, sql: &str) -> Result<String> {
    let value = "x".repeat(LONG);
    let reply = client.once(sql, &[MyValue::Bytes(value.as_bytes())])?;
    let text = reply.text().unwrap_or_default();
    Ok(format!("{} {text}", reply.code()))
}

#[test]
fn what_binds_a_session_does_so_with_long_parameters_too() -> Result<()> {
    let cluster = shared()?;
    let gateway = over(&cluster, "leftlong", one_connection())?;
    for (sql, asked, alone) in [
        (
            "SELECT LENGTH(@leak := ?)",
            "SELECT IFNULL(LENGTH(@leak), 'none')",
            "none",
        ),
        (
            "SELECT GET_LOCK('leftlong', 0), LENGTH(?)",
            "SELECT IS_FREE_LOCK('leftlong')",
            "1",
        ),
        ("CALL takes(?)", "SELECT IFNULL(@inside, 'none')", "none"),
        (
            "SET @@time_zone = IF(LENGTH(?) > 1, '+05:00', 'x')",
            "SELECT IF(@@time_zone = '+05:00', 'kept', 'none')",
            "none",
        ),
    ] {
        let mut direct = MyClient::connect(cluster.server(0).port(), "leftlong")?;
        long(&mut direct, sql)?;
        let expected = direct.value(asked)?;
        drop(direct);
        let mut first = gateway.client("leftlong")?;
        let told = long(&mut first, sql)?;
        let found = first.value(asked)?;
        ensure!(
            found == expected,
            "{sql}: {told}, {found} and not {expected}"
        );
        drop(first);
        wait_until(LIMIT, &format!("{sql}: nothing of it"), || {
            let mut other = gateway.client("leftlong")?;
            other.run("DO 1")?;
            Ok((other.value(asked)? == alone).then_some(()))
        })?;
    }
    let mut asks = gateway.client("leftlong")?;
    asks.run("SELECT v FROM t")?;
    let told = long(&mut asks, "SELECT FOUND_ROWS(), LENGTH(?)")?;
    ensure!(told.starts_with("1105 ") || told == "0 3", "{told}");
    Ok(())
}

#[test]
fn rows_of_a_cursor_are_fetched_though_its_parameters_are_long() -> Result<()> {
    let cluster = shared()?;
    let gateway = over(&cluster, "leftcursor", one_connection())?;
    let mut client = gateway.client("leftcursor")?;
    let sql = "SELECT id FROM t WHERE LENGTH(?) > 1 ORDER BY id";
    let statement = client.prepare(sql)?.ok().context("prepared")?;
    let value = "x".repeat(LONG);
    // A cursor that only reads.
    let opened = client.execute_as(statement.id, &[MyValue::Bytes(value.as_bytes())], 1, true)?;
    ensure!(opened.fault.is_none(), "{:?}", opened.fault);
    let rows = client.fetch(statement.id, 10)?;
    ensure!(rows.fault.is_none(), "{:?}", rows.fault);
    client.close(&statement)?;
    client.run("INSERT INTO t (v) VALUES ('after')")?;
    Ok(())
}

#[test]
fn a_failed_statement_keeps_no_connection_unless_something_is_open() -> Result<()> {
    let cluster = shared()?;
    let extra = Extra {
        listener: "pool-size = 2\nqueue-timeout = \"8s\"\ntransaction-timeout = \"3s\"",
        ..Extra::default()
    };
    let gateway = over(&cluster, "leftfailed", extra)?;
    let mut clients = Vec::new();
    for sql in [
        "CALL fails()",
        "DO 1; SELECT nothing",
        "SELECT no_such_function()",
    ] {
        // Each needs one that the last has left.
        let mut client = gateway.client("leftfailed")?;
        ensure!(client.query(sql)?.code() != 0, "{sql}");
        clients.push((client, sql));
        let mut other = gateway.client("leftfailed")?;
        other.run("INSERT INTO t (v) VALUES ('o')")?;
    }
    gateway.post("/stores/db/pause")?;
    gateway.post("/stores/db/resume")?;
    thread::sleep(Duration::from_secs(4));
    for (client, sql) in &mut clients {
        let goes_on = client.query("SELECT v FROM t WHERE id = 1");
        ensure!(
            goes_on.is_ok_and(|it| it.fault.is_none()),
            "{sql}: it was ended"
        );
    }
    // What is open stays open.
    let mut open = gateway.client("leftfailed")?;
    open.run("SET autocommit = 0")?;
    open.run("INSERT INTO t (v) VALUES ('open')")?;
    ensure!(open.query("CALL fails()")?.code() == 1644);
    thread::sleep(Duration::from_millis(1500));
    let reply = open.run("INSERT INTO t (v) VALUES ('open')")?;
    ensure!(reply.status() & 1 != 0, "nothing is open");
    open.run("ROLLBACK")?;
    ensure!(count(&cluster, "leftfailed", "open")? == "0");
    Ok(())
}

#[test]
fn who_asks_late_lets_others_have_the_connection() -> Result<()> {
    let cluster = shared()?;
    let extra = Extra {
        listener: "pool-size = 1\nqueue-timeout = \"8s\"",
        ..Extra::default()
    };
    let gateway = over(&cluster, "leftlate", extra)?;
    let mut late = gateway.client("leftlate")?;
    late.run("INSERT INTO t (v) VALUES ('l')")?;
    thread::sleep(Duration::from_millis(1500));
    ensure!(late.query("SELECT ROW_COUNT()")?.code() == 1105);
    thread::scope(|scope| -> Result<()> {
        let writes = scope.spawn(|| -> Result<()> {
            for _ in 0..3 {
                let mut other = gateway.client("leftlate")?;
                other.run("INSERT INTO t (v) VALUES ('o')")?;
            }
            Ok(())
        });
        let begun = Instant::now();
        while !writes.is_finished() && begun.elapsed() < Duration::from_secs(25) {
            late.query("SELECT v FROM t FOR UPDATE")?;
            thread::sleep(Duration::from_millis(500));
        }
        writes.join().expect("no panic")
    })
}

#[test]
fn what_breccia_answers_itself_is_the_statement_before() -> Result<()> {
    let cluster = shared()?;
    let gateway = over(&cluster, "leftown", Extra::default())?;
    for (sql, asked) in [
        ("SELECT CONNECTION_ID()", "SELECT FOUND_ROWS()"),
        ("SELECT CONNECTION_ID()", "SELECT ROW_COUNT()"),
        ("KILL 1999999999", "SELECT ROW_COUNT()"),
        ("KILL 1999999999", "SHOW COUNT(*) WARNINGS"),
        ("VALUES (1), (2)", "SELECT FOUND_ROWS()"),
        (
            "UPDATE t a, t b SET a.v = 'm' WHERE a.id = b.id AND a.id < 3",
            "SELECT FOUND_ROWS()",
        ),
    ] {
        let mut direct = MyClient::connect(cluster.server(0).port(), "leftown")?;
        let mut client = gateway.client("leftown")?;
        for it in [&mut direct, &mut client] {
            it.run("UPDATE t SET v = CONCAT(v, 'x') WHERE id < 3")?;
            it.run("SELECT v FROM t WHERE 1 / 0 IS NULL")?;
            it.query(sql)?;
        }
        let expected = direct.value(asked)?;
        let found = client.query(asked)?;
        let right = found.text().as_deref() == Some(expected.as_str());
        ensure!(
            found.code() == 1105 || right,
            "{sql}, {asked}: {:?}",
            found.text()
        );
    }
    Ok(())
}

#[test]
fn what_is_set_for_one_transaction_is_not_for_the_next() -> Result<()> {
    let cluster = shared()?;
    let extra = Extra {
        composite: "transactions = \"lazy\"",
        ..Extra::default()
    };
    let gateway = over(&cluster, "leftnext", extra)?;
    let mut client = gateway.client("leftnext")?;
    client.run("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED")?;
    for sql in ["SET TRANSACTION READ ONLY", "BEGIN", "BEGIN"] {
        client.run(sql)?;
    }
    client.run("INSERT INTO t (v) VALUES ('next')")?;
    client.run("COMMIT")?;
    ensure!(count(&cluster, "leftnext", "next")? == "1");
    Ok(())
}

#[test]
fn a_session_without_autocommit_waits_for_a_primary_with_its_write() -> Result<()> {
    let cluster = shared()?;
    let extra = Extra {
        composite: "transactions = \"lazy\"",
        ..Extra::default()
    };
    let gateway = over(&cluster, "leftoff", extra)?;
    let mut client = gateway.client("leftoff")?;
    client.run("SELECT v FROM t")?;
    breccia_testkit::http(gateway.breccia.admin_port(), "POST", "/stores/my0/pause")?;
    thread::scope(|scope| -> Result<()> {
        let resumes = scope.spawn(|| {
            thread::sleep(Duration::from_millis(1500));
            gateway.post("/stores/my0/resume")
        });
        for sql in [
            "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED",
            "SET autocommit = 0",
            "SELECT COUNT(*) FROM t",
            "INSERT INTO t (v) VALUES ('waits')",
            "COMMIT",
        ] {
            client.run(sql)?;
        }
        resumes.join().expect("no panic")
    })?;
    ensure!(count(&cluster, "leftoff", "waits")? == "1");
    Ok(())
}

#[test]
fn a_client_that_is_never_silent_is_ended_for_its_transaction_too() -> Result<()> {
    let cluster = shared()?;
    let extra = Extra {
        listener: "transaction-timeout = \"2s\"",
        ..Extra::default()
    };
    let gateway = over(&cluster, "leftbusy", extra)?;
    let mut client = gateway.client("leftbusy")?;
    client.run("BEGIN")?;
    // Some are always there already when the one before is answered.
    for _ in 0..5000 {
        client.command(3, b"SELECT 1 FOR UPDATE")?;
    }
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(6) {
        client.command(3, b"SELECT 1 FOR UPDATE")?;
        let reply = client.results(false)?;
        if reply.code() == 1927 {
            return Ok(());
        }
    }
    anyhow::bail!("it goes on")
}

/// What is left in a row on each server.
fn everywhere(cluster: &MariaDbCluster, database: &str, v: &str) -> Result<Vec<String>> {
    let sql = format!("SELECT COUNT(*) FROM {database}.t WHERE v LIKE '{v}%'");
    (0..3)
        .map(|server| Ok(cluster.query(server, &sql)?.trim().to_owned()))
        .collect()
}

#[test]
fn nothing_that_binds_or_writes_reaches_a_replica_by_a_read_only_transaction() -> Result<()> {
    let cluster = shared()?;
    let gateway = over(&cluster, "leftro", Extra::default())?;
    let mut owner = MyClient::connect(cluster.server(0).port(), "leftro")?;
    owner.run(
        "CREATE PROCEDURE writes(x varchar(20) CHARACTER SET utf8mb4) BEGIN \
         START TRANSACTION READ WRITE; INSERT INTO t (v) VALUES (x); COMMIT; END",
    )?;
    cluster.wait_caught_up(LIMIT)?;
    for sql in [
        "CALL writes(?)",
        "SELECT ? INTO @y",
        "SET @x = ?",
        "SELECT GET_LOCK(?, 0)",
    ] {
        let mut client = gateway.client("leftro")?;
        let statement = client.prepare(sql)?.ok().context("prepared")?;
        client.run("START TRANSACTION READ ONLY")?;
        client.run("SELECT v FROM t")?;
        ensure!(client.value("SHOW breccia.server")? != "my0");
        client.long_data(statement.id, 0, b"ro-ahead")?;
        let code = client.execute(&statement, &[MyValue::Long])?.code();
        ensure!(code == 1105, "{sql}: {code}");
        client.run("COMMIT")?;
    }
    // A character of two bytes in a set where the second may look like a backslash.
    for sql in [
        &b"CALL writes('ro-\xd6\xd0')"[..],
        b"START TRANSACTION READ WRITE /* \xd6\xd0 */; INSERT INTO t (v) VALUES ('ro-w')",
        b"SET GLOBAL max_error_count = 70 /* \xd6\xd0 */",
    ] {
        let mut client = gateway.client("leftro")?;
        client.run("SET NAMES gbk")?;
        client.run("START TRANSACTION READ ONLY")?;
        client.run("SELECT v FROM t")?;
        for part in sql.split(|it| *it == b';') {
            client.command(3, part)?;
            client.results(false)?;
        }
    }
    cluster.wait_caught_up(LIMIT)?;
    let rows = everywhere(&cluster, "leftro", "ro-")?;
    ensure!(rows[1] == rows[0] && rows[2] == rows[0], "{rows:?}");
    for server in 1..3 {
        let count = cluster.query(server, "SELECT @@global.max_error_count")?;
        ensure!(count.trim() == "64", "{count}");
    }
    Ok(())
}

#[test]
fn what_a_failed_routine_began_in_another_character_set_goes_on() -> Result<()> {
    let cluster = shared()?;
    let gateway = over(&cluster, "leftgbk", Extra::default())?;
    let mut owner = MyClient::connect(cluster.server(0).port(), "leftgbk")?;
    owner.run(
        "CREATE PROCEDURE begins(x varchar(20) CHARACTER SET utf8mb4) BEGIN START TRANSACTION; \
         INSERT INTO t (v) VALUES ('begun'); SIGNAL SQLSTATE '45000'; END",
    )?;
    for (end, left) in [("COMMIT", "2"), ("ROLLBACK", "2")] {
        let mut client = gateway.client("leftgbk")?;
        client.run("SET NAMES gbk")?;
        client.command(3, b"CALL begins('\xd6\xd0')")?;
        ensure!(client.results(false)?.code() == 1644);
        thread::sleep(Duration::from_millis(1400));
        client.run("INSERT INTO t (v) VALUES ('begun')")?;
        client.run(end)?;
        let count = count(&cluster, "leftgbk", "begun")?;
        ensure!(count == left, "{end}: {count}");
    }
    Ok(())
}

#[test]
fn a_long_execution_that_is_refused_holds_no_connection() -> Result<()> {
    let cluster = shared()?;
    let gateway = over(&cluster, "leftheld", Extra::default())?;
    let mut client = gateway.client("leftheld")?;
    let statement = client.prepare("SET @x = ?")?.ok().context("prepared")?;
    client.run("START TRANSACTION READ ONLY")?;
    client.run("SELECT v FROM t")?;
    let value = "x".repeat(LONG);
    let code = client
        .execute(&statement, &[MyValue::Bytes(value.as_bytes())])?
        .code();
    ensure!(code == 1105, "{code}");
    client.run("COMMIT")?;
    thread::sleep(Duration::from_millis(300));
    for server in ["my1", "my2"] {
        gateway.post(&format!("/stores/{server}/pause"))?;
        gateway.post(&format!("/stores/{server}/resume"))?;
    }
    Ok(())
}

#[test]
fn what_a_routine_has_set_holds_for_the_next_read() -> Result<()> {
    let cluster = shared()?;
    for listener in ["", "pool-mode = \"session\""] {
        let extra = Extra {
            listener,
            ..Extra::default()
        };
        let gateway = over(&cluster, "leftzone", extra)?;
        let mut client = gateway.client("leftzone")?;
        client.run("CALL sets()")?;
        for _ in 0..3 {
            let hour = client.value("SELECT HOUR(FROM_UNIXTIME(0)) FROM t LIMIT 1")?;
            ensure!(hour == "6", "{listener}: {hour}");
        }
    }
    Ok(())
}

#[test]
fn failures_are_no_transaction_and_keep_no_connection_from_others() -> Result<()> {
    let cluster = shared()?;
    let extra = Extra {
        listener: "pool-size = 1\nqueue-timeout = \"4s\"\ntransaction-timeout = \"2s\"",
        ..Extra::default()
    };
    let gateway = over(&cluster, "leftstream", extra)?;
    for (before, sql) in [
        ("DO 1", "CALL fails()"),
        ("SET autocommit = 0", "SELECT v FROM nothing"),
        ("DO 1", "INSERT IGNORE INTO t VALUES (1, 'again')"),
    ] {
        let mut client = gateway.client("leftstream")?;
        client.run(before)?;
        thread::scope(|scope| -> Result<()> {
            let other = scope.spawn(|| -> Result<()> {
                thread::sleep(Duration::from_millis(500));
                let mut other = gateway.client("leftstream")?;
                other.run("UPDATE t SET v = 'o' WHERE id = 3").map(drop)
            });
            let begun = Instant::now();
            while begun.elapsed() < Duration::from_secs(4) {
                let code = client.query(sql)?.code();
                ensure!(code != 1927, "{sql}: it is ended");
                thread::sleep(Duration::from_millis(50));
            }
            other
                .join()
                .expect("no panic")
                .with_context(|| sql.to_owned())
        })?;
    }
    Ok(())
}

#[test]
fn settings_are_brought_wherever_a_statement_was_prepared() -> Result<()> {
    let cluster = shared()?;
    let gateway = over(&cluster, "leftset", Extra::default())?;
    for sets in [
        "SET NAMES utf8mb3; SET collation_connection = 'utf8mb4_unicode_ci'",
        "SET enforce_storage_engine = DEFAULT",
        "SET default_tmp_storage_engine = DEFAULT",
        "SET sql_log_bin = 1; BEGIN",
        "SET gtid_domain_id = 0; BEGIN",
        "SET binlog_format = 'ROW'; BEGIN",
    ] {
        let mut client = gateway.client("leftset")?;
        let read = client
            .prepare("SELECT v FROM t WHERE id = ?")?
            .ok()
            .context("prepared")?;
        let write = client
            .prepare("UPDATE t SET v = v WHERE id = ?")?
            .ok()
            .context("prepared")?;
        client.execute(&read, &[MyValue::Int(1)])?.good()?;
        for sql in sets.split("; ") {
            client.run(sql)?;
        }
        for statement in [&read, &write, &read] {
            let done = client.execute(statement, &[MyValue::Int(1)])?.good();
            done.with_context(|| sets.to_owned())?;
        }
        client
            .run("SELECT v FROM t")
            .with_context(|| sets.to_owned())?;
    }
    Ok(())
}

#[test]
fn the_last_number_of_a_sequence_is_the_sessions_own() -> Result<()> {
    let cluster = shared()?;
    let gateway = over(&cluster, "leftnumber", one_connection())?;
    let mut own = gateway.client("leftnumber")?;
    own.run("BEGIN")?;
    let taken = own.value("SELECT NEXTVAL(numbers)")?;
    own.run("SELECT v FROM t")?;
    ensure!(own.value("SELECT LASTVAL(numbers)")? == taken);
    drop(own);
    for before in ["DO 1", "BEGIN", "SET @a = 1"] {
        let mut first = gateway.client("leftnumber")?;
        first.run("SELECT NEXTVAL(numbers)")?;
        drop(first);
        let mut other = gateway.client("leftnumber")?;
        other.run(before)?;
        let code = other.query("SELECT LASTVAL(numbers)")?.code();
        ensure!(code == 1105, "{before}: {code}");
    }
    Ok(())
}
