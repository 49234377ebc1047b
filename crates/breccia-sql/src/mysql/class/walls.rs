//! What the tokens of a statement alone tell, whatever a parser makes of them.
//!
//! Not a proof of anything: passing here means nothing. Invariant: what changes the session, asks
//! about the statement before, or locks is found at any depth and in any kind of statement.

use super::Asked;
use super::builtin::{self, LOCKS};
use super::catalogue::Catalogue;
use super::lexer::Kind;
use super::prove::Reason;
use super::words::Words;

/// What a session must know of a statement besides its class.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is one fact, independent of the others"
)]
pub(super) struct Flags {
    pub(super) asks_last_insert_id: bool,
    pub(super) asked: Asked,
    pub(super) calculates_found_rows: bool,
    pub(super) may_set_last_insert_id: bool,
    pub(super) uses_now: bool,
    pub(super) pin: Option<Reason>,
}

impl Flags {
    /// Asks for what only its own connection knows: if that ran the statement before, it may be right,
    /// and is from then on.
    fn asks_last_value(&mut self) {
        self.asked.number = true;
        self.pin = self.pin.or(Some("last-value"));
    }
}

/// Whether the word at `at` is called, or could be: a parenthesis follows.
pub(super) fn is_call(words: &Words<'_>, at: usize) -> bool {
    words.mark(at + 1, b'(') && matches!(words.kind(at), Some(Kind::Word | Kind::Quoted))
}

/// Looks through all tokens of a statement.
pub(super) fn flags(words: &Words<'_>) -> Flags {
    let mut flags = Flags::default();
    for at in 0..words.len() {
        match words.kind(at) {
            Some(Kind::UserVariable) => flags.pin = flags.pin.or(Some("user-variable")),
            Some(Kind::SystemVariable) => match variable(words, at).1.as_str() {
                "last_insert_id" | "identity" => flags.asks_last_insert_id = true,
                "warning_count" | "error_count" => flags.asked.warnings = true,
                // What the connection did last, which others may have had since.
                "last_gtid" => {
                    flags.asked.last = true;
                    flags.pin = flags.pin.or(Some("last-value"));
                }
                _ => {}
            },
            Some(Kind::Word) => word(words, at, &mut flags),
            Some(Kind::Quoted) if words.mark(at + 1, b'(') => {
                // The server's own functions may be called so, too.
                let name = words.name(at).unwrap_or_default().to_ascii_lowercase();
                called(words, at, &name, &mut flags);
            }
            _ => {}
        }
    }
    flags
}

fn word(words: &Words<'_>, at: usize, flags: &mut Flags) {
    if words.is(at, "sql_calc_found_rows") {
        flags.calculates_found_rows = true;
        return;
    }
    let bytes = words.raw(at);
    if !(3..=17).contains(&bytes.len()) {
        return;
    }
    let lower = words.lower(at);
    if builtin::is_clock(&lower) && !words.follows_dot(at) {
        flags.uses_now = true;
    }
    let previous = words.is(at, "previous") && words.is(at + 1, "value");
    if previous || (lower == "currval" && words.follows_dot(at)) {
        flags.asks_last_value();
    }
    if words.mark(at + 1, b'(') {
        called(words, at, &lower, flags);
    }
}

/// A function of this name, in lower case, is called at `at`.
fn called(words: &Words<'_>, at: usize, name: &str, flags: &mut Flags) {
    match name {
        "lastval" => flags.asks_last_value(),
        "last_insert_id" if words.mark(at + 2, b')') => flags.asks_last_insert_id = true,
        "last_insert_id" => flags.may_set_last_insert_id = true,
        "found_rows" => flags.asked.rows = true,
        "row_count" => flags.asked.last = true,
        name if LOCKS.contains(&name) => flags.pin = Some("lock"),
        _ => {}
    }
}

/// Whose a system variable is, as the text says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    /// The server's.
    Global,
    /// The session's.
    Session,
    /// Nothing is said.
    Unsaid,
}

