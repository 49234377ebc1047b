//! What the tokens of a statement alone forbid, whatever a parser makes of them.
//!
//! Not a proof of anything: passing here means nothing. Invariant: a name that changes the session
//! is found at any depth and in any kind of statement.

use super::lexer::{self, Doubt, Kind, Quote, Token};
use std::borrow::Cow;

/// A text and some of its tokens.
#[derive(Clone, Copy)]
pub(super) struct Words<'a> {
    pub(super) sql: &'a str,
    pub(super) tokens: &'a [Token],
}

impl<'a> Words<'a> {
    pub(super) fn kind(&self, at: usize) -> Option<Kind> {
        self.tokens.get(at).map(|token| token.kind)
    }

    /// The bytes of a token as written.
    pub(super) fn raw(&self, at: usize) -> &'a str {
        let token = self.tokens.get(at);
        token
            .and_then(|token| self.sql.get(token.start..token.end))
            .unwrap_or_default()
    }

    /// The text from one token to another, both included, as written.
    pub(super) fn span(&self, first: usize, last: usize) -> &'a str {
        match (self.tokens.get(first), self.tokens.get(last)) {
            (Some(first), Some(last)) => self.sql.get(first.start..last.end).unwrap_or_default(),
            _ => "",
        }
    }

    /// What stands between a token and the next one.
    pub(super) fn gap(&self, at: usize) -> Option<&'a str> {
        let (token, next) = (self.tokens.get(at)?, self.tokens.get(at + 1)?);
        self.sql.get(token.end..next.start)
    }

    /// The token is a literal that goes on with the one before it.
    pub(super) fn continues(&self, at: usize) -> bool {
        let plain = |at: usize| {
            self.kind(at) == Some(Kind::Text(Quote::Plain)) && self.raw(at).starts_with('\'')
        };
        let Some(before) = at.checked_sub(1).filter(|before| plain(*before)) else {
            return false;
        };
        let gap = self.gap(before).unwrap_or_default();
        plain(at) && gap.contains(['\n', '\r']) && !gap.contains("/*")
    }

    /// The tokens from `at` on.
    pub(super) fn from(&self, at: usize) -> Self {
        Self {
            sql: self.sql,
            tokens: self.tokens.get(at..).unwrap_or_default(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.tokens.len()
    }

    /// The token is this keyword, unquoted.
    pub(super) fn is(&self, at: usize, word: &str) -> bool {
        self.kind(at) == Some(Kind::Word) && self.raw(at).eq_ignore_ascii_case(word)
    }

    pub(super) fn any(&self, at: usize, words: &[&str]) -> bool {
        words.iter().any(|word| self.is(at, word))
    }

    /// These keywords stand here, one behind the other.
    pub(super) fn are(&self, at: usize, words: &[&str]) -> bool {
        words
            .iter()
            .enumerate()
            .all(|(offset, word)| self.is(at + offset, word))
    }

    pub(super) fn mark(&self, at: usize, mark: u8) -> bool {
        self.kind(at) == Some(Kind::Mark(mark))
    }

    /// The token as a name of the catalogue, if it is one.
    pub(super) fn name(&self, at: usize) -> Option<Cow<'a, str>> {
        let raw = self.raw(at);
        match self.kind(at)? {
            Kind::Word if raw.bytes().any(|byte| byte.is_ascii_uppercase()) => {
                Some(Cow::Owned(raw.to_ascii_lowercase()))
            }
            Kind::Word => Some(Cow::Borrowed(raw)),
            Kind::Quoted => {
                let inner = raw.get(1..raw.len().saturating_sub(1)).unwrap_or_default();
                Some(if inner.contains('"') {
                    Cow::Owned(inner.replace("\"\"", "\""))
                } else {
                    Cow::Borrowed(inner)
                })
            }
            _ => None,
        }
    }

    /// The statements of the text: its tokens between semicolons, empty ones left out.
    pub(super) fn statements(&self) -> Vec<Self> {
        self.tokens
            .split(|token| token.kind == Kind::Mark(b';'))
            .filter(|tokens| !tokens.is_empty())
            .map(|tokens| Self {
                sql: self.sql,
                tokens,
            })
            .collect()
    }
}

/// Names that pin the session wherever they stand.
fn pin_of_name(name: &str) -> Option<&'static str> {
    Some(match name {
        "pg_advisory_lock"
        | "pg_advisory_lock_shared"
        | "pg_try_advisory_lock"
        | "pg_try_advisory_lock_shared" => "advisory-lock",
        "setseed" | "set_curcfg" | "set_limit" | "isn_weak" => "set",
        "dblink_connect" | "dblink_connect_u" | "dblink_open" => "dblink",
        "pg_create_physical_replication_slot"
        | "pg_create_logical_replication_slot"
        | "pg_copy_physical_replication_slot"
        | "pg_copy_logical_replication_slot" => "slot",
        "pg_replication_origin_session_setup" => "origin",
        _ if name.starts_with("pg_temp") => "temp",
        _ => return None,
    })
}

