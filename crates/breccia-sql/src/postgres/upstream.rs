//! A connection to a server: made, logged in, and asked Breccia's own questions.
//!
//! Not lent out: that is [`super::pool`]. Invariant: a connection that this made is idle, outside
//! any transaction, and nothing of it is unread.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use breccia_core::address::Address;
use breccia_net::stream::{Socket, Stream, connect};
use breccia_net::tls::TlsClient;
use breccia_net::{NetError, clock};
use bytes::{Buf, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::codec::message::{self, Status};
use super::codec::{self, startup};
use super::scram::Keys;
use super::settings::Settings;
use super::statement::Prepared;
use crate::error::SqlError;

mod login;

pub use login::{OwnLogin, md5_hex};

/// A buffer larger than this is not kept by a connection that is idle.
const KEPT: usize = 4 * 1024;
/// The longest answer to a question of Breccia's own.
const MAX_ANSWER_BYTES: usize = 64 << 20;

/// What a server says of itself that holds for as long as it runs: its run, sizes of its log.
const INSTANCE: &str = "SELECT \
    (extract(epoch FROM pg_catalog.pg_postmaster_start_time()) * 1000000)::bigint::text, \
    pg_catalog.current_setting('wal_block_size'), \
    pg_catalog.pg_size_bytes(pg_catalog.current_setting('wal_segment_size'))::text";

/// Whether and how TLS is used towards a server: PostgreSQL's `sslmode`.
#[derive(Debug, Clone)]
pub enum UpstreamTls {
    /// Never.
    Off,
    /// Where the server can.
    Prefer(TlsClient),
    /// Always.
    Require(TlsClient),
}

/// Where a server is and how it is spoken to.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// The store's name.
    pub name: String,
    /// Its address.
    pub address: Address,
    /// TLS towards it.
    pub tls: UpstreamTls,
    /// How long connecting and logging in may take.
    pub timeout: Duration,
    /// The logins that the store itself has there.
    pub own: Vec<OwnLogin>,
}

/// What a role proves itself with.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Credential {
    /// Nothing: the server must trust.
    None,
    /// A password.
    Password(String),
    /// The keys that a client's own login has shown.
    Keys(Keys),
}

/// Who logs in, and where.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Login {
    /// The role.
    pub role: String,
    /// The database.
    pub database: String,
    /// What it proves itself with.
    pub credential: Credential,
    /// Whether the connection refuses writes by itself.
    pub read_only: bool,
}

/// A connection that is logged in.
#[derive(Debug)]
pub struct Upstream {
    /// The connection.
    pub stream: Stream,
    /// Its process on the server, and the secret to cancel it.
    pub key: (u32, Arc<[u8]>),
    /// What it last reported of its parameters.
    pub parameters: BTreeMap<String, String>,
    /// The settings it is at.
    pub applied: Arc<Settings>,
    /// The statements it has prepared.
    pub prepared: Prepared,
    /// How often the database had changed when the first of them was prepared.
    pub prepared_at: u64,
    /// The session that last ran something there which may have made a value of a sequence.
    pub values_of: Option<(u32, u32)>,
    /// When it was made.
    pub born: Instant,
    /// What its server is, if it was asked: see [`Endpoint::identify`].
    pub instance: Instance,
    /// Bytes read and not yet looked at.
    pub received: BytesMut,
}

/// Which of all the servers that may stand behind one name a connection leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Instance {
    /// When it was started, in microseconds; 0 where it was not asked.
    pub run: u64,
    /// The size of a page of its log.
    pub page_bytes: u64,
    /// The size of a file of its log.
    pub segment_bytes: u64,
}

/// One row of an answer, as text.
pub type Row = Vec<Option<String>>;

impl Endpoint {
    /// Makes a connection and logs in, all within the endpoint's `timeout`.
    pub async fn open(&self, login: &Login) -> Result<Upstream, SqlError> {
        match tokio::time::timeout(self.timeout, self.open_patiently(login)).await {
            Ok(done) => done,
            Err(_) => Err(SqlError::Timeout {
                server: self.name.clone(),
                after: self.timeout,
            }),
        }
    }

    /// Asks which server a connection leads to, within the endpoint's `timeout`.
    pub async fn identify(&self, upstream: &mut Upstream) -> Result<(), SqlError> {
        let asked = tokio::time::timeout(self.timeout, self.ask(upstream, INSTANCE)).await;
        let rows = asked.map_err(|_| SqlError::Timeout {
            server: self.name.clone(),
            after: self.timeout,
        })??;
        let number = |column: Option<&Option<String>>| column?.as_deref()?.parse().ok();
        let found = rows.first().and_then(|row| {
            Some(Instance {
                run: number(row.first())?,
                page_bytes: number(row.get(1))?,
                segment_bytes: number(row.get(2))?,
            })
        });
        upstream.instance = found.ok_or_else(|| self.malformed('D'))?;
        Ok(())
    }

