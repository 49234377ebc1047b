//! `ETags`: one, a list of them in a condition, and the two kinds that S3 computes from data.
//!
//! It evaluates no condition. Invariant: a value is kept without its quotes and written with them.

use md5::{Digest, Md5};
use thiserror::Error;

use super::hex;

/// A condition names at most so many.
pub const MOST_CONDITION_ETAGS: usize = 100;

/// A condition's list of `ETags` cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("not a list of ETags")]
pub struct EtagError;

/// One `ETag`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Etag {
    value: String,
    weak: bool,
}

impl Etag {
    /// The `ETag` of an object put in one piece.
    pub fn of_md5(digest: &[u8; 16]) -> Etag {
        Etag {
            value: hex::encode(digest),
            weak: false,
        }
    }

    /// The `ETag` of an object put in parts: the MD5 of the parts' MD5s, and how many there are.
    pub fn of_parts<'a>(digests: impl IntoIterator<Item = &'a [u8; 16]>) -> Etag {
        let (mut hash, mut count) = (Md5::new(), 0_usize);
        for digest in digests {
            hash.update(digest);
            count += 1;
        }
        Etag {
            value: format!("{}-{count}", hex::encode(&hash.finalize())),
            weak: false,
        }
    }

    /// Reads one: quoted, weak, or bare as some clients send it.
    pub fn parse(text: &str) -> Option<Etag> {
        let text = text.trim();
        let (weak, text) = match text.strip_prefix("W/") {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let value = match text.strip_prefix('"') {
            Some(rest) => rest.strip_suffix('"')?,
            None if weak => return None,
            None => text,
        };
        let quotable = |byte: u8| byte == 0x21 || (0x23..0x7f).contains(&byte);
        (!value.is_empty() && value != "*" && value.bytes().all(quotable)).then(|| Etag {
            value: value.to_owned(),
            weak,
        })
    }

    /// Without quotes.
    pub fn value(&self) -> &str {
        &self.value
    }

    /// Whether it was marked weak: such a one never matches in `If-Match`.
    pub fn is_weak(&self) -> bool {
        self.weak
    }

    /// With quotes, as headers and XML want it.
    pub fn quoted(&self) -> String {
        let mark = if self.weak { "W/" } else { "" };
        format!("{mark}\"{}\"", self.value)
    }

    /// The MD5 it looks like: 32 hexadecimal digits and nothing more.
    pub fn md5(&self) -> Option<[u8; 16]> {
        hex::decode(self.value.as_bytes())
    }

    /// The number of parts, if it ends as the `ETag` of a multipart object does (`-0`: MD5 unknown).
    pub fn part_count(&self) -> Option<u32> {
        let (_, count) = self.value.rsplit_once('-')?;
        if count.starts_with('+') {
            return None;
        }
        count.parse().ok()
    }
}

/// What `If-Match` or `If-None-Match` names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EtagCondition {
    /// `*`: any object at all.
    Any,
    /// One of these.
    OneOf(Vec<Etag>),
}

impl EtagCondition {
    /// Reads the header's value.
    pub fn parse(value: &[u8]) -> Result<EtagCondition, EtagError> {
        let text = std::str::from_utf8(value).map_err(|_| EtagError)?.trim();
        // Some clients quote the star, too.
        if text == "*" || text == "\"*\"" {
            return Ok(EtagCondition::Any);
        }
        let mut etags = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            if etags.len() == MOST_CONDITION_ETAGS {
                return Err(EtagError);
            }
            let end = first_end(rest).ok_or(EtagError)?;
            let (one, tail) = rest.split_at_checked(end).ok_or(EtagError)?;
            etags.push(Etag::parse(one).ok_or(EtagError)?);
            let tail = tail.trim_start();
            rest = match tail.strip_prefix(',') {
                Some(more) if more.trim().is_empty() => return Err(EtagError),
                Some(more) => more.trim_start(),
                None if tail.is_empty() => tail,
                None => return Err(EtagError),
            };
        }
        if etags.is_empty() {
            return Err(EtagError);
        }
        Ok(EtagCondition::OneOf(etags))
    }

    /// Whether an object with this value (without quotes) is named. `If-Match` compares strongly: a
    /// weak one is no match. `If-None-Match` compares weakly.
    pub fn names(&self, value: &str, weakly: bool) -> bool {
        match self {
            EtagCondition::Any => true,
            EtagCondition::OneOf(etags) => etags
                .iter()
                .any(|etag| etag.value == value && (weakly || !etag.weak)),
        }
    }
}

