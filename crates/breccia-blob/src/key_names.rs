//! What keys and reserved objects are called on members that are reached by HTTP.
//!
//! Not the members' own rules beyond those all share. Invariant: each key has exactly one name,
//! names sort as their keys do, and no key has the name of a reserved object.

use bytes::Bytes;

use crate::error::BlobError;
use crate::key::{Key, MAX_KEY_BYTES};
use crate::key_encoding;
use crate::listing::Start;

/// What reserved names begin with, behind the member's key prefix. No encoded key begins so.
pub const RESERVED_PREFIX: &str = "~.breccia/";
/// The last of all characters: no other text that begins as some text does sorts behind that text
/// with this character.
const LAST_CHARACTER: char = '\u{10FFFF}';

/// How keys are written on a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum KeyMode {
    /// As they are; those that the member cannot hold are refused.
    #[default]
    Plain,
    /// The whole key in base32hex, which any member can hold.
    Encoded,
}

/// The names on one member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyNames {
    store: String,
    prefix: String,
    mode: KeyMode,
}

/// Where the listing of a member begins, for members that list names behind a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListFrom {
    /// At the first name.
    First,
    /// Behind this one. A few names that the caller must skip may come first.
    Behind(String),
    /// There is nothing to list.
    Nowhere,
}

impl KeyNames {
    /// The names on the store `store`, all of which begin with `prefix`.
    #[must_use]
    pub fn new(store: impl Into<String>, prefix: impl Into<String>, mode: KeyMode) -> Self {
        Self {
            store: store.into(),
            prefix: prefix.into(),
            mode,
        }
    }

    /// What all names begin with.
    #[must_use]
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The word for it, as the markers and a configuration have it.
    #[must_use]
    pub fn mode_name(&self) -> &'static str {
        match self.mode {
            KeyMode::Plain => "plain",
            KeyMode::Encoded => "encoded",
        }
    }

    /// How keys are written.
    #[must_use]
    pub fn mode(&self) -> KeyMode {
        self.mode
    }

    /// The name of a key.
    ///
    /// # Errors
    /// [`BlobError::KeyRefused`] if a plain key is not text, has a NUL in it, or begins as reserved
    /// names do; [`BlobError::KeyTooLong`] if the name is too long.
    pub fn name_of(&self, key: &Key) -> Result<String, BlobError> {
        let own = match self.mode {
            KeyMode::Plain => self.plain(key)?.to_owned(),
            KeyMode::Encoded => key_encoding::encode(key.as_bytes()),
        };
        let name = format!("{}{own}", self.prefix);
        if name.len() > MAX_KEY_BYTES {
            return Err(BlobError::KeyTooLong { length: name.len() });
        }
        Ok(name)
    }

    fn plain<'k>(&self, key: &'k Key) -> Result<&'k str, BlobError> {
        let refuse = |reason: &str| BlobError::KeyRefused {
            store: self.store.clone(),
            reason: reason.to_owned(),
        };
        let text = key.as_str().ok_or_else(|| refuse("it is not UTF-8"))?;
        if text.contains('\0') {
            return Err(refuse("it has a NUL in it"));
        }
        if text.starts_with(RESERVED_PREFIX) {
            return Err(refuse("it begins with ~.breccia/, which is reserved"));
        }
        Ok(text)
    }

    /// The key of a name; `None` if it is reserved, or no key of ours has it.
    #[must_use]
    pub fn key_of(&self, name: &str) -> Option<Key> {
        let own = name.strip_prefix(&self.prefix)?;
        if own.starts_with(RESERVED_PREFIX) {
            return None;
        }
        match self.mode {
            KeyMode::Plain => Key::new(own.as_bytes().to_vec()).ok(),
            KeyMode::Encoded => Key::new(key_encoding::decode(own).ok()?).ok(),
        }
    }

    /// The name of a reserved object.
    #[must_use]
    pub fn reserved(&self, name: &str) -> String {
        format!("{}{RESERVED_PREFIX}{name}", self.prefix)
    }

    /// The reserved object of a name.
    #[must_use]
    pub fn reserved_of<'n>(&self, name: &'n str) -> Option<&'n str> {
        name.strip_prefix(&self.prefix)?
            .strip_prefix(RESERVED_PREFIX)
    }

    /// What the names of all keys with this prefix begin with. Others may begin so too.
    #[must_use]
    pub fn name_prefix(&self, prefix: &[u8]) -> String {
        let own = match self.mode {
            KeyMode::Plain => leading_text(prefix).to_owned(),
            KeyMode::Encoded => key_encoding::encoded_prefix(prefix),
        };
        format!("{}{own}", self.prefix)
    }

    /// The name behind which the names of all keys from `start` on lie; some before them may, too.
    #[must_use]
    pub fn list_from(&self, start: &Start) -> ListFrom {
        let own = match (start, self.mode) {
            (Start::Nowhere, _) => return ListFrom::Nowhere,
            (Start::At(first), _) if first.is_empty() => return ListFrom::First,
            (Start::Behind(after), KeyMode::Plain) => leading_text(after).to_owned(),
            (Start::Behind(after), KeyMode::Encoded) => key_encoding::encode(after),
            (Start::At(first), KeyMode::Plain) => before_plain(first),
            (Start::At(first), KeyMode::Encoded) => before(&key_encoding::encode(first), '~'),
        };
        ListFrom::Behind(format!("{}{own}", self.prefix))
    }
}

