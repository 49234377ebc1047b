//! What the service's error answers mean.
//!
//! Invariant: an answer from which it does not follow that a write was not carried out has the
//! effect `Unknown`.

use serde::Deserialize;

use crate::error::BlobError;
use crate::http::Collected;
use crate::packed::effect;

/// The largest object that is taken in one put: as S3 has it, 5 GiB.
pub(super) const MAX_PUT_BYTES: u64 = 5 * 1024 * 1024 * 1024;
/// The longest message that is passed on.
const MAX_MESSAGE_LETTERS: usize = 300;

/// An error answer, read.
#[derive(Debug)]
pub(super) struct Refusal {
    status: u16,
    reason: String,
    message: String,
}

#[derive(Deserialize)]
struct Answer {
    error: Inner,
}

#[derive(Deserialize)]
struct Inner {
    #[serde(default)]
    message: String,
    #[serde(default)]
    errors: Vec<Cause>,
}

#[derive(Deserialize)]
struct Cause {
    #[serde(default)]
    reason: String,
}

impl Refusal {
    /// Reads an answer that is no success.
    pub(super) fn of(answer: &Collected) -> Self {
        let (reason, message) = match serde_json::from_slice::<Answer>(&answer.bytes) {
            Ok(Answer { error }) => {
                let reason = error.errors.into_iter().next();
                (
                    reason.map(|cause| cause.reason).unwrap_or_default(),
                    error.message,
                )
            }
            // Answers to downloads are plain text.
            Err(_) => (
                String::new(),
                String::from_utf8_lossy(&answer.bytes).into_owned(),
            ),
        };
        Self {
            status: answer.status.as_u16(),
            reason,
            message: message.chars().take(MAX_MESSAGE_LETTERS).collect(),
        }
    }

    /// The error it is, of a request that writes or only reads.
    pub(super) fn into_error(self, store: &str, writes: bool, who: &str) -> BlobError {
        let store = store.to_owned();
        let bucket = self.message.contains("bucket does not exist");
        match (self.status, self.reason.as_str()) {
            (404, _) if bucket => self.server(store, "", false),
            (404, _) => BlobError::NotFound,
            (412, _) => BlobError::PreconditionFailed,
            (409, _) => BlobError::Conflict { store },
            (429, _) | (403, "rateLimitExceeded" | "userRateLimitExceeded" | "quotaExceeded") => {
                BlobError::Overloaded {
                    store,
                    limit: format!("the server's rate ({} {})", self.status, self.reason),
                }
            }
            (507, _) => BlobError::Full {
                store,
                reason: format!("{} {}: {}", self.status, self.reason, self.message),
            },
            (413, _) => BlobError::TooLarge {
                store,
                limit: MAX_PUT_BYTES,
            },
            (501, _) => BlobError::Unsupported {
                store,
                operation: "a request of Google Cloud Storage".to_owned(),
                reason: format!("the server answers 501 {}: {}", self.reason, self.message),
            },
            (401 | 403, _) => {
                let words = format!("refused to {who}");
                self.server(store, &words, false)
            }
            (400..=499, _) => self.server(store, "", false),
            _ => self.server(store, "", writes),
        }
    }

    fn server(self, store: String, words: &str, maybe_applied: bool) -> BlobError {
        let message = match (words.is_empty(), self.message.is_empty()) {
            (true, _) => self.message,
            (false, true) => words.to_owned(),
            (false, false) => format!("{words} ({})", self.message),
        };
        BlobError::Server {
            store,
            status: self.status,
            code: self.reason,
            message,
            effect: effect(maybe_applied),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use breccia_core::error::{Effect, ErrorKind};

    #[test]
    fn refusals_become_errors() {
        let check = |status: u16, reason: &str, message: &str, kind: ErrorKind, effect: Effect| {
            let refusal = Refusal {
                status,
                reason: reason.to_owned(),
                message: message.to_owned(),
            };
            let error = refusal.into_error("s", true, "who");
            let found = (error.kind(), error.effect());
            assert_eq!(found, (kind, effect), "{status} {reason}: {error}");
        };
        let not = Effect::NotApplied;
        check(
            404,
            "notFound",
            "No such object: b/o",
            ErrorKind::Invalid,
            not,
        );
        let bucket = "The specified bucket does not exist.";
        check(404, "notFound", bucket, ErrorKind::Server, not);
        check(412, "conditionNotMet", "m", ErrorKind::Conflict, not);
        check(401, "authError", "m", ErrorKind::Server, not);
        check(403, "forbidden", "m", ErrorKind::Server, not);
        check(403, "rateLimitExceeded", "m", ErrorKind::Overloaded, not);
        check(429, "rateLimitExceeded", "m", ErrorKind::Overloaded, not);
        check(503, "backendError", "m", ErrorKind::Server, Effect::Unknown);
        check(500, "", "", ErrorKind::Server, Effect::Unknown);
    }
}
