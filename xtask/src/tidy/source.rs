//! Rules for one source file.
//!
//! Not style: rustfmt and clippy do that. Invariant: a rule sees code without its strings and
//! comments, unless it is about text.

use super::Finding;
use super::lexer;

const MOST_LINES: usize = 600;
const MOST_FUNCTION_LINES: usize = 70;

/// Words of other people's glossaries. `host` and `bucket` are left out: URLs have the one,
/// histograms and S3 the other.
const FORBIDDEN_WORDS: [&str; 8] = [
    "node",
    "nodes",
    "partition",
    "master",
    "slave",
    "sticky",
    "wrapper",
    "banned",
];

/// Every finding in one file.
pub(crate) fn check(path: &str, text: &str) -> Vec<Finding> {
    let mut findings = machine_paths(path, text);
    if !has_extension(path, "rs") {
        return findings;
    }
    let code = lexer::code_only(text);
    findings.extend(opening(path, text));
    findings.extend(length(path, text));
    findings.extend(unfinished(path, &code));
    findings.extend(words(path, &code));
    findings.extend(clock(path, &code));
    findings.extend(layers(path, &code));
    findings
}

fn has_extension(path: &str, wanted: &str) -> bool {
    path.rsplit_once('.')
        .is_some_and(|(_, extension)| extension == wanted)
}

/// Test code may do more: whole files by place, else what follows the first `#[cfg(test)]`.
fn is_test_file(path: &str) -> bool {
    let parts: Vec<&str> = path.split('/').collect();
    let folder = [
        "tests",
        "benches",
        "examples",
        "fuzz",
        "xtask",
        "breccia-testkit",
    ];
    parts.iter().any(|part| folder.contains(part)) || path.ends_with("tests.rs")
}

fn opening(path: &str, text: &str) -> Option<Finding> {
    // Cargo's own header line of a script would come first; there are none here.
    (!text.starts_with("//! ")).then(|| {
        Finding::new(
            "opening",
            path,
            "the file must open with `//!`: what it is, what it is not, one invariant",
        )
    })
}

fn length(path: &str, text: &str) -> Vec<Finding> {
    if text
        .lines()
        .next()
        .is_some_and(|line| line.contains("@generated"))
    {
        return Vec::new();
    }
    let lines = text.lines().count();
    let mut findings = Vec::new();
    if lines > MOST_LINES {
        let what = format!("{lines} lines; {MOST_LINES} is the limit: split it");
        findings.push(Finding::new("file-length", path, what));
    }
    for function in lexer::functions(&lexer::code_only(text)) {
        if function.lines > MOST_FUNCTION_LINES {
            let what = format!(
                "fn {} has {} lines; {MOST_FUNCTION_LINES} is the limit",
                function.name, function.lines
            );
            findings.push(Finding::new(
                "function-length",
                format!("{path}:{}", function.line),
                what,
            ));
        }
    }
    findings
}

fn unfinished(path: &str, code: &str) -> Vec<Finding> {
    let macros = ["todo!", "unimplemented!", "dbg!"];
    matches(
        path,
        code,
        &macros,
        "unfinished",
        "is not for finished code",
    )
}

fn clock(path: &str, code: &str) -> Vec<Finding> {
    if path == "crates/breccia-net/src/clock.rs" || is_test_file(path) {
        return Vec::new();
    }
    let product = code
        .find("#[cfg(test)]")
        .and_then(|end| code.get(..end))
        .unwrap_or(code);
    let calls = ["Instant::now", "SystemTime::now"];
    matches(
        path,
        product,
        &calls,
        "clock",
        "reads the clock: only breccia-net/src/clock.rs may",
    )
}

/// What one layer must not name. A codec is bytes in, frames out; core is pure; the two ends of a
/// wire share the codec and never import each other.
fn layers(path: &str, code: &str) -> Vec<Finding> {
    let product = code
        .find("#[cfg(test)]")
        .and_then(|end| code.get(..end))
        .unwrap_or(code);
    let has = |folder: &str| {
        path.split('/')
            .any(|part| part.trim_end_matches(".rs") == folder)
    };
    let mut findings = Vec::new();
    if path.starts_with("crates/breccia-core/src") {
        let words = [
            "tokio::",
            "TcpStream",
            "UnixStream",
            "std::fs",
            "tracing::",
            "rand::",
        ];
        findings.extend(matches(
            path,
            product,
            &words,
            "layers",
            "has no place in pure code",
        ));
    }
    if path.starts_with("crates/breccia-kv/src") {
        if has("codec") {
            let words = [
                "tokio::",
                "std::net",
                "breccia_net",
                "frontend::",
                "backend::",
            ];
            findings.extend(matches(
                path,
                product,
                &words,
                "layers",
                "has no place in a codec",
            ));
        }
        if has("frontend") {
            findings.extend(matches(
                path,
                product,
                &["backend::"],
                "layers",
                "is not for a frontend",
            ));
        }
        if has("backend") {
            findings.extend(matches(
                path,
                product,
                &["frontend::"],
                "layers",
                "is not for a backend",
            ));
        }
    }
    findings
}

