//! Transactions of `autocommit = 0` that begin on a replica.
//!
//! Invariant: each answer, and what is told of the transaction with it, is that of one server.

use anyhow::{Result, ensure};
use breccia_testkit::{MyClient, MyReply};

use crate::rig::{Extra, Gateway, LIMIT, fresh, shared};

/// Sequences behind `SET autocommit = 0`.
const SEQUENCES: &[&[&str]] = &[
    &[
        "SELECT v FROM t WHERE id = 1",
        "SET sort_buffer_size = 300000",
        "USE lazy",
        "COMMIT",
    ],
    &[
        "SELECT v FROM t WHERE id = 1",
        "USE lazy",
        "SELECT v FROM t WHERE id = 2",
        "ROLLBACK",
    ],
    &[
        "SET NAMES latin1",
        "SELECT v FROM t WHERE id = 1",
        "SET NAMES utf8mb4",
        "INSERT INTO t VALUES (9, 'i')",
        "ROLLBACK",
    ],
    &[
        "SELECT v FROM t WHERE id = 1",
        "SET TRANSACTION READ ONLY",
        "COMMIT",
        "SET TRANSACTION READ ONLY",
        "SELECT v FROM t WHERE id = 3",
        "COMMIT",
    ],
    &[
        "SELECT v FROM t WHERE id = 1",
        "SAVEPOINT a",
        "INSERT INTO t VALUES (9, 'i')",
        "ROLLBACK TO a",
        "SELECT COUNT(*) FROM t",
        "COMMIT",
    ],
    &[
        "SELECT v FROM t WHERE id = 1",
        "SAVEPOINT a",
        "SET time_zone = '+01:00'",
        "SELECT v FROM t WHERE id = 2",
        "RELEASE SAVEPOINT a",
        "COMMIT",
    ],
    &[
        "INSERT INTO t VALUES (9, 'i')",
        "SAVEPOINT b",
        "DELETE FROM t WHERE id = 9",
        "ROLLBACK TO b",
        "SELECT COUNT(*) FROM t",
        "ROLLBACK",
    ],
    &[
        "SELECT v FROM t WHERE id = 1",
        "SET autocommit = 0",
        "SET autocommit = 1",
        "SELECT v FROM t WHERE id = 1",
    ],
    &[
        "SELECT v FROM t WHERE id = 1",
        "SET autocommit = 1",
        "INSERT INTO t VALUES (9, 'i')",
        "DELETE FROM t WHERE id = 9",
    ],
    &[
        "SELECT v FROM t WHERE id = 1",
        "BEGIN",
        "USE lazy",
        "SELECT v FROM t WHERE id = 2",
        "COMMIT",
    ],
    &[
        "SELECT v FROM t WHERE id = 1",
        "USE nowhere",
        "SET nothing = 1",
        "SELECT nothing FROM t",
        "COMMIT",
    ],
];

/// What a client learns of the transaction: `SERVER_STATUS_IN_TRANS` and `SERVER_STATUS_AUTOCOMMIT`.
fn seen(reply: &MyReply) -> String {
    match &reply.fault {
        Some(fault) => format!("{} {}", fault.code, fault.state),
        None => format!("{:?} {}", reply.rows(), reply.status() & 3),
    }
}

#[test]
fn what_stands_between_the_reads_of_a_lazy_transaction_is_answered_as_by_one_server() -> Result<()>
{
    let cluster = shared()?;
    fresh(&cluster, "lazy")?;
    let sql = "CREATE TABLE lazy.t (id int PRIMARY KEY, v varchar(9)); \
               INSERT INTO lazy.t VALUES (1, 'a'), (2, 'b'), (3, 'c')";
    cluster.query(0, sql)?;
    cluster.wait_caught_up(LIMIT)?;
    let extra = Extra {
        composite: "transactions = \"lazy\"",
        ..Extra::default()
    };
    let gateway = Gateway::over(&cluster, extra)?;
    gateway.wait_reads(&cluster)?;
    let mut wrong = 0;
    for sequence in SEQUENCES {
        let mut direct = MyClient::connect(cluster.server(0).port(), "lazy")?;
        let mut through = gateway.client("lazy")?;
        for begin in [
            "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED",
            "SET autocommit = 0",
        ] {
            direct.run(begin)?;
            through.run(begin)?;
        }
        let expected = sequence.iter().map(|sql| direct.query(sql));
        let expected = expected.collect::<Result<Vec<_>>>()?;
        direct.run("ROLLBACK")?;
        for (sql, expected) in sequence.iter().zip(expected) {
            let found = through.query(sql)?;
            if seen(&found) != seen(&expected) {
                wrong += 1;
                let (found, expected) = (seen(&found), seen(&expected));
                println!("{sequence:?}: {sql}: {found} and not {expected}");
            }
        }
        through.run("ROLLBACK")?;
    }
    ensure!(wrong == 0, "{wrong} answers differ");
    Ok(())
}

#[test]
fn a_transaction_that_chains_begins_the_next_where_it_can_write() -> Result<()> {
    let cluster = shared()?;
    fresh(&cluster, "chained")?;
    let sql = "CREATE TABLE chained.t (id int PRIMARY KEY, v varchar(9)); \
               INSERT INTO chained.t VALUES (1, 'a')";
    cluster.query(0, sql)?;
    cluster.wait_caught_up(LIMIT)?;
    for composite in ["", "transactions = \"lazy\""] {
        let extra = Extra {
            composite,
            ..Extra::default()
        };
        let gateway = Gateway::over(&cluster, extra)?;
        gateway.wait_reads(&cluster)?;
        for (begin, end) in [
            ("", "COMMIT"),
            ("", "ROLLBACK"),
            ("SET autocommit = 0", "COMMIT"),
            ("BEGIN", "COMMIT"),
        ] {
            let mut client = gateway.client("chained")?;
            client.run("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED")?;
            client.run("SET completion_type = 1")?;
            if !begin.is_empty() {
                client.run(begin)?;
            }
            client.run("SELECT v FROM t WHERE id = 1")?;
            client.run(end)?;
            client.run("INSERT INTO t VALUES (2, 'b')")?;
            client.run("ROLLBACK")?;
            ensure!(
                client.value("SELECT COUNT(*) FROM t")? == "1",
                "{composite} {begin} {end}"
            );
        }
    }
    Ok(())
}
