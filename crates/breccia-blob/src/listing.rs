//! Listings: pages of keys in byte order, with common prefixes.
//!
//! Not the merging of several members' pages: the composite does that. Invariant: the items of a
//! page are in strictly ascending byte order of their names, and all lie behind `after`.

use bytes::Bytes;

use crate::error::BlobError;
use crate::key::Key;
use crate::meta::ETag;

/// The most items of one page.
pub const MAX_PAGE: usize = 1000;

/// What to list.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ListRequest {
    /// Only keys that begin with this; may be empty.
    pub prefix: Bytes,
    /// Only items behind this name. A common prefix equal to it is not given again, nor are the
    /// keys under it; a common prefix that it lies *under* is given if there are keys behind it.
    pub after: Option<Bytes>,
    /// Keys that have this behind the prefix are rolled up into one common prefix that ends with
    /// its first occurrence. Never empty.
    pub delimiter: Option<Bytes>,
    /// The most items, 1 to [`MAX_PAGE`].
    pub limit: usize,
}

/// An object in a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedObject {
    /// Its key.
    pub key: Key,
    /// How many bytes it has.
    pub size: u64,
    /// When it was written, in milliseconds since the Unix epoch.
    pub modified_ms: u64,
    /// Its tag.
    pub etag: ETag,
}

/// One item of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListItem {
    /// An object.
    Object(ListedObject),
    /// Keys that share this, up to and with the delimiter.
    Prefix(Bytes),
}

impl ListItem {
    /// The name it is ordered by, and after which the next page begins.
    #[must_use]
    pub fn name(&self) -> &[u8] {
        match self {
            Self::Object(object) => object.key.as_bytes(),
            Self::Prefix(prefix) => prefix,
        }
    }
}

/// One page.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ListPage {
    /// The items, in order.
    pub items: Vec<ListItem>,
    /// Whether there may be more behind the last. A page with no items has no more.
    pub more: bool,
}

impl ListRequest {
    /// The common prefix a key is rolled up into, if it is.
    #[must_use]
    pub fn common_prefix<'k>(&self, key: &'k [u8]) -> Option<&'k [u8]> {
        let delimiter = self.delimiter.as_ref()?;
        let rest = key.strip_prefix(&*self.prefix)?;
        let at = memchr::memmem::find(rest, delimiter)?;
        key.get(..self.prefix.len() + at + delimiter.len())
    }

    /// Where a member that lists keys in order must begin: at the first key that can give an item.
    #[must_use]
    pub fn start(&self) -> Start {
        let Some(after) = self.after.as_ref().filter(|after| **after >= self.prefix) else {
            return Start::At(self.prefix.clone());
        };
        if self.common_prefix(after) == Some(&**after) {
            return match successor(after) {
                Some(next) => Start::At(next),
                None => Start::Nowhere,
            };
        }
        Start::Behind(after.clone())
    }
}

/// Where a listing of a member begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Start {
    /// At this key or the first behind it.
    At(Bytes),
    /// At the first key behind this one.
    Behind(Bytes),
    /// There can be no such key.
    Nowhere,
}

impl Start {
    /// Whether a key lies there or behind.
    #[must_use]
    pub fn allows(&self, key: &[u8]) -> bool {
        match self {
            Self::At(first) => key >= &**first,
            Self::Behind(after) => key > &**after,
            Self::Nowhere => false,
        }
    }
}

/// The least byte string that is greater than every string with this prefix; none if there is none.
#[must_use]
pub fn successor(prefix: &[u8]) -> Option<Bytes> {
    let end = prefix.iter().rposition(|byte| *byte != u8::MAX)?;
    let mut next = prefix.get(..=end)?.to_vec();
    let last = next.last_mut()?;
    *last = last.saturating_add(1);
    Some(next.into())
}

/// Rolls up a member's keys into items, where the member lists plain keys only.
///
/// The caller asks [`RollUp::next`] where to go on, fetches keys from there in order, and gives
/// each to [`RollUp::push`] until that says to fetch anew from a later place, or the page is full.
#[derive(Debug)]
pub struct RollUp {
    request: ListRequest,
    items: Vec<ListItem>,
    next: Start,
    more: bool,
}

/// What to do after a key was given to a [`RollUp`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Give it the key that follows.
    Go,
    /// Everything up to another place would be rolled up: fetch from [`RollUp::next`] instead,
    /// unless the keys at hand go on behind it (each key is held against [`Start::allows`]).
    Skip,
    /// The page is full.
    Full,
}

impl RollUp {
    /// A page with nothing in it yet.
    #[must_use]
    pub fn new(request: ListRequest) -> Self {
        let next = request.start();
        Self {
            request,
            items: Vec::new(),
            next,
            more: false,
        }
    }

    /// Where the member goes on.
    #[must_use]
    pub fn next(&self) -> &Start {
        &self.next
    }

