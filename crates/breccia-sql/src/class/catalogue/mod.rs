//! What the database's own catalogue says about the names a query may hold.
//!
//! Not a copy of the catalogue: objects are known by name only, without schema or signature.
//! Invariant: a name is safe only if every object that bears it is safe.

mod blame;
mod build;
mod builtin;
mod pins;
mod procedure;
mod queries;

pub use blame::Blame;
pub use build::CatalogueBuilder;
pub use queries::QUERIES;

use std::collections::{HashMap, HashSet};

/// The objects that bear one name.
#[derive(Debug, Clone, Copy, Default)]
struct Standing {
    /// How many of them are not proven.
    unproven: u32,
    /// Some of them tells when its transaction began.
    uses_now: bool,
}

/// A name that is safe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Answer {
    /// It tells when its transaction began.
    pub(super) uses_now: bool,
}

/// What a cast to a type may call.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Need {
    Nothing,
    Function(String),
    /// What a domain, a row or a range is made of.
    Types(Vec<String>),
    Denied,
}

/// How many types may be made of each other: names may go round in circles.
const TYPE_DEPTH: u32 = 8;

/// What is known of a database's objects.
#[derive(Debug, Default)]
pub struct Catalogue {
    functions: HashMap<String, Standing>,
    relations: HashMap<String, Standing>,
    /// Operators by name, with the functions of those users defined.
    operators: HashMap<String, Vec<String>>,
    types: HashMap<String, Vec<Need>>,
    /// Functions of casts users defined, by the type they lead to.
    casts: HashMap<String, Vec<String>>,
    /// Those of them the server calls by itself.
    implicit_casts: Vec<String>,
    /// Functions that may be called as `t.f`.
    fields: HashSet<String>,
    /// Functions that change their session, by themselves or through what they call and write to.
    pinning: HashMap<String, &'static str>,
    /// Functions and procedures that change the catalogue.
    changing: HashSet<String>,
    /// Relations that do so when they are read or written to: views, and tables with triggers,
    /// defaults or rules.
    pinning_relations: HashMap<String, &'static str>,
    /// Functions that no query names and the server calls by itself.
    called_unnamed: Vec<String>,
    /// Domains whose checks are not proven: any value may be held against them.
    unproven_domains: u32,
    /// A row could not be read.
    doubt: Option<&'static str>,
    /// Proofs may take implicit casts and basic operators for safe: if they are not, no read is
    /// proven in the end.
    building: bool,
}

fn answer(names: &HashMap<String, Standing>, name: &str) -> Option<Answer> {
    let standing = names.get(name)?;
    (standing.unproven == 0).then_some(Answer {
        uses_now: standing.uses_now,
    })
}

impl Catalogue {
    /// What makes every read doubtful, if anything does.
    pub(super) fn ambient(&self) -> Result<(), &'static str> {
        if self.building {
            return Ok(());
        }
        if let Some(doubt) = self.doubt {
            return Err(doubt);
        }
        if self.casts_unsafe() {
            return Err("cast");
        }
        if self.unproven_domains > 0 {
            return Err("domain");
        }
        let unnamed = &self.called_unnamed;
        if unnamed.iter().any(|name| self.function(name).is_none()) {
            return Err("operator-class");
        }
        let basic = builtin::BASIC_OPERATORS
            .iter()
            .all(|name| self.operator(name));
        if basic { Ok(()) } else { Err("operator") }
    }

    /// A cast that the server applies by itself calls a function that is not safe.
    pub fn casts_unsafe(&self) -> bool {
        self.implicit_casts
            .iter()
            .any(|function| self.function(function).is_none())
    }

    /// How many names of relations are known.
    pub fn relations_len(&self) -> usize {
        self.relations.len()
    }

    pub(super) fn function(&self, name: &str) -> Option<Answer> {
        answer(&self.functions, name)
    }

    /// A function of this name exists and is not safe.
    pub(super) fn is_unsafe_function(&self, name: &str) -> bool {
        self.functions
            .get(name)
            .is_some_and(|standing| standing.unproven > 0)
    }

    /// A function of this name is not safe and could be called in the notation of a column.
    pub(super) fn is_unsafe_field(&self, name: &str) -> bool {
        self.fields.contains(name) && self.function(name).is_none()
    }

    pub(super) fn relation(&self, name: &str) -> Option<Answer> {
        answer(&self.relations, name)
    }

    pub(super) fn operator(&self, name: &str) -> bool {
        let name = match name {
            // Part of the syntax of arguments, never an operator.
            "=>" => return true,
            "!=" => "<>",
            _ => name,
        };
        self.operators.get(name).is_some_and(|functions| {
            functions
                .iter()
                .all(|function| self.function(function).is_some())
        })
    }

    /// A cast to a type of this name is safe.
    pub(super) fn cast(&self, name: &str) -> bool {
        self.cast_within(name, TYPE_DEPTH)
    }

    fn cast_within(&self, name: &str, depth: u32) -> bool {
        let (Some(needs), Some(depth)) = (self.types.get(name), depth.checked_sub(1)) else {
            return false;
        };
        let types = needs.iter().all(|need| match need {
            Need::Nothing => true,
            Need::Function(function) => self.function(function).is_some(),
            Need::Types(parts) => parts.iter().all(|part| self.cast_within(part, depth)),
            Need::Denied => false,
        });
        let casts = self.casts.get(name).is_none_or(|functions| {
            functions
                .iter()
                .all(|function| self.function(function).is_some())
        });
        types && casts
    }

    /// A call of this function changes the catalogue.
    pub(super) fn changes(&self, name: &str) -> bool {
        self.changing.contains(name)
    }

    /// Why a call of this function pins its session, if it does.
    pub(super) fn pinning(&self, name: &str) -> Option<&'static str> {
        self.pinning.get(name).copied()
    }

    /// Why reading or writing this relation pins its session, if it does.
    pub(super) fn pinning_relation(&self, name: &str) -> Option<&'static str> {
        self.pinning_relations.get(name).copied()
    }

    /// Whether a text that cannot be read may name something that pins.
    pub(super) fn mentions_pinning(&self, text: &str) -> bool {
        let text = text.to_ascii_lowercase();
        let mut names = self.pinning.keys().chain(self.pinning_relations.keys());
        names.any(|name| text.contains(&name.to_ascii_lowercase()))
    }

    /// Whether there is a function or a relation of this name.
    pub(super) fn is_known(&self, name: &str) -> bool {
        self.functions.contains_key(name) || self.relations.contains_key(name)
    }

    /// Why this operator pins its session, if it does.
    pub(super) fn pinning_operator(&self, name: &str) -> Option<&'static str> {
        let functions = self.operators.get(name)?;
        functions.iter().find_map(|name| self.pinning(name))
    }
}
