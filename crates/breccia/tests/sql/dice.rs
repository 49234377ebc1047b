//! Frames in an order that dice give, directly and through a gateway whose standbys stutter.
//!
//! Not one feature after another, which other tests do. Invariant: each session is answered as by one
//! server, or told that Breccia will not do it; and what it wrote is there.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use breccia_testkit::{PostgresCluster, SqlClient, SqlReply, wait_until};

use crate::rig::{Dice, Extra, Gateway, LIMIT, cluster};

/// Batches, unless `BRECCIA_TEST_STATEMENTS` says another number.
const BATCHES: usize = 1_200;
/// The order of them, unless `BRECCIA_TEST_SEED` says another one.
const SEED: u64 = 20_261_128;
/// One to work in directly, one through the gateway.
const DATABASES: [&str; 2] = ["dicea", "diceb"];

const READS: &[&str] = &[
    "SELECT count(*), max(v) FROM t",
    "SELECT v FROM t ORDER BY v",
    "SELECT n FROM k",
    "SELECT n, 7 AS seven FROM k WHERE n > 0",
    "SELECT 1/n FROM k",
    "SELECT v::int FROM t",
    "SELECT nope FROM t",
    "SELECT FROM WHERE",
    "SELECT n FROM k FOR UPDATE",
    "SELECT f(n) FROM k",
    "SELECT current_setting('timezone'), current_setting('search_path')",
    "SHOW timezone",
    "SHOW transaction_read_only",
    "SHOW transaction_isolation",
    "SELECT count(*) FROM tt",
    "EXPLAIN (COSTS OFF) SELECT n FROM k",
    "SELECT count(*) FROM w",
    "",
    "VALUES (1), (2)",
    "TABLE k",
];

const WRITES: &[&str] = &[
    "INSERT INTO t VALUES ('i') RETURNING v",
    "INSERT INTO t VALUES ('j')",
    "UPDATE k SET n = n + 1",
    "UPDATE t SET v = v || 'u'",
    "DELETE FROM t WHERE v LIKE '%uu%'",
    "INSERT INTO nosuch VALUES (1)",
    "INSERT INTO k VALUES (1)",
    "WITH w AS (INSERT INTO t VALUES ('cte') RETURNING v) SELECT v FROM w",
    "SELECT g()",
    "CALL p()",
    "DO $$ BEGIN INSERT INTO t VALUES ('do'); END $$",
    "TRUNCATE t",
    "CREATE TABLE IF NOT EXISTS made (a int)",
    "DROP TABLE IF EXISTS made",
    "COPY t TO STDOUT",
    "COPY t FROM STDIN",
];

const CONTROLS: &[&str] = &[
    "BEGIN",
    "BEGIN",
    "BEGIN READ ONLY",
    "START TRANSACTION ISOLATION LEVEL REPEATABLE READ",
    "BEGIN READ WRITE",
    "COMMIT",
    "COMMIT",
    "ROLLBACK",
    "ROLLBACK",
    "SAVEPOINT s",
    "ROLLBACK TO s",
    "RELEASE s",
    "COMMIT AND CHAIN",
    "ROLLBACK AND CHAIN",
    "SET TRANSACTION READ ONLY",
    "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE",
    "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
    "SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE",
];

const STATES: &[&str] = &[
    "SET timezone = 'Asia/Tokyo'",
    "SET timezone = 'UTC'",
    "RESET timezone",
    "SET LOCAL timezone = 'Asia/Tokyo'",
    "SELECT set_config('timezone', 'Europe/Oslo', false)",
    "SET search_path = other, public",
    "RESET search_path",
    "RESET ALL",
    "DISCARD ALL",
    "DISCARD PLANS",
    "DISCARD TEMP",
    "DEALLOCATE ALL",
    "DEALLOCATE s1",
    "PREPARE q AS SELECT count(*) FROM t",
    "EXECUTE q",
    "DEALLOCATE q",
    "DECLARE c CURSOR FOR SELECT v FROM t ORDER BY v",
    "DECLARE c CURSOR WITH HOLD FOR SELECT v FROM t ORDER BY v",
    "FETCH 1 FROM c",
    "CLOSE c",
    "CREATE TEMP TABLE tt (a int)",
    "DROP TABLE IF EXISTS tt",
    "SELECT pg_advisory_lock(7), pg_advisory_unlock(7)",
    "LISTEN dice",
    "UNLISTEN *",
];

