//! One S3 request in all ways of signing, right and wrong.
//!
//! Not a client: it makes heads and bodies, and sends them once. Invariant: what a test does not
//! spoil is signed as Signature Version 4 says.

use std::fmt::Write as _;

use anyhow::Result;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use md5::Digest as _;
use ring::digest;

use crate::exchange::Exchange;
use crate::http_message::HttpReply;
use crate::s3_server::{Canonical, S3Server, hex, hmac_sha256};
use crate::utc::Utc;

/// A request before it is signed.
#[derive(Debug, Clone)]
pub struct S3Request {
    server: S3Server,
    method: String,
    target: String,
    signed: Vec<(String, String)>,
    unsigned: Vec<(String, String)>,
    payload: String,
    seconds: i64,
}

/// What the chunks of a body are signed with, one after the other.
#[derive(Debug, Clone)]
pub struct ChunkSigner {
    key: Vec<u8>,
    time: String,
    scope: String,
    last: String,
}

impl S3Request {
    /// `target` is a path in path style and maybe a query, both percent-encoded. The payload counts as
    /// unsigned.
    pub fn new(server: &S3Server, method: &str, target: &str) -> S3Request {
        S3Request {
            server: server.clone(),
            method: method.to_owned(),
            target: target.to_owned(),
            signed: Vec::new(),
            unsigned: Vec::new(),
            payload: "UNSIGNED-PAYLOAD".to_owned(),
            seconds: 0,
        }
    }

    /// A header that is signed.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> S3Request {
        self.signed.push((name.to_owned(), value.to_owned()));
        self
    }

    /// A header that is not signed.
    #[must_use]
    pub fn unsigned(mut self, name: &str, value: &str) -> S3Request {
        self.unsigned.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The length of the body, which need not be true.
    #[must_use]
    pub fn length(self, bytes: usize) -> S3Request {
        self.unsigned("content-length", &bytes.to_string())
    }

    /// The value of `x-amz-content-sha256`.
    #[must_use]
    pub fn payload(mut self, value: &str) -> S3Request {
        value.clone_into(&mut self.payload);
        self
    }

    /// Signs as if it were so many seconds later, or earlier.
    #[must_use]
    pub fn at(mut self, seconds: i64) -> S3Request {
        self.seconds = seconds;
        self
    }

    fn time(&self) -> String {
        Utc::now().plus_seconds(self.seconds).compact()
    }

    /// The head, signed in its headers, and what signs chunks after it.
    pub fn head(&self) -> (String, ChunkSigner) {
        let time = self.time();
        let mut all = vec![
            ("host".to_owned(), self.server.address().to_owned()),
            ("x-amz-content-sha256".to_owned(), self.payload.clone()),
            ("x-amz-date".to_owned(), time.clone()),
        ];
        all.extend(self.signed.iter().cloned());
        let shown: Vec<(&str, &str)> = all.iter().map(|(n, v)| (&**n, &**v)).collect();
        let canonical = Canonical::of(&self.method, &self.target, &shown, &self.payload);
        let (scope, key) = self.server.scope(&time);
        let signature = canonical.signature(&time, &scope, &key);
        let authorization = format!(
            "AWS4-HMAC-SHA256 Credential={}/{scope}, SignedHeaders={}, Signature={signature}",
            self.server.access_key, canonical.names
        );
        all.push(("authorization".to_owned(), authorization));
        let signer = ChunkSigner {
            key,
            time,
            scope,
            last: signature,
        };
        (self.lines(&self.target, &all), signer)
    }

    /// The target with a signature in its query, good for so many seconds.
    pub fn presigned_target(&self, expires: u64) -> String {
        let time = self.time();
        let (scope, key) = self.server.scope(&time);
        let host = ("host".to_owned(), self.server.address().to_owned());
        let all: Vec<&(String, String)> = std::iter::once(&host).chain(&self.signed).collect();
        let shown: Vec<(&str, &str)> = all.iter().map(|(n, v)| (&**n, &**v)).collect();
        let mut names: Vec<String> = shown.iter().map(|(n, _)| n.to_ascii_lowercase()).collect();
        names.sort();
        let credential = format!("{}/{scope}", self.server.access_key).replace('/', "%2F");
        let mark = if self.target.contains('?') { '&' } else { '?' };
        let target = format!(
            "{}{mark}X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential={credential}&X-Amz-Date={time}\
             &X-Amz-Expires={expires}&X-Amz-SignedHeaders={}",
            self.target,
            names.join("%3B")
        );
        let canonical = Canonical::of(&self.method, &target, &shown, "UNSIGNED-PAYLOAD");
        let signature = canonical.signature(&time, &scope, &key);
        format!("{target}&X-Amz-Signature={signature}")
    }

    /// The head of a request that is signed in its query.
    pub fn presigned(&self, expires: u64) -> String {
        let mut all = vec![("host".to_owned(), self.server.address().to_owned())];
        all.extend(self.signed.iter().cloned());
        self.lines(&self.presigned_target(expires), &all)
    }

    fn lines(&self, target: &str, headers: &[(String, String)]) -> String {
        let mut head = format!("{} {target} HTTP/1.1\r\nConnection: close\r\n", self.method);
        for (name, value) in headers.iter().chain(&self.unsigned) {
            let _infallible = write!(head, "{name}: {value}\r\n");
        }
        head.push_str("\r\n");
        head
    }

    /// Sends the head, signed in its headers, and leaves the rest to the test.
    pub fn open(&self) -> Result<Exchange> {
        Exchange::open(self.server.address(), &self.head().0)
    }

    /// Sends head and body and reads the reply; one that is cut is an error.
    pub fn send(&self, body: &[u8]) -> Result<HttpReply> {
        let sized = self.clone().length(body.len());
        answered(&self.server, &sized.head().0, body)
    }

    /// The same, signed in the query.
    pub fn send_presigned(&self, expires: u64, body: &[u8]) -> Result<HttpReply> {
        let sized = self.clone().length(body.len());
        answered(&self.server, &sized.presigned(expires), body)
    }
}

