//! Listings of names, as keys or as they are.
//!
//! Not a page's wire format. Invariant: pages are exact also where a service cannot begin a listing
//! behind a name: what lies before is passed over here.

use bytes::Bytes;

use super::record::Seen;
use super::{Member, nonsense};
use crate::error::BlobError;
use crate::key::Key;
use crate::key_names::{KeyMode, ListFrom, RESERVED_PREFIX};
use crate::listing::{
    ListItem, ListPage, ListRequest, ListedObject, RollUp, Start, Step, check_page, successor,
};

/// The most names that are asked for at once: with a record each they fit into an answer.
pub(crate) const MAX_NAMES: usize = 500;

/// What to ask for a page.
#[derive(Debug, Clone, Default)]
pub(crate) struct Question {
    pub(crate) prefix: String,
    /// Names up to this one are not wanted; a member may give them all the same.
    pub(crate) behind: Option<String>,
    /// Whether to roll up behind a slash.
    pub(crate) delimiter: bool,
    pub(crate) most: usize,
    /// Where the page before ended, in the service's words.
    pub(crate) token: Option<String>,
}

/// A page as the service gives it.
#[derive(Debug, Default)]
pub(crate) struct RawPage {
    pub(crate) objects: Vec<(String, Seen)>,
    pub(crate) prefixes: Vec<String>,
    /// Where the next page begins, if there is one.
    pub(crate) token: Option<String>,
}

/// One page of a listing of keys.
pub(crate) async fn list<M: Member + ?Sized>(
    member: &M,
    request: ListRequest,
) -> Result<ListPage, BlobError> {
    let text = |bytes: &Bytes| std::str::from_utf8(bytes).is_ok();
    // A slash is the one delimiter after which reserved names roll up by themselves.
    let natively = member.names().mode() == KeyMode::Plain
        && request.delimiter.as_deref() == Some(b"/")
        && text(&request.prefix)
        && request.after.as_ref().is_none_or(text);
    let page = if natively {
        list_natively(member, &request).await?
    } else {
        list_plainly(member, &request).await?
    };
    check_page(member.name(), &request, &page)?;
    Ok(page)
}

/// Pages of names from a place on, in order, each name once.
pub(crate) struct Walk<'m, M: Member + ?Sized> {
    member: &'m M,
    question: Question,
    last: Option<String>,
    ended: bool,
}

impl<'m, M: Member + ?Sized> Walk<'m, M> {
    /// All names with a prefix.
    pub(crate) fn all(member: &'m M, prefix: String) -> Self {
        let question = Question {
            prefix,
            most: MAX_NAMES,
            ..Question::default()
        };
        Self::new(member, question)
    }

    /// The objects of the next page, which may be none; `None` behind the last page.
    pub(crate) async fn objects(&mut self) -> Result<Option<Vec<(String, Seen)>>, BlobError> {
        if self.ended {
            return Ok(None);
        }
        Ok(Some(self.next().await?.objects))
    }

    fn new(member: &'m M, question: Question) -> Self {
        Self {
            member,
            last: question.behind.clone(),
            question,
            ended: false,
        }
    }

    /// The next page, without what lies before the place; an empty one may be followed by more.
    async fn next(&mut self) -> Result<RawPage, BlobError> {
        let mut page = self.member.page(self.question.clone()).await?;
        let before = self.question.token.take();
        self.ended = page.token.is_none();
        if !self.ended && page.token == before {
            return Err(nonsense(
                self.member.name(),
                "a listing that does not go on",
                false,
            ));
        }
        self.question.token = page.token.take();
        let behind = self.question.behind.as_ref();
        let wanted = |name: &String| behind.is_none_or(|behind| name > behind);
        page.objects.retain(|(name, _)| wanted(name));
        page.prefixes.retain(wanted);
        for (name, _) in &page.objects {
            if self.last.as_ref().is_some_and(|last| last >= name) {
                return Err(BlobError::OutOfOrder {
                    store: self.member.name().to_owned(),
                    name: name.escape_debug().to_string(),
                });
            }
            self.last = Some(name.clone());
        }
        Ok(page)
    }
}

/// At most so many names with a prefix, behind a name.
pub(crate) async fn walk<M: Member + ?Sized>(
    member: &M,
    prefix: String,
    behind: Option<String>,
    most: usize,
) -> Result<Vec<(String, Seen)>, BlobError> {
    let question = Question {
        prefix,
        behind,
        most: most.min(MAX_NAMES),
        ..Question::default()
    };
    let mut walk = Walk::new(member, question);
    let mut found = Vec::new();
    while !walk.ended && found.len() < most {
        found.extend(walk.next().await?.objects);
    }
    found.truncate(most);
    Ok(found)
}

