//! Statements that are not queries, known by their first words.
//!
//! Not a parser: what follows the first words is read only as far as the session must know it.
//! Invariant: a statement that changes the session's state is never called harmless.

use super::Class;
use super::lexer::{self, Kind, Quote};
use super::walls::{self, Words};

/// What the first words say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Shape {
    /// A query, to be proven.
    Query,
    /// The plan of the query that begins at this token, to be proven.
    Plan(usize),
    /// Known already.
    Known(Class),
    /// Known already, and it changes the catalogue although its class does not say so.
    Changes(Class),
}

const QUERY_WORDS: [&str; 4] = ["select", "values", "table", "with"];

fn primary(reason: &'static str) -> Shape {
    Shape::Known(Class::Primary(reason))
}

fn pin(reason: &'static str) -> Shape {
    Shape::Known(Class::Pin(reason))
}

fn starts_query(words: &Words<'_>, at: usize) -> bool {
    words.mark(at, b'(') || words.any(at, &QUERY_WORDS)
}

/// Recognises one statement.
pub(super) fn shape(words: &Words<'_>) -> Shape {
    if starts_query(words, 0) {
        return Shape::Query;
    }
    let first = match words.kind(0) {
        Some(Kind::Word) => words.raw(0).to_ascii_lowercase(),
        _ => return primary("unparsed"),
    };
    match first.as_str() {
        "insert" | "update" | "delete" | "merge" | "truncate" => primary("write"),
        "explain" => explain(words),
        "begin" | "start" => begin(words),
        "commit" | "end" | "rollback" | "abort" => end(words, &first),
        "savepoint" | "release" => primary("savepoint"),
        "set" => set(words),
        "reset" => reset(words),
        "show" => show(words),
        "discard" if words.is(1, "all") && words.len() == 2 => Shape::Known(Class::DiscardAll),
        "discard" => primary("discard"),
        "deallocate" => deallocate(words),
        "listen" => pin("listen"),
        "unlisten" => primary("unlisten"),
        "notify" => primary("notify"),
        "prepare" if words.is(1, "transaction") && words.len() == 3 => primary("two-phase"),
        "prepare" => pin("prepare"),
        "execute" => primary("execute"),
        "declare" => {
            let holds = (1..words.len()).any(|at| words.are(at, &["with", "hold"]));
            if holds {
                pin("cursor")
            } else {
                primary("cursor")
            }
        }
        "fetch" | "move" | "close" => primary("cursor"),
        "load" => pin("load"),
        "lock" => primary("locks"),
        "copy" => primary("copy"),
        "call" => primary("call"),
        "do" => run_block(words),
        "create" | "alter" | "drop" | "grant" | "revoke" | "comment" | "security" | "import"
        | "reassign" | "refresh" => Shape::Known(Class::Ddl),
        "vacuum" | "analyze" | "analyse" | "reindex" | "cluster" | "checkpoint" | "repack" => {
            primary("maintenance")
        }
        _ => primary("unparsed"),
    }
}

/// Options of EXPLAIN that do not run the statement, and their values.
const PLAN_WORDS: [&str; 18] = [
    "verbose",
    "costs",
    "settings",
    "buffers",
    "format",
    "summary",
    "timing",
    "generic_plan",
    "memory",
    "wal",
    "on",
    "off",
    "true",
    "false",
    "text",
    "json",
    "xml",
    "yaml",
];

fn explain(words: &Words<'_>) -> Shape {
    let mut at = 1;
    if words.mark(1, b'(') && !starts_query(words, 2) {
        at = 2;
        while at < words.len() && !words.mark(at, b')') {
            if words.any(at, &["analyze", "analyse"]) {
                return primary("explain-analyze");
            }
            if !words.any(at, &PLAN_WORDS) && !words.mark(at, b',') {
                return primary("explain");
            }
            at += 1;
        }
        at += 1;
    } else {
        while words.any(at, &["verbose", "analyze", "analyse"]) {
            if !words.is(at, "verbose") {
                return primary("explain-analyze");
            }
            at += 1;
        }
    }
    if starts_query(words, at) {
        Shape::Plan(at)
    } else {
        primary("explain")
    }
}

