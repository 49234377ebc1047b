//! Buckets that clients make: their names, their records, and the trait that keeps them.
//!
//! Not buckets that a configuration fixes: those need no record. Invariant: a write that is
//! acknowledged lies in a bucket that was alive after the write had been published.
//!
//! # The protocol of a write
//!
//! Gateways know nothing of each other, and records are cached, so a bucket may be deleted by one
//! gateway while another writes into it. Whoever writes an object (put, copy, complete) therefore:
//!
//! 1. asks [`BucketStore::look_up`], which may answer from a cache of at most
//!    [`MAX_CACHE_AGE`]; without a record: no such bucket;
//! 2. publishes the object;
//! 3. asks [`BucketStore::confirm_write`], which reads the *home* record afresh. While that says
//!    "deleting" it waits, within bounds, until the delete has ended one way or the other.
//!    - [`Confirmed::Alive`]: the write is acknowledged. The delete, if there was one, saw the object
//!      and gave up, or has not looked yet and will see it.
//!    - [`Confirmed::Gone`]: the bucket was found empty before the object came. The writer deletes
//!      its object again, unconditionally, and answers "no such bucket".
//!    - an error: the outcome is unknown and is answered as such.
//!
//! [`BucketStore::delete`] marks the home record "deleting" *before* it looks whether the bucket is
//! empty. So either the delete sees the object, or the writer sees the mark.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use crate::error::BlobError;

/// How old a cached record may be.
pub const MAX_CACHE_AGE: Duration = Duration::from_secs(5);
/// The shortest name, in bytes.
pub const MIN_NAME_BYTES: usize = 3;
/// The longest name, in bytes.
pub const MAX_NAME_BYTES: usize = 63;

/// A bucket's name that S3's rules allow: lower-case letters, digits, dots and hyphens.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BucketName(String);

impl BucketName {
    /// The name, if the rules allow it: it begins and ends with a letter or digit, has no two dots
    /// in a row, and does not look like an IPv4 address.
    #[must_use]
    pub fn new(name: &str) -> Option<Self> {
        let bytes = name.as_bytes();
        let alphanumeric = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let fits = (MIN_NAME_BYTES..=MAX_NAME_BYTES).contains(&bytes.len())
            && bytes
                .iter()
                .all(|byte| alphanumeric(byte) || matches!(byte, b'.' | b'-'))
            && bytes.first().is_some_and(alphanumeric)
            && bytes.last().is_some_and(alphanumeric)
            && !name.contains("..")
            && name.parse::<std::net::Ipv4Addr>().is_err();
        fits.then(|| Self(name.to_owned()))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for BucketName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// What is known of a bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BucketRecord {
    /// Its name.
    pub name: BucketName,
    /// When it was made, in milliseconds since the Unix epoch.
    pub created_ms: u64,
    /// The user who made it, if users were asked for.
    pub owner: Option<String>,
}

/// What a create has found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Created {
    /// The bucket was made.
    New(BucketRecord),
    /// There was one already; nothing of it has changed.
    Existed(BucketRecord),
}

/// What a delete has found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deleted {
    /// The bucket was empty and is gone; uploads that were left in it have ended.
    Removed,
    /// It holds objects; it is as before.
    NotEmpty,
    /// There is no such bucket.
    Missing,
}

/// What has become of a bucket that an object was just written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Confirmed {
    /// It is there.
    Alive,
    /// It was deleted in the meantime: the writer removes its object again.
    Gone,
}

/// The answer of a [`BucketStore`].
pub type BucketFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, BlobError>> + Send + 'a>>;

/// Keeps the records of buckets that clients make. Objects lie under `bucket/key` in the store that
/// goes with it.
pub trait BucketStore: fmt::Debug + Send + Sync {
    /// Makes a bucket if there is none of that name. While one of that name is being deleted:
    /// [`BlobError::Conflict`].
    fn create<'a>(
        &'a self,
        name: &'a BucketName,
        owner: Option<&'a str>,
    ) -> BucketFuture<'a, Created>;

    /// The record of a bucket, at most [`MAX_CACHE_AGE`] old; none if there is none or it is being
    /// deleted.
    fn look_up<'a>(&'a self, name: &'a BucketName) -> BucketFuture<'a, Option<BucketRecord>>;

    /// Every bucket, by name.
    fn list(&self) -> BucketFuture<'_, Vec<BucketRecord>>;

    /// Deletes a bucket that holds no object. Every shard must be reachable.
    fn delete<'a>(&'a self, name: &'a BucketName) -> BucketFuture<'a, Deleted>;

    /// What has become of the bucket after a write was published in it: see the protocol above.
    /// If a delete is not resolved in time, an error with an unknown effect.
    fn confirm_write<'a>(&'a self, name: &'a BucketName) -> BucketFuture<'a, Confirmed>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_rules_of_s3() {
        let check = |name: &str, good: bool| {
            assert_eq!(BucketName::new(name).is_some(), good, "{name}");
        };
        check("abc", true);
        check("my.bucket-1", true);
        check("1ab", true);
        check(&"a".repeat(63), true);
        for wrong in [
            "",
            "ab",
            "Abc",
            "a_b",
            "-ab",
            "ab-",
            ".ab",
            "ab.",
            "a..b",
            "192.168.0.1",
            "a/b",
            "aéb",
        ] {
            check(wrong, false);
        }
        check(&"a".repeat(64), false);
    }
}
