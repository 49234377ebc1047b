//! Questions about what the session did before, with something else in between.
//!
//! Invariant: the answer is that of one server alone, or an error (1105) that says that it is not known;
//! it is never another connection's.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use breccia_testkit::{MariaDbCluster, MyClient, MyReply, wait_until};

use crate::rig::{Extra, Gateway, LIMIT, fresh, shared, together};

/// The code of an error of Breccia's own.
const NOT_KNOWN: u16 = 1105;

/// What is asked about.
const FIRST: &[&str] = &[
    "SELECT SQL_CALC_FOUND_ROWS id FROM t LIMIT 2",
    "SELECT id FROM t WHERE id < 4",
    "SELECT id FROM t UNION SELECT 99",
    "SELECT COUNT(*) FROM t",
    "SELECT 1/0 + id FROM t WHERE id < 6",
    "SELECT 1/0",
    "SELECT CAST('x' AS SIGNED) FROM t LIMIT 3",
    "INSERT IGNORE INTO t VALUES (1, 'again')",
    "INSERT IGNORE INTO w SELECT id, 'x' FROM t WHERE id < 4",
    "UPDATE w SET v = CONCAT(v, 'y') WHERE id < 3",
    "SELECT nothing FROM t",
    "INSERT INTO t VALUES (1, 'again')",
    "SHOW TABLES",
];

/// What may stand in between, or in front.
const BETWEEN: &[&str] = &[
    "UPDATE w SET v = CONCAT(v, 'z') WHERE id = 1",
    "INSERT INTO w VALUES (7, 'more')",
    "INSERT INTO w SELECT 8, v FROM t LIMIT 2",
    "DELETE FROM w WHERE id > 5",
    "DELETE FROM w WHERE id IN (SELECT id FROM t WHERE id > 5)",
    "SET @@SESSION.sort_buffer_size = 300000",
    "SET NAMES utf8mb4",
    "SET SESSION max_error_count = (SELECT 64)",
    "SET TRANSACTION ISOLATION LEVEL READ COMMITTED",
    "SELECT @@autocommit",
    "SELECT 1",
    "SELECT v FROM t WHERE id = 3",
    "SELECT (SELECT COUNT(*) FROM t)",
    "BEGIN",
    "START TRANSACTION READ ONLY",
    "COMMIT",
    "ROLLBACK",
    "SAVEPOINT one",
    "USE earlier",
    "SHOW VARIABLES LIKE 'sql_mode'",
    "SHOW STATUS LIKE 'Uptime_since_flush_status_none'",
    "SHOW CREATE TABLE t",
    "SHOW GRANTS",
    "SHOW FULL COLUMNS FROM t",
    "SELECT 1 FROM DUAL",
    "SHOW INDEX FROM t",
    "CREATE TEMPORARY TABLE IF NOT EXISTS tt AS SELECT id FROM t",
    "PREPARED SELECT 1",
    "PREPARED SELECT id FROM t WHERE id < 3",
    "DO 1",
    "EXPLAIN SELECT id FROM t",
    "SELECT FOUND_ROWS()",
    "SELECT ROW_COUNT()",
    "SHOW WARNINGS",
    "SELECT @@warning_count",
    "SELECT 1; SELECT id FROM t LIMIT 4",
    "UPDATE w SET v = 'q' WHERE id = 1; SELECT 1/0",
    "CALL p()",
    "SELECT f()",
    "EXPLAIN SELECT f() FROM t",
    "/*! CHECK TABLE t */",
    "CHECK TABLE t; CHECK TABLE w",
    "INSERT INTO w VALUES (7, 'r') RETURNING id",
    "SELECT SLEEP(0)",
    "SELECT USER() > 'a'",
    "DELETE FROM nosuch",
    "PING",
];

const QUESTIONS: &[&str] = &[
    "SELECT FOUND_ROWS()",
    "SELECT ROW_COUNT()",
    "SHOW WARNINGS",
    "SHOW COUNT(*) WARNINGS",
    "SELECT @@warning_count, @@error_count",
    "SELECT FOUND_ROWS(), @@warning_count",
    "PREPARED SELECT FOUND_ROWS()",
    "PREPARED SELECT ROW_COUNT()",
    "DO 1; SELECT FOUND_ROWS()",
    "DO 1; SHOW WARNINGS",
    "SELECT @@`warning_count`",
];

fn prepare(cluster: &MariaDbCluster) -> Result<()> {
    prepare_one(cluster, "earlier")?;
    prepare_one(cluster, "earlier_direct")
}

