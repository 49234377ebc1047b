//! Prepared statements are let go of and made again as over one server, whatever is under way.
//!
//! Not that sessions do not see each other's (`sessions.rs`). Invariant: each script answers the same
//! by the primary itself, by a session that shares connections, by one that is pinned, and in
//! `session` mode.

use anyhow::{Context, Result, ensure};
use breccia_testkit::SqlClient;

use crate::pooling::database;
use crate::rig::{Extra, Gateway};

/// One step: what is sent before the next answer is waited for, and the values or states of all
/// answers, one for each `ReadyForQuery`.
type Step<'a> = (&'a dyn Fn(&mut SqlClient), &'a [&'a str]);

/// Runs a script everywhere.
fn check(name: &str, steps: &[Step<'_>]) -> Result<()> {
    let cluster = database(name)?;
    run(
        &mut SqlClient::connect(cluster.primary().port(), name)?,
        steps,
    )
    .context("directly")?;
    for mode in ["transaction", "session"] {
        let listener = format!("pool-mode = \"{mode}\"");
        let extra = Extra {
            listener: &listener,
            ..Extra::default()
        };
        let gateway = Gateway::over(&cluster, name, extra)?;
        for pin in [None, Some("CREATE TEMP TABLE pin (a int)")] {
            let mut client = gateway.client(name)?;
            pin.map_or(Ok(()), |sql| client.run(sql).map(drop))?;
            // What others have prepared on the same connections is in nobody's way.
            let mut other = gateway.client(name)?;
            other.parse("p1", "SELECT 42").sync().ask()?.good()?;
            for round in 1..=2 {
                let told = || format!("{mode}, pinned by {pin:?}, round {round}");
                run(&mut client, steps).with_context(told)?;
                let mine = other.bind("p1", &[]).execute().sync().ask()?.good()?;
                ensure!(
                    mine.value() == Some("42"),
                    "{}: another's statement",
                    told()
                );
            }
        }
    }
    Ok(())
}

fn run(client: &mut SqlClient, steps: &[Step<'_>]) -> Result<()> {
    for (number, (send, wanted)) in steps.iter().enumerate() {
        send(client);
        client.flush()?;
        for wanted in *wanted {
            let reply = client.read_reply()?;
            let found = match reply.code() {
                "" => reply.value().unwrap_or("done"),
                state => state,
            };
            ensure!(
                found == *wanted,
                "step {number}: {found}, not {wanted}: {:?}",
                reply.fault
            );
        }
    }
    Ok(())
}

/// Sends a statement to be run, in the extended protocol, without a Sync.
fn execute(client: &mut SqlClient, sql: &str) {
    client.parse("", sql).bind("", &[]).execute();
}

/// Sends `name` to be run, without a Sync.
fn again(client: &mut SqlClient, name: &str) {
    client.bind(name, &[]).execute();
}

#[test]
fn all_are_let_go_of_in_the_middle_of_a_batch() -> Result<()> {
    check(
        "let_go_batch",
        &[
            (
                &|c| {
                    c.parse("p1", "SELECT 42").parse("p2", "SELECT 43").sync();
                },
                &["done"],
            ),
            (
                &|c| {
                    again(c, "p1");
                    execute(c, "DEALLOCATE ALL");
                    c.parse("p1", "SELECT 42 + 0").parse("p3", "SELECT 43");
                    again(c, "p1");
                    c.sync();
                    again(c, "p3");
                    c.sync();
                    again(c, "p2");
                    c.sync();
                },
                &["42", "43", "26000"],
            ),
            (
                &|c| {
                    c.query("DEALLOCATE ALL");
                },
                &["done"],
            ),
            (
                &|c| {
                    again(c, "p1");
                    c.sync();
                },
                &["26000"],
            ),
        ],
    )
}

#[test]
fn all_are_let_go_of_while_more_is_on_its_way() -> Result<()> {
    for (name, sql) in [("let_go_d", "DISCARD ALL"), ("let_go_a", "DEALLOCATE ALL")] {
        check(
            name,
            &[
                (
                    &|c| {
                        c.parse("p1", "SELECT 42").sync();
                    },
                    &["done"],
                ),
                (
                    &|c| {
                        again(c, "p1");
                        c.sync();
                        c.query(sql).parse("p2", "SELECT 42");
                        again(c, "p2");
                        c.sync().query("SELECT 7");
                    },
                    &["42", "done", "42", "7"],
                ),
                (
                    &|c| {
                        again(c, "p2");
                        c.sync();
                        again(c, "p1");
                        c.sync().query("DEALLOCATE p2");
                    },
                    &["42", "26000", "done"],
                ),
            ],
        )?;
    }
    Ok(())
}

#[test]
fn what_was_not_let_go_of_after_all_is_still_there() -> Result<()> {
    check(
        "let_go_not",
        &[
            (
                &|c| {
                    c.parse("p1", "SELECT 42").sync();
                },
                &["done"],
            ),
            // Skipped, because what stands before it fails.
            (
                &|c| {
                    execute(c, "SELECT 1 / 0");
                    execute(c, "DEALLOCATE ALL");
                    c.sync();
                    again(c, "p1");
                    c.sync();
                },
                &["22012", "42"],
            ),
            // Refused in a transaction, and in one that has failed.
            (
                &|c| {
                    c.query("BEGIN").query("DISCARD ALL");
                },
                &["done", "25001"],
            ),
            (
                &|c| {
                    c.query("DEALLOCATE ALL").query("ROLLBACK");
                },
                &["25P02", "done"],
            ),
            (
                &|c| {
                    again(c, "p1");
                    c.sync().query("DEALLOCATE p1");
                },
                &["42", "done"],
            ),
        ],
    )
}

#[test]
fn a_statement_whose_table_has_changed_is_prepared_anew() -> Result<()> {
    let other = "SELECT * FROM t";
    check(
        "changed",
        &[
            (
                &|c| {
                    c.query("DROP TABLE IF EXISTS ch");
                },
                &["done"],
            ),
            (
                &|c| {
                    c.query("CREATE TABLE ch AS SELECT 5 AS a");
                },
                &["done"],
            ),
            (
                &|c| {
                    c.parse("p1", "SELECT * FROM ch").parse("p2", other).sync();
                },
                &["done"],
            ),
            (
                &|c| {
                    again(c, "p1");
                    c.sync()
                        .query("ALTER TABLE ch ALTER a TYPE text USING 'five'");
                },
                &["5", "done"],
            ),
            // By a new name, as drivers do once they are told that the old plan is none any more.
            (
                &|c| {
                    c.close("p1").sync().parse("p3", "SELECT * FROM ch");
                    again(c, "p3");
                    c.sync();
                },
                &["done", "five"],
            ),
            (
                &|c| {
                    c.query("DEALLOCATE ALL").query("DROP TABLE ch");
                },
                &["done", "done"],
            ),
        ],
    )
}

#[test]
fn a_session_that_is_pinned_behind_discard_all_stays_so() -> Result<()> {
    let cluster = database("pin_again")?;
    let extra = Extra {
        listener: "pool-size = 1",
        ..Extra::default()
    };
    let gateway = Gateway::over(&cluster, "pin_again", extra)?;
    let (mut client, mut other) = (gateway.client("pin_again")?, gateway.client("pin_again")?);
    client.run("CREATE TEMP TABLE mine (a int)")?;
    client
        .query("DISCARD ALL")
        .query("CREATE TEMP TABLE mine AS SELECT 7 AS a");
    client.query("SHOW work_mem").flush()?;
    for _ in 0..3 {
        client.read_reply()?.good()?;
    }
    ensure!(client.run("SELECT a FROM mine")?.value() == Some("7"));
    let waits = std::thread::spawn(move || -> Result<String> {
        let reply = other.simple("INSERT INTO mine VALUES (8)")?;
        Ok(reply.code().to_owned())
    });
    std::thread::sleep(std::time::Duration::from_millis(300));
    ensure!(!waits.is_finished(), "the only connection was lent twice");
    client.run("DISCARD ALL")?;
    let code = waits.join().expect("a thread without panic")?;
    ensure!(code == "42P01", "another's table: {code:?}");
    Ok(())
}

#[test]
fn a_statement_is_prepared_although_every_connection_is_taken() -> Result<()> {
    let cluster = database("crowded")?;
    let extra = Extra {
        listener: "pool-size = 1",
        ..Extra::default()
    };
    let gateway = Gateway::over(&cluster, "crowded", extra)?;
    let (mut holds, mut other) = (gateway.client("crowded")?, gateway.client("crowded")?);
    holds.run("BEGIN")?;
    holds.run("INSERT INTO t (own) VALUES (1)")?;
    // A program with one thread for both would wait for itself.
    other.set_patience(std::time::Duration::from_secs(3))?;
    for (name, sql) in [
        ("good", "INSERT INTO t (own) VALUES (2) RETURNING own"),
        ("bad", "INSERT INTO t (nothing) VALUES (2)"),
    ] {
        other.parse(name, sql).sync().ask()?.good()?;
    }
    holds.run("COMMIT")?;
    let good = other.bind("good", &[]).execute().sync().ask()?.good()?;
    ensure!(good.value() == Some("2"), "{:?}", good.rows);
    let bad = other.bind("bad", &[]).execute().sync().ask()?;
    ensure!(bad.code() == "42703", "{:?}", bad.fault);
    ensure!(other.run("SELECT 7")?.value() == Some("7"));
    Ok(())
}
