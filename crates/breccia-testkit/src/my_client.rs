//! A blocking client of the protocol of `MySQL` and `MariaDB` that sends what it is told.
//!
//! Not a driver: no pools, no retries, values only as far as tests look at them. Invariant: a reply
//! holds every packet that came, with its number, so that two replies can be held against each other.

use std::io::{self, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use ring::digest;

use crate::mariadb::{PASSWORD, USER};
use crate::my_reply::{MyReply, MyResult, Reader, status_of};
use crate::my_value::{MyValue, execution};

/// How long a read waits before it is an error.
const PATIENCE: Duration = Duration::from_secs(20);

/// The payload of a full packet, which another one follows.
const FULL: usize = 0xff_ffff;

/// `CLIENT_FOUND_ROWS`.
pub const MY_FOUND_ROWS: u32 = 0x2;
/// `CLIENT_LOCAL_FILES`.
pub const MY_LOCAL_FILES: u32 = 0x80;
/// `CLIENT_CONNECT_WITH_DB`.
const WITH_DATABASE: u32 = 0x8;
/// `CLIENT_SESSION_TRACK`.
pub const MY_SESSION_TRACK: u32 = 0x80_0000;
/// `CLIENT_DEPRECATE_EOF`.
pub const MY_DEPRECATE_EOF: u32 = 0x100_0000;
/// What every client of today has: long password and flag, protocol 4.1, transactions, the newer
/// password proof, many statements and results, named proofs.
pub const MY_OLD: u32 =
    0x1 | 0x4 | 0x200 | 0x2000 | 0x8000 | 0x1_0000 | 0x2_0000 | 0x4_0000 | 0x8_0000;
/// The same, and results end with an OK.
pub const MY_MODERN: u32 = MY_OLD | MY_DEPRECATE_EOF;
/// The same, and what changes in the session is told.
pub const MY_TRACKING: u32 = MY_MODERN | MY_SESSION_TRACK;

/// The cursor flag of an execution: rows wait on the server to be fetched.
pub const MY_CURSOR: u8 = 1;

/// Whom a client logs in as, and how.
#[derive(Debug, Clone, Copy)]
pub struct MyLogin<'a> {
    /// The user.
    pub user: &'a str,
    /// The password.
    pub password: &'a str,
    /// The schema to begin in; empty for none.
    pub database: &'a str,
    /// Flags of capabilities.
    pub capabilities: u32,
}

impl Default for MyLogin<'_> {
    fn default() -> Self {
        Self {
            user: USER,
            password: PASSWORD,
            database: "",
            capabilities: MY_MODERN,
        }
    }
}

/// A prepared statement.
#[derive(Debug, Clone)]
pub struct MyStatement {
    /// Its number.
    pub id: u32,
    /// How many parameters it has.
    pub parameters: u16,
    /// The packets that described it; the number in the first is left out.
    pub reply: MyReply,
}

/// One connection.
#[derive(Debug)]
pub struct MyClient {
    stream: BufReader<TcpStream>,
    capabilities: u32,
    /// The number the server gave the connection.
    pub connection_id: u32,
    /// The version the server told.
    pub version: String,
    /// The capabilities the server told.
    pub offered: u32,
    /// The OK that ended the login.
    pub welcome: MyReply,
}

impl MyClient {
    /// Logs in to a port of 127.0.0.1 as the testkit's user, in a schema.
    pub fn connect(port: u16, database: &str) -> Result<MyClient> {
        MyClient::connect_as(
            port,
            MyLogin {
                database,
                ..MyLogin::default()
            },
        )
    }

    /// The same with a login of choice.
    pub fn connect_as(port: u16, login: MyLogin<'_>) -> Result<MyClient> {
        let mut client = MyClient::greeted(port)?;
        client.log_in(login)?;
        Ok(client)
    }

