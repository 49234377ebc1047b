//! A connection to a server: made, logged in, and asked Breccia's own questions.
//!
//! Not lent out: that is [`super::pool`]. Invariant: a connection that this made is idle, outside
//! any transaction, tells every change of its session, and nothing of it is unread.

use std::sync::Arc;
use std::time::{Duration, Instant};

use breccia_core::address::Address;
use breccia_net::stream::{Socket, Stream, connect};
use breccia_net::tls::TlsClient;
use breccia_net::{NetError, clock};
use bytes::{Buf, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::auth;
use super::codec::handshake::{AuthSwitch, Greeting, Response, write_head};
use super::codec::{
    self, CodecError, ErrPacket, HEADER_BYTES, MAX_PACKET, OkPacket, PrepareOk, capabilities,
    command, lenenc, status, write_packet,
};
use super::settings::Settings;
use super::statements::Prepared;
use crate::error::SqlError;

/// The longest answer to a question of Breccia's own.
const MAX_ANSWER_BYTES: usize = 64 << 20;
/// What every connection can, whatever its client could.
const ALWAYS: u64 = capabilities::LONG_PASSWORD
    | capabilities::LONG_FLAG
    | capabilities::PROTOCOL_41
    | capabilities::TRANSACTIONS
    | capabilities::SECURE_CONNECTION
    | capabilities::PLUGIN_AUTH
    | capabilities::PLUGIN_AUTH_LENENC
    | capabilities::SESSION_TRACK
    | capabilities::DEPRECATE_EOF;
/// What a server must be able to do.
const NEEDED: u64 = capabilities::PROTOCOL_41
    | capabilities::SECURE_CONNECTION
    | capabilities::PLUGIN_AUTH
    | capabilities::SESSION_TRACK
    | capabilities::DEPRECATE_EOF;

/// What a connection begins with, of which texts and rows depend.
const BASE: [&str; 8] = [
    "autocommit",
    "character_set_client",
    "character_set_connection",
    "character_set_results",
    "collation_connection",
    "sql_mode",
    "time_zone",
    "tx_isolation",
];

/// Whether and how TLS is used towards a server.
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
}

/// What a user proves itself with.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Credential {
    /// Nothing.
    None,
    /// A password.
    Password(String),
}

impl Credential {
    fn password(&self) -> &[u8] {
        match self {
            Self::None => b"",
            Self::Password(password) => password.as_bytes(),
        }
    }
}

/// Who logs in, and what else tells connections apart for good.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Login {
    /// The user.
    pub user: String,
    /// What it proves itself with.
    pub credential: Credential,
    /// What a client could that changes what a server answers.
    pub capabilities: u64,
    /// The number of the collation it begins with.
    pub collation: u8,
    /// Whether some schema is entered: none can be left.
    pub with_schema: bool,
    /// Whether the connection refuses writes by itself.
    pub read_only: bool,
}

/// Which family a server is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServerKind {
    /// MariaDB.
    MariaDb,
    /// MySQL, and what is like it.
    MySql,
}

impl ServerKind {
    /// The family of a server of this version.
    #[must_use]
    pub fn of(version: &str) -> Self {
        if version.to_ascii_lowercase().contains("mariadb") {
            Self::MariaDb
        } else {
            Self::MySql
        }
    }
}

/// A connection that is logged in.
#[derive(Debug)]
pub struct Upstream {
    /// The connection.
    pub stream: Stream,
    /// Bytes read and not yet looked at.
    pub received: BytesMut,
    /// Its number on the server.
    pub connection_id: u32,
    /// Who logged in.
    pub login: Login,
    /// The server's family.
    pub server: ServerKind,
    /// The server's version, as it greets.
    pub version: String,
    /// What was negotiated.
    pub capabilities: u64,
    /// The settings it began with, and those it is at.
    pub base: Arc<Settings>,
    /// See above.
    pub applied: Arc<Settings>,
    /// The statements it has prepared.
    pub prepared: Prepared,
    /// When it was made.
    pub born: Instant,
    /// Which run of its server it leads to; 0 where it was not asked.
    pub run: u64,
}

/// One row of an answer, as text.
pub type Row = Vec<Option<String>>;

