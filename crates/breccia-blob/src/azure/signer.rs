//! Signs requests with the account's key, or adds a token; and lets the service read a copy's source.
//!
//! Not requests. Invariant: keys and tokens appear in requests only, never in errors or logs.

use std::fmt;
use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use breccia_core::error::Effect;
use breccia_net::clock;
use hyper::header::HeaderMap;
use ring::hmac;

use super::options::AzureCredential;
use crate::error::BlobError;
use crate::http::{PayloadKind, RequestHead, SignFuture, Signer};
use crate::s3::codec::time;
use crate::s3::codec::uri::{Slash, decode, encode};

/// The protocol's version that is spoken.
pub(super) const VERSION: &str = "2023-11-03";
/// The version of the tokens that are made here.
const TOKEN_VERSION: &str = "2021-12-02";
/// How long the service may read a copy's source.
const SOURCE_LIFE_MS: u64 = 60 * 60 * 1000;

/// Proves who asks.
pub(super) struct AzureSigner {
    store: String,
    account: String,
    secret: Secret,
}

enum Secret {
    Key(hmac::Key),
    Token(String),
}

impl fmt::Debug for AzureSigner {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "AzureSigner({})", self.account)
    }
}

impl AzureSigner {
    /// A signer; in words what is wrong with the credential.
    pub(super) fn new(
        store: &str,
        account: &str,
        credential: &AzureCredential,
    ) -> Result<Self, String> {
        let secret = match credential {
            AzureCredential::AccessKey(key) => {
                let bytes = STANDARD
                    .decode(key.trim())
                    .ok()
                    .filter(|bytes| !bytes.is_empty());
                let bytes =
                    bytes.ok_or("access-key: it is not base64, as the account's keys are")?;
                Secret::Key(hmac::Key::new(hmac::HMAC_SHA256, &bytes))
            }
            AzureCredential::SasToken(token) => {
                let token = token.trim().trim_start_matches('?');
                let signed = token.split('&').any(|pair| pair.starts_with("sig="));
                if !signed || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
                    return Err("sas-token: it is not a token: it has no sig=".to_owned());
                }
                Secret::Token(token.to_owned())
            }
        };
        Ok(Self {
            store: store.to_owned(),
            account: account.to_owned(),
            secret,
        })
    }

    /// What stands behind the URL of a blob that the service itself shall read.
    pub(super) fn source_token(&self, container: &str, name: &str) -> String {
        let key = match &self.secret {
            Secret::Token(token) => return token.clone(),
            Secret::Key(key) => key,
        };
        let until = time::iso8601(clock::unix_ms().saturating_add(SOURCE_LIFE_MS));
        // Whole seconds are what the service expects.
        let until = match until.split_once('.') {
            Some((seconds, _)) => format!("{seconds}Z"),
            None => until,
        };
        let resource = format!("/blob/{}/{container}/{name}", self.account);
        // Permissions, start, expiry, resource, identifier, address, protocol, version, kind,
        // snapshot, encryption scope, and five headers of the answer.
        let text = format!("r\n\n{until}\n{resource}\n\n\n\n{TOKEN_VERSION}\nb\n\n\n\n\n\n\n");
        let signature = STANDARD.encode(hmac::sign(key, text.as_bytes()));
        format!(
            "sv={TOKEN_VERSION}&se={}&sr=b&sp=r&sig={}",
            encode(until.as_bytes(), Slash::Escape),
            encode(signature.as_bytes(), Slash::Escape)
        )
    }

    fn add(&self, head: &mut RequestHead) -> Result<(), String> {
        head.set("x-ms-version", VERSION)?;
        match &self.secret {
            Secret::Token(token) => {
                head.target
                    .push(if head.target.contains('?') { '&' } else { '?' });
                head.target.push_str(token);
                Ok(())
            }
            Secret::Key(key) => {
                head.set("x-ms-date", &time::http_date(clock::unix_ms()))?;
                let text = text_to_sign(&self.account, head)?;
                let signature = STANDARD.encode(hmac::sign(key, text.as_bytes()));
                let account = &self.account;
                head.set("authorization", &format!("SharedKey {account}:{signature}"))
            }
        }
    }
}