    /// Asks the server to cancel what another connection does; ends when the server has done so.
    pub async fn cancel(&self, process: u32, secret: &[u8]) -> Result<(), SqlError> {
        let cancelling = async {
            let mut stream = self.connect().await?;
            let mut packet = Vec::new();
            startup::write_cancel(&mut packet, process, secret);
            stream.write_all(&packet).await.map_err(|e| self.lost(e))?;
            stream.flush().await.map_err(|e| self.lost(e))?;
            let mut scrap = [0; 64];
            // The server says nothing and closes once the signal is sent.
            while matches!(stream.read(&mut scrap).await, Ok(1..)) {}
            Ok(())
        };
        match tokio::time::timeout(self.timeout, cancelling).await {
            Ok(done) => done,
            Err(_) => Err(SqlError::Timeout {
                server: self.name.clone(),
                after: self.timeout,
            }),
        }
    }

    async fn connect(&self) -> Result<Stream, SqlError> {
        let stream = connect(&self.address, None, self.timeout).await;
        let stream = stream.map_err(|source| SqlError::Connect {
            server: self.name.clone(),
            source,
        })?;
        let (client, must) = match &self.tls {
            UpstreamTls::Off => return Ok(stream),
            UpstreamTls::Prefer(client) => (client, false),
            UpstreamTls::Require(client) => (client, true),
        };
        let mut socket = match stream {
            Stream::Tcp(tcp) => Socket::Tcp(tcp),
            // As libpq has it, a Unix socket is never encrypted.
            other => return Ok(other),
        };
        let mut packet = Vec::new();
        startup::write_ssl(&mut packet);
        socket.write_all(&packet).await.map_err(|e| self.lost(e))?;
        match socket.read_u8().await.map_err(|e| self.lost(e))? {
            b'S' => {
                let shaken = client.handshake(socket).await;
                let stream = shaken.map_err(|source| SqlError::Connect {
                    server: self.name.clone(),
                    source: NetError::Handshake {
                        peer: self.address.to_string(),
                        source,
                    },
                })?;
                Ok(Stream::TlsClient(Box::new(stream)))
            }
            b'N' if !must => Ok(Stream::from(socket)),
            _ => Err(SqlError::NoTls {
                server: self.name.clone(),
            }),
        }
    }

    async fn open_patiently(&self, login: &Login) -> Result<Upstream, SqlError> {
        let mut upstream = Upstream {
            stream: self.connect().await?,
            key: (0, Arc::new([])),
            parameters: BTreeMap::new(),
            applied: Arc::default(),
            prepared: Prepared::default(),
            prepared_at: 0,
            values_of: None,
            born: clock::now(),
            instance: Instance::default(),
            received: BytesMut::new(),
        };
        let mut packet = Vec::new();
        let mut parameters = vec![
            ("user", login.role.as_str()),
            ("database", login.database.as_str()),
        ];
        if login.read_only {
            parameters.push(("options", "-c default_transaction_read_only=on"));
        }
        startup::write_session(&mut packet, &parameters);
        self.send(&mut upstream, &packet).await?;
        self.authenticate(&mut upstream, login).await?;
        loop {
            let frame = self.next(&mut upstream).await?;
            let body = codec::body(&frame);
            match frame.first() {
                Some(b'K') => {
                    if let Some((process, secret)) = codec::int32(body) {
                        upstream.key = (process, secret.into());
                    }
                }
                Some(b'Z') => return Ok(upstream),
                Some(b'E') => return Err(self.refused(login, body)),
                _ => {}
            }
        }
    }

    /// Runs a question of Breccia's own on an idle connection; the rows of its last result.
    pub async fn ask(&self, upstream: &mut Upstream, sql: &str) -> Result<Vec<Row>, SqlError> {
        let mut packet = Vec::new();
        message::query(&mut packet, sql);
        self.send(upstream, &packet).await?;
        let mut rows = Vec::new();
        let mut size = 0;
        let mut failure = None;
        loop {
            let frame = self.next(upstream).await?;
            let body = codec::body(&frame);
            match frame.first() {
                Some(b'T') => rows.clear(),
                Some(b'D') => {
                    size += frame.len();
                    if size <= MAX_ANSWER_BYTES {
                        rows.push(row(body).ok_or_else(|| self.malformed('D'))?);
                    }
                }
                Some(b'E') => failure = Some(self.settings_refused(body).of_a_question()),
                Some(b'Z') => match failure {
                    Some(failure) => return Err(failure),
                    None => return Ok(rows),
                },
                _ => {}
            }
        }
    }

