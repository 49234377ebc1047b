//! Listings of objects and of reserved objects.
//!
//! Invariant: pages are exact whatever the server makes of markers inside of common prefixes: where
//! servers differ, keys are listed plainly and rolled up here.

use bytes::Bytes;
use hyper::Method;

use super::S3Store;
use super::meta::{bare, etag_of, time_of};
use super::xml::Element;
use crate::error::BlobError;
use crate::http::Repeat;
use crate::key::Key;
use crate::key_names::{KeyMode, ListFrom, RESERVED_PREFIX};
use crate::listing::{
    ListItem, ListPage, ListRequest, ListedObject, MAX_PAGE, RollUp, Start, Step, check_page,
    successor,
};
use crate::s3::codec::uri::decode_plus;

/// What to ask for a page.
#[derive(Debug, Default)]
struct Question {
    prefix: String,
    behind: Option<String>,
    delimiter: bool,
    most: usize,
    token: Option<String>,
}

/// A page as the server gives it.
#[derive(Debug, Default)]
struct RawPage {
    objects: Vec<(String, ListedFacts)>,
    prefixes: Vec<String>,
    truncated: bool,
    token: Option<String>,
}

#[derive(Debug)]
struct ListedFacts {
    size: u64,
    modified_ms: u64,
    native: String,
}

impl ListedFacts {
    fn of(self, key: Key) -> ListedObject {
        ListedObject {
            key,
            size: self.size,
            modified_ms: self.modified_ms,
            etag: etag_of(&self.native),
        }
    }
}

impl S3Store {
    pub(super) async fn list_objects(&self, request: ListRequest) -> Result<ListPage, BlobError> {
        let text = |bytes: &Bytes| std::str::from_utf8(bytes).is_ok();
        // A slash is the one delimiter after which reserved names roll up by themselves.
        let natively = self.names.mode() == KeyMode::Plain
            && request.delimiter.as_deref() == Some(b"/")
            && text(&request.prefix)
            && request.after.as_ref().is_none_or(text);
        let page = if natively {
            self.list_natively(&request).await?
        } else {
            self.list_plainly(&request).await?
        };
        check_page(&self.name, &request, &page)?;
        Ok(page)
    }

    /// Lists keys, and rolls them up here.
    async fn list_plainly(&self, request: &ListRequest) -> Result<ListPage, BlobError> {
        let mut roll_up = RollUp::new(request.clone());
        let prefix = self.names.name_prefix(&request.prefix);
        let (mut last, mut count): (Option<String>, usize) = (None, 0);
        loop {
            let behind = match self.names.list_from(roll_up.next()) {
                ListFrom::Nowhere => break,
                ListFrom::First => None,
                ListFrom::Behind(name) => Some(name),
            };
            let behind = behind.filter(|name| *name > prefix || !prefix.starts_with(name));
            let question = Question {
                prefix: prefix.clone(),
                behind: behind.max(last.clone()),
                most: request.limit.saturating_add(1).min(MAX_PAGE),
                ..Question::default()
            };
            let page = self.page(question).await?;
            let truncated = page.truncated && !page.objects.is_empty();
            for (name, facts) in page.objects {
                if last.as_ref().is_some_and(|last| *last >= name) {
                    return Err(self.out_of_order(&name));
                }
                last = Some(name.clone());
                let Some(key) = self.names.key_of(&name) else {
                    continue;
                };
                let before = roll_up.next().clone();
                let step = roll_up.push(facts.of(key));
                if step == Step::Full {
                    return Ok(roll_up.finish());
                }
                count += usize::from(before != *roll_up.next());
            }
            if !truncated {
                break;
            }
            if count >= request.limit {
                let mut page = roll_up.finish();
                page.more = true;
                return Ok(page);
            }
        }
        Ok(roll_up.finish())
    }

