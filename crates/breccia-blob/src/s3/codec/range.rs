//! Ranges of bytes: what a client asks for, and what an answer says it holds.
//!
//! Invariant: a resolved range is not empty and lies in the object.

use std::ops::Range;

use thiserror::Error;

/// No byte of the object lies in the range: 416.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("no byte of the {size} lies in the range")]
pub struct Unsatisfiable {
    /// The object's size, for `Content-Range: bytes */size`.
    pub size: u64,
}

/// One range, as it was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ByteRange {
    /// `bytes=a-`
    From(u64),
    /// `bytes=a-b`, both included
    Between(u64, u64),
    /// `bytes=-n`: the last n
    Last(u64),
}

/// What a `Range` header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RangeHeader {
    /// One range.
    One(ByteRange),
    /// Several. S3 documents that it does not serve them; RFC 9110 allows a server to send the whole
    /// object instead, which is also what S3 does. A frontend may refuse or ignore.
    Several,
    /// Not a range of bytes: the header is ignored and the whole object is sent, as S3 does.
    Ignored,
}

impl RangeHeader {
    /// Reads the value of a `Range` header.
    pub fn parse(value: &[u8]) -> RangeHeader {
        let Some(ranges) = ranges_of(value) else {
            return RangeHeader::Ignored;
        };
        if ranges.contains(',') {
            let all = ranges.split(',').all(|one| parse_one(one.trim()).is_some());
            return if all {
                RangeHeader::Several
            } else {
                RangeHeader::Ignored
            };
        }
        parse_one(ranges.trim()).map_or(RangeHeader::Ignored, RangeHeader::One)
    }

    /// The bytes of an object of this size to send; none: all of it.
    pub fn resolve(self, size: u64) -> Result<Option<Range<u64>>, Unsatisfiable> {
        match self {
            RangeHeader::One(range) => range.resolve(size).map(Some),
            RangeHeader::Several | RangeHeader::Ignored => Ok(None),
        }
    }
}

impl ByteRange {
    /// The bytes of an object of this size.
    pub fn resolve(self, size: u64) -> Result<Range<u64>, Unsatisfiable> {
        let range = match self {
            ByteRange::From(first) => first..size,
            ByteRange::Between(first, last) => first..last.saturating_add(1).min(size),
            ByteRange::Last(count) => size.saturating_sub(count)..size,
        };
        if range.is_empty() {
            return Err(Unsatisfiable { size });
        }
        Ok(range)
    }

    /// As the value of a `Range` header.
    pub fn to_header(self) -> String {
        match self {
            ByteRange::From(first) => format!("bytes={first}-"),
            ByteRange::Between(first, last) => format!("bytes={first}-{last}"),
            ByteRange::Last(count) => format!("bytes=-{count}"),
        }
    }
}

/// Reads `x-amz-copy-source-range`: only `bytes=a-b`, and nothing of it is forgiven. The end is not
/// included in the answer. S3 refuses a range that goes past the source's end; so must the caller.
pub fn parse_copy_source_range(value: &[u8]) -> Option<Range<u64>> {
    let text = std::str::from_utf8(value).ok()?;
    match parse_one(text.strip_prefix("bytes=")?)? {
        ByteRange::Between(first, last) => Some(first..last.checked_add(1)?),
        ByteRange::From(_) | ByteRange::Last(_) => None,
    }
}

/// `bytes a-b/size` for a range that is not empty.
pub fn content_range(range: &Range<u64>, size: u64) -> String {
    format!(
        "bytes {}-{}/{size}",
        range.start,
        range.end.saturating_sub(1)
    )
}

/// `bytes */size`, for a 416.
pub fn unsatisfied_content_range(size: u64) -> String {
    format!("bytes */{size}")
}

/// What a `Content-Range` header says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContentRange {
    /// The bytes that follow; none in an answer of 416.
    pub range: Option<Range<u64>>,
    /// The size of the whole, unless it is unknown (`*`).
    pub size: Option<u64>,
}

impl ContentRange {
    /// Reads the value of a `Content-Range` header.
    pub fn parse(value: &[u8]) -> Option<ContentRange> {
        let text = std::str::from_utf8(value).ok()?;
        let (range, size) = text.strip_prefix("bytes ")?.split_once('/')?;
        let size = match size {
            "*" => None,
            digits => Some(number(digits)?),
        };
        let range = match range {
            "*" => None,
            text => match parse_one(text)? {
                ByteRange::Between(first, last) => Some(first..last.checked_add(1)?),
                ByteRange::From(_) | ByteRange::Last(_) => return None,
            },
        };
        let inside = match (&range, size) {
            (Some(range), Some(size)) => range.end <= size,
            (None, None) => false,
            _ => true,
        };
        inside.then_some(ContentRange { range, size })
    }
}

