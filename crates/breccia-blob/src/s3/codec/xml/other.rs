//! Errors, and the answers that are neither lists nor uploads.
//!
//! It maps no error. Invariant: an error document has a code, whatever the server sent.

use super::read::Element;
use super::request::{response, write_checksums};
use super::write::Writer;
use super::{MOST_RESPONSE_BYTES, XmlError};
use crate::s3::codec::checksum::Algorithm;

/// `Error`
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ErrorDocument {
    /// `NoSuchKey` …; empty when the server gave none.
    pub code: String,
    /// A text for people.
    pub message: String,
    /// What it is about.
    pub resource: String,
    /// The request, for the logs.
    pub request_id: String,
    /// Further elements, such as `BucketName`. They are written, not read.
    pub extra: Vec<(&'static str, String)>,
}

impl ErrorDocument {
    /// Writes it.
    pub fn write(&self) -> String {
        Writer::bare("Error", |writer| {
            writer.text("Code", &self.code);
            writer.text("Message", &self.message);
            for (name, value) in &self.extra {
                writer.text(name, value);
            }
            writer.text("Resource", &self.resource);
            writer.text("RequestId", &self.request_id);
        })
    }

    /// Reads it.
    pub fn read(document: &[u8]) -> Result<ErrorDocument, XmlError> {
        let root = Element::parse(document, MOST_RESPONSE_BYTES, "Error")?;
        Ok(ErrorDocument::of(&root))
    }

    pub(super) fn of(root: &Element) -> ErrorDocument {
        let text = |name| root.text(name).unwrap_or_default().to_owned();
        ErrorDocument {
            code: text("Code").trim().to_owned(),
            message: text("Message"),
            resource: text("Resource"),
            request_id: text("RequestId"),
            extra: Vec::new(),
        }
    }
}

/// One object that was deleted, or was not there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Deleted {
    /// Its key.
    pub key: Vec<u8>,
    /// The version that was asked for.
    pub version_id: Option<String>,
}

/// One object that could not be deleted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeleteFailure {
    /// Its key.
    pub key: Vec<u8>,
    /// The version that was asked for.
    pub version_id: Option<String>,
    /// `InternalError` …
    pub code: String,
    /// A text for people.
    pub message: String,
}

/// `DeleteResult`
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeleteResult {
    /// What was deleted; left empty when the client asked for quiet.
    pub deleted: Vec<Deleted>,
    /// What was not.
    pub failures: Vec<DeleteFailure>,
}

impl DeleteResult {
    /// Writes it. The keys came in XML, so they are UTF-8.
    pub fn write(&self) -> Result<String, XmlError> {
        Writer::document("DeleteResult", |writer| {
            for deleted in &self.deleted {
                writer.try_inside("Deleted", |writer| {
                    writer.key("Key", &deleted.key, false)?;
                    writer.optional("VersionId", deleted.version_id.as_deref());
                    Ok(())
                })?;
            }
            self.failures.iter().try_for_each(|failure| {
                writer.try_inside("Error", |writer| {
                    writer.key("Key", &failure.key, false)?;
                    writer.optional("VersionId", failure.version_id.as_deref());
                    writer.text("Code", &failure.code);
                    writer.text("Message", &failure.message);
                    Ok(())
                })
            })
        })
    }

    /// Reads it.
    pub fn read(document: &[u8]) -> Result<DeleteResult, XmlError> {
        let root = response(document, "DeleteResult")?;
        let key = |element: &Element| Ok::<_, XmlError>(element.required("Key")?.into());
        let deleted: Result<Vec<Deleted>, XmlError> = root
            .all("Deleted")
            .map(|one| {
                Ok(Deleted {
                    key: key(one)?,
                    version_id: one.filled("VersionId"),
                })
            })
            .collect();
        let failures: Result<Vec<DeleteFailure>, XmlError> = root
            .all("Error")
            .map(|one| {
                Ok(DeleteFailure {
                    key: key(one)?,
                    version_id: one.filled("VersionId"),
                    code: one.required("Code")?.trim().to_owned(),
                    message: one.text("Message").unwrap_or_default().to_owned(),
                })
            })
            .collect();
        Ok(DeleteResult {
            deleted: deleted?,
            failures: failures?,
        })
    }
}

/// `GetObjectAttributesResponse`: what was asked for, the rest is left out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ObjectAttributes {
    /// The `ETag`, here without quotes, as S3 does it.
    pub etag: Option<String>,
    /// The checksums in base64.
    pub checksums: Vec<(Algorithm, String)>,
    /// `FULL_OBJECT` or `COMPOSITE`.
    pub checksum_type: Option<String>,
    /// How many parts the object was put in.
    pub part_count: Option<u32>,
    /// `STANDARD`
    pub storage_class: Option<String>,
    /// The size in bytes.
    pub size: Option<u64>,
}

impl ObjectAttributes {
    /// Writes it.
    pub fn write(&self) -> String {
        Writer::plain("GetObjectAttributesResponse", |writer| {
            writer.optional("ETag", self.etag.as_deref());
            if !self.checksums.is_empty() {
                writer.inside("Checksum", |writer| {
                    write_checksums(writer, &self.checksums);
                    writer.optional("ChecksumType", self.checksum_type.as_deref());
                });
            }
            if let Some(count) = self.part_count {
                // S3's own name on the wire is this, not the SDKs' TotalPartsCount.
                writer.inside("ObjectParts", |writer| writer.value("PartsCount", count));
            }
            writer.optional("StorageClass", self.storage_class.as_deref());
            if let Some(size) = self.size {
                writer.value("ObjectSize", size);
            }
        })
    }
}

/// Writes `LocationConstraint`, the answer to `GetBucketLocation`; empty for `us-east-1`.
pub fn write_location(region: &str) -> String {
    let region = if region == "us-east-1" { "" } else { region };
    Writer::plain("LocationConstraint", |writer| writer.escaped(region))
}

/// Writes `VersioningConfiguration` of a bucket that never had any.
pub fn write_no_versioning() -> String {
    Writer::plain("VersioningConfiguration", |_| {})
}

/// Reads `VersioningConfiguration`: its `Status`; none: never switched on.
pub fn read_versioning(document: &[u8]) -> Result<Option<String>, XmlError> {
    let root = response(document, "VersioningConfiguration")?;
    Ok(root.filled("Status").map(|status| status.trim().to_owned()))
}
