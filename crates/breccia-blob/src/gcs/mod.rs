//! The `gcs` member: a bucket of Google Cloud Storage as a store, by its JSON API.
//!
//! A small object goes in one request with its packed record; a larger one in a resumable session
//! whose one request is streamed, its last 64 KiB only after all digests were verified. A checksum
//! that comes *behind* more than 256 KiB is verified, but not kept: the record is sent before.
//!
//! ```text
//! BlobStore ─▶ object, upload ─▶ wire ─▶ token ─▶ http
//!          └─▶ packed (listing, uploads, guard) ─▶ Member ─┘
//! ```
//!
//! Invariant: streamed and conditional requests are sent once; a lost answer is an unknown outcome.

mod names;
mod object;
mod options;
mod refusal;
mod token;
mod upload;
mod wire;

use std::sync::Mutex;

use bytes::Bytes;
use hyper::Method;
use serde::Deserialize;

pub use self::options::{GcsCredential, GcsOptions};

use self::token::GcsSigner;
use self::wire::{Repeat, Resource, Target};
use crate::body::Body;
use crate::condition::{ConditionalSupport, Support, WriteCondition};
use crate::error::BlobError;
use crate::http::{Endpoint, HttpClient, HttpOptions};
use crate::key::Key;
use crate::key_names::{KeyMode, KeyNames};
use crate::listing::{ListPage, ListRequest};
use crate::meta::{ObjectMeta, Tags};
use crate::packed::{Guard, Member, Question, RawPage, Seen, guard, listing, reserved, uploads};
use crate::s3::codec::uri::{Slash, encode};
use crate::store::{
    BlobStore, CopyOptions, GetOptions, MAX_RESERVED_BYTES, Maintained, Opened, PutOptions,
    ReservedWrite, StoreFuture, StoreKind, Written,
};
use crate::upload::{
    CompleteOptions, PartChoice, PartInfo, PartPage, UploadId, UploadOptions, UploadPage,
};

/// The fields of a listing that are asked for.
const LIST_FIELDS: &str = "items(name,size,timeCreated,md5Hash,generation,metageneration,\
    metadata/breccia),prefixes,nextPageToken";

/// A bucket of Google Cloud Storage.
#[derive(Debug)]
pub struct GcsStore {
    name: String,
    bucket: String,
    /// The path of the bucket's objects.
    objects: String,
    /// The path of uploads to the bucket.
    uploads: String,
    names: KeyNames,
    client: HttpClient,
    signer: GcsSigner,
    conditional: Mutex<ConditionalSupport>,
}

/// A page of a listing. Empty lists are left out.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Listing {
    #[serde(default)]
    items: Vec<Resource>,
    #[serde(default)]
    prefixes: Vec<String>,
    next_page_token: Option<String>,
}

impl GcsStore {
    /// The store; connects when it is first used.
    ///
    /// # Errors
    /// [`BlobError::Options`]: what is wrong with the options or the key file.
    pub fn open(options: GcsOptions) -> Result<Self, BlobError> {
        let refuse = |problem: String| BlobError::Options {
            store: options.name.clone(),
            problem,
        };
        let bucket = &options.bucket;
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if bucket.is_empty() || !bucket.bytes().all(allowed) {
            return Err(refuse(format!("bucket: '{bucket}' is no bucket's name")));
        }
        let endpoint = Endpoint::parse(&options.endpoint)
            .map_err(|problem| refuse(format!("endpoint: {problem}")))?;
        let signer = GcsSigner::new(&options.name, &options.credential).map_err(refuse)?;
        let path = format!(
            "storage/v1/b/{}/o",
            encode(options.bucket.as_bytes(), Slash::Escape)
        );
        let base = endpoint.base_path.clone();
        let client = HttpClient::new(HttpOptions {
            store: options.name.clone(),
            endpoint,
            tls: options.tls,
            timeout: options.timeout,
            max_connections: options.max_connections,
            max_retries: options.max_retries,
        })?;
        Ok(Self {
            names: KeyNames::new(options.name.clone(), options.key_prefix, options.keys),
            name: options.name,
            bucket: options.bucket,
            objects: format!("{base}/{path}"),
            uploads: format!("{base}/upload/{path}"),
            client,
            signer,
            conditional: Mutex::new(ConditionalSupport::all(Support::Unprobed)),
        })
    }

