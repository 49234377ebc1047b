//! Deleting many objects in one request.
//!
//! Invariant: each key has its own outcome in the answer; none is left out but those that went well in
//! quiet mode.

use futures_util::StreamExt as _;
use futures_util::stream;
use hyper::StatusCode;
use hyper::body::Incoming;

use crate::condition::{ETagSet, WriteCondition};
use crate::meta::ETag;
use crate::s3::codec::etag::EtagCondition;
use crate::s3::codec::xml::{DeleteFailure, DeleteObject, DeleteRequest, DeleteResult, Deleted};

use super::dispatch::Call;
use super::namespace::Bucket;
use super::refusal::Refusal;
use super::respond::Answer;
use super::wire_error;

/// How many objects of one request are deleted at once.
const AT_ONCE: usize = 16;

/// `DeleteObjects`.
pub(super) async fn delete_many(call: &Call, incoming: Incoming) -> Result<Answer, Refusal> {
    let bucket = call.bucket().await?;
    let document = call.document(incoming, call.announced()?).await?;
    let request = DeleteRequest::read(&document)?;
    drop(document);
    let deleting = request.objects.into_iter().map(async |object| {
        let done = delete_one(&bucket, &object).await;
        (object, done)
    });
    let outcomes: Vec<_> = stream::iter(deleting).buffered(AT_ONCE).collect().await;
    let mut result = DeleteResult::default();
    for (object, done) in outcomes {
        let (key, version_id) = (object.key, object.version_id);
        match done {
            Ok(()) if request.quiet => {}
            Ok(()) => result.deleted.push(Deleted { key, version_id }),
            Err(refusal) => result.failures.push(DeleteFailure {
                key,
                version_id,
                code: wire_error::of(&refusal).code.to_owned(),
                message: refusal.to_string(),
            }),
        }
    }
    Ok(Answer::xml(StatusCode::OK, result.write()?))
}

async fn delete_one(bucket: &Bucket, object: &DeleteObject) -> Result<(), Refusal> {
    if object.version_id.is_some() {
        return Err(Refusal::not_implemented("deleting a version"));
    }
    let condition = match &object.etag {
        None => WriteCondition::Always,
        Some(text) => WriteCondition::IfMatch(etags(text)?),
    };
    let key = bucket.key(&object.key)?;
    bucket.store.delete(&key, condition).await?;
    Ok(())
}

fn etags(text: &str) -> Result<ETagSet, Refusal> {
    let read = EtagCondition::parse(text.as_bytes());
    match read.map_err(|_| Refusal::argument("an ETag cannot be read"))? {
        EtagCondition::Any => Ok(ETagSet::Any),
        EtagCondition::OneOf(etags) => {
            let strong = etags.iter().filter(|etag| !etag.is_weak());
            let strong = strong.map(|etag| ETag::from_text(etag.value()));
            Ok(ETagSet::OneOf(strong.collect()))
        }
    }
}
