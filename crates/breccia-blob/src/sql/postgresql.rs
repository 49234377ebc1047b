//! The driver for PostgreSQL, by tokio-postgres over a socket of our own.
//!
//! Not a pool. Invariant: a connection that is dropped closes its socket at once, so that the server
//! undoes an open transaction and frees its locks.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use breccia_core::address::Address;
use breccia_net::error::{NetError, plain_reason};
use breccia_net::stream::{self, Socket, Stream};
use breccia_net::tls::TlsClient;
use bytes::{BufMut, Bytes, BytesMut};
use tokio::task::JoinHandle;
use tokio_postgres::config::{ChannelBinding, SslMode};
use tokio_postgres::types::{IsNull, ToSql, Type, to_sql_checked};
use tokio_postgres::{Client, Config, Statement};

mod secure;

pub(super) use secure::client_options;
use secure::{Tls, tls_client};

use super::driver::{Answer, Connection, Driver, DriverFuture, Row, Value};
use super::fault::Fault;
use super::options::{ServerOptions, SqlOptions, SqlTlsMode};
use super::statements::{Dialect, Query, Statements};
use super::store::statements;
use crate::error::BlobError;

/// The name of the usual port's socket in its folder.
const SOCKET: &str = ".s.PGSQL.5432";

/// One PostgreSQL database.
#[derive(Debug)]
pub(super) struct Postgresql {
    address: Address,
    config: Config,
    tls: Option<TlsClient>,
    timeout: Duration,
    statements: Arc<Statements>,
}

impl Postgresql {
    /// Reads the options; connects to nothing.
    pub(super) fn new(options: &SqlOptions, server: &ServerOptions) -> Result<Self, BlobError> {
        let mut config = Config::new();
        config
            .user(&server.user)
            .dbname(&server.database)
            .application_name("breccia")
            .channel_binding(ChannelBinding::Disable);
        if let Some(password) = &server.password {
            config.password(password);
        }
        let tls = tls_client(options, server)?;
        config.ssl_mode(match (&tls, server.tls.mode) {
            (None, _) => SslMode::Disable,
            (Some(_), SqlTlsMode::Prefer) => SslMode::Prefer,
            (Some(_), _) => SslMode::Require,
        });
        Ok(Self {
            address: server.address.clone(),
            config,
            tls,
            timeout: options.timeout,
            statements: statements(options, Dialect::Postgresql),
        })
    }

    /// Where to connect to. PostgreSQL's own programs name the folder of a socket, not the socket.
    fn address(&self) -> Address {
        match &self.address {
            Address::Unix(path) if path.is_dir() => Address::Unix(path.join(SOCKET)),
            address => address.clone(),
        }
    }

    async fn open(&self) -> Result<Box<dyn Connection>, Fault> {
        let opened = stream::connect(&self.address(), None, self.timeout).await;
        let socket = match opened.map_err(lost)? {
            Stream::Tcp(stream) => Socket::Tcp(stream),
            Stream::Unix(stream) => Socket::Unix(stream),
            _ => return Err(Fault::Lost("TLS came too early".to_owned())),
        };
        let tls = Tls(self.tls.clone());
        let connected = self.config.connect_raw(socket, tls).await;
        let (client, connection) = connected.map_err(|error| refused(&error))?;
        let task = tokio::spawn(async move {
            // What goes wrong here, the client's requests are told.
            let _ = connection.await;
        });
        let connection = PostgresqlConnection {
            client,
            task,
            statements: Arc::clone(&self.statements),
            prepared: vec![None; Query::ALL.len()],
            begin: false,
        };
        let setup = setup(self.timeout);
        let done = connection.client.batch_execute(&setup).await;
        done.map_err(|error| refused(&error))?;
        Ok(Box::new(connection))
    }
}