/// An answer with the names of its columns.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Table {
    /// The names.
    pub columns: Vec<String>,
    /// The rows.
    pub rows: Vec<Row>,
}

impl Endpoint {
    /// Makes a connection and logs in, all within the endpoint's `timeout`.
    pub async fn open(&self, login: &Login) -> Result<Upstream, SqlError> {
        self.in_time(self.open_patiently(login)).await
    }

    async fn in_time<T>(
        &self,
        doing: impl Future<Output = Result<T, SqlError>>,
    ) -> Result<T, SqlError> {
        match tokio::time::timeout(self.timeout, doing).await {
            Ok(done) => done,
            Err(_) => Err(SqlError::Timeout {
                server: self.name.clone(),
                after: self.timeout,
            }),
        }
    }

    async fn open_patiently(&self, login: &Login) -> Result<Upstream, SqlError> {
        let stream = connect(&self.address, None, self.timeout).await;
        let stream = stream.map_err(|source| SqlError::Connect {
            server: self.name.clone(),
            source,
        })?;
        let mut wire = Exchange {
            endpoint: self,
            stream,
            received: BytesMut::new(),
            sequence: 0,
        };
        let packet = wire.next().await?;
        if packet.first() == Some(&0xff) {
            return Err(self.refused(login, &packet));
        }
        let greeting = Greeting::parse(&packet).map_err(|it| self.codec(it))?;
        let lacks = NEEDED & !greeting.capabilities;
        if lacks != 0 {
            return Err(self.cannot(
                login,
                "the server is older than MySQL 5.7.5 or MariaDB 10.2, which Breccia needs",
            ));
        }
        let agreed = (ALWAYS | login.capabilities) & greeting.capabilities;
        let agreed = wire.encrypt(agreed, &greeting, login).await?;
        self.prove(&mut wire, login, &greeting, agreed).await?;
        let mut upstream = Upstream {
            stream: wire.stream,
            received: wire.received,
            connection_id: greeting.connection,
            login: login.clone(),
            server: ServerKind::of(&greeting.version),
            version: greeting.version,
            capabilities: agreed,
            base: Arc::default(),
            applied: Arc::default(),
            prepared: Prepared::default(),
            born: clock::now(),
            run: 0,
        };
        self.set_up(&mut upstream).await?;
        Ok(upstream)
    }

    /// Answers the greeting and whatever the server asks for then.
    async fn prove(
        &self,
        wire: &mut Exchange<'_>,
        login: &Login,
        greeting: &Greeting,
        agreed: u64,
    ) -> Result<(), SqlError> {
        let (mut plugin, mut nonce) = (greeting.plugin.clone(), greeting.nonce.clone());
        if !matches!(plugin.as_str(), auth::NATIVE | auth::CACHING_SHA2) {
            auth::NATIVE.clone_into(&mut plugin);
        }
        let response = Response {
            capabilities: agreed,
            collation: login.collation,
            user: login.user.as_bytes().to_vec(),
            proof: self.proof(wire, login, &plugin, &nonce)?,
            schema: None,
            plugin: Some(plugin.as_bytes().to_vec()),
        };
        let mut payload = Vec::new();
        response.write(&mut payload);
        wire.send(&payload).await?;
        loop {
            let packet = wire.next().await?;
            match packet.first() {
                Some(0x00) => return Ok(()),
                Some(0xff) => return Err(self.refused(login, &packet)),
                Some(0xfe) => {
                    let switch = AuthSwitch::parse(&packet).map_err(|it| self.codec(it))?;
                    let Some(switch) = switch else {
                        return Err(self.cannot(
                            login,
                            "the server asks for a password of before MySQL 4.1; set it anew there",
                        ));
                    };
                    (plugin, nonce) = (switch.plugin, switch.nonce);
                    let proof = self.proof(wire, login, &plugin, &nonce)?;
                    wire.send(&proof).await?;
                }
                Some(0x01) if plugin == auth::CACHING_SHA2 => match packet.get(1) {
                    Some(&auth::FAST_OK) => {}
                    Some(&auth::FULL) if wire.is_private() => {
                        let mut password = login.credential.password().to_vec();
                        password.push(0);
                        wire.send(&password).await?;
                    }
                    _ => {
                        return Err(self.cannot(
                            login,
                            "the server asks for the password itself (caching_sha2_password) over \
                             a connection that is not encrypted; set tls for the store",
                        ));
                    }
                },
                _ => return Err(self.codec(CodecError::Malformed)),
            }
        }
    }

