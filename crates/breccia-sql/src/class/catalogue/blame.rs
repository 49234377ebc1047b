//! What in a text stands in the way of its proof: names, down to the one that is unsafe by itself.
//!
//! For people who ask; no verdict comes from here, and a gateway keeps nothing of this. It goes by
//! tokens alone, so of several names it may tell another one than the proof has met first. Invariant:
//! each name that is told is one that the catalogue does not vouch for.

use super::{Catalogue, Need, procedure};
use crate::class::classify::NO_CALLS;
use crate::class::lexer::{self, Kind, Token};
use crate::class::prove;
use crate::class::walls::Words;
use std::borrow::Cow;
use std::collections::HashMap;

/// How many names a chain tells: bodies may name each other without end.
const LONGEST_CHAIN: u32 = 8;

/// What kind of thing bears a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Space {
    Function,
    Relation,
    Domain,
}

impl Space {
    fn word(self) -> &'static str {
        match self {
            Self::Function => "function",
            Self::Relation => "relation",
            Self::Domain => "domain",
        }
    }
}

/// What a definition says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Text {
    /// Queries.
    Sql(String),
    /// A body in PL/pgSQL.
    Procedure(String),
}

type Object = (Space, String);

/// Why the names of a catalogue are not proven.
#[derive(Debug, Default)]
pub struct Blame {
    /// What is unsafe by itself, and why.
    notes: HashMap<Object, &'static str>,
    /// What is unsafe by its definition.
    pub(super) texts: HashMap<Object, Vec<Text>>,
}

impl Blame {
    /// Notes why a name is unsafe by itself; of several objects that bear it, the first is told.
    pub(super) fn note(&mut self, space: Space, name: &str, why: &'static str) {
        let object = (space, name.to_owned());
        self.notes.entry(object).or_insert(why);
    }

    /// What stands in the way of the proof that `sql` is a read, where that failed for `reason`; none
    /// if it is no name.
    #[must_use]
    pub fn because(&self, catalogue: &Catalogue, sql: &str, reason: &str) -> Option<String> {
        match reason {
            "domain" => self.domain(catalogue),
            "operator-class" => {
                let mut unnamed = catalogue.called_unnamed.iter();
                let function = unnamed.find(|it| catalogue.function(it).is_none())?;
                Some(self.tell(catalogue, Space::Function, function, LONGEST_CHAIN))
            }
            _ => self.within(catalogue, sql, reason, LONGEST_CHAIN),
        }
    }

    fn domain(&self, catalogue: &Catalogue) -> Option<String> {
        let mut domains = self.texts.keys().filter(|(it, _)| *it == Space::Domain);
        let (space, name) = domains.next()?;
        Some(self.tell(catalogue, *space, name, LONGEST_CHAIN))
    }

    fn within(&self, catalogue: &Catalogue, sql: &str, reason: &str, depth: u32) -> Option<String> {
        let (tokens, _) = lexer::tokens(sql.as_bytes(), true).ok()?;
        let words = words(sql, &tokens);
        let function = |name: &str| self.tell(catalogue, Space::Function, name, depth);
        Some(match reason {
            "function" => function(&culprit_function(catalogue, &words)?),
            "relation" => {
                let name = culprit_relation(catalogue, &words)?;
                self.tell(catalogue, Space::Relation, &name, depth)
            }
            "operator" => {
                let all = (0..words.len()).filter(|at| words.kind(*at) == Some(Kind::Operator));
                let mut signs = all.map(|at| words.raw(at));
                let sign = signs.find(|sign| !catalogue.operator(sign))?;
                let functions = catalogue.operators.get(sign);
                let unsafe_one = functions.and_then(|all| culprit_of(catalogue, all));
                match unsafe_one {
                    Some(name) => format!("operator {sign} calls {}", function(name)),
                    None => format!("there is no operator {sign}"),
                }
            }
            "type" | "cast" => {
                let mut names = (0..words.len()).filter_map(|at| words.name(at));
                let is_culprit = |name: &Cow<'_, str>| {
                    catalogue.types.contains_key(name.as_ref()) && !catalogue.cast(name)
                };
                let name = names.find(is_culprit)?;
                match culprit_cast(catalogue, &name) {
                    Some(called) => format!("a cast to type {name} calls {}", function(called)),
                    None => format!("type {name} is made of one that is not known to be harmless"),
                }
            }
            _ => return None,
        })
    }

    /// A name that is not proven, and why.
    fn tell(&self, catalogue: &Catalogue, space: Space, name: &str, depth: u32) -> String {
        let told = format!("{} {name}", space.word());
        let object = (space, name.to_owned());
        if let Some(note) = self.notes.get(&object) {
            return format!("{told}, which {note}");
        }
        let Some(texts) = self.texts.get(&object) else {
            let known = match space {
                Space::Function => catalogue.functions.contains_key(name),
                _ => catalogue.relations.contains_key(name),
            };
            return if known {
                format!(
                    "{told}, which is the server's own and may change something or tell of one server alone"
                )
            } else {
                format!("{told}, of which the database has none")
            };
        };
        let Some(depth) = depth.checked_sub(1) else {
            return told;
        };
        for text in texts {
            let (sql, proof) = match text {
                Text::Sql(sql) => (sql, prove::body(catalogue, sql)),
                Text::Procedure(sql) => (sql, procedure::prove(catalogue, sql)),
            };
            if let Err(reason) = proof {
                return match self.within(catalogue, sql, reason, depth) {
                    Some(inner) => format!("{told}, which uses {inner}"),
                    None => format!("{told}, whose definition is not proven ({reason})"),
                };
            }
        }
        told
    }
}

