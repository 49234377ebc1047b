//! The proof that a query only reads: an explicit walk over all of its tree.
//!
//! Not a visitor with defaults: each field of a query is named here, so that a new one of the
//! parser does not compile until it is judged. Invariant: `Ok` means that every relation,
//! function, type and operator of the query was asked about and answered.

use super::catalogue::Catalogue;
use super::lexer::{self, Kind};
use super::types;
use super::walls::{self, Words};
use sqlparser::ast::{
    Cte, Distinct, Fetch, FunctionArg, GroupByExpr, GroupByWithModifier, Ident, Join,
    JoinConstraint, JoinOperator, LimitClause, ObjectName, OrderBy, OrderByExpr, OrderByKind,
    Query, Select, SelectFlavor, SelectItem, SelectItemQualifiedWildcardKind, SetExpr,
    SetQuantifier, Statement, TableAlias, TableFactor, TableSampleKind, TableSampleMethod,
    TableWithJoins, WildcardAdditionalOptions, With,
};
use sqlparser::dialect::PostgreSqlDialect;
use sqlparser::parser::Parser;

/// Why something is not proven; a word that can label a metric.
pub(super) type Reason = &'static str;

/// What the proof of a query tells besides.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Proof {
    /// Something in it tells when the transaction began.
    pub(super) uses_now: bool,
}

/// How deep a query may nest in the parser, and its tree here.
const PARSER_DEPTH: usize = 60;
pub(super) const TREE_DEPTH: u32 = 150;

pub(super) struct Prover<'a> {
    pub(super) catalogue: &'a Catalogue,
    pub(super) scope: Vec<String>,
    pub(super) depth: u32,
    pub(super) proof: Proof,
}

/// Proves that one statement, given by its tokens, is a query that only reads.
pub(super) fn query(catalogue: &Catalogue, words: &Words<'_>) -> Result<Proof, Reason> {
    walls::forbids_read(words)?;
    let mut prover = Prover {
        catalogue,
        scope: Vec::new(),
        depth: 0,
        proof: Proof::default(),
    };
    prover.proof.uses_now = walls::uses_now(words);
    catalogue.ambient()?;
    for at in 0..words.len() {
        if words.kind(at) == Some(Kind::Operator) && !catalogue.operator(words.raw(at)) {
            return Err("operator");
        }
    }
    if words.is(0, "table") {
        prover.table_statement(words)?;
        return Ok(prover.proof);
    }
    // The parser sees the masked text: no literal of a client can lead it astray.
    let mut key = Vec::new();
    let text = without_idle_words(words);
    lexer::mask(text.as_bytes(), true, &mut key).map_err(|_| "unparsed")?;
    let key = std::str::from_utf8(&key).map_err(|_| "unparsed")?;
    let mut parser = Parser::new(&PostgreSqlDialect {})
        .with_recursion_limit(PARSER_DEPTH)
        .try_with_sql(key)
        .map_err(|_| "unparsed")?;
    let statements = parser.parse_statements().map_err(|_| "unparsed")?;
    match statements.as_slice() {
        [Statement::Query(query)] => prover.query(query)?,
        _ => return Err("unparsed"),
    }
    Ok(prover.proof)
}

/// The text without what the parser does not read everywhere and no proof needs: the names of
/// collations, and the literals that go on with the one before them.
fn without_idle_words(words: &Words<'_>) -> String {
    let mut text = String::new();
    let mut at = 0;
    while at < words.len() {
        let follows_dot = at > 0 && words.mark(at - 1, b'.');
        // Behind AS or a dot it is a name itself.
        if words.is(at, "collate") && !follows_dot && !(at > 0 && words.is(at - 1, "as")) {
            at += 2;
            while words.mark(at, b'.') {
                at += 2;
            }
            text.push(' ');
            continue;
        }
        text.push_str(if words.continues(at) {
            ""
        } else {
            words.raw(at)
        });
        text.push_str(words.gap(at).unwrap_or_default());
        at += 1;
    }
    text
}

/// Proves all statements of the body of a function in SQL, or of other text of the catalogue.
pub(super) fn body(catalogue: &Catalogue, text: &str) -> Result<Proof, Reason> {
    let (tokens, _) = lexer::tokens(text.as_bytes(), true).map_err(|_| "unparsed")?;
    let words = Words {
        sql: text,
        tokens: &tokens,
    };
    let statements = words.statements();
    if statements.is_empty() || walls::pin(&words).is_some() {
        return Err("unparsed");
    }
    let mut proof = Proof::default();
    for statement in statements {
        if !statement.mark(0, b'(') && !statement.any(0, &["select", "values", "with", "table"]) {
            return Err("write");
        }
        proof.uses_now |= query(catalogue, &statement)?.uses_now;
    }
    Ok(proof)
}

