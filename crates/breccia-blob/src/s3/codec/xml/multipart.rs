//! The answers of multipart uploads and of copies.
//!
//! It keeps no upload. Invariant: an answer that is written and read again is the same.

use super::list::{Owner, read_prefixes, read_time, write_prefixes};
use super::other::ErrorDocument;
use super::read::Element;
use super::request::{read_checksums, response, write_checksums};
use super::write::{Writer, decode_key};
use super::{MOST_RESPONSE_BYTES, XmlError};
use crate::s3::codec::checksum::Algorithm;
use crate::s3::codec::time;

/// `InitiateMultipartUploadResult`
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Initiated {
    /// The bucket.
    pub bucket: String,
    /// The key.
    pub key: Vec<u8>,
    /// The upload.
    pub upload_id: String,
}

impl Initiated {
    /// Writes it.
    pub fn write(&self) -> Result<String, XmlError> {
        Writer::document("InitiateMultipartUploadResult", |writer| {
            writer.text("Bucket", &self.bucket);
            writer.key("Key", &self.key, false)?;
            writer.text("UploadId", &self.upload_id);
            Ok(())
        })
    }

    /// Reads it.
    pub fn read(document: &[u8]) -> Result<Initiated, XmlError> {
        let root = response(document, "InitiateMultipartUploadResult")?;
        Ok(Initiated {
            bucket: root.text("Bucket").unwrap_or_default().to_owned(),
            key: root.text("Key").unwrap_or_default().as_bytes().to_vec(),
            upload_id: root.filled("UploadId").ok_or(XmlError::Missing {
                element: "UploadId",
            })?,
        })
    }
}

/// `CompleteMultipartUploadResult`
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CompleteResult {
    /// Where the object is.
    pub location: String,
    /// The bucket.
    pub bucket: String,
    /// The key.
    pub key: Vec<u8>,
    /// The object's `ETag`, with quotes.
    pub etag: String,
    /// Its checksums in base64.
    pub checksums: Vec<(Algorithm, String)>,
    /// `FULL_OBJECT` or `COMPOSITE`.
    pub checksum_type: Option<String>,
}

impl CompleteResult {
    /// Writes it.
    pub fn write(&self) -> Result<String, XmlError> {
        Writer::document("CompleteMultipartUploadResult", |writer| {
            writer.text("Location", &self.location);
            writer.text("Bucket", &self.bucket);
            writer.key("Key", &self.key, false)?;
            writer.text("ETag", &self.etag);
            write_checksums(writer, &self.checksums);
            writer.optional("ChecksumType", self.checksum_type.as_deref());
            Ok(())
        })
    }

    /// Reads an answer of status 200: a server that had begun to answer reports failure only in the
    /// document.
    pub fn read(document: &[u8]) -> Result<Result<CompleteResult, ErrorDocument>, XmlError> {
        const NAME: &str = "CompleteMultipartUploadResult";
        read_or_error(document, NAME, |root| {
            Ok(CompleteResult {
                location: root.text("Location").unwrap_or_default().to_owned(),
                bucket: root.text("Bucket").unwrap_or_default().to_owned(),
                key: root.text("Key").unwrap_or_default().as_bytes().to_vec(),
                etag: root.required("ETag")?.trim().to_owned(),
                checksums: read_checksums(root),
                checksum_type: root.filled("ChecksumType"),
            })
        })
    }
}

/// `CopyObjectResult` and `CopyPartResult`
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CopyResult {
    /// The copy's `ETag`, with quotes.
    pub etag: String,
    /// When it was written.
    pub modified_ms: u64,
    /// Its checksums in base64.
    pub checksums: Vec<(Algorithm, String)>,
}

impl CopyResult {
    /// Writes that of an object.
    pub fn write_object(&self) -> String {
        self.write("CopyObjectResult")
    }

    /// Writes that of a part.
    pub fn write_part(&self) -> String {
        self.write("CopyPartResult")
    }

    fn write(&self, name: &str) -> String {
        Writer::plain(name, |writer| {
            writer.text("LastModified", &time::iso8601(self.modified_ms));
            writer.text("ETag", &self.etag);
            write_checksums(writer, &self.checksums);
        })
    }

    /// Reads the answer to the copy of an object; failure may come with status 200.
    pub fn read_object(document: &[u8]) -> Result<Result<CopyResult, ErrorDocument>, XmlError> {
        read_or_error(document, "CopyObjectResult", CopyResult::of)
    }

