//! Base64 as memcached reads and writes binary keys. It is not a strict decoder: bytes outside the
//! alphabet are skipped and the first padded group ends the text, as in memcached 1.6.
//!
//! Invariant: what `decode` accepts names the same key here and in memcached.

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// The six bits of a character, 0 for padding; `None` for a byte that is skipped.
fn bits(byte: u8) -> Option<u32> {
    let value = match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        b'=' => 0,
        _ => return None,
    };
    Some(value.into())
}

/// The bytes that `text` stands for, or `None` if memcached would not decode it.
pub(crate) fn decode(text: &[u8]) -> Option<Vec<u8>> {
    let known = text.iter().filter(|byte| bits(**byte).is_some()).count();
    if known == 0 || known % 4 != 0 {
        return None;
    }
    let mut out = Vec::with_capacity(known / 4 * 3);
    let (mut group, mut count, mut padding) = (0_u32, 0, 0);
    for byte in text {
        let Some(six) = bits(*byte) else { continue };
        padding += usize::from(*byte == b'=');
        group = group << 6 | six;
        count += 1;
        if count == 4 {
            let [_, bytes @ ..] = group.to_be_bytes();
            out.extend_from_slice(&bytes);
            (group, count) = (0, 0);
            if padding > 2 {
                return None;
            }
            if padding > 0 {
                out.truncate(out.len() - padding);
                break;
            }
        }
    }
    (!out.is_empty()).then_some(out)
}

/// Appends `bytes` as base64, padded.
pub(crate) fn encode(bytes: &[u8], out: &mut Vec<u8>) {
    for chunk in bytes.chunks(3) {
        let mut group = [0_u8; 4];
        for (place, byte) in group.iter_mut().skip(1).zip(chunk) {
            *place = *byte;
        }
        let group = u32::from_be_bytes(group);
        for index in 0..4 {
            if index > chunk.len() {
                out.push(b'=');
                continue;
            }
            let six = (group >> (18 - 6 * index)) & 63;
            out.push(ALPHABET.get(six as usize).copied().unwrap_or(b'='));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, decoded: Option<&[u8]>) {
        assert_eq!(decode(text.as_bytes()).as_deref(), decoded, "{text}");
    }

    #[test]
    fn text_decodes_as_in_memcached() {
        check("Zm9v", Some(b"foo"));
        check("Zm8=", Some(b"fo"));
        check("Zg==", Some(b"f"));
        check("Zn==", Some(b"f"));
        check("Z!m9v", Some(b"foo"));
        check("Zm=v", Some(b"f`"));
        check("Zm9vZg==Zg==", Some(b"foof"));
        check("Zm8", None);
        check("Zm9vY", None);
        check("====", None);
        check("Z===", None);
        check("Zm9v-_ab", None);
        check("!!!!", None);
        check("", None);
    }

    #[test]
    fn encoded_bytes_decode_back() {
        for length in 1..=64_usize {
            let bytes: Vec<u8> = (0..length)
                .map(|i| u8::try_from(i * 37 % 256).unwrap())
                .collect();
            let mut text = Vec::new();
            encode(&bytes, &mut text);
            assert_eq!(text.len(), length.div_ceil(3) * 4);
            assert_eq!(decode(&text), Some(bytes));
        }
    }
}
