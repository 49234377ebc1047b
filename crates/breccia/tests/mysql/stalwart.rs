//! The connection sequence and the statements of Stalwart's MySQL store, in its own order.
//!
//! Not Stalwart itself: what it sends was read off its source, and is sent here by hand. Invariant: each
//! answer has the same packets as the server's own, but for the path of its socket.

use anyhow::{Context, Result, ensure};
use breccia_testkit::{
    MY_FOUND_ROWS, MY_LOCAL_FILES, MY_MODERN, MyClient, MyReply, MyStatement, MyValue,
};

use crate::rig::{Extra, Gateway, fresh, login, shared};

const DATABASE: &str = "stalwart";

/// Answers by what was asked.
type Answers = Vec<(String, Vec<(Vec<u8>, u8)>)>;

/// One connection of its pool.
struct Mail {
    client: MyClient,
    answers: Answers,
}

impl Mail {
    fn connect(port: u16) -> Result<Mail> {
        let client = MyClient::connect_as(port, login(DATABASE, MY_MODERN | MY_FOUND_ROWS))?;
        let mut mail = Mail {
            client,
            answers: Vec::new(),
        };
        let welcome = mail.client.welcome.clone();
        mail.keep("login", &welcome);
        let settings = "SELECT @@max_allowed_packet,@@wait_timeout";
        mail.text(settings)?;
        // The path is NULL through a gateway, so only its column is held against the server's.
        let socket = mail.client.run("SELECT @@socket")?;
        ensure!(socket.results.len() == 1, "{socket:?}");
        Ok(mail)
    }

    fn keep(&mut self, what: &str, reply: &MyReply) {
        self.answers.push((what.to_owned(), reply.packets.clone()));
    }

    fn text(&mut self, sql: &str) -> Result<MyReply> {
        let reply = self.client.query(sql)?;
        self.keep(sql, &reply);
        Ok(reply)
    }

    fn prepare(&mut self, sql: &str) -> Result<MyStatement> {
        let statement = self.client.prepare(sql)?;
        let statement = statement.map_err(|it| anyhow::anyhow!("{sql}: {:?}", it.fault))?;
        self.keep(sql, &statement.reply);
        Ok(statement)
    }

