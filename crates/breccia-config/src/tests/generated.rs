//! The schema and the reference page are those of this code.
//!
//! `BRECCIA_REGENERATE=1` writes both files anew.

use std::fs;
use std::path::{Path, PathBuf};

use crate::{reference_markdown, schema};

/// The line of `docs/configuration.md` below which everything is generated.
const MARK: &str =
    "<!-- From here on generated: BRECCIA_REGENERATE=1 cargo test -p breccia-config -->\n";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Holds a file against what it should be, or writes it.
fn check(file: &str, wanted: &str) {
    let path = root().join(file);
    if std::env::var_os("BRECCIA_REGENERATE").is_some() {
        fs::write(&path, wanted).unwrap();
    }
    let found = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        found == wanted,
        "{file} is not current; run: BRECCIA_REGENERATE=1 cargo test -p breccia-config"
    );
}

#[test]
fn the_schema_is_current() {
    check("breccia.schema.json", &format!("{:#}\n", schema()));
}

#[test]
fn the_reference_is_current() {
    let page = fs::read_to_string(root().join("docs/configuration.md")).unwrap();
    let (by_hand, _) = page.split_once(MARK).expect("the page has the mark");
    check(
        "docs/configuration.md",
        &format!("{by_hand}{MARK}{}", reference_markdown()),
    );
}

#[test]
fn the_schema_refers_only_to_what_it_defines() {
    let schema = schema();
    let mut waiting = vec![&schema];
    let mut references = 0;
    while let Some(value) = waiting.pop() {
        match value {
            serde_json::Value::Object(map) => waiting.extend(map.values()),
            serde_json::Value::Array(list) => waiting.extend(list),
            serde_json::Value::String(text) => {
                if let Some(pointer) = text.strip_prefix('#') {
                    references += 1;
                    assert!(
                        schema
                            .pointer(pointer)
                            .is_some_and(serde_json::Value::is_object),
                        "{text}"
                    );
                }
            }
            _ => {}
        }
    }
    assert!(references > 10);
}
