//! The proof that a query only reads: its tokens are in order, and the tree that a parser makes of
//! them names only relations that the catalogue answers for.
//!
//! The parser never sees the text of a client, but one written anew from the tokens, with every
//! literal replaced and every doubtful name in quotes, so that it cuts it as the server does.
//! Functions are judged by tokens ([`super::walls`]), and once more in the tree. Invariant: a kind of
//! relation or expression that is not listed here is not proven.

use std::collections::HashSet;
use std::ops::ControlFlow;

use sqlparser::ast::{
    Expr, Function, FunctionArguments, ObjectName, Query, Select, SetExpr, Statement, TableFactor,
    Visit as _, Visitor,
};
use sqlparser::dialect::MySqlDialect;
use sqlparser::parser::Parser;

use super::Mode;
use super::builtin;
use super::catalogue::{self, Catalogue};
use super::lexer::{self, Kind};
use super::walls;
use super::words::Words;

/// Why something is not proven; a word that can label a metric.
pub(super) type Reason = &'static str;

/// How deep a query may nest in the parser.
const PARSER_DEPTH: usize = 60;
/// Words and operators of a query, of which the depth of its tree depends.
const MOST_WORDS: usize = 3_000;

/// What the proof of a query tells besides.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Proof {
    /// Something in it, or in a view it reads, tells the time.
    pub(super) uses_now: bool,
}

/// Proves that one statement, given by its tokens, is a query that only reads.
pub(super) fn query(
    catalogue: &Catalogue,
    words: &Words<'_>,
    schema: Option<&str>,
) -> Result<Proof, Reason> {
    query_blaming(catalogue, words, schema, &mut None)
}

/// The schema and the name of a relation that is not proven.
pub(super) type Culprit = Option<(String, String)>;

/// The same; where a relation is not proven, which one.
pub(super) fn query_blaming(
    catalogue: &Catalogue,
    words: &Words<'_>,
    schema: Option<&str>,
    culprit: &mut Culprit,
) -> Result<Proof, Reason> {
    walls::forbids_read(words, catalogue)?;
    let words = without_explain(words);
    if !words.any(0, &["select", "with", "values", "table"]) && !words.mark(0, b'(') {
        return Err("unproven");
    }
    if words.is(0, "table") {
        return table_statement(catalogue, &words, schema, culprit);
    }
    let text = rewritten(&words)?;
    let mut parser = Parser::new(&MySqlDialect {})
        .with_recursion_limit(PARSER_DEPTH)
        .try_with_sql(&text)
        .map_err(|_| "unproven")?;
    let statements = parser.parse_statements().map_err(|_| "unproven")?;
    let [Statement::Query(query)] = statements.as_slice() else {
        return Err("unproven");
    };
    let mut names = Names::default();
    let _ = query.visit(&mut names);
    let mut walk = Walk {
        catalogue,
        schema,
        names: names.0,
        proof: Proof::default(),
        culprit,
    };
    match query.visit(&mut walk) {
        ControlFlow::Break(reason) => Err(reason),
        ControlFlow::Continue(()) => Ok(walk.proof),
    }
}

/// Proves the definition of a view, as the server shows it: all names in it are qualified.
pub(super) fn definition(catalogue: &Catalogue, text: &str) -> Result<Proof, Reason> {
    let mode = Mode {
        legible: true,
        ..Mode::default()
    };
    let (tokens, notes) = lexer::tokens(text.as_bytes(), mode).map_err(|_| "unlexed")?;
    let words = Words {
        sql: text.as_bytes(),
        tokens: &tokens,
    };
    let flags = walls::flags(&words);
    let asks = flags.asks_last_insert_id || flags.asked.anything() || flags.may_set_last_insert_id;
    if notes.executable || notes.sets_by_hint || asks || flags.pin.is_some() {
        return Err("view");
    }
    let mut proof = query(catalogue, &words, None)?;
    proof.uses_now |= flags.uses_now;
    Ok(proof)
}

