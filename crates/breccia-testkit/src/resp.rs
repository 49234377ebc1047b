//! A blocking RESP2 and RESP3 client: raw bytes in, raw bytes out.
//!
//! Framing only, so that replies can be compared byte for byte; [`crate::Reply`] takes one apart.
//! Not for speed. Invariant: one read gives exactly one whole frame, or an error.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::reply::Reply;

/// How long a read waits before it is an error.
const PATIENCE: Duration = Duration::from_secs(20);

/// One client connection.
#[derive(Debug)]
pub struct RespClient {
    stream: BufReader<Wire>,
}

#[derive(Debug)]
enum Wire {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Read for Wire {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Wire::Tcp(stream) => stream.read(buffer),
            Wire::Unix(stream) => stream.read(buffer),
        }
    }
}

/// One request as an array of bulk strings.
pub fn encode(arguments: &[&[u8]]) -> Vec<u8> {
    let mut request = format!("*{}\r\n", arguments.len()).into_bytes();
    for argument in arguments {
        request.extend_from_slice(format!("${}\r\n", argument.len()).as_bytes());
        request.extend_from_slice(argument);
        request.extend_from_slice(b"\r\n");
    }
    request
}

impl RespClient {
    /// Connects to `host:port`.
    pub fn connect(address: &str) -> Result<RespClient> {
        let stream =
            TcpStream::connect(address).with_context(|| format!("cannot connect to {address}"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(RespClient {
            stream: BufReader::new(Wire::Tcp(stream)),
        })
    }

    /// Connects to a Unix socket.
    pub fn connect_unix(path: &Path) -> Result<RespClient> {
        let stream = UnixStream::connect(path)
            .with_context(|| format!("cannot connect to {}", path.display()))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(RespClient {
            stream: BufReader::new(Wire::Unix(stream)),
        })
    }

    /// Changes how long a read waits.
    pub fn set_patience(&mut self, patience: Duration) -> Result<()> {
        match self.stream.get_ref() {
            Wire::Tcp(stream) => stream.set_read_timeout(Some(patience))?,
            Wire::Unix(stream) => stream.set_read_timeout(Some(patience))?,
        }
        Ok(())
    }

    /// Writes bytes as they are.
    pub fn send(&mut self, bytes: &[u8]) -> Result<()> {
        match self.stream.get_mut() {
            Wire::Tcp(stream) => stream.write_all(bytes)?,
            Wire::Unix(stream) => stream.write_all(bytes)?,
        }
        Ok(())
    }

    /// The sending direction once more, for a thread of its own; TCP only.
    pub fn sender(&self) -> Result<TcpStream> {
        match self.stream.get_ref() {
            Wire::Tcp(stream) => Ok(stream.try_clone()?),
            Wire::Unix(_) => bail!("only a TCP connection has a second handle"),
        }
    }

    /// Ends the sending direction only.
    pub fn half_close(&mut self) -> Result<()> {
        match self.stream.get_ref() {
            Wire::Tcp(stream) => stream.shutdown(std::net::Shutdown::Write)?,
            Wire::Unix(stream) => stream.shutdown(std::net::Shutdown::Write)?,
        }
        Ok(())
    }

    /// Reads one whole reply as the bytes it came in.
    pub fn read_reply(&mut self) -> Result<Vec<u8>> {
        let mut frame = Vec::new();
        self.read_frame(&mut frame)?;
        Ok(frame)
    }

    /// One request and its raw reply.
    pub fn call(&mut self, arguments: &[&[u8]]) -> Result<Vec<u8>> {
        self.send(&encode(arguments))?;
        self.read_reply()
    }

    /// One request of words split at blanks, and its raw reply.
    pub fn words(&mut self, request: &str) -> Result<Vec<u8>> {
        let arguments: Vec<&[u8]> = request.split_whitespace().map(str::as_bytes).collect();
        self.call(&arguments)
    }

    /// One request of words and its parsed reply.
    pub fn reply(&mut self, request: &str) -> Result<Reply> {
        Reply::parse(&self.words(request)?)
    }

    /// One request that must answer +OK.
    pub fn expect_ok(&mut self, arguments: &[&[u8]]) -> Result<()> {
        let reply = self.call(arguments)?;
        ensure!(
            reply == b"+OK\r\n",
            "+OK was expected, not {}",
            reply.escape_ascii()
        );
        Ok(())
    }

    /// Writes all requests at once, then reads all replies.
    pub fn pipeline(&mut self, requests: &[&str]) -> Result<Vec<Vec<u8>>> {
        let mut bytes = Vec::new();
        for request in requests {
            let arguments: Vec<&[u8]> = request.split_whitespace().map(str::as_bytes).collect();
            bytes.extend_from_slice(&encode(&arguments));
        }
        self.send(&bytes)?;
        requests.iter().map(|_| self.read_reply()).collect()
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

    fn read_frame(&mut self, frame: &mut Vec<u8>) -> Result<()> {
        let begin = frame.len();
        self.stream
            .read_until(b'\n', frame)
            .context("reading a reply")?;
        let line = frame.get(begin..).unwrap_or_default().to_vec();
        ensure!(
            line.ends_with(b"\r\n"),
            "the connection was closed within a reply"
        );
        let rest = std::str::from_utf8(line.get(1..line.len() - 2).unwrap_or_default());
        match line.first() {
            Some(b'+' | b'-' | b':' | b'_' | b'#' | b',' | b'(') => Ok(()),
            Some(b'$' | b'=' | b'!') => {
                let Ok(length) = rest?.parse::<usize>() else {
                    return Ok(());
                };
                let mut body = vec![0; length + 2];
                self.stream.read_exact(&mut body)?;
                frame.extend_from_slice(&body);
                Ok(())
            }
            Some(b'*' | b'~' | b'>') => {
                let Ok(count) = rest?.parse::<usize>() else {
                    return Ok(());
                };
                (0..count).try_for_each(|_| self.read_frame(frame))
            }
            Some(b'%') => (0..2 * rest?.parse::<usize>()?).try_for_each(|_| self.read_frame(frame)),
            // An attribute comes before the reply it belongs to.
            Some(b'|') => {
                (0..=2 * rest?.parse::<usize>()?).try_for_each(|_| self.read_frame(frame))
            }
            _ => bail!("not a reply: {}", line.escape_ascii()),
        }
    }
}
