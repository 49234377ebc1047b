//! Writing elements.
//!
//! It knows no document of S3. Invariant: what is written is read back as the same text, and every
//! element that is opened is closed.

use super::{NAMESPACE, XmlError};
use crate::s3::codec::uri::{self, Slash};

/// A document being written.
#[derive(Debug)]
pub(super) struct Writer {
    out: String,
}

impl Writer {
    /// A whole document: its root in the namespace of S3, with what `fill` writes.
    pub(super) fn document(
        root: &str,
        fill: impl FnOnce(&mut Writer) -> Result<(), XmlError>,
    ) -> Result<String, XmlError> {
        let mut writer = Writer::begin();
        writer.push(&["<", root, " xmlns=\"", NAMESPACE, "\">"]);
        fill(&mut writer)?;
        writer.push(&["</", root, ">"]);
        Ok(writer.out)
    }

    /// A document whose writing cannot fail.
    pub(super) fn plain(root: &str, fill: impl FnOnce(&mut Writer)) -> String {
        let mut writer = Writer::begin();
        writer.push(&["<", root, " xmlns=\"", NAMESPACE, "\">"]);
        fill(&mut writer);
        writer.push(&["</", root, ">"]);
        writer.out
    }

    /// A document without a namespace: errors have none.
    pub(super) fn bare(root: &str, fill: impl FnOnce(&mut Writer)) -> String {
        let mut writer = Writer::begin();
        writer.inside(root, fill);
        writer.out
    }

    fn begin() -> Writer {
        let out = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n".to_owned();
        Writer { out }
    }

    fn push(&mut self, pieces: &[&str]) {
        self.out.extend(pieces.iter().copied());
    }

    /// An element with others in it.
    pub(super) fn inside(&mut self, name: &str, fill: impl FnOnce(&mut Writer)) {
        self.push(&["<", name, ">"]);
        fill(self);
        self.push(&["</", name, ">"]);
    }

    /// An element with others in it, whose writing can fail.
    pub(super) fn try_inside(
        &mut self,
        name: &str,
        fill: impl FnOnce(&mut Writer) -> Result<(), XmlError>,
    ) -> Result<(), XmlError> {
        self.push(&["<", name, ">"]);
        fill(self)?;
        self.push(&["</", name, ">"]);
        Ok(())
    }

    /// An element with a text.
    pub(super) fn text(&mut self, name: &str, text: &str) {
        self.push(&["<", name, ">"]);
        self.escaped(text);
        self.push(&["</", name, ">"]);
    }

    /// An element with a text, when there is one.
    pub(super) fn optional(&mut self, name: &str, text: Option<&str>) {
        if let Some(text) = text {
            self.text(name, text);
        }
    }

    /// An element with a number or a truth.
    pub(super) fn value(&mut self, name: &str, value: impl ToString + Copy) {
        self.text(name, &value.to_string());
    }

    /// An element with a key in it, percent-encoded when the client asked for that. Slashes stay, as
    /// S3 leaves them.
    pub(super) fn key(&mut self, name: &str, key: &[u8], url: bool) -> Result<(), XmlError> {
        if url {
            self.text(name, &uri::encode(key, Slash::Keep));
        } else {
            let text = std::str::from_utf8(key).map_err(|_| XmlError::KeyNotUtf8)?;
            self.text(name, text);
        }
        Ok(())
    }

    /// Characters that XML 1.0 cannot hold become references all the same, as S3 does it: strict
    /// readers refuse them (which is why `encoding-type=url` exists), others get the exact key.
    pub(super) fn escaped(&mut self, text: &str) {
        for letter in text.chars() {
            match letter {
                '<' => self.out.push_str("&lt;"),
                '>' => self.out.push_str("&gt;"),
                '&' => self.out.push_str("&amp;"),
                '"' => self.out.push_str("&quot;"),
                '\t' | '\n' => self.out.push(letter),
                // NEL and LS are line ends to XML 1.1 readers.
                '\0'..='\u{1f}' | '\u{7f}'..='\u{9f}' | '\u{2028}' | '\u{fffe}' | '\u{ffff}' => {
                    let number = format!("{:x}", u32::from(letter));
                    self.push(&["&#x", &number, ";"]);
                }
                _ => self.out.push(letter),
            }
        }
    }
}

/// A key as it stands in a list, decoded when the list says that it is encoded. A `+` is a space
/// then: servers that write it so escape real ones.
pub(super) fn decode_key(
    text: &str,
    url: bool,
    element: &'static str,
) -> Result<Vec<u8>, XmlError> {
    if url {
        uri::decode_plus(text).map_err(|_| XmlError::Value { element })
    } else {
        Ok(text.as_bytes().to_vec())
    }
}
