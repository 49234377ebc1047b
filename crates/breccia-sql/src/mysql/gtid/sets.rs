//! MySQL's positions: of each server the transactions that are there.
//!
//! Pure. Invariant: the intervals of a server are in ascending order, and between two of them at least
//! one number is missing.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use super::GtidError;

/// The most servers that are kept.
pub const MAX_SOURCES: usize = 1024;
/// The most intervals, of all servers together.
pub const MAX_INTERVALS: usize = 16 * 1024;

/// The UUID of a server, as `@@server_uuid` tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Source(u128);

/// From a number to another, both included.
type Interval = (u64, u64);

/// The transactions that are there, by the server that made them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sets(Arc<BTreeMap<Source, Vec<Interval>>>);

impl Sets {
    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether each of these servers is one of `other` too.
    #[must_use]
    pub fn is_among(&self, other: &Self) -> bool {
        self.0.keys().all(|source| other.0.contains_key(source))
    }

    /// Whether all of `other` are among these.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
            || other.0.iter().all(|(source, intervals)| {
                let own = self.0.get(source);
                own.is_some_and(|own| intervals.iter().all(|it| contains(own, *it)))
            })
    }

    /// Adds all of `other`. [`GtidError::TooMany`]: there would be more than are kept, and these are
    /// unchanged.
    pub fn raise(&mut self, other: &Self) -> Result<(), GtidError> {
        if self.covers(other) {
            return Ok(());
        }
        let mut all = BTreeMap::clone(&self.0);
        for (source, intervals) in other.0.iter() {
            let own = all.entry(*source).or_default();
            own.extend(intervals);
            normalise(own);
        }
        *self = Self::bounded(all)?;
        Ok(())
    }

    fn bounded(all: BTreeMap<Source, Vec<Interval>>) -> Result<Self, GtidError> {
        let intervals: usize = all.values().map(Vec::len).sum();
        if all.len() > MAX_SOURCES || intervals > MAX_INTERVALS {
            return Err(GtidError::TooMany);
        }
        Ok(Self(Arc::new(all)))
    }
}

/// Whether one of `intervals` contains another one whole.
fn contains(intervals: &[Interval], (first, last): Interval) -> bool {
    let after = intervals.partition_point(|(begin, _)| *begin <= first);
    let candidate = after.checked_sub(1).and_then(|at| intervals.get(at));
    candidate.is_some_and(|(_, end)| last <= *end)
}

/// Sorts, and joins what overlaps or touches.
fn normalise(intervals: &mut Vec<Interval>) {
    intervals.sort_unstable();
    intervals.dedup_by(|next, kept| {
        let joins = next.0 <= kept.1.saturating_add(1);
        if joins {
            kept.1 = kept.1.max(next.1);
        }
        joins
    });
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let part = |shift: u32, digits: u32| (self.0 >> shift) & ((1 << (digits * 4)) - 1);
        write!(
            f,
            "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
            part(96, 8),
            part(80, 4),
            part(64, 4),
            part(48, 4),
            part(0, 12)
        )
    }
}

impl FromStr for Source {
    type Err = GtidError;

    fn from_str(text: &str) -> Result<Self, GtidError> {
        const DIGITS: [usize; 5] = [8, 4, 4, 4, 12];
        let mut parts = text.split('-');
        let mut number = 0_u128;
        for digits in DIGITS {
            let part = parts.next().filter(|part| part.len() == digits);
            let part = part.filter(|part| part.bytes().all(|it| it.is_ascii_hexdigit()));
            let part = part.and_then(|part| u64::from_str_radix(part, 16).ok());
            number = number << (digits * 4) | u128::from(part.ok_or(GtidError::Form)?);
        }
        if parts.next().is_some() {
            return Err(GtidError::Form);
        }
        Ok(Self(number))
    }
}

impl fmt::Display for Sets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (source, intervals)) in self.0.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            write!(f, "{comma}{source}")?;
            for (first, last) in intervals {
                if first == last {
                    write!(f, ":{first}")?;
                } else {
                    write!(f, ":{first}-{last}")?;
                }
            }
        }
        Ok(())
    }
}

impl FromStr for Sets {
    type Err = GtidError;

    /// Reads what `@@gtid_executed` tells: `UUID:1-5:7,UUID:1`, with white space after commas.
    fn from_str(text: &str) -> Result<Self, GtidError> {
        let mut all: BTreeMap<Source, Vec<Interval>> = BTreeMap::new();
        let mut count = 0;
        for part in text.split(',').map(str::trim) {
            if part.is_empty() {
                continue;
            }
            let mut pieces = part.split(':');
            let source: Source = pieces.next().unwrap_or_default().trim().parse()?;
            let own = all.entry(source).or_default();
            for piece in pieces {
                count += 1;
                if count > MAX_INTERVALS {
                    return Err(GtidError::TooMany);
                }
                own.push(interval(piece.trim())?);
            }
            if own.is_empty() {
                return Err(GtidError::Form);
            }
        }
        all.values_mut().for_each(normalise);
        Self::bounded(all)
    }
}

fn interval(text: &str) -> Result<Interval, GtidError> {
    if !text.starts_with(|it: char| it.is_ascii_digit()) {
        let tag = text.starts_with(|it: char| it.is_ascii_alphabetic() || it == '_');
        return Err(if tag {
            GtidError::Tagged
        } else {
            GtidError::Form
        });
    }
    let number = |text: &str| text.parse::<u64>().map_err(|_| GtidError::Form);
    let (first, last) = match text.split_once('-') {
        Some((first, last)) => (number(first)?, number(last)?),
        None => (number(text)?, number(text)?),
    };
    if first == 0 || first > last {
        return Err(GtidError::Form);
    }
    Ok((first, last))
}