fn words<'a>(sql: &'a str, tokens: &'a [Token]) -> Words<'a> {
    Words { sql, tokens }
}

fn culprit_of<'a>(catalogue: &Catalogue, functions: &'a [String]) -> Option<&'a str> {
    let mut all = functions.iter();
    let found = all.find(|it| catalogue.function(it).is_none())?;
    Some(found)
}

/// The function that a cast to a type calls and that is not safe.
fn culprit_cast<'a>(catalogue: &'a Catalogue, name: &str) -> Option<&'a str> {
    let casts = catalogue.casts.get(name);
    let cast = casts.and_then(|all| culprit_of(catalogue, all));
    cast.or_else(|| {
        catalogue.types.get(name)?.iter().find_map(|need| {
            let Need::Function(function) = need else {
                return None;
            };
            culprit_of(catalogue, std::slice::from_ref(function))
        })
    })
}

fn culprit_function<'a>(catalogue: &Catalogue, words: &Words<'a>) -> Option<Cow<'a, str>> {
    let called = |at: &usize| words.mark(*at + 1, b'(');
    let names = || {
        (0..words.len())
            .filter(called)
            .filter_map(|at| words.name(at))
    };
    let known = names().find(|name| catalogue.is_unsafe_function(name));
    let field = || {
        let mut all = (0..words.len()).filter_map(|at| words.name(at));
        all.find(|name| catalogue.is_unsafe_field(name))
    };
    let unknown = || {
        names().find(|name| {
            NO_CALLS.binary_search(&name.as_ref()).is_err() && !catalogue.is_known(name)
        })
    };
    known.or_else(field).or_else(unknown)
}

fn culprit_relation<'a>(catalogue: &Catalogue, words: &Words<'a>) -> Option<Cow<'a, str>> {
    let introduced = |at: usize| {
        at.checked_sub(1).is_some_and(|before| {
            words.any(before, &["from", "join", "table", "only"])
                || words.mark(before, b',')
                || words.mark(before, b'.')
        })
    };
    let unsafe_one = |at: &usize| {
        let name = words.name(*at);
        name.is_some_and(|name| {
            catalogue.relations.contains_key(name.as_ref()) && catalogue.relation(&name).is_none()
        })
    };
    let all = || (0..words.len()).filter(unsafe_one);
    let known = all().find(|at| introduced(*at)).or_else(|| all().next());
    let unknown = || {
        (1..words.len()).find(|at| {
            let last = !words.mark(*at + 1, b'.') && !words.mark(*at + 1, b'(');
            let plain = |name: Cow<'_, str>| !catalogue.relations.contains_key(name.as_ref());
            let open = words.any(*at, &["lateral", "only", "rows", "select", "values"]);
            last && introduced(*at)
                && !open
                && words.any(at - 1, &["from", "join", "table", "only"])
                && words.name(*at).is_some_and(plain)
        })
    };
    words.name(known.or_else(unknown)?)
}