fn prepare_one(cluster: &MariaDbCluster, database: &str) -> Result<()> {
    fresh(cluster, database)?;
    let sql = "CREATE TABLE ?.t (id int PRIMARY KEY, v varchar(20)); \
               INSERT INTO ?.t SELECT seq, 'a' FROM seq_1_to_16; \
               CREATE TABLE ?.w (id int, v text); \
               CREATE PROCEDURE ?.p() SELECT id FROM ?.t LIMIT 5; \
               CREATE FUNCTION ?.f() RETURNS int DETERMINISTIC RETURN (SELECT COUNT(*) FROM ?.t)";
    cluster.query(0, &sql.replace('?', database))?;
    cluster.wait_caught_up(LIMIT)
}

/// A session whose table is as at the beginning.
fn begin(mut client: MyClient) -> Result<MyClient> {
    client.run("DELETE FROM w")?;
    client.run("INSERT INTO w VALUES (1, 'a'), (2, 'b'), (3, 'c')")?;
    Ok(client)
}

/// Runs one statement.
fn run(client: &mut MyClient, sql: &str) -> Result<MyReply> {
    match sql {
        "PING" => client.ping(),
        sql => match sql.strip_prefix("PREPARED ") {
            Some(sql) => client.once(sql, &[]),
            None => client.query(sql),
        },
    }
}

fn seen(reply: &MyReply) -> String {
    match &reply.fault {
        Some(fault) => fault.code.to_string(),
        None => format!("{:?}", reply.rows()).replace("earlier_direct", "earlier"),
    }
}

/// Sequences of statements, the last of each a question.
fn sequences() -> Vec<Vec<&'static str>> {
    let mut all = Vec::new();
    for first in FIRST {
        for question in QUESTIONS {
            all.push(vec![*first, *question]);
            for between in BETWEEN {
                all.push(vec![*first, *between, *question]);
            }
        }
    }
    // Longer ones, drawn by a fixed rule.
    let mut drawn: u32 = 7;
    let mut draw = |texts: &'static [&'static str]| {
        drawn = drawn.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let at = usize::try_from(drawn >> 8).unwrap_or(0) % texts.len();
        texts.get(at).copied().unwrap_or("DO 1")
    };
    for _ in 0..1_000 {
        let mut one = vec![draw(FIRST)];
        for _ in 0..2 {
            one.push(draw(BETWEEN));
        }
        one.push(draw(FIRST));
        one.push(draw(BETWEEN));
        one.push(draw(QUESTIONS));
        all.push(one);
    }
    all
}

#[test]
fn what_is_asked_about_statements_before_is_answered_as_by_one_server_or_refused() -> Result<()> {
    let cluster = shared()?;
    prepare(&cluster)?;
    let gateway = Gateway::over(&cluster, Extra::default())?;
    gateway.wait_reads(&cluster)?;

    let (mut refused, mut wrong) = (Vec::new(), Vec::new());
    let sequences = sequences();
    for sequence in &sequences {
        let mut direct = begin(MyClient::connect(
            cluster.server(0).port(),
            "earlier_direct",
        )?)?;
        let mut through = begin(gateway.client("earlier")?)?;
        for sql in sequence {
            let expected = run(
                &mut direct,
                &sql.replace("USE earlier", "USE earlier_direct"),
            )?;
            let found = run(&mut through, sql)?;
            if found.code() == NOT_KNOWN && expected.code() != NOT_KNOWN {
                refused.push(sequence);
                break;
            }
            if !asks(sql) {
                continue;
            }
            if seen(&expected) != seen(&found) {
                wrong.push(format!(
                    "{sequence:?}: {sql}: {} and not {}",
                    seen(&found),
                    seen(&expected)
                ));
                break;
            }
        }
        direct.run("ROLLBACK")?;
    }
    println!(
        "{} sequences, {} refused, {} wrong",
        sequences.len(),
        refused.len(),
        wrong.len()
    );
    for sequence in refused.iter().filter(|it| it.len() < 4) {
        println!("refused: {sequence:?}");
    }
    for line in &wrong {
        println!("{line}");
    }
    ensure!(wrong.is_empty(), "{} wrong answers", wrong.len());
    // Rows that nobody has selected are not known either.
    let counts = |it: &Vec<&str>| {
        // Several statements, and what cannot be cut, run on the primary, whoever knows.
        if it.iter().any(|sql| sql.contains([';', '`'])) {
            return false;
        }
        it.first()
            .is_some_and(|sql| sql.starts_with("SELECT") && !sql.contains("nothing"))
            || it.get(1).is_some_and(|sql| !sql.contains("FOUND_ROWS"))
    };
    let at_once = refused.iter().find(|it| it.len() == 2 && counts(it));
    ensure!(at_once.is_none(), "asked at once: {at_once:?}");
    ensure!(refused.len() * 3 < sequences.len(), "{}", refused.len());
    sequences.first().map(drop).context("no sequence")
}

