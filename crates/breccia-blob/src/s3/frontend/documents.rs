//! Documents that clients send, as what the operations take.
//!
//! Reading the XML is the codec's. Invariant: what a document asks for and is not offered is refused by
//! name.

use crate::error::BlobError;
use crate::meta::ETag;
use crate::s3::codec::etag::Etag;
use crate::s3::codec::xml::{CompleteRequest, XmlError};
use crate::upload::PartChoice;

use super::digests;
use super::refusal::Refusal;

/// The parts of a `CompleteMultipartUpload`, in ascending order.
pub(super) fn complete(document: &[u8]) -> Result<Vec<PartChoice>, Refusal> {
    let request = CompleteRequest::read(document)?;
    let mut parts: Vec<PartChoice> = Vec::with_capacity(request.parts.len());
    for part in request.parts {
        let wrong = XmlError::Value { element: "ETag" };
        let etag = Etag::parse(&part.etag).ok_or(wrong)?;
        if parts.last().is_some_and(|last| last.number >= part.number) {
            return Err(BlobError::PartOrder.into());
        }
        parts.push(PartChoice {
            number: part.number,
            etag: ETag::from_text(etag.value()),
            checksum: digests::of_document(&part.checksums)?,
        });
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_ascend_and_have_tags_and_checksums() {
        let part = |number: u16, rest: &str| {
            format!("<Part><PartNumber>{number}</PartNumber>{rest}</Part>")
        };
        let whole = |parts: &[String]| {
            let parts = parts.concat();
            complete(
                format!("<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>").as_bytes(),
            )
        };
        let tag = "<ETag>&quot;a&quot;</ETag>";
        let sum = "<ETag>b</ETag><ChecksumCRC32>y/Q5Jg==</ChecksumCRC32>";
        let parts = whole(&[part(1, tag), part(3, sum)]).expect("parts");
        let seen: Vec<(u16, &str, bool)> = parts
            .iter()
            .map(|part| (part.number, part.etag.as_str(), part.checksum.is_some()))
            .collect();
        assert_eq!(seen, [(1, "a", false), (3, "b", true)]);
        let order = whole(&[part(2, tag), part(2, tag)]);
        assert!(matches!(order, Err(Refusal::Blob(BlobError::PartOrder))));
        let bad = "<ETag>b</ETag><ChecksumCRC32>y</ChecksumCRC32>";
        for wrong in [bad, "<ETag>a b</ETag>", ""] {
            let read = whole(&[part(1, wrong)]);
            assert!(matches!(read, Err(Refusal::Xml(_))), "{wrong}");
        }
    }
}
