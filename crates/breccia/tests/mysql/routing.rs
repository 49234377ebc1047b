//! Where a statement goes, and the reason that a session is told.
//!
//! Not whether a text is a read, of which the classifier has thousands of rows beside it. Invariant: the
//! server that answered says itself which one it is.

use anyhow::{Context, Result, ensure};
use breccia_testkit::{MyClient, MyLogin, MyValue, wait_until};

use crate::rig::{Extra, Gateway, cluster, fresh, shared};

/// Where a statement goes: to a replica, or to the primary and why. An empty reason is any.
#[derive(Clone, Copy)]
enum To {
    Replica,
    Primary(&'static str),
}

use To::{Primary, Replica};

/// A gateway, and a database with a table, a view and functions.
fn routed(database: &str, extra: Extra<'_>) -> Result<Gateway> {
    let cluster = shared()?;
    fresh(&cluster, database)?;
    let sql = format!(
        "USE {database}; CREATE TABLE t (id int AUTO_INCREMENT PRIMARY KEY, n int); \
         INSERT INTO t (n) VALUES (1), (2), (3); CREATE VIEW vw AS SELECT id FROM t; \
         CREATE FUNCTION pure(a int) RETURNS int DETERMINISTIC NO SQL RETURN a + 1; \
         CREATE FUNCTION looks(a int) RETURNS int READS SQL DATA RETURN (SELECT MAX(n) FROM t); \
         CREATE PROCEDURE proc() SELECT 1; CREATE SEQUENCE sq"
    );
    cluster.query(0, &sql)?;
    // Written so that the program takes its body for one statement.
    let mut primary = MyClient::connect(cluster.primary().port(), database)?;
    primary.run(
        "CREATE FUNCTION grows(a int) RETURNS int DETERMINISTIC MODIFIES SQL DATA \
         BEGIN INSERT INTO t (n) VALUES (a); RETURN a; END",
    )?;
    cluster.wait_caught_up(crate::rig::LIMIT)?;
    Gateway::over(&cluster, extra)
}

/// Where the last statement of a session went.
fn went(client: &mut MyClient) -> Result<(String, String)> {
    let server = client.value("SHOW breccia.server")?;
    Ok((server, client.value("SHOW breccia.reason")?))
}

fn check(client: &mut MyClient, what: &str, expected: To) -> Result<()> {
    let (server, reason) = went(client)?;
    match expected {
        Replica => ensure!(
            server == "my1" || server == "my2",
            "{what}: {server}, {reason}"
        ),
        Primary(why) => {
            ensure!(server == "my0", "{what}: {server}, {reason}");
            ensure!(
                why.is_empty() || reason == why,
                "{what}: {reason} instead of {why}"
            );
        }
    }
    Ok(())
}

/// Statements of a session each, and where they go.
const ROWS: &[(&str, To)] = &[
    ("SELECT 1", Replica),
    ("SELECT * FROM t", Replica),
    ("select n from t where id = 1;", Replica),
    ("SELECT * FROM vw", Replica),
    ("(SELECT 1) UNION (SELECT n FROM t)", Replica),
    ("WITH c AS (SELECT n FROM t) SELECT * FROM c", Replica),
    ("SELECT COUNT(*), MAX(n), UPPER('a') FROM t", Replica),
    ("SELECT 'FOR UPDATE', `n` FROM t -- INTO OUTFILE", Replica),
    ("SELECT /* INSERT */ n FROM t", Replica),
    ("SELECT SQL_NO_CACHE n FROM t", Replica),
    ("SELECT t1.n FROM t t1 JOIN t t2 ON t1.id = t2.id", Replica),
    // No server holds a function to what it declares.
    ("SELECT pure(1)", Primary("function")),
    ("SELECT JSON_EXTRACT('{}', '$')", Replica),
    ("SELECT n FROM t FOR UPDATE", Primary("")),
    ("SELECT n FROM t LOCK IN SHARE MODE", Primary("")),
    (
        "SELECT n FROM t WHERE id = 1 FOR UPDATE NOWAIT",
        Primary(""),
    ),
    ("SELECT grows(1)", Primary("")),
    ("SELECT n, grows(n) FROM t WHERE id = 1", Primary("")),
    ("SELECT unknown_function(1)", Primary("")),
    ("SELECT NEXTVAL(sq)", Primary("")),
    ("SELECT NEXT VALUE FOR sq", Primary("")),
    ("SELECT n FROM t PROCEDURE ANALYSE()", Primary("")),
    ("SELECT GET_LOCK('routing', 0)", Primary("")),
    ("SELECT n INTO @a FROM t LIMIT 1", Primary("")),
    ("SELECT @a := 1", Primary("")),
    ("SELECT LAST_INSERT_ID(5)", Primary("")),
    ("SELECT 1 /*!50000 FOR UPDATE */", Primary("")),
    ("SELECT 1 /*M! + 1 */", Primary("")),
    ("/*! INSERT INTO t (n) VALUES (9) */", Primary("")),
    ("SELECT 1 /* breccia: primary */", Primary("hint")),
    ("/* breccia: primary */ SELECT n FROM t", Primary("hint")),
    ("INSERT INTO t (n) VALUES (4)", Primary("write")),
    ("UPDATE t SET n = 5 WHERE id = 1", Primary("write")),
    ("DELETE FROM t WHERE id = 999", Primary("write")),
    ("REPLACE INTO t VALUES (1, 1)", Primary("write")),
    (
        "INSERT INTO t (n) VALUES (4) RETURNING id",
        Primary("write"),
    ),
    (
        "WITH c AS (SELECT 1) SELECT * FROM c FOR UPDATE",
        Primary(""),
    ),
    ("CALL proc()", Primary("")),
    ("DO SLEEP(0)", Primary("")),
    ("CREATE TABLE made (a int)", Primary("ddl")),
    ("DROP TABLE made", Primary("ddl")),
    ("SET sql_mode = ''", Primary("")),
    ("SELECT 1; SELECT 2", Primary("")),
    ("SELECT 1; INSERT INTO t (n) VALUES (6)", Primary("")),
    ("EXPLAIN UPDATE t SET n = 1", Primary("")),
    ("ANALYZE UPDATE t SET n = n", Primary("")),
    ("FLUSH STATUS", Primary("")),
];

#[test]
fn statements_of_autocommit_go_where_they_must_in_text_and_in_binary() -> Result<()> {
    let _cluster = shared()?;
    let gateway = routed("routing", Extra::default())?;
    let mut bad = Vec::new();
    for (sql, expected) in ROWS {
        let mut client = gateway.client("routing")?;
        // An error is an answer too; a statement that is unknown to all is told so by the primary.
        let _answer = client.query(sql)?;
        let mut row = || check(&mut client, sql, *expected);
        bad.extend(row().err().map(|it| it.to_string()));
        let mut client = gateway.client("routing")?;
        if let Ok(statement) = client.prepare(sql)? {
            let _answer = client.execute(&statement, &[])?;
            let row = check(&mut client, &format!("prepared {sql}"), *expected);
            bad.extend(row.err().map(|it| it.to_string()));
        }
    }
    ensure!(bad.is_empty(), "{bad:#?}");
    Ok(())
}

/// Statements of one session, and where those with an expectation go.
type Steps = &'static [(&'static str, Option<To>)];