/// `set_config(…, …, true)` ends with its transaction; any other form stays with the session.
fn set_config_is_local(words: &Words<'_>, at: usize) -> bool {
    let mut depth = 0_usize;
    for token in at + 1..words.len() {
        if words.mark(token, b'(') || words.mark(token, b'[') {
            depth += 1;
        } else if words.mark(token, b')') || words.mark(token, b']') {
            depth = depth.saturating_sub(1);
            if depth == 0 {
                return words.is(token - 1, "true")
                    && token
                        .checked_sub(2)
                        .is_some_and(|comma| words.mark(comma, b','));
            }
        } else if depth == 0 {
            return false;
        }
    }
    false
}

/// Whether a statement makes something temporary and nothing else.
pub(super) fn makes_temporary(words: &Words<'_>) -> bool {
    let known = |at: &usize| !words.any(*at, &["or", "replace", "global", "local"]);
    let at = (1..words.len()).find(known).unwrap_or(0);
    words.is(0, "create") && words.any(at, &["temp", "temporary"])
}

/// Why the tokens pin the session, if they do.
pub(super) fn pin(words: &Words<'_>) -> Option<&'static str> {
    for at in 0..words.len() {
        if words.kind(at) == Some(Kind::UnicodeQuoted) {
            return Some("unicode-name");
        }
        let Some(name) = words.name(at) else { continue };
        if let Some(reason) = pin_of_name(&name) {
            return Some(reason);
        }
        if name == "set_config" && !set_config_is_local(words, at) {
            return Some("set");
        }
        if name == "set_config" && quotes_temp(words) {
            return Some("temp");
        }
        // The view has a rule that sets what is updated.
        if name == "pg_settings" && (0..words.len()).any(|at| words.is(at, "update")) {
            return Some("set");
        }
        let insert = at > 0 && words.any(at - 1, &["insert", "merge"]);
        if words.any(at, &["into", "create", "global", "local", "replace"])
            && words.any(at + 1, &["temp", "temporary"])
            && !insert
        {
            return Some("temp");
        }
    }
    None
}

/// Whether a literal of the statement names the schema of temporary things.
pub(super) fn quotes_temp(words: &Words<'_>) -> bool {
    (0..words.len()).any(|at| {
        matches!(words.kind(at), Some(Kind::Text(_) | Kind::Quoted)) && names_temp(words.raw(at))
    })
}

/// Whether a setting's value names the schema of temporary things.
pub(crate) fn names_temp(value: &str) -> bool {
    value.to_ascii_lowercase().contains("pg_temp")
}

/// Whether a query makes a table of what it finds, and no temporary one.
pub(super) fn makes_table(words: &Words<'_>) -> bool {
    let inserts = |at: usize| at > 0 && words.any(at - 1, &["insert", "merge"]);
    words.any(0, &["select", "with", "values", "table"])
        && (0..words.len()).any(|at| {
            words.is(at, "into") && !inserts(at) && !words.any(at + 1, &["temp", "temporary"])
        })
}

/// Whether the source of a routine changes its session, as far as its text shows.
pub(super) fn body_pins(body: &str) -> Option<&'static str> {
    let (tokens, _) = match lexer::tokens(body.as_bytes(), true) {
        Ok(tokens) => tokens,
        // The server refuses it whenever it is called.
        Err(Doubt::Unterminated) => return None,
        Err(_) => return mentions_state(body).then_some("routine"),
    };
    let words = Words {
        sql: body,
        tokens: &tokens,
    };
    if let Some(reason) = pin(&words) {
        return Some(reason);
    }
    (0..words.len()).find_map(|at| {
        let starts = starts(&words, at);
        let local = words.any(at + 1, &["local", "constraints", "transaction"]);
        let state = words.any(at, &["listen", "load", "prepare", "reset", "discard"])
            || (words.is(at, "set") && !local);
        // What a routine builds at run time cannot be seen: its strings are read for these words.
        let built = matches!(words.kind(at), Some(Kind::Text(_))) && {
            let text = words.raw(at).to_ascii_lowercase();
            ["set ", "listen ", " temp", "pg_advisory_lock", "set_config"]
                .iter()
                .any(|part| text.contains(part))
        };
        ((starts && state) || built).then_some("routine")
    })
}

