//! A primary that freezes and is succeeded by a standby, without any of its connections ending.
//!
//! Not one that is killed (`promotion.rs`). Invariant: a store's `timeout` is much longer than any client
//! here waits once another primary is known.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use breccia_testkit::{PostgresCluster, SqlClient, wait_until};

use crate::faults::prepare;
use crate::rig::{Extra, Gateway, LIMIT, cluster};

/// A client is told this long after the promotion at the latest; the store's `timeout` is 30 s.
const SOON: Duration = Duration::from_secs(8);
/// They wait for a lock on the old primary, and find none on the new one.
const READ: &str = "/* breccia: primary */ SELECT v FROM locked WHERE id = 7";
const WRITE: &str = "INSERT INTO locked (v) VALUES ('written')";

/// How a statement is sent.
#[derive(Clone, Copy)]
enum Way {
    Simple,
    Extended,
    /// It was prepared and described before.
    Named,
    /// It is not sent: its client is told unasked.
    Never,
}

/// A client, and what it must hear: a code, or the value of its one row, or a tag.
struct Row<'a> {
    gateway: &'a Gateway,
    before: &'a [&'a str],
    sql: &'static str,
    way: Way,
    heard: &'static str,
}

impl Row<'_> {
    /// A session as it is before the table is locked.
    fn begin(&self) -> Result<SqlClient> {
        let mut client = self.gateway.client("faults")?;
        if let Way::Named = self.way {
            client.parse("p", self.sql).frame(b'D', b"Sp\0");
            client.sync().ask()?.good()?;
        }
        for sql in self.before {
            client.run(sql)?;
        }
        Ok(client)
    }

    fn ask(&self, client: &mut SqlClient) -> Result<()> {
        match self.way {
            Way::Simple => client.query(self.sql).flush()?,
            Way::Extended => {
                client.parse("", self.sql).bind("", &[]).execute();
                client.sync().flush()?;
            }
            Way::Named => {
                client.bind("p", &[]).execute().sync().flush()?;
            }
            Way::Never => {}
        }
        // Those before it in a queue stay before it.
        thread::sleep(Duration::from_millis(20));
        client.set_patience(2 * LIMIT)
    }

    fn end(&self, client: &mut SqlClient, promoted: Instant) -> Result<()> {
        let heard = match client.read_reply() {
            Ok(reply) => format!("{} {:?} {:?}", reply.code(), reply.value(), reply.tags),
            Err(error) => format!("{error:#}"),
        };
        let took = promoted.elapsed();
        let what = format!("{:?}, {}: {heard} after {took:?}", self.before, self.sql);
        println!("{what}");
        ensure!(heard.contains(self.heard) && took < SOON, "{what}");
        Ok(())
    }
}

/// A table that is locked on the primary for as long as the answer lives.
fn locked(cluster: &PostgresCluster) -> Result<SqlClient> {
    prepare(cluster)?;
    let table = "CREATE TABLE locked AS TABLE t";
    cluster.primary().query("faults", table)?;
    cluster.wait_caught_up(LIMIT)?;
    SqlClient::connect(cluster.primary().port(), "faults")
}

fn gateway(cluster: &PostgresCluster, listener: &str) -> Result<Gateway> {
    let extra = Extra {
        listener,
        ..Extra::default()
    };
    let gateway = Gateway::over(cluster, "faults", extra)?;
    // Until the table is known for what it is.
    wait_until(LIMIT, "the table to be known", || {
        let mut client = gateway.client("faults")?;
        client.run("SELECT v FROM locked WHERE id = 7")?;
        let reason = client.run("SHOW breccia.reason")?;
        Ok((reason.value() == Some("read")).then_some(()))
    })?;
    Ok(gateway)
}

/// What all of them hear, at the same time.
fn hear(rows: &[Row<'_>], clients: Vec<SqlClient>, promoted: Instant) -> Result<()> {
    thread::scope(|scope| {
        let threads: Vec<_> = rows
            .iter()
            .zip(clients)
            .map(|(row, mut client)| scope.spawn(move || row.end(&mut client, promoted)))
            .collect();
        let heard: Vec<Result<()>> = threads
            .into_iter()
            .map(|it| it.join().expect("no panic"))
            .collect();
        heard.into_iter().collect()
    })
}

#[test]
fn who_waits_for_a_frozen_primary_is_answered_once_there_is_another() -> Result<()> {
    const PIN: &str = "CREATE TEMP TABLE own (a int)";
    const KEPT: &str = "SELECT 1 FOR UPDATE";
    let mut cluster = cluster(None)?;
    let mut holder = locked(&cluster)?;
    let plain = gateway(&cluster, "")?;
    let session = gateway(&cluster, "pool-mode = \"session\"")?;
    let full = gateway(&cluster, "pool-size = 2\nqueue-timeout = \"25s\"")?;
    let row = |gateway, before, sql, way, heard| Row {
        gateway,
        before,
        sql,
        way,
        heard,
    };
    let rows = [
        row(&plain, &[][..], WRITE, Way::Simple, "08007"),
        row(&plain, &[], WRITE, Way::Extended, "08007"),
        row(&plain, &[], READ, Way::Simple, "row 7"),
        row(&plain, &[], READ, Way::Extended, "row 7"),
        // It was to be described first, and there was no other primary yet: nothing of it was sent.
        row(&plain, &[], READ, Way::Named, "57P03"),
        row(&plain, &["BEGIN"], READ, Way::Simple, "57P01"),
        row(&plain, &["BEGIN", KEPT], WRITE, Way::Simple, "57P01"),
        row(&plain, &["BEGIN", KEPT], WRITE, Way::Never, "57P01"),
        row(&plain, &[PIN], READ, Way::Simple, "57P01"),
        row(&plain, &[PIN], WRITE, Way::Simple, "08007"),
        row(&plain, &[PIN], WRITE, Way::Never, "57P01"),
        row(&session, &[], READ, Way::Simple, "57P01"),
        row(&session, &[KEPT], WRITE, Way::Simple, "08007"),
        row(&session, &[KEPT], WRITE, Way::Never, "57P01"),
        row(&full, &[], WRITE, Way::Simple, "08007"),
        row(&full, &[], READ, Way::Simple, "row 7"),
        // They wait for one of two connections, and nothing of them was sent.
        row(&full, &[], WRITE, Way::Simple, "INSERT 0 1"),
        row(&full, &[], READ, Way::Extended, "row 7"),
        row(&full, &[], WRITE, Way::Extended, "INSERT 0 1"),
    ];
    let clients: Result<Vec<SqlClient>> = rows.iter().map(Row::begin).collect();
    let mut clients = clients?;
    holder.run("BEGIN")?;
    holder.run("LOCK TABLE locked IN ACCESS EXCLUSIVE MODE")?;
    for (row, client) in rows.iter().zip(&mut clients) {
        row.ask(client)?;
    }
    cluster.server_mut(0).freeze_all()?;
    // It is known to be down by then.
    thread::sleep(Duration::from_secs(3));
    cluster.promote(1)?;
    let promoted = Instant::now();
    let heard = hear(&rows, clients, promoted);
    cluster.server_mut(0).thaw_all()?;
    heard?;
    let written = "SELECT count(*) FROM locked WHERE v = 'written'";
    let written = cluster.standby(1).query("faults", written)?;
    ensure!(written.trim() == "2", "{written} of two that were told");
    let again = "breccia_sql_routed_total{target=\"primary\",reason=\"primary-lost\"}";
    let again = plain
        .breccia
        .metric(again)
        .context("reads that ran again")?;
    ensure!(again.to_string() == "2", "{again} reads ran again");
    Ok(())
}
