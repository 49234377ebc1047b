//! Hexadecimal digits, as signatures and digests are written.
//!
//! Nothing else. Invariant: what is written is lower case; both cases are read.

/// The bytes as lower-case digits.
pub fn encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().saturating_mul(2));
    encode_into(&mut text, bytes);
    text
}

/// [`encode`] to the end of a text.
pub(crate) fn encode_into(text: &mut String, bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |value: u8| DIGITS.get(usize::from(value)).copied().unwrap_or(b'0');
    for piece in bytes.chunks(PIECE) {
        let mut digits = [0_u8; 2 * PIECE];
        let (pairs, _) = digits.as_chunks_mut::<2>();
        for (pair, byte) in pairs.iter_mut().zip(piece) {
            *pair = [digit(byte >> 4), digit(byte & 15)];
        }
        let written = digits.get(..piece.len().saturating_mul(2));
        text.push_str(
            written
                .and_then(|it| std::str::from_utf8(it).ok())
                .unwrap_or_default(),
        );
    }
}

/// So many bytes are written at once: a digest.
const PIECE: usize = 32;

/// The value of each digit; [`NONE`] of what is none.
const VALUES: [u8; 256] = {
    let mut values = [NONE; 256];
    let mut places = values.as_mut_slice();
    let mut digit = 0_u8;
    while let Some((value, rest)) = places.split_first_mut() {
        *value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'A'..=b'F' => digit - b'A' + 10,
            b'a'..=b'f' => digit - b'a' + 10,
            _ => NONE,
        };
        places = rest;
        digit = digit.wrapping_add(1);
    }
    values
};
const NONE: u8 = 0xff;

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
    let value = VALUES.get(usize::from(digit)).copied();
    value.filter(|value| *value != NONE)
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
