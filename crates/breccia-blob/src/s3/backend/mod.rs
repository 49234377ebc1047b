//! The `s3` member: a bucket of an S3 server as a store.
//!
//! Not the wire towards clients. A put is one streamed `PutObject` whose last 64 KiB leave only after
//! all digests were verified; everything else is the server's own calls, natively:
//!
//! ```text
//! BlobStore ─▶ object, upload, listing, conditional ─▶ wire ─▶ signer (credentials) ─▶ http
//!                                                       └─ xml, meta, refusal: answers back
//! ```
//!
//! What differs from server to server: an object encrypted by SSE-KMS or SSE-C has another `ETag` in
//! `head` and `get` (ending in `-0`) than in a listing, which does not tell how it is encrypted; and
//! `write_reserved` with `IfAbsent` looks first where the server ignores `If-None-Match`.
//!
//! Seen on servers: Ceph's gateway 16 compares `If-Match` of a put with the tag without quotes, ignores
//! `x-amz-copy-source-if-match` and the tagging directive of a copy, writes `-` for `_` in names of
//! user metadata, drops the tags of an upload in parts, and completes only with all parts; Garage 2
//! ignores all conditions of writes and drops tags. Each is found out by trying, not by name.
//!
//! Invariant: streamed and conditional requests are sent once; a lost answer is an unknown outcome.

mod abilities;
mod conditional;
mod copy;
mod credentials;
mod listing;
mod meta;
mod object;
mod options;
mod refusal;
mod reserved;
mod signer;
#[cfg(test)]
mod tests;
mod upload;
mod upload_listing;
mod wire;
pub(crate) mod xml;

use std::sync::Mutex;
use std::sync::atomic::AtomicBool;

use bytes::Bytes;
use tokio::sync::OnceCell;

pub use options::{CredentialSource, S3Options};

use self::abilities::Abilities;
use self::credentials::{CredentialCache, Variables, process_variables};
use self::signer::MemberSigner;
use crate::body::Body;
use crate::condition::{ConditionalSupport, Support, WriteCondition};
use crate::error::BlobError;
use crate::http::{Endpoint, HttpClient, HttpOptions};
use crate::key::Key;
use crate::key_names::KeyNames;
use crate::listing::{ListPage, ListRequest};
use crate::meta::{ObjectMeta, Tags};
use crate::s3::codec::uri::{Slash, encode};
use crate::store::{
    BlobStore, CopyOptions, GetOptions, Maintained, Opened, PutOptions, ReservedWrite, StoreFuture,
    StoreKind, Written,
};
use crate::upload::{
    CompleteOptions, PartChoice, PartInfo, PartPage, UploadId, UploadOptions, UploadPage,
};

/// The region where none is named.
const DEFAULT_REGION: &str = "us-east-1";

/// A bucket of an S3 server.
#[derive(Debug)]
pub struct S3Store {
    name: String,
    bucket: String,
    /// The path of the bucket.
    root: String,
    names: KeyNames,
    probing: tokio::sync::Mutex<()>,
    client: HttpClient,
    signer: MemberSigner,
    conditional: Mutex<ConditionalSupport>,
    bare_tags: AtomicBool,
    abilities: OnceCell<Abilities>,
}

impl S3Store {
    /// The store; connects when it is first used.
    ///
    /// # Errors
    /// [`BlobError::Options`]: what is wrong with the options or the environment's credentials.
    pub fn new(options: S3Options) -> Result<Self, BlobError> {
        Self::with_variables(options, &process_variables())
    }

    fn with_variables(options: S3Options, variables: &Variables) -> Result<Self, BlobError> {
        let refuse = |problem: String| BlobError::Options {
            store: options.name.clone(),
            problem,
        };
        if options.bucket.is_empty() || options.bucket.contains('/') {
            return Err(refuse(format!(
                "bucket: '{}' is no bucket's name",
                options.bucket
            )));
        }
        let region = options
            .region
            .clone()
            .or_else(|| variables("AWS_REGION"))
            .or_else(|| variables("AWS_DEFAULT_REGION"))
            .unwrap_or_else(|| DEFAULT_REGION.to_owned());
        let url = match &options.endpoint {
            Some(url) => url.clone(),
            None => format!("https://s3.{region}.amazonaws.com"),
        };
        let mut endpoint =
            Endpoint::parse(&url).map_err(|problem| refuse(format!("endpoint: {problem}")))?;
        let in_path = options.path_style.unwrap_or(options.endpoint.is_some());
        let mut root = endpoint.base_path.clone();
        if in_path {
            root = format!(
                "{root}/{}",
                encode(options.bucket.as_bytes(), Slash::Escape)
            );
        } else {
            let host = format!("{}.{}", options.bucket, endpoint.host);
            endpoint = endpoint.with_host(host);
        }
        let source = &options.credentials;
        let credentials = CredentialCache::new(&options.name, source, variables, &region)?;
        let client = HttpClient::new(HttpOptions {
            store: options.name.clone(),
            endpoint,
            tls: options.tls,
            timeout: options.timeout,
            max_connections: options.max_connections,
            max_retries: options.max_retries,
        })?;
        Ok(Self {
            probing: tokio::sync::Mutex::default(),
            names: KeyNames::new(options.name.clone(), options.key_prefix, options.keys),
            signer: MemberSigner::new(&options.name, &region, credentials),
            name: options.name,
            bucket: options.bucket,
            root,
            client,
            conditional: Mutex::new(ConditionalSupport::all(Support::Unprobed)),
            bare_tags: AtomicBool::new(false),
            abilities: OnceCell::new(),
        })
    }
}

