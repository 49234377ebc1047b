//! The `azure` member: a container of Azure Blob Storage as a store.
//!
//! A put is one streamed `Put Blob` whose last 64 KiB leave only after all digests were verified, and
//! which carries the packed record as metadata. A checksum that comes *behind* more than 256 KiB is
//! verified, but not kept: the record is sent before the bytes.
//!
//! ```text
//! BlobStore ─▶ object, upload ─▶ wire ─▶ signer ─▶ http
//!          └─▶ packed (listing, uploads, guard) ─▶ Member ─┘
//! ```
//!
//! Not for accounts with a hierarchical namespace, which bend names.
//!
//! Invariant: streamed and conditional requests are sent once; a lost answer is an unknown outcome.

mod names;
mod object;
mod options;
mod refusal;
mod signer;
mod upload;
mod wire;

use std::sync::Mutex;

use bytes::Bytes;
use hyper::Method;

pub use self::options::{AzureCredential, AzureOptions};

use self::signer::AzureSigner;
use crate::body::Body;
use crate::condition::{ConditionalSupport, Support, WriteCondition};
use crate::error::BlobError;
use crate::http::{Endpoint, HttpClient, HttpOptions, MAX_ANSWER_BYTES, Repeat};
use crate::key::Key;
use crate::key_names::KeyNames;
use crate::listing::{ListPage, ListRequest};
use crate::meta::{ObjectMeta, Tags};
use crate::packed::store::as_blob_store;
use crate::packed::{Guard, Member, Question, RawPage, Seen, guard, listing, reserved, uploads};
use crate::s3::backend::xml::Element;
use crate::s3::codec::uri::{Slash, encode};
use crate::store::{
    BlobStore, CopyOptions, GetOptions, MAX_RESERVED_BYTES, Maintained, Opened, PutOptions,
    ReservedWrite, StoreFuture, StoreKind, Written,
};
use crate::upload::{
    CompleteOptions, PartChoice, PartInfo, PartPage, UploadId, UploadOptions, UploadPage,
};

/// A container of Azure Blob Storage.
#[derive(Debug)]
pub struct AzureStore {
    name: String,
    account: String,
    container: String,
    /// The path of the container.
    root: String,
    names: KeyNames,
    client: HttpClient,
    signer: AzureSigner,
    conditional: Mutex<ConditionalSupport>,
}

impl AzureStore {
    /// The store; connects when it is first used.
    ///
    /// # Errors
    /// [`BlobError::Options`]: what is wrong with the options.
    pub fn open(options: AzureOptions) -> Result<Self, BlobError> {
        let refuse = |problem: String| BlobError::Options {
            store: options.name.clone(),
            problem,
        };
        let plain = |text: &str| {
            let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'$';
            !text.is_empty() && text.bytes().all(allowed)
        };
        for (option, value) in [
            ("account", &options.account),
            ("container", &options.container),
        ] {
            if !plain(value) {
                return Err(refuse(format!("{option}: '{value}' is no {option}'s name")));
            }
        }
        let endpoint = Endpoint::parse(&options.endpoint)
            .map_err(|problem| refuse(format!("endpoint: {problem}")))?;
        let root = format!(
            "{}/{}",
            endpoint.base_path,
            encode(options.container.as_bytes(), Slash::Escape)
        );
        let signer = AzureSigner::new(&options.name, &options.account, &options.credential)
            .map_err(refuse)?;
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
            account: options.account,
            container: options.container,
            root,
            client,
            signer,
            conditional: Mutex::new(ConditionalSupport::all(Support::Unprobed)),
        })
    }

    fn name_of(&self, key: &Key) -> Result<String, BlobError> {
        names::name_of(&self.name, &self.names, key)
    }

    async fn list_page(&self, question: Question, repeat: Repeat) -> Result<RawPage, BlobError> {
        let most = question.most.max(1).to_string();
        let mut query = vec![
            ("restype", "container"),
            ("comp", "list"),
            ("include", "metadata"),
            ("maxresults", most.as_str()),
        ];
        if !question.prefix.is_empty() {
            query.push(("prefix", &question.prefix));
        }
        if question.delimiter {
            query.push(("delimiter", "/"));
        }
        match (&question.token, &question.behind) {
            (Some(token), _) => query.push(("marker", token)),
            // Where this is not known it is passed over, and so are names by the caller.
            (None, Some(behind)) => query.push(("startFrom", behind)),
            (None, None) => {}
        }
        let head = self.head_of(Method::GET, "", &query);
        let answer = self.call(head, Bytes::new(), repeat).await?;
        let document =
            Element::parse(&answer.bytes).map_err(|problem| self.nonsense(problem, false))?;
        if document.name != "EnumerationResults" {
            return Err(self.nonsense("a listing that is none", false));
        }
        let mut page = RawPage::default();
        if let Some(blobs) = document.child("Blobs") {
            for blob in blobs.all("Blob") {
                page.objects.push(self.seen_in_list(blob)?);
            }
            for prefix in blobs.all("BlobPrefix") {
                page.prefixes
                    .extend(prefix.child("Name").map(|name| name.text.clone()));
            }
        }
        let token = document
            .text_of("NextMarker")
            .filter(|text| !text.is_empty());
        page.token = token.map(str::to_owned);
        Ok(page)
    }

    async fn read_whole(&self, name: &str) -> Result<Option<Bytes>, BlobError> {
        let head = self.head_of(Method::GET, name, &[]);
        let answer = self
            .exchange(head, Bytes::new(), Repeat::WhenFailed)
            .await?;
        let limit = MAX_RESERVED_BYTES.min(MAX_ANSWER_BYTES);
        let answer = answer.collect(limit).await?;
        if answer.status.is_success() {
            return Ok(Some(answer.bytes));
        }
        match self.refused(&answer, false) {
            BlobError::NotFound => Ok(None),
            error => Err(error),
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

impl Member for AzureStore {
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
        Box::pin(async move {
            let head = self.put_head(name, note, guard)?;
            let repeat = Repeat::of_write(*guard != Guard::None);
            self.call(head, bytes, repeat).await.map(drop)
        })
    }

    fn remove<'a>(&'a self, name: &'a str, guard: &'a Guard) -> StoreFuture<'a, bool> {
        Box::pin(async move {
            let mut head = self.head_of(Method::DELETE, name, &[]);
            self.set_guard(&mut head, guard)?;
            let repeat = Repeat::of_write(*guard != Guard::None);
            match self.call(head, Bytes::new(), repeat).await {
                Ok(_) => Ok(true),
                Err(BlobError::NotFound) if *guard == Guard::None => Ok(false),
                Err(error) => Err(error),
            }
        })
    }

    fn publish<'a>(&'a self, from: &'a str, to: &'a str, guard: &'a Guard) -> StoreFuture<'a, ()> {
        Box::pin(async move {
            let version = self.see(from).await?.native;
            self.copy_blob(from, &version, to, "", guard)
                .await
                .map(drop)
        })
    }

    fn discard_stage<'a>(&'a self, id: &'a str) -> StoreFuture<'a, ()> {
        Box::pin(self.drop_stage(id))
    }
}

as_blob_store!(AzureStore, StoreKind::Azure, "azure", container);
