//! Decimal numbers as Redis and memcached read them from a value. Not lenient: what those servers
//! refuse is refused. Invariant: a number that is written by this process reads back as itself.

/// A signed number in the one form Redis takes as an integer: no sign but `-`, no leading zeros, no
/// spaces, within 64 bits.
#[must_use]
pub fn parse_integer(text: &[u8]) -> Option<i64> {
    let digits = match text {
        b"0" => return Some(0),
        [b'-', digits @ ..] | digits => digits,
    };
    if !matches!(digits.first(), Some(b'1'..=b'9')) || text.len() > 20 {
        return None;
    }
    // The checks above leave nothing that `parse` takes and Redis does not.
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// An unsigned number as memcached's `incr` takes it, by the C library's rules: white space may
/// stand before it, and after it together with anything else.
#[must_use]
pub fn parse_counter(text: &[u8]) -> Option<u64> {
    let is_space = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\n' | 0x0b | 0x0c | b'\r');
    let start = text.iter().position(|byte| !is_space(byte))?;
    let number = text.get(start..)?;
    let number = number.strip_prefix(b"+").unwrap_or(number);
    let digits = number
        .iter()
        .take_while(|byte| byte.is_ascii_digit())
        .count();
    let (digits, rest) = number.split_at_checked(digits)?;
    if rest.first().is_some_and(|byte| !is_space(byte)) {
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
            "",
            "-",
            "-0",
            "+1",
            "01",
            "00",
            " 1",
            "1 ",
            "1.0",
            "1e3",
            "0x1",
            "--1",
            "9223372036854775808",
            "-9223372036854775809",
            "99999999999999999999",
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
        check(" \t+1 and more", Some(1));
        check("18446744073709551615", Some(u64::MAX));
        for wrong in ["", " ", "-1", "+", "+ 1", "1a", "18446744073709551616"] {
            check(wrong, None);
        }
    }
}
