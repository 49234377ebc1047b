//! Where each kind of statement runs.
//!
//! Each row runs as a simple query, as an extended one, and as a prepared one again and again, each
//! time with a tag of its own. Invariant: a tag found in the logs of two servers is a failure.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::{Result, ensure};
use breccia_testkit::{PostgresCluster, SqlClient, SqlReply};

use crate::positions::{on_replica, ran_on};
use crate::rig::{Extra, Gateway, LIMIT, shared};

#[path = "routing_rows.rs"]
mod rows;

use rows::{ROWS, Row, SETUP, Where};

/// A machine that is busy with other tests must not send reads to the primary.
const PATIENT: Extra<'static> = Extra {
    top: "",
    server: "",
    composite: "replica-wait = \"2s\"",
    listener: "",
};

/// How a row is sent.
const MODES: [&str; 3] = ["simple", "fresh", "prepared"];

/// The tag of a row in one mode.
fn tag(run: &str, number: usize, mode: &str) -> String {
    format!("<{run}:{number}:{mode}>")
}

/// Which servers' logs have each tag: a digit for each server.
fn places(cluster: &PostgresCluster, run: &str) -> BTreeMap<String, String> {
    let mut found: BTreeMap<String, String> = BTreeMap::new();
    let begin = format!("<{run}:");
    for (number, server) in cluster.servers().iter().enumerate() {
        for line in server.log().split(&begin).skip(1) {
            let Some((rest, _)) = line.split_once('>') else {
                continue;
            };
            let places = found.entry(format!("{begin}{rest}>")).or_default();
            let digit = char::from_digit(u32::try_from(number).unwrap_or(9), 10).unwrap_or('9');
            if !places.contains(digit) {
                places.push(digit);
            }
        }
    }
    found
}

/// The text of a row with its tag behind it; `{n}` in it is a number of its own.
fn text(row: &Row, number: usize, mode: &str, tag: &str) -> String {
    let position = MODES.iter().position(|it| *it == mode).unwrap_or(0);
    let own = number * MODES.len() + position;
    format!("{} /* {tag} */", row.sql.replace("{n}", &own.to_string()))
}

/// Runs a row in one mode over a connection of its own; its replies.
fn run(
    cluster: &PostgresCluster,
    gateway: &Gateway,
    row: &Row,
    (sql, mode): (&str, &str),
) -> Result<Vec<SqlReply>> {
    let mut client = gateway.client("routing")?;
    for before in row.before {
        client.run(before)?;
    }
    if !row.before.is_empty() && row.place == Where::Replica {
        // What ran on the primary has raised the session's floor.
        cluster.wait_caught_up(LIMIT)?;
    }
    let mut replies = Vec::new();
    match mode {
        "simple" => replies.push(client.simple(sql)?),
        "fresh" => replies.push(client.extended(sql, &[])?),
        _ => {
            replies.push(client.parse("p", sql).sync().ask()?);
            for _ in 0..if row.once { 1 } else { 3 } {
                replies.push(client.bind("p", &[]).execute().sync().ask()?);
            }
        }
    }
    if replies.iter().any(|reply| reply.status != 'I') {
        client.simple("ROLLBACK")?;
    }
    Ok(replies)
}

#[test]
fn each_statement_runs_where_it_must() -> Result<()> {
    let cluster = shared()?;
    cluster.primary().create_database("routing")?;
    for sql in SETUP {
        cluster.primary().query("routing", sql)?;
    }
    let gateway = Gateway::over(&cluster, "routing", PATIENT)?;
    let mut complaints = String::new();
    for (number, row) in ROWS.iter().enumerate() {
        for mode in MODES
            .iter()
            .filter(|mode| !row.simple_only || **mode == "simple")
        {
            let sql = text(row, number, mode, &tag("m", number, mode));
            let replies = run(&cluster, &gateway, row, (&sql, mode));
            let replies = match replies {
                Ok(replies) => replies,
                Err(error) => {
                    writeln!(complaints, "{mode}: {}: {error:#}", row.sql)?;
                    continue;
                }
            };
            for reply in replies {
                if let Some(fault) = reply.fault.filter(|_| !row.may_fail) {
                    writeln!(complaints, "{mode}: {}: {fault:?}", row.sql)?;
                }
            }
        }
    }
    let places = places(&cluster, "m");
    for (number, row) in ROWS.iter().enumerate() {
        for mode in MODES
            .iter()
            .filter(|mode| !row.simple_only || **mode == "simple")
        {
            let found = places
                .get(&tag("m", number, mode))
                .map_or("", String::as_str);
            let right = match row.place {
                Where::Primary => found == "0",
                Where::Replica => !found.is_empty() && !found.contains('0'),
            };
            if !right {
                let wanted = row.place;
                writeln!(
                    complaints,
                    "{mode}: {}: ran on {found:?}, not {wanted:?}",
                    row.sql
                )?;
            }
        }
    }
    ensure!(complaints.is_empty(), "\n{complaints}");
    Ok(())
}