/// EXPLAIN of a query plans it only; of a table, it tells its columns.
fn without_explain<'a>(words: &Words<'a>) -> Words<'a> {
    if !words.any(0, &["explain", "describe", "desc"]) {
        return *words;
    }
    let mut at = 1;
    if words.any(at, &["extended", "partitions"]) {
        at += 1;
    } else if words.is(at, "format") && words.kind(at + 1) == Some(Kind::Mark(b'=')) {
        at += 3;
    }
    words.from(at)
}

/// `TABLE name`, alone, which the parser does not read.
fn table_statement(
    catalogue: &Catalogue,
    words: &Words<'_>,
    schema: Option<&str>,
    culprit: &mut Culprit,
) -> Result<Proof, Reason> {
    let (schema, name) = match words.len() {
        2 => (schema.map(Into::into), words.name(1)),
        4 if words.mark(2, b'.') => (words.name(1), words.name(3)),
        _ => return Err("unproven"),
    };
    let (schema, name) = (schema.ok_or("unknown-table")?, name.ok_or("unproven")?);
    let uses_now = catalogue.relation(&schema, &name);
    if uses_now.is_err() {
        *culprit = Some((schema.into_owned(), name.into_owned()));
    }
    Ok(Proof {
        uses_now: uses_now?,
    })
}

/// The statement once more, so that it is cut in one way only.
fn rewritten(words: &Words<'_>) -> Result<String, Reason> {
    let mut text = String::with_capacity(words.len() * 6);
    let mut weight = 0;
    for at in 0..words.len() {
        weight += usize::from(!matches!(
            words.kind(at),
            Some(Kind::Text | Kind::Number | Kind::Mark(b',' | b'(' | b')' | b'.'))
        ));
        if weight > MOST_WORDS {
            return Err("too-long");
        }
        let follows_text = at > 0 && words.kind(at - 1) == Some(Kind::Text);
        match words.kind(at).ok_or("unproven")? {
            // A literal that goes on.
            Kind::Text if follows_text => continue,
            Kind::Text => text.push_str("'s'"),
            Kind::Number | Kind::SystemVariable | Kind::Mark(b'?') => text.push('1'),
            Kind::Word if words.raw(at) == b"\\N" => text.push_str("NULL"),
            Kind::Word if introduces(words, at) => continue,
            Kind::Word if is_rollup(words, at) => continue,
            Kind::Word if operator(words, at).is_some() => {
                text.push_str(operator(words, at).unwrap_or_default());
            }
            Kind::Word | Kind::Quoted => name(words, at, &mut text)?,
            // What an operator does is not asked, only what stands around it.
            Kind::Mark(b'!') => text.push_str("NOT"),
            Kind::Mark(b'~') => text.push('-'),
            Kind::Mark(b'&' | b'|' | b'^') => text.push('+'),
            Kind::Mark(mark) => text.push(char::from(mark)),
            Kind::Operator => text.push_str(match words.raw(at) {
                b"&&" => "AND",
                b"||" => "OR",
                b"<<" | b">>" => "+",
                _ => words.text(at),
            }),
            Kind::UserVariable => return Err("user-variable"),
        }
        // Names are cut at dots by themselves; a blank would not do in all places.
        let dot = words.mark(at, b'.') || words.mark(at + 1, b'.');
        if !dot {
            text.push(' ');
        }
    }
    Ok(text)
}

/// `_utf8mb4'…'`: the character set of a literal.
fn introduces(words: &Words<'_>, at: usize) -> bool {
    words.raw(at).first() == Some(&b'_')
        && words.kind(at + 1) == Some(Kind::Text)
        && !words.follows_dot(at)
}

/// WITH ROLLUP behind GROUP BY.
fn is_rollup(words: &Words<'_>, at: usize) -> bool {
    let first = words.are(at, &["with", "rollup"]);
    let second = at > 0 && words.are(at - 1, &["with", "rollup"]);
    (first || second) && !words.follows_dot(at)
}

