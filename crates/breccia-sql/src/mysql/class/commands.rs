//! Statements that are not queries, known by their first words.
//!
//! Not a parser: what a server would refuse may have any class. Invariant: what is not known here is
//! for the primary.

use super::Class;
use super::lexer::Kind;
use super::prove::Reason;
use super::walls::{self, Scope};
use super::words::Words;

/// What the first words of a statement tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Shape {
    /// It may be a read, and must be proven.
    Query,
    /// It is not.
    Known(Class),
}

fn primary(reason: Reason) -> Shape {
    Shape::Known(Class::Primary(reason))
}

fn pin(reason: Reason) -> Shape {
    Shape::Known(Class::Pin(reason))
}

/// The shape of one statement, which has a token at least.
pub(super) fn shape(words: &Words<'_>) -> Shape {
    if words.mark(0, b'(') {
        return Shape::Query;
    }
    if words.kind(0) != Some(Kind::Word) {
        return primary("unproven");
    }
    match words.lower(0).as_str() {
        "select" | "with" | "values" | "table" | "explain" | "describe" | "desc" => Shape::Query,
        "insert" | "replace" | "update" | "delete" | "do" | "import" | "truncate" => {
            primary("write")
        }
        "load" => load(words),
        "call" => primary("call"),
        "begin" | "start" => begin(words),
        "commit" | "rollback" => end(words),
        "savepoint" | "release" => primary("savepoint"),
        "xa" => pin("xa"),
        "set" => set(words),
        "use" => match words.name(1).filter(|_| words.len() == 2) {
            Some(name) => Shape::Known(Class::Use(name.into_owned())),
            None => primary("unproven"),
        },
        "show" => show(words),
        "get" => Shape::Known(Class::ShowWarnings),
        "kill" => Shape::Known(kill(words)),
        "create" | "drop" | "alter" | "rename" | "install" | "uninstall" => ddl(words),
        "lock" => pin("lock-tables"),
        "unlock" => primary("lock-tables"),
        "flush" => flush(words),
        "backup" => pin("backup"),
        "handler" => pin("handler"),
        "prepare" | "execute" | "deallocate" => pin("prepare"),
        "reset" => match own(words, 1) {
            Some(name) if words.len() == 4 => Shape::Known(Class::OwnReset { name }),
            Some(_) => Shape::Known(Class::OwnMisplaced),
            None => primary("admin"),
        },
        "declare" | "for" | "if" | "loop" | "while" | "case" | "repeat" => pin("block"),
        "analyze" | "binlog" | "cache" | "change" | "check" | "checksum" | "clone" | "grant"
        | "help" | "optimize" | "purge" | "repair" | "restart" | "revoke" | "shutdown" | "stop" => {
            primary("admin")
        }
        _ => primary("unknown"),
    }
}

/// Whether a statement, by its first words, may set what `LAST_INSERT_ID()` tells.
pub(super) fn may_insert(words: &Words<'_>) -> bool {
    let first = [
        "insert", "replace", "load", "call", "execute", "begin", "create", "import",
    ];
    words.any(0, &first) && !words.exactly(&["begin"]) && !words.exactly(&["begin", "work"])
}

/// Whether a statement certainly commits what is open before it runs. Of the others that do a server does
/// it, and of those that do not nothing is lost.
pub(super) fn commits(words: &Words<'_>, class: &Class) -> bool {
    match class {
        Class::Begin { .. } | Class::Ddl => true,
        Class::Primary("admin") => {
            let table = (1..3).any(|at| words.any(at, &["table", "tables"]));
            words.any(0, &["grant", "revoke"])
                || (words.any(0, &["analyze", "check", "optimize", "repair"]) && table)
        }
        _ => false,
    }
}

/// Whether a statement begins what has statements in its body: their semicolons end nothing.
pub(super) fn has_body(words: &Words<'_>) -> bool {
    let programs = ["procedure", "function", "trigger", "event", "package"];
    let others = [
        "table", "view", "index", "database", "schema", "user", "role", "sequence",
    ];
    // `CREATE OR REPLACE DEFINER = 'a'@'b' AGGREGATE FUNCTION IF NOT EXISTS …`
    let mut kinds = (1..14).filter(|at| words.any(*at, &programs) || words.any(*at, &others));
    let first = kinds.next();
    words.any(0, &["create", "alter"]) && first.is_some_and(|at| words.any(at, &programs))
}

fn load(words: &Words<'_>) -> Shape {
    let local = (2..4).any(|at| words.is(at, "local"));
    if words.any(1, &["data", "xml"]) && local {
        Shape::Known(Class::LoadLocal)
    } else {
        primary("write")
    }
}

