//! The driver for MySQL and MariaDB, by `mysql_async`.
//!
//! Not its pool: ours is used. Invariant: a session runs in strict mode, at READ COMMITTED and in
//! UTC, whatever the server's defaults are, so that nothing is cut short and no gap is locked.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use breccia_core::address::Address;
use breccia_net::error::plain_reason;
use breccia_net::tls::{TlsClient, use_ring_unless_chosen};
use bytes::Bytes;
use mysql_async::prelude::Queryable;
use mysql_async::{ClientIdentity, Conn, DriverError, Error, IoError, Opts, OptsBuilder, SslOpts};

use super::driver::{Answer, Connection, Driver, DriverFuture, Row, Value};
use super::fault::Fault;
use super::options::{ServerOptions, SqlOptions, SqlTlsMode};
use super::postgresql::client_options;
use super::statements::{Dialect, Query, Statements};
use super::store::statements;
use crate::error::BlobError;

/// Where the system keeps its certificate authorities.
const SYSTEM_ROOTS: &str = "/etc/ssl/certs/ca-certificates.crt";

/// How long a connection may take to say goodbye before its socket is just closed.
const CLOSE_LIMIT: Duration = Duration::from_secs(5);

/// One MySQL or MariaDB database.
pub(super) struct Mysql {
    opts: Opts,
    /// Without TLS, where TLS is only preferred.
    plain: Option<Opts>,
    statements: Arc<Statements>,
}

impl fmt::Debug for Mysql {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // mysql_async's options would show the password.
        formatter.debug_struct("Mysql").finish_non_exhaustive()
    }
}

impl Mysql {
    /// Reads the options; connects to nothing.
    pub(super) fn new(options: &SqlOptions, server: &ServerOptions) -> Result<Self, BlobError> {
        let builder = OptsBuilder::default()
            .user(Some(server.user.clone()))
            .pass(server.password.clone())
            .db_name(Some(server.database.clone()))
            .prefer_socket(false)
            .stmt_cache_size(Query::ALL.len())
            .setup(setup(options.timeout));
        let builder = match &server.address {
            Address::Tcp { host, port } => builder
                .ip_or_hostname(host.clone())
                .tcp_port(*port)
                .tcp_nodelay(true)
                .tcp_keepalive(Some(Duration::from_mins(1))),
            Address::Unix(path) => builder.socket(Some(path.display().to_string())),
        };
        let tls = tls_options(options, server)?;
        let preferred = tls.is_some() && server.tls.mode == SqlTlsMode::Prefer;
        Ok(Self {
            plain: preferred.then(|| builder.clone().into()),
            opts: builder.ssl_opts(tls).into(),
            statements: statements(options, Dialect::Mysql),
        })
    }

    async fn open(&self) -> Result<Box<dyn Connection>, Fault> {
        let connected = match (Conn::new(self.opts.clone()).await, &self.plain) {
            (Err(Error::Driver(DriverError::NoClientSslFlagFromServer)), Some(plain)) => {
                Conn::new(plain.clone()).await
            }
            (connected, _) => connected,
        };
        let conn = connected.map_err(|error| refused(&error))?;
        Ok(Box::new(MysqlConnection {
            conn: Some(conn),
            statements: Arc::clone(&self.statements),
        }))
    }
}

/// What a session begins with. The server gives up by itself what this end no longer waits for.
fn setup(timeout: Duration) -> Vec<String> {
    let seconds = timeout.as_secs().clamp(1, 1_000_000);
    let lock = (seconds / 2).max(1);
    let idle = seconds.saturating_mul(2);
    vec![
        format!(
            "SET SESSION sql_mode = 'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION', \
             time_zone = '+00:00', autocommit = 1, innodb_lock_wait_timeout = {lock}"
        ),
        "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED".to_owned(),
        // MariaDB's own; MySQL reads the comment as nothing.
        format!("/*M!100300 SET SESSION idle_transaction_timeout = {idle} */"),
    ]
}

