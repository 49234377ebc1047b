//! Keys in letters and digits, for members that cannot hold every byte in a name.
//!
//! Base32 with the ordered alphabet of RFC 4648 (`0-9a-v`), without padding. It decides no placement.
//!
//! Invariant: encoded names sort as the keys do, and each key has exactly one name.

use thiserror::Error;

const ALPHABET: &[u8; 32] = b"0123456789abcdefghijklmnopqrstuv";
const GROUP_BITS: u32 = 5;

/// A name that no key has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum KeyEncodingError {
    /// A byte that is not in the alphabet.
    #[error("byte {at} of the name is not one of 0-9a-v")]
    Letter {
        /// Where it is.
        at: usize,
    },
    /// The length or the last letter is one that encoding never gives.
    #[error("the name is not the encoding of any key")]
    NotCanonical,
}

/// The name of a key.
pub fn encode(key: &[u8]) -> String {
    encode_groups(key, ALPHABET, true)
}

/// The key of a name.
pub fn decode(name: &str) -> Result<Vec<u8>, KeyEncodingError> {
    let value = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'v' => Some(byte - b'a' + 10),
        _ => None,
    };
    decode_groups(name.as_bytes(), value)
}

/// What the names of all keys with this prefix begin with: a listing can be narrowed to it, and must
/// still look at the decoded keys. It is as long as whole letters are known.
pub fn encoded_prefix(prefix: &[u8]) -> String {
    encode_groups(prefix, ALPHABET, false)
}

/// Groups of five bits, first bits first; a last incomplete one is filled with zeros or left out.
pub(crate) fn encode_groups(bytes: &[u8], alphabet: &[u8; 32], with_last: bool) -> String {
    let mut text = String::with_capacity(bytes.len().saturating_mul(8).div_ceil(5));
    let mut letter = |group: u32| {
        let index = usize::try_from(group & 31).unwrap_or(0);
        text.push(char::from(alphabet.get(index).copied().unwrap_or(b'0')));
    };
    let (mut pending, mut bits) = (0_u32, 0);
    for byte in bytes {
        pending = ((pending & 31) << 8) | u32::from(*byte);
        bits += 8;
        while bits >= GROUP_BITS {
            bits -= GROUP_BITS;
            letter(pending >> bits);
        }
    }
    if with_last && bits > 0 {
        letter(pending << (GROUP_BITS - bits));
    }
    text
}

/// The reverse of [`encode_groups`] with its last group.
pub(crate) fn decode_groups(
    name: &[u8],
    value: impl Fn(u8) -> Option<u8>,
) -> Result<Vec<u8>, KeyEncodingError> {
    let mut bytes = Vec::with_capacity(name.len().saturating_mul(5) / 8);
    let (mut pending, mut bits) = (0_u32, 0);
    for (at, letter) in name.iter().enumerate() {
        let group = value(*letter).ok_or(KeyEncodingError::Letter { at })?;
        pending = (pending << GROUP_BITS) | u32::from(group);
        bits += GROUP_BITS;
        if bits >= 8 {
            bits -= 8;
            bytes.push(u8::try_from((pending >> bits) & 255).unwrap_or(0));
            pending &= (1 << bits) - 1;
        }
    }
    // What is left over is filling: less than a letter of it, and all zeros.
    if bits >= GROUP_BITS || pending != 0 {
        return Err(KeyEncodingError::NotCanonical);
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn keys() -> impl Strategy<Value = Vec<u8>> {
        proptest::collection::vec(any::<u8>(), 0..40)
    }

    #[test]
    fn vectors_of_rfc_4648_hold() {
        let check = |key: &str, name: &str| {
            assert_eq!(encode(key.as_bytes()), name);
            assert_eq!(decode(name).unwrap(), key.as_bytes());
        };
        check("", "");
        check("f", "co");
        check("fo", "cpng");
        check("foo", "cpnmu");
        check("foob", "cpnmuog");
        check("fooba", "cpnmuoj1");
        check("foobar", "cpnmuoj1e8");
    }

    #[test]
    fn names_that_no_key_has_are_refused() {
        let check = |name: &str, error: KeyEncodingError| {
            assert_eq!(decode(name), Err(error), "{name}");
        };
        for name in ["0", "000", "000000", "cp", "01", "co0"] {
            check(name, KeyEncodingError::NotCanonical);
        }
        check("CO", KeyEncodingError::Letter { at: 0 });
        check("cw", KeyEncodingError::Letter { at: 1 });
        check("co======", KeyEncodingError::Letter { at: 2 });
    }

    proptest! {
        #[test]
        fn keys_survive_and_keep_their_order(one in keys(), other in keys()) {
            prop_assert_eq!(decode(&encode(&one)).unwrap(), one.clone());
            prop_assert_eq!(encode(&one).cmp(&encode(&other)), one.cmp(&other));
        }

        #[test]
        fn a_name_that_decodes_is_the_keys_name(name in "[0-9a-v]{0,20}") {
            if let Ok(key) = decode(&name) {
                prop_assert_eq!(encode(&key), name);
            }
        }

        #[test]
        fn the_prefix_of_names_is_shared_and_the_longest(prefix in keys(), tail in keys()) {
            let common = encoded_prefix(&prefix);
            let key = [prefix.clone(), tail].concat();
            prop_assert!(encode(&key).starts_with(&common));
            prop_assert_eq!(common.len(), prefix.len() * 8 / 5);
        }
    }
}
