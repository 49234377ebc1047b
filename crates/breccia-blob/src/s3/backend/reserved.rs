//! Reserved objects, and questions about the bucket itself.
//!
//! Invariant: nothing here touches a client's key.

use breccia_core::error::Effect;
use bytes::Bytes;
use hyper::Method;

use super::S3Store;
use super::conditional::Guard;
use super::refusal::Refusal;
use crate::error::BlobError;
use crate::http::Repeat;
use crate::store::{MAX_RESERVED_BYTES, ReservedWrite};

impl S3Store {
    pub(super) async fn get_reserved(&self, name: &str) -> Result<Option<Bytes>, BlobError> {
        let head = self.head_of(Method::GET, &self.names.reserved(name), &[]);
        let answer = self.open(head, Bytes::new(), Repeat::WhenFailed).await?;
        let answer = answer.collect(MAX_RESERVED_BYTES).await?;
        if answer.status.is_success() {
            return Ok(Some(answer.bytes));
        }
        match self.refused(Refusal::of(&answer), false) {
            BlobError::NotFound => Ok(None),
            error => Err(error),
        }
    }

    pub(super) async fn put_reserved(
        &self,
        name: &str,
        bytes: Bytes,
        how: ReservedWrite,
    ) -> Result<bool, BlobError> {
        let name = self.names.reserved(name);
        let head = self.head_of(Method::PUT, &name, &[]);
        if how == ReservedWrite::Always {
            self.call(head, bytes, Repeat::WhenFailed).await?;
            return Ok(true);
        }
        match self.look(&name).await {
            Ok(_) => return Ok(false),
            Err(BlobError::NotFound) => {}
            Err(error) => return Err(error),
        }
        let mut guarded = head.clone();
        self.set_guard(&mut guarded, &Guard::IfAbsent)?;
        let written = match self.call(guarded, bytes.clone(), Repeat::Never).await {
            // A server that refuses the condition itself: it was looked at, and that must do.
            Err(BlobError::Unsupported { .. }) => self.call(head, bytes, Repeat::Never).await,
            answer => answer,
        };
        match written {
            Ok(_) => Ok(true),
            Err(BlobError::PreconditionFailed) => Ok(false),
            Err(error) => Err(error),
        }
    }

    pub(super) async fn remove_reserved(&self, name: &str) -> Result<(), BlobError> {
        let head = self.head_of(Method::DELETE, &self.names.reserved(name), &[]);
        match self.call(head, Bytes::new(), Repeat::WhenFailed).await {
            Ok(_) | Err(BlobError::NotFound) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// What an operator should know of the bucket, in words.
    pub(super) async fn describe_bucket(&self) -> Result<Vec<String>, BlobError> {
        let head = self.head_of(Method::GET, "", &[("versioning", "")]);
        let answer = match self.call(head, Bytes::new(), Repeat::WhenFailed).await {
            Err(BlobError::Unsupported { .. }) => return Ok(Vec::new()),
            answer => answer?,
        };
        let document = self.document(&answer, false)?;
        Ok(match document.text_of("Status") {
            Some(status @ ("Enabled" | "Suspended")) => vec![format!(
                "'{}': versioning of bucket {} is {}: only current versions are seen, and \
                 overwritten and deleted objects keep their space until a lifecycle rule removes them",
                self.name,
                self.bucket,
                status.to_lowercase()
            )],
            _ => Vec::new(),
        })
    }

    pub(super) async fn sign_of_life(&self) -> Result<(), BlobError> {
        let prefix = self.names.reserved("");
        let query = [
            ("list-type", "2"),
            ("max-keys", "1"),
            ("prefix", prefix.as_str()),
        ];
        let head = self.head_of(Method::GET, "", &query);
        match self.call(head, Bytes::new(), Repeat::Never).await {
            Ok(_) => Ok(()),
            // An unclear 404 is of the bucket here.
            Err(BlobError::NotFound) => Err(BlobError::Server {
                store: self.name.clone(),
                status: 404,
                code: "NoSuchBucket".to_owned(),
                message: "the bucket does not exist".to_owned(),
                effect: Effect::NotApplied,
            }),
            Err(error) => Err(error),
        }
    }
}
