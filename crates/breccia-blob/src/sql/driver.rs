//! What the store asks of a driver: a connection that runs one of the known statements.
//!
//! Not a general SQL interface. Invariant: a connection whose future was dropped in the middle is
//! never used again; [`crate::sql::pool::Session`] sees to that.

use std::fmt::Debug;
use std::future::Future;
use std::pin::Pin;

use bytes::Bytes;

use super::fault::Fault;
use super::statements::{Dialect, Query};

/// The answer of a driver.
pub(crate) type DriverFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, Fault>> + Send + 'a>>;

/// A value of a column or parameter.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    /// Nothing there.
    Null,
    /// A number.
    Integer(i64),
    /// Bytes.
    Bytes(Bytes),
    /// Text.
    Text(String),
}

impl Value {
    /// A number or nothing.
    pub(crate) fn of_integer(value: Option<i64>) -> Self {
        value.map_or(Self::Null, Self::Integer)
    }
}

impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Self::Integer(value)
    }
}

impl From<Bytes> for Value {
    fn from(value: Bytes) -> Self {
        Self::Bytes(value)
    }
}

impl From<&str> for Value {
    fn from(value: &str) -> Self {
        Self::Text(value.to_owned())
    }
}

impl From<String> for Value {
    fn from(value: String) -> Self {
        Self::Text(value)
    }
}

/// A size or time as a column holds it.
pub(crate) fn signed(value: u64) -> Value {
    Value::Integer(i64::try_from(value).unwrap_or(i64::MAX))
}

/// A row of an answer, its columns taken in order.
#[derive(Debug)]
pub(crate) struct Row(std::vec::IntoIter<Value>);

impl Row {
    /// A row of these columns.
    pub(crate) fn new(values: Vec<Value>) -> Self {
        Self(values.into_iter())
    }

    /// The next column, a number.
    pub(crate) fn integer(&mut self) -> Result<i64, Fault> {
        match self.0.next() {
            Some(Value::Integer(value)) => Ok(value),
            other => Err(unexpected("a number", other.as_ref())),
        }
    }

    /// The next column, a number that is not negative.
    pub(crate) fn unsigned(&mut self) -> Result<u64, Fault> {
        let value = self.integer()?;
        u64::try_from(value)
            .map_err(|_| Fault::Damaged(format!("a size or time of {value} in a table")))
    }

    /// The next column, a number or nothing.
    pub(crate) fn optional_integer(&mut self) -> Result<Option<i64>, Fault> {
        match self.0.next() {
            Some(Value::Null) => Ok(None),
            Some(Value::Integer(value)) => Ok(Some(value)),
            other => Err(unexpected("a number or NULL", other.as_ref())),
        }
    }

    /// The next column, bytes.
    pub(crate) fn bytes(&mut self) -> Result<Bytes, Fault> {
        match self.0.next() {
            Some(Value::Bytes(value)) => Ok(value),
            Some(Value::Text(value)) => Ok(value.into()),
            other => Err(unexpected("bytes", other.as_ref())),
        }
    }

    /// The next column, text.
    pub(crate) fn text(&mut self) -> Result<String, Fault> {
        match self.0.next() {
            Some(Value::Text(value)) => Ok(value),
            Some(Value::Bytes(value)) => String::from_utf8(value.into())
                .map_err(|_| Fault::Damaged("text in a table that is not UTF-8".to_owned())),
            other => Err(unexpected("text", other.as_ref())),
        }
    }
}

fn unexpected(wanted: &str, got: Option<&Value>) -> Fault {
    let got = match got {
        None => "no column",
        Some(Value::Null) => "NULL",
        Some(Value::Integer(_)) => "a number",
        Some(Value::Bytes(_)) => "bytes",
        Some(Value::Text(_)) => "text",
    };
    Fault::Damaged(format!("a table holds {got} where {wanted} was written"))
}

/// The answer to a statement.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    /// The rows of a query.
    pub(crate) rows: Vec<Row>,
    /// How many rows a write has changed.
    pub(crate) affected: u64,
}

impl Answer {
    /// The first row, if there is one.
    pub(crate) fn first(self) -> Option<Row> {
        self.rows.into_iter().next()
    }
}

/// Makes connections to one database.
pub(crate) trait Driver: Debug + Send + Sync {
    /// How its SQL is written.
    fn dialect(&self) -> Dialect;

    /// Makes a connection, ready for statements. Not bounded in time.
    fn connect(&self) -> DriverFuture<'_, Box<dyn Connection>>;
}

/// A connection. Its futures are not bounded in time: the session does that.
pub(crate) trait Connection: Send {
    /// Runs a statement.
    fn run(&mut self, query: Query, values: Vec<Value>) -> DriverFuture<'_, Answer>;

    /// Runs text that defines tables.
    fn define(&mut self, sql: String) -> DriverFuture<'_, ()>;

    /// Begins a transaction that will write.
    fn begin(&mut self) -> DriverFuture<'_, ()>;

    /// Commits it.
    fn commit(&mut self) -> DriverFuture<'_, ()>;

    /// Undoes it.
    fn rollback(&mut self) -> DriverFuture<'_, ()>;

    /// Whether it is known to be broken.
    fn is_closed(&self) -> bool;
}