/// Sessions that all ask, over a pool with fewer connections: each gets on, and is told nothing wrong.
#[test]
fn those_who_ask_share_a_pool_that_is_too_small_for_them() -> Result<()> {
    let cluster = shared()?;
    fresh(&cluster, "crowd")?;
    let sql = "CREATE TABLE crowd.w (id int PRIMARY KEY, n int); \
               INSERT INTO crowd.w SELECT seq, 0 FROM seq_1_to_20";
    cluster.query(0, sql)?;
    cluster.wait_caught_up(LIMIT)?;
    let extra = Extra {
        listener: "pool-size = 3\nqueue-timeout = \"10s\"",
        ..Extra::default()
    };
    let gateway = Gateway::over(&cluster, extra)?;
    let (right, finished) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let begun = Instant::now();
    together(12, |number| {
        let mut client = gateway.client("crowd")?;
        for round in 1..=20 {
            let count = 1 + (number + round) % 5;
            let sql = format!("UPDATE w SET n = n + 1 WHERE id <= {count}");
            client.run(&sql)?;
            let reply = client.query("SELECT ROW_COUNT()")?;
            match reply.code() {
                0 => {
                    ensure!(
                        reply.text() == Some(count.to_string()),
                        "{:?}",
                        reply.text()
                    );
                    right.fetch_add(1, Ordering::Relaxed);
                }
                code => ensure!(code == NOT_KNOWN, "{:?}", reply.fault),
            }
        }
        // None of them leaves before all have had their turns.
        finished.fetch_add(1, Ordering::Relaxed);
        wait_until(LIMIT, "the others", || {
            client.ping()?;
            Ok((finished.load(Ordering::Relaxed) == 12).then_some(()))
        })
    })?;
    let right = right.load(Ordering::Relaxed);
    println!("{right} of 240 were told, in {:?}", begun.elapsed());
    ensure!(right > 60, "{right} of 240 were told");
    Ok(())
}

fn asks(sql: &str) -> bool {
    QUESTIONS.contains(&sql)
        || sql.starts_with("SHOW WARNINGS")
        || sql.contains("_count")
        || sql.contains("_ROWS")
}

#[test]
fn a_question_that_waits_out_a_pause_is_refused_rather_than_anothers() -> Result<()> {
    let cluster = shared()?;
    prepare_one(&cluster, "paused")?;
    let extra = Extra {
        listener: "queue-timeout = \"20s\"",
        ..Extra::default()
    };
    let gateway = Gateway::over(&cluster, extra)?;
    gateway.wait_reads(&cluster)?;
    for store in ["db", "my0"] {
        for (does, asks, right) in [
            (
                "UPDATE w SET v = CONCAT(v, '1') WHERE id < 4",
                "SELECT ROW_COUNT()",
                "3",
            ),
            ("SELECT id FROM t LIMIT 3", "SELECT FOUND_ROWS()", "3"),
            ("SELECT nothing FROM t", "SELECT @@error_count", "1"),
            (
                "INSERT INTO t VALUES (1, 'again')",
                "SHOW COUNT(*) ERRORS",
                "1",
            ),
        ] {
            let mut client = begin(gateway.client("paused")?)?;
            let mut other = gateway.client("paused")?;
            other.run("SELECT v FROM t WHERE id = 1")?;
            client.query(does)?;
            gateway.post(&format!("/stores/{store}/pause"))?;
            let reply = std::thread::scope(|scope| {
                let asking = scope.spawn(|| client.query(asks));
                std::thread::sleep(std::time::Duration::from_millis(300));
                gateway.post(&format!("/stores/{store}/resume"))?;
                asking.join().expect("no panic")
            })?;
            let told = reply.text().as_deref() == Some(right);
            ensure!(
                told || reply.code() == NOT_KNOWN,
                "{store}: {does}: {asks}: {:?} {:?}",
                reply.text(),
                reply.fault
            );
        }
    }
    Ok(())
}
