//! Commands in an order that dice give, directly and through a gateway whose replicas stutter.
//!
//! Not one feature after another, which other tests do. Invariant: each session is answered as by one
//! server, or told that Breccia will not do it; and what it wrote is there.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use breccia_testkit::{MariaDbCluster, MyClient, MyReply, MyResult, MyStatement, MyValue};

use crate::rig::{Dice, Extra, Gateway, LIMIT, cluster, fresh};

/// Commands, unless `BRECCIA_TEST_STATEMENTS` says another number.
const COMMANDS: usize = 2_000;
/// The order of them, unless `BRECCIA_TEST_SEED` says another one: a change should not fail for an order
/// that nobody had tried before it.
const SEED: u64 = 20_261_128;
/// Databases of one length: one to work in directly, one through the gateway.
const DATABASES: [&str; 2] = ["dicea", "diceb"];
const IN_TRANS: u16 = 1;
const AUTOCOMMIT: u16 = 2;
/// The flags that both must tell: these, and those of a cursor.
const FLAGS: u16 = IN_TRANS | AUTOCOMMIT | 0x40 | 0x80;
const CURSOR: u8 = 1;

const READS: &[&str] = &[
    "SELECT COUNT(*), SUM(n), MAX(id) FROM t",
    "SELECT id, v FROM t ORDER BY id LIMIT 4",
    "SELECT SQL_CALC_FOUND_ROWS id FROM t ORDER BY id LIMIT 2",
    "SELECT v FROM t WHERE id = 2",
    "SELECT COUNT(*), 1/0 FROM t",
    "SELECT n FROM t WHERE id = 1 FOR UPDATE",
    "SELECT f(COUNT(*)) FROM t",
    "SELECT COUNT(*) + (SELECT COUNT(*) FROM u) FROM t",
    "SELECT id FROM t WHERE n = (SELECT n FROM t)",
    "SELECT nope FROM t",
    "SELECT FROM t",
    "SELECT COUNT(*) FROM t; SELECT MAX(id) FROM t",
    "SELECT COUNT(*) FROM tt",
    "SHOW TABLES",
];

/// It is right behind a query only, says the manual.
const FOUND_ROWS: &str = "SELECT FOUND_ROWS()";

/// What is asked about the statement before. Not behind a command that Breccia may have answered by
/// itself, which leaves these as they were.
const PREVIOUS: &[&str] = &[
    "SELECT ROW_COUNT()",
    FOUND_ROWS,
    "SHOW WARNINGS",
    "SELECT @@warning_count, @@error_count",
];

const ASKS: &[&str] = &[
    "SELECT LAST_INSERT_ID()",
    "SELECT @@autocommit, @@tx_isolation, @@sql_mode, @@time_zone, @@sql_select_limit",
    "SELECT DATABASE()",
    "SELECT @a",
    "SELECT @@in_transaction",
];

const WRITES: &[&str] = &[
    "INSERT INTO t (n, v) VALUES (7, 'one')",
    "INSERT INTO t (n, v) VALUES (8, 'two'), (9, 'three')",
    "INSERT INTO t (n, v) VALUES (1, 'r') RETURNING id, n",
    "INSERT IGNORE INTO t (id, n, v) VALUES (1, 1, 'x')",
    "INSERT INTO t (id, n, v) VALUES (1, 1, 'x')",
    "INSERT INTO t (n, v) SELECT n, v FROM u",
    "UPDATE t SET n = n + 1 WHERE id < 4",
    "UPDATE t SET n = n WHERE id = 1",
    "DELETE FROM t WHERE id > 6",
    "REPLACE INTO u VALUES (1, 'replaced')",
    "INSERT INTO t (n, v) VALUES (5, 'm'); SELECT COUNT(*), MAX(id) FROM t",
    "UPDATE u SET v = 'u'; SELECT nope; SELECT 2",
    "CALL p(3)",
    "INSERT INTO tt VALUES (1)",
    "INSERT INTO t (n, v) VALUES (f(1), 'f')",
];

