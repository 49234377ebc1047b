//! The reasons of routing and of pins, as the code has them and as `docs/mysql.md` tells them.
//!
//! Not what they mean. Invariant: a word that a client or a metric can show stands in one of the page's
//! two tables, and no other word does.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

const PAGE: &str = include_str!("../../../../docs/mysql.md");
/// The heads of the tables of reasons.
const TABLES: [&str; 2] = ["| reason |", "| pinned by |"];
/// What stands before a reason.
const BEFORE: [&str; 9] = [
    "rimary(", "in(", "Err(", "Some(", "ok_or(", "|_| ", "Break(", "Not(", "reason: ",
];
/// Words in the place of a reason that are none.
const OTHERS: [&str; 1] = ["localhost"];

/// The reasons of one file: literals that are handed on as one, and the second ones of tables of pairs.
fn reasons(source: &str, found: &mut BTreeSet<String>) {
    let own = source.split("#[cfg(test)]\nmod tests {").next();
    for line in own.unwrap_or_default().lines().map(str::trim) {
        let mut rest = line;
        while let Some((before, (word, after))) = rest
            .split_once('"')
            .and_then(|(before, rest)| Some((before, rest.split_once('"')?)))
        {
            let pair = line.starts_with('(') && after == "),";
            let passed = line.contains("pass_on(") && after.starts_with(')');
            let named = before.ends_with(": &str = ");
            let handed = BEFORE.iter().any(|it| before.ends_with(it));
            let is_word = word.bytes().all(|it| it == b'-' || it.is_ascii_lowercase());
            if is_word && (pair || passed || named || handed) && !OTHERS.contains(&word) {
                found.insert(word.to_owned());
            }
            rest = after;
        }
    }
}

/// The words in the first column of the page's tables.
fn told() -> BTreeSet<String> {
    let mut told = BTreeSet::new();
    for head in TABLES {
        let (_, table) = PAGE.split_once(head).expect(head);
        let rows = table.lines().skip(2).take_while(|it| it.starts_with('|'));
        let cells = rows.filter_map(|row| row.split('|').nth(1));
        told.extend(cells.flat_map(|cell| cell.split('`').skip(1).step_by(2).map(str::to_owned)));
    }
    told
}

#[test]
fn the_page_tells_every_reason_and_no_other() {
    let mut found = BTreeSet::new();
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let shared = fs::read_to_string(sources.join("placing.rs"));
    reasons(&shared.expect("a text"), &mut found);
    let here = sources.join("mysql");
    for folder in ["class", "frontend"] {
        for entry in fs::read_dir(here.join(folder)).expect("a folder") {
            let path = entry.expect("an entry").path();
            let stem = path.file_stem().map(|it| it.to_string_lossy().into_owned());
            if path.is_file() && stem.is_some_and(|it| !it.starts_with("tests")) {
                reasons(&fs::read_to_string(&path).expect("a text"), &mut found);
            }
        }
    }
    let told = told();
    let missing: Vec<_> = found.difference(&told).collect();
    assert!(
        missing.is_empty(),
        "docs/mysql.md does not tell {missing:?}"
    );
    let gone: Vec<_> = told.difference(&found).collect();
    assert!(
        gone.is_empty(),
        "docs/mysql.md tells {gone:?}, which nothing says"
    );
}
