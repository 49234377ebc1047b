//! The XML that servers answer with, as a small tree, and the little that is sent to them.
//!
//! Not the XML that clients send: the codec reads that. Invariant: trees are bounded in depth and
//! in elements, and namespaces are ignored, as servers differ in them.

use std::fmt::Write as _;

use quick_xml::Reader;
use quick_xml::escape::{escape, resolve_xml_entity};
use quick_xml::events::Event;

use crate::meta::Tags;
use crate::upload::PartChoice;

/// How deep elements may lie in each other.
const MAX_DEPTH: usize = 8;
/// The most elements of one answer: a page of 1,000 items with some 20 elements each.
const MAX_ELEMENTS: usize = 50_000;

/// An element without its attributes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Element {
    pub(crate) name: String,
    pub(crate) text: String,
    pub(crate) children: Vec<Element>,
}

impl Element {
    /// Reads a document; in words why it cannot be.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let text = std::str::from_utf8(bytes).map_err(|_| "XML that is not UTF-8".to_owned())?;
        let mut reader = Reader::from_str(text.trim_start());
        let mut open: Vec<Self> = vec![Self::default()];
        let mut elements = 0_usize;
        loop {
            let event = reader
                .read_event()
                .map_err(|error| format!("bad XML: {error}"))?;
            let empty = matches!(event, Event::Empty(_));
            match event {
                Event::Start(start) | Event::Empty(start) => {
                    elements += 1;
                    if open.len() > MAX_DEPTH || elements > MAX_ELEMENTS {
                        return Err("XML with too many elements".to_owned());
                    }
                    let name = start.local_name().as_ref().to_owned();
                    open.push(Self {
                        name,
                        ..Self::default()
                    });
                    if empty {
                        close(&mut open)?;
                    }
                }
                Event::End(_) => close(&mut open)?,
                Event::Text(piece) => push(&mut open, &piece),
                Event::CData(piece) => push(&mut open, &piece),
                Event::GeneralRef(reference) => {
                    let character = match reference.resolve_char_ref() {
                        Ok(Some(character)) => character.to_string(),
                        _ => resolve_xml_entity(&reference)
                            .ok_or_else(bad_text)?
                            .to_owned(),
                    };
                    push(&mut open, &character);
                }
                Event::Eof => break,
                _ => {}
            }
        }
        match (open.pop(), open.is_empty()) {
            (Some(mut document), true) => {
                document.children.pop().ok_or_else(|| "no XML".to_owned())
            }
            _ => Err("XML that ends too early".to_owned()),
        }
    }

    /// The first child of this name.
    pub(crate) fn child(&self, name: &str) -> Option<&Self> {
        self.children.iter().find(|child| child.name == name)
    }

    /// The children of this name.
    pub(crate) fn all<'e>(&'e self, name: &'e str) -> impl Iterator<Item = &'e Self> {
        self.children.iter().filter(move |child| child.name == name)
    }

    /// The text of the first child of this name.
    pub(crate) fn text_of(&self, name: &str) -> Option<&str> {
        self.child(name).map(|child| child.text.trim())
    }

    /// Whether the first child of this name says `true`.
    pub(crate) fn says(&self, name: &str) -> bool {
        self.text_of(name) == Some("true")
    }
}

fn bad_text() -> String {
    "XML with text that cannot be read".to_owned()
}

fn push(open: &mut [Element], text: &str) {
    if let Some(element) = open.last_mut() {
        element.text.push_str(text);
    }
}

fn close(open: &mut Vec<Element>) -> Result<(), String> {
    let element = open.pop();
    match (element, open.last_mut()) {
        (Some(mut element), Some(parent)) => {
            if !element.children.is_empty() {
                element.text.clear();
            }
            parent.children.push(element);
            Ok(())
        }
        _ => Err("XML that closes what is not open".to_owned()),
    }
}

/// The body of `CompleteMultipartUpload`. `checksum` gives an element's name and value.
pub(crate) fn complete(
    parts: &[PartChoice],
    checksum: impl Fn(&PartChoice) -> Option<(String, String)>,
) -> String {
    let mut text =
        String::from("<CompleteMultipartUpload xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">");
    for part in parts {
        let etag = part.etag.quoted();
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            "<Part><PartNumber>{}</PartNumber><ETag>{}</ETag>",
            part.number,
            escape(etag.as_str()),
        );
        if let Some((name, value)) = checksum(part) {
            let _ = write!(text, "<{name}>{value}</{name}>");
        }
        text.push_str("</Part>");
    }
    text.push_str("</CompleteMultipartUpload>");
    text
}

/// The body of `PutObjectTagging`.
pub(crate) fn tagging(tags: &Tags) -> String {
    let mut text =
        String::from("<Tagging xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><TagSet>");
    for (key, value) in tags {
        let (key, value) = (escape(key.as_str()), escape(value.as_str()));
        let _ = write!(text, "<Tag><Key>{key}</Key><Value>{value}</Value></Tag>");
    }
    text.push_str("</TagSet></Tagging>");
    text
}

/// The tags of a `Tagging` document.
pub(crate) fn read_tagging(document: &Element) -> Tags {
    let set = document.child("TagSet").map(|set| set.all("Tag"));
    let pair = |tag: &Element| {
        let key = tag.child("Key")?.text.clone();
        Some((
            key,
            tag.child("Value")
                .map(|value| value.text.clone())
                .unwrap_or_default(),
        ))
    };
    set.into_iter().flatten().filter_map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_read_with_references_and_without_namespaces() {
        let document = "\n <?xml version=\"1.0\"?><a:R xmlns:a=\"u\"><a:K>x &amp; &#233;&lt;</a:K>\
            <N/><T> true </T><K>2</K></a:R>";
        let root = Element::parse(document.as_bytes()).expect("a document");
        assert_eq!(
            (root.name.as_str(), root.text_of("K")),
            ("R", Some("x & \u{e9}<"))
        );
        assert!(root.says("T") && root.child("N").is_some() && root.all("K").count() == 2);
        for bad in ["", "x", "<a>", "<a></b>", "</a>", "<a>&nope;</a>", "\u{0}"] {
            assert!(Element::parse(bad.as_bytes()).is_err(), "{bad}");
        }
        let deep = "<a>".repeat(50);
        assert!(Element::parse(deep.as_bytes()).is_err());
    }

    #[test]
    fn tags_come_back_as_they_were_written() {
        let tags: Tags = [("a<&\"", "b > c"), ("e", "")]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into();
        let document = Element::parse(tagging(&tags).as_bytes()).expect("a document");
        assert_eq!(read_tagging(&document), tags);
    }
}
