//! Reading the XML that clients send.
//!
//! Not the values' meaning. Invariant: what an element says is read exactly as it is, and a document
//! with anything strange in it (a DTD, an unknown entity, too much depth) is refused whole.

use quick_xml::Reader;
use quick_xml::events::Event;

use crate::checksum::Algorithm;
use crate::meta::ETag;
use crate::s3::codec::etag::Etag;
use crate::upload::{MAX_PART_NUMBER, PartChoice};

use super::digests;
use super::refusal::Refusal;

/// How deep elements lie in each other at most.
const MAX_DEPTH: usize = 8;
/// The most objects of one `DeleteObjects`, as S3 has it.
pub(super) const MAX_DELETES: usize = 1000;
/// The most tags that are read; how many an object may have is checked later.
const MAX_TAGS_READ: usize = 50;

/// One object of a `DeleteObjects`.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct DeleteEntry {
    pub(super) key: String,
    pub(super) etag: Option<String>,
    /// What it asks for that is not offered.
    pub(super) unoffered: Option<&'static str>,
}

/// A `DeleteObjects`.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct DeleteDocument {
    pub(super) quiet: bool,
    pub(super) entries: Vec<DeleteEntry>,
}

fn malformed(problem: impl Into<String>) -> Refusal {
    Refusal::Xml {
        problem: problem.into(),
    }
}

/// The parts of a `CompleteMultipartUpload`.
pub(super) fn complete(document: &[u8]) -> Result<Vec<PartChoice>, Refusal> {
    let mut parts: Vec<PartChoice> = Vec::new();
    let (mut number, mut etag, mut checksum) = (None, None, None);
    walk(document, "CompleteMultipartUpload", |path, text| {
        match (path, text) {
            (["Part", "PartNumber"], Some(text)) => {
                let read = text.trim().parse::<u16>().ok();
                let read = read.filter(|number| (1..=MAX_PART_NUMBER).contains(number));
                number = Some(read.ok_or_else(|| malformed("a part's number is not 1 to 10000"))?);
            }
            (["Part", "ETag"], Some(text)) => {
                let read = Etag::parse(text);
                let read = read.ok_or_else(|| malformed("a part's ETag is none"))?;
                etag = Some(ETag::from_text(read.value()));
            }
            (["Part", name], Some(text)) => {
                let mut known = Algorithm::ALL.iter();
                let algorithm = known.find(|algorithm| digests::element(**algorithm) == *name);
                if let Some(algorithm) = algorithm {
                    let read = digests::from_text(*algorithm, text);
                    checksum = Some(read.ok_or_else(|| malformed("a part's checksum is none"))?);
                }
            }
            (["Part"], _) => {
                let missing = || malformed("a part lacks its number or ETag");
                parts.push(PartChoice {
                    number: number.take().ok_or_else(missing)?,
                    etag: etag.take().ok_or_else(missing)?,
                    checksum: checksum.take(),
                });
                if parts.len() > usize::from(MAX_PART_NUMBER) {
                    return Err(malformed("more than 10000 parts"));
                }
            }
            _ => {}
        }
        Ok(())
    })?;
    if parts.is_empty() {
        return Err(malformed("no part is named"));
    }
    let ascending = parts.windows(2).all(|pair| match pair {
        [first, second] => first.number < second.number,
        _ => true,
    });
    if ascending {
        Ok(parts)
    } else {
        Err(crate::error::BlobError::PartOrder.into())
    }
}

/// A `DeleteObjects`.
pub(super) fn deletes(document: &[u8]) -> Result<DeleteDocument, Refusal> {
    let mut found = DeleteDocument::default();
    let mut entry = DeleteEntry::default();
    walk(document, "Delete", |path, text| {
        match (path, text) {
            (["Quiet"], Some(text)) => found.quiet = text.trim().eq_ignore_ascii_case("true"),
            (["Object", "Key"], Some(text)) => text.clone_into(&mut entry.key),
            (["Object", "VersionId"], Some(text)) if !text.is_empty() => {
                entry.unoffered = Some("VersionId");
            }
            (["Object", "ETag"], Some(text)) => entry.etag = Some(text.to_owned()),
            (["Object", "LastModifiedTime"], Some(_)) => {
                entry.unoffered = Some("LastModifiedTime");
            }
            (["Object", "Size"], Some(_)) => entry.unoffered = Some("Size"),
            (["Object"], _) => {
                if entry.key.is_empty() {
                    return Err(malformed("an object has no key"));
                }
                if found.entries.len() >= MAX_DELETES {
                    return Err(malformed("more than 1000 objects"));
                }
                found.entries.push(std::mem::take(&mut entry));
            }
            _ => {}
        }
        Ok(())
    })?;
    if found.entries.is_empty() {
        return Err(malformed("no object is named"));
    }
    Ok(found)
}

