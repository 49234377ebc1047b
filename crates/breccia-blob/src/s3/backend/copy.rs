//! Copies within the bucket.
//!
//! Invariant: a copy by the server itself is asked for only where the server keeps every promise;
//! else the bytes pass through here.

use bytes::Bytes;
use hyper::Method;

use super::S3Store;
use super::meta::{bare, checksum_by, etag_of, tag_is_opaque, time_of, written_ms};
use super::object::element_of;
use super::refusal::MAX_PUT_BYTES;
use crate::condition::WriteCondition;
use crate::error::BlobError;
use crate::http::{Collected, Repeat, RequestHead};
use crate::key::Key;
use crate::meta::ETag;
use crate::s3::codec::uri::{Slash, encode};
use crate::store::{CopyOptions, Written, copy_streamed};

impl S3Store {
    pub(super) async fn copy_object(
        &self,
        from: &Key,
        to: &Key,
        options: CopyOptions,
    ) -> Result<Written, BlobError> {
        let (source, target) = (self.names.name_of(from)?, self.names.name_of(to)?);
        let headers = options.headers.clone().unwrap_or_default();
        let tags = options.tags.clone().unwrap_or_default();
        self.require_kept(&headers, &tags).await?;
        let meta = self.look(&source).await?;
        options.source.check(&meta)?;
        let conditional = !options.source.is_empty();
        let natively = options.condition == WriteCondition::Always
            && meta.size <= MAX_PUT_BYTES
            && (!conditional || self.abilities().await?.copied_version)
            && (options.tags.is_none() || self.abilities().await?.copied_tags);
        if !natively {
            return copy_streamed(self, from, self, to, options).await;
        }
        let mut head = self.copy_head(&source, &target)?;
        if conditional {
            // The version that met the conditions, and no other.
            let seen = format!("\"{}\"", meta.native.0);
            self.set(&mut head, "x-amz-copy-source-if-match", &seen)?;
        }
        if let Some(headers) = &options.headers {
            self.set(&mut head, "x-amz-metadata-directive", "REPLACE")?;
            self.set_headers(&mut head, headers)?;
        }
        if let Some(tags) = &options.tags {
            self.set(&mut head, "x-amz-tagging-directive", "REPLACE")?;
            self.set_tagging(&mut head, tags)?;
        }
        let answer = match self.call(head, Bytes::new(), Repeat::Never).await {
            Err(BlobError::PreconditionFailed) => {
                let store = self.name.clone();
                return Err(BlobError::Conflict { store });
            }
            answer => answer?,
        };
        self.copied(&answer)
    }

    /// The head of a copy within the bucket.
    pub(super) fn copy_head(&self, source: &str, target: &str) -> Result<RequestHead, BlobError> {
        let mut head = self.head_of(Method::PUT, target, &[]);
        let source = encode(source.as_bytes(), Slash::Keep);
        let source = format!("/{}/{source}", self.bucket);
        self.set(&mut head, "x-amz-copy-source", &source)?;
        Ok(head)
    }

    fn copied(&self, answer: &Collected) -> Result<Written, BlobError> {
        let document = self.document(answer, true)?;
        let native = document.text_of("ETag").map(bare);
        let native = native.ok_or_else(|| self.nonsense("a copy without an ETag", true))?;
        let opaque = tag_is_opaque(&answer.headers);
        let modified_ms = match time_of(document.text_of("LastModified")) {
            0 => written_ms(&answer.headers),
            time => time,
        };
        Ok(Written {
            etag: if opaque {
                ETag::unknown(native.as_bytes())
            } else {
                etag_of(native)
            },
            checksum: checksum_by(|header| element_of(&document, header)),
            modified_ms,
        })
    }
}
