//! A document as a tree of elements, within limits.
//!
//! It knows no document of S3. Invariant: a text is exactly what stood between its tags, character
//! references resolved.

use quick_xml::Reader;
use quick_xml::events::{BytesRef, Event};

use super::{MOST_DEPTH, MOST_ELEMENTS, XmlError};

/// One element. Attributes are dropped.
#[derive(Debug, Default)]
pub(super) struct Element {
    name: String,
    text: String,
    children: Vec<Element>,
}

impl Element {
    /// Reads a document whose root has this name.
    pub(super) fn parse(
        document: &[u8],
        limit: usize,
        root: &'static str,
    ) -> Result<Element, XmlError> {
        let element = Element::parse_any(document, limit)?;
        if element.name == root {
            Ok(element)
        } else {
            Err(XmlError::Root { expected: root })
        }
    }

    /// Reads a document of any root.
    pub(super) fn parse_any(document: &[u8], limit: usize) -> Result<Element, XmlError> {
        if document.len() > limit {
            return Err(XmlError::TooLong { limit });
        }
        let document = document.strip_prefix(b"\xef\xbb\xbf").unwrap_or(document);
        let text = std::str::from_utf8(document).map_err(|_| malformed("it is not UTF-8"))?;
        let mut reader = Reader::from_str(text);
        let (mut open, mut count): (Vec<Element>, usize) = (Vec::new(), 0);
        let mut root = None;
        loop {
            let event = reader
                .read_event()
                .map_err(|_| malformed("its tags do not match"))?;
            match event {
                Event::Start(tag) => {
                    open.push(start(
                        tag.local_name().as_ref(),
                        &mut count,
                        open.len(),
                        root.is_some(),
                    )?);
                }
                Event::Empty(tag) => {
                    let element = start(
                        tag.local_name().as_ref(),
                        &mut count,
                        open.len(),
                        root.is_some(),
                    )?;
                    close(element, &mut open, &mut root);
                }
                Event::End(_) => {
                    let element = open.pop().ok_or(malformed("its tags do not match"))?;
                    close(element, &mut open, &mut root);
                }
                Event::Text(text) => push_text(&mut open, &text.xml10_content())?,
                Event::CData(text) => push_text(&mut open, &text.xml10_content())?,
                Event::GeneralRef(reference) => {
                    let mut buffer = [0; 4];
                    push_text(&mut open, resolve(&reference)?.encode_utf8(&mut buffer))?;
                }
                Event::DocType(_) => return Err(malformed("it has a DOCTYPE")),
                Event::Decl(_) | Event::PI(_) | Event::Comment(_) => {}
                Event::Eof => break,
            }
        }
        if !open.is_empty() {
            return Err(malformed("it stops before its end"));
        }
        root.ok_or(malformed("it has no element"))
    }

    pub(super) fn is(&self, name: &str) -> bool {
        self.name == name
    }

    /// The children of a name.
    pub(super) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Element> {
        self.children.iter().filter(move |child| child.name == name)
    }

    pub(super) fn child(&self, name: &str) -> Option<&Element> {
        self.children.iter().find(|child| child.name == name)
    }

    /// This element's own text.
    pub(super) fn own_text(&self) -> &str {
        &self.text
    }

    /// A child's text.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.child(name).map(|child| child.text.as_str())
    }

    /// A child's text, when it is not empty.
    pub(super) fn filled(&self, name: &str) -> Option<String> {
        self.text(name)
            .filter(|text| !text.is_empty())
            .map(str::to_owned)
    }

    pub(super) fn required(&self, element: &'static str) -> Result<&str, XmlError> {
        self.text(element).ok_or(XmlError::Missing { element })
    }

    /// A child's text as a number; white space around it does not matter.
    pub(super) fn number<T: std::str::FromStr>(
        &self,
        element: &'static str,
    ) -> Result<Option<T>, XmlError> {
        let Some(text) = self.text(element).map(str::trim) else {
            return Ok(None);
        };
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        match text.parse() {
            Ok(number) if digits => Ok(Some(number)),
            _ => Err(XmlError::Value { element }),
        }
    }

    /// A child's text as a truth; absent: false.
    pub(super) fn truth(&self, element: &'static str) -> Result<bool, XmlError> {
        match self.text(element).map(str::trim) {
            None | Some("false" | "FALSE" | "False" | "") => Ok(false),
            Some("true" | "TRUE" | "True") => Ok(true),
            Some(_) => Err(XmlError::Value { element }),
        }
    }
}

fn malformed(what: &'static str) -> XmlError {
    XmlError::Malformed { what }
}

fn start(
    name: impl AsRef<str>,
    count: &mut usize,
    depth: usize,
    has_root: bool,
) -> Result<Element, XmlError> {
    *count += 1;
    if depth >= MOST_DEPTH || *count > MOST_ELEMENTS {
        return Err(XmlError::TooComplex);
    }
    if depth == 0 && has_root {
        return Err(malformed("it has more than one root"));
    }
    Ok(Element {
        name: name.as_ref().to_owned(),
        ..Element::default()
    })
}

fn close(element: Element, open: &mut [Element], root: &mut Option<Element>) {
    match open.last_mut() {
        Some(parent) => parent.children.push(element),
        None => *root = Some(element),
    }
}

fn push_text(open: &mut [Element], text: &str) -> Result<(), XmlError> {
    match open.last_mut() {
        Some(element) => element.text.push_str(text),
        None if text.trim().is_empty() => {}
        None => return Err(malformed("it has text outside of its root")),
    }
    Ok(())
}

/// Character references, also to characters that XML 1.0 forbids (S3 writes them for keys that hold
/// them), and the five names that XML itself defines.
fn resolve(reference: &BytesRef<'_>) -> Result<char, XmlError> {
    let name: &str = reference;
    let wrong = malformed("it has an entity that is not predefined");
    match name {
        "lt" => return Ok('<'),
        "gt" => return Ok('>'),
        "amp" => return Ok('&'),
        "apos" => return Ok('\''),
        "quot" => return Ok('"'),
        _ => {}
    }
    let Some(number) = name.strip_prefix('#') else {
        return Err(wrong);
    };
    let (digits, radix) = match number.strip_prefix('x') {
        Some(digits) => (digits, 16),
        None => (number, 10),
    };
    if digits.starts_with('+') {
        return Err(wrong);
    }
    u32::from_str_radix(digits, radix)
        .ok()
        .and_then(char::from_u32)
        .ok_or(wrong)
}