    /// Brings an idle connection to other settings, all in one go. Whatever fails, it is not to be
    /// used then.
    pub async fn bring(
        &self,
        upstream: &mut Upstream,
        questions: &[String],
    ) -> Result<(), SqlError> {
        let mut packet = Vec::new();
        for sql in questions {
            message::query(&mut packet, sql);
        }
        self.send(upstream, &packet).await?;
        let mut owed = questions.len();
        let mut failure = None;
        while owed > 0 {
            let frame = self.next(upstream).await?;
            match frame.first() {
                Some(b'Z') => owed -= 1,
                Some(b'E') if failure.is_none() => {
                    failure = Some(self.settings_refused(codec::body(&frame)));
                }
                _ => {}
            }
        }
        failure.map_or(Ok(()), Err)
    }

    pub(super) async fn send(&self, upstream: &mut Upstream, bytes: &[u8]) -> Result<(), SqlError> {
        let sent = upstream.stream.write_all(bytes).await;
        sent.map_err(|error| self.lost(error))?;
        upstream.stream.flush().await.map_err(|e| self.lost(e))
    }

    /// The next frame; parameters it tells are kept.
    pub(super) async fn next(&self, upstream: &mut Upstream) -> Result<BytesMut, SqlError> {
        loop {
            let head = codec::head(&upstream.received).map_err(|source| SqlError::Codec {
                server: self.name.clone(),
                source,
            })?;
            if let Some(head) = head
                && head.length <= MAX_ANSWER_BYTES
                && upstream.received.len() >= head.length
            {
                let frame = upstream.received.split_to(head.length);
                if head.tag == b'S' {
                    upstream.note_parameter(codec::body(&frame));
                }
                return Ok(frame);
            }
            let read = upstream.stream.read_buf(&mut upstream.received).await;
            if read.map_err(|error| self.lost(error))? == 0 {
                return Err(self.lost(std::io::ErrorKind::UnexpectedEof.into()));
            }
        }
    }

    fn lost(&self, source: std::io::Error) -> SqlError {
        SqlError::Lost {
            server: self.name.clone(),
            source,
        }
    }

    fn malformed(&self, tag: char) -> SqlError {
        SqlError::Codec {
            server: self.name.clone(),
            source: codec::CodecError::Malformed { tag },
        }
    }

    /// The error of a question, out of the body of its `ErrorResponse`.
    #[must_use]
    pub fn settings_refused(&self, body: &[u8]) -> SqlError {
        let (sqlstate, text) = words(body);
        SqlError::Settings {
            server: self.name.clone(),
            sqlstate,
            errno: None,
            text,
        }
    }
}

impl Upstream {
    /// Keeps what a `ParameterStatus` tells.
    pub fn note_parameter(&mut self, body: &[u8]) {
        if let Some((name, value)) = codec::parameter(body) {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            self.parameters.insert(text(name), text(value));
        }
    }

    /// Lets go of memory that only a large answer needed.
    pub fn rest(&mut self) {
        let received = &mut self.received;
        let large = |it: &mut BytesMut| it.capacity() > KEPT || it.try_reclaim(KEPT + 1);
        if received.is_empty() && large(received) {
            *received = BytesMut::new();
        }
    }
}

/// SQLSTATE and words of an `ErrorResponse`.
fn words(body: &[u8]) -> (String, String) {
    let of = |kind| {
        let field = codec::field(body, kind).unwrap_or_default();
        String::from_utf8_lossy(field).into_owned()
    };
    (of(b'C'), of(b'M'))
}

/// The columns of a `DataRow`, as text.
fn row(body: &[u8]) -> Option<Row> {
    let (count, mut rest) = codec::int16(body)?;
    let mut columns = Vec::with_capacity(count.into());
    for _ in 0..count {
        let (length, after) = codec::int32(rest)?;
        rest = after;
        if length == u32::MAX {
            columns.push(None);
            continue;
        }
        let value = rest.get(..length as usize)?;
        columns.push(Some(String::from_utf8_lossy(value).into_owned()));
        rest.advance(length as usize);
    }
    Some(columns)
}

/// The status byte of a `ReadyForQuery`'s body.
#[must_use]
pub fn status(body: &[u8]) -> Option<Status> {
    Status::of(*body.first()?)
}
