//! A blocking client of the `PostgreSQL` protocol that sends what it is told, frame by frame.
//!
//! Not a driver: no types, no pools, no retries. Invariant: a reply ends with `ReadyForQuery`, and
//! nothing that came before it is lost.

use std::io::{BufReader, Read, Write};
use std::net::TcpStream;
use std::num::NonZeroU32;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::{digest, hmac, pbkdf2};

use crate::postgres::{PASSWORD, USER};

/// How long a read waits before it is an error.
const PATIENCE: Duration = Duration::from_secs(20);

/// An `ErrorResponse`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SqlFault {
    /// The SQLSTATE.
    pub code: String,
    /// The text.
    pub message: String,
    /// What to do; often empty.
    pub hint: String,
}

/// Everything up to a `ReadyForQuery`.
#[derive(Debug, Clone, Default)]
pub struct SqlReply {
    /// The rows of all results, one behind the other, in text.
    pub rows: Vec<Vec<Option<String>>>,
    /// The first error.
    pub fault: Option<SqlFault>,
    /// The texts of the notices.
    pub notices: Vec<String>,
    /// The channels and payloads of the notifications.
    pub notifications: Vec<(String, String)>,
    /// The tags of the commands that ended.
    pub tags: Vec<String>,
    /// The types of the frames, in order.
    pub frames: String,
    /// `I`, `T` or `E`.
    pub status: char,
}

impl SqlReply {
    /// The first column of the first row.
    pub fn value(&self) -> Option<&str> {
        self.rows.first()?.first()?.as_deref()
    }

    /// The reply, or its error as an error.
    pub fn good(self) -> Result<SqlReply> {
        match self.fault {
            Some(fault) => bail!("{}: {}", fault.code, fault.message),
            None => Ok(self),
        }
    }

    /// The SQLSTATE, empty without an error.
    pub fn code(&self) -> &str {
        self.fault.as_ref().map_or("", |fault| &fault.code)
    }
}

/// One connection.
#[derive(Debug)]
pub struct SqlClient {
    stream: BufReader<TcpStream>,
    port: u16,
    key: Vec<u8>,
    out: Vec<u8>,
    /// What the server last said of each of its parameters.
    pub parameters: std::collections::BTreeMap<String, String>,
}

impl SqlClient {
    /// Logs in to a port of 127.0.0.1 as the testkit's superuser.
    pub fn connect(port: u16, database: &str) -> Result<SqlClient> {
        SqlClient::connect_with(port, &[("database", database)])
    }

    /// The same with startup parameters.
    pub fn connect_with(port: u16, parameters: &[(&str, &str)]) -> Result<SqlClient> {
        SqlClient::connect_as(port, USER, parameters)
    }

    /// The same as any user whose password is the superuser's.
    pub fn connect_as(port: u16, user: &str, parameters: &[(&str, &str)]) -> Result<SqlClient> {
        let stream = TcpStream::connect(("127.0.0.1", port)).context("connect")?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let mut client = SqlClient {
            stream: BufReader::new(stream),
            port,
            key: Vec::new(),
            out: Vec::new(),
            parameters: std::collections::BTreeMap::new(),
        };
        let mut body = 196_608_u32.to_be_bytes().to_vec();
        for (name, value) in [("user", user)].iter().chain(parameters) {
            put_text(&mut body, name);
            put_text(&mut body, value);
        }
        body.push(0);
        put_length(&mut client.out, &body)?;
        client.flush()?;
        client.authenticate()?;
        client.read_reply()?.good()?;
        Ok(client)
    }

    /// Changes how long a read waits.
    pub fn set_patience(&mut self, patience: Duration) -> Result<()> {
        Ok(self.stream.get_ref().set_read_timeout(Some(patience))?)
    }

    /// The connection itself, to write to while another thread reads.
    pub fn raw(&self) -> Result<TcpStream> {
        Ok(self.stream.get_ref().try_clone()?)
    }

    /// Puts a frame into the buffer of what is sent next.
    pub fn frame(&mut self, kind: u8, body: &[u8]) -> &mut Self {
        self.out.push(kind);
        put_length(&mut self.out, body).expect("a frame under 2 GiB");
        self
    }

    /// A simple query.
    pub fn query(&mut self, sql: &str) -> &mut Self {
        let mut body = Vec::new();
        put_text(&mut body, sql);
        self.frame(b'Q', &body)
    }

    /// Parse, with no types.
    pub fn parse(&mut self, name: &str, sql: &str) -> &mut Self {
        let mut body = Vec::new();
        put_text(&mut body, name);
        put_text(&mut body, sql);
        body.extend([0, 0]);
        self.frame(b'P', &body)
    }

    /// Bind to the unnamed portal, all in text.
    pub fn bind(&mut self, statement: &str, values: &[&str]) -> &mut Self {
        let mut body = vec![0];
        put_text(&mut body, statement);
        body.extend([0, 0]);
        let count = u16::try_from(values.len()).expect("few values");
        body.extend(count.to_be_bytes());
        for value in values {
            let length = u32::try_from(value.len()).expect("a short value");
            body.extend(length.to_be_bytes());
            body.extend(value.as_bytes());
        }
        body.extend([0, 0]);
        self.frame(b'B', &body)
    }