/// Asks over a gateway of its own, and says on which servers each tag was found.
fn ask(
    name: &str,
    work: impl FnOnce(&mut SqlClient) -> Result<()>,
) -> Result<BTreeMap<String, String>> {
    let cluster = shared()?;
    cluster.primary().create_database(name)?;
    cluster
        .primary()
        .query(name, "CREATE TABLE t (id serial PRIMARY KEY, v int)")?;
    let gateway = Gateway::over(&cluster, name, PATIENT)?;
    work(&mut gateway.client(name)?)?;
    Ok(places(&cluster, name))
}

/// The tag of `what` in this run is found on these servers.
fn check(places: &BTreeMap<String, String>, tag: &str, place: Where) {
    let found = places.get(tag).map_or("", String::as_str);
    match place {
        Where::Primary => assert_eq!(found, "0", "{tag}"),
        Where::Replica => assert!(
            !found.is_empty() && !found.contains('0'),
            "{tag}: {found:?}"
        ),
    }
}

#[test]
fn a_batch_with_a_write_runs_on_the_primary_whole() -> Result<()> {
    let places = ask("batches", |client| {
        client
            .parse("", "INSERT INTO t (v) VALUES (77) /* <batches:1> */")
            .bind("", &[])
            .execute();
        client.parse("", "SELECT count(*) FROM t WHERE v = 77 /* <batches:2> */");
        let reply = client.bind("", &[]).execute().sync().ask()?.good()?;
        assert_eq!(reply.value(), Some("1"), "its own write, uncommitted still");
        client
            .parse("", "SELECT v FROM t /* <batches:3> */")
            .bind("", &[])
            .execute();
        client
            .parse("", "UPDATE t SET v = 78 /* <batches:4> */")
            .bind("", &[])
            .execute();
        client.sync().ask()?.good()?;
        client
            .parse("", "SELECT 1 /* <batches:5> */")
            .bind("", &[])
            .execute();
        client
            .parse("", "SELECT 2 /* <batches:6> */")
            .bind("", &[])
            .execute();
        let reply = client.sync().ask()?.good()?;
        assert_eq!(reply.rows.len(), 2);
        Ok(())
    })?;
    for number in 1..=4 {
        check(&places, &format!("<batches:{number}>"), Where::Primary);
    }
    Ok(())
}

#[test]
fn transactions_run_on_one_server() -> Result<()> {
    let places = ask("transactions", |client| {
        for (tag, begin) in [
            ("ro1", "BEGIN READ ONLY"),
            ("ro2", "START TRANSACTION READ ONLY"),
            ("ro3", "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY"),
        ] {
            client.run(begin)?;
            let sql = format!("SELECT count(*) FROM t /* <transactions:{tag}> */");
            client.run(&sql)?;
            client.extended(&sql, &[])?.good()?;
            client.run("COMMIT")?;
        }
        client.run("BEGIN")?;
        client.run("SELECT count(*) FROM t /* <transactions:plain> */")?;
        client.run("COMMIT")?;
        client.run("BEGIN")?;
        client.run("SET TRANSACTION READ ONLY")?;
        client.run("SELECT count(*) FROM t /* <transactions:late> */")?;
        client.run("ROLLBACK")?;
        client.run("BEGIN ISOLATION LEVEL SERIALIZABLE")?;
        client.run("SELECT count(*) FROM t /* <transactions:serializable> */")?;
        client.run("COMMIT")?;
        // Refused as the server itself would.
        client.run("BEGIN READ ONLY")?;
        assert_eq!(
            client.simple("INSERT INTO t (v) VALUES (1)")?.code(),
            "25006"
        );
        client.run("ROLLBACK")?;
        Ok(())
    })?;
    for tag in ["plain", "late", "serializable"] {
        check(&places, &format!("<transactions:{tag}>"), Where::Primary);
    }
    for tag in ["ro1", "ro2"] {
        check(&places, &format!("<transactions:{tag}>"), Where::Replica);
    }
    let isolated = places.get("<transactions:ro3>").map_or(0, String::len);
    assert_eq!(
        isolated, 1,
        "above READ COMMITTED it is on one server, whichever"
    );
    Ok(())
}

