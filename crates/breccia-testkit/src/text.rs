//! A blocking memcached client: raw bytes in, raw bytes out.
//!
//! Knows just enough of the text and meta protocols to see where a reply ends. Invariant: one read
//! gives exactly one whole reply, or an error.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

/// How long a read waits before it is an error.
const PATIENCE: Duration = Duration::from_secs(20);

/// One client connection.
#[derive(Debug)]
pub struct TextClient {
    stream: BufReader<TcpStream>,
}

impl TextClient {
    /// Connects to `host:port`.
    pub fn connect(address: &str) -> Result<TextClient> {
        let stream =
            TcpStream::connect(address).with_context(|| format!("cannot connect to {address}"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(TextClient {
            stream: BufReader::new(stream),
        })
    }

    /// Changes how long a read waits.
    pub fn set_patience(&mut self, patience: Duration) -> Result<()> {
        Ok(self.stream.get_ref().set_read_timeout(Some(patience))?)
    }

    /// Writes bytes as they are.
    pub fn send(&mut self, bytes: &[u8]) -> Result<()> {
        Ok(self.stream.get_mut().write_all(bytes)?)
    }

    /// One request and its whole reply: `VALUE` blocks up to `END`, one meta value, or one line.
    pub fn call(&mut self, request: &[u8]) -> Result<Vec<u8>> {
        self.send(request)?;
        self.read_reply()
    }

    /// Reads one whole reply.
    pub fn read_reply(&mut self) -> Result<Vec<u8>> {
        let mut reply = Vec::new();
        loop {
            let line = self.read_line()?;
            reply.extend_from_slice(&line);
            let text = String::from_utf8_lossy(&line).into_owned();
            let mut words = text.split_whitespace();
            match words.next() {
                Some("VALUE") => {
                    let length = words.nth(2).context("a VALUE line without a length")?;
                    self.read_block(length.parse()?, &mut reply)?;
                }
                Some("VA") => {
                    let length = words.next().context("a VA line without a length")?;
                    self.read_block(length.parse()?, &mut reply)?;
                    return Ok(reply);
                }
                Some("STAT") => {}
                _ => return Ok(reply),
            }
        }
    }

    /// Reads one line with its end.
    pub fn read_line(&mut self) -> Result<Vec<u8>> {
        let mut line = Vec::new();
        self.stream
            .read_until(b'\n', &mut line)
            .context("reading a reply")?;
        ensure!(
            line.ends_with(b"\n"),
            "the connection was closed within a reply"
        );
        Ok(line)
    }

    /// Whether the server has closed the connection; waits for it.
    pub fn closed(&mut self) -> bool {
        let mut rest = [0; 64];
        loop {
            match self.stream.read(&mut rest) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) => return error.kind() == std::io::ErrorKind::ConnectionReset,
            }
        }
    }

    fn read_block(&mut self, length: usize, reply: &mut Vec<u8>) -> Result<()> {
        let mut body = vec![0; length + 2];
        self.stream.read_exact(&mut body)?;
        ensure!(
            body.ends_with(b"\r\n"),
            "a data block of another length than announced"
        );
        reply.extend_from_slice(&body);
        Ok(())
    }
}
