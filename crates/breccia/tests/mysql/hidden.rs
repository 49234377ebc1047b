//! What runs behind a statement (procedures, stored functions, triggers) leaves its traces with its own
//! session, whether the servers tell of them or not.
//!
//! Not what a text itself says. Invariant: no other session is ever shown such a trace, and its own is
//! shown what a session alone on one connection would be.

use anyhow::{Context, Result, ensure};
use breccia_testkit::{MyClient, wait_until};

use crate::rig::{Extra, Gateway, LIMIT, fresh, shared};

const PROGRAMS: &[&str] = &[
    "CREATE TABLE t (id int PRIMARY KEY)",
    "CREATE TABLE plain (id int AUTO_INCREMENT PRIMARY KEY)",
    "INSERT INTO t VALUES (1)",
    "CREATE TRIGGER noted BEFORE INSERT ON t FOR EACH ROW SET @mark = CONCAT('t', NEW.id)",
    "CREATE PROCEDURE sets() SET @mark = 'sets'",
    "CREATE PROCEDURE also() BEGIN SET time_zone = '+03:00'; SET @mark = 'also'; END",
    "CREATE PROCEDURE selects() SELECT 'selects' INTO @mark",
    "CREATE PROCEDURE assigns() BEGIN DECLARE n varchar(9); SET n = (SELECT @mark := 'assigns'); END",
    "CREATE PROCEDURE fails() BEGIN SET time_zone = '+05:00'; SET @mark = 'fails'; \
     SIGNAL SQLSTATE '45000'; END",
    "CREATE FUNCTION finds() RETURNS int DETERMINISTIC \
     BEGIN SELECT 'finds' INTO @mark; RETURN 1; END",
    "CREATE VIEW vw AS SELECT finds() AS n",
    "CREATE TABLE quiet (id int PRIMARY KEY)",
    "CREATE TRIGGER found BEFORE INSERT ON quiet FOR EACH ROW \
     BEGIN DECLARE n int; SELECT CONCAT('q', NEW.id) INTO @mark; END",
];

/// A gateway of so many connections to each server, over a database with such programs.
fn hidden(database: &str, size: usize) -> Result<Gateway> {
    let cluster = shared()?;
    fresh(&cluster, database)?;
    let mut primary = MyClient::connect(cluster.primary().port(), database)?;
    for sql in PROGRAMS {
        primary.run(sql).with_context(|| (*sql).to_owned())?;
    }
    cluster.wait_caught_up(LIMIT)?;
    let extra = Extra {
        listener: &format!("pool-size = {size}\nqueue-timeout = \"20s\""),
        ..Extra::default()
    };
    Gateway::over(&cluster, extra)
}

/// Each statement, whether it succeeds, and what it leaves in `@mark`.
const LEAVE: &[(&str, bool, &str)] = &[
    ("CALL sets()", true, "sets"),
    ("CALL also()", true, "also"),
    ("CALL selects()", true, "selects"),
    ("CALL assigns()", true, "assigns"),
    ("CALL fails()", false, "fails"),
    ("INSERT INTO t VALUES (1)", false, "t1"),
    ("INSERT INTO quiet VALUES (2)", true, "q2"),
    ("INSERT INTO quiet VALUES (2)", false, "q2"),
    ("SELECT finds()", true, "finds"),
    ("SELECT * FROM vw", true, "finds"),
    (
        "INSERT INTO plain (id) VALUES (finds() + 40)",
        true,
        "finds",
    ),
    ("SELECT 1; CALL also()", true, "also"),
];

fn expect(client: &mut MyClient, sql: &str, expected: &str) -> Result<()> {
    let found = client.value(sql)?;
    ensure!(found == expected, "{sql}: {found} instead of {expected}");
    Ok(())
}

/// Sessions that use the connections to the primary, and see nothing of anybody.
fn others_see_nothing(gateway: &Gateway) -> Result<()> {
    for _ in 0..4 {
        let mut other = gateway.client("hidden")?;
        other.run("INSERT INTO plain () VALUES ()")?;
        expect(&mut other, "SELECT @@time_zone", "SYSTEM")?;
        expect(&mut other, "SELECT @mark", "NULL")?;
    }
    Ok(())
}

fn leaves(
    gateway: &Gateway,
    (sql, succeeds, mark): (&str, bool, &str),
    binary: bool,
) -> Result<()> {
    let mut owner = gateway.client("hidden")?;
    let reply = if binary {
        owner.once(sql, &[])?
    } else {
        owner.query(sql)?
    };
    ensure!(reply.fault.is_none() == succeeds, "{:?}", reply.fault);
    if sql.ends_with("fails()") {
        // Until then a transaction might be open.
        owner.run("DO 0")?;
    }
    // At the latest when its connection would go to others, the session is known to need it.
    wait_until(LIMIT / 6, "the session to keep its connection", || {
        let pinned = owner.value("SHOW breccia.pinned")?;
        Ok((!pinned.is_empty()).then_some(()))
    })?;
    others_see_nothing(gateway)?;
    expect(&mut owner, "SELECT @mark", mark)?;
    let zone = match mark {
        "also" => "+03:00",
        "fails" => "+05:00",
        _ => "SYSTEM",
    };
    expect(&mut owner, "SELECT @@time_zone", zone)?;
    drop(owner);
    others_see_nothing(gateway)
}

#[test]
fn what_runs_out_of_sight_leaves_its_variables_with_its_session() -> Result<()> {
    let cluster = shared()?;
    let gateway = hidden("hidden", 2)?;
    let mut bad = Vec::new();
    for row in LEAVE {
        for binary in [false, true] {
            if binary && row.0.contains(';') {
                continue;
            }
            cluster.query(0, "DELETE FROM hidden.quiet WHERE id <> 2")?;
            if row.1 {
                cluster.query(0, "DELETE FROM hidden.quiet; DELETE FROM hidden.plain")?;
            }
            let left = leaves(&gateway, *row, binary);
            bad.extend(left.err().map(|it| format!("{}, {binary}: {it:#}", row.0)));
        }
    }
    ensure!(bad.is_empty(), "{bad:#?}");
    Ok(())
}

#[test]
fn what_leaves_nothing_keeps_no_connection() -> Result<()> {
    let _cluster = shared()?;
    let gateway = hidden("unhidden", 1)?;
    let mut client = gateway.client("unhidden")?;
    let mut other = gateway.client("unhidden")?;
    for sql in [
        "INSERT INTO plain (id) VALUES (5)",
        "INSERT INTO plain (id) VALUES (5)",
        "SELECT * FROM nowhere",
        "DELETE FROM nowhere",
        "SET time_zone = '+01:00'",
        "SET time_zone = '+02:00'; INSERT INTO plain (id) VALUES (1000)",
    ] {
        client.query(sql)?;
        // There is one connection, and the other session gets it.
        other
            .run("INSERT INTO plain () VALUES ()")
            .with_context(|| format!("after {sql}"))?;
        let pinned = client.value("SHOW breccia.pinned")?;
        ensure!(pinned.is_empty(), "{sql}: {pinned}");
    }
    Ok(())
}