const ALONE: &[Steps] = &[
    &[
        ("BEGIN", None),
        ("SELECT n FROM t", Some(Primary("transaction"))),
        ("COMMIT", None),
        ("SELECT n FROM t", Some(Replica)),
    ],
    &[
        ("START TRANSACTION READ WRITE", None),
        ("SELECT 1", Some(Primary("transaction"))),
        ("ROLLBACK", None),
    ],
    &[
        ("START TRANSACTION READ ONLY", None),
        ("SELECT n FROM t", Some(Replica)),
        ("SELECT 1", Some(Replica)),
        ("COMMIT", None),
    ],
    &[
        (
            "START TRANSACTION READ ONLY, WITH CONSISTENT SNAPSHOT",
            None,
        ),
        ("SELECT n FROM t", None),
        ("COMMIT", None),
    ],
    &[
        ("SET autocommit = 0", None),
        ("SELECT n FROM t", Some(Primary("transaction"))),
        ("COMMIT", None),
        ("SELECT 1", Some(Primary("transaction"))),
        ("SET autocommit = 1", None),
        ("SELECT 1", Some(Replica)),
    ],
    &[
        ("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE", None),
        ("START TRANSACTION", None),
        ("SELECT n FROM t", Some(Primary("transaction"))),
        ("COMMIT", None),
        ("SELECT 1", Some(Replica)),
    ],
    &[
        ("SET TRANSACTION READ ONLY", None),
        ("BEGIN", None),
        ("SELECT n FROM t", None),
        ("COMMIT", None),
        ("SELECT 1", Some(Replica)),
    ],
    &[
        ("SET TRANSACTION ISOLATION LEVEL READ COMMITTED", None),
        ("SELECT n FROM t", Some(Primary(""))),
        ("SELECT n FROM t", Some(Replica)),
    ],
    &[("SET @a = 1", None), ("SELECT n FROM t", Some(Primary("")))],
    &[
        ("CREATE TEMPORARY TABLE own (a int)", None),
        ("SELECT n FROM t", Some(Primary(""))),
    ],
    &[
        ("SET breccia.target = 'primary'", None),
        ("SELECT 1", Some(Primary("target"))),
        ("SET breccia.target = 'auto'", None),
        ("SELECT 1", Some(Replica)),
    ],
    &[
        ("BEGIN", None),
        ("UPDATE t SET n = n + 1", Some(Primary("transaction"))),
        ("SAVEPOINT a", None),
        ("ROLLBACK TO a", None),
        ("SELECT n FROM t", Some(Primary("transaction"))),
        ("ROLLBACK", None),
        ("SELECT n FROM t", Some(Replica)),
    ],
];

