//! Decimal numbers as Redis and memcached read them from a value. Not lenient: what those servers
//! refuse is refused. Invariant: a number that is written by this process reads back as itself.

/// A signed number in the one form Redis takes as an integer: no sign but `-`, no leading zeros, no
/// spaces, within 64 bits.
#[must_use]
pub fn parse_integer(text: &[u8]) -> Option<i64> {
    let digits = match text {
        b"0" => return Some(0),
        [b'-', digits @ ..] => digits,
        digits => digits,
    };
    if !matches!(digits.first(), Some(b'1'..=b'9')) || text.len() > 20 {
        return None;
    }
    // The checks above leave nothing that `parse` takes and Redis does not.
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// An unsigned number as memcached's `incr` takes it: up to 20 digits, trailing spaces allowed
/// (memcached itself pads with them), leading zeros too.
#[must_use]
pub fn parse_counter(text: &[u8]) -> Option<u64> {
    let digits = text.trim_ascii_end();
    if digits.is_empty() || digits.len() > 20 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_read_as_strictly_as_in_redis() {
        let check = |text: &str, expected: Option<i64>| {
            assert_eq!(parse_integer(text.as_bytes()), expected, "{text:?}");
        };
        check("0", Some(0));
        check("7", Some(7));
        check("-7", Some(-7));
        check("9223372036854775807", Some(i64::MAX));
        check("-9223372036854775808", Some(i64::MIN));
        for wrong in [
            "", "-", "-0", "+1", "01", "00", " 1", "1 ", "1.0", "1e3", "0x1", "--1",
            "9223372036854775808", "-9223372036854775809", "99999999999999999999",
        ] {
            check(wrong, None);
        }
    }

    #[test]
    fn counters_may_be_padded() {
        let check = |text: &str, expected: Option<u64>| {
            assert_eq!(parse_counter(text.as_bytes()), expected, "{text:?}");
        };
        check("0", Some(0));
        check("9 ", Some(9));
        check("007", Some(7));
        check("18446744073709551615", Some(u64::MAX));
        for wrong in ["", " ", "-1", "+1", " 1", "1a", "18446744073709551616"] {
            check(wrong, None);
        }
    }
}