    /// Lets the server roll up, which costs one request a page.
    async fn list_natively(&self, request: &ListRequest) -> Result<ListPage, BlobError> {
        let mut page = ListPage::default();
        let mut behind = match request.start() {
            Start::Nowhere => return Ok(page),
            Start::At(first) if first == request.prefix => None,
            start => match self.names.list_from(&start) {
                ListFrom::Behind(name) => Some(name),
                ListFrom::First => None,
                ListFrom::Nowhere => return Ok(page),
            },
        };
        let mut done: Option<Bytes> = request.after.clone();
        if let Start::Behind(after) = request.start()
            && let Some(prefix) = request.common_prefix(&after)
        {
            // Servers differ for a marker under a common prefix: what is behind it there is looked
            // up, and the page goes on behind the prefix.
            let prefix = Bytes::copy_from_slice(prefix);
            if self.any_behind(&prefix, &after).await? {
                page.items.push(ListItem::Prefix(prefix.clone()));
            }
            let next = successor(&prefix).map_or(Start::Nowhere, Start::At);
            behind = match self.names.list_from(&next) {
                ListFrom::Behind(name) => Some(name),
                _ => None,
            };
            done = Some(prefix);
        }
        let mut token = None;
        loop {
            let room = request.limit.saturating_sub(page.items.len());
            if room == 0 {
                page.more = true;
                return Ok(page);
            }
            let raw = self
                .page(Question {
                    prefix: self.names.name_prefix(&request.prefix),
                    behind: behind.clone(),
                    delimiter: true,
                    most: room.min(MAX_PAGE),
                    token: token.take(),
                })
                .await?;
            let (truncated, next) = (raw.truncated, raw.token.clone());
            let news = self.items_of(raw).into_iter();
            let news = news.filter(|item| done.as_deref().is_none_or(|done| item.name() > done));
            page.items.extend(news);
            if page.items.len() > request.limit {
                page.items.truncate(request.limit);
                page.more = true;
                return Ok(page);
            }
            match (truncated, next) {
                (false, _) => return Ok(page),
                (true, Some(next)) => token = Some(next),
                (true, None) => return Err(self.nonsense("a cut listing without a token", false)),
            }
        }
    }

    /// Whether there are keys with this prefix behind this name.
    async fn any_behind(&self, prefix: &[u8], after: &[u8]) -> Result<bool, BlobError> {
        if prefix.starts_with(RESERVED_PREFIX.as_bytes()) {
            return Ok(false);
        }
        let ListFrom::Behind(behind) = self
            .names
            .list_from(&Start::Behind(Bytes::copy_from_slice(after)))
        else {
            return Ok(false);
        };
        let page = self
            .page(Question {
                prefix: self.names.name_prefix(prefix),
                behind: Some(behind),
                most: 1,
                ..Question::default()
            })
            .await?;
        Ok(!page.objects.is_empty())
    }

    /// Objects and common prefixes in one order: each of both lists is in order already.
    fn items_of(&self, raw: RawPage) -> Vec<ListItem> {
        let own = self.names.prefix().len();
        let mut objects = raw
            .objects
            .into_iter()
            .filter_map(|(name, facts)| {
                let key = self.names.key_of(&name)?;
                Some(ListItem::Object(facts.of(key)))
            })
            .peekable();
        let mut prefixes = raw
            .prefixes
            .into_iter()
            .filter_map(|name| {
                let prefix = name.get(own..)?;
                let hidden = prefix.starts_with(RESERVED_PREFIX);
                (!hidden).then(|| ListItem::Prefix(Bytes::copy_from_slice(prefix.as_bytes())))
            })
            .peekable();
        let mut items = Vec::new();
        loop {
            let object_first = match (objects.peek(), prefixes.peek()) {
                (Some(object), Some(prefix)) => object.name() < prefix.name(),
                (Some(_), None) => true,
                (None, Some(_)) => false,
                (None, None) => return items,
            };
            items.extend(if object_first {
                objects.next()
            } else {
                prefixes.next()
            });
        }
    }

