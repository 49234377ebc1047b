//! Who may use a listener, and within which limits: the settings a reload may change.
//!
//! Values only; the binary makes them from the configuration. Invariant: a secret never appears in
//! `Debug` output.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

/// The most bytes of an XML document that a client sends: 10,000 parts of a complete take 2 MiB.
pub const MAX_XML_BYTES: u64 = 4 * 1024 * 1024;
/// The most bytes of one put or part, as S3 has it.
pub const MAX_PUT_BYTES: u64 = 5 * 1024 * 1024 * 1024;

/// Somebody who may sign requests.
#[derive(Clone)]
pub struct S3User {
    /// The name.
    pub name: String,
    /// The access key that requests name.
    pub access_key: String,
    /// The secret key that requests are signed with.
    pub secret_key: String,
    /// The buckets this user may use; `None`: all.
    pub buckets: Option<BTreeSet<String>>,
    /// Whether this user may only read.
    pub read_only: bool,
}

impl S3User {
    /// Whether this user may use a bucket at all.
    #[must_use]
    pub fn may_use(&self, bucket: &str) -> bool {
        let buckets = self.buckets.as_ref();
        buckets.is_none_or(|buckets| buckets.contains(bucket))
    }
}

impl fmt::Debug for S3User {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("S3User")
            .field("name", &self.name)
            .field("access_key", &self.access_key)
            .field("buckets", &self.buckets)
            .field("read_only", &self.read_only)
            .finish_non_exhaustive()
    }
}

/// Limits of each client.
#[derive(Debug, Clone)]
pub struct Limits {
    /// How long a request may wait for room (buffers) before it is refused.
    pub deadline: Duration,
    /// How long a connection may be without a request, and a client may take for a request's head.
    pub idle_timeout: Duration,
    /// How long a client may take no byte of an answer.
    pub write_timeout: Duration,
    /// The fewest bytes a second, both ways, of a client that we wait for; 0: any.
    pub min_body_rate: u64,
    /// Requests in flight on the listener.
    pub max_in_flight: usize,
    /// The most bytes of one put or part.
    pub max_put_bytes: u64,
    /// The most bytes of an XML document.
    pub max_xml_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            deadline: Duration::from_secs(1),
            idle_timeout: Duration::from_mins(5),
            write_timeout: Duration::from_secs(30),
            min_body_rate: 1024,
            max_in_flight: 1024,
            max_put_bytes: MAX_PUT_BYTES,
            max_xml_bytes: MAX_XML_BYTES,
        }
    }
}

/// The settings of a listener that may change while it runs.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Who may sign requests.
    pub users: Vec<Arc<S3User>>,
    /// Whether anybody may do anything: only where there are no users. Signatures are then not
    /// verified, for there is nothing to verify them with.
    pub anonymous: bool,
    /// The domain in front of which a bucket may stand in `Host`.
    pub domain: Option<String>,
    /// The region that clients are told.
    pub region: String,
    /// Limits of each client.
    pub limits: Limits,
}

impl Settings {
    /// The user with this access key.
    #[must_use]
    pub fn user(&self, access_key: &str) -> Option<&Arc<S3User>> {
        self.users.iter().find(|user| user.access_key == access_key)
    }

    /// Whether requests are let in unverified.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.anonymous && self.users.is_empty()
    }
}

/// Settings shared by all workers; a reload replaces them.
#[derive(Debug, Default)]
pub struct SharedSettings(RwLock<Arc<Settings>>);

impl SharedSettings {
    /// Settings to begin with.
    #[must_use]
    pub fn new(settings: Settings) -> Arc<Self> {
        Arc::new(Self(RwLock::new(Arc::new(settings))))
    }

    /// The settings now.
    #[must_use]
    pub fn get(&self) -> Arc<Settings> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Replaces them for requests that arrive from now on.
    pub fn set(&self, settings: Settings) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(settings);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_shown() {
        let user = S3User {
            name: "a".to_owned(),
            access_key: "AK".to_owned(),
            secret_key: "hush".to_owned(),
            buckets: Some(["mail".to_owned()].into()),
            read_only: false,
        };
        assert!(user.may_use("mail") && !user.may_use("other"));
        let settings = Settings {
            users: vec![Arc::new(user)],
            anonymous: true,
            ..Settings::default()
        };
        let shown = format!("{settings:?}");
        assert!(shown.contains("AK") && !shown.contains("hush"), "{shown}");
        assert!(!settings.is_open(), "users close a listener");
    }
}