/// A system variable: whose it is, and its name in lower case.
pub(super) fn variable(words: &Words<'_>, at: usize) -> (Scope, String) {
    let name = words.lower(at).replace('`', "");
    let name = name.trim_start_matches("@@");
    for (said, scope) in [
        ("global.", Scope::Global),
        ("session.", Scope::Session),
        ("local.", Scope::Session),
    ] {
        if let Some(name) = name.strip_prefix(said) {
            return (scope, name.to_owned());
        }
    }
    (Scope::Unsaid, name.to_owned())
}

/// Refuses what no read has in it.
pub(super) fn forbids_read(words: &Words<'_>, catalogue: &Catalogue) -> Result<(), Reason> {
    for at in 0..words.len() {
        match words.kind(at) {
            Some(Kind::UserVariable) => return Err("user-variable"),
            Some(Kind::SystemVariable) => {
                let (scope, name) = variable(words, at);
                if scope == Scope::Global || !builtin::is_same_everywhere(&name) {
                    return Err("variable");
                }
            }
            Some(Kind::Operator) if words.raw(at) == b":=" => return Err("user-variable"),
            Some(Kind::Mark(b'{' | b'}' | b':')) => return Err("unproven"),
            Some(Kind::Word) if !words.follows_dot(at) => keyword(words, at)?,
            // Under ORACLE a sequence is asked so.
            Some(Kind::Word) if words.any(at, &["nextval", "currval"]) => return Err("sequence"),
            _ => {}
        }
        if is_call(words, at) {
            call(words, at, catalogue)?;
        }
    }
    Ok(())
}

fn keyword(words: &Words<'_>, at: usize) -> Result<(), Reason> {
    let locks = (words.is(at, "for") && words.any(at + 1, &["update", "share"]))
        || (words.is(at, "lock") && words.is(at + 1, "in"));
    if locks {
        return Err("locks");
    }
    let refused = [
        ("into", "into"),
        ("procedure", "procedure"),
        ("current_user", "function"),
        ("current_role", "function"),
        ("returning", "write"),
    ];
    if let Some((_, reason)) = refused.iter().find(|(word, _)| words.is(at, word)) {
        return Err(reason);
    }
    if words.any(at, &["next", "previous"]) && words.is(at + 1, "value") {
        return Err("sequence");
    }
    Ok(())
}

/// Refuses what is called here, unless it is known to be harmless.
pub(super) fn call(words: &Words<'_>, at: usize, catalogue: &Catalogue) -> Result<(), Reason> {
    if names_columns(words, at) {
        return Ok(());
    }
    let name = words.name(at);
    if name.is_some_and(|name| catalogue.vouches_for(&name.to_lowercase())) {
        return Ok(());
    }
    if words.kind(at) == Some(Kind::Quoted) || words.follows_dot(at) {
        return Err("function");
    }
    let lower = words.lower(at);
    if catalogue.is_routine(&lower) {
        return Err("function");
    }
    if matches!(lower.as_str(), "nextval" | "lastval" | "setval") {
        return Err("sequence");
    }
    if builtin::is_function(&lower) || builtin::is_syntax(&lower) {
        Ok(())
    } else {
        Err("function")
    }
}

/// `WITH name (column, …) AS (`: no call.
fn names_columns(words: &Words<'_>, at: usize) -> bool {
    let begins = at > 0
        && (words.any(at - 1, &["with", "recursive"])
            || (words.mark(at - 1, b',') && at > 1 && words.mark(at - 2, b')')));
    let mut end = at + 2;
    while matches!(words.kind(end), Some(Kind::Word | Kind::Quoted)) && words.mark(end + 1, b',') {
        end += 2;
    }
    let named = matches!(words.kind(end), Some(Kind::Word | Kind::Quoted));
    begins
        && named
        && words.mark(end + 1, b')')
        && words.is(end + 2, "as")
        && words.mark(end + 3, b'(')
}