fn begin(words: &Words<'_>) -> Shape {
    let plain = |read_only, characteristics| {
        Shape::Known(Class::Begin {
            read_only,
            characteristics,
        })
    };
    if words.is(0, "begin") {
        return match words.len() {
            1 => plain(false, false),
            2 if words.is(1, "work") => plain(false, false),
            _ => pin("block"),
        };
    }
    if !words.is(1, "transaction") {
        return primary("admin");
    }
    let (mut at, mut read_only, mut characteristics) = (2, false, false);
    while at < words.len() {
        if words.are(at, &["read", "only"]) {
            read_only = true;
            at += 2;
        } else if words.are(at, &["read", "write"]) {
            characteristics = true;
            at += 2;
        } else if words.are(at, &["with", "consistent", "snapshot"]) {
            characteristics = true;
            at += 3;
        } else {
            return primary("unknown");
        }
        if at < words.len() {
            if !words.mark(at, b',') {
                return primary("unknown");
            }
            at += 1;
        }
    }
    plain(read_only, characteristics)
}

/// COMMIT or ROLLBACK that ends the connection, too.
pub const RELEASE: &str = "release";

/// Whether the ends of transactions may do something else from here on.
pub(super) fn sets_completion(words: &Words<'_>) -> bool {
    words.is(0, "set") && (1..words.len()).any(|at| words.is(at, "completion_type"))
}

fn end(words: &Words<'_>) -> Shape {
    let mut at = 1 + usize::from(words.is(1, "work"));
    if words.is(at, "to") {
        return primary("savepoint");
    }
    if words.are(at, &["and", "no", "chain"]) {
        at += 3;
    }
    if words.are(at, &["no", "release"]) {
        at += 2;
    }
    if words.is(at, "release") && at + 1 == words.len() {
        return primary(RELEASE);
    }
    match (at == words.len(), words.is(0, "commit")) {
        (true, true) => Shape::Known(Class::Commit),
        (true, false) => Shape::Known(Class::Rollback),
        (false, _) => primary("chain"),
    }
}

fn show(words: &Words<'_>) -> Shape {
    if let Some(name) = own(words, 1) {
        let alone = words.len() == 4;
        return Shape::Known(if alone {
            Class::OwnShow { name }
        } else {
            Class::OwnMisplaced
        });
    }
    let counts = words.is(1, "count") && words.mark(2, b'(');
    if words.any(1, &["warnings", "errors"]) || counts {
        return Shape::Known(Class::ShowWarnings);
    }
    primary("show")
}

/// The name behind `breccia.`, in lower case.
fn own(words: &Words<'_>, at: usize) -> Option<String> {
    let named = words.is(at, "breccia") && words.mark(at + 1, b'.');
    named
        .then(|| words.name(at + 2))?
        .map(|name| name.to_ascii_lowercase())
}

fn kill(words: &Words<'_>) -> Class {
    let mut at = 1 + usize::from(words.any(1, &["hard", "soft"]));
    let query = words.is(at, "query");
    at += usize::from(words.any(at, &["connection", "query"]));
    // MariaDB's KILL QUERY ID names a statement, and not a connection.
    let number = words.text(at).parse().ok();
    let id = number.filter(|_| at + 1 == words.len());
    Class::Kill { query, id }
}

fn ddl(words: &Words<'_>) -> Shape {
    let replaces = if words.are(1, &["or", "replace"]) {
        3
    } else {
        1
    };
    if words.is(replaces, "temporary") {
        return if words.is(0, "create") {
            pin("temp")
        } else {
            primary("write")
        };
    }
    if words.are(0, &["drop", "prepare"]) {
        return pin("prepare");
    }
    Shape::Known(Class::Ddl)
}

fn flush(words: &Words<'_>) -> Shape {
    let locks = (1..words.len())
        .any(|at| words.are(at, &["read", "lock"]) || words.are(at, &["for", "export"]));
    if locks {
        pin("lock-tables")
    } else {
        primary("admin")
    }
}

/// Why a session is pinned whose settings hold for one statement.
pub(super) const SET_STATEMENT: &str = "set-statement";

/// Variables of one connection that say what a later statement does once, or that the server tells
/// nothing of.
const BOUND: [&str; 22] = [
    "debug_dbug",
    "debug_sync",
    "gtid_domain_id",
    "gtid_next",
    "gtid_next_list",
    "gtid_seq_no",
    "identity",
    "insert_id",
    "last_insert_id",
    "optimizer_trace",
    "optimizer_trace_max_mem_size",
    "profiling",
    "pseudo_replica_mode",
    "pseudo_slave_mode",
    "pseudo_thread_id",
    "rand_seed1",
    "rand_seed2",
    "server_id",
    "skip_replication",
    "sql_log_bin",
    "sql_log_off",
    "timestamp",
];

/// What one assignment of SET is.
enum Assignment {
    Session { name: String, value: usize },
    Other(Shape),
}

fn set(words: &Words<'_>) -> Shape {
    let scoped = usize::from(words.any(1, &["session", "local"]));
    if words.is(1 + scoped, "breccia") && words.mark(2 + scoped, b'.') {
        return own_set(words, 1 + scoped);
    }
    let assigned = |at: usize| words.mark(at, b'=') || words.raw(at) == b":=";
    if !assigned(2) && !assigned(2 + scoped) {
        if words.is(1 + scoped, "transaction") {
            let once = scoped == 0;
            return Shape::Known(if once {
                Class::SetTransaction
            } else {
                Class::Set
            });
        }
        match words {
            _ if words.any(1, &["password"]) => return primary("password"),
            _ if words.any(1, &["role"]) => return pin("role"),
            _ if words.are(1, &["default", "role"]) => return primary("admin"),
            _ if words.is(1, "statement") => return pin(SET_STATEMENT),
            _ if words.is(1, "resource") => return pin("resource-group"),
            _ => {}
        }
    }
    if words.is(1, "password") {
        return primary("password");
    }
    assignments(words)
}