fn ranges_of(value: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(value).ok()?;
    let (unit, ranges) = text.split_once('=')?;
    unit.eq_ignore_ascii_case("bytes").then_some(ranges)
}

fn parse_one(text: &str) -> Option<ByteRange> {
    let (first, last) = text.split_once('-')?;
    match (first, last) {
        ("", count) => Some(ByteRange::Last(number(count)?)),
        (first, "") => Some(ByteRange::From(number(first)?)),
        (first, last) => {
            let (first, last) = (number(first)?, number(last)?);
            (first <= last).then_some(ByteRange::Between(first, last))
        }
    }
}

/// Digits only. A number that is too large for any object counts as the largest.
fn number(digits: &str) -> Option<u64> {
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some(digits.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ranges_resolve_as_s3_resolves_them() {
        let check = |header: &str, size: u64, expected: Result<Option<Range<u64>>, u64>| {
            let answer = RangeHeader::parse(header.as_bytes()).resolve(size);
            assert_eq!(
                answer.map_err(|error| error.size),
                expected,
                "{header} of {size}"
            );
        };
        check("bytes=0-9", 100, Ok(Some(0..10)));
        check("bytes=0-9", 5, Ok(Some(0..5)));
        check("bytes=5-", 10, Ok(Some(5..10)));
        check("bytes=-3", 10, Ok(Some(7..10)));
        check("bytes=-30", 10, Ok(Some(0..10)));
        check("Bytes = 1-1 ", 10, Ok(None));
        check("Bytes= 1-1 ", 10, Ok(Some(1..2)));
        check("bytes=0-18446744073709551615", 10, Ok(Some(0..10)));
        check("bytes=0-99999999999999999999999", 10, Ok(Some(0..10)));
        check("bytes=10-", 10, Err(10));
        check("bytes=10-20", 10, Err(10));
        check("bytes=-0", 10, Err(10));
        check("bytes=-1", 0, Err(0));
        check("bytes=0-", 0, Err(0));
        for ignored in [
            "bytes=",
            "bytes=-",
            "bytes=9-0",
            "bytes=a-b",
            "rows=1-2",
            "1-2",
            "bytes=+1-2",
        ] {
            check(ignored, 10, Ok(None));
        }
        assert_eq!(RangeHeader::parse(b"bytes=0-1, 3-4"), RangeHeader::Several);
        assert_eq!(RangeHeader::parse(b"bytes=0-1,x"), RangeHeader::Ignored);
    }

    #[test]
    fn copy_ranges_are_strict() {
        let check = |value: &str, expected: Option<Range<u64>>| {
            assert_eq!(
                parse_copy_source_range(value.as_bytes()),
                expected,
                "{value}"
            );
        };
        check("bytes=0-9", Some(0..10));
        check("bytes=9-9", Some(9..10));
        for wrong in [
            "bytes=0-",
            "bytes=-5",
            "bytes=5-4",
            "bytes= 0-9",
            "0-9",
            "bytes=0-1,2-3",
        ] {
            check(wrong, None);
        }
        check("bytes=0-18446744073709551615", None);
    }

    #[test]
    fn content_ranges_are_written_and_read() {
        let check = |value: &str, range: Option<Range<u64>>, size: Option<u64>| {
            let expected = Some(ContentRange { range, size });
            assert_eq!(ContentRange::parse(value.as_bytes()), expected, "{value}");
        };
        check(&content_range(&(2..5), 9), Some(2..5), Some(9));
        check(&unsatisfied_content_range(9), None, Some(9));
        check("bytes 0-0/*", Some(0..1), None);
        for wrong in [
            "bytes 2-1/9",
            "bytes 0-9/9",
            "bytes */*",
            "bytes 0-1",
            "0-1/9",
        ] {
            assert_eq!(ContentRange::parse(wrong.as_bytes()), None, "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn a_resolved_range_lies_in_the_object(text in "(bytes=)?[0-9,-]{0,12}", size in 0_u64..1000) {
            if let Ok(Some(range)) = RangeHeader::parse(text.as_bytes()).resolve(size) {
                prop_assert!(range.start < range.end && range.end <= size);
            }
        }
    }
}