/// The server gives up by itself what this end no longer waits for.
fn setup(timeout: Duration) -> String {
    let ms = timeout.as_millis().clamp(1, 1_000_000_000);
    let half = (ms / 2).max(1);
    let double = ms * 2;
    format!(
        "SET statement_timeout = {ms}; SET lock_timeout = {half}; \
         SET idle_in_transaction_session_timeout = {double}; SET client_min_messages = warning"
    )
}

impl Driver for Postgresql {
    fn dialect(&self) -> Dialect {
        Dialect::Postgresql
    }

    fn connect(&self) -> DriverFuture<'_, Box<dyn Connection>> {
        Box::pin(self.open())
    }
}

struct PostgresqlConnection {
    client: Client,
    task: JoinHandle<()>,
    statements: Arc<Statements>,
    prepared: Vec<Option<Statement>>,
    /// A BEGIN that goes out together with the next statement.
    begin: bool,
}

impl Drop for PostgresqlConnection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED";

impl PostgresqlConnection {
    async fn prepare(&mut self, query: Query) -> Result<Statement, Fault> {
        if let Some(Some(statement)) = self.prepared.get(query.index()) {
            return Ok(statement.clone());
        }
        self.begin_now().await?;
        let text = self.statements.text(query);
        let prepared = self.client.prepare(text).await;
        let statement = prepared.map_err(|error| fault(&error))?;
        if let Some(entry) = self.prepared.get_mut(query.index()) {
            *entry = Some(statement.clone());
        }
        Ok(statement)
    }

    async fn begin_now(&mut self) -> Result<(), Fault> {
        if std::mem::take(&mut self.begin) {
            let begun = self.client.batch_execute(BEGIN).await;
            begun.map_err(|error| fault(&error))?;
        }
        Ok(())
    }

    async fn execute(&mut self, query: Query, values: Vec<Value>) -> Result<Answer, Fault> {
        let statement = self.prepare(query).await?;
        let first = std::mem::take(&mut self.begin);
        let client = &self.client;
        let beginning = async {
            if first {
                client.batch_execute(BEGIN).await
            } else {
                Ok(())
            }
        };
        let running = async {
            let parameters: Vec<&(dyn ToSql + Sync)> = values
                .iter()
                .map(|value| value as &(dyn ToSql + Sync))
                .collect();
            if query.gives_rows() {
                let rows = client.query(&statement, &parameters).await?;
                Ok((rows, 0))
            } else {
                let affected = client.execute(&statement, &parameters).await?;
                Ok((Vec::new(), affected))
            }
        };
        // Polled in this order, they are sent in this order, without waiting in between.
        let (begun, done) = futures_util::future::join(beginning, running).await;
        begun.map_err(|error| fault(&error))?;
        let (rows, affected) = done.map_err(|error: tokio_postgres::Error| fault(&error))?;
        let rows: Result<Vec<Row>, Fault> = rows.iter().map(read).collect();
        Ok(Answer {
            rows: rows?,
            affected,
        })
    }

    async fn simple(&mut self, sql: &str) -> Result<(), Fault> {
        self.begin_now().await?;
        let done = self.client.batch_execute(sql).await;
        done.map_err(|error| fault(&error))
    }
}

impl Connection for PostgresqlConnection {
    fn run(&mut self, query: Query, values: Vec<Value>) -> DriverFuture<'_, Answer> {
        Box::pin(self.execute(query, values))
    }

    fn define(&mut self, sql: String) -> DriverFuture<'_, ()> {
        Box::pin(async move { self.simple(&sql).await })
    }

    fn begin(&mut self) -> DriverFuture<'_, ()> {
        self.begin = true;
        Box::pin(std::future::ready(Ok(())))
    }

    fn commit(&mut self) -> DriverFuture<'_, ()> {
        Box::pin(self.simple("COMMIT"))
    }

    fn rollback(&mut self) -> DriverFuture<'_, ()> {
        Box::pin(async move {
            if std::mem::take(&mut self.begin) {
                return Ok(());
            }
            self.simple("ROLLBACK").await
        })
    }

    fn is_closed(&self) -> bool {
        self.client.is_closed()
    }
}

