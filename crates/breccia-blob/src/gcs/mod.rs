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
use self::wire::{Resource, Target};
use crate::body::Body;
use crate::condition::{ConditionalSupport, Support, WriteCondition};
use crate::error::BlobError;
use crate::http::{Endpoint, HttpClient, HttpOptions, Repeat};
use crate::key::Key;
use crate::key_names::KeyNames;
use crate::listing::{ListPage, ListRequest};
use crate::meta::{ObjectMeta, Tags};
use crate::packed::store::as_blob_store;
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
        match self
            .call(head, Bytes::new(), Repeat::of_write(*guard != Guard::None))
            .await
        {
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

as_blob_store!(GcsStore, StoreKind::Gcs, "gcs", bucket);
