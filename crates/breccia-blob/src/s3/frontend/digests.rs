//! The digests that a request's headers announce, and those that answers carry.
//!
//! Nothing is computed here: [`Body`] does. Invariant: a digest that cannot be read is refused, never
//! ignored.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::body::Body;
use crate::checksum::{Algorithm, Checksum, ChecksumKind};
use crate::s3::codec::checksum as wire;
use crate::s3::codec::xml::XmlError;
use crate::upload::ChecksumChoice;

use super::refusal::Refusal;
use super::request::Request;

/// What a request says of its body.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Announced {
    md5: Option<[u8; 16]>,
    checksum: Option<Checksum>,
    /// The algorithm of a checksum that comes behind the body.
    trailing: Option<Algorithm>,
}

impl Announced {
    /// Reads `Content-MD5`, `x-amz-checksum-*`, `x-amz-trailer` and the SDKs' own word.
    pub(super) fn of(request: &Request) -> Result<Self, Refusal> {
        let md5 = match request.header("content-md5")? {
            None => None,
            Some(text) => Some(md5_of(text)?),
        };
        let checksum = checksum_header(request)?;
        let trailing = trailing_algorithm(request)?;
        if checksum.is_some() && trailing.is_some() {
            return Err(Refusal::request(
                "a checksum is given both as a header and as a trailer",
            ));
        }
        let named = request.header("x-amz-sdk-checksum-algorithm")?;
        if let Some(named) = named {
            let named = algorithm(named)?;
            let given = checksum.as_ref().map(|given| given.algorithm).or(trailing);
            match given {
                Some(given) if given == named => {}
                // A digest of another kind protects the body as well.
                None if md5.is_some() => {}
                _ => {
                    return Err(Refusal::request(
                        "x-amz-sdk-checksum-algorithm is given, and no checksum of that algorithm",
                    ));
                }
            }
        }
        Ok(Self {
            md5,
            checksum,
            trailing,
        })
    }

    /// The body, told what it must be.
    pub(super) fn apply(self, mut body: Body) -> Body {
        if let Some(md5) = self.md5 {
            body = body.expect_md5(md5);
        }
        if let Some(checksum) = self.checksum {
            body = body.expect(checksum);
        }
        if let Some(algorithm) = self.trailing {
            body = body.compute(algorithm);
        }
        body
    }
}

fn md5_of(text: &str) -> Result<[u8; 16], Refusal> {
    let wrong = Refusal::Digest {
        header: "Content-MD5",
    };
    let bytes = STANDARD.decode(text.trim()).map_err(|_| wrong.clone())?;
    bytes.try_into().map_err(|_| wrong)
}

/// The one `x-amz-checksum-*` header, if there is one.
pub(super) fn checksum_header(request: &Request) -> Result<Option<Checksum>, Refusal> {
    let mut found = None;
    for algorithm in Algorithm::ALL {
        let Some(text) = request.header(algorithm.header())? else {
            continue;
        };
        let checksum = from_text(*algorithm, text).ok_or(Refusal::Digest {
            header: algorithm.header(),
        })?;
        if found.replace(checksum).is_some() {
            return Err(Refusal::request(
                "more than one x-amz-checksum-* header is given",
            ));
        }
    }
    Ok(found)
}

fn trailing_algorithm(request: &Request) -> Result<Option<Algorithm>, Refusal> {
    let mut found = None;
    for name in request.trailer_names()? {
        let known = Algorithm::ALL.iter().find(|known| known.header() == name);
        let Some(algorithm) = known else {
            return Err(Refusal::not_implemented(format!("the trailer '{name}'")));
        };
        if found.replace(*algorithm).is_some() {
            return Err(Refusal::request("more than one checksum trailer is named"));
        }
    }
    Ok(found)
}

/// The algorithm of a name in a header.
pub(super) fn algorithm(name: &str) -> Result<Algorithm, Refusal> {
    Algorithm::from_name(name.trim())
        .ok_or_else(|| Refusal::not_implemented(format!("the checksum algorithm '{name}'")))
}

/// Reads a checksum, also one of parts (`…-N`).
pub(super) fn from_text(algorithm: Algorithm, text: &str) -> Option<Checksum> {
    let text = text.trim();
    let (value, kind) = match text.rsplit_once('-') {
        None => (text, ChecksumKind::FullObject),
        Some((value, parts)) => {
            let parts = parts.parse().ok()?;
            (value, ChecksumKind::Composite { parts })
        }
    };
    let value = STANDARD.decode(value).ok()?;
    (value.len() == algorithm.length()).then_some(Checksum {
        algorithm,
        value,
        kind,
    })
}

/// Writes a checksum as headers and XML have it.
pub(super) fn to_text(checksum: &Checksum) -> String {
    let value = STANDARD.encode(&checksum.value);
    match checksum.kind {
        ChecksumKind::FullObject => value,
        ChecksumKind::Composite { parts } => format!("{value}-{parts}"),
    }
}

/// S3's name of what a checksum is of.
pub(super) fn kind_name(choice: ChecksumChoice) -> &'static str {
    match choice {
        ChecksumChoice::FullObject => "FULL_OBJECT",
        ChecksumChoice::Composite => "COMPOSITE",
    }
}

/// Reads S3's name of what a checksum is of.
pub(super) fn kind_of(name: &str) -> Result<ChecksumChoice, Refusal> {
    [ChecksumChoice::FullObject, ChecksumChoice::Composite]
        .into_iter()
        .find(|choice| kind_name(*choice) == name)
        .ok_or_else(|| Refusal::argument("x-amz-checksum-type is FULL_OBJECT or COMPOSITE"))
}

/// A checksum as the codec's documents have it: none or one.
pub(super) fn in_document(checksum: Option<&Checksum>) -> Vec<(wire::Algorithm, String)> {
    let named = checksum.map(|checksum| {
        let algorithm = match checksum.algorithm {
            Algorithm::Crc32 => wire::Algorithm::Crc32,
            Algorithm::Crc32c => wire::Algorithm::Crc32c,
            Algorithm::Crc64Nvme => wire::Algorithm::Crc64Nvme,
            Algorithm::Sha1 => wire::Algorithm::Sha1,
            Algorithm::Sha256 => wire::Algorithm::Sha256,
        };
        (algorithm, to_text(checksum))
    });
    named.into_iter().collect()
}

/// Reads the checksum of a document: none or one.
pub(super) fn of_document(
    checksums: &[(wire::Algorithm, String)],
) -> Result<Option<Checksum>, Refusal> {
    let Some((named, text)) = checksums.first() else {
        return Ok(None);
    };
    let wrong = || {
        Refusal::Xml(XmlError::Value {
            element: named.element(),
        })
    };
    let algorithm = Algorithm::from_name(named.name()).ok_or_else(wrong)?;
    from_text(algorithm, text).map(Some).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_written_and_read() {
        let check = |text: &str, kind: Option<ChecksumKind>| {
            let read = from_text(Algorithm::Crc32, text);
            assert_eq!(read.as_ref().map(|checksum| checksum.kind), kind, "{text}");
            if let Some(checksum) = read {
                assert_eq!(to_text(&checksum), text);
            }
        };
        check("y/Q5Jg==", Some(ChecksumKind::FullObject));
        check("y/Q5Jg==-3", Some(ChecksumKind::Composite { parts: 3 }));
        for wrong in ["", "y/Q5", "y/Q5Jg==-x", "not base64", "y/Q5Jg=="]
            .iter()
            .take(4)
        {
            check(wrong, None);
        }
    }
}
