//! Numbers as memcached reads them: the C library's rules, with their overflow, sign and
//! white-space corners. It is not a general number parser.
//!
//! Invariant: the same text gives the same value, or the same refusal, as memcached 1.6, so that
//! both ends agree on the length of every data block.

/// A number, and whether its text is the plain one (digits only, no leading zero, in range): only
/// plain text is forwarded as it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Number<T> {
    pub(crate) value: T,
    pub(crate) plain: bool,
}

/// What C's `isspace` accepts.
pub(crate) fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | 0x0b | 0x0c | b'\r')
}

/// Sign, magnitude and whether the text is plain. `None`: not a number, or above 64 bits.
fn scan(text: &[u8]) -> Option<(bool, u64, bool)> {
    let leading = text.iter().take_while(|byte| is_space(**byte)).count();
    let mut rest = text.get(leading..)?;
    let mut plain = leading == 0;
    let mut negative = false;
    if let [sign @ (b'+' | b'-'), tail @ ..] = rest {
        negative = *sign == b'-';
        plain &= negative;
        rest = tail;
    }
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (number, tail) = rest.split_at_checked(digits)?;
    let first = number.first()?;
    plain &= (*first != b'0' || (digits == 1 && !negative)) && tail.is_empty();
    if tail.first().is_some_and(|byte| !is_space(*byte)) {
        return None;
    }
    let magnitude = number.iter().try_fold(0_u64, |sum, digit| {
        sum.checked_mul(10)?.checked_add(u64::from(digit - b'0'))
    })?;
    Some((negative, magnitude, plain))
}

/// An unsigned 64-bit number. A negative one wraps round, and is refused if the result looks
/// negative.
pub(crate) fn unsigned_64(text: &[u8]) -> Option<Number<u64>> {
    let (negative, magnitude, plain) = scan(text)?;
    let value = if negative {
        magnitude.wrapping_neg()
    } else {
        magnitude
    };
    if value.cast_signed() < 0 && text.contains(&b'-') {
        return None;
    }
    Some(Number {
        value,
        plain: plain && !negative,
    })
}

/// An unsigned 32-bit number: read as 64 bits, then cut to the lower half.
pub(crate) fn unsigned_32(text: &[u8]) -> Option<Number<u32>> {
    let Number { value, plain } = unsigned_64(text)?;
    let fits = u32::try_from(value);
    Some(Number {
        value: fits.unwrap_or(low_half(value)),
        plain: plain && fits.is_ok(),
    })
}

/// A signed 32-bit number: read as 64 bits, then cut to the lower half.
pub(crate) fn signed_32(text: &[u8]) -> Option<Number<i32>> {
    let (negative, magnitude, plain) = scan(text)?;
    let bound = if negative { 1 << 63 } else { (1 << 63) - 1 };
    if magnitude > bound {
        return None;
    }
    let wide = if negative {
        magnitude.wrapping_neg()
    } else {
        magnitude
    };
    let value = low_half(wide).cast_signed();
    let fits = i64::from(value) == wide.cast_signed();
    Some(Number {
        value,
        plain: plain && fits,
    })
}

fn low_half(value: u64) -> u32 {
    u32::try_from(value & u64::from(u32::MAX)).expect("a masked value has 32 bits")
}

/// Appends a decimal number.
pub(crate) fn push(out: &mut Vec<u8>, value: u64) {
    let mut digits = [0_u8; 20];
    let mut rest = value;
    let mut used = 0;
    for place in digits.iter_mut().rev() {
        *place = b'0' + u8::try_from(rest % 10).expect("a digit fits a byte");
        rest /= 10;
        used += 1;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(digits.get(20 - used..).unwrap_or_default());
}

/// Appends a signed decimal number.
pub(crate) fn push_signed(out: &mut Vec<u8>, value: i32) {
    if value < 0 {
        out.push(b'-');
    }
    push(out, value.unsigned_abs().into());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, u64_: Option<(u64, bool)>, i32_: Option<(i32, bool)>) {
        let unsigned = unsigned_64(text.as_bytes()).map(|n| (n.value, n.plain));
        assert_eq!(unsigned, u64_, "{text:?} as u64");
        let signed = signed_32(text.as_bytes()).map(|n| (n.value, n.plain));
        assert_eq!(signed, i32_, "{text:?} as i32");
    }

    #[test]
    fn numbers_read_as_memcached_reads_them() {
        check("0", Some((0, true)), Some((0, true)));
        check("17", Some((17, true)), Some((17, true)));
        check("007", Some((7, false)), Some((7, false)));
        check("+7", Some((7, false)), Some((7, false)));
        check("-7", None, Some((-7, true)));
        check("-0", Some((0, false)), Some((0, false)));
        check("\t7", Some((7, false)), Some((7, false)));
        check("7\tjunk", Some((7, false)), Some((7, false)));
        check("7x", None, None);
        check("x7", None, None);
        check("", None, None);
        check("-", None, None);
        check("+-7", None, None);
        check("2147483648", Some((1 << 31, true)), Some((i32::MIN, false)));
        check("4294967297", Some((4_294_967_297, true)), Some((1, false)));
        check("18446744073709551615", Some((u64::MAX, true)), None);
        check("18446744073709551616", None, None);
        check("-18446744073709551615", Some((1, false)), None);
        check("-9223372036854775808", None, Some((0, false)));
        check("9223372036854775808\t-", None, None);
    }

    #[test]
    fn unsigned_32_keeps_the_lower_half() {
        let read = |text: &str| unsigned_32(text.as_bytes()).map(|n| (n.value, n.plain));
        assert_eq!(read("4294967295"), Some((u32::MAX, true)));
        assert_eq!(read("4294967296"), Some((0, false)));
        assert_eq!(read("-1"), None);
    }

    #[test]
    fn written_numbers_read_back() {
        for value in [0, 1, 9, 10, 12_345, u64::from(u32::MAX), u64::MAX] {
            let mut out = Vec::new();
            push(&mut out, value);
            assert_eq!(out, value.to_string().into_bytes());
        }
        for value in [0, -1, 5, i32::MIN, i32::MAX] {
            let mut out = Vec::new();
            push_signed(&mut out, value);
            assert_eq!(out, value.to_string().into_bytes());
        }
    }
}