    /// Describe of the unnamed portal, and Execute.
    pub fn execute(&mut self) -> &mut Self {
        self.frame(b'D', b"P\0").frame(b'E', &[0, 0, 0, 0, 0])
    }

    /// Close of a statement.
    pub fn close(&mut self, statement: &str) -> &mut Self {
        let mut body = vec![b'S'];
        put_text(&mut body, statement);
        self.frame(b'C', &body)
    }

    /// Sync.
    pub fn sync(&mut self) -> &mut Self {
        self.frame(b'S', &[])
    }

    /// Sends what has been put together.
    pub fn flush(&mut self) -> Result<()> {
        let out = std::mem::take(&mut self.out);
        Ok(self.stream.get_mut().write_all(&out)?)
    }

    /// Sends at most so many bytes of what has been put together, and forgets the rest.
    pub fn flush_part(&mut self, most: usize) -> Result<()> {
        self.out.truncate(most);
        self.flush()
    }

    /// Sends, and reads up to the next `ReadyForQuery`.
    pub fn ask(&mut self) -> Result<SqlReply> {
        self.flush()?;
        self.read_reply()
    }

    /// A simple query and its reply, whatever it is.
    pub fn simple(&mut self, sql: &str) -> Result<SqlReply> {
        self.query(sql).ask()
    }

    /// A simple query that must succeed.
    pub fn run(&mut self, sql: &str) -> Result<SqlReply> {
        self.simple(sql)?.good().with_context(|| sql.to_owned())
    }

    /// A statement in the extended protocol, parsed for this once.
    pub fn extended(&mut self, sql: &str, values: &[&str]) -> Result<SqlReply> {
        self.parse("", sql).bind("", values).execute().sync().ask()
    }

    /// Reads up to the next `ReadyForQuery`. Ends every COPY at once; answers with no data.
    pub fn read_reply(&mut self) -> Result<SqlReply> {
        let mut reply = SqlReply::default();
        loop {
            let (kind, body) = match self.read_frame() {
                Ok(frame) => frame,
                Err(error) => {
                    // The last words of a connection that ends.
                    let Some(fault) = reply.fault else {
                        return Err(error);
                    };
                    bail!("{}: {}", fault.code, fault.message);
                }
            };
            reply.frames.push(char::from(kind));
            match kind {
                b'Z' => {
                    reply.status = char::from(*body.first().context("an empty Z")?);
                    return Ok(reply);
                }
                b'D' => reply.rows.push(row(&body)?),
                b'C' => reply.tags.push(text(&body)),
                b'E' => {
                    let fault = fault(&body);
                    reply.fault.get_or_insert(fault);
                }
                b'G' => {
                    let extended = reply.frames.contains('2');
                    self.frame(b'c', &[]);
                    if extended {
                        self.sync();
                    }
                    self.flush()?;
                }
                b'N' => reply.notices.push(fault(&body).message),
                b'A' => {
                    let words = body.get(4..).unwrap_or_default();
                    let mut words = words.split(|byte| *byte == 0).map(text);
                    let mut next = || words.next().unwrap_or_default();
                    reply.notifications.push((next(), next()));
                }
                b'K' => self.key = body,
                b'S' => {
                    let both = body.split(|byte| *byte == 0).map(text).collect::<Vec<_>>();
                    if let [name, value, ..] = both.as_slice() {
                        self.parameters.insert(name.clone(), value.clone());
                    }
                }
                _ => {}
            }
        }
    }

    /// Reads one frame.
    pub fn read_frame(&mut self) -> Result<(u8, Vec<u8>)> {
        let mut head = [0; 5];
        self.stream.read_exact(&mut head).context("read")?;
        let [kind, length @ ..] = head;
        let length = usize::try_from(u32::from_be_bytes(length))?;
        let mut body = vec![0; length.checked_sub(4).context("a short frame")?];
        self.stream.read_exact(&mut body).context("read")?;
        Ok((kind, body))
    }

    /// What it takes to cancel this connection's statement from anywhere.
    pub fn canceller(&self) -> impl Fn() -> Result<()> + Send + use<> {
        let (port, key) = (self.port, self.key.clone());
        move || send_cancel(port, &key)
    }

    /// Closes the connection without a word; nothing works after that.
    pub fn hang_up(&self) {
        let _gone = self.stream.get_ref().shutdown(std::net::Shutdown::Both);
    }

    /// The process and the secret that a request to cancel must name.
    pub fn key(&self) -> &[u8] {
        &self.key
    }

