//! Which functions and relations change their session through others that they name.
//!
//! By names, and by more of them than are truly called: a session that is pinned in vain only keeps
//! its connection. Invariant: whatever a body names that pins makes the body pin.

use std::collections::HashSet;

use super::Catalogue;
use crate::class::lexer;
use crate::class::walls::Words;

/// A function's source or a view's definition, as far as its names go.
#[derive(Debug)]
struct Body {
    name: String,
    is_relation: bool,
    /// Names with a parenthesis behind them.
    calls: HashSet<String>,
    /// All others.
    names: HashSet<String>,
}

/// Gathers bodies and what relations call.
#[derive(Debug, Default)]
pub(super) struct Pins {
    bodies: Vec<Body>,
    /// A relation, and a function that writing to it calls.
    touched: Vec<(String, String)>,
}

impl Pins {
    /// Takes a function's source.
    pub(super) fn function(&mut self, name: &str, source: &str) {
        self.body(name, false, source);
    }

    /// Takes a view's definition.
    pub(super) fn view(&mut self, name: &str, definition: &str) {
        self.body(name, true, definition);
    }

    /// A write to a relation calls a function.
    pub(super) fn touched(&mut self, relation: &str, function: &str) {
        let pair = (relation.to_owned(), function.to_owned());
        self.touched.push(pair);
    }

    fn body(&mut self, name: &str, is_relation: bool, text: &str) {
        // What cannot be read pins by itself, or never runs.
        let Ok((tokens, _)) = lexer::tokens(text.as_bytes(), true) else {
            return;
        };
        let words = Words {
            sql: text,
            tokens: &tokens,
        };
        let mut body = Body {
            name: name.to_owned(),
            is_relation,
            calls: HashSet::new(),
            names: HashSet::new(),
        };
        for at in 0..words.len() {
            let Some(name) = words.name(at) else { continue };
            let names = if words.mark(at + 1, b'(') {
                &mut body.calls
            } else {
                &mut body.names
            };
            names.insert(name.into_owned());
        }
        self.bodies.push(body);
    }

    /// Spreads what pins to what names it, until nothing changes.
    pub(super) fn spread(mut self, catalogue: &mut Catalogue) {
        loop {
            let mut changed = false;
            self.bodies.retain(|body| {
                let Some(reason) = reason(catalogue, body) else {
                    return true;
                };
                let pinning = if body.is_relation {
                    &mut catalogue.pinning_relations
                } else {
                    &mut catalogue.pinning
                };
                changed |= pinning.insert(body.name.clone(), reason).is_none();
                false
            });
            self.touched.retain(|(relation, function)| {
                let Some(reason) = catalogue.pinning(function) else {
                    return true;
                };
                let pinning = &mut catalogue.pinning_relations;
                changed |= pinning.insert(relation.clone(), reason).is_none();
                false
            });
            if !changed {
                return;
            }
        }
    }
}

fn reason(catalogue: &Catalogue, body: &Body) -> Option<&'static str> {
    let calls = body.calls.iter().find_map(|name| catalogue.pinning(name));
    let mut all = body.names.iter().chain(&body.calls);
    calls.or_else(|| all.find_map(|name| catalogue.pinning_relation(name)))
}
