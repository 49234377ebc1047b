//! A connection to a server: made, logged in, and asked Breccia's own questions.
//!
//! Not lent out: that is [`super::pool`]. Invariant: a connection that this made is idle, outside
//! any transaction, tells every change of its session, and nothing of it is unread.

use std::sync::Arc;
use std::time::{Duration, Instant};

use breccia_core::address::Address;
use breccia_net::clock;
use breccia_net::health::EndpointHealth;
use breccia_net::stream::Stream;
use breccia_net::tls::TlsClient;
use bytes::{Buf, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::auth::client::Secret;
use super::codec::{
    self, CodecError, ErrPacket, HEADER_BYTES, MAX_PACKET, OkPacket, PrepareOk, command, lenenc,
    status, write_packet,
};
use super::settings::Settings;
use super::statements::Prepared;
use crate::error::SqlError;
use crate::outage::until_down;

mod login;

pub use login::OwnLogin;

/// The longest answer to a question of Breccia's own.
const MAX_ANSWER_BYTES: usize = 64 << 20;
/// Columns of such an answer: no server has more in a table.
const MAX_COLUMNS: u64 = 4096;
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
    /// Whether it is there: on connections of sessions nothing waits for one that is not.
    pub health: Option<Arc<EndpointHealth>>,
    /// The logins that the store itself has there.
    pub own: Vec<OwnLogin>,
}

/// What a user proves itself with.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Credential {
    /// Nothing.
    None,
    /// A password.
    Password(String),
    /// `SHA1(password)`, which a client's own login has shown: it opens `mysql_native_password`.
    NativeHash([u8; 20]),
}

impl Credential {
    fn secret(&self) -> Secret<'_> {
        match self {
            Self::None => Secret::Password(b""),
            Self::Password(password) => Secret::Password(password.as_bytes()),
            Self::NativeHash(hash) => Secret::NativeHash(hash),
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
    /// Memory for the next bytes to it.
    pub spare: Vec<u8>,
    /// Its number on the server.
    pub connection_id: u32,
    /// Who logged in.
    pub login: Login,
    /// The server's family.
    pub server: ServerKind,
    /// The server's version, as it greets.
    pub version: String,
    /// The number of the collation that it greets with: its own default.
    pub collation: u8,
    /// What was negotiated.
    pub capabilities: u64,
    /// The settings it began with, and those it is at.
    pub base: Arc<Settings>,
    /// See above.
    pub applied: Arc<Settings>,
    /// The statements it has prepared.
    pub prepared: Prepared,
    /// What its `LAST_INSERT_ID()` is, whosever that was; none if a statement may have set it since.
    pub last_insert_id: Option<u64>,
    /// Its last statements gave warnings or an error, which whoever asks is told of.
    pub has_warnings: bool,
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

    pub(super) async fn in_time<T>(
        &self,
        doing: impl Future<Output = Result<T, SqlError>>,
    ) -> Result<T, SqlError> {
        let doing = Box::pin(doing);
        let done = match &self.health {
            Some(health) => {
                let doing = tokio::time::timeout(self.timeout, doing);
                until_down(async { Ok(doing.await) }, health, &self.name).await?
            }
            None => tokio::time::timeout(self.timeout, doing).await,
        };
        match done {
            Ok(done) => done,
            Err(_) => Err(SqlError::Timeout {
                server: self.name.clone(),
                after: self.timeout,
            }),
        }
    }

    async fn open_patiently(&self, login: &Login) -> Result<Upstream, SqlError> {
        let met = login::meet(self, login).await?;
        let mut upstream = Upstream {
            stream: met.stream,
            received: met.received,
            spare: Vec::new(),
            connection_id: met.greeting.connection,
            login: login.clone(),
            server: ServerKind::of(&met.greeting.version),
            version: met.greeting.version,
            collation: met.greeting.collation,
            capabilities: met.agreed,
            base: Arc::default(),
            applied: Arc::default(),
            prepared: Prepared::default(),
            last_insert_id: Some(0),
            has_warnings: false,
            born: clock::now(),
            run: 0,
        };
        self.set_up(&mut upstream).await?;
        Ok(upstream)
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
            self.run(upstream, "SET SESSION TRANSACTION READ ONLY")
                .await?;
        }
        let columns = base_names(upstream).map(|name| format!("@@{name}"));
        let rows = self
            .ask(upstream, &format!("SELECT {}", columns.join(", ")))
            .await?;
        let row = rows.into_iter().next().unwrap_or_default();
        let mut base = Settings::default();
        for (name, value) in base_values(upstream, row) {
            base.set(name, &value);
        }
        upstream.base = Arc::new(base);
        upstream.applied = Arc::default();
        Ok(())
    }

