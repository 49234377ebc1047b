//! The Redis protocol as bytes: where a request ends and its arguments lie, where a reply ends.
//! No socket and no meaning, so it is fuzzed and tested alone.
//!
//! Invariant: "incomplete" and "wrong" are different answers, and no byte is looked at twice
//! except the header of a bulk string that has not arrived whole.

pub mod inline;
pub mod reply;
pub mod request;

/// A line that starts at `from`: its bytes and where the next one starts. `None` while its end has
/// not arrived.
pub(crate) fn line(bytes: &[u8], from: usize) -> Option<(&[u8], usize)> {
    let rest = bytes.get(from..)?;
    let end = memchr::memchr(b'\n', rest)?;
    Some((rest.get(..end)?, from + end + 1))
}

/// A decimal number as Redis reads lengths: an optional minus, no plus, no leading zeros.
pub(crate) fn number(digits: &[u8]) -> Option<i64> {
    let (negative, digits) = match digits.split_first()? {
        (b'-', rest) => (true, rest),
        _ => (false, digits),
    };
    let leading_zero = digits.first() == Some(&b'0') && (digits.len() > 1 || negative);
    if digits.is_empty() || digits.len() > 18 || leading_zero {
        return None;
    }
    let mut value = 0_i64;
    for digit in digits {
        let digit = digit.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        value = value * 10 + i64::from(digit);
    }
    Some(if negative { -value } else { value })
}
