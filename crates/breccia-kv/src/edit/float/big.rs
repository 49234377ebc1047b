//! A natural number of any size, with the few operations that reading and printing floats need.
//! Not general. Invariant: no leading zero limbs.

use std::cmp::Ordering;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Big {
    /// Lowest first.
    limbs: Vec<u32>,
}

impl Big {
    pub(super) fn new(value: u64) -> Self {
        let mut big = Self {
            limbs: vec![low(value), low(value >> 32)],
        };
        big.trim();
        big
    }

    fn trim(&mut self) {
        while self.limbs.last() == Some(&0) {
            self.limbs.pop();
        }
    }

    pub(super) fn is_zero(&self) -> bool {
        self.limbs.is_empty()
    }

    pub(super) fn bits(&self) -> u32 {
        let whole = u32::try_from(self.limbs.len())
            .unwrap_or(u32::MAX)
            .saturating_mul(32);
        whole - self.limbs.last().map_or(0, |top| top.leading_zeros())
    }

    /// `self * factor + addend`.
    pub(super) fn multiply_add(&mut self, factor: u32, addend: u32) {
        let mut carry = u64::from(addend);
        for limb in &mut self.limbs {
            let product = u64::from(*limb) * u64::from(factor) + carry;
            *limb = low(product);
            carry = product >> 32;
        }
        if carry != 0 {
            self.limbs.push(low(carry));
        }
        self.trim();
    }

    pub(super) fn multiply_power_of_ten(&mut self, power: u32) {
        for _ in 0..power / 9 {
            self.multiply_add(1_000_000_000, 0);
        }
        self.multiply_add(10_u32.pow(power % 9), 0);
    }

    pub(super) fn shift_left(&mut self, bits: u32) {
        if self.is_zero() {
            return;
        }
        self.multiply_add(1 << (bits % 32), 0);
        let limbs = usize::try_from(bits / 32).unwrap_or(usize::MAX);
        self.limbs.splice(0..0, std::iter::repeat_n(0, limbs));
    }

    fn halve(&mut self) {
        let mut carry = 0;
        for limb in self.limbs.iter_mut().rev() {
            let next = *limb << 31;
            *limb = (*limb >> 1) | carry;
            carry = next;
        }
        self.trim();
    }

    /// Divides in place and returns the remainder.
    fn divide_small(&mut self, divisor: u32) -> u32 {
        let mut rest = 0_u64;
        for limb in self.limbs.iter_mut().rev() {
            let present = (rest << 32) | u64::from(*limb);
            *limb = low(present / u64::from(divisor));
            rest = present % u64::from(divisor);
        }
        self.trim();
        low(rest)
    }

    fn compare(&self, other: &Self) -> Ordering {
        self.limbs
            .len()
            .cmp(&other.limbs.len())
            .then_with(|| self.limbs.iter().rev().cmp(other.limbs.iter().rev()))
    }

    /// `self - other`, which must not be larger.
    fn subtract(&mut self, other: &Self) {
        let mut borrow = 0_i64;
        let others = other.limbs.iter().chain(std::iter::repeat(&0));
        for (limb, other) in self.limbs.iter_mut().zip(others) {
            let difference = i64::from(*limb) - i64::from(*other) + borrow;
            *limb = low(difference.cast_unsigned());
            borrow = difference >> 32;
        }
        self.trim();
    }

    /// The quotient, which must be below `2^bits`, and whether anything remains.
    pub(super) fn divide(mut self, mut divisor: Self, bits: u32) -> (u128, bool) {
        divisor.shift_left(bits);
        let mut quotient = 0;
        for _ in 0..bits {
            divisor.halve();
            quotient <<= 1;
            if self.compare(&divisor) != Ordering::Less {
                self.subtract(&divisor);
                quotient |= 1;
            }
        }
        (quotient, !self.is_zero())
    }

    pub(super) fn into_decimal(mut self) -> String {
        let mut groups = Vec::new();
        while !self.is_zero() {
            groups.push(self.divide_small(1_000_000_000));
        }
        let mut groups = groups.into_iter().rev();
        let mut text = groups.next().unwrap_or(0).to_string();
        for group in groups {
            let digits = group.to_string();
            text.extend(std::iter::repeat_n(
                '0',
                9_usize.saturating_sub(digits.len()),
            ));
            text.push_str(&digits);
        }
        text
    }
}

/// The low 32 bits.
#[expect(
    clippy::cast_possible_truncation,
    reason = "the high bits are carried by the caller"
)]
fn low(value: u64) -> u32 {
    value as u32
}
