//! The line of a key, for what is found out about a file only after it was read: certificates, say.
//!
//! Not a check. Invariant: a text that is no TOML, or has no such key, has no line to tell.

use std::path::Path;

use toml_edit::{Document, TableLike};

use crate::source::Source;

/// The line, from 1, of a key such as `store.pg-1.tls.cert` in a file's text; of the nearest table
/// around it, if it is not there. `None`: not even its first part is.
#[must_use]
pub fn line_of(text: &str, key: &str) -> Option<usize> {
    let document = Document::parse(text).ok()?;
    let mut table: Option<&dyn TableLike> = Some(document.as_table());
    let mut at = None;
    for part in key.split('.') {
        let Some((name, item)) = table.and_then(|table| table.get_key_value(part)) else {
            break;
        };
        at = name.span().map(|span| span.start).or(at);
        table = item.as_table_like();
    }
    Source::new(text, "", Path::new("")).place(at?, key).line
}

#[cfg(test)]
mod tests {
    use super::line_of;

    #[test]
    fn a_key_has_the_line_it_stands_in_or_that_of_the_table_around_it() {
        let text = "# one\n[store.a]\ntype = \"x\"\ntls = { cert = \"c\",\n  key = \"k\" }\n\
                    [store.a.command.b]\nwrite = true\n[listener.l.tls]\ncert = \"c\"\n\
                    [store.b]\ntls.cert = \"c\"\n";
        let check = |key: &str, line: Option<usize>| assert_eq!(line_of(text, key), line, "{key}");
        check("store.a", Some(2));
        check("store.a.tls.cert", Some(4));
        check("store.a.tls.key", Some(5));
        check("store.a.tls.ca", Some(4));
        check("store.a.timeout", Some(2));
        check("store.a.command.b.write", Some(7));
        check("listener.l.tls.cert", Some(9));
        check("store.b.tls.cert", Some(11));
        check("admin.bind", None);
        assert_eq!(line_of("a = ", "a"), None);
    }
}
