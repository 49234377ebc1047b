//! HTTP/1.1 messages as bytes, for servers and clients of the test kit.
//!
//! Not an HTTP library: no TLS, no pipelining, bodies are held in memory. Invariant: a body is never
//! larger than a GiB.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result, bail};

/// The largest body that is read.
pub(crate) const LARGEST_BODY: u64 = 1 << 30;

const LARGEST_LINE: u64 = 64 * 1024;
const MOST_HEADERS: usize = 200;
const PATIENCE: Duration = Duration::from_secs(30);

/// The first line of a message and its header lines, names in lower case.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) start: String,
    pub(crate) headers: Vec<(String, String)>,
}

impl Head {
    /// Reads one; nothing when the peer has closed in order.
    pub(crate) fn read(reader: &mut impl BufRead) -> Result<Option<Head>> {
        let start = line(reader)?;
        if start.is_empty() {
            return Ok(None);
        }
        let mut headers = Vec::new();
        loop {
            let line = line(reader)?;
            if line.is_empty() {
                return Ok(Some(Head { start, headers }));
            }
            if headers.len() == MOST_HEADERS {
                bail!("more than {MOST_HEADERS} header lines");
            }
            let (name, value) = line.split_once(':').context("a header without a colon")?;
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        find(&self.headers, name)
    }

    /// Reads the body that the header lines announce; `to_end` says that without a length it goes on
    /// to the end of the connection, as a reply does.
    pub(crate) fn read_body(&self, reader: &mut impl BufRead, to_end: bool) -> Result<Vec<u8>> {
        let mut body = Vec::new();
        let chunked = self
            .header("transfer-encoding")
            .is_some_and(|word| word.eq_ignore_ascii_case("chunked"));
        if chunked {
            loop {
                let size = line(reader)?;
                let size = size.split(';').next().unwrap_or_default().trim();
                let size = u64::from_str_radix(size, 16).context("the size of a chunk")?;
                if size == 0 {
                    while !line(reader)?.is_empty() {}
                    return Ok(body);
                }
                take(reader, size, &mut body)?;
                line(reader)?;
            }
        }
        match self.header("content-length") {
            Some(length) => take(reader, length.parse().context("content-length")?, &mut body)?,
            None if to_end => {
                reader.take(LARGEST_BODY).read_to_end(&mut body)?;
            }
            None => {}
        }
        Ok(body)
    }
}

fn line(reader: &mut impl BufRead) -> Result<String> {
    let mut line = Vec::new();
    reader.take(LARGEST_LINE).read_until(b'\n', &mut line)?;
    let text = String::from_utf8(line).context("a header line that is not UTF-8")?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

fn take(reader: &mut impl BufRead, length: u64, body: &mut Vec<u8>) -> Result<()> {
    if length > LARGEST_BODY {
        bail!("a body of {length} bytes");
    }
    let read = reader.take(length).read_to_end(body)?;
    if read as u64 != length {
        bail!("the body ends after {read} of {length} bytes");
    }
    Ok(())
}

fn find<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    let found = headers
        .iter()
        .find(|(present, _)| present.eq_ignore_ascii_case(name));
    found.map(|(_, value)| value.as_str())
}

/// A server's answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HttpReply {
    /// The status code.
    pub status: u16,
    /// Header lines, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl HttpReply {
    /// The first header line of this name.
    pub fn header(&self, name: &str) -> Option<&str> {
        find(&self.headers, name)
    }

    /// The body as text, for messages and simple checks.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The reply itself if its status is a success; an error that shows the body if not.
    pub fn success(self) -> Result<HttpReply> {
        if !(200..300).contains(&self.status) {
            bail!("status {}: {}", self.status, self.text());
        }
        Ok(self)
    }
}

/// One request on a connection of its own: `address` is `127.0.0.1:PORT`, `target` is sent as it is.
pub fn http_call(
    address: &str,
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Result<HttpReply> {
    let mut stream = TcpStream::connect(address).with_context(|| address.to_owned())?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut request = format!("{method} {target} HTTP/1.1\r\nConnection: close\r\n");
    let has = |wanted: &str| {
        headers
            .iter()
            .any(|(name, _)| name.eq_ignore_ascii_case(wanted))
    };
    if !has("host") {
        let _infallible = write!(request, "Host: {address}\r\n");
    }
    if !has("content-length") && !has("transfer-encoding") {
        let _infallible = write!(request, "Content-Length: {}\r\n", body.len());
    }
    for (name, value) in headers {
        let _infallible = write!(request, "{name}: {value}\r\n");
    }
    request.push_str("\r\n");
    stream.write_all(request.as_bytes())?;
    // A server may answer and close before it has read everything: its answer counts.
    let _sent = stream.write_all(body);
    let mut reader = BufReader::new(stream);
    loop {
        let head = Head::read(&mut reader)?.context("closed without an answer")?;
        let status: u16 = head.start.split(' ').nth(1).unwrap_or_default().parse()?;
        if status < 200 {
            continue;
        }
        let no_body = method == "HEAD" || status == 204 || status == 304;
        let body = if no_body {
            Vec::new()
        } else {
            head.read_body(&mut reader, true)?
        };
        return Ok(HttpReply {
            status,
            headers: head.headers,
            body,
        });
    }
}

/// The text that a percent-encoded one means; what is not a valid escape stays as it is.
pub(crate) fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let escape = after.get(..2).filter(|_| first == b'%');
        let byte = escape
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        bytes.push(byte.unwrap_or(first));
        rest = match byte {
            Some(_) => after.get(2..).unwrap_or_default(),
            None => after,
        };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
