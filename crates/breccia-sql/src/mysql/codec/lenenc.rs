//! Numbers and strings of a length that is written in front of them.
//!
//! Source: the protocol's "Integer Types" and "String Types". Invariant: what is not all there is
//! `None`, never a guess.

/// A number, and how many bytes it took; `None` if it is not all there, or no number (NULL, an error).
#[must_use]
pub fn read_int(bytes: &[u8]) -> Option<(u64, usize)> {
    let (first, rest) = bytes.split_first()?;
    let take = |count: usize| {
        let mut value = [0; 8];
        value.get_mut(..count)?.copy_from_slice(rest.get(..count)?);
        Some((u64::from_le_bytes(value), count + 1))
    };
    match first {
        0..=0xfa => Some((u64::from(*first), 1)),
        0xfc => take(2),
        0xfd => take(3),
        0xfe => take(8),
        _ => None,
    }
}

/// Writes a number.
pub fn write_int(out: &mut Vec<u8>, value: u64) {
    let bytes = value.to_le_bytes();
    let (first, count) = match value {
        0..=0xfa => {
            out.extend_from_slice(bytes.get(..1).unwrap_or_default());
            return;
        }
        0xfb..=0xffff => (0xfc, 2),
        0x1_0000..=0xff_ffff => (0xfd, 3),
        _ => (0xfe, 8),
    };
    out.push(first);
    out.extend_from_slice(bytes.get(..count).unwrap_or_default());
}

/// Writes a string with its length in front.
pub fn write_str(out: &mut Vec<u8>, text: &[u8]) {
    write_int(out, text.len() as u64);
    out.extend_from_slice(text);
}
