//! What a session is answered directly and through a gateway, packet by packet.
//!
//! Not what the answers should be: the server itself is the measure. Invariant: each packet and its
//! number are the same, but for what [`excused`] names with its reason.

use anyhow::{Context, Result, ensure};
use breccia_testkit::{
    MY_CURSOR, MY_MODERN, MY_OLD, MY_TRACKING, MyClient, MyReply, MyStatement, MyValue, sha256_hex,
};

use crate::differential_texts::{TEXTS, TYPE_ROWS, TYPES};
use crate::rig::{Extra, Gateway, fresh, login, shared};

/// The database of all that is asked here.
const DATABASE: &str = "differ";

/// Packets longer than this are told by their digest.
const LONG: usize = 4096;

/// What was asked, and the packets that answered it.
type Answer = (String, Vec<(Vec<u8>, u8)>);

/// A session, and what it was answered.
struct Trace {
    client: MyClient,
    answers: Vec<Answer>,
}

impl Trace {
    fn begin(port: u16, capabilities: u32) -> Result<Trace> {
        let client = MyClient::connect_as(port, login(DATABASE, capabilities))?;
        let mut trace = Trace {
            client,
            answers: Vec::new(),
        };
        let welcome = trace.client.welcome.clone();
        trace.keep("login", welcome);
        Ok(trace)
    }

    fn keep(&mut self, what: &str, reply: MyReply) {
        let short = |(payload, number): (Vec<u8>, u8)| {
            if payload.len() <= LONG {
                return (payload, number);
            }
            let told = format!("{} bytes: {}", payload.len(), sha256_hex(&payload));
            (told.into_bytes(), number)
        };
        let packets = reply.packets.into_iter().map(short).collect();
        self.answers.push((what.to_owned(), packets));
    }

    fn text(&mut self, sql: &str) -> Result<()> {
        let reply = self.client.query(sql)?;
        self.keep(sql, reply);
        Ok(())
    }

    fn prepare(&mut self, sql: &str) -> Result<Option<MyStatement>> {
        let what = format!("prepare {sql}");
        Ok(match self.client.prepare(sql)? {
            Ok(statement) => {
                self.keep(&what, statement.reply.clone());
                Some(statement)
            }
            Err(refused) => {
                self.keep(&what, refused);
                None
            }
        })
    }

