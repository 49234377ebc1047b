//! Floats from text as `strtold` reads them, and to text as `printf("%.17Lf")` writes them, then
//! trimmed as Redis does. Invariant: what Redis refuses as a float is refused.

use super::big::Big;
use super::{Finite, Float, MIN_EXPONENT, round};

/// Redis copies the text into a buffer of this size, end mark included.
const BUFFER_BYTES: usize = 5 * 1024;
/// Digits behind the point.
const PLACES: u32 = 17;

/// Reads a float; `None` where Redis answers "value is not a valid float".
pub(super) fn parse(text: &[u8]) -> Option<Float> {
    if text.is_empty() || text.len() >= BUFFER_BYTES {
        return None;
    }
    let (negative, body) = sign(text);
    if body.eq_ignore_ascii_case(b"inf") || body.eq_ignore_ascii_case(b"infinity") {
        return Some(Float::Infinite);
    }
    let float = match body {
        [b'0', b'x' | b'X', digits @ ..] => hexadecimal(negative, digits)?,
        _ => decimal(negative, body)?,
    };
    // Too large is an error to the C library, while the word "inf" is not.
    matches!(float, Float::Finite(_)).then_some(float)
}

/// Whether the text has a minus, and what follows its sign.
fn sign(text: &[u8]) -> (bool, &[u8]) {
    match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] | rest => (false, rest),
    }
}

/// A text's digits, its point taken out.
struct Parts<'a> {
    digits: Vec<u8>,
    /// Power of the base that the digits are to be multiplied with.
    scale: i64,
    /// What follows the exponent's letter.
    exponent: Option<&'a [u8]>,
}

fn split(text: &[u8], is_digit: fn(&u8) -> bool, letter: u8) -> Option<Parts<'_>> {
    let end = text
        .iter()
        .position(|byte| byte.eq_ignore_ascii_case(&letter));
    let (number, exponent) = match end.and_then(|at| text.split_at_checked(at)) {
        Some((number, exponent)) => (number, Some(exponent.get(1..)?)),
        None => (text, None),
    };
    let mut halves = number.splitn(2, |byte| *byte == b'.');
    let whole = halves.next()?;
    let fraction = halves.next().unwrap_or_default();
    let digits = [whole, fraction].concat();
    if digits.is_empty() || !digits.iter().all(is_digit) {
        return None;
    }
    Some(Parts {
        digits,
        scale: -i64::try_from(fraction.len()).ok()?,
        exponent,
    })
}

/// An exponent; one beyond any float is cut to a number that is still beyond.
fn read_exponent(text: Option<&[u8]>) -> Option<i64> {
    let Some(text) = text else { return Some(0) };
    let (negative, digits) = sign(text);
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let value = digits.iter().fold(0_i64, |value, digit| {
        (value * 10 + i64::from(*digit - b'0')).min(1_000_000)
    });
    Some(if negative { -value } else { value })
}

fn decimal(negative: bool, text: &[u8]) -> Option<Float> {
    let parts = split(text, u8::is_ascii_digit, b'e')?;
    let power = parts.scale + read_exponent(parts.exponent)?;
    let mut number = Big::new(0);
    for digit in &parts.digits {
        number.multiply_add(10, u32::from(*digit - b'0'));
    }
    if number.is_zero() {
        return Some(Float::Finite(Finite {
            negative,
            mantissa: 0,
            exponent: 0,
        }));
    }
    // Far outside of what a float holds; and the powers of ten below stay small.
    if !(-11_000..=5_000).contains(&power) {
        return None;
    }
    let mut divisor = Big::new(1);
    let power_size = u32::try_from(power.unsigned_abs()).ok()?;
    if power >= 0 {
        number.multiply_power_of_ten(power_size);
    } else {
        divisor.multiply_power_of_ten(power_size);
    }
    // A quotient of 66 to 68 bits, and whether there was more, decide the rounding.
    let exponent = number.bits().cast_signed() - divisor.bits().cast_signed() - 67;
    if exponent >= 0 {
        divisor.shift_left(exponent.unsigned_abs());
    } else {
        number.shift_left(exponent.unsigned_abs());
    }
    let (quotient, inexact) = number.divide(divisor, 69);
    nonzero(round(negative, quotient, inexact, exponent))
}

fn hexadecimal(negative: bool, text: &[u8]) -> Option<Float> {
    let parts = split(text, u8::is_ascii_hexdigit, b'p')?;
    let power = parts.scale * 4 + read_exponent(parts.exponent)?;
    let (mut bits, mut inexact, mut dropped) = (0_u128, false, 0_i64);
    for digit in &parts.digits {
        let value = char::from(*digit).to_digit(16)?;
        if bits >> 120 == 0 {
            bits = (bits << 4) | u128::from(value);
        } else {
            inexact |= value != 0;
            dropped += 4;
        }
    }
    if bits == 0 {
        return Some(Float::Finite(Finite {
            negative,
            mantissa: 0,
            exponent: 0,
        }));
    }
    let exponent = i32::try_from((power + dropped).clamp(-100_000, 100_000)).ok()?;
    nonzero(round(negative, bits, inexact, exponent))
}

/// A text that is not zero and rounds to zero is out of range.
fn nonzero(float: Float) -> Option<Float> {
    match float {
        Float::Finite(Finite { mantissa: 0, .. }) => None,
        float => Some(float),
    }
}

/// Writes a float with up to 17 digits behind the point, without zeros at the end.
pub(super) fn format(float: Finite) -> String {
    debug_assert!(float.mantissa == 0 || float.exponent >= MIN_EXPONENT - 64);
    let sign = if float.negative { "-" } else { "" };
    if float.exponent >= 0 {
        let mut whole = Big::new(float.mantissa);
        whole.shift_left(float.exponent.unsigned_abs());
        return unsigned_zero(format!("{sign}{}", whole.into_decimal()));
    }
    let unit = 10_u128.pow(PLACES);
    // Below 2^64 * 10^17 < 2^121.
    let scaled = u128::from(float.mantissa) * unit;
    let drop = float.exponent.unsigned_abs();
    let mut kept = scaled.checked_shr(drop).unwrap_or(0);
    if let Some(half) = 1_u128.checked_shl(drop - 1) {
        let dropped = scaled - kept.checked_shl(drop).unwrap_or(0);
        if dropped > half || (dropped == half && kept & 1 == 1) {
            kept += 1;
        }
    }
    let (whole, fraction) = (kept / unit, kept % unit);
    let fraction = format!("{fraction:017}");
    match fraction.trim_end_matches('0') {
        "" => unsigned_zero(format!("{sign}{whole}")),
        places => format!("{sign}{whole}.{places}"),
    }
}

fn unsigned_zero(text: String) -> String {
    if text == "-0" { "0".into() } else { text }
}
