//! The placement key: which bytes of a key a composite hashes.
//!
//! Not here: hashing, and hash tags (see [`crate::hash`]).
//!
//! Invariant: a key that is not in the form a rule decodes is hashed as it is, so every key has a
//! place; a rule means one function for ever.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use crate::error::CoreError;

/// The longest prefix of object names, in bytes.
pub const MAX_PREFIX_BYTES: usize = 512;

/// How Stalwart writes the 32 values of five bits in its object names.
const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz792013";

/// What stands for a byte that is no digit of [`ALPHABET`].
const NO_DIGIT: u8 = u8::MAX;

/// The value of each byte as a digit.
const DIGITS: [u8; 256] = digits();

const RAW: &str = "raw";
const STALWART: &str = "stalwart";

/// Which bytes of a key decide where it lies.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
#[non_exhaustive]
pub enum PlacementKey {
    /// The key as it is.
    #[default]
    Raw,
    /// What Stalwart hashes: its raw key, of which the object's name is the base32 form after a
    /// prefix. Data that Stalwart itself sharded is found where it lies.
    Stalwart {
        /// The `key-prefix` of Stalwart's store, in front of every name; may be empty.
        prefix: String,
    },
}

impl PlacementKey {
    /// The names of all rules, as in a config.
    pub const NAMES: &[&str] = &[RAW, STALWART];

    /// The rule's name, as in a config.
    pub fn name(&self) -> &'static str {
        match self {
            PlacementKey::Raw => RAW,
            PlacementKey::Stalwart { .. } => STALWART,
        }
    }

    /// The prefix it takes off, if the rule has one.
    pub fn prefix(&self) -> &str {
        match self {
            PlacementKey::Raw => "",
            PlacementKey::Stalwart { prefix } => prefix,
        }
    }

    /// Whether a text can be the prefix of a rule: it must stand in a layout document unescaped.
    pub fn is_prefix(text: &str) -> bool {
        let usable = |byte: u8| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\';
        text.len() <= MAX_PREFIX_BYTES && text.bytes().all(usable)
    }

    /// The bytes of a key that are hashed.
    #[inline]
    pub fn hashed_bytes<'k>(&self, key: &'k [u8]) -> Cow<'k, [u8]> {
        match self {
            PlacementKey::Raw => Cow::Borrowed(key),
            PlacementKey::Stalwart { prefix } => key
                .strip_prefix(prefix.as_bytes())
                .and_then(decode)
                .map_or(Cow::Borrowed(key), Cow::Owned),
        }
    }
}

/// As in a layout document: `raw`, `stalwart`, `stalwart:PREFIX`.
impl fmt::Display for PlacementKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        match self.prefix() {
            "" => Ok(()),
            prefix => write!(f, ":{prefix}"),
        }
    }
}

impl FromStr for PlacementKey {
    type Err = CoreError;

    fn from_str(text: &str) -> Result<Self, CoreError> {
        let (name, prefix) = text
            .split_once(':')
            .map_or((text, None), |(name, prefix)| (name, Some(prefix)));
        match (name, prefix) {
            (RAW, None) => Ok(PlacementKey::Raw),
            (STALWART, None) => Ok(PlacementKey::Stalwart {
                prefix: String::new(),
            }),
            // One rule has one text.
            (STALWART, Some(prefix)) if !prefix.is_empty() && Self::is_prefix(prefix) => {
                Ok(PlacementKey::Stalwart {
                    prefix: prefix.to_owned(),
                })
            }
            _ => Err(CoreError::BadPlacementKey {
                text: text.to_owned(),
            }),
        }
    }
}

/// The bytes behind a name: five bits a digit, the highest first, without padding. `None` if no
/// bytes have this name: a foreign sign, a digit too many, or bits left over that are not zero.
fn decode(name: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(name.len() * 5 / 8);
    // The bits read and not yet given out are the lowest `held` of these.
    let (mut bits, mut held) = (0_u16, 0_u32);
    for sign in name {
        let digit = *DIGITS.get(usize::from(*sign))?;
        if digit == NO_DIGIT {
            return None;
        }
        bits = bits << 5 | u16::from(digit);
        held += 5;
        if held >= 8 {
            held -= 8;
            bytes.push(u8::try_from(bits >> held).ok()?);
            bits &= (1 << held) - 1;
        }
    }
    (held < 5 && bits == 0).then_some(bytes)
}