    fn execute(
        &mut self,
        statement: &MyStatement,
        values: &[MyValue<'_>],
        flags: u8,
        typed: bool,
    ) -> Result<MyReply> {
        let reply = self.client.execute_as(statement.id, values, flags, typed)?;
        self.keep("execute", reply.clone());
        Ok(reply)
    }

    fn once(&mut self, sql: &str, values: &[MyValue<'_>]) -> Result<()> {
        if let Some(statement) = self.prepare(sql)? {
            self.execute(&statement, values, 0, true)?;
            self.client.close(&statement)?;
        }
        Ok(())
    }
}

/// Why an answer may differ; `None`: it may not.
fn excused(what: &str) -> Option<&'static str> {
    Some(match what {
        "select @@socket" => "the path is of no use to a client, so it is NULL",
        "explain select * from a" => "how many rows there are is estimated by each server",
        "show status like 'nosuch'" => "status bits of an empty SHOW STATUS tell of the connection",
        _ => return None,
    })
}

/// Whether two packets are the same, or differ as they may.
fn alike(a: &(Vec<u8>, u8), b: &(Vec<u8>, u8), tracks: bool) -> bool {
    if a == b {
        return true;
    }
    let sorted = |payload: &[u8]| {
        let mut bytes = payload.to_vec();
        bytes.sort_unstable();
        bytes
    };
    match (a.0.as_slice(), b.0.as_slice()) {
        // At the end of the columns of a long result an old client is told how the query was carried
        // out; a server that ends results with an OK tells that after the rows.
        ([0xfe, 0, 0, low_a, high_a], [0xfe, 0, 0, low_b, high_b]) => {
            let (low, high) = (low_a ^ low_b, high_a ^ high_b);
            a.1 == b.1 && low & !0x30 == 0 && high & !0x08 == 0
        }
        // In which order changes are told is an accident of the server's memory.
        ([first @ (0 | 0xfe), ..], [other, ..]) if tracks && first == other => {
            a.1 == b.1 && sorted(&a.0) == sorted(&b.0)
        }
        _ => false,
    }
}

/// Whether two answers are the same, or differ as they may.
fn same(direct: &Answer, through: &Answer, tracks: bool) -> bool {
    let mut pairs = direct.1.iter().zip(&through.1);
    direct.0 == through.0
        && direct.1.len() == through.1.len()
        && pairs.all(|(a, b)| alike(a, b, tracks))
}

/// The packets that differ.
fn shown(direct: &Answer, through: &Answer) -> String {
    let text = |answer: &Answer, at: usize| match answer.1.get(at) {
        Some((payload, number)) => format!("{number} {:.300}", payload.escape_ascii().to_string()),
        None => "nothing".to_owned(),
    };
    let last = direct.1.len().max(through.1.len());
    let unlike = (0..last).filter(|at| direct.1.get(*at) != through.1.get(*at));
    let lines = unlike.map(|at| {
        let (direct, through) = (text(direct, at), text(through, at));
        format!("    direct  {direct}\n    through {through}\n")
    });
    lines.take(4).collect()
}

/// Does the same directly and through a gateway, for each kind of client, and holds the answers
/// against each other.
fn differ(
    work: impl Fn(&mut Trace) -> Result<()>,
    kinds: &[(&str, u32)],
    extra: Extra<'_>,
) -> Result<()> {
    let cluster = shared()?;
    let _turn = crate::rig::turn();
    let gateway = Gateway::over(&cluster, extra)?;
    let mut bad = 0;
    for (kind, capabilities) in kinds {
        let mut both = Vec::new();
        for port in [cluster.primary().port(), gateway.port] {
            fresh(&cluster, DATABASE)?;
            let mut trace = Trace::begin(port, *capabilities)?;
            let done = work(&mut trace);
            let last = trace
                .answers
                .last()
                .map(|it| it.0.clone())
                .unwrap_or_default();
            let side = if both.is_empty() {
                "directly"
            } else {
                "through"
            };
            done.with_context(|| format!("{kind}, {side}, after {last:.100}"))?;
            both.push(trace.answers);
        }
        let (through, direct) = (
            both.pop().unwrap_or_default(),
            both.pop().unwrap_or_default(),
        );
        ensure!(
            direct.len() == through.len(),
            "{kind}: {} and {} answers",
            direct.len(),
            through.len()
        );
        for (direct, through) in direct.iter().zip(&through) {
            let tracks = *capabilities == MY_TRACKING;
            if same(direct, through, tracks) || excused(&direct.0).is_some() {
                continue;
            }
            bad += 1;
            let what = &direct.0;
            println!("{kind}: {what:.120}\n{}", shown(direct, through));
        }
    }
    ensure!(bad == 0, "{bad} answers differ");
    Ok(())
}

/// The kinds of clients that read answers differently.
const KINDS: &[(&str, u32)] = &[
    ("old", MY_OLD),
    ("modern", MY_MODERN),
    ("tracking", MY_TRACKING),
];

#[test]
fn texts_are_answered_with_the_same_packets() -> Result<()> {
    let work = |trace: &mut Trace| TEXTS.iter().try_for_each(|sql| trace.text(sql));
    differ(work, KINDS, Extra::default())
}

#[test]
fn values_of_all_types_come_with_the_same_packets_in_text_and_in_binary() -> Result<()> {
    let work = |trace: &mut Trace| {
        trace.text(TYPES)?;
        TYPE_ROWS.iter().try_for_each(|sql| trace.text(sql))?;
        trace.text("select * from ty order by k")?;
        trace.once("select * from ty order by k", &[])?;
        trace.once(
            "select * from ty where k >= ? order by k",
            &[MyValue::Int(3)],
        )?;
        for (name, capabilities) in [
            ("latin1", "select c,la,vc from ty"),
            ("binary", "select * from ty"),
        ] {
            trace.text(&format!("set names {name}"))?;
            trace.text(capabilities)?;
            trace.once(capabilities, &[])?;
        }
        Ok(())
    };
    differ(work, KINDS, Extra::default())
}

/// Statements in binary.
fn prepared(trace: &mut Trace) -> Result<()> {
    use MyValue::{Bytes, Int, Long, Null};
    trace.once(
        "create table b(id int primary key, v longblob, n bigint, s varchar(20))",
        &[],
    )?;
    let insert = trace
        .prepare("insert into b values(?,?,?,?)")?
        .context("insert")?;
    for k in 0..3 {
        let n = if k == 1 {
            Null
        } else {
            Int(k * 10_000_000_000)
        };
        trace.execute(&insert, &[Int(k), Bytes(b"xxx"), n, Bytes(b"str")], 0, true)?;
    }
    trace.execute(&insert, &[Int(1), Bytes(b""), Int(1), Bytes(b"")], 0, true)?;
    let select = trace
        .prepare("select * from b where id>=? order by id")?
        .context("select")?;
    for k in 0..3 {
        trace.execute(&select, &[Int(k)], 0, true)?;
    }
    trace.execute(&select, &[Int(0)], MY_CURSOR, true)?;
    for rows in [2, 5] {
        let fetched = trace.client.fetch(select.id, rows)?;
        trace.keep("fetch", fetched);
    }
    // The text of this error tells the statement's number.
    let fetched = trace.client.fetch(select.id, 1)?;
    ensure!(fetched.code() == 1421, "a cursor at its end: {fetched:?}");
    let reset = trace.client.reset_statement(select.id)?;
    trace.keep("reset", reset);
    trace.client.long_data(insert.id, 1, b"long")?;
    trace.client.long_data(insert.id, 1, b"data")?;
    trace.execute(&insert, &[Int(77), Long, Int(1), Bytes(b"s")], 0, true)?;
    trace.execute(&select, &[Int(77)], 0, true)?;
    prepared_elsewhere(trace, &insert, &select)
}

/// The same statements on other connections, under other settings, and after they were closed.
fn prepared_elsewhere(trace: &mut Trace, insert: &MyStatement, select: &MyStatement) -> Result<()> {
    use MyValue::{Bytes, Int, Null};
    // Without types, which the server remembers; in a transaction another connection serves it.
    trace.execute(select, &[Int(2)], 0, false)?;
    trace.text("begin")?;
    trace.execute(select, &[Int(1)], 0, false)?;
    trace.execute(
        insert,
        &[Int(78), Bytes(b"t"), Int(1), Bytes(b"s")],
        0,
        false,
    )?;
    trace.text("commit")?;
    trace.execute(select, &[Int(78)], 0, false)?;
    trace.text("set names latin1")?;
    trace.execute(select, &[Int(78)], 0, false)?;
    trace.text("set names utf8mb4")?;
    trace.client.long_data(insert.id, 1, b"forgotten")?;
    let reset = trace.client.reset_statement(insert.id)?;
    trace.keep("reset", reset);
    trace.execute(
        insert,
        &[Int(79), Bytes(b"kept"), Int(1), Bytes(b"s")],
        0,
        true,
    )?;
    trace.text("select * from b order by id")?;
    trace.prepare("select nothing from nowhere")?;
    trace.prepare("not sql")?;
    trace.once("call nothing()", &[])?;
    trace.text("create procedure two(x int) begin select x; select x+1, x+2; end")?;
    trace.once("call two(?)", &[Int(5)])?;
    trace.once("select ?, ?, ?", &[Int(1), Null, Bytes(b"t")])?;
    trace.once("show tables", &[])?;
    trace.once("set @a = ?", &[Int(4)])?;
    trace.once("select @a", &[])?;
    trace.text("drop procedure two")?;
    trace.once("delete from b where id = ? returning n", &[Int(0)])?;
    trace.once("update b set n = n + ? where id = 77", &[Int(2)])?;
    trace.text("alter table b add column extra int default 3")?;
    trace.execute(select, &[Int(77)], 0, true)?;
    trace.client.close(insert)?;
    // A closed number is unknown, and each side has numbers of its own.
    let closed = trace.client.execute(insert, &[Int(1), Null, Null, Null])?;
    ensure!(closed.code() == 1243, "a closed statement: {closed:?}");
    let closed = trace.client.fetch(999, 1)?;
    ensure!(closed.code() == 1243, "an unknown statement: {closed:?}");
    trace.execute(select, &[Int(77)], 0, true).map(drop)
}

#[test]
fn prepared_statements_are_answered_with_the_same_packets() -> Result<()> {
    differ(prepared, KINDS, Extra::default())
}

#[test]
fn prepared_statements_of_a_kept_connection_are_answered_with_the_same_packets() -> Result<()> {
    let extra = Extra {
        listener: "pool-mode = \"session\"",
        ..Extra::default()
    };
    differ(prepared, &[("modern", MY_MODERN)], extra)
}

#[test]
fn statements_of_the_most_parameters_are_answered_with_the_same_packets() -> Result<()> {
    let work = |trace: &mut Trace| {
        for count in [0xffff, 0x1_0000] {
            let marks = vec!["?"; count].join(",");
            let sql = format!("select length(concat_ws('', {marks}))");
            let Some(statement) = trace.prepare(&sql)? else {
                continue;
            };
            let small = vec![MyValue::Int(7); count];
            trace.execute(&statement, &small, 0, true)?;
            trace.execute(&statement, &small, 0, false)?;
            let long = vec![MyValue::Bytes(b"twenty bytes of text"); count];
            trace.execute(&statement, &long, 0, true)?;
            trace.execute(&statement, &long, 0, false)?;
            trace.client.close(&statement)?;
        }
        Ok(())
    };
    differ(work, &KINDS[..2], Extra::default())
}

#[test]
fn errors_amid_rows_and_parameters_of_procedures_come_with_the_same_packets() -> Result<()> {
    let work = |trace: &mut Trace| {
        trace.text("create table r(id int primary key)")?;
        trace.text("insert into r values(1),(2),(3)")?;
        trace.text(
            "create function fails(x int, at int) returns int begin if x = at then signal \
             sqlstate '45000' set message_text = 'stop'; end if; return x; end",
        )?;
        for at in [1, 3] {
            trace.text(&format!("select fails(id, {at}) from r order by id"))?;
            let sql = "select id, fails(id, ?) from r order by id";
            trace.once(sql, &[MyValue::Int(at)])?;
        }
        trace.text("select id, (select id from r) from r")?;
        trace.text(
            "create procedure gives(a int, out b int, inout c varchar(9)) begin \
             select a; select id from r; set b = a + 1; set c = concat(c, 'x'); end",
        )?;
        let values = [MyValue::Int(5), MyValue::Null, MyValue::Bytes(b"in")];
        trace.once("call gives(?, ?, ?)", &values)?;
        trace.text("create procedure only(out b int) set b = 4")?;
        trace.once("call only(?)", &[MyValue::Null])?;
        trace.text("drop function fails")?;
        trace.text("drop procedure gives")?;
        trace.text("drop procedure only")
    };
    differ(work, KINDS, Extra::default())
}

/// Sizes about those at which packets are divided.
const SIZES: &[usize] = &[
    0xff_ffff - 40,
    0xff_ffff - 5,
    0xff_ffff - 4,
    0xff_ffff - 1,
    0xff_ffff,
    0x100_0000,
    20 << 20,
];

#[test]
fn values_of_sixteen_mebibytes_come_and_go_in_the_same_packets() -> Result<()> {
    let work = |trace: &mut Trace| {
        trace.text("create table g(id int primary key, v longblob)")?;
        let insert = trace
            .prepare("insert into g values(?,?)")?
            .context("insert")?;
        let select = trace
            .prepare("select v from g where id=?")?
            .context("select")?;
        for (id, size) in SIZES.iter().enumerate() {
            let id = MyValue::Int(i64::try_from(id)?);
            let value = vec![b'v'; *size];
            trace.execute(&insert, &[id, MyValue::Bytes(&value)], 0, true)?;
            trace.execute(&select, &[id], 0, true)?;
        }
        trace.text("select length(v), md5(v), v from g order by id")?;
        for size in [0xff_ffff - 31, 0xff_ffff - 30, 0xff_ffff, 17 << 20] {
            let sql = format!("insert into g values(100,'{}')", "t".repeat(size));
            trace.text(&sql)?;
            trace.answers.last_mut().context("an answer")?.0 = format!("a text of {size}");
            trace.text("select length(v), md5(v) from g where id=100")?;
            trace.text("delete from g where id=100")?;
        }
        for piece in [0xff_ffff - 7, 0xff_ffff, 17 << 20] {
            trace.client.long_data(insert.id, 1, &vec![b'p'; piece])?;
            trace.client.long_data(insert.id, 1, b"end")?;
            trace.execute(&insert, &[MyValue::Int(200), MyValue::Long], 0, true)?;
            trace.text("select length(v), md5(v) from g where id=200")?;
            trace.text("delete from g where id=200")?;
        }
        Ok(())
    };
    differ(work, &KINDS[..2], Extra::default())
}

#[test]
fn other_commands_are_answered_with_the_same_packets() -> Result<()> {
    let work = |trace: &mut Trace| {
        trace.text("create table c(id int primary key, v varchar(9))")?;
        let pong = trace.client.ping()?;
        trace.keep("ping", pong);
        for database in [DATABASE, "nodatabase", "mysql", DATABASE] {
            let entered = trace.client.enter(database)?;
            trace.keep("init", entered);
        }
        let fields = trace.client.fields("c")?;
        trace.keep("fields", fields);
        trace.text("set @x = 5")?;
        let reset = trace.client.reset()?;
        trace.keep("reset", reset);
        trace.text("select @x, database()")?;
        for allowed in [false, true] {
            let set = trace.client.allow_multi(allowed)?;
            trace.keep("option", set);
            trace.text("select 1; select 2")?;
            trace.text("select 1")?;
        }
        let unknown = trace.client.single(0x77, b"")?;
        trace.keep("unknown", unknown);
        let sent = trace.client.single(0x1b, &[7, 0])?;
        trace.keep("an unknown option", sent);
        trace.text("set @x = 6, sql_mode = 'ANSI'")?;
        trace.client.change_user(login(DATABASE, 0))?;
        let welcome = trace.client.welcome.clone();
        trace.keep("change user", welcome);
        trace.text("select @x, @@sql_mode, database()")?;
        trace.text("insert into c values(1,'a')")?;
        trace.text("select * from c")
    };
    differ(work, KINDS, Extra::default())
}