    /// Reads the answer to the copy of a part; failure may come with status 200.
    pub fn read_part(document: &[u8]) -> Result<Result<CopyResult, ErrorDocument>, XmlError> {
        read_or_error(document, "CopyPartResult", CopyResult::of)
    }

    fn of(root: &Element) -> Result<CopyResult, XmlError> {
        Ok(CopyResult {
            etag: root.required("ETag")?.trim().to_owned(),
            modified_ms: read_time(root, "LastModified")?,
            checksums: read_checksums(root),
        })
    }
}

/// One part of a list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListedPart {
    /// 1 to 10,000.
    pub number: u16,
    /// When it was written.
    pub modified_ms: u64,
    /// Its `ETag`, with quotes.
    pub etag: String,
    /// Its size in bytes.
    pub size: u64,
    /// Its checksums in base64.
    pub checksums: Vec<(Algorithm, String)>,
}

/// `ListPartsResult`
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListPartsResult {
    /// The bucket.
    pub bucket: String,
    /// The key.
    pub key: Vec<u8>,
    /// The upload.
    pub upload_id: String,
    /// Where the list begins, not included.
    pub part_number_marker: u16,
    /// Where the next one does.
    pub next_part_number_marker: Option<u16>,
    /// The most parts asked for.
    pub max_parts: u32,
    /// Whether more follows.
    pub is_truncated: bool,
    /// Whether the key is percent-encoded on the wire.
    pub url_encoded: bool,
    /// Who began and owns the upload, where that is told.
    pub owner: Option<Owner>,
    /// The parts.
    pub parts: Vec<ListedPart>,
}

impl ListPartsResult {
    /// Writes it.
    pub fn write(&self) -> Result<String, XmlError> {
        Writer::document("ListPartsResult", |writer| {
            writer.text("Bucket", &self.bucket);
            writer.key("Key", &self.key, self.url_encoded)?;
            writer.text("UploadId", &self.upload_id);
            if let Some(owner) = &self.owner {
                owner.write(writer, "Initiator");
                owner.write(writer, "Owner");
            }
            writer.text("StorageClass", "STANDARD");
            writer.value("PartNumberMarker", self.part_number_marker);
            if let Some(next) = self.next_part_number_marker {
                writer.value("NextPartNumberMarker", next);
            }
            writer.value("MaxParts", self.max_parts);
            writer.optional("EncodingType", self.url_encoded.then_some("url"));
            writer.value("IsTruncated", self.is_truncated);
            for part in &self.parts {
                writer.inside("Part", |writer| {
                    writer.value("PartNumber", part.number);
                    writer.text("LastModified", &time::iso8601(part.modified_ms));
                    writer.text("ETag", &part.etag);
                    write_checksums(writer, &part.checksums);
                    writer.value("Size", part.size);
                });
            }
            Ok(())
        })
    }

    /// Reads it, but for the owner.
    pub fn read(document: &[u8]) -> Result<ListPartsResult, XmlError> {
        let root = response(document, "ListPartsResult")?;
        let url = root.text("EncodingType") == Some("url");
        let part = |part: &Element| {
            let missing = |element| XmlError::Missing { element };
            Ok(ListedPart {
                number: part.number("PartNumber")?.ok_or(missing("PartNumber"))?,
                modified_ms: read_time(part, "LastModified")?,
                etag: part.required("ETag")?.trim().to_owned(),
                size: part.number("Size")?.ok_or(missing("Size"))?,
                checksums: read_checksums(part),
            })
        };
        let parts: Result<Vec<ListedPart>, XmlError> = root.all("Part").map(part).collect();
        Ok(ListPartsResult {
            bucket: root.text("Bucket").unwrap_or_default().to_owned(),
            key: decode_key(root.text("Key").unwrap_or_default(), url, "Key")?,
            upload_id: root.text("UploadId").unwrap_or_default().to_owned(),
            part_number_marker: root.number("PartNumberMarker")?.unwrap_or(0),
            next_part_number_marker: root.number("NextPartNumberMarker")?,
            max_parts: root.number("MaxParts")?.unwrap_or(0),
            is_truncated: root.truth("IsTruncated")?,
            url_encoded: url,
            owner: None,
            parts: parts?,
        })
    }
}

/// One upload of a list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListedUpload {
    /// The key.
    pub key: Vec<u8>,
    /// The upload.
    pub upload_id: String,
    /// When it began.
    pub initiated_ms: u64,
}

