//! Answers behind which a server closes the connection.
//!
//! Invariant: a session goes on as long as one that is connected directly, and no longer.

use std::sync::Arc;

use anyhow::{Result, ensure};
use breccia_testkit::{MariaDbCluster, MyClient};

use crate::rig::{Extra, Gateway, cluster, fresh, shared};

/// Texts in their order; the connection may be closed behind any of them.
const SEQUENCES: &[&[&str]] = &[
    &["BEGIN", "COMMIT RELEASE"],
    &["BEGIN", "ROLLBACK WORK AND NO CHAIN RELEASE"],
    &[
        "START TRANSACTION READ ONLY",
        "SELECT v FROM t",
        "COMMIT RELEASE",
    ],
    &["COMMIT RELEASE; SELECT 1"],
    &["SELECT v FROM t; COMMIT RELEASE"],
    &["BEGIN; COMMIT RELEASE"],
    &["SELECT v FROM t", "BEGIN; ROLLBACK RELEASE; SELECT 2"],
    &["SET completion_type = 2", "COMMIT"],
    &[
        "SET completion_type = 2",
        "COMMIT NO RELEASE",
        "SELECT v FROM t",
    ],
    &[
        "SET completion_type = 2",
        "COMMIT AND CHAIN",
        "SELECT 1",
        "COMMIT NO RELEASE",
    ],
    &[
        "SET completion_type = 'RELEASE'; BEGIN",
        "SELECT v FROM t",
        "ROLLBACK",
    ],
    &["SET completion_type = 2; COMMIT"],
    &["SET completion_type = 2", "SELECT v FROM t; COMMIT"],
    &[
        "SET completion_type = 2",
        "SET completion_type = 0",
        "COMMIT",
    ],
    &["SET completion_type = 1; COMMIT", "COMMIT"],
    &[
        "SAVEPOINT a; RELEASE SAVEPOINT a",
        "COMMIT AND NO CHAIN NO RELEASE",
    ],
];

/// A gateway over a database with one row.
fn over(cluster: &MariaDbCluster, database: &str) -> Result<Gateway> {
    fresh(cluster, database)?;
    let table =
        format!("CREATE TABLE {database}.t (v longtext); INSERT INTO {database}.t VALUES ('one')");
    cluster.query(0, &table)?;
    Gateway::over(cluster, Extra::default())
}

/// What a client sees of a sequence: each answer's parts and error, and whether the session goes on.
fn seen(client: &mut MyClient, sequence: &[&str]) -> Vec<String> {
    let mut seen = Vec::new();
    for sql in sequence {
        let Ok(reply) = client.query(sql) else {
            seen.push("closed".to_owned());
            return seen;
        };
        seen.push(format!("{:?} {}", reply.rows(), reply.code()));
    }
    let last = match client.query("SELECT 7") {
        Ok(reply) => format!("goes on {:?}", reply.rows()),
        Err(_) => "closed".to_owned(),
    };
    seen.push(last);
    seen
}

#[test]
fn sessions_end_where_servers_close_the_connection() -> Result<()> {
    let cluster = shared()?;
    let gateway = over(&cluster, "endings")?;
    gateway.wait_reads(&cluster)?;
    let mut wrong = 0;
    for sequence in SEQUENCES {
        let mut direct = MyClient::connect(cluster.server(0).port(), "endings")?;
        let mut through = gateway.client("endings")?;
        let expected = seen(&mut direct, sequence);
        let found = seen(&mut through, sequence);
        if found != expected {
            wrong += 1;
            println!("{sequence:?}: {found:?} and not {expected:?}");
        }
        // The connection is nobody else's either.
        let mut other = gateway.client("endings")?;
        other.run("BEGIN")?;
        other.run("INSERT INTO t VALUES ('after')")?;
        other.run("ROLLBACK")?;
    }
    ensure!(wrong == 0, "{wrong} sequences differ");
    Ok(())
}

#[test]
fn a_session_ends_with_the_connection_on_which_a_command_was_too_long() -> Result<()> {
    let servers: Arc<MariaDbCluster> = Arc::new(cluster()?);
    for server in 0..3 {
        servers.query(server, "SET GLOBAL max_allowed_packet = 524288")?;
    }
    let gateway = over(&servers, "endlong")?;
    for (begin, bytes) in [
        ("SELECT 1", 900_000),
        ("BEGIN", 900_000),
        ("BEGIN", 5 << 20),
        ("BEGIN", 17 << 20),
    ] {
        let mut sql = "INSERT INTO t VALUES ('".to_owned();
        sql.extend(std::iter::repeat_n('x', bytes));
        sql.push_str("')");
        let mut client = gateway.client("endlong")?;
        client.run(begin)?;
        let code = client.query(&sql)?.code();
        ensure!(code == 1153, "{begin}, {bytes} bytes: {code}");
        let mut direct = MyClient::connect(servers.server(0).port(), "endlong")?;
        direct.run(begin)?;
        // Directly the error is mostly lost with the connection.
        let _ = direct.query(&sql);
        let (goes_on, closed) = (direct.query("SELECT 7").is_ok(), client.is_closed());
        ensure!(!goes_on, "{bytes} bytes are no end to this server");
        ensure!(closed, "{begin}, {bytes} bytes: it goes on");
    }
    Ok(())
}