    /// Connects and reads the greeting only.
    pub fn greeted(port: u16) -> Result<MyClient> {
        let stream = TcpStream::connect(("127.0.0.1", port)).context("connect")?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(MyClient {
            stream: BufReader::with_capacity(1 << 16, stream),
            capabilities: 0,
            connection_id: 0,
            version: String::new(),
            offered: 0,
            welcome: MyReply::default(),
        })
    }

    /// Reads the greeting and proves the password.
    pub fn log_in(&mut self, login: MyLogin<'_>) -> Result<()> {
        let (greeting, _) = self.packet()?;
        if greeting.first() == Some(&0xff) {
            bail!("refused: {}", MyReply::fault_of(&greeting, 0));
        }
        let nonce = self.read_greeting(&greeting)?;
        self.capabilities = login.capabilities;
        if !login.database.is_empty() {
            self.capabilities |= WITH_DATABASE;
        }
        let mut body = self.capabilities.to_le_bytes().to_vec();
        body.extend((1_u32 << 24).to_le_bytes());
        body.push(45);
        body.extend([0; 23]);
        put_text(&mut body, login.user);
        let proof = native_proof(login.password, &nonce);
        body.push(u8::try_from(proof.len()).unwrap_or(0));
        body.extend(proof);
        if !login.database.is_empty() {
            put_text(&mut body, login.database);
        }
        put_text(&mut body, "mysql_native_password");
        self.send(&body, 1)?;
        self.finish_login(login.password)
    }

    /// Answers a change of the proof's kind, and reads the OK.
    fn finish_login(&mut self, password: &str) -> Result<()> {
        let (mut packet, mut number) = self.packet()?;
        if packet.first() == Some(&0xfe) {
            let kind = packet.get(1..).unwrap_or_default();
            let end = kind.iter().position(|it| *it == 0).unwrap_or(kind.len());
            ensure!(
                kind.get(..end) == Some(b"mysql_native_password"),
                "another proof is asked"
            );
            let nonce: Vec<u8> = kind.iter().skip(end + 1).take(20).copied().collect();
            let proof = native_proof(password, &nonce);
            self.send(&proof, number.wrapping_add(1))?;
            (packet, number) = self.packet()?;
        }
        match packet.first() {
            Some(0) => {}
            Some(0xff) => bail!("refused: {}", MyReply::fault_of(&packet, self.capabilities)),
            _ => bail!("the login ended with {packet:?}"),
        }
        let mut reply = MyReply::default();
        reply.results.push(MyResult::ok(&packet)?);
        reply.packets.push((packet, number));
        self.welcome = reply;
        Ok(())
    }

    /// Takes apart the first packet: version 10 of the handshake. The nonce.
    fn read_greeting(&mut self, greeting: &[u8]) -> Result<Vec<u8>> {
        let mut reader = Reader::new(greeting);
        ensure!(reader.take(1)? == [10], "not the greeting of version 10");
        self.version = String::from_utf8_lossy(reader.until_zero()?).into_owned();
        self.connection_id = reader.u32()?;
        let mut nonce = reader.take(8)?.to_vec();
        reader.take(1)?;
        let low = reader.u16()?;
        reader.take(3)?;
        let high = reader.u16()?;
        self.offered = u32::from(low) | u32::from(high) << 16;
        reader.take(11)?;
        nonce.extend(reader.take(12)?);
        Ok(nonce)
    }

    /// Changes how long a read waits.
    pub fn set_patience(&mut self, patience: Duration) -> Result<()> {
        Ok(self.stream.get_ref().set_read_timeout(Some(patience))?)
    }

    /// The connection itself, to write to while another thread reads.
    pub fn raw(&self) -> Result<TcpStream> {
        Ok(self.stream.get_ref().try_clone()?)
    }