/// `ListMultipartUploadsResult`
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListUploadsResult {
    /// The bucket.
    pub bucket: String,
    /// Only keys that begin so.
    pub prefix: Vec<u8>,
    /// What ends a common prefix.
    pub delimiter: Option<Vec<u8>>,
    /// Where the list begins: the key, and in it the upload.
    pub key_marker: Vec<u8>,
    /// Where the list begins in the key of the marker.
    pub upload_id_marker: String,
    /// Where the next one does.
    pub next_key_marker: Option<Vec<u8>>,
    /// Where the next one does in that key.
    pub next_upload_id_marker: Option<String>,
    /// The most uploads asked for.
    pub max_uploads: u32,
    /// Whether more follows.
    pub is_truncated: bool,
    /// Whether keys are percent-encoded on the wire.
    pub url_encoded: bool,
    /// The uploads.
    pub uploads: Vec<ListedUpload>,
    /// The common prefixes.
    pub common_prefixes: Vec<Vec<u8>>,
}

impl ListUploadsResult {
    /// Writes it.
    pub fn write(&self) -> Result<String, XmlError> {
        let url = self.url_encoded;
        Writer::document("ListMultipartUploadsResult", |writer| {
            writer.text("Bucket", &self.bucket);
            writer.key("KeyMarker", &self.key_marker, url)?;
            writer.text("UploadIdMarker", &self.upload_id_marker);
            if let Some(next) = &self.next_key_marker {
                writer.key("NextKeyMarker", next, url)?;
            }
            writer.optional("NextUploadIdMarker", self.next_upload_id_marker.as_deref());
            writer.key("Prefix", &self.prefix, url)?;
            if let Some(delimiter) = &self.delimiter {
                writer.key("Delimiter", delimiter, url)?;
            }
            writer.optional("EncodingType", url.then_some("url"));
            writer.value("MaxUploads", self.max_uploads);
            writer.value("IsTruncated", self.is_truncated);
            for upload in &self.uploads {
                writer.try_inside("Upload", |writer| {
                    writer.key("Key", &upload.key, url)?;
                    writer.text("UploadId", &upload.upload_id);
                    writer.text("StorageClass", "STANDARD");
                    writer.text("Initiated", &time::iso8601(upload.initiated_ms));
                    Ok(())
                })?;
            }
            write_prefixes(writer, &self.common_prefixes, url)
        })
    }

    /// Reads it.
    pub fn read(document: &[u8]) -> Result<ListUploadsResult, XmlError> {
        let root = response(document, "ListMultipartUploadsResult")?;
        let url = root.text("EncodingType") == Some("url");
        let optional_key = |element: &'static str| {
            let text = root.text(element).filter(|text| !text.is_empty());
            text.map(|text| decode_key(text, url, element)).transpose()
        };
        let upload = |upload: &Element| {
            Ok(ListedUpload {
                key: decode_key(upload.required("Key")?, url, "Key")?,
                upload_id: upload.required("UploadId")?.to_owned(),
                initiated_ms: read_time(upload, "Initiated")?,
            })
        };
        let uploads: Result<Vec<ListedUpload>, XmlError> = root.all("Upload").map(upload).collect();
        Ok(ListUploadsResult {
            bucket: root.text("Bucket").unwrap_or_default().to_owned(),
            prefix: optional_key("Prefix")?.unwrap_or_default(),
            delimiter: optional_key("Delimiter")?,
            key_marker: optional_key("KeyMarker")?.unwrap_or_default(),
            upload_id_marker: root.text("UploadIdMarker").unwrap_or_default().to_owned(),
            next_key_marker: optional_key("NextKeyMarker")?,
            next_upload_id_marker: root.filled("NextUploadIdMarker"),
            max_uploads: root.number("MaxUploads")?.unwrap_or(0),
            is_truncated: root.truth("IsTruncated")?,
            url_encoded: url,
            uploads: uploads?,
            common_prefixes: read_prefixes(&root, url)?,
        })
    }
}

fn read_or_error<T>(
    document: &[u8],
    expected: &'static str,
    read: impl FnOnce(&Element) -> Result<T, XmlError>,
) -> Result<Result<T, ErrorDocument>, XmlError> {
    // Servers may send white space while they work.
    let root = Element::parse_any(document.trim_ascii_start(), MOST_RESPONSE_BYTES)?;
    if root.is("Error") {
        return Ok(Err(ErrorDocument::of(&root)));
    }
    if !root.is(expected) {
        return Err(XmlError::Root { expected });
    }
    read(&root).map(Ok)
}
