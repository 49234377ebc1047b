//! Writing the XML of answers.
//!
//! Reading is the codec's. Invariant: what is opened is closed, and no text can end its element.

use bytes::Bytes;

const HEAD: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n";
const NAMESPACE: &str = "http://s3.amazonaws.com/doc/2006-03-01/";

/// A document being written.
#[derive(Debug)]
pub(super) struct Xml {
    text: String,
    open: Vec<&'static str>,
}

impl Xml {
    /// A document whose root is in S3's namespace.
    pub(super) fn root(name: &'static str) -> Self {
        let mut xml = Self::plain(name);
        // Into the tag that was just opened.
        xml.text.pop();
        xml.text.push_str(" xmlns=\"");
        xml.text.push_str(NAMESPACE);
        xml.text.push_str("\">");
        xml
    }

    /// A document whose root is in no namespace.
    pub(super) fn plain(name: &'static str) -> Self {
        let mut xml = Self {
            text: HEAD.to_owned(),
            open: Vec::new(),
        };
        xml.open(name);
        xml
    }

    /// Opens an element.
    pub(super) fn open(&mut self, name: &'static str) {
        self.text.push('<');
        self.text.push_str(name);
        self.text.push('>');
        self.open.push(name);
    }

    /// Closes the element that was opened last.
    pub(super) fn close(&mut self) {
        if let Some(name) = self.open.pop() {
            self.end(name);
        }
    }

    /// An element that holds text.
    pub(super) fn text(&mut self, name: &'static str, value: &str) {
        self.text.push('<');
        self.text.push_str(name);
        self.text.push('>');
        self.escape(value);
        self.end(name);
    }

    /// Text in the element that is open.
    pub(super) fn content(&mut self, value: &str) {
        self.escape(value);
    }

    /// An element that holds text, if there is any.
    pub(super) fn text_some(&mut self, name: &'static str, value: Option<&str>) {
        if let Some(value) = value {
            self.text(name, value);
        }
    }

    /// An element that holds a number.
    pub(super) fn number(&mut self, name: &'static str, value: u64) {
        self.text(name, &value.to_string());
    }

    /// An element that holds `true` or `false`.
    pub(super) fn flag(&mut self, name: &'static str, value: bool) {
        self.text(name, if value { "true" } else { "false" });
    }

    /// The document.
    pub(super) fn finish(mut self) -> Bytes {
        while !self.open.is_empty() {
            self.close();
        }
        self.text.into()
    }

    fn end(&mut self, name: &str) {
        self.text.push_str("</");
        self.text.push_str(name);
        self.text.push('>');
    }

    /// Control characters are written as references, as S3 does: XML 1.0 has no right way, and
    /// clients with such keys ask for `encoding-type=url`.
    fn escape(&mut self, value: &str) {
        for letter in value.chars() {
            match letter {
                '&' => self.text.push_str("&amp;"),
                '<' => self.text.push_str("&lt;"),
                '>' => self.text.push_str("&gt;"),
                '"' => self.text.push_str("&quot;"),
                control if u32::from(control) < 0x20 => {
                    self.text.push_str(&format!("&#x{:x};", u32::from(control)));
                }
                letter => self.text.push(letter),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_closed_and_texts_escaped() {
        let mut xml = Xml::root("A");
        xml.open("B");
        xml.text("C", "<&>\"\r\u{1}é");
        xml.flag("D", true);
        let text = xml.finish();
        let expected = format!(
            "{HEAD}<A xmlns=\"{NAMESPACE}\"><B><C>&lt;&amp;&gt;&quot;&#xd;&#x1;é</C><D>true</D></B></A>"
        );
        assert_eq!(text, expected.as_bytes());
    }
}