const SEVERAL: &[&str] = &[
    "SELECT 1; SELECT count(*) FROM t",
    "INSERT INTO t VALUES ('m'); SELECT 1/0",
    "BEGIN; INSERT INTO t VALUES ('n'); COMMIT",
    "SELECT 1; COMMIT",
    "COMMIT; SELECT count(*) FROM t",
    "ROLLBACK; INSERT INTO t VALUES ('o')",
    "BEGIN READ ONLY; SELECT n FROM k",
    "BEGIN; SELECT n FROM k",
    "SELECT 1/0; SELECT 2",
];

fn text(dice: &mut Dice) -> &'static str {
    match dice.roll(100) {
        0..40 => dice.pick(READS),
        40..55 => dice.pick(WRITES),
        55..77 => dice.pick(CONTROLS),
        77..92 => dice.pick(STATES),
        _ => dice.pick(SEVERAL),
    }
}

/// A frame of the extended protocol.
#[derive(Debug, Clone, Copy)]
enum Frame {
    Parse(&'static str, &'static str),
    /// A statement's name, and a portal's.
    Bind(&'static str, &'static str),
    DescribeStatement(&'static str),
    DescribePortal(&'static str),
    Execute(&'static str, u8),
    CloseStatement(&'static str),
    ClosePortal(&'static str),
    Flush,
}

#[derive(Debug, Clone)]
enum Batch {
    Simple(&'static str),
    /// Frames up to a Sync.
    Extended(Vec<Frame>),
}

fn roll(dice: &mut Dice) -> Batch {
    if dice.roll(100) < 50 {
        return Batch::Simple(text(dice));
    }
    let mut frames = Vec::new();
    // The unnamed statement of an earlier batch may be any that the gateway needed since.
    let mut unnamed = false;
    for _ in 0..=dice.roll(5) {
        let mut name = dice.pick(&["", "s1", "s2"]);
        let portal = dice.pick(&["", "", "p"]);
        let kind = dice.roll(100);
        if kind < 30 {
            unnamed |= name.is_empty();
            // What a gateway keeps of statements goes by their text.
            let sql = std::iter::repeat_with(|| text(dice)).find(|sql| is_extended(sql));
            frames.push(Frame::Parse(name, sql.unwrap_or_default()));
            continue;
        }
        if name.is_empty() && !unnamed {
            name = "s1";
        }
        match kind {
            30..38 => frames.push(Frame::CloseStatement(dice.pick(&["s1", "s2"]))),
            38..41 => frames.push(Frame::ClosePortal(portal)),
            41..48 => frames.push(Frame::DescribeStatement(name)),
            48..52 => frames.push(Frame::Flush),
            52..58 => frames.push(Frame::Execute(portal, 0)),
            _ => {
                frames.push(Frame::Bind(name, portal));
                if dice.roll(2) == 0 {
                    frames.push(Frame::DescribePortal(portal));
                }
                if dice.roll(10) > 0 {
                    frames.push(Frame::Execute(portal, dice.pick(&[0, 0, 0, 1])));
                }
            }
        }
    }
    Batch::Extended(frames)
}

/// Whether a text is tried in the extended protocol: not COPY, and not what makes names free that frames
/// of the same batch name.
fn is_extended(sql: &str) -> bool {
    !sql.starts_with("COPY") && !sql.starts_with("DEALLOCATE s") && !SEVERAL.contains(&sql)
}

fn named(kind: u8, name: &str) -> Vec<u8> {
    let mut body = vec![kind];
    body.extend(name.as_bytes());
    body.push(0);
    body
}

fn put(client: &mut SqlClient, frame: Frame) {
    match frame {
        Frame::Parse(name, sql) => {
            client.parse(name, sql);
        }
        Frame::Bind(statement, portal) => {
            let mut body = portal.as_bytes().to_vec();
            body.push(0);
            body.extend(statement.as_bytes());
            body.extend([0; 7]);
            client.frame(b'B', &body);
        }
        Frame::DescribeStatement(name) => {
            client.frame(b'D', &named(b'S', name));
        }
        Frame::DescribePortal(name) => {
            client.frame(b'D', &named(b'P', name));
        }
        Frame::CloseStatement(name) => {
            client.frame(b'C', &named(b'S', name));
        }
        Frame::ClosePortal(name) => {
            client.frame(b'C', &named(b'P', name));
        }
        Frame::Execute(portal, most) => {
            let mut body = portal.as_bytes().to_vec();
            body.extend([0, 0, 0, 0, most]);
            client.frame(b'E', &body);
        }
        Frame::Flush => {
            client.frame(b'H', b"");
        }
    }
}

/// What is compared of a reply.
#[derive(Debug, PartialEq)]
struct Answer {
    frames: String,
    rows: Vec<Vec<Option<String>>>,
    tags: Vec<String>,
    fault: Option<(String, String)>,
    status: char,
}

impl Answer {
    /// Whether two answers are the same. A name that is taken is told here before all else that may be
    /// wrong with a Parse.
    fn is_like(&self, other: &Answer) -> bool {
        let taken = |it: &Answer| it.fault.as_ref().is_some_and(|(code, _)| code == "42P05");
        let both_failed = self.fault.is_some() && other.fault.is_some();
        let rest =
            self.frames == other.frames && self.rows == other.rows && self.tags == other.tags;
        rest && self.status == other.status
            && (self.fault == other.fault || (both_failed && (taken(self) || taken(other))))
    }
}

fn answer(reply: SqlReply) -> Answer {
    let fault = reply.fault.map(|fault| {
        // Names of statements are Breccia's own, in both of their texts.
        let named = ["42P05", "26000"].contains(&fault.code.as_str());
        let text = if named { "" } else { fault.message.as_str() };
        (fault.code.clone(), text.to_owned())
    });
    Answer {
        // Settings, notices and notifications come when they come.
        frames: reply.frames.replace(['S', 'N', 'A'], ""),
        rows: reply.rows,
        tags: reply.tags,
        fault,
        status: reply.status,
    }
}

/// Sends batches at once, and reads what answers them.
fn take(client: &mut SqlClient, batches: &[Batch]) -> Result<Vec<Answer>> {
    for batch in batches {
        match batch {
            Batch::Simple(sql) => {
                client.query(sql);
            }
            Batch::Extended(frames) => {
                for frame in frames {
                    put(client, *frame);
                }
                client.sync();
            }
        }
    }
    client.flush()?;
    let replies = batches.iter().map(|_| Ok(answer(client.read_reply()?)));
    replies.collect()
}

/// How a session went.
enum End {
    Alike,
    /// Breccia would not do something that a server does.
    Refused(String),
    /// Something was answered otherwise.
    Differs(String),
}

/// Batches that are sent at once, and how long their client rests then.
type Turn = (Vec<Batch>, Duration);

fn turn(dice: &mut Dice) -> Turn {
    let count = dice.pick(&[1, 1, 1, 2, 3]);
    let mut batches: Vec<Batch> = (0..count).map(|_| roll(dice)).collect();
    let copies = |batch: &Batch| matches!(batch, Batch::Simple(sql) if sql.contains("STDIN"));
    if batches.iter().any(copies) {
        // What comes behind would be its data.
        batches.retain(copies);
        batches.truncate(1);
    }
    let rest = match dice.roll(8) {
        0 => Duration::from_millis(dice.pick(&[1, 10, 120])),
        _ => Duration::ZERO,
    };
    (batches, rest)
}

/// Two sessions at tables that are as they were in the beginning.
fn begin(cluster: &PostgresCluster, gateway: &Gateway) -> Result<[SqlClient; 2]> {
    for database in DATABASES {
        let sql = "DROP TABLE IF EXISTS made; TRUNCATE t; TRUNCATE k; \
                   INSERT INTO t VALUES ('1'), ('2'); INSERT INTO k VALUES (1)";
        cluster.primary().query(database, sql)?;
    }
    let direct = SqlClient::connect(cluster.primary().port(), DATABASES[0])?;
    let mut sides = [direct, gateway.client(DATABASES[1])?];
    for side in &mut sides {
        // What it sees from now on is no older than this.
        side.run("UPDATE k SET n = n")?;
    }
    Ok(sides)
}

/// How often a process of the primary has crashed: PostgreSQL 15 does now and then, in a failed
/// transaction, whoever sends it such frames.
fn crashes(cluster: &PostgresCluster) -> usize {
    let log = cluster.primary().log();
    log.matches("was terminated by signal").count()
}

/// One session; `None`: the server has crashed in it.
fn try_out(cluster: &PostgresCluster, gateway: &Gateway, turns: &[Turn]) -> Result<Option<End>> {
    let before = crashes(cluster);
    let end = compare(cluster, gateway, turns);
    if matches!(end, Ok(End::Alike | End::Refused(_))) {
        return end.map(Some);
    }
    // Its clients hear of it before its log does.
    thread::sleep(Duration::from_millis(300));
    if crashes(cluster) == before {
        return end.map(Some);
    }
    wait_until(LIMIT, "the primary after its crash", || {
        let client = gateway.client(DATABASES[1]);
        Ok(client.and_then(|mut it| it.run("UPDATE k SET n = n")).ok())
    })?;
    Ok(None)
}

/// One session.
fn compare(cluster: &PostgresCluster, gateway: &Gateway, turns: &[Turn]) -> Result<End> {
    let mut sides = begin(cluster, gateway)?;
    for (batches, rest) in turns {
        let direct = take(&mut sides[0], batches).context("directly")?;
        let through = match take(&mut sides[1], batches) {
            Ok(through) => through,
            Err(error) => return Ok(End::Differs(format!("{batches:?}: {error:#}"))),
        };
        for ((direct, through), batch) in direct.iter().zip(&through).zip(batches) {
            if direct.is_like(through) {
                continue;
            }
            let own = through.fault.as_ref();
            if let Some((_, text)) = own.filter(|it| it.1.starts_with("breccia")) {
                return Ok(End::Refused(format!("{batch:?}: {text}")));
            }
            // In a failed transaction a server goes on describing what it has prepared, and prepares
            // nothing: what the connection did not have is refused then.
            if own.is_some_and(|it| it.0 == "25P02") && direct.status == 'E' {
                return Ok(End::Refused(format!("{batch:?}: 25P02")));
            }
            let why = format!("{batch:?}\ndirectly {direct:?}\nthrough {through:?}");
            return Ok(End::Differs(why));
        }
        thread::sleep(*rest);
    }
    // Its locks and what it has not committed end with it.
    drop(sides);
    let [direct, through] = DATABASES.map(|it| contents(cluster, it));
    if direct? != through? {
        return Ok(End::Differs("other rows are there".to_owned()));
    }
    Ok(End::Alike)
}

/// Leaves out of a session that went wrong what it does so without.
fn shrink(cluster: &PostgresCluster, gateway: &Gateway, mut turns: Vec<Turn>) -> Result<Vec<Turn>> {
    let mut at = turns.len();
    while at > 0 {
        at -= 1;
        let mut fewer = turns.clone();
        fewer.remove(at);
        if let Some(End::Differs(_)) = try_out(cluster, gateway, &fewer)? {
            turns = fewer;
        }
    }
    Ok(turns)
}

fn prepare(cluster: &PostgresCluster) -> Result<()> {
    for database in DATABASES {
        cluster.primary().create_database(database)?;
        let sql = "CREATE TABLE t (v text); CREATE TABLE k (n int UNIQUE); \
                   CREATE SCHEMA other; CREATE TABLE other.k (n int); INSERT INTO other.k VALUES (99); \
                   CREATE VIEW w AS SELECT v FROM t; \
                   CREATE FUNCTION f(a int) RETURNS int LANGUAGE sql STABLE \
                   AS 'SELECT a + (SELECT count(*) FROM t)::int'; \
                   CREATE FUNCTION g() RETURNS void LANGUAGE sql AS $$ INSERT INTO t VALUES ('g') $$; \
                   CREATE PROCEDURE p() LANGUAGE sql AS $$ INSERT INTO t VALUES ('p') $$";
        cluster.primary().query(database, sql)?;
    }
    cluster.wait_caught_up(LIMIT)
}

fn contents(cluster: &PostgresCluster, database: &str) -> Result<String> {
    let sql = "SELECT v FROM t UNION ALL SELECT n::text FROM k ORDER BY 1";
    cluster.primary().query(database, sql)
}

/// What other sessions of the same connections do.
const NOISE: &[&str] = &[
    "SET timezone = 'Asia/Kolkata'",
    "SET search_path = other",
    "SELECT count(*) FROM t",
    "SELECT 1/0",
    "BEGIN READ ONLY",
    "SELECT n FROM k",
    "COMMIT",
    "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL SERIALIZABLE",
    "PREPARE q AS SELECT 'noise'",
];

fn disturb(gateway: &Gateway, seed: u64, over: &AtomicBool) {
    let mut dice = Dice::new(seed);
    while !over.load(Ordering::Relaxed) {
        let mut noise = || -> Result<()> {
            let mut client = gateway.client(DATABASES[1])?;
            for _ in 0..dice.roll(12) {
                drop(client.simple(dice.pick(NOISE))?);
                drop(client.parse("s1", "SELECT 'noise'").sync().ask()?);
                thread::sleep(Duration::from_millis(dice.roll(20)));
            }
            Ok(())
        };
        if noise().is_err() {
            // The server has crashed, and will be back.
            thread::sleep(Duration::from_millis(100));
        }
    }
}

/// Lets standbys lag now and then.
fn stutter(cluster: &PostgresCluster, seed: u64, over: &AtomicBool) -> Result<()> {
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

/// Sessions one after another until so many batches were sent.
fn sessions(cluster: &PostgresCluster, gateway: &Gateway, dice: &mut Dice) -> Result<()> {
    let given = std::env::var("BRECCIA_TEST_STATEMENTS").ok();
    let batches = given.and_then(|it| it.parse().ok()).unwrap_or(BATCHES);
    let (mut done, mut count, mut refused, mut crashed) = (0, 0, Vec::new(), 0);
    while done < batches {
        let turns: Vec<Turn> = (0..8 + dice.roll(25)).map(|_| turn(dice)).collect();
        match try_out(cluster, gateway, &turns)? {
            None => crashed += 1,
            Some(End::Alike) => {}
            Some(End::Refused(why)) => refused.push(why),
            Some(End::Differs(why)) => {
                let turns = shrink(cluster, gateway, turns)?;
                anyhow::bail!("session {count}: {why}\nthe same happens after {turns:#?}");
            }
        }
        done += turns.iter().map(|it| it.0.len()).sum::<usize>();
        count += 1;
    }
    let reads = gateway.replica_reads()?;
    println!(
        "{count} sessions, {crashed} crashes, {reads} reads on replicas, refused: {refused:#?}"
    );
    ensure!(crashed * 10 < count, "{crashed} crashes");
    ensure!(reads > 10.0, "only {reads} reads on replicas");
    ensure!(refused.len() * 4 < count, "{} refused", refused.len());
    Ok(())
}

fn throw(extra: Extra<'_>) -> Result<()> {
    let cluster = cluster(None)?;
    prepare(&cluster)?;
    let gateway = Gateway::over(&cluster, DATABASES[1], extra)?;
    let mut dice = Dice::given(SEED);
    let over = AtomicBool::new(false);
    let seeds = [dice.roll(1 << 40), dice.roll(1 << 40)];
    thread::scope(|scope| {
        let noise = scope.spawn(|| disturb(&gateway, seeds[0], &over));
        let stuttering = scope.spawn(|| stutter(&cluster, seeds[1], &over));
        let ended = sessions(&cluster, &gateway, &mut dice);
        over.store(true, Ordering::Relaxed);
        noise.join().expect("no panic");
        ended.and(stuttering.join().expect("no panic"))
    })
}

#[test]
fn frames_in_any_order_are_answered_as_by_one_server() -> Result<()> {
    throw(Extra {
        listener: "pool-size = 3\nqueue-timeout = \"20s\"",
        ..Extra::default()
    })
}

#[test]
fn frames_in_any_order_with_lazy_transactions_are_answered_as_by_one_server() -> Result<()> {
    throw(Extra {
        listener: "pool-size = 3\nqueue-timeout = \"20s\"",
        composite: "transactions = \"lazy\"",
        ..Extra::default()
    })
}

#[test]
fn frames_in_any_order_of_sessions_that_keep_their_connection_are_too() -> Result<()> {
    throw(Extra {
        listener: "pool-mode = \"session\"\nqueue-timeout = \"20s\"",
        ..Extra::default()
    })
}