    /// Sends a payload in as many packets as it takes; the first has this number.
    pub fn send(&mut self, payload: &[u8], first: u8) -> Result<()> {
        let stream = self.stream.get_mut();
        let (mut rest, mut number) = (payload, first);
        loop {
            let (now, later) = rest.split_at(rest.len().min(FULL));
            let length = u32::try_from(now.len())?.to_le_bytes();
            let mut head = length.to_vec();
            head.truncate(3);
            head.push(number);
            if now.len() < 1 << 16 {
                head.extend(now);
                stream.write_all(&head)?;
            } else {
                stream.write_all(&head)?;
                stream.write_all(now)?;
            }
            if now.len() < FULL {
                return Ok(());
            }
            (rest, number) = (later, number.wrapping_add(1));
        }
    }

    /// Sends a command, and reads no reply.
    pub fn command(&mut self, command: u8, body: &[u8]) -> Result<()> {
        let mut payload = Vec::with_capacity(1 + body.len());
        payload.push(command);
        payload.extend(body);
        self.send(&payload, 0)
    }

    /// Reads one packet: its payload and its number.
    pub fn packet(&mut self) -> Result<(Vec<u8>, u8)> {
        let mut head = [0; 4];
        self.stream.read_exact(&mut head).context("no packet")?;
        let [a, b, c, number] = head;
        let length = u32::from_le_bytes([a, b, c, 0]);
        let mut payload = vec![0; usize::try_from(length)?];
        self.stream
            .read_exact(&mut payload)
            .context("half a packet")?;
        Ok((payload, number))
    }

    /// A command that one packet answers.
    pub fn single(&mut self, command: u8, body: &[u8]) -> Result<MyReply> {
        self.command(command, body)?;
        let mut reply = MyReply::default();
        let first = self.whole(&mut reply)?;
        match first.first() {
            Some(0xff) => reply.set_fault(&first, self.capabilities),
            Some(0) => reply.results.push(MyResult::ok(&first)?),
            _ => {}
        }
        Ok(reply)
    }

    /// A text of SQL.
    pub fn query(&mut self, sql: &str) -> Result<MyReply> {
        self.command(3, sql.as_bytes())?;
        self.results(false).with_context(|| format!("{sql:.200}"))
    }

    /// The same, and an error is one.
    pub fn run(&mut self, sql: &str) -> Result<MyReply> {
        self.query(sql)?
            .good()
            .with_context(|| format!("{sql:.200}"))
    }

    /// The first value of the first row.
    pub fn value(&mut self, sql: &str) -> Result<String> {
        let reply = self.run(sql)?;
        reply.text().with_context(|| format!("no row: {sql:.200}"))
    }

    /// Prepares a statement; `Err` inside for the server's refusal.
    pub fn prepare(&mut self, sql: &str) -> Result<std::result::Result<MyStatement, MyReply>> {
        self.command(0x16, sql.as_bytes())?;
        let mut reply = MyReply::default();
        let first = self.whole(&mut reply)?;
        if first.first() != Some(&0) {
            reply.set_fault(&first, self.capabilities);
            return Ok(Err(reply));
        }
        let mut reader = Reader::new(&first);
        reader.take(1)?;
        let id = reader.u32()?;
        let (columns, parameters) = (reader.u16()?, reader.u16()?);
        for count in [parameters, columns] {
            for _ in 0..count {
                self.whole(&mut reply)?;
            }
            if count > 0 && !self.deprecates_eof() {
                self.whole(&mut reply)?;
            }
        }
        // The number is the server's own affair.
        let place = reply.packets.first_mut().and_then(|it| it.0.get_mut(1..5));
        place.context("a short answer")?.fill(0);
        Ok(Ok(MyStatement {
            id,
            parameters,
            reply,
        }))
    }