fn begin(words: &Words<'_>) -> Shape {
    let start = words.is(0, "start");
    if start && !words.is(1, "transaction") {
        return primary("unparsed");
    }
    let mut at = 1 + usize::from(words.any(1, &["work", "transaction"]));
    let (mut read_only, mut read_committed) = (false, true);
    while at < words.len() {
        if words.are(at, &["isolation", "level"]) {
            at += 2;
            if words.is(at, "serializable") {
                read_committed = false;
                at += 1;
            } else if words.are(at, &["repeatable", "read"]) {
                read_committed = false;
                at += 2;
            } else if words.is(at, "read") && words.any(at + 1, &["committed", "uncommitted"]) {
                at += 2;
            } else {
                return primary("unparsed");
            }
        } else if words.are(at, &["read", "only"]) {
            read_only = true;
            at += 2;
        } else if words.are(at, &["read", "write"]) {
            read_only = false;
            at += 2;
        } else if words.are(at, &["not", "deferrable"]) {
            at += 2;
        } else if words.is(at, "deferrable") || words.mark(at, b',') {
            at += 1;
        } else {
            return primary("unparsed");
        }
    }
    Shape::Known(Class::Begin {
        read_only,
        read_committed,
    })
}

fn end(words: &Words<'_>, first: &str) -> Shape {
    if words.is(1, "prepared") {
        return primary("two-phase");
    }
    let at = 1 + usize::from(words.any(1, &["work", "transaction"]));
    let rest = words.from(at);
    if rest.is(0, "to") {
        return primary("savepoint");
    }
    let plain = rest.len() == 0 || (rest.are(0, &["and", "no", "chain"]) && rest.len() == 3);
    match (plain, first) {
        (true, "commit" | "end") => Shape::Known(Class::Commit),
        (true, _) => Shape::Known(Class::Rollback),
        (false, _) if rest.are(0, &["and", "chain"]) => primary("chain"),
        (false, _) => primary("unparsed"),
    }
}

/// A dotted name at `at`: the name and the token behind it.
fn dotted(words: &Words<'_>, at: usize) -> Option<(String, usize)> {
    let mut name = words.name(at)?.into_owned();
    let mut after = at + 1;
    while words.mark(after, b'.') {
        name.push('.');
        name.push_str(&words.name(after + 1)?);
        after += 2;
    }
    Some((name, after))
}

/// The token begins the value of a parameter: the word before it is the parameter's name.
fn assigns(words: &Words<'_>, at: usize) -> bool {
    words.mark(at, b'.') || words.is(at, "to") || words.raw(at) == "="
}

/// What follows `breccia.` in the name of a parameter.
fn own(name: &str) -> Option<String> {
    let name = name.to_ascii_lowercase();
    name.strip_prefix("breccia.").map(str::to_owned)
}

fn set(words: &Words<'_>) -> Shape {
    let mut at = 1;
    if words.any(1, &["local", "session"]) && !assigns(words, 2) {
        if words.is(1, "local") {
            let own = dotted(words, 2).is_some_and(|(name, _)| own(&name).is_some());
            return if own {
                Shape::Known(Class::OwnMisplaced)
            } else if walls::quotes_temp(words) {
                // What is made there outlives the setting.
                pin("temp")
            } else {
                primary("set-local")
            };
        }
        if words.is(2, "characteristics") {
            return pin("characteristics");
        }
        at = 2;
    }
    if words.is(at, "authorization") || (words.is(at, "role") && !assigns(words, at + 1)) {
        return pin("role");
    }
    match words {
        _ if words.is(at, "transaction") => return primary("set-transaction"),
        _ if words.is(at, "constraints") => return primary("constraints"),
        _ if words.are(at, &["time", "zone"]) => return assign("timezone", words, at + 2, "local"),
        _ if words.is(at, "names") => return assign("client_encoding", words, at + 1, "default"),
        _ if words.is(at, "schema") && !assigns(words, at + 1) => {
            return assign("search_path", words, at + 1, "default");
        }
        _ if words.any(at, &["seed", "xml", "catalog"]) && !assigns(words, at + 1) => {
            return pin("set");
        }
        _ => {}
    }
    let Some((name, after)) = dotted(words, at) else {
        return primary("unparsed");
    };
    if words.is(after, "from") {
        return pin("set");
    }
    if !words.is(after, "to") && words.raw(after) != "=" {
        return primary("unparsed");
    }
    assign(&name, words, after + 1, "default")
}

/// A value that is one literal or one word, without its quotes.
fn unquoted(words: &Words<'_>, at: usize) -> String {
    let raw = words.raw(at);
    match words.kind(at) {
        Some(Kind::Text(Quote::Plain)) if raw.starts_with('\'') => raw
            .get(1..raw.len() - 1)
            .unwrap_or_default()
            .replace("''", "'"),
        Some(Kind::Quoted) => words.name(at).unwrap_or_default().into_owned(),
        _ => raw.to_owned(),
    }
}