/// A word between two operands that the parser does not know, and one that it does.
fn operator(words: &Words<'_>, at: usize) -> Option<&'static str> {
    if words.follows_dot(at) || words.mark(at + 1, b'.') {
        return None;
    }
    if words.is(at, "xor") {
        return Some("OR");
    }
    let calls = words.mark(at + 1, b'(');
    (words.is(at, "mod") && !calls).then_some("%")
}

fn name(words: &Words<'_>, at: usize, text: &mut String) -> Result<(), Reason> {
    let raw = words.text(at);
    let plain = raw
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        && !raw.starts_with(|first: char| first.is_ascii_digit());
    if words.kind(at) == Some(Kind::Word) && plain && !words.follows_dot(at) {
        text.push_str(raw);
        return Ok(());
    }
    let name = words.name(at).ok_or("unproven")?;
    if name.is_empty() || name.contains(['`', '\\']) {
        return Err("unproven");
    }
    text.push('`');
    text.push_str(&name);
    text.push('`');
    Ok(())
}

/// All names that WITH gives.
#[derive(Default)]
struct Names(HashSet<String>);

impl Visitor for Names {
    type Break = ();

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        for cte in query.with.iter().flat_map(|with| &with.cte_tables) {
            self.0.insert(cte.alias.name.value.to_lowercase());
        }
        ControlFlow::Continue(())
    }
}

struct Walk<'a> {
    catalogue: &'a Catalogue,
    schema: Option<&'a str>,
    names: HashSet<String>,
    proof: Proof,
    culprit: &'a mut Culprit,
}

fn demand(holds: bool) -> ControlFlow<Reason> {
    if holds {
        ControlFlow::Continue(())
    } else {
        ControlFlow::Break("unproven")
    }
}

impl Walk<'_> {
    fn relation(&mut self, relation: &ObjectName) -> Result<bool, Reason> {
        let parts: Vec<_> = relation.0.iter().map(|part| part.as_ident()).collect();
        let (schema, name) = match parts.as_slice() {
            [Some(name)]
                if name.quote_style.is_none() && name.value.eq_ignore_ascii_case("dual") =>
            {
                return Ok(false);
            }
            [Some(name)] => {
                let given = self.names.contains(&name.value.to_lowercase());
                // Where a name of WITH holds is not looked for: a relation that is called so too
                // must be proven as well.
                let also = |schema| self.catalogue.knows(schema, &name.value);
                if given && !self.schema.is_some_and(also) {
                    return Ok(false);
                }
                (self.schema.ok_or("unknown-table")?, &name.value)
            }
            [Some(schema), Some(name)] => (schema.value.as_str(), &name.value),
            _ => return Err("unproven"),
        };
        // The bytes are of the client's character set, and the catalogue's are UTF-8.
        if !name.is_ascii() || (parts.len() > 1 && !schema.is_ascii()) {
            return Err("charset");
        }
        let found = self.catalogue.relation(schema, name);
        if found.is_err() {
            *self.culprit = Some((schema.to_owned(), name.clone()));
        }
        found
    }

    fn function(&mut self, function: &Function) -> Result<(), Reason> {
        let parts = function.name.0.as_slice();
        let last = parts.last().and_then(|part| part.as_ident());
        let last = last.filter(|_| parts.len() <= 2).ok_or("function")?;
        if self.catalogue.vouches_for(&last.value.to_lowercase()) {
            // Nobody has looked into it.
            self.proof.uses_now = true;
        } else if parts.len() > 1
            || last.quote_style.is_some()
            || !builtin::is_function(&last.value.to_ascii_lowercase())
        {
            return Err("function");
        }
        let plain = matches!(function.parameters, FunctionArguments::None)
            && !function.uses_odbc_syntax
            && function.filter.is_none();
        if plain { Ok(()) } else { Err("unproven") }
    }
}

fn stop(result: Result<(), Reason>) -> ControlFlow<Reason> {
    match result {
        Ok(()) => ControlFlow::Continue(()),
        Err(reason) => ControlFlow::Break(reason),
    }
}

