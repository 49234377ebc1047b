//! The XML documents of S3: what requests and answers carry.
//!
//! Each document is a value, read and written. Names are compared without their namespace, and
//! unknown elements are passed over, as S3 does. Invariant: size, depth and number of elements are
//! bounded, no entity is expanded, and a key is written exactly or not at all.

mod list;
mod multipart;
mod other;
mod read;
mod request;
mod write;

use thiserror::Error;

pub use list::{BucketEntry, BucketList, ListBucketResult, ListVersion, ListedObject, Owner};
pub use multipart::{
    CompleteResult, CopyResult, Initiated, ListPartsResult, ListUploadsResult, ListedPart,
    ListedUpload,
};
pub use other::{
    DeleteFailure, DeleteResult, Deleted, ErrorDocument, ObjectAttributes, read_versioning,
    write_location, write_no_versioning,
};
pub use request::{
    CompleteRequest, CompletedPart, DeleteObject, DeleteRequest, Tagging, read_location_constraint,
    write_location_constraint,
};

/// The largest document of a request.
pub const MOST_REQUEST_BYTES: usize = 4 << 20;
/// The largest document of an answer.
pub const MOST_RESPONSE_BYTES: usize = 16 << 20;
/// How deep elements may lie in each other.
pub const MOST_DEPTH: usize = 12;
/// How many elements a document may have: 10,000 parts with their checksums are 80,000.
pub const MOST_ELEMENTS: usize = 120_000;
/// Parts of an upload, and the highest part number.
pub const MOST_PARTS: usize = 10_000;
/// Keys of one Delete.
pub const MOST_DELETE_KEYS: usize = 1000;
/// Tags that are read; fewer are allowed by S3, and that is not judged here.
pub const MOST_TAGS: usize = 50;
/// The namespace of every document.
pub const NAMESPACE: &str = "http://s3.amazonaws.com/doc/2006-03-01/";

/// Why there is no document.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum XmlError {
    /// Longer than allowed: `MalformedXML` or `EntityTooLarge`.
    #[error("the document is longer than {limit} bytes")]
    TooLong {
        /// The limit.
        limit: usize,
    },
    /// Too deep, or too many elements.
    #[error("the document has too many elements, or they lie too deep")]
    TooComplex,
    /// Not XML, or a part of XML that has no place here (DOCTYPE, entities).
    #[error("the document is not well formed: {what}")]
    Malformed {
        /// What of it.
        what: &'static str,
    },
    /// Another document than was asked for.
    #[error("the document is not a {expected}")]
    Root {
        /// What was asked for.
        expected: &'static str,
    },
    /// An element that must be there is not.
    #[error("element {element} is missing")]
    Missing {
        /// Which.
        element: &'static str,
    },
    /// An element's text does not mean what it must.
    #[error("the value of element {element} is wrong")]
    Value {
        /// Which.
        element: &'static str,
    },
    /// More of an element than S3 allows.
    #[error("there are more than {limit} of element {element}")]
    TooMany {
        /// Which.
        element: &'static str,
        /// The limit.
        limit: usize,
    },
    /// A key that is not UTF-8 cannot stand in XML; `encoding-type=url` helps.
    #[error("a key is not UTF-8 and cannot stand in XML without encoding-type=url")]
    KeyNotUtf8,
}

#[cfg(test)]
mod tests;
