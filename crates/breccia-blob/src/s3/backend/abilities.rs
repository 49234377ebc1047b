//! What servers silently leave out: found out once, before it is first relied on.
//!
//! Not conditions of writes. Invariant: metadata that the member would drop or change is refused, so
//! what was accepted comes back as it was.

use bytes::Bytes;
use hyper::Method;

use super::S3Store;
use super::conditional::random;
use super::meta::{headers_in, tag_count};
use crate::error::BlobError;
use crate::http::{Repeat, RequestHead};
use crate::meta::{Headers, Tags};

/// A name that servers are known to bend (Ceph's gateway writes `a-b`).
const BENT_NAME: &str = "a_b";

/// What a member was seen to keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Abilities {
    /// Tags given with a put.
    tags: bool,
    /// Tags given with an upload in parts.
    upload_tags: bool,
    /// Underscores in the names of user metadata.
    underscores: bool,
    /// `x-amz-website-redirect-location`.
    redirects: bool,
    /// Tags given with a copy, in place of the source's.
    pub(super) copied_tags: bool,
    /// `x-amz-copy-source-if-match`.
    pub(super) copied_version: bool,
}

impl S3Store {
    /// What the member keeps, found out under reserved names when it is first asked for.
    pub(super) async fn abilities(&self) -> Result<Abilities, BlobError> {
        let found = self.abilities.get_or_try_init(|| self.probe_abilities());
        found.await.copied()
    }

    /// Refuses headers and tags that the member would not keep as they are.
    ///
    /// # Errors
    /// [`BlobError::Unsupported`], and those of the probe.
    pub(super) async fn require_kept(
        &self,
        headers: &Headers,
        tags: &Tags,
    ) -> Result<(), BlobError> {
        let bent = headers.user.keys().any(|name| name.contains('_'));
        let redirected = headers.website_redirect.is_some();
        if tags.is_empty() && !bent && !redirected {
            return Ok(());
        }
        let found = self.abilities().await?;
        let refuse = |operation: &str, reason: &str| {
            Err(BlobError::Unsupported {
                store: self.name.clone(),
                operation: operation.to_owned(),
                reason: reason.to_owned(),
            })
        };
        if !tags.is_empty() && !found.tags {
            return refuse("tags", "the server does not keep them");
        }
        if redirected && !found.redirects {
            let reason = "the server does not keep it";
            return refuse("x-amz-website-redirect-location", reason);
        }
        if bent && !found.underscores {
            let reason = "the server does not keep underscores in the names of user metadata";
            return refuse("user metadata", reason);
        }
        Ok(())
    }

    /// Refuses tags of an upload that the member would not keep.
    ///
    /// # Errors
    /// [`BlobError::Unsupported`], and those of the probe.
    pub(super) async fn require_upload_tags(&self, tags: &Tags) -> Result<(), BlobError> {
        if tags.is_empty() || self.abilities().await?.upload_tags {
            return Ok(());
        }
        Err(BlobError::Unsupported {
            store: self.name.clone(),
            operation: "tags of an upload in parts".to_owned(),
            reason: "the server does not keep them; set them once the upload is completed"
                .to_owned(),
        })
    }

    async fn probe_abilities(&self) -> Result<Abilities, BlobError> {
        let word = random(&self.name)?;
        let source = self.names.reserved(&format!("probe-{word}-a"));
        let target = self.names.reserved(&format!("probe-{word}-b"));
        let found = self.try_abilities(&source, &target).await;
        for name in [&source, &target] {
            let head = self.head_of(Method::DELETE, name, &[]);
            self.call(head, Bytes::new(), Repeat::WhenFailed).await?;
        }
        found
    }

    async fn try_abilities(&self, source: &str, target: &str) -> Result<Abilities, BlobError> {
        let mut head = self.head_of(Method::PUT, source, &[]);
        self.set(&mut head, "x-amz-meta-a_b", "kept")?;
        self.set(&mut head, "x-amz-website-redirect-location", "/kept")?;
        self.set(&mut head, "x-amz-tagging", "a=b")?;
        if !self.accepted(head).await? {
            // Refused with all of it: then with what is never refused.
            let mut head = self.head_of(Method::PUT, source, &[]);
            self.set(&mut head, "x-amz-meta-a_b", "kept")?;
            self.call(head, Bytes::new(), Repeat::WhenFailed).await?;
        }
        let (_, headers) = self.look_with_headers(source).await?;
        let kept = headers_in(&headers);
        let underscores = kept.user.contains_key(BENT_NAME);
        let redirects = kept.website_redirect.is_some();
        let tags = tag_count(&headers) == Some(1);
        let copied_tags = tags && {
            let mut head = self.copy_head(source, target)?;
            self.set(&mut head, "x-amz-tagging-directive", "REPLACE")?;
            self.set(&mut head, "x-amz-tagging", "c=d&e=f")?;
            self.accepted(head).await? && {
                let (_, headers) = self.look_with_headers(target).await?;
                tag_count(&headers) == Some(2)
            }
        };
        let upload_tags = tags && {
            let mut head = self.head_of(Method::POST, target, &[("uploads", "")]);
            self.set(&mut head, "x-amz-tagging", "a=b")?;
            self.probe_upload(head, target, None).await?;
            let (_, headers) = self.look_with_headers(target).await?;
            tag_count(&headers) == Some(1)
        };
        let mut head = self.copy_head(source, target)?;
        let wrong = format!("\"{}\"", "0".repeat(32));
        self.set(&mut head, "x-amz-copy-source-if-match", &wrong)?;
        let copied_version = !self.accepted(head).await?;
        Ok(Abilities {
            tags,
            upload_tags,
            underscores,
            redirects,
            copied_tags,
            copied_version,
        })
    }

    /// Whether a request is accepted; a server's own trouble is an error.
    async fn accepted(&self, head: RequestHead) -> Result<bool, BlobError> {
        let answer = self.ask(head, Bytes::new(), Repeat::WhenFailed).await?;
        Ok(self.telling(answer)?.status.is_success())
    }
}
