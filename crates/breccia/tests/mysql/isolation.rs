//! Settings of many sessions over few connections, in an order that dice give.
//!
//! Not one setting after another, which other tests do. Invariant: each session is held against a
//! model of its own, and nothing of another's may show.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use breccia_testkit::{MyClient, MyValue};

use crate::rig::{Dice, Extra, Gateway, fresh, shared};

/// Steps, unless `BRECCIA_TEST_STATEMENTS` says another number.
const STEPS: usize = 2_000;

/// Sessions that take turns.
const SESSIONS: usize = 12;

/// Settings, how they are asked, and values each may have: as it is set and as it is told.
type Row = (
    &'static str,
    &'static str,
    &'static [(&'static str, &'static str)],
);

const SETTINGS: &[Row] = &[
    (
        "time_zone",
        "@@time_zone",
        &[
            ("'+01:00'", "+01:00"),
            ("'-07:00'", "-07:00"),
            ("DEFAULT", "SYSTEM"),
        ],
    ),
    (
        "sql_mode",
        "@@sql_mode",
        &[
            ("''", ""),
            ("'ANSI_QUOTES'", "ANSI_QUOTES"),
            ("'NO_BACKSLASH_ESCAPES'", "NO_BACKSLASH_ESCAPES"),
        ],
    ),
    (
        "names",
        "@@character_set_client",
        &[
            ("latin1", "latin1"),
            ("utf8mb4", "utf8mb4"),
            ("utf8mb3", "utf8mb3"),
        ],
    ),
    (
        "sql_select_limit",
        "@@sql_select_limit",
        &[("5", "5"), ("7", "7"), ("1000", "1000")],
    ),
    (
        "group_concat_max_len",
        "@@group_concat_max_len",
        &[("400", "400"), ("500", "500"), ("DEFAULT", "1048576")],
    ),
    (
        "lc_time_names",
        "@@lc_time_names",
        &[
            ("'de_DE'", "de_DE"),
            ("'fr_FR'", "fr_FR"),
            ("'en_US'", "en_US"),
        ],
    ),
    (
        "div_precision_increment",
        "@@div_precision_increment",
        &[("2", "2"), ("8", "8"), ("4", "4")],
    ),
    (
        "max_statement_time",
        "CAST(@@max_statement_time AS INT)",
        &[("30", "30"), ("60", "60"), ("0", "0")],
    ),
    (
        "tx_isolation",
        "@@tx_isolation",
        &[
            ("'READ-COMMITTED'", "READ-COMMITTED"),
            ("'SERIALIZABLE'", "SERIALIZABLE"),
            ("'REPEATABLE-READ'", "REPEATABLE-READ"),
        ],
    ),
    ("@mark", "@mark", &[("1", "1"), ("2", "2"), ("3", "3")]),
];

/// A session, and what it must show.
struct Session {
    client: MyClient,
    model: BTreeMap<&'static str, &'static str>,
    database: &'static str,
    transaction: bool,
    last_id: String,
}

impl Session {
    fn begin(gateway: &Gateway) -> Result<Session> {
        Ok(Session {
            client: gateway.client("one")?,
            model: BTreeMap::new(),
            database: "one",
            transaction: false,
            last_id: "0".to_owned(),
        })
    }

    fn value(&mut self, sql: &str, binary: bool) -> Result<String> {
        let reply = if binary {
            self.client.once(sql, &[])?.good()?
        } else {
            self.client.run(sql)?
        };
        reply.text().with_context(|| format!("no row of {sql}"))
    }

    fn is(&mut self, sql: &str, expected: &str, binary: bool) -> Result<()> {
        let found = self.value(sql, binary)?;
        let number = self.client.connection_id;
        ensure!(
            found == expected,
            "session {number}: {sql} is {found} instead of {expected}"
        );
        Ok(())
    }

    fn set(&mut self, dice: &mut Dice) -> Result<()> {
        let (name, asked, values) = dice.pick(SETTINGS);
        let (value, told) = dice.pick(values);
        if name == "@mark" && dice.roll(10) > 0 {
            // It pins the session, so few may have it.
            return Ok(());
        }
        let sql = match (name, dice.roll(3)) {
            ("names", _) => format!("SET NAMES {value}"),
            ("@mark", _) | (_, 0) => format!("SET {name} = {value}"),
            (_, 1) => format!("SET SESSION {name} = {value}"),
            _ => format!("SET @@session.{name} = {value}"),
        };
        self.client.run(&sql)?;
        self.model.insert(asked, told);
        Ok(())
    }

    fn ask(&mut self, dice: &mut Dice) -> Result<()> {
        let known: Vec<_> = self
            .model
            .iter()
            .map(|(name, value)| (*name, *value))
            .collect();
        if known.is_empty() {
            return self.is("SELECT DATABASE()", self.database, false);
        }
        let (name, told) = dice.pick(&known);
        let sql = match dice.roll(3) {
            0 if !name.starts_with("@mark") => format!("SELECT {name} FROM t LIMIT 1"),
            _ => format!("SELECT {name}"),
        };
        self.is(&sql, told, dice.roll(2) == 0)
    }