    fn name_of(&self, key: &Key) -> Result<String, BlobError> {
        names::name_of(&self.name, &self.names, key)
    }

    async fn list_page(&self, question: Question, repeat: Repeat) -> Result<RawPage, BlobError> {
        let mut target = Target::new(self.objects.clone())
            .with("maxResults", &question.most.max(1).to_string())
            .with("fields", LIST_FIELDS);
        if !question.prefix.is_empty() {
            target = target.with("prefix", &question.prefix);
        }
        if question.delimiter {
            target = target.with("delimiter", "/");
        }
        if let Some(behind) = &question.behind {
            // It begins at this name; the caller passes over it.
            target = target.with("startOffset", behind);
        }
        if let Some(token) = &question.token {
            target = target.with("pageToken", token);
        }
        let head = target.head(Method::GET);
        let answer = match self.call(head, Bytes::new(), repeat).await {
            // About the bucket itself, "not found" is the bucket.
            Err(BlobError::NotFound) => return Err(self.no_bucket()),
            answer => answer?,
        };
        let listing: Listing = self.read(&answer.bytes, false)?;
        let mut page = RawPage {
            prefixes: listing.prefixes,
            token: listing.next_page_token,
            ..RawPage::default()
        };
        for mut item in listing.items {
            let name = std::mem::take(&mut item.name);
            let seen = item
                .seen()
                .map_err(|problem| self.nonsense(problem, false))?;
            page.objects.push((name, seen));
        }
        Ok(page)
    }

    fn no_bucket(&self) -> BlobError {
        BlobError::Server {
            store: self.name.clone(),
            status: 404,
            code: "notFound".to_owned(),
            message: "the bucket does not exist".to_owned(),
            effect: breccia_core::error::Effect::NotApplied,
        }
    }

    async fn read_whole(&self, name: &str) -> Result<Option<Bytes>, BlobError> {
        let head = self.object(name).with("alt", "media").head(Method::GET);
        let answer = self
            .exchange(head, Bytes::new(), Repeat::WhenFailed)
            .await?;
        let answer = answer.collect(MAX_RESERVED_BYTES).await?;
        if answer.status.is_success() {
            return Ok(Some(answer.bytes));
        }
        match self.refused(&answer, false) {
            BlobError::NotFound => Ok(None),
            error => Err(error),
        }
    }

    async fn remove_named(&self, name: &str, guard: &Guard) -> Result<bool, BlobError> {
        let head = self.object(name).under(guard).head(Method::DELETE);
        match self.call(head, Bytes::new(), Repeat::under(guard)).await {
            Ok(_) => Ok(true),
            Err(BlobError::NotFound) if *guard == Guard::None => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn sign_of_life(&self) -> Result<(), BlobError> {
        let question = Question {
            prefix: self.names.reserved(""),
            most: 1,
            ..Question::default()
        };
        self.list_page(question, Repeat::Never).await.map(drop)
    }
}

impl Member for GcsStore {
    fn names(&self) -> &KeyNames {
        &self.names
    }

    fn offered(&self) -> &Mutex<ConditionalSupport> {
        &self.conditional
    }

    fn page(&self, question: Question) -> StoreFuture<'_, RawPage> {
        Box::pin(self.list_page(question, Repeat::WhenFailed))
    }

    fn look<'a>(&'a self, name: &'a str) -> StoreFuture<'a, Seen> {
        Box::pin(self.see(name))
    }

    fn read_small<'a>(&'a self, name: &'a str) -> StoreFuture<'a, Option<Bytes>> {
        Box::pin(self.read_whole(name))
    }

    fn write_small<'a>(
        &'a self,
        name: &'a str,
        bytes: Bytes,
        note: &'a str,
        guard: &'a Guard,
    ) -> StoreFuture<'a, ()> {
        Box::pin(self.put_small(name, bytes, note, guard))
    }

    fn remove<'a>(&'a self, name: &'a str, guard: &'a Guard) -> StoreFuture<'a, bool> {
        Box::pin(self.remove_named(name, guard))
    }

    fn publish<'a>(&'a self, from: &'a str, to: &'a str, guard: &'a Guard) -> StoreFuture<'a, ()> {
        Box::pin(self.compose_one(from, to, guard))
    }

    fn discard_stage<'a>(&'a self, id: &'a str) -> StoreFuture<'a, ()> {
        Box::pin(self.drop_joins(id))
    }
}