impl Visitor for Walk<'_> {
    type Break = Reason;

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<Reason> {
        let Query {
            with: _,
            body,
            order_by: _,
            limit_clause: _,
            fetch: _,
            locks,
            for_clause,
            settings,
            format_clause,
            pipe_operators,
        } = query;
        if !locks.is_empty() {
            return ControlFlow::Break("locks");
        }
        demand(for_clause.is_none() && settings.is_none() && format_clause.is_none())?;
        demand(pipe_operators.is_empty())?;
        // What stands in a set operation is visited as a query's part, and not as a query.
        let mut bodies = vec![body.as_ref()];
        while let Some(body) = bodies.pop() {
            match body {
                SetExpr::Select(_) | SetExpr::Query(_) | SetExpr::Values(_) => {}
                SetExpr::SetOperation { left, right, .. } => bodies.extend([&**left, &**right]),
                _ => return ControlFlow::Break("unproven"),
            }
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<Reason> {
        if select.into.is_some() {
            return ControlFlow::Break("into");
        }
        demand(select.top.is_none() && select.lateral_views.is_empty())?;
        demand(select.prewhere.is_none() && select.connect_by.is_empty())?;
        demand(select.cluster_by.is_empty() && select.distribute_by.is_empty())?;
        demand(select.sort_by.is_empty() && select.qualify.is_none() && select.exclude.is_none())
    }

    fn pre_visit_relation(&mut self, relation: &ObjectName) -> ControlFlow<Reason> {
        match self.relation(relation) {
            Ok(uses_now) => {
                self.proof.uses_now |= uses_now;
                ControlFlow::Continue(())
            }
            Err(reason) => ControlFlow::Break(reason),
        }
    }

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<Reason> {
        match factor {
            TableFactor::Table {
                name,
                args,
                with_hints,
                version,
                json_path,
                sample,
                ..
            } => {
                if let [schema, _] = name.0.as_slice()
                    && let Some(schema) = schema.as_ident()
                {
                    let own = catalogue::own_schema(&schema.value);
                    if own.is_err() {
                        let name = name
                            .0
                            .last()
                            .and_then(|it| it.as_ident())
                            .map(|it| it.value.clone());
                        *self.culprit = Some((schema.value.clone(), name.unwrap_or_default()));
                    }
                    stop(own)?;
                }
                demand(args.is_none() && with_hints.is_empty() && version.is_none())?;
                demand(json_path.is_none() && sample.is_none())
            }
            TableFactor::Derived { sample, .. } => demand(sample.is_none()),
            TableFactor::NestedJoin { .. } => ControlFlow::Continue(()),
            _ => ControlFlow::Break("unproven"),
        }
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<Reason> {
        match expr {
            Expr::Function(function) => stop(self.function(function)),
            Expr::Identifier(_)
            | Expr::CompoundIdentifier(_)
            | Expr::IsFalse(_)
            | Expr::IsNotFalse(_)
            | Expr::IsTrue(_)
            | Expr::IsNotTrue(_)
            | Expr::IsNull(_)
            | Expr::IsNotNull(_)
            | Expr::IsUnknown(_)
            | Expr::IsNotUnknown(_)
            | Expr::InList { .. }
            | Expr::InSubquery { .. }
            | Expr::Between { .. }
            | Expr::BinaryOp { .. }
            | Expr::Like { .. }
            | Expr::RLike { .. }
            | Expr::AnyOp { .. }
            | Expr::AllOp { .. }
            | Expr::UnaryOp { .. }
            | Expr::Convert { .. }
            | Expr::Cast { .. }
            | Expr::Extract { .. }
            | Expr::Ceil { .. }
            | Expr::Floor { .. }
            | Expr::Position { .. }
            | Expr::Substring { .. }
            | Expr::Trim { .. }
            | Expr::Collate { .. }
            | Expr::Nested(_)
            | Expr::Value(_)
            | Expr::TypedString(_)
            | Expr::Case { .. }
            | Expr::Exists { .. }
            | Expr::Subquery(_)
            | Expr::Tuple(_)
            | Expr::Rollup(_)
            | Expr::Interval(_)
            | Expr::MatchAgainst { .. }
            | Expr::Wildcard(_)
            | Expr::QualifiedWildcard(..) => ControlFlow::Continue(()),
            _ => ControlFlow::Break("unproven"),
        }
    }
}