impl ToSql for Value {
    fn to_sql(
        &self,
        _type: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        match self {
            Self::Null => return Ok(IsNull::Yes),
            Self::Integer(value) => out.put_i64(*value),
            Self::Bytes(value) => out.put_slice(value),
            Self::Text(value) => out.put_slice(value.as_bytes()),
        }
        Ok(IsNull::No)
    }

    fn accepts(known: &Type) -> bool {
        [Type::INT8, Type::BYTEA, Type::TEXT].contains(known)
    }

    to_sql_checked!();
}

fn read(row: &tokio_postgres::Row) -> Result<Row, Fault> {
    let value = |(index, column): (usize, &tokio_postgres::Column)| {
        let found = match *column.type_() {
            Type::INT8 => row.try_get::<_, Option<i64>>(index).map(Value::of_integer),
            Type::INT4 => row
                .try_get::<_, Option<i32>>(index)
                .map(|value| Value::of_integer(value.map(i64::from))),
            Type::BYTEA => row.try_get::<_, Option<&[u8]>>(index).map(|value| {
                value.map_or(Value::Null, |value| {
                    Value::Bytes(Bytes::copy_from_slice(value))
                })
            }),
            _ => row
                .try_get::<_, Option<String>>(index)
                .map(|value| value.map_or(Value::Null, Value::Text)),
        };
        found.map_err(|error| Fault::Protocol(error.to_string()))
    };
    let values: Result<Vec<Value>, Fault> = row.columns().iter().enumerate().map(value).collect();
    values.map(Row::new)
}

fn lost(error: NetError) -> Fault {
    match error {
        NetError::Connect { source, .. } => Fault::Lost(plain_reason(&source)),
        other => Fault::Lost(other.to_string()),
    }
}

/// An error while connecting: whatever it is, there is no connection.
fn refused(error: &tokio_postgres::Error) -> Fault {
    match fault(error) {
        Fault::Refused { message, .. } | Fault::Protocol(message) => Fault::Lost(message),
        other => other,
    }
}

fn fault(error: &tokio_postgres::Error) -> Fault {
    let Some(server) = error.as_db_error() else {
        let source = std::error::Error::source(error);
        let io = source.and_then(|source| source.downcast_ref::<io::Error>());
        return match (io, source) {
            (Some(io), _) => Fault::Lost(plain_reason(io)),
            (None, _) if error.is_closed() => Fault::Lost("connection closed".to_owned()),
            (None, Some(source)) => Fault::Protocol(format!("{error}: {source}")),
            (None, None) => Fault::Protocol(error.to_string()),
        };
    };
    classify(server.code().code(), server.message())
}

/// What a SQLSTATE means here.
fn classify(code: &str, message: &str) -> Fault {
    let words = || message.to_owned();
    match code {
        "40001" | "40P01" | "55P03" => Fault::Busy,
        "57014" => Fault::Late,
        "53100" => Fault::Full(words()),
        "53300" | "53200" => Fault::Overloaded(words()),
        "42P01" => Fault::NoTable,
        "40003" => Fault::Lost(words()),
        _ if code.starts_with("08") || code.starts_with("28") => Fault::Lost(words()),
        // Shut down, crashed, starting up, idle for too long; but not 57014.
        _ if code.starts_with("57P") || code == "25P03" => Fault::Lost(words()),
        _ => Fault::Refused {
            code: code.to_owned(),
            message: words(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sqlstates_are_told_apart() {
        let check = |code: &str, expected: &str| {
            let fault = format!("{:?}", classify(code, "words"));
            assert!(fault.starts_with(expected), "{code}: {fault}");
        };
        check("40001", "Busy");
        check("40P01", "Busy");
        check("55P03", "Busy");
        check("57014", "Late");
        check("53100", "Full");
        check("53300", "Overloaded");
        check("28P01", "Lost");
        check("57P01", "Lost");
        check("08006", "Lost");
        check("42P01", "NoTable");
        check("22001", "Refused");
    }
}
