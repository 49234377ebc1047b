//! What the member's error answers mean.
//!
//! Invariant: an answer from which it does not follow that a write was not carried out has the
//! effect `Unknown`.

use breccia_core::error::Effect;

use super::xml::Element;
use crate::error::BlobError;
use crate::http::Collected;

/// The largest object that S3 takes in one put or copy: 5 GiB.
pub(super) const MAX_PUT_BYTES: u64 = 5 * 1024 * 1024 * 1024;

/// An error answer, read.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) status: u16,
    pub(super) code: String,
    pub(super) message: String,
    /// `PartNumber`, if it is named.
    pub(super) part: Option<u16>,
    /// `ProposedSize`, if it is named.
    pub(super) size: Option<u64>,
}

impl Refusal {
    /// Reads an answer that is no success; answers to HEAD have no words.
    pub(super) fn of(answer: &Collected) -> Self {
        let document = Element::parse(&answer.bytes).ok();
        Self::read(answer.status.as_u16(), document.as_ref())
    }

    /// Reads an error document: also one that comes inside of a success.
    pub(super) fn read(status: u16, document: Option<&Element>) -> Self {
        let error = document.filter(|document| document.name == "Error");
        let text = |name: &str| error.and_then(|error| error.text_of(name));
        Self {
            status,
            code: text("Code").unwrap_or_default().to_owned(),
            message: text("Message").unwrap_or_default().to_owned(),
            part: text("PartNumber").and_then(|text| text.parse().ok()),
            size: text("ProposedSize").and_then(|text| text.parse().ok()),
        }
    }

    /// The error it is, of a request that writes or only reads.
    pub(super) fn into_error(self, store: &str, writes: bool, access_key: &str) -> BlobError {
        let store = store.to_owned();
        match (self.status, self.code.as_str()) {
            (404, "NoSuchUpload") => BlobError::NoSuchUpload,
            (404, "NoSuchKey" | "NotFound" | "") => BlobError::NotFound,
            (404, "NoSuchBucket") => self.server(store, "the bucket does not exist", false),
            (412, _) => BlobError::PreconditionFailed,
            (409, "ConditionalRequestConflict" | "OperationAborted") => {
                BlobError::Conflict { store }
            }
            (_, "SlowDown" | "TooManyRequests" | "RequestLimitExceeded") | (429, _) => {
                BlobError::Overloaded {
                    store,
                    limit: format!("the server's rate ({} {})", self.status, self.code),
                }
            }
            (507, _) | (_, "XMinioStorageFull" | "QuotaExceeded") => BlobError::Full {
                store,
                reason: format!("{} {}: {}", self.status, self.code, self.message),
            },
            (_, "EntityTooLarge") => BlobError::TooLarge {
                store,
                limit: MAX_PUT_BYTES,
            },
            (_, "KeyTooLongError") => BlobError::KeyRefused {
                store,
                reason: "the server says it is too long".to_owned(),
            },
            (400, "InvalidPartOrder") => BlobError::PartOrder,
            (501, _) => BlobError::Unsupported {
                store,
                operation: "a request of S3".to_owned(),
                reason: format!("the server answers 501 {}: {}", self.code, self.message),
            },
            (_, "RequestTimeTooSkewed") => {
                self.server(store, "this machine's clock and the server's differ", false)
            }
            (401 | 403, _) => {
                let words = format!("refused to access key '{access_key}'");
                self.server(store, &words, false)
            }
            (301 | 307 | 308, _) => {
                let words = "the bucket lies elsewhere: endpoint or region is not the bucket's";
                self.server(store, words, false)
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
            effect: if maybe_applied {
                Effect::Unknown
            } else {
                Effect::NotApplied
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use breccia_core::error::ErrorKind;

    #[test]
    fn refusals_become_errors() {
        let check = |status: u16, code: &str, kind: ErrorKind, effect: Effect| {
            let refusal = Refusal {
                status,
                code: code.to_owned(),
                message: "m".to_owned(),
                part: None,
                size: None,
            };
            let error = refusal.into_error("s", true, "AK");
            assert_eq!(
                (error.kind(), error.effect()),
                (kind, effect),
                "{status} {code}: {error}"
            );
        };
        let not = Effect::NotApplied;
        check(404, "NoSuchKey", ErrorKind::Invalid, not);
        check(404, "", ErrorKind::Invalid, not);
        check(404, "NoSuchBucket", ErrorKind::Server, not);
        check(403, "AccessDenied", ErrorKind::Server, not);
        check(412, "PreconditionFailed", ErrorKind::Conflict, not);
        check(409, "ConditionalRequestConflict", ErrorKind::Conflict, not);
        check(409, "BucketNotEmpty", ErrorKind::Server, not);
        check(503, "SlowDown", ErrorKind::Overloaded, not);
        check(
            503,
            "ServiceUnavailable",
            ErrorKind::Server,
            Effect::Unknown,
        );
        check(500, "InternalError", ErrorKind::Server, Effect::Unknown);
        check(200, "InternalError", ErrorKind::Server, Effect::Unknown);
        check(507, "", ErrorKind::Overloaded, not);
        check(501, "NotImplemented", ErrorKind::Unsupported, not);
    }
}
