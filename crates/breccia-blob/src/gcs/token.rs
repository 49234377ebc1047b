//! Tokens that prove who asks: of a service account's key, or of the machine's metadata server.
//!
//! Invariant: keys and tokens appear in requests only, never in errors or logs.

use std::fmt;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use breccia_core::error::Effect;
use breccia_net::clock;
use bytes::Bytes;
use hyper::Method;
use ring::rand::SystemRandom;
use ring::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use serde::Deserialize;
use serde_json::json;

use super::options::GcsCredential;
use crate::error::BlobError;
use crate::http::{
    Endpoint, HttpClient, HttpOptions, PayloadKind, RequestHead, SignFuture, Signer, Unsigned,
};
use crate::s3::codec::uri::{Slash, encode};

const SCOPE: &str = "https://www.googleapis.com/auth/devstorage.read_write";
const METADATA_HOST: &str = "metadata.google.internal";
const METADATA_PATH: &str = "/computeMetadata/v1/instance/service-accounts/default/token";
/// How long an assertion is good.
const ASSERTION_SECONDS: u64 = 3600;
/// How long before its end a token is replaced.
const REFRESH_AHEAD_MS: u64 = 60 * 1000;
/// How long who gives out tokens may keep silent.
const SOURCE_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest answer of theirs, and the longest key file.
const MAX_SOURCE_BYTES: usize = 64 * 1024;

/// Proves who asks.
pub(super) struct GcsSigner {
    store: String,
    source: Source,
    held: Mutex<Option<Token>>,
    refreshing: tokio::sync::Mutex<()>,
}

enum Source {
    Nobody,
    Account(Box<Account>),
    Metadata(String),
}

struct Account {
    email: String,
    key_id: String,
    key: RsaKeyPair,
    token_uri: String,
}

#[derive(Clone)]
struct Token {
    text: String,
    until_ms: u64,
}

impl fmt::Debug for GcsSigner {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "GcsSigner({})", self.who())
    }
}

/// The file that the service gives for a key.
#[derive(Deserialize)]
struct KeyFile {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    client_email: String,
    #[serde(default)]
    private_key: String,
    #[serde(default)]
    private_key_id: String,
    #[serde(default)]
    token_uri: String,
}

#[derive(Deserialize)]
struct TokenAnswer {
    access_token: String,
    expires_in: u64,
}

impl GcsSigner {
    /// A signer; in words what is wrong with the credential.
    pub(super) fn new(store: &str, credential: &GcsCredential) -> Result<Self, String> {
        let source = match credential {
            GcsCredential::Anonymous => Source::Nobody,
            GcsCredential::Metadata => {
                let host = std::env::var("GCE_METADATA_HOST");
                let host = host.ok().filter(|host| !host.is_empty());
                Source::Metadata(host.unwrap_or_else(|| METADATA_HOST.to_owned()))
            }
            GcsCredential::File(path) => {
                let account = Account::read(path)
                    .map_err(|problem| format!("credentials {}: {problem}", path.display()))?;
                Source::Account(Box::new(account))
            }
        };
        Ok(Self {
            store: store.to_owned(),
            source,
            held: Mutex::new(None),
            refreshing: tokio::sync::Mutex::new(()),
        })
    }

    /// Who asks, for errors.
    pub(super) fn who(&self) -> &str {
        match &self.source {
            Source::Nobody => "nobody (anonymous)",
            Source::Account(account) => &account.email,
            Source::Metadata(_) => "the machine's account",
        }
    }

    /// Forgets a token that the service no longer takes; whether there was one.
    pub(super) fn forget(&self) -> bool {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.take().is_some()
    }

    fn held(&self) -> Option<String> {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let soon = clock::unix_ms().saturating_add(REFRESH_AHEAD_MS);
        let good = held.as_ref().filter(|token| token.until_ms > soon);
        good.map(|token| token.text.clone())
    }

    async fn token(&self) -> Result<Option<String>, BlobError> {
        if matches!(self.source, Source::Nobody) {
            return Ok(None);
        }
        if let Some(token) = self.held() {
            return Ok(Some(token));
        }
        let _only = self.refreshing.lock().await;
        if let Some(token) = self.held() {
            return Ok(Some(token));
        }
        let token = self.fetch().await.map_err(|reason| BlobError::Down {
            store: self.store.clone(),
            reason: format!("no token for {}: {reason}", self.who()),
            effect: Effect::NotApplied,
        })?;
        let text = token.text.clone();
        *self.held.lock().unwrap_or_else(PoisonError::into_inner) = Some(token);
        Ok(Some(text))
    }