const CONTROLS: &[&str] = &[
    "BEGIN",
    "START TRANSACTION",
    "START TRANSACTION READ ONLY",
    "COMMIT",
    "COMMIT",
    "ROLLBACK",
    "ROLLBACK",
    "SAVEPOINT s",
    "ROLLBACK TO s",
    "SET autocommit = 0",
    "SET autocommit = 1",
    "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE",
    "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED",
    "SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ",
    "COMMIT AND CHAIN",
];

const STATES: &[&str] = &[
    "SET time_zone = '+03:00'",
    "SET sql_mode = 'ANSI'",
    "SET sql_mode = DEFAULT",
    "SET sql_select_limit = 2",
    "SET sql_select_limit = DEFAULT",
    "SET NAMES latin1",
    "SET NAMES utf8mb4",
    "SET @a = 5",
    "SET @a = (SELECT COUNT(*) FROM t)",
    "CREATE TEMPORARY TABLE tt (a int)",
    "DROP TEMPORARY TABLE IF EXISTS tt",
    "PREPARE s FROM 'SELECT COUNT(*) FROM t'",
    "EXECUTE s",
    "DEALLOCATE PREPARE s",
    "DO GET_LOCK(CONCAT('dice', DATABASE()), 0)",
    "DO RELEASE_ALL_LOCKS()",
    "LOCK TABLES t WRITE, u WRITE",
    "UNLOCK TABLES",
    "HANDLER t OPEN AS h",
    "HANDLER h READ FIRST",
    "HANDLER h CLOSE",
    "SET STATEMENT sql_select_limit = 1 FOR SELECT id FROM t ORDER BY id",
    "USE {db}2",
    "USE {db}",
];

const PREPARED: &[&str] = &[
    "SELECT id, v FROM t WHERE id > ? ORDER BY id",
    "SELECT COUNT(*) FROM t WHERE n > ? OR TRUE",
    "SELECT LENGTH(?), COUNT(*) FROM t",
    "INSERT INTO t (n, v) VALUES (5, ?)",
    "UPDATE t SET v = ? WHERE id = 2",
    "SELECT id FROM t WHERE n = ? FOR UPDATE",
];

