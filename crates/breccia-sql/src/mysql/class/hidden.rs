//! What a statement may run that its text does not show: procedures, stored functions, triggers.
//!
//! Not whether it only reads ([`super::prove`]). Invariant: as far as the catalogue knows the server,
//! no statement hides more than is told of it.

use super::Class;
use super::builtin;
use super::catalogue::Catalogue;
use super::walls;
use super::words::Words;

/// What a statement may run that its text does not show.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Hidden {
    /// Nothing.
    #[default]
    Nothing,
    /// Triggers, and none are known where it writes.
    Triggers,
    /// Procedures, stored functions, or triggers that are known.
    Routines,
}

/// What one statement of this class hides.
pub(super) fn of(catalogue: Option<&Catalogue>, words: &Words<'_>, class: &Class) -> Hidden {
    let plain = matches!(
        class,
        Class::Read
            | Class::Begin { .. }
            | Class::Commit
            | Class::Rollback
            | Class::SetTransaction
            | Class::SetAutocommit(_)
            | Class::Use(_)
            | Class::ShowWarnings
            | Class::Kill { .. }
    );
    if plain {
        return Hidden::Nothing;
    }
    if words.any(0, &["call", "begin", "execute"]) || names_some(catalogue, words) {
        return Hidden::Routines;
    }
    let writes = [
        "insert", "replace", "update", "delete", "load", "analyze", "with",
    ];
    match class {
        _ if words.is(0, "do") && calls_unknown(words) => Hidden::Routines,
        Class::Primary(
            "executable-comment" | "function" | "long" | "no-catalogue" | "procedure" | "too-long"
            | "unknown-table" | "unproven" | "view",
        ) => Hidden::Routines,
        _ if words.any(0, &writes) => Hidden::Triggers,
        _ => Hidden::Nothing,
    }
}

/// Whether it calls something by the name of a stored function, or names a view or a table behind which
/// something may be run. Without a catalogue nobody knows.
fn names_some(catalogue: Option<&Catalogue>, words: &Words<'_>) -> bool {
    let Some(catalogue) = catalogue else {
        return (0..words.len()).any(|at| walls::is_call(words, at)) && calls_unknown(words);
    };
    (0..words.len()).any(|at| {
        words.name(at).is_some_and(|name| {
            let name = name.to_lowercase();
            let calls = words.mark(at + 1, b'(') && catalogue.is_routine(&name);
            catalogue.hides(&name) || (calls && !catalogue.vouches_for(&name))
        })
    })
}

/// Whether it may run something that is not the server's own, besides asking about the statement before.
pub(super) fn may_run(catalogue: Option<&Catalogue>, words: &Words<'_>) -> bool {
    let asks = |at: usize| words.any(at, &["found_rows", "row_count", "last_insert_id"]);
    let calls = |at: usize| walls::is_call(words, at) && !asks(at) && is_unknown(words, at);
    names_some(catalogue, words) || (0..words.len()).any(calls)
}

fn calls_unknown(words: &Words<'_>) -> bool {
    (0..words.len()).any(|at| walls::is_call(words, at) && is_unknown(words, at))
}

/// Whether what is called there is none of the servers' own.
fn is_unknown(words: &Words<'_>, at: usize) -> bool {
    let lower = words.lower(at);
    !builtin::is_function(&lower) && !builtin::is_syntax(&lower)
}
