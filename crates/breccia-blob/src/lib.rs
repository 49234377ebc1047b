//! The blob slice: stores of objects, the sharded composite of them, and the S3 wire.
//!
//! It knows no other slice. Invariant: a put is visible whole or not at all.

pub mod key_encoding;
pub mod placement_key;
pub mod s3;
