//! The reference tables of `docs/configuration.md`.
//!
//! Made from the field tables; the words around them are written by hand in that file.
//! Invariant: every table and key of the file is in it, once.

use std::fmt::Write as _;

use crate::field::{Default, Field, Kind, Need, Table};
use crate::tables;

/// Every table of the configuration file with its keys, as Markdown.
pub fn reference_markdown() -> String {
    let mut tables = Vec::new();
    gather(&tables::FILE, false, &mut tables);
    let mut text = String::new();
    for (table, typed) in tables {
        section(&mut text, table, typed);
    }
    text
}

/// A table and all below it, each once; whether a `type` tells it from others.
fn gather(table: &'static Table, typed: bool, tables: &mut Vec<(&'static Table, bool)>) {
    if tables.iter().any(|(known, _)| known.name == table.name) {
        return;
    }
    tables.push((table, typed));
    for field in table.fields {
        match field.kind {
            Kind::Table(inner) | Kind::List(inner) | Kind::Named { table: inner, .. } => {
                gather(inner, false, tables);
            }
            Kind::Typed { variants, .. } => {
                for variant in variants {
                    gather(variant, true, tables);
                }
            }
            _ => {}
        }
    }
}

fn section(text: &mut String, table: &Table, typed: bool) {
    let title = match (table.header, typed) {
        ("", _) => "Top level".to_owned(),
        (header, false) => format!("`{header}`"),
        (_, true) => format!("`[store.NAME]` with `type = \"{}\"`", table.name),
    };
    // Writing to a String cannot fail.
    let _ = write!(text, "\n### {title}\n\n{}\n\n", table.doc);
    text.push_str("| key | value | default | meaning |\n|---|---|---|---|\n");
    for field in table.fields {
        row(text, field);
    }
}

fn row(text: &mut String, field: &Field) {
    let default = match field.need {
        Need::Required { .. } => "**required**".to_owned(),
        Need::Checked { .. } | Need::Optional | Need::Implied => String::new(),
        Need::Default(Default::Flag(flag)) => format!("`{flag}`"),
        Need::Default(Default::Integer(number)) => format!("`{number}`"),
        Need::Default(Default::Text(text)) => format!("`\"{text}\"`"),
    };
    let (key, value, doc) = (
        field.key,
        field.kind.in_words(),
        field.doc.replace('|', "\\|"),
    );
    let _ = writeln!(text, "| `{key}` | {value} | {default} | {doc} |");
}