fn answered(server: &S3Server, head: &str, body: &[u8]) -> Result<HttpReply> {
    let mut exchange = Exchange::open(server.address(), head)?;
    // A server may answer and close before it has read everything: its answer counts.
    let _sent = exchange.write(body);
    let (reply, whole) = exchange.reply()?;
    let complete = whole || head.starts_with("HEAD ");
    anyhow::ensure!(complete, "a reply of status {} is cut", reply.status);
    Ok(reply)
}

impl ChunkSigner {
    /// One chunk on the wire; an empty one is the last.
    pub fn chunk(&mut self, bytes: &[u8]) -> Vec<u8> {
        let text = format!(
            "AWS4-HMAC-SHA256-PAYLOAD\n{}\n{}\n{}\n{}\n{}",
            self.time,
            self.scope,
            self.last,
            sha256_hex(b""),
            sha256_hex(bytes)
        );
        self.last = hex(&hmac_sha256(&self.key, text.as_bytes()));
        let mut wire = format!("{:x};chunk-signature={}\r\n", bytes.len(), self.last).into_bytes();
        wire.extend_from_slice(bytes);
        if !bytes.is_empty() {
            wire.extend_from_slice(b"\r\n");
        }
        wire
    }

    /// The signature line of trailers given as `name:value\n` lines.
    pub fn trailer(&self, lines: &str) -> String {
        let hash = sha256_hex(lines.as_bytes());
        let text = format!(
            "AWS4-HMAC-SHA256-TRAILER\n{}\n{}\n{}\n{hash}",
            self.time, self.scope, self.last
        );
        let signature = hex(&hmac_sha256(&self.key, text.as_bytes()));
        format!("x-amz-trailer-signature:{signature}\r\n")
    }
}

/// The SHA-256 as S3's headers have it.
pub fn sha256_hex(bytes: &[u8]) -> String {
    hex(digest::digest(&digest::SHA256, bytes).as_ref())
}

/// The MD5 as `Content-MD5` has it.
pub fn md5_base64(bytes: &[u8]) -> String {
    STANDARD.encode(md5::Md5::digest(bytes))
}

/// A checksum as `x-amz-checksum-NAME` has it; `None` for an unknown name.
pub fn checksum_base64(name: &str, bytes: &[u8]) -> Option<String> {
    use crc_fast::CrcAlgorithm::{Crc32Iscsi, Crc32IsoHdlc, Crc64Nvme};
    let crc = |algorithm, width: usize| {
        let value = crc_fast::checksum(algorithm, bytes).to_be_bytes();
        Some(STANDARD.encode(value.get(value.len() - width..)?))
    };
    let sha = |algorithm| Some(STANDARD.encode(digest::digest(algorithm, bytes)));
    match name {
        "crc32" => crc(Crc32IsoHdlc, 4),
        "crc32c" => crc(Crc32Iscsi, 4),
        "crc64nvme" => crc(Crc64Nvme, 8),
        "sha1" => sha(&digest::SHA1_FOR_LEGACY_USE_ONLY),
        "sha256" => sha(&digest::SHA256),
        _ => None,
    }
}
