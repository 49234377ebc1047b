//! Hexadecimal digits, as signatures and digests are written.
//!
//! Nothing else. Invariant: what is written is lower case; both cases are read.

const DIGITS: [char; 16] = [
    '0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f',
];

/// The bytes as lower-case digits.
pub fn encode(bytes: &[u8]) -> String {
    let digit = |value: u8| DIGITS.get(usize::from(value)).copied().unwrap_or('0');
    let mut text = String::with_capacity(bytes.len().saturating_mul(2));
    for byte in bytes {
        text.push(digit(byte >> 4));
        text.push(digit(byte & 15));
    }
    text
}

/// Exactly `N` bytes from exactly `2 * N` digits.
pub fn decode<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    if text.len() != N.checked_mul(2)? {
        return None;
    }
    let mut bytes = [0; N];
    let (pairs, _) = text.as_chunks::<2>();
    for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
        *byte = (value(*high)? << 4) | value(*low)?;
    }
    Some(bytes)
}

/// The value of one digit.
pub(crate) fn value(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::{decode, encode};

    #[test]
    fn digits_are_read_in_both_cases_and_exact_length() {
        assert_eq!(encode(&[0, 0xaf, 0xff]), "00afff");
        assert_eq!(decode::<2>(b"aFfA"), Some([0xaf, 0xfa]));
        for wrong in [&b"aff"[..], b"afffff", b"zzff", b"", b"+1ff"] {
            assert_eq!(decode::<2>(wrong), None);
        }
    }
}