    /// Something whose answer depends on what is set, and is no question for it.
    fn feel(&mut self, dice: &mut Dice) -> Result<()> {
        match dice.roll(5) {
            0 => {
                let zone = self.model.get("@@time_zone").copied().unwrap_or("SYSTEM");
                let expected = match zone {
                    "+01:00" => "1970-01-01 01:00:00",
                    "-07:00" => "1969-12-31 17:00:00",
                    _ => return Ok(()),
                };
                self.is(
                    "SELECT CAST(FROM_UNIXTIME(0) AS CHAR) FROM t LIMIT 1",
                    expected,
                    false,
                )
            }
            1 => {
                let quoted = self.model.get("@@sql_mode") == Some(&"ANSI_QUOTES");
                let expected = if quoted { "a" } else { "v" };
                self.is(
                    "SELECT \"v\" FROM t WHERE id = 1",
                    expected,
                    dice.roll(2) == 0,
                )
            }
            2 => {
                let expected = self.database;
                self.is(
                    "SELECT (SELECT name FROM whoami) FROM t LIMIT 1",
                    expected,
                    dice.roll(2) == 0,
                )
            }
            3 => {
                let digits = match self.model.get("@@div_precision_increment") {
                    Some(&"2") => "0.33",
                    Some(&"8") => "0.33333333",
                    _ => "0.3333",
                };
                self.is("SELECT CAST(1/3 AS CHAR)", digits, false)
            }
            _ => {
                let expected = self.last_id.clone();
                self.is("SELECT LAST_INSERT_ID()", &expected, dice.roll(2) == 0)
            }
        }
    }

    fn change(&mut self, dice: &mut Dice) -> Result<()> {
        match dice.roll(6) {
            0 => {
                self.database = dice.pick(&["one", "two"]);
                if dice.roll(2) == 0 {
                    self.client.enter(self.database)?.good()?;
                } else {
                    self.client.run(&format!("USE {}", self.database))?;
                }
            }
            1 if !self.transaction => {
                self.client.run("START TRANSACTION")?;
                self.transaction = true;
            }
            2 if self.transaction => {
                self.client.run(if dice.roll(2) == 0 {
                    "COMMIT"
                } else {
                    "ROLLBACK"
                })?;
                self.transaction = false;
            }
            3 if dice.roll(8) == 0 => {
                self.client.reset()?.good()?;
                self.model.clear();
                self.transaction = false;
                "0".clone_into(&mut self.last_id);
            }
            _ => {
                let value = [MyValue::Bytes(b"w")];
                let reply = self
                    .client
                    .once("INSERT INTO w (v) VALUES (?)", &value)?
                    .good()?;
                self.last_id = reply.insert_id().to_string();
            }
        }
        Ok(())
    }

    /// A few sessions at most keep a connection by a transaction or a variable.
    fn keeps(&self) -> bool {
        self.transaction || self.model.contains_key("@mark")
    }
}

#[test]
fn settings_of_many_sessions_over_two_connections_never_mix() -> Result<()> {
    let cluster = shared()?;
    for database in ["one", "two"] {
        fresh(&cluster, database)?;
        let sql = format!(
            "USE {database}; CREATE TABLE t (id int PRIMARY KEY, v varchar(9)); \
             INSERT INTO t VALUES (1, 'a'); CREATE TABLE whoami (name varchar(9)); \
             INSERT INTO whoami VALUES ('{database}'); \
             CREATE TABLE w (id int AUTO_INCREMENT PRIMARY KEY, v varchar(9))"
        );
        cluster.query(0, &sql)?;
    }
    let extra = Extra {
        listener: "pool-size = 2\nqueue-timeout = \"20s\"",
        ..Extra::default()
    };
    let gateway = Gateway::over(&cluster, extra)?;
    let given = std::env::var("BRECCIA_TEST_STATEMENTS").ok();
    let steps = given.and_then(|it| it.parse().ok()).unwrap_or(STEPS);
    let mut dice = Dice::printed();
    let mut sessions = Vec::new();
    for _ in 0..SESSIONS {
        sessions.push(Session::begin(&gateway)?);
    }
    for step in 0..steps {
        let keepers = sessions.iter().filter(|it| it.keeps()).count();
        let at = usize::try_from(dice.roll(SESSIONS as u64))?;
        let session = sessions.get_mut(at).context("one of them")?;
        if keepers > 1 && !session.keeps() {
            // Both connections are kept by others: nothing of the primary is to be had.
            let keeper = sessions
                .iter()
                .position(Session::keeps)
                .context("a keeper")?;
            drop(sessions.swap_remove(keeper));
            sessions.push(Session::begin(&gateway)?);
            continue;
        }
        let done = match dice.roll(4) {
            0 => session.set(&mut dice),
            1 => session.change(&mut dice),
            2 => session.feel(&mut dice),
            _ => session.ask(&mut dice),
        };
        done.with_context(|| format!("step {step}"))?;
    }
    let reads = gateway.replica_reads()?;
    println!("{steps} steps, {reads} reads on replicas");
    ensure!(reads > 50.0, "only {reads} reads on replicas");
    Ok(())
}
