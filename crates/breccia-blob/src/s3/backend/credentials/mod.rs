//! Who asks: credentials, from wherever they come, kept until shortly before they expire.
//!
//! Not signing. Invariant: at most one refresh runs at a time, and while the old credentials are
//! good nobody waits for it.

mod container;
mod instance;
#[cfg(test)]
mod tests;
mod web_identity;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use breccia_core::error::Effect;
use breccia_net::clock;
use bytes::Bytes;
use serde::Deserialize;

use super::options::CredentialSource;
use crate::error::BlobError;
use crate::http::{Endpoint, HttpClient, HttpOptions, RequestHead, Unsigned};
use crate::s3::codec::time;

/// How long before their end credentials are fetched anew.
const REFRESH_AHEAD_MS: u64 = 5 * 60 * 1000;
/// How long before their end credentials are no longer used.
const UNUSABLE_AHEAD_MS: u64 = 10 * 1000;
/// How long a failed refresh is not tried again while the old ones are good.
const RETRY_REFRESH_MS: u64 = 30 * 1000;
/// How long a source may take for an answer.
const SOURCE_TIMEOUT: Duration = Duration::from_secs(5);
/// The largest answer or token file of a source.
const MAX_SOURCE_BYTES: usize = 64 * 1024;

/// An access key with its secret.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Credentials {
    pub(crate) access_key: String,
    pub(crate) secret_key: String,
    pub(crate) session_token: Option<String>,
    /// In milliseconds since the Unix epoch; `None`: they last.
    pub(crate) expires_ms: Option<u64>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Credentials({})", self.access_key)
    }
}

impl Credentials {
    fn good_for(&self, ahead_ms: u64, now_ms: u64) -> bool {
        let usable = |expires: u64| now_ms.saturating_add(ahead_ms) < expires;
        self.expires_ms.is_none_or(usable)
    }
}

/// Looks up a variable of the process, or of a test.
pub(crate) type Variables = Arc<dyn Fn(&str) -> Option<String> + Send + Sync>;

/// The variables of this process.
pub(crate) fn process_variables() -> Variables {
    Arc::new(|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
}

/// A place that gives credentials.
#[derive(Debug)]
enum Source {
    Fixed(Credentials),
    WebIdentity(web_identity::WebIdentity),
    Container(container::Container),
    Instance(instance::Instance),
}

impl Source {
    fn name(&self) -> &'static str {
        match self {
            Self::Fixed(_) => "the configuration or environment",
            Self::WebIdentity(_) => "web identity (AWS_WEB_IDENTITY_TOKEN_FILE)",
            Self::Container(_) => "the container's credentials (AWS_CONTAINER_CREDENTIALS_*)",
            Self::Instance(_) => "the instance's role (metadata service)",
        }
    }

    async fn fetch(&self) -> Result<Credentials, String> {
        match self {
            Self::Fixed(credentials) => Ok(credentials.clone()),
            Self::WebIdentity(source) => source.fetch().await,
            Self::Container(source) => source.fetch().await,
            Self::Instance(source) => source.fetch().await,
        }
    }

    fn choose(
        given: &CredentialSource,
        variables: &Variables,
        region: &str,
    ) -> Result<Self, String> {
        if let CredentialSource::Given {
            access_key,
            secret_key,
            session_token,
        } = given
        {
            return Ok(Self::Fixed(Credentials {
                access_key: access_key.clone(),
                secret_key: secret_key.clone(),
                session_token: session_token.clone(),
                expires_ms: None,
            }));
        }
        match (
            variables("AWS_ACCESS_KEY_ID"),
            variables("AWS_SECRET_ACCESS_KEY"),
        ) {
            (Some(access_key), Some(secret_key)) => {
                return Ok(Self::Fixed(Credentials {
                    access_key,
                    secret_key,
                    session_token: variables("AWS_SESSION_TOKEN"),
                    expires_ms: None,
                }));
            }
            (None, None) => {}
            _ => {
                let both = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are only good together";
                return Err(both.to_owned());
            }
        }
        if let Some(source) = web_identity::WebIdentity::of(variables, region)? {
            return Ok(Self::WebIdentity(source));
        }
        if let Some(source) = container::Container::of(variables)? {
            return Ok(Self::Container(source));
        }
        Ok(Self::Instance(instance::Instance::of(variables)?))
    }
}