fn walk(gateway: &Gateway, rows: &[Steps]) -> Result<()> {
    let mut bad = Vec::new();
    for steps in rows {
        for binary in [false, true] {
            let mut client = gateway.client("routing_steps")?;
            for (at, (sql, expected)) in steps.iter().enumerate() {
                let prepared = binary && sql.starts_with("SELECT");
                let reply = if prepared {
                    client.once(sql, &[])?
                } else {
                    client.query(sql)?
                };
                reply.good().with_context(|| format!("{sql}, step {at}"))?;
                if let Some(expected) = expected {
                    // A write is behind: its replica is waited for.
                    let what = format!("{sql}, step {at} after {:?}", steps.first().map(|it| it.0));
                    bad.extend(
                        check(&mut client, &what, *expected)
                            .err()
                            .map(|it| it.to_string()),
                    );
                }
            }
        }
    }
    ensure!(bad.is_empty(), "{bad:#?}");
    Ok(())
}

#[test]
fn transactions_go_to_the_primary_unless_they_are_read_only() -> Result<()> {
    let _cluster = shared()?;
    let _turn = crate::rig::turn();
    let extra = Extra {
        composite: "replica-wait = \"2s\"",
        ..Extra::default()
    };
    let gateway = routed("routing_steps", extra)?;
    walk(&gateway, ALONE)
}

const COMMITTED: &[Steps] = &[
    &[
        (
            "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED",
            None,
        ),
        ("BEGIN", None),
        ("SELECT n FROM t", Some(Replica)),
        ("SELECT n FROM t", Some(Replica)),
        ("UPDATE t SET n = n + 1 WHERE id = 1", Some(Primary(""))),
        ("SELECT n FROM t", Some(Primary("transaction"))),
        ("COMMIT", None),
        ("SELECT n FROM t", Some(Replica)),
    ],
    &[
        (
            "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED",
            None,
        ),
        ("SET autocommit = 0", None),
        ("SELECT n FROM t", Some(Replica)),
        ("INSERT INTO t (n) VALUES (1)", Some(Primary(""))),
        ("SELECT n FROM t", Some(Primary("transaction"))),
        ("COMMIT", None),
        ("SELECT n FROM t", Some(Replica)),
        ("COMMIT", None),
    ],
    &[
        ("SET TRANSACTION ISOLATION LEVEL READ COMMITTED", None),
        ("START TRANSACTION", None),
        ("SELECT n FROM t", Some(Replica)),
        ("UPDATE t SET n = n + 1 WHERE id = 1", Some(Primary(""))),
        ("COMMIT", None),
        ("BEGIN", None),
        ("SELECT n FROM t", Some(Primary("transaction"))),
        ("COMMIT", None),
    ],
    &[
        ("BEGIN", None),
        ("SELECT n FROM t", Some(Primary("transaction"))),
        ("COMMIT", None),
    ],
    &[
        (
            "SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ",
            None,
        ),
        ("BEGIN", None),
        ("SELECT n FROM t", Some(Primary("transaction"))),
        ("COMMIT", None),
    ],
    &[
        ("SET SESSION tx_isolation = 'SERIALIZABLE'", None),
        ("BEGIN", None),
        ("SELECT n FROM t", Some(Primary("transaction"))),
        ("COMMIT", None),
    ],
    &[
        (
            "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED",
            None,
        ),
        ("BEGIN", None),
        ("SELECT n, NOW() FROM t", Some(Primary(""))),
        ("COMMIT", None),
    ],
    &[
        (
            "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED",
            None,
        ),
        ("BEGIN", None),
        ("SELECT n FROM t", Some(Replica)),
        ("SELECT n FROM t FOR UPDATE", Some(Primary(""))),
        ("ROLLBACK", None),
    ],
];

#[test]
fn lazy_transactions_begin_on_replicas_under_read_committed_only() -> Result<()> {
    let _cluster = shared()?;
    let _turn = crate::rig::turn();
    let extra = Extra {
        composite: "transactions = \"lazy\"\nreplica-wait = \"2s\"",
        ..Extra::default()
    };
    let gateway = routed("routing_steps", extra)?;
    walk(&gateway, COMMITTED)
}