    fn proof(
        &self,
        wire: &Exchange<'_>,
        login: &Login,
        plugin: &str,
        nonce: &[u8],
    ) -> Result<Vec<u8>, SqlError> {
        let password = login.credential.password();
        match plugin {
            auth::NATIVE => Ok(auth::native(password, nonce)),
            auth::CACHING_SHA2 => Ok(auth::caching_sha2(password, nonce)),
            auth::CLEAR if wire.is_private() => Ok([password, b"\0"].concat()),
            _ => Err(self.cannot(
                login,
                "the server asks for a way of authentication that is not spoken here; use \
                 mysql_native_password or caching_sha2_password for this user",
            )),
        }
    }

    /// Has the server tell every change of the session, and asks what it begins with.
    async fn set_up(&self, upstream: &mut Upstream) -> Result<(), SqlError> {
        let maria = upstream.server == ServerKind::MariaDb;
        let mut sql = "SET SESSION session_track_system_variables = '*', \
            session_track_schema = ON, session_track_state_change = ON, \
            session_track_transaction_info = 'CHARACTERISTICS'"
            .to_owned();
        if !maria {
            sql.push_str(", session_track_gtids = 'OWN_GTID'");
        }
        self.run(upstream, &sql).await?;
        if upstream.login.read_only {
            self.run(upstream, "SET SESSION TRANSACTION READ ONLY").await?;
        }
        let columns = BASE.map(|name| match name {
            "tx_isolation" if !maria => "@@transaction_isolation".to_owned(),
            name => format!("@@{name}"),
        });
        let rows = self.ask(upstream, &format!("SELECT {}", columns.join(", "))).await?;
        let row = rows.into_iter().next().unwrap_or_default();
        let mut base = Settings::default();
        for (name, value) in BASE.iter().zip(row) {
            let value = value.unwrap_or_default();
            match *name {
                "autocommit" => base.set(name, if value == "0" { "OFF" } else { "ON" }),
                "tx_isolation" if !maria => base.set("transaction_isolation", &value),
                name => base.set(name, &value),
            }
        }
        upstream.base = Arc::new(base);
        upstream.applied = Arc::default();
        Ok(())
    }

    /// Asks for rows of text.
    pub async fn ask(&self, upstream: &mut Upstream, sql: &str) -> Result<Vec<Row>, SqlError> {
        Ok(self.table(upstream, sql).await?.rows)
    }

    /// Asks for rows of text and the names of their columns.
    pub async fn table(&self, upstream: &mut Upstream, sql: &str) -> Result<Table, SqlError> {
        self.command(upstream, command::QUERY, sql.as_bytes()).await?;
        let mut table = Table::default();
        let first = self.next(upstream).await?;
        match first.first() {
            Some(0xff) => return Err(self.question(&first)),
            Some(0x00) => return Ok(table),
            _ => {}
        }
        let (columns, _) = lenenc::read_int(&first).ok_or(self.codec(CodecError::Malformed))?;
        for _ in 0..columns {
            let packet = self.next(upstream).await?;
            table.columns.push(self.column(&packet)?);
        }
        let mut bytes = 0;
        loop {
            let packet = self.next(upstream).await?;
            match packet.first() {
                Some(0xff) => return Err(self.question(&packet)),
                Some(0xfe) if packet.len() < MAX_PACKET => return Ok(table),
                _ => {}
            }
            bytes += packet.len();
            if bytes > MAX_ANSWER_BYTES {
                return Err(self.codec(CodecError::TooLong { length: bytes }));
            }
            table.rows.push(self.row(&packet, columns)?);
        }
    }

