//! Every fault there is, word for word: `faults.golden` holds files and what is said of them.
//!
//! A block is a file, then its lines of output behind `>> `; `=====` parts the blocks. With
//! `BRECCIA_REGENERATE=faults` the lines are written anew, to be read before they are kept.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use super::env;
use crate::{ConfigError, Fault, Warning, parse};

const GOLDEN: &str = "src/tests/faults.golden";
const PART: &str = "=====\n";

/// A folder with the files the blocks name, and its path for them.
fn folder() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, bytes) in [
        ("cert.pem", b"x".to_vec()),
        ("key.pem", b"x".to_vec()),
        ("ca.pem", b"x".to_vec()),
        ("password", b"from-file\r\n".to_vec()),
        ("empty", b"\n".to_vec()),
        ("lines", b"a\nb\n".to_vec()),
        ("bytes", vec![0xff, 0xfe]),
        ("large", vec![b'x'; 70_000]),
    ] {
        fs::write(dir.path().join(name), bytes).unwrap();
    }
    fs::create_dir(dir.path().join("folder")).unwrap();
    dir
}

fn outcome(text: &str, base_dir: &Path) -> (Vec<Fault>, Vec<Warning>) {
    match parse(text, "f", base_dir, &env) {
        Ok((_, warnings)) => (Vec::new(), warnings),
        Err(faults) => (faults, Vec::new()),
    }
}

fn golden_path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(GOLDEN)
}

/// The texts of the golden file, each with the lines that belong to it.
fn blocks(golden: &str) -> Vec<(String, String)> {
    golden
        .split(PART)
        .map(|block| {
            let (said, text): (Vec<_>, Vec<_>) = block
                .split_inclusive('\n')
                .partition(|line| line.starts_with(">> "));
            (text.concat(), said.concat())
        })
        .collect()
}

#[test]
fn every_fault_says_what_where_and_what_to_do() {
    let dir = folder();
    let base = dir.path().display().to_string();
    let golden = fs::read_to_string(golden_path()).unwrap();
    let regenerate = std::env::var_os("BRECCIA_REGENERATE").is_some_and(|what| what == "faults");
    let mut anew = Vec::new();
    for (text, said) in blocks(&golden) {
        let (faults, warnings) = outcome(&text, dir.path());
        let mut lines = String::new();
        for fault in faults {
            writeln!(lines, ">> {}", fault.to_string().replace(&base, "/base")).unwrap();
        }
        for warning in warnings {
            writeln!(lines, ">> warning: {warning}").unwrap();
        }
        assert!(!lines.contains("hunter2"), "a secret is shown:\n{lines}");
        if !regenerate {
            assert_eq!(lines, said, "of this file:\n{text}");
        }
        anew.push(text + &lines);
    }
    if regenerate {
        fs::write(golden_path(), anew.join(PART)).unwrap();
    }
}

#[test]
fn every_kind_of_fault_has_a_golden_line() {
    // Those that no text can cause: `files.rs` and `mangled.rs` have them, or nothing has.
    let elsewhere = [
        "Unreadable",
        "TooLarge",
        "NotUtf8",
        "TooMany",
        "TooManyShards",
        "Incomplete",
        // Nothing is of a later release now.
        "NotInRelease",
        // It holds an error of its own list.
        "Sql(#[from] super::SqlConfigError)",
        "Redis(#[from] super::RedisConfigError)",
    ];
    let dir = folder();
    let mut seen: BTreeSet<String> = elsewhere.iter().map(ToString::to_string).collect();
    for (text, _) in blocks(&fs::read_to_string(golden_path()).unwrap()) {
        for fault in outcome(&text, dir.path()).0 {
            let name = match &fault.error {
                ConfigError::Sql(error) => format!("{error:?}"),
                error => format!("{error:?}"),
            };
            seen.insert(
                name.chars()
                    .take_while(char::is_ascii_alphanumeric)
                    .collect(),
            );
        }
    }
    let variants = [
        include_str!("../fault/error.rs"),
        include_str!("../fault/sql.rs"),
    ]
    .map(|source| {
        let (_, body) = source.split_once("ConfigError {").unwrap();
        body.split("\n}\n").next().unwrap()
    });
    let missing: Vec<&str> = variants
        .iter()
        .flat_map(|body| body.lines())
        .filter_map(|line| line.strip_prefix("    "))
        .filter(|line| line.starts_with(|c: char| c.is_ascii_uppercase()))
        .map(|line| line.trim_end_matches([' ', '{', ',']))
        .filter(|name| !seen.contains(*name))
        .collect();
    assert!(missing.is_empty(), "no golden line for {missing:?}");
}

#[test]
fn faults_come_in_the_order_of_the_file() {
    let dir = folder();
    for (text, _) in blocks(&fs::read_to_string(golden_path()).unwrap()) {
        let lines: Vec<_> = outcome(&text, dir.path())
            .0
            .iter()
            .map(|fault| fault.place.line)
            .collect();
        assert!(lines.is_sorted(), "{text}");
    }
}