    /// A proof by SCRAM-SHA-256, if it is asked for.
    fn authenticate(&mut self) -> Result<()> {
        let (kind, body) = self.read_frame()?;
        if kind == b'E' {
            let fault = fault(&body);
            bail!("{}: {}", fault.code, fault.message);
        }
        ensure!(kind == b'R', "no request to authenticate: {kind}");
        match body
            .split_first_chunk()
            .map(|(code, _)| u32::from_be_bytes(*code))
        {
            Some(0) => return Ok(()),
            Some(10) => {}
            other => bail!("authentication {other:?}"),
        }
        let (bare, nonce) = ("n=,r=breccia-testkit", "breccia-testkit");
        let first = format!("n,,{bare}");
        let mut body = b"SCRAM-SHA-256\0".to_vec();
        put_length_only(&mut body, first.len())?;
        body.extend(first.as_bytes());
        self.frame(b'p', &body).flush()?;
        let challenge = self.sasl(11)?;
        let field = |name: &str| {
            let found = challenge
                .split(',')
                .find_map(|part| part.strip_prefix(name));
            found.with_context(|| format!("no {name} in {challenge}"))
        };
        let (all, salt, rounds) = (field("r=")?, field("s=")?, field("i=")?);
        ensure!(all.starts_with(nonce), "another nonce");
        let last = format!("c=biws,r={all}");
        let signed = format!("{bare},{challenge},{last}");
        let proof = proof(&STANDARD.decode(salt)?, rounds.parse()?, signed.as_bytes());
        let answer = format!("{last},p={}", STANDARD.encode(proof));
        self.frame(b'p', answer.as_bytes()).flush()?;
        self.sasl(12)?;
        Ok(())
    }

    fn sasl(&mut self, wanted: u32) -> Result<String> {
        let (kind, body) = self.read_frame()?;
        if kind == b'E' {
            let fault = fault(&body);
            bail!("{}: {}", fault.code, fault.message);
        }
        let (code, rest) = body.split_first_chunk().context("a short R")?;
        ensure!(
            kind == b'R' && u32::from_be_bytes(*code) == wanted,
            "R {wanted}"
        );
        Ok(text(rest))
    }
}

/// Asks a port of 127.0.0.1 to cancel what the connection with this key does.
pub fn send_cancel(port: u16, key: &[u8]) -> Result<()> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    let mut packet = Vec::new();
    let body = [&80_877_102_u32.to_be_bytes(), key].concat();
    put_length(&mut packet, &body)?;
    stream.write_all(&packet)?;
    // The other side closes once it has passed the request on.
    stream.set_read_timeout(Some(PATIENCE))?;
    let _closed = stream.read(&mut [0])?;
    Ok(())
}

/// `ClientKey XOR HMAC(StoredKey, AuthMessage)`.
fn proof(salt: &[u8], rounds: u32, signed: &[u8]) -> Vec<u8> {
    let mut salted = [0; 32];
    let rounds = NonZeroU32::new(rounds).unwrap_or(NonZeroU32::MIN);
    pbkdf2::derive(
        pbkdf2::PBKDF2_HMAC_SHA256,
        rounds,
        salt,
        PASSWORD.as_bytes(),
        &mut salted,
    );
    let sign = |key: &[u8], data: &[u8]| hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), data);
    let client = sign(&salted, b"Client Key");
    let stored = digest::digest(&digest::SHA256, client.as_ref());
    let signature = sign(stored.as_ref(), signed);
    let pairs = client.as_ref().iter().zip(signature.as_ref());
    pairs.map(|(left, right)| left ^ right).collect()
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    out.extend(text.as_bytes());
    out.push(0);
}

fn put_length_only(out: &mut Vec<u8>, length: usize) -> Result<()> {
    out.extend(u32::try_from(length)?.to_be_bytes());
    Ok(())
}

/// A length that counts itself, and the body.
fn put_length(out: &mut Vec<u8>, body: &[u8]) -> Result<()> {
    put_length_only(out, body.len() + 4)?;
    out.extend(body);
    Ok(())
}

fn text(bytes: &[u8]) -> String {
    let bytes = bytes.strip_suffix(b"\0").unwrap_or(bytes);
    String::from_utf8_lossy(bytes).into_owned()
}

fn fault(body: &[u8]) -> SqlFault {
    let field = |kind: u8| {
        let mut fields = body.split(|byte| *byte == 0);
        let found = fields.find_map(|field| field.strip_prefix(&[kind]));
        found.map(text).unwrap_or_default()
    };
    SqlFault {
        code: field(b'C'),
        message: field(b'M'),
        hint: field(b'H'),
    }
}

fn row(body: &[u8]) -> Result<Vec<Option<String>>> {
    let (_, mut rest) = body.split_first_chunk::<2>().context("a short row")?;
    let mut columns = Vec::new();
    while let Some((length, more)) = rest.split_first_chunk() {
        let length = i32::from_be_bytes(*length);
        let Ok(length) = usize::try_from(length) else {
            columns.push(None);
            rest = more;
            continue;
        };
        let (value, more) = more.split_at_checked(length).context("a short value")?;
        columns.push(Some(String::from_utf8_lossy(value).into_owned()));
        rest = more;
    }
    Ok(columns)
}