    async fn fetch(&self) -> Result<Token, String> {
        let (url, head, body) = match &self.source {
            Source::Nobody => return Err("nobody has one".to_owned()),
            Source::Metadata(host) => {
                let head = RequestHead::new(Method::GET, METADATA_PATH)
                    .with("metadata-flavor", "Google")?;
                (format!("http://{host}"), head, Bytes::new())
            }
            Source::Account(account) => {
                let form = format!(
                    "grant_type={}&assertion={}",
                    encode(
                        b"urn:ietf:params:oauth:grant-type:jwt-bearer",
                        Slash::Escape
                    ),
                    account.assertion(clock::unix_ms() / 1000)?
                );
                let endpoint = Endpoint::parse(&account.token_uri)?;
                let path = match endpoint.base_path.as_str() {
                    "" => "/",
                    path => path,
                };
                let head = RequestHead::new(Method::POST, path)
                    .with("content-type", "application/x-www-form-urlencoded")?;
                (account.token_uri.clone(), head, Bytes::from(form))
            }
        };
        let answer = ask(&url, head, body).await?;
        // What serde says could quote a secret.
        let answer: TokenAnswer = serde_json::from_slice(&answer)
            .map_err(|_| "the answer is not the JSON of a token".to_owned())?;
        let life_ms = answer.expires_in.saturating_mul(1000);
        // One that ends sooner than tokens are replaced is used once.
        let until_ms = clock::unix_ms().saturating_add(life_ms);
        Ok(Token {
            text: answer.access_token,
            until_ms,
        })
    }
}

async fn ask(url: &str, head: RequestHead, body: Bytes) -> Result<Bytes, String> {
    let endpoint = Endpoint::parse(url)?;
    let options = HttpOptions {
        timeout: SOURCE_TIMEOUT,
        max_connections: 1,
        max_retries: 1,
        ..HttpOptions::new(url, endpoint)
    };
    let words = |error: BlobError| error.to_string();
    let client = HttpClient::new(options).map_err(words)?;
    let answer = client.send_repeatable(&head, body, &Unsigned).await;
    let answer = answer.map_err(words)?.collect(MAX_SOURCE_BYTES).await;
    let answer = answer.map_err(words)?;
    if answer.status.is_success() {
        Ok(answer.bytes)
    } else {
        Err(format!("{url} answers {}", answer.status.as_u16()))
    }
}

impl Account {
    fn read(path: &Path) -> Result<Self, String> {
        let text = std::fs::read(path).map_err(|error| error.to_string())?;
        if text.len() > MAX_SOURCE_BYTES {
            return Err("it is too long for a key file".to_owned());
        }
        let file: KeyFile = serde_json::from_slice(&text)
            .map_err(|_| "it is not the JSON of a service account's key".to_owned())?;
        if file.kind != "service_account" {
            return Err(format!(
                "its type is '{}', and only service_account is known",
                file.kind
            ));
        }
        Endpoint::parse(&file.token_uri).map_err(|problem| format!("token_uri: {problem}"))?;
        let key = der(&file.private_key).ok_or("private_key is not PEM")?;
        let key = RsaKeyPair::from_pkcs8(&key)
            .map_err(|error| format!("private_key cannot be used: {error}"))?;
        Ok(Self {
            email: file.client_email,
            key_id: file.private_key_id,
            key,
            token_uri: file.token_uri,
        })
    }

    /// A signed claim (RFC 7523) that is exchanged for a token.
    fn assertion(&self, now: u64) -> Result<String, String> {
        let part = |value: serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let head = part(json!({"alg": "RS256", "typ": "JWT", "kid": self.key_id}));
        let claims = part(json!({
            "iss": self.email,
            "scope": SCOPE,
            "aud": self.token_uri,
            "iat": now,
            "exp": now.saturating_add(ASSERTION_SECONDS),
        }));
        let text = format!("{head}.{claims}");
        let mut signature = vec![0; self.key.public().modulus_len()];
        self.key
            .sign(
                &RSA_PKCS1_SHA256,
                &SystemRandom::new(),
                text.as_bytes(),
                &mut signature,
            )
            .map_err(|_| "the key cannot sign".to_owned())?;
        Ok(format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }
}

/// What is between the lines of a PEM text.
fn der(pem: &str) -> Option<Vec<u8>> {
    let inner = pem
        .split_once("-----BEGIN PRIVATE KEY-----")?
        .1
        .split_once("-----END PRIVATE KEY-----")?
        .0;
    let letters: String = inner.split_whitespace().collect();
    STANDARD.decode(letters).ok()
}

impl Signer for GcsSigner {
    fn sign<'a>(&'a self, head: &'a mut RequestHead, _: PayloadKind<'a>) -> SignFuture<'a> {
        Box::pin(async move {
            let Some(token) = self.token().await? else {
                return Ok(());
            };
            head.set("authorization", &format!("Bearer {token}"))
                .map_err(|_| BlobError::Down {
                    store: self.store.clone(),
                    reason: format!("the token for {} is none that HTTP allows", self.who()),
                    effect: Effect::NotApplied,
                })
        })
    }
}
