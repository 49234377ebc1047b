//! Where a session stands: it leaves a primary that was left, and carries what it has seen.
//!
//! Not how stale a read may be under load (`freshness.rs`). Invariant: what a test says of a replica
//! is read from that replica's log.

use std::time::Duration;

use anyhow::{Result, ensure};
use breccia_testkit::{PostgresCluster, SqlClient};

use crate::rig::{Extra, Gateway, cluster};

/// A cluster with a database of a row.
pub(crate) fn prepared() -> Result<PostgresCluster> {
    let cluster = cluster(None)?;
    cluster.primary().create_database("p")?;
    let table =
        "CREATE TABLE t (id serial PRIMARY KEY, v text); INSERT INTO t (v) VALUES ('first')";
    cluster.primary().query("p", table)?;
    Ok(cluster)
}

/// The code of a statement, be it an answer's or the last word of a connection.
fn code(client: &mut SqlClient, sql: &str) -> String {
    match client.simple(sql) {
        Ok(reply) => reply.code().to_owned(),
        Err(error) => error.to_string(),
    }
}

#[test]
fn sessions_that_keep_a_connection_leave_a_primary_that_is_not_alone() -> Result<()> {
    let cluster = prepared()?;
    let gateway = Gateway::over(&cluster, "p", Extra::default())?;
    let session_mode = Extra {
        listener: "pool-mode = \"session\"",
        ..Extra::default()
    };
    let other = Gateway::over(&cluster, "p", session_mode)?;
    let mut pinned = gateway.client("p")?;
    pinned.run("LISTEN news")?;
    let mut open = gateway.client("p")?;
    open.run("BEGIN")?;
    open.run("INSERT INTO t (v) VALUES ('open')")?;
    let mut own = other.client("p")?;
    own.run("INSERT INTO t (v) VALUES ('before')")?;
    let mut running = gateway.client("p")?;
    running.query("SELECT pg_sleep(20), pg_advisory_xact_lock(7)");
    running.flush()?;
    cluster.promote(1)?;
    // The one that waits for news is told without asking.
    pinned.set_patience(Duration::from_secs(5))?;
    let (kind, body) = pinned.read_frame()?;
    let text = String::from_utf8_lossy(&body).into_owned();
    ensure!(kind == b'E' && text.contains("57P01"), "{kind}: {text}");
    for (client, sql) in [
        (&mut open, "COMMIT"),
        (&mut own, "INSERT INTO t (v) VALUES ('after')"),
    ] {
        let code = code(client, sql);
        ensure!(code.contains("57P01"), "{sql}: {code:?}");
    }
    running.set_patience(Duration::from_secs(5))?;
    let reply = running.read_reply().map(|reply| reply.code().to_owned());
    let unknown = reply.unwrap_or_else(|error| error.to_string());
    ensure!(unknown.contains("08007"), "what ran: {unknown:?}");
    let count = "SELECT count(*) FROM t WHERE v IN ('open', 'after')";
    assert_eq!(cluster.primary().query("p", count)?.trim(), "0");
    Ok(())
}
