//! What the service's error answers mean.
//!
//! Invariant: an answer from which it does not follow that a write was not carried out has the
//! effect `Unknown`.

use crate::error::BlobError;
use crate::http::Collected;
use crate::packed::effect;
use crate::s3::backend::xml::Element;

/// The largest blob that the service takes in one put: 5,000 MiB.
pub(super) const MAX_PUT_BYTES: u64 = 5000 * 1024 * 1024;
/// The largest block: 4,000 MiB.
pub(super) const MAX_BLOCK_BYTES: u64 = 4000 * 1024 * 1024;

/// An error answer, read.
#[derive(Debug)]
pub(super) struct Refusal {
    status: u16,
    code: String,
    message: String,
}

impl Refusal {
    /// Reads an answer that is no success; answers to HEAD have no words, but a code.
    pub(super) fn of(answer: &Collected) -> Self {
        let document = Element::parse(&answer.bytes).ok();
        let text = |name: &str| {
            document
                .as_ref()
                .and_then(|document| document.text_of(name))
        };
        let code = answer.header("x-ms-error-code").or(text("Code"));
        // Behind the first line the message has the request's id and time.
        let message = text("Message").and_then(|message| message.lines().next());
        Self {
            status: answer.status.as_u16(),
            code: code.unwrap_or_default().to_owned(),
            message: message.unwrap_or_default().to_owned(),
        }
    }

    /// The error it is, of a request that writes or only reads.
    pub(super) fn into_error(self, store: &str, writes: bool, account: &str) -> BlobError {
        let store = store.to_owned();
        match (self.status, self.code.as_str()) {
            (404, "ContainerNotFound") => self.server(store, "the container does not exist", false),
            (404, "BlobNotFound" | "ResourceNotFound" | "CannotVerifyCopySource" | "") => {
                BlobError::NotFound
            }
            (409, "BlobAlreadyExists")
            | (412, "ConditionNotMet" | "TargetConditionNotMet" | "") => {
                BlobError::PreconditionFailed
            }
            (412, "SourceConditionNotMet") | (409, "PendingCopyOperation") => {
                BlobError::Conflict { store }
            }
            (429, _) | (503, "ServerBusy") => BlobError::Overloaded {
                store,
                limit: format!("the server's rate ({} {})", self.status, self.code),
            },
            (507, _) => BlobError::Full {
                store,
                reason: format!("{} {}: {}", self.status, self.code, self.message),
            },
            (413, _) => BlobError::TooLarge {
                store,
                limit: MAX_PUT_BYTES,
            },
            (400, "InvalidResourceName" | "InvalidUri") => BlobError::KeyRefused {
                store,
                reason: format!("the server answers {}", self.code),
            },
            (501, _) => BlobError::Unsupported {
                store,
                operation: "a request of Azure Blob Storage".to_owned(),
                reason: format!("the server answers 501 {}: {}", self.code, self.message),
            },
            (401 | 403, _) => {
                let words = format!("refused to the credential of account '{account}'");
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
            code: self.code,
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
        let check = |status: u16, code: &str, kind: ErrorKind, effect: Effect| {
            let refusal = Refusal {
                status,
                code: code.to_owned(),
                message: "m".to_owned(),
            };
            let error = refusal.into_error("s", true, "account");
            let found = (error.kind(), error.effect());
            assert_eq!(found, (kind, effect), "{status} {code}: {error}");
        };
        let not = Effect::NotApplied;
        check(404, "BlobNotFound", ErrorKind::Invalid, not);
        check(404, "ContainerNotFound", ErrorKind::Server, not);
        check(403, "AuthenticationFailed", ErrorKind::Server, not);
        check(412, "ConditionNotMet", ErrorKind::Conflict, not);
        check(412, "LeaseIdMissing", ErrorKind::Server, not);
        check(409, "BlobAlreadyExists", ErrorKind::Conflict, not);
        check(409, "SnapshotsPresent", ErrorKind::Server, not);
        check(503, "ServerBusy", ErrorKind::Overloaded, not);
        check(500, "OperationTimedOut", ErrorKind::Server, Effect::Unknown);
        check(500, "InternalError", ErrorKind::Server, Effect::Unknown);
        check(507, "", ErrorKind::Overloaded, not);
        check(501, "NotImplemented", ErrorKind::Unsupported, not);
    }
}
