//! A RESP2 connection of a few lines, for talking to servers that a chore started itself.
//!
//! Not a client library: no timeouts beyond the socket's, no pipelining, no RESP3. Invariant: one
//! command is written, one whole reply is read.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result, bail};

/// One reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Value {
    Text(String),
    Error(String),
    Integer(i64),
    Nil,
    Array(Vec<Value>),
}

impl Value {
    pub(crate) fn text(&self) -> Result<&str> {
        match self {
            Value::Text(text) => Ok(text),
            other => bail!("a text was expected, not {other:?}"),
        }
    }

    pub(crate) fn integer(&self) -> Result<i64> {
        match self {
            Value::Integer(number) => Ok(*number),
            other => bail!("a number was expected, not {other:?}"),
        }
    }

    pub(crate) fn array(&self) -> Result<&[Value]> {
        match self {
            Value::Array(values) => Ok(values),
            Value::Nil => Ok(&[]),
            other => bail!("an array was expected, not {other:?}"),
        }
    }
}

/// A connection to a Redis server.
pub(crate) struct Connection {
    stream: BufReader<TcpStream>,
}

impl Connection {
    pub(crate) fn open(port: u16) -> Result<Connection> {
        let stream = TcpStream::connect(("127.0.0.1", port))
            .with_context(|| format!("cannot connect to 127.0.0.1:{port}"))?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        Ok(Connection {
            stream: BufReader::new(stream),
        })
    }

    pub(crate) fn call(&mut self, arguments: &[&str]) -> Result<Value> {
        let mut request = format!("*{}\r\n", arguments.len());
        for argument in arguments {
            write!(request, "${}\r\n{argument}\r\n", argument.len())?;
        }
        self.stream.get_mut().write_all(request.as_bytes())?;
        self.read()
    }

    fn read(&mut self) -> Result<Value> {
        let mut line = String::new();
        self.stream.read_line(&mut line)?;
        let line = line.trim_end();
        let Some((kind, rest)) = line.split_at_checked(1) else {
            bail!("the server closed")
        };
        Ok(match kind {
            "+" => Value::Text(rest.to_owned()),
            "-" => Value::Error(rest.to_owned()),
            ":" => Value::Integer(rest.parse()?),
            "$" | "*" if rest.starts_with('-') => Value::Nil,
            "$" => {
                let mut body = vec![0; rest.parse::<usize>()? + 2];
                self.stream.read_exact(&mut body)?;
                body.truncate(body.len().saturating_sub(2));
                Value::Text(String::from_utf8_lossy(&body).into_owned())
            }
            "*" => {
                let count: usize = rest.parse()?;
                Value::Array((0..count).map(|_| self.read()).collect::<Result<_>>()?)
            }
            _ => bail!("unexpected reply line {line:?}"),
        })
    }
}