#[test]
fn what_others_change_of_a_schema_is_noticed_soon() -> Result<()> {
    let cluster = shared()?;
    let gateway = routed("changing", Extra::default())?;
    let mut client = gateway.client("changing")?;
    let mut notice = |sql: &str, asked: &str, expected: &str| -> Result<()> {
        cluster.query(0, sql)?;
        let limit = std::time::Duration::from_secs(15);
        wait_until(limit, &format!("{expected} after {sql}"), || {
            // An error is an answer too.
            client.query(asked)?;
            Ok((client.value("SHOW breccia.reason")? == expected).then_some(()))
        })
    };
    notice(
        "ALTER TABLE changing.t ENGINE=MEMORY",
        "SELECT n FROM t",
        "engine",
    )?;
    notice(
        "ALTER TABLE changing.t ENGINE=InnoDB",
        "SELECT n FROM t",
        "read",
    )?;
    let view = "CREATE OR REPLACE VIEW changing.vw AS SELECT changing.grows(1) AS id";
    notice(view, "SELECT * FROM vw", "view")?;
    notice(
        "CREATE TABLE changing.newer (n int)",
        "SELECT n FROM newer",
        "read",
    )?;
    notice(
        "DROP TABLE changing.newer",
        "SELECT n FROM newer",
        "unknown-table",
    )
}

#[test]
fn a_read_only_transaction_refuses_writes_as_the_server_does() -> Result<()> {
    let _cluster = shared()?;
    let gateway = routed("refusing", Extra::default())?;
    let mut client = gateway.client("refusing")?;
    for value in [&[MyValue::Int(1)][..], &[]] {
        client.run("START TRANSACTION READ ONLY")?;
        client.run("SELECT n FROM t")?;
        let reply = if value.is_empty() {
            client.query("INSERT INTO t (n) VALUES (1)")?
        } else {
            client.once("INSERT INTO t (n) VALUES (?)", value)?
        };
        ensure!(reply.code() == 1792, "{reply:?}");
        client.run("COMMIT")?;
        client.run("INSERT INTO t (n) VALUES (1)")?;
    }
    Ok(())
}

/// Who may not write where `read_only` is on is told so by a replica in other words.
#[test]
fn a_replicas_own_refusal_is_told_as_the_transactions() -> Result<()> {
    let cluster = cluster()?;
    fresh(&cluster, "worded")?;
    let sql = "CREATE TABLE worded.t (n int); INSERT INTO worded.t VALUES (1); \
               CREATE USER plain IDENTIFIED BY 'pw'; GRANT ALL ON worded.* TO plain";
    cluster.query(0, sql)?;
    for replica in [1, 2] {
        cluster.query(replica, "SET GLOBAL read_only = ON")?;
    }
    let listener = "[[listener.sql.user]]\nname = \"plain\"\npassword = \"pw\"\n\
                    upstream-user = \"plain\"\nupstream-password = \"pw\"";
    let extra = Extra {
        listener,
        ..Extra::default()
    };
    let gateway = Gateway::over(&cluster, extra)?;
    // The servers' `user` is another one, who may do everything.
    let login = MyLogin {
        user: "plain",
        password: "pw",
        database: "worded",
        ..MyLogin::default()
    };
    let mut told = Vec::new();
    for port in [cluster.primary().port(), gateway.port] {
        let mut client = MyClient::connect_as(port, MyLogin::default())?;
        client.change_user(login)?;
        let who = client.value("SELECT CURRENT_USER()")?;
        ensure!(who == "plain@%", "{who}");
        client.run("START TRANSACTION READ ONLY")?;
        client.run("SELECT n FROM t")?;
        let text = client.query("UPDATE t SET n = 2")?.fault;
        let bound = client
            .once("INSERT INTO t VALUES (?)", &[MyValue::Int(3)])?
            .fault;
        ensure!(client.value("SELECT n FROM t")? == "1", "it goes on");
        client.run("COMMIT")?;
        client.run("UPDATE t SET n = 1")?;
        told.push([text, bound].map(|it| it.map(|it| it.to_string())));
    }
    ensure!(told[0] == told[1], "{told:?}");
    let said = told[0][0].as_deref().unwrap_or_default();
    ensure!(said.contains("READ ONLY transaction"), "{said}");
    let there = "breccia_sql_routed_total{target=\"replica\",reason=\"read-only\"}";
    let there = gateway.breccia.metric(there)?;
    ensure!(there > 0.0, "nothing of it ran on a replica");
    let mut client = MyClient::connect_as(gateway.port, login)?;
    let who = client.value("SELECT CURRENT_USER()")?;
    ensure!(who == "plain@%", "{who}");
    Ok(())
}
