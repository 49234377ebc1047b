//! Conditions of writes: what a member is asked to check, and whether it was seen to.
//!
//! Invariant: a condition on an entity tag is sent as one on the very version that was read with
//! that tag, so nothing can come between the look and the write.

use std::sync::PoisonError;

use bytes::Bytes;

use super::{Member, random};
use crate::condition::{ConditionalCall, ConditionalSupport, Support, WriteCondition};
use crate::error::BlobError;
use crate::key::Key;

const PROBE_BYTES: &[u8] = b"breccia probe";

/// A condition as it is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Guard {
    None,
    IfAbsent,
    /// Only over the version of this native name.
    IfVersion(String),
}

/// Which conditional calls were seen to be honoured.
pub(crate) fn support<M: Member + ?Sized>(member: &M) -> ConditionalSupport {
    *member
        .offered()
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
}

/// How a condition is sent with a call; refused where the member was not seen to honour it.
pub(crate) async fn guard<M: Member + ?Sized>(
    member: &M,
    key: &Key,
    condition: &WriteCondition,
    absent: Option<ConditionalCall>,
    matching: ConditionalCall,
) -> Result<Guard, BlobError> {
    match condition {
        WriteCondition::Always => Ok(Guard::None),
        WriteCondition::IfAbsent => {
            let Some(call) = absent else {
                return Err(BlobError::Unsupported {
                    store: member.name().to_owned(),
                    operation: "a delete only if there is nothing".to_owned(),
                    reason: "it makes no sense".to_owned(),
                });
            };
            require(member, call)?;
            Ok(Guard::IfAbsent)
        }
        WriteCondition::IfMatch(_) => {
            require(member, matching)?;
            let seen = member.look(&member.names().name_of(key)?).await?;
            let meta = seen.meta(member.name())?;
            condition.check(Some(&meta.etag), || BlobError::NotFound)?;
            Ok(Guard::IfVersion(meta.native.0))
        }
    }
}

fn require<M: Member + ?Sized>(member: &M, call: ConditionalCall) -> Result<(), BlobError> {
    match support(member).of(call) {
        Support::Yes => Ok(()),
        Support::No => Err(BlobError::ConditionUnsupported {
            call,
            stores: member.name().to_owned(),
        }),
        Support::Unprobed => Err(BlobError::ConditionUnprobed {
            call,
            store: member.name().to_owned(),
        }),
    }
}

/// What a failed condition means: the version that was read is no longer the one that lies there.
pub(crate) async fn judge<M: Member + ?Sized>(
    member: &M,
    error: BlobError,
    name: &str,
    guard: &Guard,
    condition: &WriteCondition,
) -> BlobError {
    let lost = matches!(error, BlobError::PreconditionFailed | BlobError::NotFound);
    if !lost || !matches!(guard, Guard::IfVersion(_)) {
        return error;
    }
    let now = match member.look(name).await {
        Ok(seen) => seen.listed_meta(),
        Err(BlobError::NotFound) => return BlobError::NotFound,
        // The write was refused all the same.
        Err(_) => return BlobError::PreconditionFailed,
    };
    match condition.check(Some(&now.etag), || BlobError::NotFound) {
        // Another version with a tag that meets it, or other tags on the same: worth another try.
        Ok(()) => BlobError::Conflict {
            store: member.name().to_owned(),
        },
        Err(error) => error,
    }
}

/// Tries each conditional call under a reserved name, and cleans up.
pub(crate) async fn probe<M: Member + ?Sized>(member: &M) -> Result<ConditionalSupport, BlobError> {
    let id = random::<8>(member.name())?;
    let (name, source) = (
        member.names().reserved(&format!("~probe/{id}")),
        member.names().reserved(&format!("~probe/{id}-source")),
    );
    let found = try_calls(member, &name, &source).await;
    let cleaned = member.remove(&name, &Guard::None).await;
    let cleaned_too = member.remove(&source, &Guard::None).await;
    let found = found?;
    cleaned?;
    cleaned_too?;
    *member
        .offered()
        .lock()
        .unwrap_or_else(PoisonError::into_inner) = found;
    Ok(found)
}

async fn try_calls<M: Member + ?Sized>(
    member: &M,
    name: &str,
    source: &str,
) -> Result<ConditionalSupport, BlobError> {
    let mut found = ConditionalSupport::all(Support::No);
    let put = async |name: &str, guard: &Guard| {
        let bytes = Bytes::from_static(PROBE_BYTES);
        refused(member.write_small(name, bytes, "", guard).await)
    };
    put(source, &Guard::None).await?;
    let first = put(name, &Guard::IfAbsent).await?;
    let second = put(name, &Guard::IfAbsent).await?;
    if !first && second {
        found = found.with(ConditionalCall::PutIfAbsent, Support::Yes);
    }
    // Whatever became of those, there are two versions from here on, of which one is gone.
    put(name, &Guard::None).await?;
    let old = Guard::IfVersion(member.look(name).await?.native);
    put(name, &Guard::None).await?;
    let current = Guard::IfVersion(member.look(name).await?.native);
    if old != current && put(name, &old).await? && !put(name, &current).await? {
        found = found.with(ConditionalCall::PutIfMatch, Support::Yes);
    }
    if refused(member.publish(source, name, &Guard::IfAbsent).await)? {
        found = found.with(ConditionalCall::CompleteIfAbsent, Support::Yes);
    }
    let current = Guard::IfVersion(member.look(name).await?.native);
    if refused(member.publish(source, name, &old).await)?
        && !refused(member.publish(source, name, &current).await)?
    {
        found = found.with(ConditionalCall::CompleteIfMatch, Support::Yes);
    }
    let current = Guard::IfVersion(member.look(name).await?.native);
    if refused(member.remove(name, &old).await)? && !refused(member.remove(name, &current).await)? {
        found = found.with(ConditionalCall::DeleteIfMatch, Support::Yes);
    }
    Ok(found)
}

/// Whether a call was refused by its condition.
fn refused<T>(answer: Result<T, BlobError>) -> Result<bool, BlobError> {
    match answer {
        Ok(_) => Ok(false),
        Err(BlobError::PreconditionFailed) => Ok(true),
        Err(error) => Err(error),
    }
}