const fn digits() -> [u8; 256] {
    let mut digits = [NO_DIGIT; 256];
    let mut value = 0_u8;
    let mut rest: &[u8] = ALPHABET;
    while let [sign, others @ ..] = rest {
        let (_, tail) = digits.split_at_mut(*sign as usize);
        if let [slot, ..] = tail {
            *slot = value;
        }
        value += 1;
        rest = others;
    }
    digits
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::HashKind;

    fn stalwart(prefix: &str) -> PlacementKey {
        PlacementKey::Stalwart {
            prefix: prefix.to_owned(),
        }
    }

    /// The name of some bytes: the other way round, written apart from the decoder.
    fn encode(bytes: &[u8]) -> String {
        let bit = |at: usize| {
            let byte = bytes.get(at / 8).copied().unwrap_or_default();
            usize::from(byte >> (7 - at % 8) & 1)
        };
        let starts = (0..bytes.len() * 8).step_by(5);
        let value = |start: usize| (start..start + 5).fold(0, |value, at| value * 2 + bit(at));
        starts
            .map(|start| char::from(ALPHABET[value(start)]))
            .collect()
    }

    #[test]
    fn names_of_the_wild_decode() {
        let check = |name: &str, raw: &[u8]| {
            assert_eq!(decode(name.as_bytes()).as_deref(), Some(raw), "{name}");
            assert_eq!(encode(raw), name);
        };
        let counted: Vec<u8> = (0..32).collect();
        check("", b"");
        check("nbswy9dp", b"hello");
        check(&"a".repeat(52), &[0; 32]);
        check(
            "aaaqeayeaudaocajbifqydiob2ibceqtcqkrmfyydenbwha0dypq",
            &counted,
        );
        check("knkectcxifjfix7xivbecrcnjfha", b"STALWART_WEBADMIN");
    }

    #[test]
    fn a_name_that_no_bytes_have_is_hashed_as_it_is() {
        let check = |name: &str| {
            assert_eq!(decode(name.as_bytes()), None, "{name}");
            let key = stalwart("");
            assert_eq!(key.hashed_bytes(name.as_bytes()), name.as_bytes());
        };
        // Foreign signs: upper case, the standard alphabet's digits, padding.
        check("NBSWY9DP");
        check("nbswy4dp");
        check("nbswy9d=");
        check("nbsw/9dp");
        // Lengths that no whole number of bytes has.
        check("a");
        check("nba");
        check("nbswya");
        // Bits left over.
        check("nb");
        check(&format!("{}b", "a".repeat(51)));
    }

    /// Published vectors, chosen to tell the rules apart: n = 3 and 5, XXH3 and the first byte.
    #[test]
    fn stalwarts_objects_lie_where_stalwart_put_them() {
        let check = |raw: &[u8], hash: u64, xxh3: [u64; 2], first_byte: [u64; 2]| {
            let name = format!("mail/{}", encode(raw));
            let key = stalwart("mail/");
            let hashed = key.hashed_bytes(name.as_bytes());
            assert_eq!(hashed, raw);
            assert_eq!(HashKind::Xxh3_64.hash(&hashed), hash);
            assert_eq!([hash % 3, hash % 5], xxh3);
            let first = HashKind::FirstByte.hash(&hashed);
            assert_eq!([first % 3, first % 5], first_byte);
            // Without the prefix it is no name of this store.
            let bare = encode(raw);
            assert_eq!(key.hashed_bytes(bare.as_bytes()), bare.as_bytes());
        };
        let counted: Vec<u8> = (0..32).collect();
        check(b"hello", 0x9555_e855_5c62_dcfd, [2, 4], [2, 4]);
        check(&[0; 32], 0xa057_271c_9071_c99d, [2, 4], [0, 0]);
        check(&counted, 0x3523_581f_e96e_4c05, [1, 1], [0, 0]);
        check(&[0xff; 32], 0x36f6_a79e_eaf6_03f2, [0, 0], [0, 0]);
    }

    #[test]
    fn every_length_reads_back() {
        for length in 0..70_u8 {
            let raw: Vec<u8> = (0..length)
                .map(|at| at.wrapping_mul(151) ^ length)
                .collect();
            assert_eq!(decode(encode(&raw).as_bytes()), Some(raw));
        }
    }

    #[test]
    fn a_rule_is_one_text() {
        let check = |text: &str, rule: PlacementKey| {
            assert_eq!(rule.to_string(), text);
            assert_eq!(text.parse::<PlacementKey>(), Ok(rule));
        };
        check("raw", PlacementKey::Raw);
        check("stalwart", stalwart(""));
        check("stalwart:a/b:c", stalwart("a/b:c"));
        let long = format!("stalwart:{}", "x".repeat(MAX_PREFIX_BYTES + 1));
        for text in [
            "",
            "Raw",
            "raw:x",
            "stalwart:",
            "stalwart:\"",
            "stalwart:é",
            "x",
            &long,
        ] {
            let error = text.parse::<PlacementKey>().unwrap_err().to_string();
            assert!(error.contains("raw, stalwart"), "{error}");
        }
    }
}