#[test]
fn a_string_of_statements_is_one_unit() -> Result<()> {
    let places = ask("strings", |client| {
        client.run("INSERT INTO t (v) VALUES (1); SELECT v FROM t /* <strings:1> */")?;
        client.run("SELECT 1 /* <strings:2> */; INSERT INTO t (v) VALUES (2)")?;
        client.run("BEGIN; SELECT count(*) FROM t /* <strings:3> */; COMMIT")?;
        let fault = client.simple("INSERT INTO t (v) VALUES (900); SELECT 1/0")?;
        assert_eq!(fault.code(), "22012");
        let count = client.run("SELECT count(*) FROM t WHERE v = 900")?;
        assert_eq!(count.value(), Some("0"), "rolled back as one");
        Ok(())
    })?;
    for number in 1..=3 {
        check(&places, &format!("<strings:{number}>"), Where::Primary);
    }
    Ok(())
}

#[test]
fn a_statement_that_a_replica_refuses_is_run_on_the_primary() -> Result<()> {
    // A function that writes is made behind the gateway's back, in place of one that reads.
    let cluster = shared()?;
    cluster.primary().create_database("behind")?;
    cluster
        .primary()
        .query("behind", "CREATE TABLE t (v int)")?;
    let reads = "CREATE FUNCTION f() RETURNS int STABLE LANGUAGE sql AS 'SELECT 1'";
    cluster.primary().query("behind", reads)?;
    let gateway = Gateway::over(&cluster, "behind", Extra::default())?;
    let mut client = gateway.client("behind")?;
    client.run("SELECT f()")?;
    let writes = "CREATE OR REPLACE FUNCTION f() RETURNS int VOLATILE LANGUAGE sql \
                  AS 'INSERT INTO t VALUES (1) RETURNING v'";
    cluster.primary().query("behind", writes)?;
    cluster.wait_caught_up(LIMIT)?;
    for round in 1..=3 {
        assert_eq!(client.run("SELECT f()")?.value(), Some("1"));
        let extended = client.extended("SELECT f() + 1", &[])?.good()?;
        assert_eq!(extended.value(), Some("2"));
        let count = client.run("SELECT count(*) FROM t")?;
        assert_eq!(count.value(), Some((round * 2).to_string().as_str()));
    }
    Ok(())
}

#[test]
fn functions_that_the_file_vouches_for_are_reads() -> Result<()> {
    let cluster = shared()?;
    cluster.primary().create_database("vouched")?;
    for name in ["built", "Other"] {
        let sql = format!(
            "CREATE FUNCTION \"{name}\"() RETURNS int LANGUAGE plpgsql AS \
             $$ DECLARE v int; BEGIN EXECUTE 'SELECT 7' INTO v; RETURN v; END $$"
        );
        cluster.primary().query("vouched", &sql)?;
    }
    let extra = Extra {
        composite: "replica-wait = \"2s\"\nread-functions = [\"built\"]",
        ..Extra::default()
    };
    let gateway = Gateway::over(&cluster, "vouched", extra)?;
    let mut client = gateway.client("vouched")?;
    let place = on_replica(&cluster, "vouched", |tag| {
        let found = client.run(&format!("SELECT built() /* {tag} */"))?;
        ensure!(found.value() == Some("7"));
        Ok(())
    })?;
    ensure!(place > 0);
    client.run("SELECT \"Other\"() /* not-vouched */")?;
    ensure!(ran_on(&cluster, "not-vouched")? == 0);
    Ok(())
}
