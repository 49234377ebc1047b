//! Conditions of writes: sent to the member, once it was seen to honour them.
//!
//! Invariant: a conditional write is sent once, so whoever wins is never told that it lost.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use hyper::{Method, StatusCode};
use ring::rand::{SecureRandom, SystemRandom};

use super::S3Store;
use super::meta::bare;
use super::refusal::Refusal;
use super::xml::{self, Element};
use crate::condition::{ConditionalCall, ConditionalSupport, ETagSet, Support, WriteCondition};
use crate::error::BlobError;
use crate::http::{Collected, Repeat, RequestHead};
use crate::key::Key;
use crate::meta::{ETag, hex};
use crate::upload::PartChoice;

/// A tag that no object of the probe has.
const WRONG_TAG: &str = "00000000000000000000000000000000";
const PROBE_BYTES: &[u8] = b"breccia probe";

/// A condition as it is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Guard {
    None,
    IfAbsent,
    /// `If-Match` as the client named it.
    IfMatch(String),
    /// `If-Match` with the version that was seen to meet the condition.
    Pinned(String),
}

impl S3Store {
    fn offered(&self) -> ConditionalSupport {
        *self
            .conditional
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn conditional_support(&self) -> ConditionalSupport {
        self.offered()
    }

    /// How a condition is sent with a call; refused where the member was not seen to honour it.
    pub(super) async fn guard(
        &self,
        key: &Key,
        condition: &WriteCondition,
        absent: Option<ConditionalCall>,
        matching: ConditionalCall,
    ) -> Result<Guard, BlobError> {
        let tags = match condition {
            WriteCondition::Always => return Ok(Guard::None),
            WriteCondition::IfAbsent => {
                let Some(call) = absent else {
                    return Err(BlobError::Unsupported {
                        store: self.name.clone(),
                        operation: "a delete only if there is nothing".to_owned(),
                        reason: "it makes no sense".to_owned(),
                    });
                };
                self.require(call)?;
                return Ok(Guard::IfAbsent);
            }
            WriteCondition::IfMatch(tags) => tags,
        };
        self.require(matching)?;
        if let ETagSet::OneOf(tags) = tags
            && let [tag] = tags.as_slice()
            && !tag.as_str().ends_with("-0")
        {
            return Ok(Guard::IfMatch(tag.as_str().to_owned()));
        }
        // S3 takes one tag, its own: the version that meets the condition is named instead.
        let meta = self.look(&self.names.name_of(key)?).await?;
        condition.check(Some(&meta.etag), || BlobError::NotFound)?;
        Ok(Guard::Pinned(meta.native.0))
    }

    fn require(&self, call: ConditionalCall) -> Result<(), BlobError> {
        match self.offered().of(call) {
            Support::Yes => Ok(()),
            Support::No => Err(BlobError::ConditionUnsupported {
                call,
                stores: self.name.clone(),
            }),
            Support::Unprobed => Err(BlobError::ConditionUnprobed {
                call,
                store: self.name.clone(),
            }),
        }
    }

    pub(super) fn set_guard(&self, head: &mut RequestHead, guard: &Guard) -> Result<(), BlobError> {
        match guard {
            Guard::None => Ok(()),
            Guard::IfAbsent => self.set(head, "if-none-match", "*"),
            Guard::IfMatch(tag) | Guard::Pinned(tag) => {
                let tag = self.as_compared(tag);
                self.set(head, "if-match", &tag)
            }
        }
    }

    /// A tag as the member compares it: with quotes, or without where the probe found that it
    /// compares them as well (Ceph's gateway 16 does).
    fn as_compared(&self, tag: &str) -> String {
        if self.bare_tags.load(Ordering::Relaxed) {
            tag.to_owned()
        } else {
            format!("\"{tag}\"")
        }
    }

    /// What a failed condition means. Servers differ where there is no object to match.
    pub(super) async fn judge(&self, error: BlobError, name: &str, guard: &Guard) -> BlobError {
        if !matches!(error, BlobError::PreconditionFailed) {
            return error;
        }
        match guard {
            Guard::Pinned(_) => BlobError::Conflict {
                store: self.name.clone(),
            },
            Guard::IfMatch(_) if matches!(self.look(name).await, Err(BlobError::NotFound)) => {
                BlobError::NotFound
            }
            _ => error,
        }
    }

    /// Tries each conditional call under a reserved name, and cleans up.
    pub(super) async fn probe_calls(&self) -> Result<ConditionalSupport, BlobError> {
        // Two probes at once would mistake each other's objects and findings for their own.
        let _alone = self.probing.lock().await;
        let known = *self
            .conditional
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if known != ConditionalSupport::all(Support::Unprobed) {
            return Ok(known);
        }
        let name = self
            .names
            .reserved(&format!("probe-{}", random(&self.name)?));
        let found = self.try_calls(&name).await;
        let head = self.head_of(Method::DELETE, &name, &[]);
        let cleaned = self.call(head, Bytes::new(), Repeat::WhenFailed).await;
        let found = found?;
        cleaned?;
        *self
            .conditional
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = found;
        Ok(found)
    }

    async fn try_calls(&self, name: &str) -> Result<ConditionalSupport, BlobError> {
        let mut found = ConditionalSupport::all(Support::No);
        let put = |guard| self.probe_put(name, guard);
        let first = put(Some(("if-none-match", "*"))).await?;
        let second = put(Some(("if-none-match", "*"))).await?;
        if first.status.is_success() && refused(&second) {
            found = found.with(ConditionalCall::PutIfAbsent, Support::Yes);
        }
        // Whatever became of those, there is an object from here on.
        let there = put(None).await?;
        let tag = bare(there.header("etag").unwrap_or_default()).to_owned();
        for without_quotes in [false, true] {
            self.bare_tags.store(without_quotes, Ordering::Relaxed);
            let (other, same) = (self.as_compared(WRONG_TAG), self.as_compared(&tag));
            let wrong = self.probe_put(name, Some(("if-match", &other))).await?;
            let right = self.probe_put(name, Some(("if-match", &same))).await?;
            if refused(&wrong) && right.status.is_success() {
                found = found.with(ConditionalCall::PutIfMatch, Support::Yes);
                break;
            }
        }
        let wrong = self.as_compared(WRONG_TAG);
        if self.probe_complete(name, ("if-none-match", "*")).await? {
            found = found.with(ConditionalCall::CompleteIfAbsent, Support::Yes);
        }
        if self.probe_complete(name, ("if-match", &wrong)).await? {
            found = found.with(ConditionalCall::CompleteIfMatch, Support::Yes);
        }
        if self.probe_delete(name).await? {
            found = found.with(ConditionalCall::DeleteIfMatch, Support::Yes);
        }
        Ok(found)
    }

    /// An answer that tells something: a server's own trouble tells nothing.
    pub(super) fn telling(&self, answer: Collected) -> Result<Collected, BlobError> {
        let status = answer.status;
        let failed = status.is_server_error() && status != StatusCode::NOT_IMPLEMENTED;
        let barred = matches!(status.as_u16(), 401 | 403 | 404 | 429);
        if failed || barred || status.is_redirection() {
            return Err(self.refused(Refusal::of(&answer), true));
        }
        Ok(answer)
    }

    async fn probe_put(
        &self,
        name: &str,
        guard: Option<(&str, &str)>,
    ) -> Result<Collected, BlobError> {
        let mut head = self.head_of(Method::PUT, name, &[]);
        if let Some((header, value)) = guard {
            self.set(&mut head, header, value)?;
        }
        let bytes = Bytes::from_static(PROBE_BYTES);
        let answer = self.ask(head, bytes, Repeat::Never).await?;
        self.telling(answer)
    }

    /// Whether completing an upload over the object is refused by a condition that is not met.
    async fn probe_complete(&self, name: &str, guard: (&str, &str)) -> Result<bool, BlobError> {
        let head = self.head_of(Method::POST, name, &[("uploads", "")]);
        let (id, answer) = self.probe_upload(head, name, Some(guard)).await?;
        let answer = self.telling(answer)?;
        let honoured = refused(&answer) || refused_inside(&answer);
        if !answer.status.is_success() || honoured {
            let head = self.head_of(Method::DELETE, name, &[("uploadId", &id)]);
            // It may be gone already.
            let _ = self.ask(head, Bytes::new(), Repeat::WhenFailed).await?;
        }
        Ok(honoured)
    }

    /// Begins an upload, writes its one small part, completes it; gives its id and the last answer.
    pub(super) async fn probe_upload(
        &self,
        begin: RequestHead,
        name: &str,
        guard: Option<(&str, &str)>,
    ) -> Result<(String, Collected), BlobError> {
        let answer = self.call(begin, Bytes::new(), Repeat::Never).await?;
        let id = self.upload_id(&self.document(&answer, true)?)?;
        let query = [("partNumber", "1"), ("uploadId", id.as_str())];
        let head = self.head_of(Method::PUT, name, &query);
        let bytes = Bytes::from_static(PROBE_BYTES);
        let part = self.call(head, bytes, Repeat::WhenFailed).await?;
        let choice = PartChoice {
            number: 1,
            etag: ETag::from_text(bare(part.header("etag").unwrap_or_default())),
            checksum: None,
        };
        let mut head = self.head_of(Method::POST, name, &[("uploadId", &id)]);
        if let Some((header, value)) = guard {
            self.set(&mut head, header, value)?;
        }
        let body = Bytes::from(xml::complete(&[choice], |_| None));
        let answer = self.ask(head, body, Repeat::Never).await?;
        Ok((id, answer))
    }

    async fn probe_delete(&self, name: &str) -> Result<bool, BlobError> {
        let delete = async |tag: &str| {
            let mut head = self.head_of(Method::DELETE, name, &[]);
            self.set(&mut head, "if-match", &self.as_compared(tag))?;
            self.telling(self.ask(head, Bytes::new(), Repeat::Never).await?)
        };
        let wrong = delete(WRONG_TAG).await?;
        let there = match self.look(name).await {
            Ok(meta) => meta,
            Err(BlobError::NotFound) => return Ok(false),
            Err(error) => return Err(error),
        };
        if !refused(&wrong) {
            return Ok(false);
        }
        let right = delete(&there.native.0).await?;
        Ok(right.status.is_success())
    }
}

fn refused(answer: &Collected) -> bool {
    answer.status == StatusCode::PRECONDITION_FAILED
}

/// Completing may answer 200 and say in the document that it failed.
fn refused_inside(answer: &Collected) -> bool {
    Element::parse(&answer.bytes).is_ok_and(|document| {
        document.name == "Error" && document.text_of("Code") == Some("PreconditionFailed")
    })
}

pub(super) fn random(store: &str) -> Result<String, BlobError> {
    let mut bytes = [0; 8];
    SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| BlobError::System {
            store: store.to_owned(),
            what: "random bytes".to_owned(),
            reason: "the machine gives none".to_owned(),
            effect: breccia_core::error::Effect::NotApplied,
        })?;
    Ok(hex(&bytes))
}
