//! What belongs to one session is seen by no other, although they share upstream connections.
//!
//! Each session is held against a model of what it has set and made. Invariant: the schedule comes
//! from a printed seed alone; `BRECCIA_TEST_SEED` gives it again.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use breccia_testkit::{SqlClient, SqlReply, wait_until};

use crate::pooling::{database, together};
use crate::rig::{Dice, Extra, Gateway, LIMIT};

const THREADS: usize = 5;
const SESSIONS: u64 = 10;
const STATEMENTS: usize = 4_000;

/// One session and what it must find.
struct Session {
    client: SqlClient,
    number: u64,
    /// Its own settings; those that are not there are the server's.
    settings: BTreeMap<&'static str, String>,
    /// What each of its prepared statements answers.
    prepared: BTreeMap<u64, u64>,
    rows: u64,
    temp: Option<u64>,
    /// Whether it keeps its upstream connection.
    pinned: bool,
}

impl Session {
    fn new(gateway: &Gateway, number: u64) -> Result<Session> {
        let name = format!("app {number}");
        let options = format!("-c statement_timeout={}", 60_001 + number);
        let parameters = [
            ("database", "sessions"),
            ("application_name", name.as_str()),
            ("options", options.as_str()),
        ];
        let mut client = SqlClient::connect_with(gateway.port, &parameters)?;
        // A new session knows nothing of what the one before it has written.
        let rows = "/* breccia: primary */ SELECT count(*) FROM t WHERE own =";
        let rows = client.run(&format!("{rows} {number}"))?;
        let rows = rows.value().context("no count")?.parse()?;
        Ok(Session {
            client,
            number,
            settings: BTreeMap::new(),
            prepared: BTreeMap::new(),
            rows,
            temp: None,
            pinned: false,
        })
    }

    /// What SHOW must say of a setting.
    fn wanted(&self, name: &str) -> String {
        let default = match name {
            "work_mem" => "4MB".to_owned(),
            "application_name" => format!("app {}", self.number),
            "statement_timeout" => format!("{}ms", 60_001 + self.number),
            "search_path" => "\"$user\", public".to_owned(),
            _ => String::new(),
        };
        self.settings.get(name).cloned().unwrap_or(default)
    }

    fn check(&mut self, name: &str) -> Result<()> {
        let sql = format!("SELECT coalesce(current_setting('{name}', true), '')");
        let found = self.client.run(&sql)?;
        let wanted = self.wanted(name);
        ensure!(
            found.value() == Some(&wanted),
            "{name}: {:?}, not {wanted}",
            found.value()
        );
        Ok(())
    }

    /// A SET in one of its forms, now or in a transaction that ends one way or the other.
    fn set(&mut self, dice: &mut Dice, may_pin: bool) -> Result<()> {
        let own = 1_000 + self.number * 7 + dice.roll(5);
        let (name, value) = match dice.roll(4) {
            0 => (
                "work_mem",
                format!("{}kB", own + u64::from(own.is_multiple_of(1024))),
            ),
            1 => ("my.own", format!("mine {own}")),
            2 => ("application_name", format!("set {own}")),
            _ => ("search_path", format!("public, s{own}")),
        };
        let literal = if name == "search_path" {
            value.clone()
        } else {
            format!("'{value}'")
        };
        let set = format!("SET {name} = {literal}");
        let form = dice.roll(5);
        // A setting in a transaction is its server's until the end: that pins.
        let form = if [0, 2].contains(&form) && !may_pin {
            4
        } else {
            form
        };
        self.pinned |= [0, 2].contains(&form);
        let kept = match form {
            0 => {
                self.all(&["BEGIN", &set, "ROLLBACK"])?;
                false
            }
            1 => {
                self.all(&["BEGIN", &set.replace("SET", "SET LOCAL"), "COMMIT"])?;
                false
            }
            2 => {
                self.all(&["BEGIN", &set, "COMMIT"])?;
                true
            }
            3 => {
                self.client.extended(&set, &[])?.good()?;
                true
            }
            _ => {
                self.client.run(&set)?;
                true
            }
        };
        if kept {
            self.settings.insert(name, value);
        }
        self.check(name)
    }

    fn all(&mut self, statements: &[&str]) -> Result<()> {
        statements
            .iter()
            .try_for_each(|sql| self.client.run(sql).map(drop))
    }