fn tls_options(options: &SqlOptions, server: &ServerOptions) -> Result<Option<SslOpts>, BlobError> {
    let tls = &server.tls;
    let Address::Tcp { host, .. } = &server.address else {
        return Ok(None);
    };
    match tls.mode {
        SqlTlsMode::Disable => return Ok(None),
        SqlTlsMode::VerifyCa => {
            return Err(options.fault(
                "tls.mode = \"verify-ca\" is not offered for mysql: use \"verify-full\", \
                 with tls.server-name if the certificate has another name than the host",
            ));
        }
        SqlTlsMode::Prefer | SqlTlsMode::Require | SqlTlsMode::VerifyFull => {}
    }
    // Finds faults in the files now; mysql_async reads them with each connection.
    TlsClient::new(&client_options(server), host)
        .map_err(|error| options.fault(error.to_string()))?;
    use_ring_unless_chosen();
    let mut made = SslOpts::default();
    if tls.mode == SqlTlsMode::VerifyFull {
        let ca = tls.ca.clone().unwrap_or_else(|| SYSTEM_ROOTS.into());
        made = made
            .with_root_certs(vec![ca.into()])
            .with_disable_built_in_roots(true);
    } else {
        made = made.with_danger_accept_invalid_certs(true);
    }
    if let Some(name) = &tls.server_name {
        made = made.with_danger_tls_hostname_override(Some(name.clone()));
    }
    if let (Some(cert), Some(key)) = (&tls.cert, &tls.key) {
        let identity = ClientIdentity::new(cert.clone().into(), key.clone().into());
        made = made.with_client_identity(Some(identity));
    }
    Ok(Some(made))
}

impl Driver for Mysql {
    fn dialect(&self) -> Dialect {
        Dialect::Mysql
    }

    fn connect(&self) -> DriverFuture<'_, Box<dyn Connection>> {
        Box::pin(self.open())
    }
}

struct MysqlConnection {
    /// There until the value is dropped.
    conn: Option<Conn>,
    statements: Arc<Statements>,
}

impl Drop for MysqlConnection {
    fn drop(&mut self) {
        // By itself it would wait without end for a server that is frozen.
        let conn = self.conn.take();
        if let (Some(conn), Ok(runtime)) = (conn, tokio::runtime::Handle::try_current()) {
            runtime.spawn(tokio::time::timeout(CLOSE_LIMIT, conn.disconnect()));
        }
    }
}

impl MysqlConnection {
    fn conn(&mut self) -> Result<&mut Conn, Fault> {
        let gone = || Fault::Lost("the connection is gone".to_owned());
        self.conn.as_mut().ok_or_else(gone)
    }

    async fn execute(&mut self, query: Query, values: Vec<Value>) -> Result<Answer, Fault> {
        let parameters: Vec<mysql_async::Value> = values.into_iter().map(parameter).collect();
        let statements = Arc::clone(&self.statements);
        let text = statements.text(query);
        let started = self.conn()?.exec_iter(text, parameters).await;
        let mut result = started.map_err(|error| fault(&error))?;
        let affected = result.affected_rows();
        let rows = result.collect::<mysql_async::Row>().await;
        drop(result);
        let rows = rows.map_err(|error| fault(&error))?;
        let rows: Result<Vec<Row>, Fault> = rows.into_iter().map(read).collect();
        Ok(Answer {
            rows: rows?,
            affected,
        })
    }

    async fn simple(&mut self, sql: &str) -> Result<(), Fault> {
        let done = self.conn()?.query_drop(sql).await;
        done.map_err(|error| fault(&error))
    }
}

impl Connection for MysqlConnection {
    fn run(&mut self, query: Query, values: Vec<Value>) -> DriverFuture<'_, Answer> {
        Box::pin(self.execute(query, values))
    }

    fn define(&mut self, sql: String) -> DriverFuture<'_, ()> {
        Box::pin(async move { self.simple(&sql).await })
    }

    fn begin(&mut self) -> DriverFuture<'_, ()> {
        Box::pin(self.simple("START TRANSACTION"))
    }

    fn commit(&mut self) -> DriverFuture<'_, ()> {
        Box::pin(self.simple("COMMIT"))
    }

    fn rollback(&mut self) -> DriverFuture<'_, ()> {
        Box::pin(self.simple("ROLLBACK"))
    }

    fn is_closed(&self) -> bool {
        false
    }
}