fn demand(holds: bool) -> Result<(), Reason> {
    if holds { Ok(()) } else { Err("unparsed") }
}

impl Prover<'_> {
    /// `TABLE [ONLY] name`, which the parser does not read.
    fn table_statement(&mut self, words: &Words<'_>) -> Result<(), Reason> {
        let first = if words.is(1, "only") { 2 } else { 1 };
        for at in first..words.len() {
            let named = (at - first) % 2 == 0;
            demand(if named {
                words.name(at).is_some()
            } else {
                words.mark(at, b'.')
            })?;
        }
        demand(words.len() > first && (words.len() - first) % 2 == 1)?;
        let name = words.name(words.len() - 1).ok_or("unparsed")?;
        self.relation_named(&name)
    }

    pub(super) fn query(&mut self, query: &Query) -> Result<(), Reason> {
        let Query {
            with,
            body,
            order_by,
            limit_clause,
            fetch,
            locks,
            for_clause,
            settings,
            format_clause,
            pipe_operators,
        } = query;
        if !locks.is_empty() {
            return Err("locks");
        }
        demand(for_clause.is_none() && settings.is_none() && format_clause.is_none())?;
        demand(pipe_operators.is_empty())?;
        self.enter()?;
        let scope = self.scope.len();
        if let Some(with) = with {
            self.with(with)?;
        }
        self.set_expr(body)?;
        if let Some(order_by) = order_by {
            self.order_by(order_by)?;
        }
        if let Some(limit) = limit_clause {
            self.limit(limit)?;
        }
        if let Some(Fetch {
            with_ties: _,
            percent,
            quantity,
        }) = fetch
        {
            demand(!percent)?;
            self.optional(quantity.as_ref())?;
        }
        self.scope.truncate(scope);
        self.leave();
        Ok(())
    }

    pub(super) fn enter(&mut self) -> Result<(), Reason> {
        self.depth += 1;
        if self.depth > TREE_DEPTH {
            Err("too-deep")
        } else {
            Ok(())
        }
    }

    pub(super) fn leave(&mut self) {
        self.depth -= 1;
    }

    fn with(&mut self, with: &With) -> Result<(), Reason> {
        let With {
            with_token: _,
            recursive,
            cte_tables,
        } = with;
        if *recursive {
            for cte in cte_tables {
                self.scope.push(cte.alias.name.value.clone());
            }
        }
        for cte in cte_tables {
            let Cte {
                alias,
                query,
                from,
                materialized: _,
                closing_paren_token: _,
            } = cte;
            demand(from.is_none())?;
            self.alias(alias)?;
            self.query(query)?;
            if !recursive {
                self.scope.push(alias.name.value.clone());
            }
        }
        Ok(())
    }

    fn set_expr(&mut self, body: &SetExpr) -> Result<(), Reason> {
        self.enter()?;
        match body {
            SetExpr::Select(select) => self.select(select)?,
            SetExpr::Query(query) => self.query(query)?,
            SetExpr::SetOperation {
                left,
                op: _,
                set_quantifier,
                right,
            } => {
                demand(matches!(
                    set_quantifier,
                    SetQuantifier::All | SetQuantifier::Distinct | SetQuantifier::None
                ))?;
                self.set_expr(left)?;
                self.set_expr(right)?;
            }
            SetExpr::Values(values) => {
                for row in &values.rows {
                    self.all(&row.content)?;
                }
            }
            SetExpr::Table(table) => {
                self.relation_named(table.table_name.as_deref().ok_or("unparsed")?)?;
            }
            SetExpr::Insert(_) | SetExpr::Update(_) | SetExpr::Delete(_) | SetExpr::Merge(_) => {
                return Err("write");
            }
        }
        self.leave();
        Ok(())
    }

    fn select(&mut self, select: &Select) -> Result<(), Reason> {
        let Select {
            select_token: _,
            optimizer_hints,
            distinct,
            select_modifiers,
            top,
            top_before_distinct: _,
            projection,
            exclude,
            into,
            from,
            lateral_views,
            prewhere,
            selection,
            connect_by,
            group_by,
            cluster_by,
            distribute_by,
            sort_by,
            having,
            named_window,
            qualify,
            window_before_qualify: _,
            value_table_mode,
            flavor,
        } = select;
        if into.is_some() {
            return Err("into");
        }
        demand(optimizer_hints.is_empty() && select_modifiers.is_none() && top.is_none())?;
        demand(exclude.is_none() && lateral_views.is_empty() && prewhere.is_none())?;
        demand(connect_by.is_empty() && cluster_by.is_empty() && distribute_by.is_empty())?;
        demand(sort_by.is_empty() && qualify.is_none() && value_table_mode.is_none())?;
        demand(matches!(flavor, SelectFlavor::Standard))?;
        if let Some(Distinct::On(expressions)) = distinct {
            self.all(expressions)?;
        }
        for item in projection {
            self.item(item)?;
        }
        for table in from {
            self.joined(table)?;
        }
        self.optional(selection.as_ref())?;
        self.group_by(group_by)?;
        self.optional(having.as_ref())?;
        for definition in named_window {
            self.named_window(definition)?;
        }
        Ok(())
    }

    fn item(&mut self, item: &SelectItem) -> Result<(), Reason> {
        match item {
            SelectItem::UnnamedExpr(expr) => self.expr(expr),
            SelectItem::ExprWithAlias { expr, alias } => {
                label(alias)?;
                self.expr(expr)
            }
            SelectItem::ExprWithAliases { .. } => Err("unparsed"),
            SelectItem::QualifiedWildcard(kind, options) => {
                plain_wildcard(options)?;
                match kind {
                    SelectItemQualifiedWildcardKind::ObjectName(_) => Ok(()),
                    SelectItemQualifiedWildcardKind::Expr(expr) => self.expr(expr),
                }
            }
            SelectItem::Wildcard(options) => plain_wildcard(options),
        }
    }

    fn group_by(&mut self, group_by: &GroupByExpr) -> Result<(), Reason> {
        let (expressions, modifiers): (&[_], _) = match group_by {
            GroupByExpr::All(modifiers) => (&[], modifiers),
            GroupByExpr::Expressions(expressions, modifiers) => (expressions, modifiers),
        };
        for modifier in modifiers {
            match modifier {
                GroupByWithModifier::GroupingSets(expr) => self.expr(expr)?,
                _ => return Err("unparsed"),
            }
        }
        self.all(expressions)
    }

    fn order_by(&mut self, order_by: &OrderBy) -> Result<(), Reason> {
        let OrderBy { kind, interpolate } = order_by;
        demand(interpolate.is_none())?;
        match kind {
            OrderByKind::Expressions(expressions) => self.ordering(expressions),
            OrderByKind::All(_) => Err("unparsed"),
        }
    }

    pub(super) fn ordering(&mut self, expressions: &[OrderByExpr]) -> Result<(), Reason> {
        for OrderByExpr {
            expr,
            options: _,
            with_fill,
        } in expressions
        {
            demand(with_fill.is_none())?;
            self.expr(expr)?;
        }
        Ok(())
    }

    fn limit(&mut self, limit: &LimitClause) -> Result<(), Reason> {
        match limit {
            LimitClause::LimitOffset {
                limit,
                offset,
                limit_by,
            } => {
                demand(limit_by.is_empty())?;
                self.optional(limit.as_ref())?;
                self.optional(offset.as_ref().map(|offset| &offset.value))
            }
            LimitClause::OffsetCommaLimit { .. } => Err("unparsed"),
        }
    }

    fn joined(&mut self, table: &TableWithJoins) -> Result<(), Reason> {
        self.factor(&table.relation)?;
        for Join {
            relation,
            global,
            join_operator,
        } in &table.joins
        {
            demand(!global)?;
            self.factor(relation)?;
            match join_operator {
                JoinOperator::Join(constraint)
                | JoinOperator::Inner(constraint)
                | JoinOperator::Left(constraint)
                | JoinOperator::LeftOuter(constraint)
                | JoinOperator::Right(constraint)
                | JoinOperator::RightOuter(constraint)
                | JoinOperator::FullOuter(constraint)
                | JoinOperator::CrossJoin(constraint) => match constraint {
                    JoinConstraint::On(expr) => self.expr(expr)?,
                    JoinConstraint::Using(_) | JoinConstraint::Natural | JoinConstraint::None => {}
                },
                _ => return Err("unparsed"),
            }
        }
        Ok(())
    }

    fn alias(&mut self, alias: &TableAlias) -> Result<(), Reason> {
        let TableAlias {
            explicit: _,
            name,
            columns,
            at,
        } = alias;
        demand(at.is_none())?;
        label(name)?;
        columns
            .iter()
            .filter_map(|column| column.data_type.as_ref())
            .try_for_each(|data_type| {
                if self.catalogue.cast(types::name(data_type).ok_or("type")?) {
                    Ok(())
                } else {
                    Err("type")
                }
            })
    }

    fn factor(&mut self, factor: &TableFactor) -> Result<(), Reason> {
        self.enter()?;
        let alias = match factor {
            TableFactor::Table { alias, .. } => {
                self.table(factor)?;
                alias
            }
            TableFactor::Derived {
                lateral: _,
                subquery,
                alias,
                sample,
            } => {
                demand(sample.is_none())?;
                self.query(subquery)?;
                alias
            }
            TableFactor::Function {
                lateral: _,
                name,
                args,
                with_ordinality: _,
                alias,
            } => {
                self.set_returning(name, args)?;
                alias
            }
            TableFactor::UNNEST {
                alias,
                array_exprs,
                with_offset,
                with_offset_alias,
                with_ordinality: _,
            } => {
                demand(!with_offset && with_offset_alias.is_none())?;
                self.function_named("unnest")?;
                self.all(array_exprs)?;
                alias
            }
            TableFactor::NestedJoin {
                table_with_joins,
                alias,
            } => {
                self.joined(table_with_joins)?;
                alias
            }
            _ => return Err("unparsed"),
        };
        if let Some(alias) = alias {
            self.alias(alias)?;
        }
        self.leave();
        Ok(())
    }

    fn table(&mut self, factor: &TableFactor) -> Result<(), Reason> {
        let TableFactor::Table {
            name,
            alias: _,
            args,
            with_hints,
            version,
            with_ordinality: _,
            partitions,
            json_path,
            sample,
            index_hints,
        } = factor
        else {
            return Err("unparsed");
        };
        demand(with_hints.is_empty() && version.is_none() && partitions.is_empty())?;
        demand(json_path.is_none() && index_hints.is_empty())?;
        match sample {
            None => {}
            Some(
                TableSampleKind::BeforeTableAlias(sample)
                | TableSampleKind::AfterTableAlias(sample),
            ) => {
                demand(matches!(
                    sample.name,
                    Some(TableSampleMethod::Bernoulli | TableSampleMethod::System)
                ))?;
                demand(sample.bucket.is_none() && sample.offset.is_none())?;
                self.optional(sample.quantity.as_ref().map(|quantity| &quantity.value))?;
            }
        }
        match args {
            Some(args) => {
                demand(args.settings.is_none())?;
                self.set_returning(name, &args.args)
            }
            None => self.relation(name),
        }
    }

    fn set_returning(&mut self, name: &ObjectName, args: &[FunctionArg]) -> Result<(), Reason> {
        self.function_named(types::last_part(name).ok_or("unparsed")?)?;
        self.arguments(args)
    }

    fn relation(&mut self, name: &ObjectName) -> Result<(), Reason> {
        let last = types::last_part(name).ok_or("unparsed")?;
        if let [part] = name.0.as_slice() {
            let unquoted = part
                .as_ident()
                .is_some_and(|ident| ident.quote_style.is_none());
            // Words the server reads as part of the syntax here.
            demand(
                !unquoted || !matches!(last, "only" | "lateral" | "rows" | "select" | "values"),
            )?;
            if self.scope.iter().any(|cte| cte == last) {
                return Ok(());
            }
        }
        self.relation_named(last)
    }

    fn relation_named(&mut self, name: &str) -> Result<(), Reason> {
        let answer = self.catalogue.relation(name).ok_or("relation")?;
        self.proof.uses_now |= answer.uses_now;
        Ok(())
    }

    pub(super) fn function_named(&mut self, name: &str) -> Result<(), Reason> {
        let answer = self.catalogue.function(name).ok_or("function")?;
        self.proof.uses_now |= answer.uses_now;
        Ok(())
    }
}

fn plain_wildcard(options: &WildcardAdditionalOptions) -> Result<(), Reason> {
    let WildcardAdditionalOptions {
        wildcard_token: _,
        opt_ilike,
        opt_exclude,
        opt_except,
        opt_replace,
        opt_rename,
        opt_alias,
    } = options;
    demand(opt_ilike.is_none() && opt_exclude.is_none() && opt_except.is_none())?;
    demand(opt_replace.is_none() && opt_rename.is_none() && opt_alias.is_none())
}

/// A label in single quotes is a typed literal to the server: `name 'text'` calls a type's input.
pub(super) fn label(ident: &Ident) -> Result<(), Reason> {
    demand(matches!(ident.quote_style, None | Some('"')))
}