/// Whether the source of a routine changes the catalogue, as far as its text shows.
pub(super) fn body_changes(body: &str) -> bool {
    let Ok((tokens, _)) = lexer::tokens(body.as_bytes(), true) else {
        return mentions_ddl(body);
    };
    let words = Words {
        sql: body,
        tokens: &tokens,
    };
    (0..words.len()).any(|at| match words.kind(at) {
        Some(Kind::Word) => {
            words.any(at, &["create", "alter", "drop"])
                && starts(&words, at)
                && !makes_temporary(&words.from(at))
        }
        // What it builds at run time.
        Some(Kind::Text(_)) => {
            let text = words.raw(at).to_ascii_lowercase();
            mentions_ddl(&text) && !text.contains(" temp")
        }
        _ => false,
    })
}

/// Whether a statement may start at a token of a routine's source.
fn starts(words: &Words<'_>, at: usize) -> bool {
    at == 0
        || words.mark(at - 1, b';')
        || words.any(at - 1, &["begin", "then", "else", "loop", "execute"])
}

/// Whether a text that cannot be read holds a word of what changes a session.
pub(super) fn mentions_state(text: &str) -> bool {
    const WORDS: [&str; 10] = [
        "listen", "temp", "set", "advisory", "load", "prepare", "declare", "discard", "role",
        "dblink",
    ];
    let lower = text.to_ascii_lowercase();
    WORDS.iter().any(|word| lower.contains(word))
}

/// Whether a routine's source holds a word of DDL.
pub(super) fn mentions_ddl(body: &str) -> bool {
    let lower = body.to_ascii_lowercase();
    ["create ", "alter ", "drop "]
        .iter()
        .any(|word| lower.contains(word))
}

/// Whether a query's tokens tell when its transaction began.
pub(super) fn uses_now(words: &Words<'_>) -> bool {
    const WORDS: [&str; 5] = [
        "current_timestamp",
        "current_date",
        "current_time",
        "localtime",
        "localtimestamp",
    ];
    const FUNCTIONS: [&str; 3] = ["now", "transaction_timestamp", "age"];
    (0..words.len()).any(|at| match words.kind(at) {
        Some(Kind::Word | Kind::Quoted) => {
            words.any(at, &WORDS)
                || (words.mark(at + 1, b'(')
                    && words
                        .name(at)
                        .is_some_and(|name| FUNCTIONS.contains(&name.as_ref())))
        }
        Some(Kind::Text(_)) => lexer::names_moment(words.raw(at).as_bytes()),
        _ => false,
    })
}

/// Most words and operators of a statement that is handed to the parser.
const MOST_WORDS: usize = 4_000;

/// What the tokens of a query say against its being a read.
pub(super) fn forbids_read(words: &Words<'_>) -> Result<(), &'static str> {
    let mut weight = 0_usize;
    for at in 0..words.len() {
        match words.kind(at) {
            Some(Kind::UnicodeQuoted | Kind::Mark(lexer::ASSIGN | lexer::DOTS)) => {
                return Err("unparsed");
            }
            Some(Kind::Operator | Kind::Quoted | Kind::Mark(b'[' | lexer::CAST)) => weight += 1,
            Some(Kind::Word) => {
                weight += 1;
                if words.is(at, "into") {
                    let inserts = at > 0 && words.any(at - 1, &["insert", "merge"]);
                    return Err(if inserts { "write" } else { "into" });
                }
                if words.is(at, "for") && words.any(at + 1, &["update", "share", "no", "key"]) {
                    return Err("locks");
                }
                let opens = at > 0 && words.mark(at - 1, b'(');
                if opens
                    && words.any(at, &["insert", "update", "delete", "merge"])
                    && !matches!(words.kind(at + 1), Some(Kind::Mark(_) | Kind::Operator))
                {
                    return Err("write");
                }
            }
            _ => {}
        }
    }
    if weight > MOST_WORDS {
        Err("too-long")
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_changes_the_catalogue_by_what_it_runs() {
        let check = |body: &str, changes: bool| assert_eq!(body_changes(body), changes, "{body}");
        check("begin create table a (b int); end", true);
        check("begin if x then drop view v; end if; end", true);
        check(
            "begin execute format('alter table %I add b int', t); end",
            true,
        );
        check("select 1; create index on a (b)", true);
        check("begin create temp table a (b int); end", false);
        check("begin execute 'create temporary table a ()'; end", false);
        check(
            "begin -- create a row\n insert into a values (1); end",
            false,
        );
        check("begin update a set created = now(); end", false);
    }
}
