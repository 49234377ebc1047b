//! Where an S3 server is, and the few signed calls that a test makes before Breccia does any.
//!
//! Not an S3 client: path style, one signature (AWS Signature Version 4 over headers), no retries.
//! Invariant: written apart from the product's own signer, so that one checks the other.

use std::fmt::Write as _;

use anyhow::{Context, Result};
use ring::{digest, hmac};

use crate::http_message::{HttpReply, http_call};
use crate::utc::Utc;

/// An S3 endpoint with the keys of one user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct S3Server {
    /// `http://127.0.0.1:PORT`.
    pub endpoint: String,
    /// The user's access key.
    pub access_key: String,
    /// The user's secret key.
    pub secret_key: String,
    /// The region that signatures name.
    pub region: String,
}

impl S3Server {
    /// One on 127.0.0.1.
    pub fn local(port: u16, access_key: &str, secret_key: &str, region: &str) -> S3Server {
        S3Server {
            endpoint: format!("http://127.0.0.1:{port}"),
            access_key: access_key.to_owned(),
            secret_key: secret_key.to_owned(),
            region: region.to_owned(),
        }
    }

    /// `127.0.0.1:PORT`.
    pub fn address(&self) -> &str {
        self.endpoint
            .strip_prefix("http://")
            .unwrap_or(&self.endpoint)
    }

    /// One signed request. `target` is a path in path style and maybe a query, both percent-encoded.
    pub fn call(
        &self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<HttpReply> {
        let hash = hex(digest::digest(&digest::SHA256, body).as_ref());
        let time = Utc::now().compact();
        let mut all = vec![
            ("host", self.address()),
            ("x-amz-content-sha256", &hash),
            ("x-amz-date", &time),
        ];
        all.extend_from_slice(headers);
        let authorization = self.authorization(method, target, &all, &hash, &time);
        all.push(("authorization", &authorization));
        http_call(self.address(), method, target, &all, body)
    }

    /// Makes a bucket; it may be there already.
    pub fn create_bucket(&self, name: &str) -> Result<()> {
        self.call("PUT", &format!("/{name}"), &[], b"")?
            .success()
            .with_context(|| format!("cannot make the bucket {name}"))?;
        Ok(())
    }

    /// What a signature of this time is for, and the key that makes it.
    pub(crate) fn scope(&self, time: &str) -> (String, Vec<u8>) {
        let day = time.get(..8).unwrap_or_default();
        let mut key = format!("AWS4{}", self.secret_key).into_bytes();
        for part in [day, &self.region, "s3", "aws4_request"] {
            key = hmac_sha256(&key, part.as_bytes());
        }
        (format!("{day}/{}/s3/aws4_request", self.region), key)
    }

    fn authorization(
        &self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        hash: &str,
        time: &str,
    ) -> String {
        let canonical = Canonical::of(method, target, headers, hash);
        let (scope, key) = self.scope(time);
        let signature = canonical.signature(time, &scope, &key);
        format!(
            "AWS4-HMAC-SHA256 Credential={}/{scope}, SignedHeaders={}, Signature={signature}",
            self.access_key, canonical.names
        )
    }
}

/// A request in the form that is signed.
#[derive(Debug)]
pub(crate) struct Canonical {
    text: String,
    /// The names of the signed headers.
    pub(crate) names: String,
}

impl Canonical {
    pub(crate) fn of(
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        hash: &str,
    ) -> Canonical {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let mut pairs: Vec<String> = query
            .split('&')
            .filter(|pair| !pair.is_empty())
            .map(|pair| {
                if pair.contains('=') {
                    pair.to_owned()
                } else {
                    format!("{pair}=")
                }
            })
            .collect();
        pairs.sort();
        let mut lines: Vec<(String, &str)> = headers
            .iter()
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim()))
            .collect();
        lines.sort();
        let names: Vec<&str> = lines.iter().map(|(name, _)| name.as_str()).collect();
        let names = names.join(";");
        let mut shown = String::new();
        for (name, value) in &lines {
            let _infallible = writeln!(shown, "{name}:{value}");
        }
        let text = format!(
            "{method}\n{path}\n{}\n{shown}\n{names}\n{hash}",
            pairs.join("&")
        );
        Canonical { text, names }
    }

    pub(crate) fn signature(&self, time: &str, scope: &str, key: &[u8]) -> String {
        let request = hex(digest::digest(&digest::SHA256, self.text.as_bytes()).as_ref());
        let text = format!("AWS4-HMAC-SHA256\n{time}\n{scope}\n{request}");
        hex(&hmac_sha256(key, text.as_bytes()))
    }
}

pub(crate) fn hmac_sha256(key: &[u8], text: &[u8]) -> Vec<u8> {
    let key = hmac::Key::new(hmac::HMAC_SHA256, key);
    hmac::sign(&key, text).as_ref().to_vec()
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        let _infallible = write!(text, "{byte:02x}");
    }
    text
}