    /// The name in a column's description: behind those of its catalogue, schema, table and the
    /// table's own.
    fn column(&self, packet: &[u8]) -> Result<String, SqlError> {
        let mut reader = codec::Reader::new(packet);
        let mut name = reader.string();
        for _ in 0..4 {
            name = name.and_then(|_| reader.string());
        }
        let name = name.map_err(|it| self.codec(it))?;
        Ok(String::from_utf8_lossy(name).into_owned())
    }

    fn row(&self, packet: &[u8], columns: u64) -> Result<Row, SqlError> {
        let mut reader = codec::Reader::new(packet);
        let mut row = Vec::new();
        for _ in 0..columns {
            if reader.is_null() {
                row.push(None);
                continue;
            }
            let text = reader.string().map_err(|it| self.codec(it))?;
            row.push(Some(String::from_utf8_lossy(text).into_owned()));
        }
        Ok(row)
    }

    /// Runs a statement that has no rows.
    pub async fn run(&self, upstream: &mut Upstream, sql: &str) -> Result<u16, SqlError> {
        self.command(upstream, command::QUERY, sql.as_bytes()).await?;
        self.done(upstream).await
    }

    /// Enters a schema.
    pub async fn enter(&self, upstream: &mut Upstream, schema: &str) -> Result<(), SqlError> {
        self.command(upstream, command::INIT_DB, schema.as_bytes()).await?;
        self.done(upstream).await.map(drop)
    }

    /// OK or an error; the status flags.
    async fn done(&self, upstream: &mut Upstream) -> Result<u16, SqlError> {
        let packet = self.next(upstream).await?;
        match packet.first() {
            Some(0x00) => {
                let ok = OkPacket::parse(&packet, upstream.capabilities);
                let ok = ok.map_err(|it| self.codec(it))?;
                if ok.status & status::MORE_RESULTS_EXISTS != 0 {
                    return Err(self.codec(CodecError::Malformed));
                }
                Ok(ok.status)
            }
            Some(0xff) => Err(self.question(&packet)),
            _ => Err(self.codec(CodecError::Malformed)),
        }
    }

    /// Prepares a statement whose description nobody wants; its number.
    pub async fn prepare(&self, upstream: &mut Upstream, sql: &[u8]) -> Result<u32, SqlError> {
        self.command(upstream, command::STMT_PREPARE, sql).await?;
        let packet = self.next(upstream).await?;
        if packet.first() == Some(&0xff) {
            return Err(self.question(&packet));
        }
        let found = PrepareOk::parse(&packet).map_err(|it| self.codec(it))?;
        for _ in 0..u32::from(found.parameters) + u32::from(found.columns) {
            self.next(upstream).await?;
        }
        Ok(found.statement)
    }

    /// Has the server end what another connection of the same user runs.
    pub async fn kill_query(&self, login: &Login, connection: u32) -> Result<(), SqlError> {
        let mut upstream = self.open(login).await?;
        let sql = format!("KILL QUERY {connection}");
        self.in_time(self.run(&mut upstream, &sql)).await.map(drop)
    }

    /// Sends packets that have no answer.
    pub async fn send(&self, upstream: &mut Upstream, packets: &[u8]) -> Result<(), SqlError> {
        let sent = upstream.stream.write_all(packets).await;
        sent.map_err(|it| self.lost(it))?;
        upstream.stream.flush().await.map_err(|it| self.lost(it))
    }

    async fn command(
        &self,
        upstream: &mut Upstream,
        kind: u8,
        body: &[u8],
    ) -> Result<(), SqlError> {
        let mut payload = vec![kind];
        payload.extend_from_slice(body);
        let mut out = Vec::new();
        write_packet(&mut out, &mut 0, &payload);
        self.send(upstream, &out).await
    }

    async fn next(&self, upstream: &mut Upstream) -> Result<BytesMut, SqlError> {
        self.read(&mut upstream.stream, &mut upstream.received).await.map(|(_, packet)| packet)
    }