    fn reset(&mut self, dice: &mut Dice) -> Result<()> {
        match dice.roll(3) {
            0 => {
                self.client.run("RESET work_mem")?;
                self.settings.remove("work_mem");
            }
            1 => {
                self.client.run("RESET ALL")?;
                self.settings.clear();
            }
            _ if !self.pinned => {
                self.client.run("DISCARD ALL")?;
                self.settings.clear();
                self.prepared.clear();
            }
            _ => {}
        }
        self.check("work_mem")
    }

    /// Parses, runs or closes one of a few names that all sessions use.
    fn prepared(&mut self, dice: &mut Dice) -> Result<()> {
        let (slot, own) = (dice.roll(4), self.number * 100 + dice.roll(50));
        let name = format!("p{slot}");
        match (self.prepared.get(&slot).copied(), dice.roll(3)) {
            (None, 0) => {
                let fault = self.client.bind(&name, &[]).execute().sync().ask()?;
                ensure!(fault.code() == "26000", "{name}: {:?}", fault.fault);
            }
            (None, _) => {
                let sql = format!("SELECT {own}::int");
                self.client.parse(&name, &sql).sync().ask()?.good()?;
                self.prepared.insert(slot, own);
            }
            (Some(_), 0) => {
                self.client.close(&name).sync().ask()?.good()?;
                self.prepared.remove(&slot);
            }
            (Some(own), _) => {
                let found = self
                    .client
                    .bind(&name, &[])
                    .execute()
                    .sync()
                    .ask()?
                    .good()?;
                let wanted = own.to_string();
                ensure!(
                    found.value() == Some(&wanted),
                    "{name}: {:?}",
                    found.value()
                );
            }
        }
        Ok(())
    }

    fn rows(&mut self, dice: &mut Dice) -> Result<()> {
        let insert = format!("INSERT INTO t (own) VALUES ({})", self.number);
        match dice.roll(5) {
            0 => {
                self.client.run(&insert)?;
                self.rows += 1;
            }
            1 => self.all(&["BEGIN", &insert, "ROLLBACK"])?,
            2 => {
                self.all(&["BEGIN", &insert])?;
                let fault: SqlReply = self.client.simple("SELECT 1/0")?;
                ensure!(fault.code() == "22012" && fault.status == 'E', "{fault:?}");
                ensure!(self.client.simple("SELECT 1")?.code() == "25P02");
                self.client.run("COMMIT")?;
            }
            _ => {}
        }
        let sql = "SELECT count(*) FROM public.t WHERE own = $1::int";
        let found = self
            .client
            .extended(sql, &[&self.number.to_string()])?
            .good()?;
        let wanted = self.rows.to_string();
        ensure!(
            found.value() == Some(&wanted),
            "{:?} rows, not {wanted}",
            found.value()
        );
        Ok(())
    }

    /// A temp table and a lock, or that nobody else's are seen.
    fn own_things(&mut self, may_make: bool) -> Result<()> {
        match self.temp {
            Some(own) => {
                let found = self.client.run("SELECT a FROM left_over")?;
                ensure!(
                    found.value() == Some(&own.to_string()),
                    "temp: {:?}",
                    found.rows
                );
                let held = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' \
                            AND pid = pg_backend_pid()";
                ensure!(self.client.run(held)?.value() == Some("1"));
            }
            None if may_make => {
                let own = self.number;
                self.all(&[
                    "CREATE TEMP TABLE left_over (a int)",
                    &format!("INSERT INTO left_over VALUES ({own})"),
                    &format!("SELECT pg_advisory_lock({own})"),
                ])?;
                self.temp = Some(own);
                self.pinned = true;
            }
            None => {
                let fault = self.client.simple("SELECT a FROM left_over")?;
                ensure!(
                    fault.code() == "42P01",
                    "another's temp table: {:?}",
                    fault.rows
                );
            }
        }
        Ok(())
    }
}