impl BlobStore for GcsStore {
    fn name(&self) -> &str {
        &self.name
    }

    fn kind(&self) -> StoreKind {
        StoreKind::Gcs
    }

    fn location(&self) -> Option<String> {
        let endpoint = self.client.endpoint();
        let scheme = if endpoint.https { "https" } else { "http" };
        Some(format!(
            "gcs:{scheme}://{}{}/{}/{}",
            endpoint.host_header(),
            endpoint.base_path,
            self.bucket,
            self.names.prefix()
        ))
    }

    fn key_mode(&self) -> Option<&'static str> {
        Some(match self.names.mode() {
            KeyMode::Plain => "plain",
            KeyMode::Encoded => "encoded",
        })
    }

    fn conditional(&self) -> ConditionalSupport {
        guard::support(self)
    }

    fn probe_conditional(&self) -> StoreFuture<'_, ConditionalSupport> {
        Box::pin(guard::probe(self))
    }

    fn accepts(&self, key: &Key) -> Result<(), BlobError> {
        self.name_of(key).map(drop)
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
        Box::pin(listing::list(self, request))
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
        Box::pin(uploads::begin(self, key, options))
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
        Box::pin(uploads::abort(self, key, upload))
    }

    fn list_parts<'a>(
        &'a self,
        key: &'a Key,
        upload: &'a UploadId,
        after: u16,
        limit: usize,
    ) -> StoreFuture<'a, PartPage> {
        Box::pin(uploads::part_page(self, key, upload, after, limit))
    }

    fn list_uploads(
        &self,
        prefix: Bytes,
        after: Option<(Key, Option<UploadId>)>,
        limit: usize,
    ) -> StoreFuture<'_, UploadPage> {
        Box::pin(async move { uploads::page(self, &prefix, after, limit).await })
    }

    fn read_reserved<'a>(&'a self, name: &'a str) -> StoreFuture<'a, Option<Bytes>> {
        Box::pin(async move { self.read_small(&self.names.reserved(name)).await })
    }

    fn write_reserved<'a>(
        &'a self,
        name: &'a str,
        bytes: Bytes,
        how: ReservedWrite,
    ) -> StoreFuture<'a, bool> {
        Box::pin(reserved::write(self, name, bytes, how))
    }

    fn delete_reserved<'a>(&'a self, name: &'a str) -> StoreFuture<'a, ()> {
        Box::pin(async move {
            let name = self.names.reserved(name);
            self.remove(&name, &Guard::None).await.map(drop)
        })
    }

    fn list_reserved<'a>(
        &'a self,
        prefix: &'a str,
        after: Option<&'a str>,
    ) -> StoreFuture<'a, Vec<String>> {
        Box::pin(reserved::list(self, prefix, after))
    }

    fn probe(&self) -> StoreFuture<'_, ()> {
        Box::pin(self.sign_of_life())
    }

    fn maintain(&self, expired_before_ms: u64) -> StoreFuture<'_, Maintained> {
        Box::pin(uploads::maintain(self, expired_before_ms))
    }
}