    /// Reads a packet; its number and its payload.
    async fn read(
        &self,
        stream: &mut Stream,
        received: &mut BytesMut,
    ) -> Result<(u8, BytesMut), SqlError> {
        loop {
            if let Some(header) = codec::header(received) {
                let length = HEADER_BYTES + header.length;
                if received.len() >= length {
                    let mut packet = received.split_to(length);
                    packet.advance(HEADER_BYTES);
                    return Ok((header.sequence, packet));
                }
            }
            let read = stream.read_buf(received).await.map_err(|it| self.lost(it))?;
            if read == 0 {
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

    fn codec(&self, source: CodecError) -> SqlError {
        SqlError::malformed(self.name.clone(), &source)
    }

    fn cannot(&self, login: &Login, what: &'static str) -> SqlError {
        SqlError::Login {
            server: self.name.clone(),
            role: login.user.clone(),
            what,
        }
    }

    fn refused(&self, login: &Login, packet: &[u8]) -> SqlError {
        let (errno, sqlstate, text) = said(packet);
        SqlError::Refused {
            server: self.name.clone(),
            role: login.user.clone(),
            sqlstate,
            errno: Some(errno),
            text,
        }
    }

    fn question(&self, packet: &[u8]) -> SqlError {
        let (errno, sqlstate, text) = said(packet);
        SqlError::Question {
            server: self.name.clone(),
            sqlstate,
            errno: Some(errno),
            text,
        }
    }
}

/// What an error packet says.
fn said(packet: &[u8]) -> (u16, String, String) {
    match ErrPacket::parse(packet) {
        Ok(error) => (
            error.code,
            String::from_utf8_lossy(&error.sqlstate).into_owned(),
            String::from_utf8_lossy(error.message).into_owned(),
        ),
        Err(_) => (1105, "HY000".to_owned(), "a malformed error".to_owned()),
    }
}

/// A connection before its login.
struct Exchange<'a> {
    endpoint: &'a Endpoint,
    stream: Stream,
    received: BytesMut,
    sequence: u8,
}

impl Exchange<'_> {
    async fn next(&mut self) -> Result<BytesMut, SqlError> {
        let reading = self.endpoint.read(&mut self.stream, &mut self.received);
        let (sequence, packet) = reading.await?;
        self.sequence = sequence.wrapping_add(1);
        Ok(packet)
    }

    async fn send(&mut self, payload: &[u8]) -> Result<(), SqlError> {
        let mut out = Vec::new();
        write_packet(&mut out, &mut self.sequence, payload);
        let sent = self.stream.write_all(&out).await;
        sent.map_err(|it| self.endpoint.lost(it))?;
        self.stream.flush().await.map_err(|it| self.endpoint.lost(it))
    }

    /// Whether nobody can listen.
    fn is_private(&self) -> bool {
        self.stream.is_tls() || matches!(self.stream, Stream::Unix(_))
    }

    /// TLS as the store asks for it; what is agreed then.
    async fn encrypt(
        &mut self,
        agreed: u64,
        greeting: &Greeting,
        login: &Login,
    ) -> Result<u64, SqlError> {
        let offered = greeting.capabilities & capabilities::SSL != 0;
        let client = match &self.endpoint.tls {
            UpstreamTls::Off => return Ok(agreed),
            UpstreamTls::Prefer(_) if !offered => return Ok(agreed),
            UpstreamTls::Prefer(client) | UpstreamTls::Require(client) => client.clone(),
        };
        if matches!(self.stream, Stream::Unix(_)) {
            return Ok(agreed);
        }
        if !offered {
            return Err(SqlError::NoTls {
                server: self.endpoint.name.clone(),
            });
        }
        let agreed = agreed | capabilities::SSL;
        let mut payload = Vec::new();
        write_head(&mut payload, agreed, login.collation);
        self.send(&payload).await?;
        // Not plain any more while hands are shaken.
        let (near, _) = tokio::io::duplex(1);
        let socket = match std::mem::replace(&mut self.stream, Stream::Pipe(near)) {
            Stream::Tcp(tcp) => Socket::Tcp(tcp),
            Stream::Unix(unix) => Socket::Unix(unix),
            _ => return Ok(agreed),
        };
        let shaken = client.handshake(socket).await;
        let stream = shaken.map_err(|source| SqlError::Connect {
            server: self.endpoint.name.clone(),
            source: NetError::Handshake {
                peer: self.endpoint.address.to_string(),
                source,
            },
        })?;
        self.stream = Stream::TlsClient(Box::new(stream));
        Ok(agreed)
    }
}
