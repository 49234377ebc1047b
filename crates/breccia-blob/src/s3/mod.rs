//! The S3 wire: what its bytes mean, towards clients and towards members.
//!
//! Not here: where an object lies. Invariant: the two ends share the codec and nothing else.

pub mod backend;
pub mod codec;
pub mod frontend;