    /// Takes in the next object of the member.
    pub fn push(&mut self, object: ListedObject) -> Step {
        let key = object.key.as_bytes();
        if !self.next.allows(key) || !key.starts_with(&self.request.prefix) {
            return Step::Go;
        }
        if self.items.len() >= self.request.limit {
            self.more = true;
            return Step::Full;
        }
        let prefix = self.request.common_prefix(key);
        if let Some(prefix) = prefix {
            let prefix = Bytes::copy_from_slice(prefix);
            self.next = successor(&prefix).map_or(Start::Nowhere, Start::At);
            self.items.push(ListItem::Prefix(prefix));
            Step::Skip
        } else {
            self.next = Start::Behind(object.key.bytes());
            self.items.push(ListItem::Object(object));
            Step::Go
        }
    }

    /// The page.
    #[must_use]
    pub fn finish(self) -> ListPage {
        ListPage {
            items: self.items,
            more: self.more,
        }
    }
}

/// Checks what a member gave: names behind `after`, in strictly ascending order, with the prefix.
///
/// # Errors
/// [`BlobError::OutOfOrder`] names the member.
pub fn check_page(store: &str, request: &ListRequest, page: &ListPage) -> Result<(), BlobError> {
    let mut before: Option<&[u8]> = None;
    for item in &page.items {
        let name = item.name();
        let ascending = match before {
            Some(before) => before < name,
            None => lies_behind(request, item),
        };
        if !ascending || !name.starts_with(&request.prefix) {
            return Err(BlobError::OutOfOrder {
                store: store.to_owned(),
                name: name.escape_ascii().to_string(),
            });
        }
        before = Some(name);
    }
    Ok(())
}

/// Whether an item may come behind the request's `after`: also a common prefix that it lies under.
fn lies_behind(request: &ListRequest, item: &ListItem) -> bool {
    let Some(after) = request.after.as_deref() else {
        return true;
    };
    let name = item.name();
    let above = || matches!(item, ListItem::Prefix(_)) && name != after && after.starts_with(name);
    name > after || above()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(key: &str) -> ListedObject {
        ListedObject {
            key: Key::new(key.as_bytes().to_vec()).expect("a key"),
            size: 0,
            modified_ms: 0,
            etag: ETag::from_text("e"),
        }
    }

    fn list(keys: &[&str], request: &ListRequest) -> (Vec<String>, bool) {
        let mut roll_up = RollUp::new(request.clone());
        for key in keys {
            if roll_up.push(object(key)) == Step::Full {
                break;
            }
        }
        let page = roll_up.finish();
        let names = page
            .items
            .iter()
            .map(|item| item.name().escape_ascii().to_string());
        (names.collect(), page.more)
    }

    #[test]
    fn keys_are_rolled_up_and_pages_go_on_behind_a_prefix() {
        let keys = ["a", "b/1", "b/2", "b0", "c/x/y", "d"];
        let check = |prefix: &str, after: Option<&str>, limit, expected: &[&str], more| {
            let request = ListRequest {
                prefix: Bytes::copy_from_slice(prefix.as_bytes()),
                after: after.map(|after| Bytes::copy_from_slice(after.as_bytes())),
                delimiter: Some(Bytes::from_static(b"/")),
                limit,
            };
            let found = list(&keys, &request);
            assert_eq!(
                found,
                (expected.iter().map(|s| (*s).to_owned()).collect(), more)
            );
        };
        check("", None, 1000, &["a", "b/", "b0", "c/", "d"], false);
        check("", None, 2, &["a", "b/"], true);
        check("", Some("b/"), 2, &["b0", "c/"], true);
        check("", Some("b/1"), 2, &["b/", "b0"], true);
        check("", Some("c/"), 9, &["d"], false);
        check("b/", None, 9, &["b/1", "b/2"], false);
        check("c/", None, 9, &["c/x/"], false);
        check("", Some("d"), 9, &[], false);
    }

    #[test]
    fn a_page_that_begins_before_its_place_or_goes_back_is_refused() {
        let request = ListRequest {
            after: Some(Bytes::from_static(b"b/1")),
            delimiter: Some(Bytes::from_static(b"/")),
            limit: 9,
            ..ListRequest::default()
        };
        let check = |items: Vec<ListItem>, good: bool| {
            let page = ListPage { items, more: false };
            assert_eq!(check_page("s", &request, &page).is_ok(), good, "{page:?}");
        };
        let key = |key: &str| ListItem::Object(object(key));
        let prefix = |text: &'static str| ListItem::Prefix(Bytes::from_static(text.as_bytes()));
        check(vec![], true);
        check(vec![key("b/2"), key("c")], true);
        check(vec![key("b/1")], false);
        check(vec![key("a")], false);
        check(vec![prefix("b/"), key("c")], true);
        check(vec![prefix("a/")], false);
        check(vec![key("d"), key("c")], false);
        check(vec![key("d"), key("d")], false);
    }

    #[test]
    fn successors_lie_behind_everything_with_the_prefix() {
        assert_eq!(successor(b"ab"), Some(Bytes::from_static(b"ac")));
        assert_eq!(successor(b"a\xff\xff"), Some(Bytes::from_static(b"b")));
        assert_eq!(successor(b"\xff"), None);
        assert_eq!(successor(b""), None);
    }
}