/// Credentials with their refresh.
#[derive(Debug)]
pub(crate) struct CredentialCache {
    store: String,
    source: Source,
    held: Mutex<Held>,
    refreshing: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct Held {
    credentials: Option<Credentials>,
    not_before_ms: u64,
}

impl CredentialCache {
    /// Of a store; which source it is, is settled here.
    pub(crate) fn new(
        store: &str,
        given: &CredentialSource,
        variables: &Variables,
        region: &str,
    ) -> Result<Self, BlobError> {
        let source = Source::choose(given, variables, region).map_err(|problem| {
            let store = store.to_owned();
            BlobError::Options { store, problem }
        })?;
        Ok(Self {
            store: store.to_owned(),
            source,
            held: Mutex::default(),
            refreshing: tokio::sync::Mutex::new(()),
        })
    }

    /// Credentials that are good now.
    pub(crate) async fn get(&self) -> Result<Credentials, BlobError> {
        if let Source::Fixed(credentials) = &self.source {
            return Ok(credentials.clone());
        }
        let (held, rest) = self.held();
        if let Some(credentials) = held {
            if rest {
                return Ok(credentials);
            }
            let Ok(_only) = self.refreshing.try_lock() else {
                return Ok(credentials);
            };
            return Ok(self.refresh().await.unwrap_or(credentials));
        }
        let _only = self.refreshing.lock().await;
        match self.held() {
            (Some(credentials), _) => Ok(credentials),
            (None, _) => self.refresh().await,
        }
    }

    /// The credentials that are good now, and whether they need no refresh yet.
    fn held(&self) -> (Option<Credentials>, bool) {
        let now = clock::unix_ms();
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let good = held.credentials.as_ref();
        let good = good.filter(|found| found.good_for(UNUSABLE_AHEAD_MS, now));
        let fresh = good.is_some_and(|found| found.good_for(REFRESH_AHEAD_MS, now));
        (good.cloned(), fresh || now < held.not_before_ms)
    }

    async fn refresh(&self) -> Result<Credentials, BlobError> {
        let fetched = self.source.fetch().await;
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        match fetched {
            Ok(credentials) => {
                held.credentials = Some(credentials.clone());
                Ok(credentials)
            }
            Err(reason) => {
                held.not_before_ms = clock::unix_ms().saturating_add(RETRY_REFRESH_MS);
                let name = self.source.name();
                tracing::warn!(store = self.store, "no credentials from {name}: {reason}");
                Err(BlobError::Down {
                    store: self.store.clone(),
                    reason: format!("no credentials from {name}: {reason}"),
                    effect: Effect::NotApplied,
                })
            }
        }
    }
}

/// Asks a source, and once more if need be; gives the body of a success.
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
    let answer = answer.map_err(words)?;
    let answer = answer.collect(MAX_SOURCE_BYTES).await.map_err(words)?;
    if answer.status.is_success() {
        Ok(answer.bytes)
    } else {
        Err(format!("{url} answers {}", answer.status.as_u16()))
    }
}

async fn read_token(path: String) -> Result<String, String> {
    // Small, and read once in many minutes; still not on the runtime's thread.
    let reading = tokio::task::spawn_blocking(move || {
        let text = std::fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
        let text = text.trim().to_owned();
        if text.is_empty() || text.len() > MAX_SOURCE_BYTES {
            return Err(format!("{path} holds no token"));
        }
        Ok(text)
    });
    reading.await.map_err(|error| error.to_string())?
}

/// What the container's endpoint and the metadata service answer.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    access_key_id: String,
    secret_access_key: String,
    token: Option<String>,
    expiration: Option<String>,
}

fn read_answer(bytes: &[u8]) -> Result<Credentials, String> {
    // What serde says could quote a secret.
    let answer: Answer = serde_json::from_slice(bytes)
        .map_err(|_| "the answer is not the JSON of credentials".to_owned())?;
    Ok(Credentials {
        access_key: answer.access_key_id,
        secret_key: answer.secret_access_key,
        session_token: answer.token,
        expires_ms: match answer.expiration {
            None => None,
            Some(text) => Some(expiration(&text)?),
        },
    })
}

fn expiration(text: &str) -> Result<u64, String> {
    time::parse_iso8601(text).ok_or_else(|| format!("'{text}' is no time of expiration"))
}
