//! INCRBYFLOAT's arithmetic: 80-bit floats (a 64-bit mantissa) done in integers, because Redis uses
//! `long double` and its results show it (0.1 + 0.2 is 0.3 there).
//!
//! Not a number library: it reads, adds and prints, no more. Invariant: every step rounds once, to
//! nearest and half to even, as the C library and the hardware do.

use std::cmp::Ordering;

use crate::entry::Refusal;

mod big;
mod text;

/// Exponent of the lowest bit of the largest finite number, whose mantissa has 64 bits.
const MAX_EXPONENT: i32 = 16_384 - 64;
/// Exponent of the lowest bit of the smallest number there is.
const MIN_EXPONENT: i32 = -16_445;

/// A float: `mantissa * 2^exponent`. The mantissa's top bit is set unless it is zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Finite {
    negative: bool,
    mantissa: u64,
    exponent: i32,
}

/// What a text reads as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Float {
    Finite(Finite),
    Infinite,
}

/// The sum of two decimal numbers, as the text Redis would store.
///
/// # Errors
/// [`Refusal::NotFloat`] if one of them is no number, [`Refusal::NotFinite`] if the sum is not
/// finite.
pub fn add(left: &[u8], right: &[u8]) -> Result<String, Refusal> {
    let left = text::parse(left).ok_or(Refusal::NotFloat)?;
    let right = text::parse(right).ok_or(Refusal::NotFloat)?;
    let (Float::Finite(left), Float::Finite(right)) = (left, right) else {
        return Err(Refusal::NotFinite);
    };
    match sum(left, right) {
        Float::Finite(result) => Ok(text::format(result)),
        Float::Infinite => Err(Refusal::NotFinite),
    }
}

/// Extra low bits carried through an addition.
const GUARD_BITS: u32 = 62;

fn sum(left: Finite, right: Finite) -> Float {
    if left.mantissa == 0 || right.mantissa == 0 {
        return Float::Finite(if right.mantissa == 0 { left } else { right });
    }
    let (large, small) = match (left.exponent, left.mantissa).cmp(&(right.exponent, right.mantissa))
    {
        Ordering::Less => (right, left),
        _ => (left, right),
    };
    let distance = large.exponent.abs_diff(small.exponent);
    let high = u128::from(large.mantissa) << GUARD_BITS;
    let aligned = u128::from(small.mantissa) << GUARD_BITS;
    let low = aligned.checked_shr(distance).unwrap_or(0);
    let lost = low.checked_shl(distance) != Some(aligned);
    let total = if large.negative == small.negative {
        high + low
    } else {
        // What was lost makes the subtrahend larger: take one more, and mark the rest.
        high - low - u128::from(lost)
    };
    round(
        large.negative,
        total,
        lost,
        large.exponent - GUARD_BITS.cast_signed(),
    )
}

/// Rounds `bits * 2^exponent` (a little more if `inexact`) to a float.
fn round(negative: bool, bits: u128, inexact: bool, exponent: i32) -> Float {
    if bits == 0 {
        return Float::Finite(Finite {
            negative: false,
            mantissa: 0,
            exponent: 0,
        });
    }
    let length = (u128::BITS - bits.leading_zeros()).cast_signed();
    let drop = (length - 64).max(MIN_EXPONENT - exponent);
    let (mut kept, mut exponent) = (bits, exponent);
    if drop > 0 {
        let drop_bits = drop.unsigned_abs();
        kept = bits.checked_shr(drop_bits).unwrap_or(0);
        let dropped = bits - kept.checked_shl(drop_bits).unwrap_or(0);
        let half = 1_u128.checked_shl(drop_bits - 1).unwrap_or(0);
        let up = match dropped.cmp(&half) {
            Ordering::Greater => half != 0,
            Ordering::Equal => half != 0 && (inexact || kept & 1 == 1),
            Ordering::Less => false,
        };
        kept += u128::from(up);
        exponent += drop;
    }
    if kept >> 64 != 0 {
        // Rounding carried into a new bit; the bit it pushes out is zero.
        kept >>= 1;
        exponent += 1;
    }
    let Ok(mut mantissa) = u64::try_from(kept) else {
        return Float::Infinite;
    };
    if mantissa != 0 {
        let shift = mantissa.leading_zeros();
        mantissa <<= shift;
        exponent -= shift.cast_signed();
    }
    if exponent > MAX_EXPONENT {
        return Float::Infinite;
    }
    Float::Finite(Finite {
        negative,
        mantissa,
        exponent,
    })
}

#[cfg(test)]
mod tests;