/// As much of the beginning as is text.
fn leading_text(bytes: &[u8]) -> &str {
    match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => bytes
            .get(..error.valid_up_to())
            .and_then(|text| std::str::from_utf8(text).ok())
            .unwrap_or_default(),
    }
}

/// A text right before all that lie at or behind `first`: for a successor of a common prefix, that
/// prefix with the last character behind it.
fn before_plain(first: &Bytes) -> String {
    let mut lower = first.to_vec();
    let Some(last) = lower.last_mut().filter(|last| **last > 0) else {
        return leading_text(
            first
                .get(..first.len().saturating_sub(1))
                .unwrap_or_default(),
        )
        .to_owned();
    };
    *last -= 1;
    if let Ok(text) = std::str::from_utf8(&lower) {
        return format!("{text}{LAST_CHARACTER}");
    }
    let shorter = first.get(..first.len().saturating_sub(1));
    leading_text(shorter.unwrap_or_default()).to_owned()
}

/// The same for ASCII names, none of whose characters sorts behind `highest`.
fn before(first: &str, highest: char) -> String {
    let mut text = first.to_owned();
    let last = text.pop().map_or(0, u32::from);
    if let Some(lower) = last.checked_sub(1).and_then(char::from_u32) {
        text.push(lower);
        text.push(highest);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::listing::successor;

    fn key(bytes: &[u8]) -> Key {
        Key::new(bytes.to_vec()).expect("a key")
    }

    #[test]
    fn names_are_of_one_key_each_and_reserved_ones_of_none() {
        for mode in [KeyMode::Plain, KeyMode::Encoded] {
            let names = KeyNames::new("s", "p/", mode);
            for bytes in [
                &b"a"[..],
                b"/a//b/",
                b".",
                b"..",
                b" ",
                "\u{e9}".as_bytes(),
                b"\x01",
            ] {
                let key = key(bytes);
                let name = names.name_of(&key).expect("a name");
                assert_eq!(names.key_of(&name), Some(key), "{name}");
                assert_eq!(names.reserved_of(&name), None);
            }
            let reserved = names.reserved("marker");
            assert_eq!(names.key_of(&reserved), None);
            assert_eq!(names.reserved_of(&reserved), Some("marker"));
            assert_eq!(names.key_of("q/a"), None);
        }
        let check = |bytes: &[u8], plain: bool, encoded: bool| {
            let accepts = |mode| KeyNames::new("s", "p/", mode).name_of(&key(bytes)).is_ok();
            let found = (accepts(KeyMode::Plain), accepts(KeyMode::Encoded));
            assert_eq!(found, (plain, encoded), "{}", bytes.escape_ascii());
        };
        check(b"\xff", false, true);
        check(b"a\0", false, true);
        check(b"~.breccia/x", false, true);
        check(b"~.breccia", true, true);
        check(&[b'k'; 1022], true, false);
        check(&[b'k'; 1023], false, false);
    }

    #[test]
    fn a_listing_begins_right_before_its_start() {
        let keys: Vec<&[u8]> = vec![
            b"a",
            b"b",
            b"b.",
            b"b/",
            b"b/1",
            b"b/zz",
            b"b0",
            b"b\x7f",
            "b\u{e9}".as_bytes(),
            "b\u{e9}x".as_bytes(),
            "b\u{ea}".as_bytes(),
            "c".as_bytes(),
        ];
        for mode in [KeyMode::Plain, KeyMode::Encoded] {
            let names = KeyNames::new("s", "p/", mode);
            for from in &keys {
                let at = successor(from).expect("a successor");
                for start in [Start::At(at), Start::Behind(Bytes::copy_from_slice(from))] {
                    let ListFrom::Behind(behind) = names.list_from(&start) else {
                        unreachable!("the start is not empty");
                    };
                    for key_bytes in &keys {
                        let name = names.name_of(&key(key_bytes)).expect("a name");
                        let allowed = start.allows(key_bytes);
                        assert_eq!(name > behind, allowed, "{name} {behind} {start:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn names_with_a_prefix_hold_all_its_keys() {
        for mode in [KeyMode::Plain, KeyMode::Encoded] {
            let names = KeyNames::new("s", "p/", mode);
            let text = "ab\u{e9}c".as_bytes();
            for end in 0..=text.len() {
                let name = names.name_of(&key(text)).expect("a name");
                assert!(name.starts_with(&names.name_prefix(&text[..end])), "{end}");
            }
        }
    }
}