fn matches(path: &str, code: &str, words: &[&str], rule: &'static str, why: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (index, line) in code.lines().enumerate() {
        for word in words.iter().filter(|word| line.contains(*word)) {
            let place = format!("{path}:{}", index + 1);
            findings.push(Finding::new(rule, place, format!("`{word}` {why}")));
        }
    }
    findings
}

/// Identifiers with a forbidden word as one of their parts. Methods of other libraries (`.partition(`)
/// and paths into them pass.
fn words(path: &str, code: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (index, line) in code.lines().enumerate() {
        let mut before = ' ';
        for piece in line.split_inclusive(|letter: char| !letter.is_alphanumeric() && letter != '_')
        {
            let name =
                piece.trim_end_matches(|letter: char| !letter.is_alphanumeric() && letter != '_');
            let parts = parts(name);
            let hit = FORBIDDEN_WORDS
                .iter()
                .find(|word| parts.iter().any(|part| part == *word));
            if let Some(word) = hit.filter(|_| before != '.') {
                let what = format!("`{name}`: the glossary has another word for {word:?}");
                findings.push(Finding::new(
                    "glossary",
                    format!("{path}:{}", index + 1),
                    what,
                ));
            }
            before = piece.chars().last().unwrap_or(' ');
        }
    }
    findings
}

/// The words of `snake_case`, `CamelCase` and `UPPER_CASE` names, in lower case.
fn parts(name: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut upper = true;
    for letter in name.chars() {
        if letter == '_' || (letter.is_uppercase() && !upper) {
            parts.push(String::new());
        }
        upper = letter.is_uppercase();
        if let Some(part) = parts.last_mut().filter(|_| letter != '_') {
            part.extend(letter.to_lowercase());
        }
    }
    parts
}

/// Paths that exist on one machine only.
fn machine_paths(path: &str, text: &str) -> Vec<Finding> {
    // Written in two parts so that this file does not find itself.
    let folders = [
        concat!("/ro", "ot/"),
        concat!("/wo", "rk/"),
        concat!("/Us", "ers/"),
    ];
    matches(
        path,
        text,
        &folders,
        "machine-path",
        "is a path of one machine",
    )
}

#[cfg(test)]
mod tests {
    use super::check;

    fn rules(path: &str, text: &str) -> Vec<&'static str> {
        check(path, text)
            .into_iter()
            .map(|finding| finding.rule)
            .collect()
    }

    #[test]
    fn each_rule_finds_its_fault_and_nothing_else() {
        let source = |body: &str| format!("//! A file.\n{body}\n");
        let row = |body: &str, wanted: &[&str]| {
            assert_eq!(
                rules("crates/breccia-kv/src/a.rs", &source(body)),
                wanted,
                "{body}"
            );
        };
        row("fn f() {}", &[]);
        row("fn f() { todo!() }", &["unfinished"]);
        row("fn f() { \"todo!()\"; } // dbg!", &[]);
        row("fn f() { Instant::now(); }", &["clock"]);
        row("#[cfg(test)]\nfn f() { Instant::now(); }", &[]);
        row("let all_nodes = list;", &["glossary"]);
        row("struct NodeList;", &["glossary"]);
        row("let (a, b) = list.partition(|x| x > 1); mastery();", &[]);
        row(
            &format!("fn f() {{\n{}}}", "a();\n".repeat(80)),
            &["function-length"],
        );
        row(&"a();\n".repeat(700), &["file-length"]);
        assert_eq!(rules("a.rs", "fn f() {}\n"), ["opening"]);
        assert_eq!(
            rules("a.md", &format!("see {}x", concat!("/ro", "ot/"))),
            ["machine-path"]
        );
        assert_eq!(
            rules(
                "crates/breccia-kv/src/resp/codec/a.rs",
                &source("use tokio::io;")
            ),
            ["layers"]
        );
    }
}