/// One thread's share of the schedule; it has at most one session that keeps its connection.
fn schedule(gateway: &Gateway, thread: u64, seed: u64, may_pin: bool) -> Result<()> {
    let mut dice = Dice::new(seed);
    let number = |slot: u64| thread * SESSIONS + slot;
    let mut sessions = (0..SESSIONS)
        .map(|slot| Session::new(gateway, number(slot)))
        .collect::<Result<Vec<_>>>()?;
    for step in 0..STATEMENTS {
        let slot = dice.roll(SESSIONS);
        let mut others = sessions.iter().zip(0..).filter(|(_, at)| *at != slot);
        let may_pin = may_pin && !others.any(|(session, _)| session.pinned);
        let session = sessions.get_mut(usize::try_from(slot)?).expect("a slot");
        let done = match dice.roll(20) {
            0..=4 => session.set(&mut dice, may_pin),
            5..=7 => {
                let names = [
                    "work_mem",
                    "application_name",
                    "statement_timeout",
                    "my.own",
                ];
                let name = *names
                    .get(usize::try_from(dice.roll(4))?)
                    .expect("one of four");
                session.check(name)
            }
            8 => session.reset(&mut dice),
            9..=13 => session.prepared(&mut dice),
            14..=16 => session.rows(&mut dice),
            17 | 18 => session.own_things(may_pin),
            _ if session.pinned || dice.roll(5) == 0 => {
                Session::new(gateway, session.number).map(|fresh| *session = fresh)
            }
            _ => Ok(()),
        };
        done.with_context(|| format!("thread {thread}, step {step}, session {}", number(slot)))?;
    }
    Ok(())
}

#[test]
fn fifty_sessions_over_four_connections_keep_what_is_theirs() -> Result<()> {
    let cluster = database("sessions")?;
    cluster
        .primary()
        .query("sessions", "CREATE INDEX ON t (own)")?;
    let extra = Extra {
        listener: "pool-size = 4",
        ..Extra::default()
    };
    let gateway = Gateway::over(&cluster, "sessions", extra)?;
    let seed = Dice::printed().roll(u64::MAX);
    let worked = together(THREADS, |thread| {
        let thread = u64::try_from(thread)?;
        schedule(&gateway, thread, seed ^ (thread * 104_729), thread < 2)
    });
    let (_, metrics) = gateway.breccia.admin("/metrics")?;
    metrics
        .lines()
        .filter(|it| it.contains("sql_pinned_total{"))
        .for_each(|it| println!("{it}"));
    worked?;
    let locks = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND database = \
                 (SELECT oid FROM pg_database WHERE datname = 'sessions')";
    wait_until(LIMIT, "locks of sessions that have ended", || {
        Ok((cluster.primary().query("sessions", locks)?.trim() == "0").then_some(()))
    })
}

#[test]
fn startup_options_reach_both_kinds_of_server() -> Result<()> {
    let cluster = database("startup")?;
    let gateway = Gateway::over(&cluster, "startup", Extra::default())?;
    let parameters = [
        ("database", "startup"),
        ("options", "-c datestyle=german -c timezone=Asia/Tokyo"),
        ("client_encoding", "LATIN1"),
    ];
    let mut client = SqlClient::connect_with(gateway.port, &parameters)?;
    let said = |client: &SqlClient, name: &str| client.parameters.get(name).cloned();
    assert_eq!(said(&client, "TimeZone").as_deref(), Some("Asia/Tokyo"));
    assert_eq!(said(&client, "client_encoding").as_deref(), Some("LATIN1"));
    let moment = "SELECT '2026-01-02 03:04:05+00'::timestamptz::text";
    for sql in [
        moment.to_owned(),
        format!("/* breccia: primary */ {moment}"),
    ] {
        for _ in 0..5 {
            let found = client.run(&sql)?;
            assert_eq!(found.value(), Some("02.01.2026 12:04:05 JST"), "{sql}");
        }
    }
    client.run("SET timezone = 'UTC'")?;
    assert_eq!(said(&client, "TimeZone").as_deref(), Some("UTC"));
    assert_eq!(client.run(moment)?.value(), Some("02.01.2026 03:04:05 UTC"));
    // Back to what the session began with. Its report is the server's, of before that is sent again.
    client.run("RESET timezone")?;
    assert_eq!(client.run(moment)?.value(), Some("02.01.2026 12:04:05 JST"));
    let mut other = gateway.client("startup")?;
    assert_ne!(other.run(moment)?.value(), Some("02.01.2026 12:04:05 JST"));
    Ok(())
}
