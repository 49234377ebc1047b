//! What is hashed for an object whose program names it by something else.
//!
//! Stalwart hashes the raw key of a blob and names the object by a base32 of it, behind a prefix. To
//! find what it placed, the name has to be turned back. The hash is computed elsewhere.
//!
//! Invariant: the same name gives the same placement key, always; no name is refused.

use std::borrow::Cow;

use crate::key_encoding::decode_groups;

/// How the placement key of an object is found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum PlacementKey {
    /// It is the object's name.
    #[default]
    Name,
    /// `placement-key = "stalwart"`: the raw key that the name encodes.
    Stalwart {
        /// What Stalwart's `keyPrefix` puts in front of every name.
        prefix: Vec<u8>,
    },
}

impl PlacementKey {
    /// The bytes to hash for the object of this name.
    ///
    /// A name that Stalwart would not give (without the prefix, with other letters, or not the one
    /// encoding of its key) belongs to somebody else: it is hashed as it is.
    pub fn of<'a>(&self, name: &'a [u8]) -> Cow<'a, [u8]> {
        match self {
            PlacementKey::Name => Cow::Borrowed(name),
            PlacementKey::Stalwart { prefix } => name
                .strip_prefix(prefix.as_slice())
                .and_then(|rest| decode_groups(rest, value).ok())
                .map_or(Cow::Borrowed(name), Cow::Owned),
        }
    }
}

/// Stalwart's alphabet: the letters, then `792013`.
fn value(byte: u8) -> Option<u8> {
    match byte {
        b'a'..=b'z' => Some(byte - b'a'),
        b'7' => Some(26),
        b'9' => Some(27),
        b'2' => Some(28),
        b'0' => Some(29),
        b'1' => Some(30),
        b'3' => Some(31),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key_encoding::encode_groups;
    use proptest::prelude::*;

    const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz792013";

    fn stalwart(prefix: &str) -> PlacementKey {
        PlacementKey::Stalwart {
            prefix: prefix.as_bytes().to_vec(),
        }
    }

    #[test]
    fn names_from_the_wild_give_their_raw_keys() {
        let check = |name: &str, key: &[u8]| {
            assert_eq!(*stalwart("").of(name.as_bytes()), *key, "{name}");
        };
        let counting: Vec<u8> = (0..32).collect();
        check("nbswy9dp", b"hello");
        check(&"a".repeat(52), &[0; 32]);
        check(
            "aaaqeayeaudaocajbifqydiob2ibceqtcqkrmfyydenbwha0dypq",
            &counting,
        );
        check("knkectcxifjfix7xivbecrcnjfha", b"STALWART_WEBADMIN");
        check("", b"");
    }

    #[test]
    fn foreign_names_are_hashed_as_they_are() {
        let check = |prefix: &str, name: &str| {
            assert_eq!(
                *stalwart(prefix).of(name.as_bytes()),
                *name.as_bytes(),
                "{name}"
            );
        };
        check("", "NBSWY9DP");
        check("", "nbswy8dp");
        check("", "nbswy9dpa");
        check("", "nbswy9dq7");
        check("", "some/other.txt");
        check("mail/", "nbswy9dp");
        assert_eq!(*stalwart("mail/").of(b"mail/nbswy9dp"), *b"hello");
        assert_eq!(*PlacementKey::Name.of(b"nbswy9dp"), *b"nbswy9dp");
    }

    proptest! {
        #[test]
        fn every_raw_key_is_found_again(key in proptest::collection::vec(any::<u8>(), 0..60)) {
            let name = format!("p-{}", encode_groups(&key, ALPHABET, true));
            prop_assert_eq!(&*stalwart("p-").of(name.as_bytes()), &key[..]);
        }
    }
}
