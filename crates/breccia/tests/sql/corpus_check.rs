//! Runs a statement on a primary and on its standby, and looks for what it left behind.
//!
//! Not a judge of statements: whatever is handed in should be a read. Invariant: nobody else writes
//! to these servers, so every difference comes from what was run here.

use std::fmt::Write as _;

use anyhow::{Context, Result, ensure};
use breccia_testkit::{PostgresCluster, SqlClient, SqlReply};

/// What a statement may leave in its transaction, and in sequences.
const TRACES: &str = "SELECT coalesce(pg_current_xact_id_if_assigned()::text, 'no xid'), \
    (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()), \
    (SELECT last_value FROM ids)";
/// What it may leave in its session and in the server.
const STATE: &str = "SELECT (SELECT md5(string_agg(name || '=' || coalesce(setting, ''), ',' \
     ORDER BY name)) FROM pg_settings \
     WHERE name <> 'transaction_read_only' AND name NOT LIKE 'plpgsql.%'), \
    (SELECT count(*) FROM pg_class WHERE relpersistence = 't'), \
    (SELECT count(*) FROM pg_prepared_statements), (SELECT count(*) FROM pg_cursors), \
    (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'), \
    (SELECT count(*) FROM pg_listening_channels()), \
    (SELECT count(*) FROM pg_largeobject_metadata), \
    (SELECT string_agg(sequencename || coalesce(last_value, 0), ',' ORDER BY sequencename) \
     FROM pg_sequences)";
/// The next transaction's number: it grows whoever writes.
const NEXT: &str = ", (SELECT pg_snapshot_xmax(pg_current_snapshot()))";
/// Stopped by its timeout, on a server that is busy or by many rows.
const TOO_SLOW: &str = "57014";
/// The state is looked at after so many statements.
const GROUP: usize = 100;

/// The two servers, and what is wrong so far.
#[derive(Debug)]
pub(super) struct Servers {
    primary: SqlClient,
    standby: SqlClient,
    /// Of the primary, then of the standby.
    states: [String; 2],
    group: Vec<String>,
    succeeded: usize,
    failed: usize,
    slow: usize,
    rows: usize,
    pub(super) complaints: String,
}

fn state(client: &mut SqlClient, more: &str) -> Result<String> {
    let reply = client.run(&format!("{STATE}{more}"))?;
    Ok(format!("{:?}", reply.rows))
}

/// The rows in an order of their own: without ORDER BY a server may choose.
fn sorted(reply: &SqlReply) -> Vec<&Vec<Option<String>>> {
    let mut rows: Vec<_> = reply.rows.iter().collect();
    rows.sort();
    rows
}

impl Servers {
    /// Connects to both, as this role.
    pub(super) fn connect(
        cluster: &PostgresCluster,
        database: &str,
        role: Option<&str>,
    ) -> Result<Servers> {
        let connect = |port| -> Result<SqlClient> {
            let mut client = SqlClient::connect(port, database)?;
            client.run("SET timezone = 'UTC'")?;
            client.run("SET statement_timeout = '2s'")?;
            if let Some(role) = role {
                client.run(&format!("SET ROLE {role}"))?;
            }
            Ok(client)
        };
        let mut primary = connect(cluster.primary().port())?;
        let mut standby = connect(cluster.standby(1).port())?;
        primary.run("LISTEN ch")?;
        let recovery = standby.run("SELECT pg_is_in_recovery()")?;
        ensure!(recovery.value() == Some("t"), "the standby is none");
        let states = [state(&mut primary, NEXT)?, state(&mut standby, "")?];
        Ok(Servers {
            primary,
            standby,
            states,
            group: Vec::new(),
            succeeded: 0,
            failed: 0,
            slow: 0,
            rows: 0,
            complaints: String::new(),
        })
    }

    /// How many statements ran without an error.
    pub(super) fn succeeded(&self) -> usize {
        self.succeeded
    }

    pub(super) fn summary(&self) -> String {
        let Servers {
            succeeded,
            failed,
            slow,
            rows,
            ..
        } = self;
        format!(
            "{succeeded} succeeded with {rows} rows, {failed} failed alike, {slow} were stopped"
        )
    }

    /// Runs a statement on both.
    pub(super) fn check(&mut self, sql: &str) -> Result<()> {
        self.standby.query(sql).flush()?;
        let there = self.on_primary(sql);
        let (here, traces) = there.with_context(|| format!("on the primary: {sql}"))?;
        let there = self.standby.read_reply();
        let there = there.with_context(|| format!("on the standby: {sql}"))?;
        if let Some(traces) = traces {
            writeln!(self.complaints, "it leaves {traces}: {sql:?}")?;
        }
        let fault = |reply: &SqlReply| reply.fault.clone();
        if [here.code(), there.code()].contains(&TOO_SLOW) {
            self.slow += 1;
            return Ok(());
        }
        if here.code() != there.code() || sorted(&here) != sorted(&there) {
            let (ours, theirs) = (fault(&here), fault(&there));
            let differ: Vec<_> = sorted(&here)
                .into_iter()
                .zip(sorted(&there))
                .filter(|(one, other)| one != other)
                .take(2)
                .collect();
            writeln!(
                self.complaints,
                "the servers differ, {ours:?} and {theirs:?}, {} and {} rows, {differ:?}: {sql:?}",
                here.rows.len(),
                there.rows.len(),
            )?;
        }
        self.rows += here.rows.len();
        match here.fault {
            Some(_) => self.failed += 1,
            None => self.succeeded += 1,
        }
        self.group.push(sql.to_owned());
        if self.group.len() >= GROUP {
            self.finish()?;
        }
        Ok(())
    }

    /// Runs a statement in a transaction of its own; its reply, and what it left.
    fn on_primary(&mut self, sql: &str) -> Result<(SqlReply, Option<String>)> {
        let client = &mut self.primary;
        client
            .query("BEGIN")
            .query(sql)
            .query(TRACES)
            .query("COMMIT");
        client.flush()?;
        client.read_reply()?.good()?;
        let reply = client.read_reply()?;
        let traces = client.read_reply()?;
        let end = client.read_reply()?;
        let heard = [&reply, &traces, &end]
            .iter()
            .any(|reply| reply.frames.contains('A'));
        let found = format!("{:?}, notified: {heard}", traces.rows);
        let clean = reply.fault.is_some() && !heard;
        let clean =
            clean || found == "[[Some(\"no xid\"), Some(\"0\"), Some(\"1\")]], notified: false";
        Ok((reply, (!clean).then_some(found)))
    }

    /// Looks at the state of both servers after a group of statements.
    pub(super) fn finish(&mut self) -> Result<()> {
        let group = std::mem::take(&mut self.group);
        let now = [
            state(&mut self.primary, NEXT)?,
            state(&mut self.standby, "")?,
        ];
        if now == self.states {
            return Ok(());
        }
        writeln!(
            self.complaints,
            "the state was {:?} and is {now:?}",
            self.states
        )?;
        self.states = now;
        // Once more, one by one.
        for sql in group {
            self.on_primary(&sql)?;
            self.standby.simple(&sql)?;
            let now = [
                state(&mut self.primary, NEXT)?,
                state(&mut self.standby, "")?,
            ];
            if now != self.states {
                writeln!(self.complaints, "it changes the state: {sql:?}")?;
                self.states = now;
            }
        }
        Ok(())
    }
}