/// A command.
#[derive(Debug, Clone)]
enum Step {
    Text(&'static str),
    Prepare(&'static str),
    Execute(usize, i64, u8),
    Long(usize, usize),
    ExecuteLong(usize),
    Fetch(usize, u32),
    ResetStatement(usize),
    Close(usize),
    Ping,
    Reset,
    Enter(&'static str),
    Wait(u64),
}

fn roll(dice: &mut Dice, statements: usize) -> Step {
    let at = usize::try_from(dice.roll(statements.max(1) as u64)).unwrap_or(0);
    let value = i64::try_from(dice.roll(6)).unwrap_or(0);
    match dice.roll(100) {
        0..20 => Step::Text(dice.pick(READS)),
        20..26 => Step::Text(dice.pick(ASKS)),
        26..32 => Step::Text(dice.pick(PREVIOUS)),
        32..48 => Step::Text(dice.pick(WRITES)),
        48..60 => Step::Text(dice.pick(CONTROLS)),
        60..68 => Step::Text(dice.pick(STATES)),
        68..70 => Step::Ping,
        70 => Step::Reset,
        71 => Step::Enter(dice.pick(&["{db}", "{db}2"])),
        72..75 => Step::Wait(dice.pick(&[1, 10, 120, 300])),
        _ if statements == 0 => Step::Prepare(dice.pick(PREPARED)),
        75..79 => Step::Prepare(dice.pick(PREPARED)),
        79..85 => Step::Execute(at, value, 0),
        85..89 => Step::Execute(at, value, CURSOR),
        89..94 => Step::Fetch(at, u32::try_from(value).unwrap_or(0) + 1),
        94..96 => Step::ResetStatement(at),
        96..97 => Step::Close(at),
        97..98 => Step::Long(at, usize::try_from(value).unwrap_or(0) + 1),
        _ => Step::ExecuteLong(at),
    }
}

/// What a command was answered, as it is compared.
#[derive(Clone, Default, PartialEq)]
struct Answer {
    results: Vec<MyResult>,
    /// The number, the state and the text of an error.
    fault: Option<(u16, String, String)>,
    /// Rows that were fetched.
    fetched: Vec<Vec<u8>>,
}

impl Answer {
    /// Without autocommit, a lazy transaction is told with the first statement, and not only with one
    /// that has a table in it; behind an error it may not be known yet.
    fn tells_early(&self, direct: Option<&Answer>) -> bool {
        let plain = |answer: &Answer| {
            let mut plain = answer.clone();
            for result in &mut plain.results {
                if result.status & AUTOCOMMIT == 0 {
                    result.status &= !IN_TRANS;
                }
            }
            plain
        };
        direct.map(plain) == Some(plain(self))
    }
}

/// A session.
struct Side {
    client: MyClient,
    database: &'static str,
    statements: Vec<MyStatement>,
    /// Which of them were bound to a number: servers cut data to its width.
    bound: Vec<u32>,
}

impl Side {
    fn begin(mut client: MyClient, database: &'static str) -> Result<Side> {
        client.allow_multi(true)?.good()?;
        // What it sees from now on is no older than this.
        client.run("INSERT INTO u VALUES (3, 'here')")?;
        Ok(Side {
            client,
            database,
            statements: Vec::new(),
            bound: Vec::new(),
        })
    }

    fn plain(&self, text: &[u8]) -> Vec<u8> {
        let text = String::from_utf8_lossy(text);
        text.replace(self.database, DATABASES[0]).into_bytes()
    }

    fn answer(&self, reply: MyReply, fetched: bool) -> Answer {
        let mut answer = Answer::default();
        for mut result in reply.results {
            result.status &= FLAGS;
            for (name, _) in &mut result.columns {
                *name = name.replace(self.database, DATABASES[0]);
            }
            for value in result.rows.iter_mut().flatten().flatten() {
                *value = self.plain(value);
            }
            answer.results.push(result);
        }
        answer.fault = reply.fault.map(|fault| {
            let text = fault.message.replace(self.database, DATABASES[0]);
            // Servers number statements of SQL with those that are prepared, and name files.
            let text = match fault.code {
                1210 | 1243 | 1421 => text.replace(|it: char| it.is_ascii_digit(), ""),
                6 => String::new(),
                _ => text,
            };
            (fault.code, fault.state, text)
        });
        if fetched {
            let packets = reply.packets.into_iter();
            // The end tells of warnings and flags, in the one way or the other.
            answer.fetched = packets
                .map(|it| it.0)
                .filter(|it| it.first() == Some(&0))
                .collect();
        }
        answer
    }

    /// Whether servers do not agree with themselves about a command.
    fn is_odd(&self, step: &Step) -> bool {
        let (Step::Long(at, _) | Step::ExecuteLong(at)) = step else {
            return false;
        };
        let id = self.statements.get(*at).map(|it| it.id);
        id.is_some_and(|id| self.bound.contains(&id))
    }

    /// A write that is prepared in a READ ONLY transaction is refused by a server at once; here, the
    /// transaction may have begun nowhere yet, and its execution is refused.
    fn prepared_all_the_same(&mut self, step: &Step, direct: Option<&Answer>) -> bool {
        let fault = direct.and_then(|it| it.fault.as_ref());
        let refused = matches!(fault, Some((1792, ..)));
        if refused && matches!(step, Step::Prepare(_)) {
            return self.statements.pop().is_some();
        }
        false
    }

    /// Does a command; `None`: nothing answers it.
    fn take(&mut self, step: &Step) -> Result<Option<Answer>> {
        let statement = |at: &usize| self.statements.get(*at).map_or(9_999, |it| it.id);
        let client = &mut self.client;
        let reply = match step {
            Step::Text(sql) => client.query(&sql.replace("{db}", self.database))?,
            Step::Prepare(sql) => match client.prepare(sql)? {
                Ok(statement) => {
                    self.statements.push(statement);
                    MyReply::default()
                }
                Err(reply) => reply,
            },
            Step::Execute(at, value, flags) => {
                let id = statement(at);
                self.bound.push(id);
                client.execute_as(id, &[MyValue::Int(*value)], *flags, true)?
            }
            Step::ExecuteLong(at) => client.execute_as(statement(at), &[MyValue::Long], 0, true)?,
            Step::Fetch(at, rows) => {
                let reply = client.fetch(statement(at), *rows)?;
                return Ok(Some(self.answer(reply, true)));
            }
            Step::ResetStatement(at) => client.reset_statement(statement(at))?,
            Step::Ping => client.ping()?,
            Step::Reset => client.reset()?,
            Step::Enter(name) => client.enter(&name.replace("{db}", self.database))?,
            Step::Long(at, times) => {
                client.long_data(statement(at), 0, &b"long".repeat(*times))?;
                return Ok(None);
            }
            Step::Close(at) => {
                if *at < self.statements.len() {
                    let closed = self.statements.remove(*at);
                    self.client.close(&closed)?;
                }
                return Ok(None);
            }
            Step::Wait(ms) => {
                thread::sleep(Duration::from_millis(*ms));
                return Ok(None);
            }
        };
        if matches!(step, Step::Reset) {
            self.statements.clear();
        }
        Ok(Some(self.answer(reply, false)))
    }
}

impl Step {
    /// Whether a server keeps its promise to it behind another command.
    fn may_follow(&self, before: &Step) -> bool {
        match (self, before) {
            (Step::Text(FOUND_ROWS), Step::Text(sql)) => READS.contains(sql),
            (Step::Text(FOUND_ROWS), _) => false,
            // A statement without a table leaves the warnings of the one before.
            (Step::Text(sql), Step::Text(before)) if PREVIOUS.contains(sql) => {
                READS.contains(before) || WRITES.contains(before)
            }
            (Step::Text(sql), _) if PREVIOUS.contains(sql) => {
                matches!(before, Step::Execute(_, _, 0))
            }
            _ => true,
        }
    }
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = |value: &Option<Vec<u8>>| match value {
            Some(value) => value.escape_ascii().to_string(),
            None => "NULL".to_owned(),
        };
        for result in &self.results {
            write!(out, "[{:?}", result.columns)?;
            for row in &result.rows {
                let row: Vec<_> = row.iter().map(text).collect();
                write!(out, " ({})", row.join(", "))?;
            }
            let (affected, id) = (result.affected, result.insert_id);
            let (status, warnings) = (result.status, result.warnings);
            write!(
                out,
                " rows {affected} id {id} flags {status} warnings {warnings}] "
            )?;
        }
        write!(out, "{:?} fetched {}", self.fault, self.fetched.len())
    }
}

/// How a session went.
enum End {
    Alike,
    /// Breccia would not do something that a server does.
    Refused(String),
}

/// One session, of so many commands.
fn compare(sides: &mut [Side; 2], dice: &mut Dice, commands: usize) -> Result<End> {
    let mut said: Vec<String> = Vec::new();
    let (mut before, mut failed) = (Step::Ping, false);
    for _ in 0..commands {
        let step = roll(dice, sides[0].statements.len());
        let counts = matches!(step, Step::Text(FOUND_ROWS));
        if !step.may_follow(&before) || sides[0].is_odd(&step) || (counts && failed) {
            continue;
        }
        before = step.clone();
        said.push(format!("{step:?}"));
        let direct = sides[0].take(&step).context("directly")?;
        failed = direct.as_ref().is_some_and(|it| it.fault.is_some());
        let through = sides[1].take(&step);
        let through = through.with_context(|| format!("through, after {said:#?}"))?;
        if direct == through {
            continue;
        }
        if sides[1].prepared_all_the_same(&step, direct.as_ref()) {
            continue;
        }
        if through
            .as_ref()
            .is_some_and(|it| it.tells_early(direct.as_ref()))
        {
            continue;
        }
        let fault = |answer: &Option<Answer>| answer.as_ref().and_then(|it| it.fault.clone());
        match (fault(&direct), fault(&through)) {
            (_, Some((1105, _, text))) => {
                return Ok(End::Refused(format!("{step:?}: {text}")));
            }
            // Two things are wrong, and a server that prepares anew tells of the other one.
            (Some((1210, ..)), Some((1792, ..))) => continue,
            _ => {}
        }
        let server = sides[1].client.value("SHOW breccia.server");
        let begun = said.len().saturating_sub(25);
        let said = said.get(begun..).unwrap_or_default();
        anyhow::bail!("directly {direct:#?}\nthrough {through:#?}\non {server:?}, after {said:#?}");
    }
    Ok(End::Alike)
}

fn prepare(cluster: &MariaDbCluster) -> Result<()> {
    for database in DATABASES {
        let other = format!("{database}2");
        fresh(cluster, database)?;
        fresh(cluster, &other)?;
        for name in [database, &other] {
            let sql = format!(
                "USE {name}; CREATE TABLE t (id int AUTO_INCREMENT PRIMARY KEY, n int, v text); \
                 CREATE TABLE u (id int PRIMARY KEY, v varchar(20)); \
                 CREATE FUNCTION f(a int) RETURNS int READS SQL DATA \
                 RETURN a + (SELECT COUNT(*) FROM u)"
            );
            cluster.query(0, &sql)?;
            let sql = "CREATE PROCEDURE p(a int) BEGIN INSERT INTO t (n, v) VALUES (a, 'p'); \
                       SELECT COUNT(*) FROM t; END";
            MyClient::connect(cluster.primary().port(), name)?.run(sql)?;
        }
    }
    cluster.wait_caught_up(LIMIT)
}

/// Makes all tables as they were.
fn begin_anew(cluster: &MariaDbCluster) -> Result<()> {
    for database in DATABASES {
        for name in [database.to_owned(), format!("{database}2")] {
            let sql = format!(
                "USE {name}; TRUNCATE t; TRUNCATE u; INSERT INTO u VALUES (1, 'a'), (2, 'b'); \
                 INSERT INTO t (n, v) VALUES (1, 'a'), (2, 'b'), (3, 'c')"
            );
            cluster.query(0, &sql)?;
        }
    }
    Ok(())
}

fn contents(cluster: &MariaDbCluster, database: &str) -> Result<String> {
    let sql = format!(
        "SELECT * FROM {database}.t ORDER BY id; SELECT * FROM {database}.u ORDER BY id; \
         SELECT * FROM {database}2.t ORDER BY id; SELECT * FROM {database}2.u ORDER BY id"
    );
    cluster.query(0, &sql)
}

/// What other sessions of the same connections do.
const NOISE: &[&str] = &[
    "SET time_zone = '+09:00'",
    "SET sql_mode = 'ANSI', autocommit = 0",
    "SELECT COUNT(*) FROM t",
    "SELECT SQL_CALC_FOUND_ROWS id FROM u LIMIT 1",
    "SELECT LAST_INSERT_ID(99)",
    "SELECT nope",
    "START TRANSACTION READ ONLY",
    "COMMIT",
    "SELECT 1/0",
    "SET SESSION TRANSACTION ISOLATION LEVEL SERIALIZABLE",
];

fn disturb(gateway: &Gateway, seed: u64, over: &AtomicBool) -> Result<()> {
    let mut dice = Dice::new(seed);
    while !over.load(Ordering::Relaxed) {
        let mut client = gateway.client("noise")?;
        for _ in 0..dice.roll(12) {
            drop(client.query(dice.pick(NOISE))?);
            thread::sleep(Duration::from_millis(dice.roll(20)));
        }
    }
    Ok(())
}

/// Lets replicas lag now and then.
fn stutter(cluster: &MariaDbCluster, seed: u64, over: &AtomicBool) -> Result<()> {
    let mut dice = Dice::new(seed);
    while !over.load(Ordering::Relaxed) {
        let number = dice.pick(&[1, 2]);
        cluster.pause_replay(number)?;
        thread::sleep(Duration::from_millis(dice.roll(300)));
        cluster.resume_replay(number)?;
        thread::sleep(Duration::from_millis(dice.roll(300)));
    }
    Ok(())
}

/// Sessions one after another until so many commands were given.
fn sessions(cluster: &MariaDbCluster, gateway: &Gateway, dice: &mut Dice) -> Result<()> {
    let given = std::env::var("BRECCIA_TEST_STATEMENTS").ok();
    let commands = given.and_then(|it| it.parse().ok()).unwrap_or(COMMANDS);
    let (mut done, mut count, mut refused) = (0, 0, Vec::new());
    while done < commands {
        begin_anew(cluster)?;
        let direct = MyClient::connect(cluster.primary().port(), DATABASES[0])?;
        let through = gateway.client(DATABASES[1])?;
        let mut sides = [
            Side::begin(direct, DATABASES[0])?,
            Side::begin(through, DATABASES[1])?,
        ];
        let length = 10 + usize::try_from(dice.roll(60))?;
        let ended = compare(&mut sides, dice, length);
        // Its locks and what it has not committed end with it.
        drop(sides);
        if let End::Refused(why) = ended.with_context(|| format!("session {count}"))? {
            refused.push(why);
        } else {
            let [direct, through] = DATABASES.map(|it| contents(cluster, it));
            ensure!(direct? == through?, "session {count}: other rows are there");
        }
        done += length;
        count += 1;
    }
    let reads = gateway.replica_reads()?;
    println!("{count} sessions, {reads} reads on replicas, refused: {refused:#?}");
    ensure!(reads > 10.0, "only {reads} reads on replicas");
    ensure!(refused.len() * 4 < count, "{} refused", refused.len());
    Ok(())
}

fn throw(extra: Extra<'_>) -> Result<()> {
    let cluster = cluster()?;
    prepare(&cluster)?;
    fresh(&cluster, "noise")?;
    let sql = "USE noise; CREATE TABLE t (id int); CREATE TABLE u (id int); \
               INSERT INTO u VALUES (1), (2), (3)";
    cluster.query(0, sql)?;
    let gateway = Gateway::over(&cluster, extra)?;
    let mut dice = Dice::given(SEED);
    let over = AtomicBool::new(false);
    let seeds = [dice.roll(1 << 40), dice.roll(1 << 40)];
    thread::scope(|scope| {
        let noise = scope.spawn(|| disturb(&gateway, seeds[0], &over));
        let stuttering = scope.spawn(|| stutter(&cluster, seeds[1], &over));
        let ended = sessions(&cluster, &gateway, &mut dice);
        over.store(true, Ordering::Relaxed);
        let beside = [noise, stuttering].map(|it| it.join().expect("no panic"));
        ended.and(beside.into_iter().collect())
    })
}

#[test]
fn commands_in_any_order_are_answered_as_by_one_server() -> Result<()> {
    throw(Extra {
        listener: "pool-size = 3\nqueue-timeout = \"20s\"",
        ..Extra::default()
    })
}

#[test]
fn commands_in_any_order_with_lazy_transactions_are_answered_as_by_one_server() -> Result<()> {
    throw(Extra {
        listener: "pool-size = 3\nqueue-timeout = \"20s\"",
        composite: "transactions = \"lazy\"",
        ..Extra::default()
    })
}

#[test]
fn commands_in_any_order_of_sessions_that_keep_their_connection_are_too() -> Result<()> {
    throw(Extra {
        listener: "pool-mode = \"session\"\nqueue-timeout = \"20s\"",
        ..Extra::default()
    })
}