    /// Asks what a connection has that no server may have told: whether there are user variables, and the
    /// values of what texts and rows depend on.
    pub async fn traces(
        &self,
        upstream: &mut Upstream,
    ) -> Result<(bool, Vec<(&'static str, String)>), SqlError> {
        let mut sql = match upstream.server {
            ServerKind::MariaDb => {
                "SELECT (SELECT COUNT(*) FROM information_schema.USER_VARIABLES)"
            }
            ServerKind::MySql => {
                "SELECT (SELECT COUNT(*) FROM performance_schema.user_variables_by_thread AS v \
                 JOIN performance_schema.threads AS t ON t.THREAD_ID = v.THREAD_ID \
                 WHERE t.PROCESSLIST_ID = CONNECTION_ID())"
            }
        }
        .to_owned();
        for name in base_names(upstream) {
            sql.push_str(", @@");
            sql.push_str(name);
        }
        let rows = self.in_time(self.ask(upstream, &sql)).await?;
        let mut row = rows.into_iter().next().unwrap_or_default().into_iter();
        let variables = row.next().flatten().is_none_or(|count| count != "0");
        Ok((variables, base_values(upstream, row).collect()))
    }

    /// Asks for rows of text.
    pub async fn ask(&self, upstream: &mut Upstream, sql: &str) -> Result<Vec<Row>, SqlError> {
        Ok(self.table(upstream, sql).await?.rows)
    }

    /// Asks for rows of text and the names of their columns.
    pub async fn table(&self, upstream: &mut Upstream, sql: &str) -> Result<Table, SqlError> {
        self.command(upstream, command::QUERY, sql.as_bytes())
            .await?;
        let mut table = Table::default();
        let first = self.next(upstream).await?;
        match first.first() {
            Some(0xff) => return Err(self.question(&first)),
            Some(0x00) => return Ok(table),
            _ => {}
        }
        let columns = lenenc::read_int(&first).map(|(columns, _)| columns);
        let Some(columns @ 1..=MAX_COLUMNS) = columns else {
            return Err(self.codec(CodecError::Malformed));
        };
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
    ///
    /// Bounded by the endpoint's `timeout`, as all that Breccia itself asks for a session: after an error
    /// that is not the server's answer the connection is of no use.
    pub async fn run(&self, upstream: &mut Upstream, sql: &str) -> Result<u16, SqlError> {
        self.in_time(self.run_patiently(upstream, sql)).await
    }

    async fn run_patiently(&self, upstream: &mut Upstream, sql: &str) -> Result<u16, SqlError> {
        self.command(upstream, command::QUERY, sql.as_bytes())
            .await?;
        self.done(upstream).await
    }

    /// Asks whether the server still listens; the status flags.
    pub async fn ping(&self, upstream: &mut Upstream) -> Result<u16, SqlError> {
        let asking = async {
            self.command(upstream, command::PING, b"").await?;
            self.done(upstream).await
        };
        self.in_time(asking).await
    }

    /// Enters a schema.
    pub async fn enter(&self, upstream: &mut Upstream, schema: &str) -> Result<(), SqlError> {
        let entering = async {
            self.command(upstream, command::INIT_DB, schema.as_bytes())
                .await?;
            self.done(upstream).await.map(drop)
        };
        self.in_time(entering).await
    }

    /// Asks for one value, in the same time.
    pub async fn ask_value(
        &self,
        upstream: &mut Upstream,
        sql: &str,
    ) -> Result<Option<String>, SqlError> {
        let rows = self.in_time(self.ask(upstream, sql)).await?;
        Ok(rows
            .into_iter()
            .next()
            .and_then(|row| row.into_iter().next()?))
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
        self.in_time(self.prepare_patiently(upstream, sql)).await
    }

    async fn prepare_patiently(
        &self,
        upstream: &mut Upstream,
        sql: &[u8],
    ) -> Result<u32, SqlError> {
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
        self.read(&mut upstream.stream, &mut upstream.received)
            .await
            .map(|(_, packet)| packet)
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
            let read = stream
                .read_buf(received)
                .await
                .map_err(|it| self.lost(it))?;
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

/// The names of [`BASE`] as a server knows them.
fn base_names(upstream: &Upstream) -> [&'static str; BASE.len()] {
    let mysql = upstream.server == ServerKind::MySql;
    let renamed = mysql && !has_old_names(&upstream.version);
    BASE.map(|name| match name {
        "tx_isolation" if renamed => "transaction_isolation",
        name => name,
    })
}

/// What was asked of [`base_names`], with each value as a server tells it when it changes.
fn base_values(
    upstream: &Upstream,
    row: impl IntoIterator<Item = Option<String>>,
) -> impl Iterator<Item = (&'static str, String)> {
    base_names(upstream)
        .into_iter()
        .zip(row)
        .map(|(name, value)| {
            let value = value.unwrap_or_default();
            match (name, value.as_str()) {
                ("autocommit", "0") => (name, "OFF".to_owned()),
                ("autocommit", _) => (name, "ON".to_owned()),
                _ => (name, value),
            }
        })
}

/// Whether a MySQL server of this version has no `transaction_isolation`, which came with 5.7.20.
fn has_old_names(version: &str) -> bool {
    let mut numbers = version.split(|it: char| !it.is_ascii_digit());
    let mut next = || numbers.next().and_then(|it| it.parse::<u32>().ok());
    let version = (next(), next(), next());
    version < (Some(5), Some(7), Some(20))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_is_asked_by_the_name_it_has_there() {
        for (version, old) in [
            ("5.7.12-log", true),
            ("5.7.19", true),
            ("5.7.20", false),
            ("5.7.44-percona", false),
            ("8.0.36", false),
            ("9.1.0", false),
        ] {
            assert_eq!(has_old_names(version), old, "{version}");
            assert_eq!(ServerKind::of(version), ServerKind::MySql);
        }
        assert_eq!(
            ServerKind::of("5.5.5-10.11.6-MariaDB-log"),
            ServerKind::MariaDb
        );
    }
}
