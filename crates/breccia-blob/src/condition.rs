//! Conditions of requests, as HTTP has them, and what comes of them.
//!
//! Not the headers they came in. Invariant: conditions of writes are decided by the member that
//! holds the object, in the same step as the write; only reads are decided here.

use crate::error::BlobError;
use crate::meta::{ETag, ObjectMeta};

/// Which entity tags a condition names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ETagSet {
    /// `*`: any version.
    Any,
    /// One of these.
    OneOf(Vec<ETag>),
}

impl ETagSet {
    /// Whether it names this tag.
    #[must_use]
    pub fn contains(&self, etag: &ETag) -> bool {
        match self {
            Self::Any => true,
            Self::OneOf(tags) => tags.contains(etag),
        }
    }
}

/// The conditions of a read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ReadConditions {
    /// `If-Match`.
    pub if_match: Option<ETagSet>,
    /// `If-None-Match`.
    pub if_none_match: Option<ETagSet>,
    /// `If-Modified-Since`, in seconds since the Unix epoch.
    pub if_modified_since: Option<u64>,
    /// `If-Unmodified-Since`, in seconds since the Unix epoch.
    pub if_unmodified_since: Option<u64>,
}

impl ReadConditions {
    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Holds them against an object, in the order of RFC 9110 section 13.2.2.
    ///
    /// # Errors
    /// [`BlobError::PreconditionFailed`], [`BlobError::NotModified`].
    pub fn check(&self, meta: &ObjectMeta) -> Result<(), BlobError> {
        let modified = meta.modified_ms / 1000;
        let met = match (&self.if_match, self.if_unmodified_since) {
            (Some(tags), _) => tags.contains(&meta.etag),
            (None, Some(since)) => modified <= since,
            (None, None) => true,
        };
        if !met {
            return Err(BlobError::PreconditionFailed);
        }
        let news = match (&self.if_none_match, self.if_modified_since) {
            (Some(tags), _) => !tags.contains(&meta.etag),
            (None, Some(since)) => modified > since,
            (None, None) => true,
        };
        if news {
            Ok(())
        } else {
            Err(BlobError::NotModified {
                etag: meta.etag.clone(),
                modified_ms: meta.modified_ms,
            })
        }
    }
}

/// The condition of a write or a delete, decided together with it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum WriteCondition {
    /// None.
    #[default]
    Always,
    /// `If-None-Match: *`: only if there is no such object.
    IfAbsent,
    /// `If-Match`: only over one of these versions. Without such an object: [`BlobError::NotFound`].
    IfMatch(ETagSet),
}

impl WriteCondition {
    /// Holds it against what lies there now. Only for members that can write in the same step.
    ///
    /// # Errors
    /// [`BlobError::PreconditionFailed`], or [`BlobError::NotFound`] if there is nothing to match.
    pub fn check(
        &self,
        there: Option<&ETag>,
        not_found: impl FnOnce() -> BlobError,
    ) -> Result<(), BlobError> {
        match (self, there) {
            (Self::Always, _) | (Self::IfAbsent, None) => Ok(()),
            (Self::IfAbsent, Some(_)) => Err(BlobError::PreconditionFailed),
            (Self::IfMatch(_), None) => Err(not_found()),
            (Self::IfMatch(tags), Some(there)) => {
                if tags.contains(there) {
                    Ok(())
                } else {
                    Err(BlobError::PreconditionFailed)
                }
            }
        }
    }
}

/// Whether a member can do something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Support {
    /// It can: it was seen to, or it is our own code.
    Yes,
    /// It cannot: it was seen to ignore or refuse the condition.
    No,
    /// It has not been asked yet.
    Unprobed,
}

/// The conditional calls that members offer or lack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ConditionalCall {
    /// Put with `If-None-Match: *`.
    PutIfAbsent,
    /// Put with `If-Match`.
    PutIfMatch,
    /// Complete with `If-None-Match: *`.
    CompleteIfAbsent,
    /// Complete with `If-Match`.
    CompleteIfMatch,
    /// Delete with `If-Match`.
    DeleteIfMatch,
}

impl ConditionalCall {
    /// Every call.
    pub const ALL: &[Self] = &[
        Self::PutIfAbsent,
        Self::PutIfMatch,
        Self::CompleteIfAbsent,
        Self::CompleteIfMatch,
        Self::DeleteIfMatch,
    ];

    /// The name that status and errors show.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::PutIfAbsent => "Put with If-None-Match",
            Self::PutIfMatch => "Put with If-Match",
            Self::CompleteIfAbsent => "Complete with If-None-Match",
            Self::CompleteIfMatch => "Complete with If-Match",
            Self::DeleteIfMatch => "Delete with If-Match",
        }
    }
}

/// Which conditional calls a member offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConditionalSupport([Support; 5]);

impl ConditionalSupport {
    /// The same for all calls.
    #[must_use]
    pub const fn all(support: Support) -> Self {
        Self([support; 5])
    }

    /// Whether this call is offered.
    #[must_use]
    pub fn of(&self, call: ConditionalCall) -> Support {
        let place = ConditionalCall::ALL.iter().position(|known| *known == call);
        let found = place.and_then(|place| self.0.get(place));
        found.copied().unwrap_or(Support::No)
    }

    /// The same with one call changed.
    #[must_use]
    pub fn with(mut self, call: ConditionalCall, support: Support) -> Self {
        let place = ConditionalCall::ALL.iter().position(|known| *known == call);
        if let Some(entry) = place.and_then(|place| self.0.get_mut(place)) {
            *entry = support;
        }
        self
    }
}