    /// Prepares, executes and closes.
    pub fn once(&mut self, sql: &str, values: &[MyValue<'_>]) -> Result<MyReply> {
        let statement = match self.prepare(sql)? {
            Ok(statement) => statement,
            Err(reply) => return Ok(reply),
        };
        let reply = self.execute(&statement, values)?;
        self.close(&statement)?;
        Ok(reply)
    }

    /// Executes with the types of the values.
    pub fn execute(&mut self, statement: &MyStatement, values: &[MyValue<'_>]) -> Result<MyReply> {
        self.execute_as(statement.id, values, 0, true)
    }

    /// Executes with flags, and the types if `typed`.
    pub fn execute_as(
        &mut self,
        id: u32,
        values: &[MyValue<'_>],
        flags: u8,
        typed: bool,
    ) -> Result<MyReply> {
        let body = execution(id, values, flags, typed);
        self.command(0x17, &body)?;
        self.results(true)
    }

    /// Executes a statement whose packet, of less than 16 MiB, is sent in two pieces.
    pub fn execute_cut(
        &mut self,
        id: u32,
        values: &[MyValue<'_>],
        cut: usize,
        pause: Duration,
    ) -> Result<MyReply> {
        let body = execution(id, values, 0, true);
        let length = u32::try_from(body.len() + 1)?;
        let [a, b, c, _] = length.to_le_bytes();
        let mut packet = vec![a, b, c, 0, 0x17];
        packet.extend(&body);
        let (first, second) = packet.split_at(cut.min(packet.len()));
        let mut stream = self.raw()?;
        stream.set_nodelay(true)?;
        stream.write_all(first)?;
        std::thread::sleep(pause);
        stream.write_all(second)?;
        self.results(true)
    }

    /// Sends a piece of a parameter.
    pub fn long_data(&mut self, id: u32, parameter: u16, piece: &[u8]) -> Result<()> {
        let mut body = id.to_le_bytes().to_vec();
        body.extend(parameter.to_le_bytes());
        body.extend(piece);
        self.command(0x18, &body)
    }

    /// Fetches rows of a statement's cursor.
    pub fn fetch(&mut self, id: u32, rows: u32) -> Result<MyReply> {
        let mut body = id.to_le_bytes().to_vec();
        body.extend(rows.to_le_bytes());
        self.command(0x1c, &body)?;
        self.until_end()
    }

    /// Forgets the data of a statement and its cursor.
    pub fn reset_statement(&mut self, id: u32) -> Result<MyReply> {
        self.single(0x1a, &id.to_le_bytes())
    }

    /// Closes a statement; nothing answers.
    pub fn close(&mut self, statement: &MyStatement) -> Result<()> {
        self.command(0x19, &statement.id.to_le_bytes())
    }

    /// `COM_FIELD_LIST` of a table.
    pub fn fields(&mut self, table: &str) -> Result<MyReply> {
        let mut body = Vec::new();
        put_text(&mut body, table);
        self.command(0x04, &body)?;
        self.until_end()
    }

    /// `COM_INIT_DB`.
    pub fn enter(&mut self, database: &str) -> Result<MyReply> {
        self.single(0x02, database.as_bytes())
    }

    /// `COM_PING`.
    pub fn ping(&mut self) -> Result<MyReply> {
        self.single(0x0e, b"")
    }

    /// `COM_RESET_CONNECTION`.
    pub fn reset(&mut self) -> Result<MyReply> {
        self.single(0x1f, b"")
    }

    /// `COM_SET_OPTION`: many statements in a text allowed or not.
    pub fn allow_multi(&mut self, allowed: bool) -> Result<MyReply> {
        self.single(0x1b, &u16::from(!allowed).to_le_bytes())
    }

    /// `COM_CHANGE_USER`.
    pub fn change_user(&mut self, login: MyLogin<'_>) -> Result<()> {
        let mut body = Vec::new();
        put_text(&mut body, login.user);
        // No proof yet: the server asks for one with a nonce of its own.
        body.push(0);
        put_text(&mut body, login.database);
        body.extend(45_u16.to_le_bytes());
        put_text(&mut body, "mysql_native_password");
        self.command(0x11, &body)?;
        self.finish_login(login.password)
    }

    /// Whether the other side has closed the connection, or does so within the patience of this client.
    pub fn is_closed(&mut self) -> bool {
        let silent = |error: &anyhow::Error| {
            let kinds = error
                .chain()
                .filter_map(|it| it.downcast_ref::<io::Error>());
            kinds
                .map(io::Error::kind)
                .any(|it| matches!(it, io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut))
        };
        self.packet().is_err_and(|error| !silent(&error))
    }

    fn deprecates_eof(&self) -> bool {
        self.capabilities & MY_DEPRECATE_EOF != 0
    }

    /// Reads a packet with those that continue it, and keeps each.
    fn whole(&mut self, reply: &mut MyReply) -> Result<Vec<u8>> {
        let mut all = Vec::new();
        loop {
            let (payload, number) = self.packet()?;
            let more = payload.len() == FULL;
            all.extend(&payload);
            reply.packets.push((payload, number));
            if !more {
                return Ok(all);
            }
        }
    }

    /// Rows or descriptions up to their end.
    fn until_end(&mut self) -> Result<MyReply> {
        let mut reply = MyReply::default();
        loop {
            let packet = self.whole(&mut reply)?;
            match packet.first() {
                Some(0xff) => {
                    reply.set_fault(&packet, self.capabilities);
                    return Ok(reply);
                }
                Some(0xfe) if packet.len() < 9 => return Ok(reply),
                Some(0xfe) if self.deprecates_eof() => return Ok(reply),
                _ => {}
            }
        }
    }

    /// Reads all results of a command.
    pub fn results(&mut self, binary: bool) -> Result<MyReply> {
        let mut reply = MyReply::default();
        loop {
            let first = self.whole(&mut reply)?;
            match first.first() {
                Some(0xff) => {
                    reply.set_fault(&first, self.capabilities);
                    return Ok(reply);
                }
                Some(0) => reply.results.push(MyResult::ok(&first)?),
                Some(0xfb) => bail!("a file is asked for"),
                _ => {
                    if !self.rows(&first, &mut reply, binary)? {
                        return Ok(reply);
                    }
                }
            }
            if reply.status() & 8 == 0 {
                return Ok(reply);
            }
        }
    }

    /// Reads one result with rows; `false` after an error or an opened cursor.
    fn rows(&mut self, first: &[u8], reply: &mut MyReply, binary: bool) -> Result<bool> {
        let columns = Reader::new(first).lenenc()?;
        let mut result = MyResult::default();
        for _ in 0..columns {
            let packet = self.whole(reply)?;
            result.add_column(&packet)?;
        }
        if !self.deprecates_eof() {
            let end = self.whole(reply)?;
            result.status = status_of(&end, false)?;
            if result.status & 0x40 != 0 {
                reply.results.push(result);
                return Ok(false);
            }
        }
        loop {
            let packet = self.whole(reply)?;
            match packet.first() {
                Some(0xff) => {
                    reply.set_fault(&packet, self.capabilities);
                    reply.results.push(result);
                    return Ok(false);
                }
                Some(0xfe) if packet.len() < FULL => {
                    result.status = status_of(&packet, self.deprecates_eof())?;
                    reply.results.push(result);
                    return Ok(true);
                }
                _ => result.add_row(&packet, binary)?,
            }
        }
    }
}

/// The proof of a password by `mysql_native_password`; empty for an empty one.
fn native_proof(password: &str, nonce: &[u8]) -> Vec<u8> {
    if password.is_empty() {
        return Vec::new();
    }
    let sha1 = |bytes: &[u8]| digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, bytes);
    let once = sha1(password.as_bytes());
    let twice = sha1(once.as_ref());
    let mix = sha1(&[nonce, twice.as_ref()].concat());
    let pairs = once.as_ref().iter().zip(mix.as_ref());
    pairs.map(|(a, b)| a ^ b).collect()
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    out.extend(text.as_bytes());
    out.push(0);
}