impl Signer for AzureSigner {
    fn sign<'a>(&'a self, head: &'a mut RequestHead, _: PayloadKind<'a>) -> SignFuture<'a> {
        let signed = self.add(head).map_err(|reason| BlobError::System {
            store: self.store.clone(),
            what: "signing a request".to_owned(),
            reason,
            effect: Effect::NotApplied,
        });
        Box::pin(async move { signed })
    }
}

fn value<'h>(headers: &'h HeaderMap, name: &str) -> &'h str {
    let value = headers.get(name).map(|value| value.as_bytes());
    std::str::from_utf8(value.unwrap_or_default()).unwrap_or_default()
}

/// What a shared key signs.
fn text_to_sign(account: &str, head: &RequestHead) -> Result<String, String> {
    let headers = &head.headers;
    let mut text = format!("{}\n", head.method);
    for name in ["content-encoding", "content-language"] {
        text.push_str(value(headers, name));
        text.push('\n');
    }
    let length = value(headers, "content-length");
    text.push_str(if length == "0" { "" } else { length });
    text.push('\n');
    // The date is signed as x-ms-date, so its own place stays empty.
    for name in [
        "content-md5",
        "content-type",
        "",
        "if-modified-since",
        "if-match",
        "if-none-match",
        "if-unmodified-since",
        "range",
    ] {
        if !name.is_empty() {
            text.push_str(value(headers, name));
        }
        text.push('\n');
    }
    let mut own: Vec<&str> = headers
        .keys()
        .map(hyper::header::HeaderName::as_str)
        .filter(|name| name.starts_with("x-ms-"))
        .collect();
    own.sort_unstable();
    for name in own {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{name}:{}", value(headers, name).trim());
    }
    let (path, query) = head.target.split_once('?').unwrap_or((&head.target, ""));
    let _ = write!(text, "/{account}{path}");
    let mut pairs = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let value = decode(value).map_err(|error| error.to_string())?;
        let value = String::from_utf8(value).map_err(|_| "a parameter that is not text")?;
        pairs.push((name.to_ascii_lowercase(), value));
    }
    pairs.sort();
    for (name, value) in pairs {
        let _ = write!(text, "\n{name}:{value}");
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::Method;

    #[test]
    fn what_is_signed_is_what_the_protocol_says() {
        let mut head = RequestHead::new(Method::PUT, "/c/a%20b?comp=block&blockid=QQ%3D%3D");
        for (name, value) in [
            ("content-length", "0"),
            ("x-ms-version", "v"),
            ("x-ms-date", "d"),
            ("if-match", "\"e\""),
        ] {
            head.set(name, value).expect("allowed");
        }
        let text = text_to_sign("acc", &head).expect("text");
        let expected = "PUT\n\n\n\n\n\n\n\n\"e\"\n\n\n\nx-ms-date:d\nx-ms-version:v\n\
            /acc/c/a%20b\nblockid:QQ==\ncomp:block";
        assert_eq!(text, expected);
    }

    #[test]
    fn credentials_that_are_none_are_refused() {
        let key = |text: &str| AzureCredential::AccessKey(text.to_owned());
        let token = |text: &str| AzureCredential::SasToken(text.to_owned());
        let check = |credential: AzureCredential, good: bool| {
            let made = AzureSigner::new("s", "a", &credential);
            assert_eq!(made.is_ok(), good, "{made:?}");
        };
        check(key("a2V5"), true);
        check(key("not base64!"), false);
        check(key(""), false);
        check(token("?sv=1&sig=x"), true);
        check(token("sv=1"), false);
        check(token(""), false);
    }
}
