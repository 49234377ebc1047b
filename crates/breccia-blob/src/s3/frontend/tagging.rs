//! The tags of objects.
//!
//! Invariant: setting tags changes nothing else of an object.

use hyper::StatusCode;
use hyper::body::Incoming;

use crate::meta::Tags;

use super::dispatch::Call;
use super::documents;
use super::headers;
use super::refusal::Refusal;
use super::respond::Answer;
use super::xml::Xml;

/// `GetObjectTagging`.
pub(super) async fn get(call: &Call) -> Result<Answer, Refusal> {
    let (bucket, key) = call.object().await?;
    let meta = bucket.store.head(&key).await?;
    let mut xml = Xml::root("Tagging");
    xml.open("TagSet");
    for (key, value) in &meta.tags {
        xml.open("Tag");
        xml.text("Key", key);
        xml.text("Value", value);
        xml.close();
    }
    Ok(Answer::xml(StatusCode::OK, xml))
}

/// `PutObjectTagging`.
pub(super) async fn put(call: &Call, incoming: Incoming) -> Result<Answer, Refusal> {
    let (bucket, key) = call.object().await?;
    let document = call.document(incoming).await?;
    let tags = headers::tags(documents::tags(&document)?)?;
    bucket.store.set_tags(&key, tags).await?;
    Ok(Answer::empty(StatusCode::OK))
}

/// `DeleteObjectTagging`.
pub(super) async fn delete(call: &Call) -> Result<Answer, Refusal> {
    let (bucket, key) = call.object().await?;
    bucket.store.set_tags(&key, Tags::new()).await?;
    Ok(Answer::empty(StatusCode::NO_CONTENT))
}
