//! Builds a catalogue from the rows of its queries.
//!
//! Not the asking: rows come from whoever holds a connection. Invariant: a view, a function in SQL
//! or a relation with policies becomes safe only by a proof that rests on names proven before it,
//! so a cycle stays unproven.

use super::blame::{Blame, Space, Text};
use super::pins::Pins;
use super::{Catalogue, Need, Standing};
use super::{builtin, procedure};
use crate::class::lexer;
use crate::class::walls::Words;
use crate::class::{prove, walls};
use std::collections::{BTreeSet, HashMap, HashSet};

/// A row's columns.
type Columns<'a> = &'a [Option<&'a str>];

/// An object that is safe if all its texts are proven.
#[derive(Debug)]
struct Pending {
    space: Space,
    name: String,
    texts: Vec<Text>,
    uses_now: bool,
}

#[derive(Debug)]
struct Relation {
    name: String,
    /// Its kind and that of all its children can be read on a replica.
    readable: bool,
    row_security: bool,
    view: Option<String>,
    /// Functions that planning a query of it may call.
    folded: BTreeSet<String>,
}

/// Gathers the rows of [`super::QUERIES`].
#[derive(Debug, Default)]
pub struct CatalogueBuilder {
    catalogue: Catalogue,
    allowed: HashSet<String>,
    relations: HashMap<String, Relation>,
    children: Vec<(String, String)>,
    policies: HashMap<String, Vec<Option<String>>>,
    pending: Vec<Pending>,
    pins: Pins,
    touched: Vec<(String, String)>,
    /// For people who ask why something is not proven.
    blame: Blame,
}

fn is_true(column: &str) -> bool {
    column == "true"
}

/// The statements of a function in SQL. A body of the standard's kind stands at the end of its
/// definition: `RETURN expression`, or `BEGIN ATOMIC statements; END`.
fn statements_of(source: String) -> String {
    if !source.starts_with("CREATE OR REPLACE FUNCTION ") {
        return source;
    }
    let Ok((tokens, _)) = lexer::tokens(source.as_bytes(), true) else {
        return source;
    };
    let words = Words {
        sql: &source,
        tokens: &tokens,
    };
    let last = words.len().saturating_sub(1);
    let mut depth = 0_u32;
    for at in 0..words.len() {
        if words.mark(at, b'(') {
            depth += 1;
        } else if words.mark(at, b')') {
            depth = depth.saturating_sub(1);
        } else if depth == 0 && words.is(at, "return") {
            return format!("SELECT {}", words.span(at + 1, last));
        } else if depth == 0 && words.are(at, &["begin", "atomic"]) && words.is(last, "end") {
            return words.span(at + 2, last - 1).to_owned();
        }
    }
    source
}

/// A query that is proven exactly if the functions of this name are.
fn call(function: &str) -> String {
    format!("SELECT \"{}\"()", function.replace('"', "\"\""))
}

impl CatalogueBuilder {
    /// An empty builder.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the functions of this name for safe, whatever their language and body, unless the server
    /// brought them along; before any row.
    pub fn allow_function(&mut self, name: &str) {
        self.allowed.insert(name.to_owned());
    }

    /// Takes a row of the query of this number. A row it cannot read makes every read doubtful.
    pub fn row(&mut self, query: usize, columns: &[Option<&str>]) {
        let read = match query {
            0 => self.function(columns),
            1 => self.relation(columns),
            2 => self.child(columns),
            3 => self.policy(columns),
            4 => self.operator(columns),
            5 => self.data_type(columns),
            6 => self.cast(columns),
            7 => self.called_unnamed(columns),
            8 => self.folded(columns),
            9 => self.touched(columns),
            _ => None,
        };
        if read.is_none() {
            self.catalogue.doubt = Some("catalogue");
        }
    }

    fn function(&mut self, columns: Columns<'_>) -> Option<()> {
        let &[
            Some(name),
            Some(builtin),
            Some(language),
            Some(volatility),
            source,
            Some(keeps_settings),
            defaults,
            extension,
            Some(field_like),
        ] = columns
        else {
            return None;
        };
        let builtin = is_true(builtin);
        if is_true(field_like) && !builtin {
            self.catalogue.fields.insert(name.to_owned());
        }
        let allowed = !builtin && self.allowed.contains(name);
        if !builtin && !allowed {
            self.note_pins(name, language, source);
        }
        let still = matches!(volatility, "i" | "s");
        let known = matches!(language, "c" | "internal" | "sql")
            && extension.is_some_and(builtin::is_known_extension);
        let safe = if builtin {
            (still || builtin::is_harmless(name))
                && !builtin::is_denied(name)
                && !builtin::is_input(name)
        } else {
            allowed || (still && known && !builtin::is_denied(name))
        };
        let standing = self.catalogue.functions.entry(name.to_owned()).or_default();
        if safe {
            return Some(());
        }
        standing.unproven += 1;
        let by_itself = match language {
            _ if builtin => None,
            "sql" | "plpgsql" if !still => Some("is VOLATILE"),
            "sql" | "plpgsql" if !is_true(keeps_settings) => Some("has a SET clause"),
            "sql" | "plpgsql" => None,
            _ => Some("is in a language that is not read here"),
        };
        if let Some(why) = by_itself {
            self.blame.note(Space::Function, name, why);
        }
        let source = source.unwrap_or_default().to_owned();
        let text = match language {
            "sql" => Text::Sql(statements_of(source)),
            "plpgsql" => Text::Procedure(source),
            _ => return Some(()),
        };
        if !builtin && still && is_true(keeps_settings) {
            let defaults = defaults.map(|defaults| Text::Sql(format!("SELECT {defaults}")));
            let texts = std::iter::once(text).chain(defaults).collect();
            self.leave(Space::Function, name, texts);
        }
        Some(())
    }

    /// Notes what a function of users does to its session.
    fn note_pins(&mut self, name: &str, language: &str, source: Option<&str>) {
        let reason = match (source, language) {
            (Some(source), _) => {
                self.pins.function(name, source);
                walls::body_pins(source)
            }
            // Made by superusers, and known by their names where they change a session.
            (None, "c" | "internal") => None,
            // Nobody reads that language here.
            (None, _) => Some("routine"),
        };
        if let Some(reason) = reason {
            self.catalogue.pinning.insert(name.to_owned(), reason);
        }
        if source.is_some_and(walls::body_changes) {
            self.catalogue.changing.insert(name.to_owned());
        }
    }

    fn touched(&mut self, columns: Columns<'_>) -> Option<()> {
        let &[Some(relation), Some(function)] = columns else {
            return None;
        };
        self.touched
            .push((relation.to_owned(), function.to_owned()));
        Some(())
    }

    /// Leaves an object to be proven once all rows are in.
    fn leave(&mut self, space: Space, name: &str, texts: Vec<Text>) {
        self.pending.push(Pending {
            space,
            name: name.to_owned(),
            texts,
            uses_now: false,
        });
    }

    fn called_unnamed(&mut self, columns: Columns<'_>) -> Option<()> {
        let &[Some(function), Some(_)] = columns else {
            return None;
        };
        self.catalogue.called_unnamed.push(function.to_owned());
        Some(())
    }

    fn folded(&mut self, columns: Columns<'_>) -> Option<()> {
        let &[Some(relation), Some(function)] = columns else {
            return None;
        };
        if let Some(relation) = self.relations.get_mut(relation) {
            relation.folded.insert(function.to_owned());
        }
        Some(())
    }

    fn relation(&mut self, columns: Columns<'_>) -> Option<()> {
        let &[
            Some(oid),
            Some(name),
            Some(system),
            Some(kind),
            Some(persistence),
            Some(rows),
            view,
        ] = columns
        else {
            return None;
        };
        let plain = persistence == "p";
        let readable = match kind {
            "r" | "p" | "m" => plain,
            "v" => !is_true(system) && view.is_some(),
            // What a TOAST table is called no query says.
            "t" => return Some(()),
            _ => false,
        };
        if let Some(why) = match (kind, persistence) {
            ("S", _) => Some("is a sequence"),
            ("f", _) => Some("is a foreign table"),
            ("v", _) if is_true(system) => Some("shows the server's own state"),
            (_, "u") => Some("is unlogged"),
            (_, "t") => Some("is temporary"),
            _ => None,
        } {
            self.blame.note(Space::Relation, name, why);
        }
        let relation = Relation {
            name: name.to_owned(),
            readable,
            row_security: is_true(rows),
            view: view.filter(|_| kind == "v").map(str::to_owned),
            folded: BTreeSet::new(),
        };
        self.relations.insert(oid.to_owned(), relation);
        Some(())
    }

    fn child(&mut self, columns: Columns<'_>) -> Option<()> {
        let &[Some(parent), Some(child)] = columns else {
            return None;
        };
        self.children.push((parent.to_owned(), child.to_owned()));
        Some(())
    }

    fn policy(&mut self, columns: Columns<'_>) -> Option<()> {
        let &[Some(relation), condition] = columns else {
            return None;
        };
        let condition = condition.map(|condition| format!("SELECT {condition}"));
        self.policies
            .entry(relation.to_owned())
            .or_default()
            .push(condition);
        Some(())
    }

    fn operator(&mut self, columns: Columns<'_>) -> Option<()> {
        let &[Some(name), Some(builtin), function] = columns else {
            return None;
        };
        let functions = self.catalogue.operators.entry(name.to_owned()).or_default();
        if !is_true(builtin) {
            // A name no function has, for an operator that is only a shell.
            functions.push(function.unwrap_or_default().to_owned());
        }
        Some(())
    }

    fn data_type(&mut self, columns: Columns<'_>) -> Option<()> {
        let &[Some(name), Some(builtin), Some(kind), input, checks, parts] = columns else {
            return None;
        };
        let parts = parts.unwrap_or_default().lines().map(str::to_owned);
        let need = match (kind, input) {
            ("e", _) => Need::Nothing,
            _ if is_true(builtin) => Need::Nothing,
            ("b", Some(input)) => Need::Function(input.to_owned()),
            ("c" | "d" | "r", _) => Need::Types(parts.collect()),
            _ => Need::Denied,
        };
        if let Some(checks) = checks {
            self.catalogue.unproven_domains += 1;
            let text = Text::Sql(format!("SELECT {checks}"));
            self.leave(Space::Domain, name, vec![text]);
        }
        let needs = self.catalogue.types.entry(name.to_owned()).or_default();
        if need != Need::Nothing || needs.is_empty() {
            needs.push(need);
        }
        Some(())
    }

    fn cast(&mut self, columns: Columns<'_>) -> Option<()> {
        let &[Some(context), Some(function), Some(target)] = columns else {
            return None;
        };
        // Whatever makes JSON of a value looks for such a cast by itself.
        if context != "e" || matches!(target, "json" | "jsonb") {
            self.catalogue.implicit_casts.push(function.to_owned());
        }
        let functions = self.catalogue.casts.entry(target.to_owned()).or_default();
        functions.push(function.to_owned());
        Some(())
    }

    /// The catalogue, once all rows are in.
    pub fn finish(self) -> Catalogue {
        self.finish_blaming().0
    }

    /// The same, and why names are not proven.
    pub fn finish_blaming(mut self) -> (Catalogue, Blame) {
        self.spread_from_children();
        self.spread_pins();
        self.place_relations();
        self.catalogue.building = true;
        for object in self.prove_pending() {
            let texts = self.blame.texts.entry((object.space, object.name));
            texts.or_insert(object.texts);
        }
        self.catalogue.building = false;
        (self.catalogue, self.blame)
    }

    fn spread_pins(&mut self) {
        let mut pins = std::mem::take(&mut self.pins);
        for relation in self.relations.values() {
            if let Some(view) = &relation.view {
                pins.view(&relation.name, view);
            }
        }
        for (relation, function) in &self.touched {
            if let Some(relation) = self.relations.get(relation) {
                pins.touched(&relation.name, function);
            }
        }
        for (parent, child) in &self.children {
            // Writing to a parent may write to its children.
            let (parent, child) = (self.relations.get(parent), self.relations.get(child));
            if let (Some(parent), Some(child)) = (parent, child) {
                let quoted = child.name.replace('"', "\"\"");
                pins.view(&parent.name, &format!("\"{quoted}\""));
            }
        }
        pins.spread(&mut self.catalogue);
    }

    /// Reading a parent reads its children; what is loaded of a partition has its parent's key.
    fn spread_from_children(&mut self) {
        loop {
            let mut changed = false;
            for (parent, child) in &self.children {
                let folded = |oid: &str| match self.relations.get(oid) {
                    Some(relation) => relation.folded.clone(),
                    None => BTreeSet::new(),
                };
                let (above, below) = (folded(parent), folded(child));
                let readable = self.relations.get(child).is_none_or(|child| child.readable);
                if let Some(child) = self.relations.get_mut(child) {
                    changed |= !above.is_subset(&below);
                    child.folded.extend(above.iter().cloned());
                }
                if let Some(parent) = self.relations.get_mut(parent) {
                    changed |= !below.is_subset(&above) || (parent.readable && !readable);
                    parent.folded.extend(below);
                    parent.readable &= readable;
                }
            }
            if !changed {
                return;
            }
        }
    }

    fn place_relations(&mut self) {
        for (oid, relation) in std::mem::take(&mut self.relations) {
            let policies = match self.policies.remove(&oid) {
                Some(policies) if relation.row_security => policies,
                _ => Vec::new(),
            };
            let standing = self
                .catalogue
                .relations
                .entry(relation.name.clone())
                .or_default();
            let calls = relation.folded.iter().map(|function| call(function));
            let texts: Vec<_> = relation
                .view
                .into_iter()
                .chain(policies.into_iter().flatten())
                .chain(calls)
                .map(Text::Sql)
                .collect();
            if relation.readable && texts.is_empty() {
                continue;
            }
            standing.unproven += 1;
            if relation.readable {
                self.leave(Space::Relation, &relation.name, texts);
            } else {
                let why = "has a child that only the primary can read";
                self.blame.note(Space::Relation, &relation.name, why);
            }
        }
    }

    /// Proves what can be proven, until a round proves nothing more; what is left.
    fn prove_pending(&mut self) -> Vec<Pending> {
        let mut pending = std::mem::take(&mut self.pending);
        let mut never = Vec::new();
        loop {
            let before = pending.len();
            let mut proven = 0_usize;
            let mut left = Vec::with_capacity(before);
            for mut object in pending {
                match self.prove(&mut object) {
                    Ok(()) => {
                        self.accept(&object);
                        proven += 1;
                    }
                    // No later proof changes what the text itself says.
                    Err("unparsed" | "write" | "locks" | "into" | "too-long" | "too-deep") => {
                        never.push(object);
                    }
                    Err(_) => left.push(object),
                }
            }
            pending = left;
            if proven == 0 || pending.is_empty() {
                never.append(&mut pending);
                return never;
            }
        }
    }

    fn prove(&self, object: &mut Pending) -> Result<(), &'static str> {
        for text in &object.texts {
            let proof = match text {
                Text::Sql(text) => prove::body(&self.catalogue, text)?,
                Text::Procedure(text) => procedure::prove(&self.catalogue, text)?,
            };
            object.uses_now |= proof.uses_now;
        }
        Ok(())
    }

    fn accept(&mut self, object: &Pending) {
        let names: &mut HashMap<String, Standing> = match object.space {
            Space::Function => &mut self.catalogue.functions,
            Space::Relation => &mut self.catalogue.relations,
            Space::Domain => {
                let unproven = &mut self.catalogue.unproven_domains;
                *unproven = unproven.saturating_sub(1);
                return;
            }
        };
        if let Some(standing) = names.get_mut(&object.name) {
            standing.unproven = standing.unproven.saturating_sub(1);
            standing.uses_now |= object.uses_now;
        }
    }
}