/// Lists keys, and rolls them up here.
async fn list_plainly<M: Member + ?Sized>(
    member: &M,
    request: &ListRequest,
) -> Result<ListPage, BlobError> {
    let mut roll_up = RollUp::new(request.clone());
    let prefix = member.names().name_prefix(&request.prefix);
    loop {
        let behind = match member.names().list_from(roll_up.next()) {
            ListFrom::Nowhere => break,
            ListFrom::First => None,
            ListFrom::Behind(name) => Some(name),
        };
        let question = Question {
            prefix: prefix.clone(),
            // A place before the whole prefix says nothing.
            behind: behind.filter(|name| *name > prefix),
            most: request.limit.saturating_add(1).min(MAX_NAMES),
            ..Question::default()
        };
        match roll_up_from(Walk::new(member, question), &mut roll_up).await? {
            Rolled::Elsewhere => {}
            Rolled::Full | Rolled::Ended => break,
        }
    }
    Ok(roll_up.finish())
}

enum Rolled {
    Full,
    Ended,
    /// The rest of the names at hand is rolled up: it is cheaper to begin anew behind them.
    Elsewhere,
}

async fn roll_up_from<M: Member + ?Sized>(
    mut walk: Walk<'_, M>,
    roll_up: &mut RollUp,
) -> Result<Rolled, BlobError> {
    let names = walk.member.names();
    while !walk.ended {
        let mut skipping = false;
        for (name, seen) in walk.next().await?.objects {
            let Some(key) = names.key_of(&name) else {
                continue;
            };
            skipping = !roll_up.next().allows(key.as_bytes());
            match roll_up.push(listed(key, seen)) {
                Step::Full => return Ok(Rolled::Full),
                Step::Skip => skipping = true,
                Step::Go => {}
            }
        }
        if skipping && !walk.ended {
            return Ok(Rolled::Elsewhere);
        }
    }
    Ok(Rolled::Ended)
}

fn listed(key: Key, seen: Seen) -> ListedObject {
    let meta = seen.listed_meta();
    ListedObject {
        key,
        size: meta.size,
        modified_ms: meta.modified_ms,
        etag: meta.etag,
    }
}

/// Lets the service roll up, which costs one request a page.
async fn list_natively<M: Member + ?Sized>(
    member: &M,
    request: &ListRequest,
) -> Result<ListPage, BlobError> {
    let names = member.names();
    let mut page = ListPage::default();
    let mut start = request.start();
    let mut done: Option<Bytes> = request.after.clone();
    if let Start::Behind(after) = &start
        && let Some(prefix) = request.common_prefix(after)
    {
        // What lies under the same common prefix is looked up, and the page goes on behind it.
        let prefix = Bytes::copy_from_slice(prefix);
        if any_behind(member, &prefix, &start).await? {
            page.items.push(ListItem::Prefix(prefix.clone()));
        }
        start = successor(&prefix).map_or(Start::Nowhere, Start::At);
        done = Some(prefix);
    }
    let prefix = names.name_prefix(&request.prefix);
    let behind = match names.list_from(&start) {
        ListFrom::Nowhere => return Ok(page),
        ListFrom::First => None,
        ListFrom::Behind(name) => Some(name),
    };
    let question = Question {
        prefix: prefix.clone(),
        behind: behind.filter(|name| *name > prefix),
        delimiter: true,
        most: request.limit.saturating_add(1).min(MAX_NAMES),
        ..Question::default()
    };
    let mut walk = Walk::new(member, question);
    while !walk.ended {
        let news = items_of(member, walk.next().await?);
        let news = news
            .into_iter()
            .filter(|item| done.as_deref().is_none_or(|done| item.name() > done));
        page.items.extend(news);
        if page.items.len() > request.limit {
            page.items.truncate(request.limit);
            page.more = true;
            break;
        }
    }
    Ok(page)
}

/// Whether there are keys with this prefix from there on.
async fn any_behind<M: Member + ?Sized>(
    member: &M,
    prefix: &[u8],
    start: &Start,
) -> Result<bool, BlobError> {
    if prefix.starts_with(RESERVED_PREFIX.as_bytes()) {
        return Ok(false);
    }
    let ListFrom::Behind(behind) = member.names().list_from(start) else {
        return Ok(false);
    };
    let prefix = member.names().name_prefix(prefix);
    Ok(!walk(member, prefix, Some(behind), 1).await?.is_empty())
}

/// Objects and common prefixes in one order.
fn items_of<M: Member + ?Sized>(member: &M, raw: RawPage) -> Vec<ListItem> {
    let names = member.names();
    let own = names.prefix().len();
    let objects = raw.objects.into_iter().filter_map(|(name, seen)| {
        let key = names.key_of(&name)?;
        Some(ListItem::Object(listed(key, seen)))
    });
    let mut items: Vec<ListItem> = objects.collect();
    items.extend(raw.prefixes.into_iter().filter_map(|name| {
        let prefix = name.get(own..)?;
        let hidden = prefix.starts_with(RESERVED_PREFIX);
        (!hidden).then(|| ListItem::Prefix(Bytes::copy_from_slice(prefix.as_bytes())))
    }));
    items.sort_by(|one, other| one.name().cmp(other.name()));
    items
}