fn assign(name: &str, words: &Words<'_>, at: usize, default: &str) -> Shape {
    let last = words.len().saturating_sub(1);
    if at > last {
        return if name == "client_encoding" {
            Shape::Known(Class::Set {
                name: name.to_owned(),
                value: None,
            })
        } else {
            primary("unparsed")
        };
    }
    let special = name.to_ascii_lowercase();
    match special.as_str() {
        "role" | "session_authorization" => return pin("role"),
        "transaction_isolation" | "transaction_read_only" | "transaction_deferrable" => {
            return primary("set-transaction");
        }
        "seed" => return pin("set"),
        "search_path" if walls::quotes_temp(words) => return pin("temp"),
        _ => {}
    }
    let plain = (at..=last).all(|token| match words.kind(token) {
        Some(Kind::Word | Kind::Quoted | Kind::Text(_) | Kind::Number | Kind::Mark(b',')) => true,
        Some(Kind::Operator) => matches!(words.raw(token), "+" | "-"),
        _ => false,
    });
    if !plain || (name == "timezone" && words.is(at, "interval")) {
        return pin("set");
    }
    if let Some(own) = special.strip_prefix("breccia.") {
        let value = if at == last {
            unquoted(words, at)
        } else {
            words.span(at, last).to_owned()
        };
        return Shape::Known(Class::OwnSet {
            name: own.to_owned(),
            value,
        });
    }
    let is_default = at == last && words.any(at, &["default", default]);
    let value = (!is_default).then(|| words.span(at, last).to_owned());
    Shape::Known(Class::Set {
        name: name.to_owned(),
        value,
    })
}

fn reset(words: &Words<'_>) -> Shape {
    if words.is(1, "all") && words.len() == 2 {
        return Shape::Known(Class::Reset { name: None });
    }
    if words.are(1, &["session", "authorization"]) {
        return pin("role");
    }
    if words.are(1, &["transaction", "isolation"]) {
        return primary("set-transaction");
    }
    if words.are(1, &["time", "zone"]) && words.len() == 3 {
        return Shape::Known(Class::Reset {
            name: Some("timezone".to_owned()),
        });
    }
    match dotted(words, 1) {
        Some((name, _)) if matches!(name.as_str(), "role" | "session_authorization") => pin("role"),
        Some((name, after)) if after == words.len() => Shape::Known(match own(&name) {
            Some(name) => Class::OwnReset { name },
            None => Class::Reset { name: Some(name) },
        }),
        _ => primary("unparsed"),
    }
}

fn show(words: &Words<'_>) -> Shape {
    match dotted(words, 1) {
        Some((name, after)) if after == words.len() => match own(&name) {
            Some(name) => Shape::Known(Class::OwnShow { name }),
            None => primary("show"),
        },
        _ => primary("show"),
    }
}

fn deallocate(words: &Words<'_>) -> Shape {
    let prepare = words.is(1, "prepare") && words.len() > 2;
    let at = 1 + usize::from(prepare);
    if at + 1 != words.len() {
        return primary("unparsed");
    }
    let name = if words.is(at, "all") {
        None
    } else {
        match words.name(at) {
            Some(name) => Some(name.into_owned()),
            None => return primary("unparsed"),
        }
    };
    Shape::Known(Class::Deallocate { name })
}

/// The inside of a string, as far as it matters to a search for words.
pub(super) fn content(raw: &str) -> &str {
    let tag = match raw.strip_prefix('$').and_then(|rest| rest.find('$')) {
        Some(end) => end + 2,
        None => 1,
    };
    raw.get(tag..raw.len().saturating_sub(tag))
        .unwrap_or_default()
}

fn run_block(words: &Words<'_>) -> Shape {
    let mut shape = primary("do");
    for at in 1..words.len() {
        let Some(Kind::Text(quote)) = words.kind(at) else {
            continue;
        };
        let raw = words.raw(at);
        let body = content(raw);
        let pins = match quote {
            Quote::Dollar => lexer::tokens(body.as_bytes(), true).is_err() || pins_body(body),
            _ => pins_body(&body.replace("''", "'")),
        };
        if pins {
            return Shape::Changes(Class::Pin("do"));
        }
        if walls::mentions_ddl(body) {
            shape = Shape::Changes(Class::Primary("do"));
        }
    }
    shape
}

fn pins_body(body: &str) -> bool {
    walls::body_pins(body).is_some()
}