impl BlobStore for S3Store {
    fn name(&self) -> &str {
        &self.name
    }

    fn kind(&self) -> StoreKind {
        StoreKind::S3
    }

    fn key_mode(&self) -> Option<&'static str> {
        Some(self.names.mode_name())
    }

    fn location(&self) -> Option<String> {
        let place = self.client.endpoint();
        Some(format!(
            "s3:{place}/{}/{}",
            self.bucket,
            self.names.prefix()
        ))
    }

    fn conditional(&self) -> ConditionalSupport {
        self.conditional_support()
    }

    fn probe_conditional(&self) -> StoreFuture<'_, ConditionalSupport> {
        Box::pin(self.probe_calls())
    }

    fn accepts(&self, key: &Key) -> Result<(), BlobError> {
        self.names.name_of(key).map(drop)
    }

    fn put<'a>(
        &'a self,
        key: &'a Key,
        body: Body,
        options: PutOptions,
    ) -> StoreFuture<'a, Written> {
        Box::pin(self.put_object(key, body, options))
    }

    fn get<'a>(&'a self, key: &'a Key, options: GetOptions) -> StoreFuture<'a, Opened> {
        Box::pin(self.get_object(key, options))
    }

    fn head<'a>(&'a self, key: &'a Key) -> StoreFuture<'a, ObjectMeta> {
        Box::pin(self.head_object(key))
    }

    fn delete<'a>(&'a self, key: &'a Key, condition: WriteCondition) -> StoreFuture<'a, bool> {
        Box::pin(self.delete_object(key, condition))
    }

    fn list(&self, request: ListRequest) -> StoreFuture<'_, ListPage> {
        Box::pin(self.list_objects(request))
    }

    fn copy<'a>(
        &'a self,
        from: &'a Key,
        to: &'a Key,
        options: CopyOptions,
    ) -> StoreFuture<'a, Written> {
        Box::pin(self.copy_object(from, to, options))
    }

    fn set_tags<'a>(&'a self, key: &'a Key, tags: Tags) -> StoreFuture<'a, ()> {
        Box::pin(self.replace_tags(key, tags))
    }

    fn create_upload<'a>(
        &'a self,
        key: &'a Key,
        options: UploadOptions,
    ) -> StoreFuture<'a, UploadId> {
        Box::pin(self.begin_upload(key, options))
    }

    fn put_part<'a>(
        &'a self,
        key: &'a Key,
        upload: &'a UploadId,
        number: u16,
        body: Body,
    ) -> StoreFuture<'a, PartInfo> {
        Box::pin(self.write_part(key, upload, number, body))
    }

    fn complete_upload<'a>(
        &'a self,
        key: &'a Key,
        upload: &'a UploadId,
        parts: Vec<PartChoice>,
        options: CompleteOptions,
    ) -> StoreFuture<'a, Written> {
        Box::pin(self.finish_upload(key, upload, parts, options))
    }

    fn abort_upload<'a>(&'a self, key: &'a Key, upload: &'a UploadId) -> StoreFuture<'a, ()> {
        Box::pin(self.end_upload(key, upload))
    }

    fn list_parts<'a>(
        &'a self,
        key: &'a Key,
        upload: &'a UploadId,
        after: u16,
        limit: usize,
    ) -> StoreFuture<'a, PartPage> {
        Box::pin(self.parts_page(key, upload, after, limit))
    }

    fn list_uploads(
        &self,
        prefix: Bytes,
        after: Option<(Key, Option<UploadId>)>,
        limit: usize,
    ) -> StoreFuture<'_, UploadPage> {
        Box::pin(self.uploads_page(prefix, after, limit))
    }

    fn read_reserved<'a>(&'a self, name: &'a str) -> StoreFuture<'a, Option<Bytes>> {
        Box::pin(self.get_reserved(name))
    }

    fn write_reserved<'a>(
        &'a self,
        name: &'a str,
        bytes: Bytes,
        how: ReservedWrite,
    ) -> StoreFuture<'a, bool> {
        Box::pin(self.put_reserved(name, bytes, how))
    }

    fn delete_reserved<'a>(&'a self, name: &'a str) -> StoreFuture<'a, ()> {
        Box::pin(self.remove_reserved(name))
    }

    fn list_reserved<'a>(
        &'a self,
        prefix: &'a str,
        after: Option<&'a str>,
    ) -> StoreFuture<'a, Vec<String>> {
        Box::pin(self.reserved_names(prefix, after))
    }

    fn describe(&self) -> StoreFuture<'_, Vec<String>> {
        Box::pin(self.describe_bucket())
    }

    fn probe(&self) -> StoreFuture<'_, ()> {
        Box::pin(self.sign_of_life())
    }

    fn maintain(&self, expired_before_ms: u64) -> StoreFuture<'_, Maintained> {
        Box::pin(self.end_expired(expired_before_ms))
    }
}
