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

use super::dispatch::Call;
use super::documents::{self, DeleteEntry};
use super::namespace::Bucket;
use super::refusal::Refusal;
use super::respond::Answer;
use super::wire_error;
use super::xml::Xml;

/// How many objects of one request are deleted at once.
const AT_ONCE: usize = 16;

/// `DeleteObjects`.
pub(super) async fn delete_many(call: &Call, incoming: Incoming) -> Result<Answer, Refusal> {
    let bucket = call.bucket().await?;
    let document = call.document(incoming).await?;
    let document = documents::deletes(&document)?;
    let deleting = document.entries.iter().map(async |entry| {
        let done = delete_one(&bucket, entry).await;
        (entry, done)
    });
    let outcomes: Vec<_> = stream::iter(deleting).buffered(AT_ONCE).collect().await;
    let mut xml = Xml::root("DeleteResult");
    for (entry, done) in outcomes {
        match done {
            Ok(()) if document.quiet => {}
            Ok(()) => {
                xml.open("Deleted");
                xml.text("Key", &entry.key);
                xml.close();
            }
            Err(refusal) => {
                xml.open("Error");
                xml.text("Key", &entry.key);
                xml.text("Code", wire_error::of(&refusal).code);
                xml.text("Message", &refusal.to_string());
                xml.close();
            }
        }
    }
    Ok(Answer::xml(StatusCode::OK, xml))
}

async fn delete_one(bucket: &Bucket, entry: &DeleteEntry) -> Result<(), Refusal> {
    if let Some(what) = entry.unoffered {
        return Err(Refusal::not_implemented(format!("DeleteObjects by {what}")));
    }
    let condition = match &entry.etag {
        None => WriteCondition::Always,
        Some(text) => WriteCondition::IfMatch(etags(text)?),
    };
    let key = bucket.key(entry.key.as_bytes())?;
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
