//! The documents of requests: a frontend reads them, a backend writes them.
//!
//! It carries out nothing. Invariant: their numbers of parts, keys and tags are S3's own limits at
//! most.

use super::read::Element;
use super::write::Writer;
use super::{
    MOST_DELETE_KEYS, MOST_PARTS, MOST_REQUEST_BYTES, MOST_RESPONSE_BYTES, MOST_TAGS, XmlError,
};
use crate::s3::codec::checksum::Algorithm;

/// One part, as a client completes an upload with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompletedPart {
    /// 1 to 10,000.
    pub number: u16,
    /// Its `ETag`, as the client wrote it (with or without quotes).
    pub etag: String,
    /// Its checksums in base64, not judged.
    pub checksums: Vec<(Algorithm, String)>,
}

/// `CompleteMultipartUpload`: the parts in the client's order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CompleteRequest {
    /// The parts. That they ascend is not judged here.
    pub parts: Vec<CompletedPart>,
}

impl CompleteRequest {
    /// Reads it.
    pub fn read(document: &[u8]) -> Result<CompleteRequest, XmlError> {
        let root = Element::parse(document, MOST_REQUEST_BYTES, "CompleteMultipartUpload")?;
        let mut parts = Vec::new();
        for part in root.all("Part") {
            at_most(parts.len(), MOST_PARTS, "Part")?;
            let number = part.number::<u16>("PartNumber")?.ok_or(XmlError::Missing {
                element: "PartNumber",
            })?;
            if number == 0 || usize::from(number) > MOST_PARTS {
                return Err(XmlError::Value {
                    element: "PartNumber",
                });
            }
            parts.push(CompletedPart {
                number,
                etag: part.required("ETag")?.trim().to_owned(),
                checksums: read_checksums(part),
            });
        }
        if parts.is_empty() {
            return Err(XmlError::Missing { element: "Part" });
        }
        Ok(CompleteRequest { parts })
    }

    /// Writes it.
    pub fn write(&self) -> String {
        Writer::plain("CompleteMultipartUpload", |writer| {
            for part in &self.parts {
                writer.inside("Part", |writer| {
                    writer.text("ETag", &part.etag);
                    write_checksums(writer, &part.checksums);
                    writer.value("PartNumber", part.number);
                });
            }
        })
    }
}

/// One object of a Delete.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeleteObject {
    /// Its key.
    pub key: Vec<u8>,
    /// Its version.
    pub version_id: Option<String>,
    /// Delete only while it has this `ETag`.
    pub etag: Option<String>,
}

/// `Delete`: up to 1,000 objects.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeleteRequest {
    /// Answer with failures only.
    pub quiet: bool,
    /// The objects.
    pub objects: Vec<DeleteObject>,
}

impl DeleteRequest {
    /// Reads it. Conditions on size and time that an object carries (directory buckets have them) are
    /// an error: passing over a condition would delete what was to be kept.
    pub fn read(document: &[u8]) -> Result<DeleteRequest, XmlError> {
        let root = Element::parse(document, MOST_REQUEST_BYTES, "Delete")?;
        let mut objects = Vec::new();
        for object in root.all("Object") {
            at_most(objects.len(), MOST_DELETE_KEYS, "Object")?;
            for element in ["LastModifiedTime", "Size"] {
                if object.child(element).is_some() {
                    return Err(XmlError::Value { element });
                }
            }
            let key = object.required("Key")?.as_bytes().to_vec();
            if key.is_empty() {
                return Err(XmlError::Value { element: "Key" });
            }
            objects.push(DeleteObject {
                key,
                version_id: object.filled("VersionId"),
                etag: object.filled("ETag"),
            });
        }
        if objects.is_empty() {
            return Err(XmlError::Missing { element: "Object" });
        }
        Ok(DeleteRequest {
            quiet: root.truth("Quiet")?,
            objects,
        })
    }

    /// Writes it. A key that is not UTF-8 has to be deleted by a request of its own.
    pub fn write(&self) -> Result<String, XmlError> {
        Writer::document("Delete", |writer| {
            if self.quiet {
                writer.value("Quiet", true);
            }
            self.objects.iter().try_for_each(|object| {
                writer.try_inside("Object", |writer| {
                    writer.key("Key", &object.key, false)?;
                    writer.optional("VersionId", object.version_id.as_deref());
                    writer.optional("ETag", object.etag.as_deref());
                    Ok(())
                })
            })
        })
    }
}

/// `Tagging`: names and values.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tagging {
    /// The tags in the document's order. That names differ is not judged here.
    pub tags: Vec<(String, String)>,
}

impl Tagging {
    /// Reads it, from a request or an answer.
    pub fn read(document: &[u8]) -> Result<Tagging, XmlError> {
        let root = Element::parse(document, MOST_REQUEST_BYTES, "Tagging")?;
        let set = root
            .child("TagSet")
            .ok_or(XmlError::Missing { element: "TagSet" })?;
        let mut tags = Vec::new();
        for tag in set.all("Tag") {
            at_most(tags.len(), MOST_TAGS, "Tag")?;
            let name = tag.required("Key")?.to_owned();
            tags.push((name, tag.required("Value")?.to_owned()));
        }
        Ok(Tagging { tags })
    }

    /// Writes it.
    pub fn write(&self) -> String {
        Writer::plain("Tagging", |writer| {
            writer.inside("TagSet", |writer| {
                for (name, value) in &self.tags {
                    writer.inside("Tag", |writer| {
                        writer.text("Key", name);
                        writer.text("Value", value);
                    });
                }
            });
        })
    }
}

/// Reads `CreateBucketConfiguration`; none: there is no body, or it names no region.
pub fn read_location_constraint(document: &[u8]) -> Result<Option<String>, XmlError> {
    if document.trim_ascii().is_empty() {
        return Ok(None);
    }
    let root = Element::parse(document, MOST_REQUEST_BYTES, "CreateBucketConfiguration")?;
    Ok(root.filled("LocationConstraint"))
}

/// Writes `CreateBucketConfiguration`.
pub fn write_location_constraint(region: &str) -> String {
    Writer::plain("CreateBucketConfiguration", |writer| {
        writer.text("LocationConstraint", region);
    })
}

pub(super) fn at_most(have: usize, limit: usize, element: &'static str) -> Result<(), XmlError> {
    if have < limit {
        Ok(())
    } else {
        Err(XmlError::TooMany { element, limit })
    }
}

/// The checksums that an element carries.
pub(super) fn read_checksums(element: &Element) -> Vec<(Algorithm, String)> {
    Algorithm::HEADERS
        .into_iter()
        .filter_map(|algorithm| Some((algorithm, element.filled(algorithm.element())?)))
        .collect()
}

pub(super) fn write_checksums(writer: &mut Writer, checksums: &[(Algorithm, String)]) {
    for (algorithm, value) in checksums {
        writer.text(algorithm.element(), value);
    }
}

/// Reads an answer's root; an `Error` in its place is told apart by the caller.
pub(super) fn response(document: &[u8], root: &'static str) -> Result<Element, XmlError> {
    Element::parse(document, MOST_RESPONSE_BYTES, root)
}
