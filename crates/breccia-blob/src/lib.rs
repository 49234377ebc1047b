//! Breccia's blob slice: stores of objects, the composite that shards over them, and the S3 wire.
//!
//! Not here: configuration, command line, admin listener. Frontends and composites know the trait
//! [`BlobStore`] only; backends know neither of them.
//!
//! Invariant: an object is visible whole or not at all, on every kind of store, also after a crash.

pub mod adoption;
pub mod azure;
pub mod body;
pub mod bucket;
pub mod buckets;
pub mod checksum;
pub mod condition;
pub mod error;
pub mod fs;
pub mod gcs;
pub mod guarded;
pub mod http;
pub mod key;
pub mod key_encoding;
pub mod key_names;
pub mod listing;
pub mod local;
pub mod markers;
pub mod meta;
pub mod object_store_adapter;
pub(crate) mod packed;
pub mod s3;
pub mod sharded;
pub mod sql;
pub mod store;
pub mod upload;

pub use body::{Body, ByteSource, Digests};
pub use bucket::{BucketName, BucketStore};
pub use checksum::{Algorithm, Checksum};
pub use error::BlobError;
pub use key::Key;
pub use meta::ObjectMeta;
pub use sharded::{ShardedBlob, ShardedBlobOptions};
pub use store::BlobStore;
