//! The proof that a function in PL/pgSQL only reads, by its tokens.
//!
//! Not a parser of that language. The server lets a function that is not volatile run no command but
//! queries, and no query that locks or writes: what is left is what its expressions call, so every
//! name in it is asked about, whatever it stands for there. Invariant: a body that puts a statement
//! together at run time, or in which some name stands for anything unproven, is not proven.

use super::Catalogue;
use crate::class::lexer::{self, Kind};
use crate::class::prove::{Proof, Reason};
use crate::class::walls::{self, Words};

/// What may stand before a parenthesis and is no call, unless a function has that name.
const SYNTAX: &[&str] = &[
    "all",
    "and",
    "any",
    "array",
    "as",
    "assert",
    "between",
    "bit",
    "by",
    "case",
    "cast",
    "char",
    "character",
    "coalesce",
    "cube",
    "current_time",
    "current_timestamp",
    "dec",
    "decimal",
    "default",
    "distinct",
    "else",
    "elseif",
    "elsif",
    "except",
    "exists",
    "extract",
    "filter",
    "float",
    "from",
    "greatest",
    "group",
    "grouping",
    "having",
    "if",
    "ilike",
    "in",
    "intersect",
    "interval",
    "join",
    "lateral",
    "least",
    "like",
    "limit",
    "localtime",
    "localtimestamp",
    "materialized",
    "not",
    "nullif",
    "offset",
    "on",
    "or",
    "over",
    "perform",
    "query",
    "return",
    "reverse",
    "rollup",
    "row",
    "select",
    "sets",
    "some",
    "then",
    "trim",
    "union",
    "using",
    "values",
    "varying",
    "when",
    "where",
    "while",
];

/// The types that words of the grammar stand for.
fn spelled(word: &str) -> &'static [&'static str] {
    match word.to_ascii_lowercase().as_str() {
        "bigint" => &["int8"],
        "bit" => &["varbit"],
        "boolean" => &["bool"],
        "char" | "character" | "nchar" => &["bpchar", "varchar"],
        "dec" | "decimal" => &["numeric"],
        "double" | "float" | "real" => &["float4", "float8"],
        "int" | "integer" => &["int4"],
        "smallint" => &["int2"],
        "time" => &["timetz"],
        "timestamp" => &["timestamptz"],
        _ => &[],
    }
}

/// Proves the source of a function that is not volatile.
pub(super) fn prove(catalogue: &Catalogue, source: &str) -> Result<Proof, Reason> {
    let (tokens, _) = lexer::tokens(source.as_bytes(), true).map_err(|_| "unparsed")?;
    let words = Words {
        sql: source,
        tokens: &tokens,
    };
    if walls::pin(&words).is_some() {
        return Err("unparsed");
    }
    let mut uses_now = walls::uses_now(&words);
    for at in 0..words.len() {
        match words.kind(at) {
            Some(Kind::Operator) if !catalogue.operator(words.raw(at)) => return Err("operator"),
            Some(Kind::Word | Kind::Quoted) => uses_now |= name(catalogue, &words, at)?,
            _ => {}
        }
    }
    Ok(Proof { uses_now })
}

/// Asks about a name as everything that it may be; whether it tells when the transaction began.
fn name(catalogue: &Catalogue, words: &Words<'_>, at: usize) -> Result<bool, Reason> {
    let name = words.name(at).ok_or("unparsed")?;
    if words.is(at, "execute") {
        return Err("unparsed");
    }
    let mut uses_now = false;
    if let Some(standing) = catalogue.relations.get(name.as_ref()) {
        uses_now |= standing.uses_now;
        catalogue.relation(&name).ok_or("relation")?;
    }
    let is_type = catalogue.types.contains_key(name.as_ref());
    let unsafe_type = |name: &str| catalogue.types.contains_key(name) && !catalogue.cast(name);
    if unsafe_type(&name) || spelled(words.raw(at)).iter().any(|name| unsafe_type(name)) {
        return Err("type");
    }
    if catalogue.is_unsafe_field(&name) {
        return Err("function");
    }
    if words.mark(at + 1, b'(') {
        match catalogue.function(&name) {
            Some(answer) => uses_now |= answer.uses_now,
            None if catalogue.is_unsafe_function(&name) => return Err("function"),
            None if is_type || words.any(at, SYNTAX) => {}
            None => return Err("function"),
        }
    }
    Ok(uses_now)
}
