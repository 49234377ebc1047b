//! Lists of buckets and of objects.
//!
//! It merges and orders nothing. Invariant: a list that is written and read again is the same.

use super::XmlError;
use super::read::Element;
use super::request::response;
use super::write::{Writer, decode_key};
use crate::s3::codec::time;

/// Whose something is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Owner {
    /// An identifier.
    pub id: String,
    /// A name for people.
    pub display_name: String,
}

impl Owner {
    pub(super) fn write(&self, writer: &mut Writer, element: &str) {
        writer.inside(element, |writer| {
            writer.text("ID", &self.id);
            writer.text("DisplayName", &self.display_name);
        });
    }
}

/// One bucket of a [`BucketList`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BucketEntry {
    /// Its name.
    pub name: String,
    /// When it was made.
    pub created_ms: u64,
}

/// `ListAllMyBucketsResult`
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BucketList {
    /// Whose they are.
    pub owner: Owner,
    /// The buckets.
    pub buckets: Vec<BucketEntry>,
    /// What the client continues with, if there are more.
    pub continuation_token: Option<String>,
    /// Only names that begin so, if the client asked.
    pub prefix: Option<String>,
}

impl BucketList {
    /// Writes it.
    pub fn write(&self) -> String {
        Writer::plain("ListAllMyBucketsResult", |writer| {
            self.owner.write(writer, "Owner");
            writer.inside("Buckets", |writer| {
                for bucket in &self.buckets {
                    writer.inside("Bucket", |writer| {
                        writer.text("Name", &bucket.name);
                        writer.text("CreationDate", &time::iso8601(bucket.created_ms));
                    });
                }
            });
            writer.optional("ContinuationToken", self.continuation_token.as_deref());
            writer.optional("Prefix", self.prefix.as_deref());
        })
    }
}

/// One object of a list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListedObject {
    /// Its key.
    pub key: Vec<u8>,
    /// When it was last written.
    pub modified_ms: u64,
    /// Its `ETag`, with quotes.
    pub etag: String,
    /// Its size in bytes.
    pub size: u64,
    /// Whose it is, where the client asked.
    pub owner: Option<Owner>,
    /// The names of its checksum algorithms.
    pub checksum_algorithms: Vec<String>,
}

/// What only one version of the list has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListVersion {
    /// `ListObjects`
    One {
        /// Where the list begins, not included.
        marker: Vec<u8>,
        /// Where the next one does.
        next_marker: Option<Vec<u8>>,
    },
    /// `ListObjectsV2`
    Two {
        /// Where the list begins, not included.
        start_after: Option<Vec<u8>>,
        /// What the client continued with.
        continuation_token: Option<String>,
        /// What it continues with.
        next_continuation_token: Option<String>,
    },
}

/// `ListBucketResult`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListBucketResult {
    /// The bucket.
    pub bucket: String,
    /// Only keys that begin so.
    pub prefix: Vec<u8>,
    /// What ends a common prefix.
    pub delimiter: Option<Vec<u8>>,
    /// The most entries asked for.
    pub max_keys: u32,
    /// Whether more follows.
    pub is_truncated: bool,
    /// Whether keys are percent-encoded on the wire (`encoding-type=url`).
    pub url_encoded: bool,
    /// The objects.
    pub objects: Vec<ListedObject>,
    /// The common prefixes.
    pub common_prefixes: Vec<Vec<u8>>,
    /// What only this version has.
    pub version: ListVersion,
}

impl ListBucketResult {
    /// Writes it.
    pub fn write(&self) -> Result<String, XmlError> {
        let url = self.url_encoded;
        Writer::document("ListBucketResult", |writer| {
            writer.text("Name", &self.bucket);
            writer.key("Prefix", &self.prefix, url)?;
            self.write_version(writer)?;
            writer.value("MaxKeys", self.max_keys);
            if let Some(delimiter) = &self.delimiter {
                writer.key("Delimiter", delimiter, url)?;
            }
            writer.value("IsTruncated", self.is_truncated);
            writer.optional("EncodingType", url.then_some("url"));
            for object in &self.objects {
                writer.try_inside("Contents", |writer| object.write(writer, url))?;
            }
            write_prefixes(writer, &self.common_prefixes, url)
        })
    }