    async fn page(&self, question: Question) -> Result<RawPage, BlobError> {
        let most = question.most.to_string();
        let mut query = vec![
            ("list-type", "2"),
            ("encoding-type", "url"),
            ("max-keys", most.as_str()),
            ("prefix", question.prefix.as_str()),
        ];
        if question.delimiter {
            query.push(("delimiter", "/"));
        }
        match (&question.token, &question.behind) {
            (Some(token), _) => query.push(("continuation-token", token)),
            (None, Some(behind)) => query.push(("start-after", behind)),
            (None, None) => {}
        }
        let head = self.head_of(Method::GET, "", &query);
        let answer = self
            .call(head, Bytes::new(), Repeat::WhenFailed)
            .await
            .map_err(no_bucket(&self.name))?;
        let document = self.document(&answer, false)?;
        if document.name != "ListBucketResult" {
            return Err(self.nonsense("a listing that is none", false));
        }
        let encoded = document.text_of("EncodingType") == Some("url");
        let mut page = RawPage {
            truncated: document.says("IsTruncated"),
            token: document.text_of("NextContinuationToken").map(str::to_owned),
            ..RawPage::default()
        };
        for object in document.all("Contents") {
            if let Some(name) = self.listed_name(object, "Key", encoded)? {
                let size = object.text_of("Size").and_then(|text| text.parse().ok());
                let facts = ListedFacts {
                    size: size
                        .ok_or_else(|| self.nonsense("a listed object without a size", false))?,
                    modified_ms: time_of(object.text_of("LastModified")),
                    native: bare(object.text_of("ETag").unwrap_or_default()).to_owned(),
                };
                page.objects.push((name, facts));
            }
        }
        for prefix in document.all("CommonPrefixes") {
            page.prefixes
                .extend(self.listed_name(prefix, "Prefix", encoded)?);
        }
        Ok(page)
    }

    /// A name in a listing; `None` if it is not text, which no name of ours is.
    pub(super) fn listed_name(
        &self,
        element: &Element,
        child: &str,
        encoded: bool,
    ) -> Result<Option<String>, BlobError> {
        let missing = || self.nonsense("a listing with a nameless item", false);
        let text = &element.child(child).ok_or_else(missing)?.text;
        if !encoded {
            return Ok(Some(text.clone()));
        }
        let bytes = decode_plus(text).map_err(|error| self.nonsense(error.to_string(), false))?;
        Ok(String::from_utf8(bytes).ok())
    }

    fn out_of_order(&self, name: &str) -> BlobError {
        BlobError::OutOfOrder {
            store: self.name.clone(),
            name: name.escape_debug().to_string(),
        }
    }

    pub(super) async fn reserved_names(
        &self,
        prefix: &str,
        after: Option<&str>,
    ) -> Result<Vec<String>, BlobError> {
        let mut found: Vec<String> = Vec::new();
        let mut behind = after.map(|after| self.names.reserved(after));
        loop {
            let page = self
                .page(Question {
                    prefix: self.names.reserved(prefix),
                    behind: behind.take(),
                    most: MAX_PAGE.saturating_sub(found.len()),
                    ..Question::default()
                })
                .await?;
            behind = page.objects.last().map(|(name, _)| name.clone());
            let names = page
                .objects
                .iter()
                .filter_map(|(name, _)| self.names.reserved_of(name));
            found.extend(names.map(str::to_owned));
            if !page.truncated || behind.is_none() || found.len() >= MAX_PAGE {
                found.truncate(MAX_PAGE);
                return Ok(found);
            }
        }
    }
}

/// About the bucket itself, "not found" is the bucket.
pub(super) fn no_bucket(store: &str) -> impl Fn(BlobError) -> BlobError {
    move |error| match error {
        BlobError::NotFound => BlobError::Server {
            store: store.to_owned(),
            status: 404,
            code: "NoSuchBucket".to_owned(),
            message: "the bucket does not exist".to_owned(),
            effect: breccia_core::error::Effect::NotApplied,
        },
        error => error,
    }
}