fn assignments(words: &Words<'_>) -> Shape {
    let (mut at, mut count, mut autocommit) = (1, 0, None);
    let mut class = Shape::Known(Class::Set);
    while at < words.len() {
        let end = next_comma(words, at);
        count += 1;
        match assignment(words, at) {
            Assignment::Session { name, .. } if is_bound(&name) => return pin("variable"),
            // Once a client has chosen what it is told, Breccia need not be told of this itself.
            Assignment::Session { name, .. } if name.starts_with("session_track_") => {
                return pin("session-track");
            }
            Assignment::Session { name, value } if name == "autocommit" => {
                autocommit = on_or_off(words, value, end);
            }
            Assignment::Session { .. } | Assignment::Other(Shape::Known(Class::Set)) => {}
            Assignment::Other(other) => class = other,
        }
        at = end + 1;
    }
    match autocommit {
        Some(on) if count == 1 => Shape::Known(Class::SetAutocommit(on)),
        _ if count == 0 => primary("unproven"),
        _ => class,
    }
}

/// The variables that SET gives a value as `@@name`; none if one has a name that cannot be asked for.
///
/// What the next transaction is to be is told, and no setting.
pub(super) fn untold(words: &Words<'_>) -> Option<Vec<Box<str>>> {
    if !words.is(0, "set") {
        return Some(Vec::new());
    }
    let mut names = Vec::new();
    for at in 1..words.len() {
        let assigned = words.mark(at + 1, b'=') || words.raw(at + 1) == b":=";
        let begins = at == 1 || words.mark(at - 1, b',');
        if !assigned || !begins || words.kind(at) != Some(Kind::SystemVariable) {
            continue;
        }
        let (scope, name) = walls::variable(words, at);
        let once = name.starts_with("tx_") || name.starts_with("transaction_");
        if scope != Scope::Unsaid || once {
            continue;
        }
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        if !name.bytes().all(plain) {
            return None;
        }
        names.push(name.into());
    }
    Some(names)
}

fn is_bound(name: &str) -> bool {
    BOUND.binary_search(&name).is_ok() || name.starts_with("debug") || name.starts_with("wsrep_")
}

fn next_comma(words: &Words<'_>, from: usize) -> usize {
    let mut depth = 0_usize;
    for at in from..words.len() {
        match words.kind(at) {
            Some(Kind::Mark(b'(')) => depth += 1,
            Some(Kind::Mark(b')')) => depth = depth.saturating_sub(1),
            Some(Kind::Mark(b',')) if depth == 0 => return at,
            _ => {}
        }
    }
    words.len()
}

fn assignment(words: &Words<'_>, at: usize) -> Assignment {
    let known = |class| Assignment::Other(Shape::Known(class));
    if words.any(at, &["global", "persist", "persist_only"]) {
        return known(Class::Primary("global"));
    }
    if words.kind(at) == Some(Kind::SystemVariable) {
        let (scope, name) = walls::variable(words, at);
        if scope == Scope::Global || name.starts_with("persist") {
            return known(Class::Primary("global"));
        }
        return Assignment::Session {
            name,
            value: at + 2,
        };
    }
    if words.any(at, &["names", "charset"]) || words.are(at, &["character", "set"]) {
        return known(Class::Set);
    }
    let at = at + usize::from(words.any(at, &["session", "local"]));
    match words.name(at) {
        Some(name) if words.mark(at + 1, b'=') || words.raw(at + 1) == b":=" => {
            Assignment::Session {
                name: name.to_ascii_lowercase(),
                value: at + 2,
            }
        }
        // `SET cache.key_buffer_size = 1`, and a `NEW.column` that stands in no trigger.
        _ => known(Class::Primary("set")),
    }
}

fn on_or_off(words: &Words<'_>, value: usize, end: usize) -> Option<bool> {
    if value + 1 != end {
        return None;
    }
    let text = words.lower(value);
    match text.trim_matches(['\'', '"']) {
        "1" | "on" | "true" => Some(true),
        "0" | "off" | "false" => Some(false),
        _ => None,
    }
}

fn own_set(words: &Words<'_>, at: usize) -> Shape {
    let assigns = words.mark(at + 3, b'=') || words.raw(at + 3) == b":=";
    let value = at + 4;
    match own(words, at) {
        Some(name) if assigns && value + 1 == words.len() => {
            let text = words.span(value, value);
            let inner = match words.kind(value) {
                Some(Kind::Text | Kind::Quoted) => text
                    .get(1..text.len().saturating_sub(1))
                    .unwrap_or_default(),
                _ => &text,
            };
            Shape::Known(Class::OwnSet {
                name,
                value: inner.to_owned(),
            })
        }
        _ => Shape::Known(Class::OwnMisplaced),
    }
}
