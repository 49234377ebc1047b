//! One session of many, and what it must find.
//!
//! Not the schedule. Invariant: every answer is held against what this session alone has done; an
//! error that it has not asked for ends the test.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use breccia_testkit::{SqlClient, SqlReply};

use crate::rig::Dice;

/// The roles that share nothing, each with a pool of its own.
pub(crate) const ROLES: [&str; 2] = ["alice", "bob"];

/// How long an answer may take: all wait for few connections.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);

/// What all sessions of a run have in common.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) port: u16,
    pub(crate) database: &'static str,
    /// Statements so far, and how many there shall be.
    pub(crate) count: AtomicU64,
    pub(crate) most: u64,
    /// One session of a role at a time keeps its connection.
    pub(crate) may_pin: [Mutex<()>; ROLES.len()],
    /// Keys of sessions that have ended.
    pub(crate) stale: Mutex<Vec<Vec<u8>>>,
}

impl World {
    pub(crate) fn is_over(&self) -> bool {
        self.count.load(Ordering::Relaxed) >= self.most
    }
}

/// A session, and what it has done.
pub(crate) struct Session<'a> {
    world: &'a World,
    client: SqlClient,
    number: u64,
    generation: u64,
    /// Its own settings; those that are not there are as it began.
    settings: BTreeMap<&'static str, String>,
    /// What each of its prepared statements answers.
    prepared: BTreeMap<u64, String>,
    rows: u64,
}