/// Where the first element of a list ends: commas in quotes do not count.
fn first_end(text: &str) -> Option<usize> {
    let bare = text.strip_prefix("W/").unwrap_or(text);
    let before = text.len() - bare.len();
    match bare.strip_prefix('"') {
        Some(rest) => Some(before + 1 + rest.find('"')? + 1),
        None => Some(before + bare.find(',').unwrap_or(bare.len())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY_MD5: &str = "d41d8cd98f00b204e9800998ecf8427e";

    #[test]
    fn one_is_read_quoted_bare_or_weak() {
        let check = |text: &str, expected: Option<(&str, bool)>| {
            let etag = Etag::parse(text);
            let seen = etag.as_ref().map(|etag| (etag.value(), etag.is_weak()));
            assert_eq!(seen, expected, "{text}");
        };
        check("\"abc-1\"", Some(("abc-1", false)));
        check(" abc ", Some(("abc", false)));
        check("W/\"abc\"", Some(("abc", true)));
        for wrong in [
            "", "\"\"", "\"abc", "abc\"", "W/abc", "*", "a b", "\"a\"b\"", "é",
        ] {
            check(wrong, None);
        }
        assert_eq!(Etag::parse("W/\"x\"").unwrap().quoted(), "W/\"x\"");
        assert_eq!(Etag::parse("x").unwrap().quoted(), "\"x\"");
    }

    #[test]
    fn digests_make_the_two_kinds_of_s3() {
        let empty: [u8; 16] = Md5::digest(b"").into();
        assert_eq!(Etag::of_md5(&empty).value(), EMPTY_MD5);
        assert_eq!(Etag::of_md5(&empty).md5(), Some(empty));
        let parts = Etag::of_parts([&empty, &empty]);
        let both = Md5::digest([empty, empty].concat());
        assert_eq!(parts.value(), format!("{}-2", hex::encode(&both)));
        assert_eq!((parts.md5(), parts.part_count()), (None, Some(2)));
        assert_eq!(Etag::parse("abc-0").unwrap().part_count(), Some(0));
        assert_eq!(Etag::parse("abc-+1").unwrap().part_count(), None);
        assert_eq!(Etag::of_md5(&empty).part_count(), None);
    }

    #[test]
    fn conditions_are_lists_or_a_star() {
        let check = |value: &str, expected: Option<&[&str]>| {
            let seen = match EtagCondition::parse(value.as_bytes()) {
                Ok(EtagCondition::OneOf(etags)) => Some(etags),
                _ => None,
            };
            let seen: Option<Vec<String>> =
                seen.map(|etags| etags.iter().map(Etag::quoted).collect());
            let expected: Option<Vec<String>> =
                expected.map(|all| all.iter().map(|one| (*one).to_owned()).collect());
            assert_eq!(seen, expected, "{value}");
        };
        check("\"a\"", Some(&["\"a\""]));
        check(
            "\"a,b\" , W/\"c\",d",
            Some(&["\"a,b\"", "W/\"c\"", "\"d\""]),
        );
        for wrong in ["", ",", "\"a\",", "\"a\" \"b\"", "*, \"a\"", "\"a", "W/"] {
            check(wrong, None);
        }
        assert_eq!(EtagCondition::parse(b"*"), Ok(EtagCondition::Any));
        assert_eq!(EtagCondition::parse(b" \"*\" "), Ok(EtagCondition::Any));
        assert_eq!(EtagCondition::parse(b"\xff"), Err(EtagError));
        let long = "a,".repeat(MOST_CONDITION_ETAGS) + "a";
        assert_eq!(EtagCondition::parse(long.as_bytes()), Err(EtagError));
    }

    #[test]
    fn weak_ones_match_only_weakly() {
        let condition = EtagCondition::parse(b"W/\"a\", \"b\"").unwrap();
        assert!(condition.names("a", true) && !condition.names("a", false));
        assert!(condition.names("b", false) && !condition.names("c", true));
        assert!(EtagCondition::Any.names("x", false));
    }
}