/// The tags of a `Tagging`.
pub(super) fn tags(document: &[u8]) -> Result<Vec<(String, String)>, Refusal> {
    let mut tags = Vec::new();
    let (mut key, mut value) = (None, None);
    walk(document, "Tagging", |path, text| {
        match (path, text) {
            (["TagSet", "Tag", "Key"], Some(text)) => key = Some(text.to_owned()),
            (["TagSet", "Tag", "Value"], Some(text)) => value = Some(text.to_owned()),
            (["TagSet", "Tag"], _) => {
                let missing = || malformed("a tag lacks its key or value");
                tags.push((
                    key.take().ok_or_else(missing)?,
                    value.take().ok_or_else(missing)?,
                ));
                if tags.len() > MAX_TAGS_READ {
                    return Err(malformed("too many tags"));
                }
            }
            _ => {}
        }
        Ok(())
    })?;
    Ok(tags)
}

/// The region of a `CreateBucketConfiguration`, if it names one.
pub(super) fn location_constraint(document: &[u8]) -> Result<Option<String>, Refusal> {
    let mut found = None;
    walk(document, "CreateBucketConfiguration", |path, text| {
        match (path, text) {
            (["LocationConstraint"], Some(text)) => found = Some(text.trim().to_owned()),
            ([first, ..], _) if *first != "LocationConstraint" => {
                let what = format!("CreateBucket with {first}");
                return Err(Refusal::not_implemented(what));
            }
            _ => {}
        }
        Ok(())
    })?;
    Ok(found)
}

/// What is told of each element at its end: its path below the root, and its text if it holds no
/// elements.
trait Visit: FnMut(&[&str], Option<&str>) -> Result<(), Refusal> {}
impl<F: FnMut(&[&str], Option<&str>) -> Result<(), Refusal>> Visit for F {}

struct Walk<V> {
    root: &'static str,
    path: Vec<String>,
    text: String,
    /// Whether the element that is open holds elements.
    has_elements: bool,
    is_over: bool,
    visit: V,
}

fn walk(document: &[u8], root: &'static str, visit: impl Visit) -> Result<(), Refusal> {
    let text = std::str::from_utf8(document).map_err(|_| malformed("it is not UTF-8"))?;
    let mut reader = Reader::from_str(text.trim_start_matches('\u{feff}'));
    let mut walk = Walk {
        root,
        path: Vec::new(),
        text: String::new(),
        has_elements: false,
        is_over: false,
        visit,
    };
    loop {
        let event = reader.read_event();
        match event.map_err(|error| malformed(error.to_string()))? {
            Event::Eof if walk.is_over => return Ok(()),
            Event::Eof => return Err(malformed("it ends early")),
            event => walk.take(&event)?,
        }
    }
}

impl<V: Visit> Walk<V> {
    fn take(&mut self, event: &Event<'_>) -> Result<(), Refusal> {
        match event {
            Event::Start(start) => self.open(start.local_name().into_inner()),
            Event::Empty(start) => {
                self.open(start.local_name().into_inner())?;
                self.close()
            }
            Event::End(_) => self.close(),
            Event::Text(text) => self.add(&text.xml10_content()),
            Event::CData(text) => self.add(&text.xml10_content()),
            Event::GeneralRef(reference) => {
                let number = reference.resolve_char_ref();
                let number = number.map_err(|error| malformed(error.to_string()))?;
                let letter = match (number, &*reference.xml10_content()) {
                    (Some(letter), _) => letter,
                    (None, "amp") => '&',
                    (None, "lt") => '<',
                    (None, "gt") => '>',
                    (None, "quot") => '"',
                    (None, "apos") => '\'',
                    (None, _) => return Err(malformed("an entity is not known")),
                };
                self.add(letter.encode_utf8(&mut [0; 4]))
            }
            Event::DocType(_) => Err(malformed("a document type is not allowed")),
            Event::Decl(_) | Event::PI(_) | Event::Comment(_) | Event::Eof => Ok(()),
        }
    }

    fn open(&mut self, name: &str) -> Result<(), Refusal> {
        let right = !self.path.is_empty() || (name == self.root && !self.is_over);
        if !right {
            return Err(malformed(format!("the root is not {}", self.root)));
        }
        if self.path.len() >= MAX_DEPTH {
            return Err(malformed("elements lie too deep in each other"));
        }
        self.path.push(name.to_owned());
        self.text.clear();
        self.has_elements = false;
        Ok(())
    }

    fn close(&mut self) -> Result<(), Refusal> {
        let path: Vec<&str> = self.path.iter().skip(1).map(String::as_str).collect();
        if !path.is_empty() {
            let text = (!self.has_elements).then_some(self.text.as_str());
            (self.visit)(&path, text)?;
        }
        self.path.pop();
        self.is_over = self.path.is_empty();
        self.text.clear();
        self.has_elements = true;
        Ok(())
    }

    fn add(&mut self, text: &str) -> Result<(), Refusal> {
        if self.path.is_empty() && !text.trim().is_empty() {
            return Err(malformed("there is text outside of the root"));
        }
        self.text.push_str(text);
        Ok(())
    }
}

#[cfg(test)]
#[path = "documents_tests.rs"]
mod tests;