impl<'a> Session<'a> {
    pub(crate) fn new(world: &'a World, number: u64) -> Result<Session<'a>> {
        let mut session = Session {
            client: Session::connect(world, number)?,
            world,
            number,
            generation: 0,
            settings: BTreeMap::new(),
            prepared: BTreeMap::new(),
            rows: 0,
        };
        let count = format!("SELECT count(*) FROM public.t WHERE own = {number}");
        let rows = session.good(&count)?;
        session.rows = rows.value().context("no count")?.parse()?;
        Ok(session)
    }

    fn connect(world: &World, number: u64) -> Result<SqlClient> {
        let (name, options) = (
            format!("app {number}"),
            format!("-c statement_timeout={}", 90_001 + number),
        );
        let parameters = [
            ("database", world.database),
            ("application_name", name.as_str()),
            ("options", options.as_str()),
        ];
        let mut client = SqlClient::connect_as(world.port, role(number), &parameters)?;
        client.set_patience(PATIENCE)?;
        // A new session knows nothing of what its rows' writer has seen: from here on it is not behind.
        client.run("/* breccia: primary */ SELECT 1")?;
        Ok(client)
    }

    /// A new connection in place of this one; everything of the session is gone but its rows.
    fn again(&mut self) -> Result<()> {
        // What it holds is free before a login needs it.
        self.client.hang_up();
        let before = self.client.key().to_vec();
        self.world.stale.lock().expect("no panic").push(before);
        self.client = Session::connect(self.world, self.number)?;
        self.generation += 1;
        self.settings.clear();
        self.prepared.clear();
        Ok(())
    }

    /// What nobody else says.
    fn mark(&self) -> String {
        format!("s{}g{}", self.number, self.generation)
    }

    /// Nothing in a reply is another's.
    fn own(&self, reply: SqlReply) -> Result<SqlReply> {
        self.world.count.fetch_add(1, Ordering::Relaxed);
        let mark = self.mark();
        let texts = reply.notifications.iter().map(|(_, payload)| payload);
        for text in texts.chain(&reply.notices) {
            let known = *text == mark || text.contains("transaction");
            ensure!(known, "{mark} was told {text:?}");
        }
        ensure!(reply.code() != "57014", "{mark} was cancelled");
        Ok(reply)
    }

    fn simple(&mut self, sql: &str) -> Result<SqlReply> {
        let reply = self.client.simple(sql).with_context(|| sql.to_owned())?;
        self.own(reply)
    }

    fn good(&mut self, sql: &str) -> Result<SqlReply> {
        self.simple(sql)?.good().with_context(|| sql.to_owned())
    }

    /// Sends statements all at once. What is expected of each: nothing but success, a SQLSTATE, or
    /// a value behind `=`.
    fn script(&mut self, steps: &[(&str, &str)]) -> Result<()> {
        for (sql, _) in steps {
            self.client.query(sql);
        }
        self.client.flush()?;
        for (sql, wanted) in steps {
            let reply = self
                .client
                .read_reply()
                .with_context(|| (*sql).to_owned())?;
            let reply = self.own(reply)?;
            let right = match wanted.strip_prefix('=') {
                Some(value) => reply.value() == Some(value),
                None => reply.code() == *wanted,
            };
            ensure!(right, "{sql}: {reply:?}, not {wanted:?}");
        }
        Ok(())
    }

    fn extended(&mut self, sql: &str, values: &[&str]) -> Result<SqlReply> {
        let reply = self.client.extended(sql, values)?;
        self.own(reply)?.good().with_context(|| sql.to_owned())
    }

    /// A statement must answer this.
    fn finds(&mut self, sql: &str, wanted: &str) -> Result<()> {
        let found = self.good(sql)?;
        ensure!(
            found.value() == Some(wanted),
            "{sql}: {:?}, not {wanted}",
            found.value()
        );
        Ok(())
    }

    /// Takes one step of the schedule.
    pub(crate) fn step(&mut self, dice: &mut Dice) -> Result<()> {
        match dice.roll(64) {
            0..=11 => self.set(dice),
            12..=17 => self.check_some(dice),
            18..=20 => self.reset(dice),
            21..=32 => self.use_prepared(dice),
            33..=40 => self.change_rows(dice),
            41..=47 => self.who(dice),
            48..=53 => self.pipeline(dice),
            54..=57 => self.notice(),
            58..=60 => self.spell(dice),
            61..=62 => self.vanish(dice),
            _ => self.again(),
        }
    }

    /// What a setting must be.
    fn wanted(&self, name: &str) -> String {
        let began = match name {
            "work_mem" => "4MB".to_owned(),
            "application_name" => format!("app {}", self.number),
            "statement_timeout" => format!("{}ms", 90_001 + self.number),
            "search_path" => "\"$user\", public".to_owned(),
            "client_min_messages" => "notice".to_owned(),
            _ => String::new(),
        };
        self.settings.get(name).cloned().unwrap_or(began)
    }

    fn check(&mut self, name: &str, dice: &mut Dice) -> Result<()> {
        let hint = dice.pick(&["", "", "/* breccia: primary */"]);
        let sql = format!("SELECT coalesce(current_setting('{name}', true), '') {hint}");
        let wanted = self.wanted(name);
        self.finds(&sql, &wanted)
    }

    fn check_some(&mut self, dice: &mut Dice) -> Result<()> {
        let names = [
            "work_mem",
            "application_name",
            "statement_timeout",
            "my.own",
            "search_path",
            "client_min_messages",
        ];
        self.check(dice.pick(&names), dice)
    }

    /// A SET in one of the forms that do not keep the connection.
    fn set(&mut self, dice: &mut Dice) -> Result<()> {
        let own = 1_001 + self.number * 7 + dice.roll(5);
        let (name, value) = match dice.roll(5) {
            // No multiple of a megabyte, which would be shown as one.
            0 => ("work_mem", format!("{}kB", own | 1)),
            1 => ("my.own", format!("mine {own}")),
            2 => ("application_name", format!("set {own}")),
            3 => (
                "client_min_messages",
                dice.pick(&["notice", "warning"]).to_owned(),
            ),
            _ => ("search_path", format!("public, s{own}")),
        };
        let literal = match name {
            "search_path" => value.clone(),
            _ => format!("'{value}'"),
        };
        let set = format!("SET {name} = {literal}");
        match dice.roll(4) {
            0 => {
                let local = set.replace("SET", "SET LOCAL");
                let end = dice.pick(&["COMMIT", "ROLLBACK"]);
                let (show, wanted) = (format!("SHOW {name}"), format!("={value}"));
                self.script(&[("BEGIN", ""), (&local, ""), (&show, &wanted), (end, "")])?;
            }
            1 => {
                self.extended(&set, &[])?;
                self.settings.insert(name, value);
            }
            _ => {
                self.good(&set)?;
                self.settings.insert(name, value);
            }
        }
        self.check(name, dice)
    }

    fn reset(&mut self, dice: &mut Dice) -> Result<()> {
        match dice.roll(4) {
            0 => {
                self.good("RESET work_mem")?;
                self.settings.remove("work_mem");
            }
            1 => {
                self.good("RESET ALL")?;
                self.settings.clear();
            }
            2 => {
                self.good("DEALLOCATE ALL")?;
                self.prepared.clear();
            }
            _ => {
                self.good("DISCARD ALL")?;
                self.settings.clear();
                self.prepared.clear();
            }
        }
        self.check("work_mem", dice)
    }

    /// Parses, runs or closes one of a few names that all sessions use, for texts of its own and
    /// for texts that others prepare too.
    fn use_prepared(&mut self, dice: &mut Dice) -> Result<()> {
        let slot = dice.roll(4);
        let name = format!("p{slot}");
        let run = |client: &mut SqlClient| client.bind(&name, &[]).execute().sync().ask();
        match (self.prepared.get(&slot).cloned(), dice.roll(4)) {
            (None, 0) => {
                let reply = run(&mut self.client)?;
                let found = self.own(reply)?;
                ensure!(found.code() == "26000", "{name}: {:?}", found.rows);
            }
            (None, _) => {
                let value = match dice.roll(2) {
                    0 => self.mark(),
                    _ => format!("shared {}", dice.roll(20)),
                };
                let sql = format!("SELECT '{value}'::text");
                let reply = self.client.parse(&name, &sql).sync().ask()?;
                self.own(reply)?.good()?;
                self.prepared.insert(slot, value);
            }
            (Some(_), 0) => {
                let reply = match dice.roll(2) {
                    0 => self.client.close(&name).sync().ask()?,
                    _ => self.client.simple(&format!("DEALLOCATE {name}"))?,
                };
                self.own(reply)?.good()?;
                self.prepared.remove(&slot);
            }
            (Some(value), _) => {
                let reply = run(&mut self.client)?;
                let found = self.own(reply)?.good()?;
                ensure!(found.value() == Some(&value), "{name}: {:?}", found.rows);
            }
        }
        Ok(())
    }

    fn change_rows(&mut self, dice: &mut Dice) -> Result<()> {
        let insert = format!("INSERT INTO public.t (own) VALUES ({})", self.number);
        match dice.roll(6) {
            0 => {
                self.good(&insert)?;
                self.rows += 1;
            }
            1 => self.script(&[("BEGIN", ""), (&insert, ""), ("ROLLBACK", "")])?,
            2 => {
                let fails = [
                    ("SELECT 1/0", "22012"),
                    ("SELECT 1", "25P02"),
                    ("COMMIT", ""),
                ];
                self.script(&[("BEGIN", ""), (&insert, "")])?;
                self.script(&fails)?;
            }
            3 => {
                self.script(&[
                    ("BEGIN", ""),
                    ("SAVEPOINT a", ""),
                    (&insert, ""),
                    ("SELECT 1/0", "22012"),
                    ("ROLLBACK TO a", ""),
                    (&insert, ""),
                    ("COMMIT", ""),
                ])?;
                self.rows += 1;
            }
            4 if self.rows > 20 => {
                self.good(&format!("DELETE FROM public.t WHERE own = {}", self.number))?;
                self.rows = 0;
            }
            _ => {}
        }
        let (own, wanted) = (self.number.to_string(), self.rows.to_string());
        let sql = "SELECT count(*) FROM public.t WHERE own = $1::int";
        let found = self.extended(sql, &[&own])?;
        ensure!(
            found.value() == Some(&wanted),
            "{:?} rows, not {wanted}",
            found.value()
        );
        Ok(())
    }

    /// Who it is, and that row security shows it no row of another role.
    fn who(&mut self, dice: &mut Dice) -> Result<()> {
        let hint = dice.pick(&["", "", "/* breccia: primary */"]);
        let sql = format!(
            "SELECT concat_ws(' ', current_user, session_user, (SELECT count(*) FROM public.t \
             WHERE owner <> current_user)) {hint}"
        );
        let role = role(self.number);
        let wanted = format!("{role} {role} 0");
        if dice.roll(2) == 0 {
            return self.finds(&sql, &wanted);
        }
        let found = self.extended(&sql, &[])?;
        ensure!(found.value() == Some(&wanted), "{:?}", found.rows);
        Ok(())
    }

    /// Several batches under way at once, one of which may fail.
    fn pipeline(&mut self, dice: &mut Dice) -> Result<()> {
        let (length, bad) = (2 + dice.roll(5), dice.roll(8));
        for number in 0..length {
            let value = format!("{} {number}", self.mark());
            let sql = if number == bad {
                "SELECT (1 / 0)::text || $1"
            } else {
                "SELECT $1::text"
            };
            self.client
                .parse("", sql)
                .bind("", &[&value])
                .execute()
                .sync();
        }
        self.client.flush()?;
        for number in 0..length {
            let reply = self.client.read_reply()?;
            let reply = self.own(reply)?;
            let wanted = format!("{} {number}", self.mark());
            if number == bad {
                ensure!(reply.code() == "22012", "{:?}", reply.fault);
            } else {
                ensure!(reply.value() == Some(&wanted), "{:?}", reply.rows);
            }
        }
        Ok(())
    }

    fn notice(&mut self) -> Result<()> {
        let mark = self.mark();
        let sql = format!("DO $$ BEGIN RAISE NOTICE '{mark}'; END $$");
        let told = self.good(&sql)?.notices;
        let wanted = match self.wanted("client_min_messages").as_str() {
            "notice" => vec![mark],
            _ => Vec::new(),
        };
        ensure!(told == wanted, "told {told:?}, not {wanted:?}");
        Ok(())
    }

    /// Keeps the connection for a while, if nobody else of its role does; else sees nothing of what
    /// such sessions have made.
    fn spell(&mut self, dice: &mut Dice) -> Result<()> {
        let role = usize::try_from(self.number)? % ROLES.len();
        let world = self.world;
        let Some(turn) = world.may_pin.get(role).and_then(|it| it.try_lock().ok()) else {
            return self.sees_nothing();
        };
        let (mark, number) = (self.mark(), self.number);
        let all = [
            format!("CREATE TEMP TABLE left_over AS SELECT '{mark}'::text AS a"),
            format!("LISTEN c{number}"),
            format!("PREPARE by_sql AS SELECT '{mark}'"),
            format!("DECLARE held CURSOR WITH HOLD FOR SELECT '{mark}' FROM generate_series(1, 9)"),
            format!("SELECT pg_advisory_lock({number})"),
            "SELECT set_config('work_mem', '7MB', false)".to_owned(),
        ];
        let (notify, is_mark) = (format!("NOTIFY c{number}, '{mark}'"), format!("={mark}"));
        let shown: [(&str, &str); 6] = [
            ("SELECT a FROM pg_temp.left_over", &is_mark),
            (&notify, ""),
            ("EXECUTE by_sql", &is_mark),
            ("FETCH FROM held", &is_mark),
            ("SELECT 7", "=7"),
            ("SHOW work_mem", "=7MB"),
        ];
        let some: Vec<bool> = all.iter().map(|_| dice.roll(2) == 0).collect();
        let chosen = |(at, step): (usize, (&'_ str, &'_ str))| -> Option<(String, String)> {
            let (sql, wanted) = step;
            some.get(at)
                .copied()
                .unwrap_or(false)
                .then(|| (sql.to_owned(), wanted.to_owned()))
        };
        let made = all
            .iter()
            .map(|sql| (sql.as_str(), ""))
            .enumerate()
            .filter_map(chosen);
        let mut steps: Vec<(String, String)> = made.collect();
        steps.extend(shown.into_iter().enumerate().filter_map(chosen));
        // What is set in a transaction is its server's until the end.
        for (sql, wanted) in [
            ("BEGIN", ""),
            ("SET my.own = 'rolled back'", ""),
            ("ROLLBACK", ""),
            ("BEGIN", ""),
            ("SET my.own = 'committed'", ""),
            ("COMMIT", ""),
            ("SHOW my.own", "=committed"),
        ] {
            steps.push((sql.to_owned(), wanted.to_owned()));
        }
        let steps: Vec<(&str, &str)> = steps
            .iter()
            .map(|(a, b)| (a.as_str(), b.as_str()))
            .collect();
        self.script(&steps)?;
        if dice.roll(2) == 0 {
            self.again()?;
        } else {
            self.good("DISCARD ALL")?;
            self.settings.clear();
            self.prepared.clear();
        }
        drop(turn);
        self.sees_nothing()
    }

    fn sees_nothing(&mut self) -> Result<()> {
        self.settings.clear();
        self.prepared.clear();
        self.script(&[
            ("SELECT a FROM pg_temp.left_over", "42P01"),
            ("DISCARD ALL", ""),
            ("EXECUTE by_sql", "26000"),
            ("FETCH FROM held", "34000"),
            (
                "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()",
                "=0",
            ),
            ("SELECT count(*) FROM pg_listening_channels()", "=0"),
        ])
    }

    /// Sends what begins a lot and ends nothing, up to any byte, and is gone.
    fn vanish(&mut self, dice: &mut Dice) -> Result<()> {
        for _ in 0..=dice.roll(3) {
            unfinished(&mut self.client, dice.roll(10));
            self.world.count.fetch_add(1, Ordering::Relaxed);
        }
        let part = usize::try_from(dice.roll(400))?;
        // The other side may have ended the connection for what it has read of it.
        let _sent = self.client.flush_part(part);
        if dice.roll(2) == 0 {
            std::thread::sleep(Duration::from_millis(dice.roll(5)));
        }
        self.again()
    }
}

/// The role of a session.
fn role(number: u64) -> &'static str {
    let at = usize::try_from(number).unwrap_or(0) % ROLES.len();
    ROLES.get(at).copied().unwrap_or_default()
}

fn unfinished(client: &mut SqlClient, kind: u64) {
    let insert = "INSERT INTO public.t (own) VALUES (-1)";
    match kind {
        0 => client.query("BEGIN").query(insert),
        1 => client.parse("", insert).bind("", &[]).execute(),
        2 => client
            .query("COPY public.t (own) FROM STDIN")
            .frame(b'd', b"-1\n"),
        3 => client.query("SELECT pg_sleep(0.005)").query("SELECT 1"),
        4 => client.query("SELECT repeat('x', 1000) FROM generate_series(1, 2000)"),
        5 => client.query("BEGIN").query("SELECT 1/0"),
        6 => client
            .parse("p", "SELECT 1")
            .sync()
            .bind("p", &[])
            .execute(),
        7 => client
            .query("SET work_mem = '6MB'")
            .query("SET my.own = 'left'"),
        8 => client
            .query("BEGIN")
            .query("SET application_name = 'left'")
            .query("SELECT pg_advisory_xact_lock(-1)"),
        _ => client.query("SELECT 'left over' FROM generate_series(1, 20)"),
    };
}
