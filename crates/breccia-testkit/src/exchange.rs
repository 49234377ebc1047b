//! One HTTP request whose body and reply a test sends and reads piece by piece.
//!
//! Not a client for ordinary calls ([`crate::http_call`] is): here a test is slow, stops halfway or
//! cuts the connection. Invariant: nothing is read or written that the test did not ask for.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result};
use socket2::SockRef;

use crate::http_message::{Head, HttpReply};

const PATIENCE: Duration = Duration::from_mins(1);

/// An open connection on which a request's head has been sent.
#[derive(Debug)]
pub struct Exchange {
    stream: TcpStream,
    reader: BufReader<TcpStream>,
}

impl Exchange {
    /// Connects to `127.0.0.1:PORT` and sends a head, its empty line included.
    pub fn open(address: &str, head: &str) -> Result<Exchange> {
        let mut stream = TcpStream::connect(address).with_context(|| address.to_owned())?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.write_all(head.as_bytes())?;
        let reader = BufReader::with_capacity(8 * 1024, stream.try_clone()?);
        Ok(Exchange { stream, reader })
    }

    /// Sends a piece of the body.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        Ok(self.stream.write_all(bytes)?)
    }

    /// Sends nothing more, and says so.
    pub fn end_request(&mut self) -> Result<()> {
        Ok(self.stream.shutdown(std::net::Shutdown::Write)?)
    }

    /// Reads the status and the headers of the reply.
    pub fn head(&mut self) -> Result<HttpReply> {
        loop {
            let head = Head::read(&mut self.reader)?.context("closed without an answer")?;
            let status: u16 = head.start.split(' ').nth(1).unwrap_or_default().parse()?;
            if status >= 200 {
                let (headers, body) = (head.headers, Vec::new());
                return Ok(HttpReply {
                    status,
                    headers,
                    body,
                });
            }
        }
    }

    /// Reads the reply with as much of its body as comes, and whether that is all it announced.
    pub fn reply(&mut self) -> Result<(HttpReply, bool)> {
        let mut reply = self.head()?;
        let length: Option<u64> = reply.header("content-length").map(str::parse).transpose()?;
        let limit = length.unwrap_or(u64::MAX);
        let outcome = (&mut self.reader).take(limit).read_to_end(&mut reply.body);
        let whole = outcome.is_ok() && length.is_none_or(|all| all == reply.body.len() as u64);
        Ok((reply, whole))
    }

    /// Reads up to `count` bytes of the reply; fewer if it ends before that.
    pub fn read(&mut self, count: usize) -> Result<Vec<u8>> {
        let mut bytes = Vec::with_capacity(count);
        (&mut self.reader)
            .take(count as u64)
            .read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// Whether the peer has closed or reset the connection, or does so within `limit`; bytes that
    /// come before are thrown away.
    pub fn is_cut_within(&mut self, limit: Duration) -> Result<bool> {
        let begun = std::time::Instant::now();
        self.stream
            .set_read_timeout(Some(Duration::from_millis(100)))?;
        while begun.elapsed() < limit {
            match self.reader.fill_buf() {
                Ok([]) => return Ok(true),
                Ok(bytes) => {
                    let count = bytes.len();
                    self.reader.consume(count);
                }
                Err(error) if is_patience(&error) => {}
                Err(_) => return Ok(true),
            }
        }
        Ok(false)
    }

    /// Closes with a reset.
    pub fn reset(self) {
        let _done = SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
    }
}

fn is_patience(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{Interrupted, TimedOut, WouldBlock};
    matches!(error.kind(), Interrupted | TimedOut | WouldBlock)
}
