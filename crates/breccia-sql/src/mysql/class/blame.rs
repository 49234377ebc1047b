//! What stands in the way of the proof that a text is a read, by its name: for an administrator.
//!
//! Not a judge: what is asked here was judged before. Invariant: what is named is in the text, or in the
//! definition of a view that is.

use super::builtin::{self, LOCKS};
use super::catalogue::Catalogue;
use super::commands::{self, Shape};
use super::lexer::{self, Kind};
use super::prove::{self, Reason};
use super::walls;
use super::words::Words;
use super::{Mode, classify::Classifier};

/// How far a view is followed to what it is made of.
const LONGEST_CHAIN: u32 = 8;

impl Classifier {
    /// What of a text is not proven to read only, and why; `None`: it is no name, or nothing is known of
    /// the schemas.
    #[must_use]
    pub fn blame(&self, sql: &[u8], mode: Mode, schema: Option<&str>) -> Option<String> {
        let (tokens, _) = lexer::tokens(sql, mode).ok()?;
        let words = Words {
            sql,
            tokens: &tokens,
        };
        let catalogue = self.catalogue()?;
        // What no catalogue could make a read has no name in its way.
        let queries = words.statements().into_iter();
        let mut queries = queries.filter(|it| commands::shape(it) == Shape::Query);
        queries.find_map(|it| of_query(&catalogue, &it, schema, LONGEST_CHAIN))
    }
}

fn of_query(
    catalogue: &Catalogue,
    words: &Words<'_>,
    schema: Option<&str>,
    depth: u32,
) -> Option<String> {
    let mut culprit = None;
    let reason = prove::query_blaming(catalogue, words, schema, &mut culprit).err()?;
    match (reason, culprit) {
        (_, Some((schema, name))) => Some(relation(catalogue, &schema, &name, reason, depth)),
        ("unknown-table", None) if schema.is_none() => {
            Some("a table is named without its database, and none is entered".to_owned())
        }
        ("function", _) => function(catalogue, words),
        ("variable", _) => (0..words.len()).find_map(|at| {
            let (scope, name) = walls::variable(words, at);
            let is = words.kind(at) == Some(Kind::SystemVariable)
                && (scope == walls::Scope::Global || !builtin::is_same_everywhere(&name));
            is.then(|| format!("variable {}", words.text(at)))
        }),
        _ => None,
    }
}

fn relation(catalogue: &Catalogue, schema: &str, name: &str, reason: Reason, depth: u32) -> String {
    let full = format!("{schema}.{name}");
    match reason {
        "unknown-table" => format!(
            "table {full}, which does not exist, or which the user that Breccia asks as may not see"
        ),
        "engine" => format!("table {full}, whose engine does not hold the same on a replica"),
        "sequence" => format!("sequence {full}"),
        "catalogue" => format!("{full}, which is the server's own"),
        "view" => {
            let within = catalogue
                .unproven_view(schema, name)
                .filter(|_| depth > 0)
                .and_then(|definition| of_definition(catalogue, definition, depth - 1));
            match within {
                Some(within) => format!("view {full}, which uses {within}"),
                None => format!("view {full}, whose definition is not proven to read only"),
            }
        }
        _ => full,
    }
}

fn of_definition(catalogue: &Catalogue, definition: &str, depth: u32) -> Option<String> {
    let mode = Mode {
        legible: true,
        ..Mode::default()
    };
    let (tokens, _) = lexer::tokens(definition.as_bytes(), mode).ok()?;
    let words = Words {
        sql: definition.as_bytes(),
        tokens: &tokens,
    };
    of_query(catalogue, &words, None, depth)
}

/// The function of a query that is not proven.
fn function(catalogue: &Catalogue, words: &Words<'_>) -> Option<String> {
    (0..words.len()).find_map(|at| {
        let refused = walls::is_call(words, at) && walls::call(words, at, catalogue).is_err();
        let name = words.name(at).filter(|_| refused)?;
        let lower = name.to_lowercase();
        let why = if catalogue.is_routine(&lower) {
            "is a stored function, which no server holds to what it declares; if it only reads, \
             name it in read-functions"
        } else if LOCKS.contains(&lower.as_str()) {
            "takes or gives back locks"
        } else {
            "is not known to only compute"
        };
        Some(format!("function {name}, which {why}"))
    })
}