    fn execute(&mut self, statement: &MyStatement, values: &[MyValue<'_>]) -> Result<MyReply> {
        let reply = self.client.execute(statement, values)?;
        self.keep("execute", &reply);
        Ok(reply)
    }

    fn once(&mut self, sql: &str, values: &[MyValue<'_>]) -> Result<MyReply> {
        let statement = self.prepare(sql)?;
        self.execute(&statement, values)
    }

    /// The beginning of each batch of writes.
    fn begin(&mut self) -> Result<()> {
        self.text("SET TRANSACTION ISOLATION LEVEL READ COMMITTED")?;
        self.text("START TRANSACTION")?;
        Ok(())
    }

    /// What its pool does with a connection that comes back.
    fn give_back(&mut self) -> Result<()> {
        let reset = self.client.reset()?;
        self.keep("reset", &reset);
        Ok(())
    }
}

fn tables(mail: &mut Mail) -> Result<()> {
    for table in ["a", "b", "c", "n"] {
        let sql = format!(
            "CREATE TABLE IF NOT EXISTS {table} (k TINYBLOB, v MEDIUMBLOB NOT NULL, \
             PRIMARY KEY (k(255))) ENGINE=InnoDB"
        );
        mail.once(&sql, &[])?;
    }
    mail.once(
        "CREATE TABLE IF NOT EXISTS i (k BLOB, PRIMARY KEY (k(400))) ENGINE=InnoDB",
        &[],
    )?;
    mail.once("CREATE TABLE IF NOT EXISTS t (k TINYBLOB, v LONGBLOB NOT NULL, PRIMARY KEY (k(255))) ENGINE=InnoDB", &[])?;
    mail.once("CREATE TABLE IF NOT EXISTS q (k TINYBLOB, v BIGINT NOT NULL DEFAULT 0, PRIMARY KEY (k(255))) ENGINE=InnoDB", &[])?;
    mail.once(
        "CREATE TABLE IF NOT EXISTS s (id BIGINT PRIMARY KEY, subj TEXT, j JSON, FULLTEXT INDEX (subj)) ENGINE=InnoDB",
        &[],
    )?;
    // Its errors are ignored, so they must come.
    mail.text("CREATE FULLTEXT INDEX subj ON s (subj)")?;
    mail.text("CREATE FULLTEXT INDEX subj ON s (subj)")?;
    mail.give_back()
}

/// Upserts with 1, 2 and 0 rows affected, where a row that is found and not changed counts 1.
fn batch(mail: &mut Mail) -> Result<()> {
    let upsert = "INSERT INTO a (k, v) VALUES (?, ?) ON DUPLICATE KEY UPDATE v = VALUES(v)";
    mail.begin()?;
    mail.once("DELETE FROM a", &[])?;
    mail.once("DELETE FROM q", &[])?;
    let statement = mail.prepare(upsert)?;
    for (value, affected) in [(b"one", 1), (b"two", 2), (b"two", 1)] {
        let values = [MyValue::Bytes(b"\x00key\n"), MyValue::Bytes(value)];
        let reply = mail.execute(&statement, &values)?;
        ensure!(
            reply.affected() == affected,
            "{} of {affected}",
            reply.affected()
        );
    }
    mail.once(
        "INSERT IGNORE INTO i (k) VALUES (?)",
        &[MyValue::Bytes(b"index")],
    )?;
    mail.once(
        "INSERT IGNORE INTO i (k) VALUES (?)",
        &[MyValue::Bytes(b"index")],
    )?;
    let add = "INSERT INTO q (k, v) VALUES (?, LAST_INSERT_ID(?)) ON DUPLICATE KEY UPDATE \
               v = LAST_INSERT_ID(v + ?)";
    for expected in ["5", "10"] {
        mail.once(
            add,
            &[MyValue::Bytes(b"count"), MyValue::Int(5), MyValue::Int(5)],
        )?;
        let reply = mail.once("SELECT LAST_INSERT_ID()", &[])?;
        ensure!(
            reply.text().as_deref() == Some(expected),
            "{:?}",
            reply.text()
        );
    }
    let update = "UPDATE q SET v = v + ? WHERE k = ? AND v >= ?";
    mail.once(
        update,
        &[MyValue::Int(1), MyValue::Bytes(b"count"), MyValue::Int(1)],
    )?;
    mail.once(
        update,
        &[MyValue::Int(1), MyValue::Bytes(b"none"), MyValue::Int(1)],
    )?;
    // An assertion of what a value is, which locks its row.
    mail.once(
        "SELECT v FROM a WHERE k = ? FOR UPDATE",
        &[MyValue::Bytes(b"\x00key\n")],
    )?;
    mail.once("DELETE FROM a WHERE k = ?", &[MyValue::Bytes(b"nothing")])?;
    mail.text("COMMIT")?;
    mail.give_back()
}

fn reads(mail: &mut Mail) -> Result<()> {
    let key = [MyValue::Bytes(b"\x00key\n")];
    mail.once("SELECT v FROM a WHERE k = ?", &key)?;
    mail.once("SELECT 1 FROM a WHERE k = ?", &key)?;
    mail.once("SELECT v FROM q WHERE k = ?", &[MyValue::Bytes(b"count")])?;
    let range = [MyValue::Bytes(b"\x00"), MyValue::Bytes(b"\xff")];
    for order in ["ASC", "DESC", "ASC LIMIT 1", "DESC LIMIT 1"] {
        let sql = format!("SELECT k, v FROM a WHERE k >= ? AND k <= ? ORDER BY k {order}");
        mail.once(&sql, &range)?;
    }
    mail.once(
        "INSERT INTO s VALUES (?, ?, ?)",
        &[
            MyValue::Int(1),
            MyValue::Bytes(b"breccia rock"),
            MyValue::Bytes(b"{\"a\": 1}"),
        ],
    )?;
    mail.once(
        "SELECT id FROM s WHERE MATCH(subj) AGAINST(? IN BOOLEAN MODE) ORDER BY id",
        &[MyValue::Bytes(b"+rock")],
    )?;
    mail.once(
        "SELECT id FROM s WHERE JSON_EXTRACT(j, ?) = 1",
        &[MyValue::Bytes(b"$.a")],
    )?;
    mail.once(
        "SELECT id FROM s WHERE JSON_CONTAINS_PATH(j, 'one', ?)",
        &[MyValue::Bytes(b"$.a")],
    )?;
    mail.give_back()
}

fn failures(mail: &mut Mail) -> Result<()> {
    mail.text("ROLLBACK;")?;
    mail.begin()?;
    let insert = mail.prepare("INSERT INTO n (k, v) VALUES (?, ?)")?;
    let values = [MyValue::Bytes(b"k"), MyValue::Bytes(b"v")];
    mail.execute(&insert, &values)?;
    let twice = mail.execute(&insert, &values)?;
    ensure!(twice.code() == 1062, "{twice:?}");
    mail.text("ROLLBACK;")?;
    mail.text("ROLLBACK;")?;
    mail.give_back()?;
    // What was prepared is gone, and prepared again.
    let gone = mail.client.execute(&insert, &values)?;
    ensure!(gone.code() == 1243, "{gone:?}");
    let insert = mail.prepare("INSERT INTO n (k, v) VALUES (?, ?)")?;
    mail.execute(&insert, &values)?;
    mail.give_back()
}

/// A blob of more than 16 MiB goes by pieces.
fn large(mail: &mut Mail) -> Result<()> {
    let value = vec![b'm'; 17 << 20];
    mail.begin()?;
    let sql = "INSERT INTO t (k, v) VALUES (?, ?) ON DUPLICATE KEY UPDATE v = VALUES(v)";
    let insert = mail.prepare(sql)?;
    for piece in value.chunks(1 << 20) {
        mail.client.long_data(insert.id, 1, piece)?;
    }
    mail.execute(&insert, &[MyValue::Bytes(b"blob"), MyValue::Long])?;
    mail.text("COMMIT")?;
    let back = mail.once("SELECT v FROM t WHERE k = ?", &[MyValue::Bytes(b"blob")])?;
    let row = back
        .results
        .last()
        .and_then(|it| it.rows.first()?.first().cloned());
    ensure!(row.flatten().is_some_and(|it| it == value), "another value");
    mail.give_back()
}

#[test]
fn stalwarts_statements_in_its_order_are_answered_with_the_same_packets() -> Result<()> {
    let cluster = shared()?;
    let _turn = crate::rig::turn();
    let gateway = Gateway::over(&cluster, Extra::default())?;
    let mut both: Vec<Answers> = Vec::new();
    for port in [cluster.primary().port(), gateway.port] {
        fresh(&cluster, DATABASE)?;
        let mut mail = Mail::connect(port)?;
        for work in [tables, batch, reads, failures, large, batch, reads] {
            let done = work(&mut mail);
            let last = mail.answers.last().map(|it| it.0.clone());
            done.with_context(|| format!("after {last:?}"))?;
        }
        both.push(mail.answers);
    }
    let (through, direct) = (
        both.pop().unwrap_or_default(),
        both.pop().unwrap_or_default(),
    );
    ensure!(
        direct.len() == through.len(),
        "{} and {}",
        direct.len(),
        through.len()
    );
    for (direct, through) in direct.iter().zip(&through) {
        let unlike = direct.1.iter().zip(&through.1).find(|(a, b)| a != b);
        let shown = unlike.map(|(a, b)| {
            let text =
                |it: &(Vec<u8>, u8)| format!("{} {:.300}", it.1, it.0.escape_ascii().to_string());
            format!("{}: directly {} and through {}", direct.0, text(a), text(b))
        });
        ensure!(direct == through, "{shown:?}");
    }
    Ok(())
}

#[test]
fn a_deadlock_is_told_as_the_server_tells_it() -> Result<()> {
    let cluster = shared()?;
    fresh(&cluster, "deadlock")?;
    let rows = "USE deadlock; CREATE TABLE d (id int PRIMARY KEY, n int); INSERT INTO d VALUES (1,1),(2,2)";
    cluster.query(0, rows)?;
    let gateway = Gateway::over(&cluster, Extra::default())?;
    let mut both = [gateway.client("deadlock")?, gateway.client("deadlock")?];
    for (client, own) in both.iter_mut().zip([1, 2]) {
        client.run("SET TRANSACTION ISOLATION LEVEL READ COMMITTED")?;
        client.run("START TRANSACTION")?;
        client.run(&format!("UPDATE d SET n = n + 1 WHERE id = {own}"))?;
    }
    let codes: Vec<u16> = std::thread::scope(|scope| {
        let threads: Vec<_> = both
            .iter_mut()
            .zip([2, 1])
            .map(|(client, other)| {
                scope.spawn(move || {
                    client.query(&format!("UPDATE d SET n = n + 1 WHERE id = {other}"))
                })
            })
            .collect();
        let replies = threads.into_iter().map(|it| it.join().expect("no panic"));
        replies
            .map(|it| it.map(|it| it.code()))
            .collect::<Result<_>>()
    })?;
    ensure!(codes.contains(&1213) && codes.contains(&0), "{codes:?}");
    for client in &mut both {
        client.run("ROLLBACK;")?;
        client.run("ROLLBACK;")?;
        client.run("SELECT * FROM d")?;
    }
    Ok(())
}

#[test]
fn local_files_are_asked_of_no_client() -> Result<()> {
    let cluster = shared()?;
    fresh(&cluster, "files")?;
    cluster.query(0, "CREATE TABLE files.f (v text)")?;
    let gateway = Gateway::over(&cluster, Extra::default())?;
    let mut client = gateway.client_of("files", MY_MODERN | MY_LOCAL_FILES)?;
    let reply = client.query("LOAD DATA LOCAL INFILE '/etc/hostname' INTO TABLE f")?;
    ensure!(reply.fault.is_some(), "{reply:?}");
    ensure!(
        client.value("SELECT COUNT(*) FROM f")? == "0",
        "rows of a file"
    );
    Ok(())
}