    fn write_version(&self, writer: &mut Writer) -> Result<(), XmlError> {
        match &self.version {
            ListVersion::One {
                marker,
                next_marker,
            } => {
                writer.key("Marker", marker, self.url_encoded)?;
                if let Some(next) = next_marker {
                    writer.key("NextMarker", next, self.url_encoded)?;
                }
            }
            ListVersion::Two {
                start_after,
                continuation_token,
                next_continuation_token,
            } => {
                if let Some(start) = start_after {
                    writer.key("StartAfter", start, self.url_encoded)?;
                }
                writer.optional("ContinuationToken", continuation_token.as_deref());
                writer.optional("NextContinuationToken", next_continuation_token.as_deref());
                let count = self
                    .objects
                    .len()
                    .saturating_add(self.common_prefixes.len());
                writer.value("KeyCount", count);
            }
        }
        Ok(())
    }

    /// Reads one of version 2.
    pub fn read(document: &[u8]) -> Result<ListBucketResult, XmlError> {
        let root = response(document, "ListBucketResult")?;
        let url = root.text("EncodingType") == Some("url");
        let optional_key = |element: &'static str| {
            let text = root.text(element).filter(|text| !text.is_empty());
            text.map(|text| decode_key(text, url, element)).transpose()
        };
        let objects: Result<Vec<ListedObject>, XmlError> = root
            .all("Contents")
            .map(|object| ListedObject::read(object, url))
            .collect();
        Ok(ListBucketResult {
            bucket: root.text("Name").unwrap_or_default().to_owned(),
            prefix: optional_key("Prefix")?.unwrap_or_default(),
            delimiter: optional_key("Delimiter")?,
            max_keys: root.number("MaxKeys")?.unwrap_or(0),
            is_truncated: root.truth("IsTruncated")?,
            url_encoded: url,
            objects: objects?,
            common_prefixes: read_prefixes(&root, url)?,
            version: ListVersion::Two {
                start_after: optional_key("StartAfter")?,
                continuation_token: root.filled("ContinuationToken"),
                next_continuation_token: root.filled("NextContinuationToken"),
            },
        })
    }
}

impl ListedObject {
    fn write(&self, writer: &mut Writer, url: bool) -> Result<(), XmlError> {
        writer.key("Key", &self.key, url)?;
        writer.text("LastModified", &time::iso8601(self.modified_ms));
        writer.text("ETag", &self.etag);
        for algorithm in &self.checksum_algorithms {
            writer.text("ChecksumAlgorithm", algorithm);
        }
        writer.value("Size", self.size);
        if let Some(owner) = &self.owner {
            owner.write(writer, "Owner");
        }
        writer.text("StorageClass", "STANDARD");
        Ok(())
    }

    fn read(element: &Element, url: bool) -> Result<ListedObject, XmlError> {
        let algorithms = element.all("ChecksumAlgorithm");
        Ok(ListedObject {
            key: decode_key(element.required("Key")?, url, "Key")?,
            modified_ms: read_time(element, "LastModified")?,
            etag: element.text("ETag").unwrap_or_default().trim().to_owned(),
            size: element
                .number("Size")?
                .ok_or(XmlError::Missing { element: "Size" })?,
            owner: element.child("Owner").map(|owner| Owner {
                id: owner.text("ID").unwrap_or_default().to_owned(),
                display_name: owner.text("DisplayName").unwrap_or_default().to_owned(),
            }),
            checksum_algorithms: algorithms.map(|one| one.own_text().to_owned()).collect(),
        })
    }
}

pub(super) fn read_time(element: &Element, name: &'static str) -> Result<u64, XmlError> {
    let text = element.required(name)?.trim();
    time::parse_iso8601(text).ok_or(XmlError::Value { element: name })
}

pub(super) fn write_prefixes(
    writer: &mut Writer,
    prefixes: &[Vec<u8>],
    url: bool,
) -> Result<(), XmlError> {
    prefixes.iter().try_for_each(|prefix| {
        writer.try_inside("CommonPrefixes", |writer| writer.key("Prefix", prefix, url))
    })
}

pub(super) fn read_prefixes(root: &Element, url: bool) -> Result<Vec<Vec<u8>>, XmlError> {
    root.all("CommonPrefixes")
        .flat_map(|prefixes| prefixes.all("Prefix"))
        .map(|prefix| decode_key(prefix.own_text(), url, "Prefix"))
        .collect()
}