fn parameter(value: Value) -> mysql_async::Value {
    match value {
        Value::Null => mysql_async::Value::NULL,
        Value::Integer(value) => mysql_async::Value::Int(value),
        Value::Bytes(value) => mysql_async::Value::Bytes(value.into()),
        Value::Text(value) => mysql_async::Value::Bytes(value.into_bytes()),
    }
}

fn read(row: mysql_async::Row) -> Result<Row, Fault> {
    let value = |value| match value {
        mysql_async::Value::NULL => Ok(Value::Null),
        mysql_async::Value::Int(value) => Ok(Value::Integer(value)),
        mysql_async::Value::UInt(value) => {
            Ok(Value::Integer(i64::try_from(value).unwrap_or(i64::MAX)))
        }
        mysql_async::Value::Bytes(value) => Ok(Value::Bytes(Bytes::from(value))),
        other => Err(Fault::Protocol(format!(
            "a column of type {}",
            other.as_sql(true)
        ))),
    };
    let values: Result<Vec<Value>, Fault> = row.unwrap().into_iter().map(value).collect();
    values.map(Row::new)
}

/// An error while connecting: whatever it is, there is no connection.
fn refused(error: &Error) -> Fault {
    match fault(error) {
        Fault::Refused { message, .. } | Fault::Protocol(message) => Fault::Lost(message),
        other => other,
    }
}

fn fault(error: &Error) -> Fault {
    match error {
        Error::Server(server) => classify(server.code, &server.message),
        Error::Io(IoError::Io(error)) => Fault::Lost(plain_reason(error)),
        Error::Io(IoError::Tls(error)) => Fault::Lost(error.to_string()),
        Error::Driver(DriverError::ConnectionClosed | DriverError::PoolDisconnected) => {
            Fault::Lost("connection closed".to_owned())
        }
        Error::Driver(error) => Fault::Protocol(error.to_string()),
        Error::Other(_) | Error::Url(_) => Fault::Protocol(error.to_string()),
    }
}

/// What an error number means here.
fn classify(code: u16, message: &str) -> Fault {
    let words = || message.to_owned();
    match code {
        // Lock wait timeout, deadlock, prepared statement to be prepared anew.
        1205 | 1213 | 1615 => Fault::Busy,
        // max_statement_time, interrupted, max_execution_time.
        1969 | 1317 | 3024 => Fault::Late,
        // Table full, disk full (several ways to say it).
        1114 | 1021 => Fault::Full(words()),
        1030 | 1026 | 3 if message.contains("28") => Fault::Full(words()),
        // Too many connections, of all or of this user; out of memory.
        1040 | 1203 | 1226 | 1037 | 1041 => Fault::Overloaded(words()),
        1146 => Fault::NoTable,
        // Access denied, unknown database, shutdown, connection killed.
        1044 | 1045 | 1049 | 1698 | 1053 | 1927 | 1077 | 1079 | 1080 | 4031 => Fault::Lost(words()),
        _ => Fault::Refused {
            code: code.to_string(),
            message: words(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_numbers_are_told_apart() {
        let check = |code: u16, message: &str, expected: &str| {
            let fault = format!("{:?}", classify(code, message));
            assert!(fault.starts_with(expected), "{code}: {fault}");
        };
        check(1213, "", "Busy");
        check(1205, "", "Busy");
        check(1969, "", "Late");
        check(1114, "", "Full");
        check(1021, "", "Full");
        check(1030, "Got error 28 \"No space left\"", "Full");
        check(1030, "Got error 122", "Refused");
        check(1045, "", "Lost");
        check(1040, "", "Overloaded");
        check(1146, "", "NoTable");
        check(1062, "", "Refused");
    }
}
