//! The S3 codec: bytes in, values out, and back.
//!
//! No socket, no clock, no logging: whoever calls brings the bytes and the time. Both ends of the
//! wire use it. Invariant: wrong input is an error value, and nothing here grows without bound.

pub mod checksum;
pub mod chunked;
pub mod etag;
pub mod hex;
pub mod range;
pub mod sigv4;
pub mod time;
pub mod uri;
pub mod xml;
