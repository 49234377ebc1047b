//! The tags of objects.
//!
//! Invariant: setting tags changes nothing else of an object.

use hyper::StatusCode;
use hyper::body::Incoming;

use crate::meta::Tags;
use crate::s3::codec::xml::Tagging;

use super::dispatch::Call;
use super::headers;
use super::refusal::Refusal;
use super::respond::Answer;

/// `GetObjectTagging`.
pub(super) async fn get(call: &Call) -> Result<Answer, Refusal> {
    let (bucket, key) = call.object().await?;
    let meta = bucket.store.head(&key).await?;
    let document = Tagging {
        tags: meta.tags.into_iter().collect(),
    };
    Ok(Answer::xml(StatusCode::OK, document.write()))
}

/// `PutObjectTagging`.
pub(super) async fn put(call: &Call, incoming: Incoming) -> Result<Answer, Refusal> {
    let (bucket, key) = call.object().await?;
    let document = call.document(incoming, call.announced()?).await?;
    let tags = headers::tags(Tagging::read(&document)?.tags)?;
    bucket.store.set_tags(&key, tags).await?;
    Ok(Answer::empty(StatusCode::OK))
}

/// `DeleteObjectTagging`.
pub(super) async fn delete(call: &Call) -> Result<Answer, Refusal> {
    let (bucket, key) = call.object().await?;
    bucket.store.set_tags(&key, Tags::new()).await?;
    Ok(Answer::empty(StatusCode::NO_CONTENT))
}
