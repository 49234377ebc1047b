//! The part of the proof that walks expressions.
//!
//! Not an evaluation: types of arguments are not known, names stand for all that bear them.
//! Invariant: a kind of expression not listed here is not proven.

use super::prove::{Prover, Reason, label};
use super::types;
use sqlparser::ast::{
    AccessExpr, DataType, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentClause,
    FunctionArgumentList, FunctionArguments, Ident, NamedWindowDefinition, NamedWindowExpr,
    Subscript, Value, WindowFrameBound, WindowSpec, WindowType,
};

/// Words the server's grammar evaluates by itself, without a look-up of a function's name.
const WORDS_WITHOUT_ARGUMENTS: [&str; 11] = [
    "current_catalog",
    "current_date",
    "current_role",
    "current_schema",
    "current_time",
    "current_timestamp",
    "current_user",
    "localtime",
    "localtimestamp",
    "session_user",
    "user",
];
const WORDS_WITH_ARGUMENTS: [&str; 6] =
    ["coalesce", "greatest", "grouping", "least", "nullif", "row"];
const CLOCK_WORDS: [&str; 4] = [
    "current_time",
    "current_timestamp",
    "localtime",
    "localtimestamp",
];

impl Prover<'_> {
    pub(super) fn all(&mut self, expressions: &[Expr]) -> Result<(), Reason> {
        expressions.iter().try_for_each(|expr| self.expr(expr))
    }

    pub(super) fn optional(&mut self, expr: Option<&Expr>) -> Result<(), Reason> {
        expr.map_or(Ok(()), |expr| self.expr(expr))
    }

    fn boxed(&mut self, expr: Option<&Expr>) -> Result<(), Reason> {
        self.optional(expr)
    }

    /// Judges an expression. Chains of operators lean to the left and are walked in a loop.
    pub(super) fn expr(&mut self, expr: &Expr) -> Result<(), Reason> {
        self.enter()?;
        let mut rest = expr;
        while let Expr::BinaryOp { left, op: _, right } = rest {
            self.expr(right)?;
            rest = left;
        }
        self.simple(rest)?;
        self.leave();
        Ok(())
    }

    fn simple(&mut self, expr: &Expr) -> Result<(), Reason> {
        match expr {
            Expr::Identifier(ident) => label(ident),
            Expr::CompoundIdentifier(parts) => self.compound(parts),
            Expr::Value(value) => plain_value(&value.value),
            Expr::TypedString(typed) => {
                if typed.uses_odbc_syntax {
                    return Err("unparsed");
                }
                plain_value(&typed.value.value)?;
                self.cast_to(&typed.data_type)
            }
            Expr::Function(function) => self.function(function),
            Expr::Subquery(query)
            | Expr::Exists {
                subquery: query,
                negated: _,
            } => self.query(query),
            Expr::Cast {
                kind: _,
                expr,
                data_type,
                array,
                format,
            } => {
                if *array || format.is_some() {
                    return Err("unparsed");
                }
                self.cast_to(data_type)?;
                self.expr(expr)
            }
            Expr::GroupingSets(sets) | Expr::Cube(sets) | Expr::Rollup(sets) => {
                sets.iter().try_for_each(|set| self.all(set))
            }
            Expr::Tuple(items) => self.all(items),
            Expr::Array(array) => self.all(&array.elem),
            Expr::Interval(interval) => self.expr(&interval.value),
            Expr::QualifiedWildcard(..) => Ok(()),
            Expr::Case {
                case_token: _,
                end_token: _,
                operand,
                conditions,
                else_result,
            } => {
                self.boxed(operand.as_deref())?;
                for when in conditions {
                    self.expr(&when.condition)?;
                    self.expr(&when.result)?;
                }
                self.boxed(else_result.as_deref())
            }
            Expr::CompoundFieldAccess { root, access_chain } => {
                self.expr(root)?;
                access_chain
                    .iter()
                    .try_for_each(|access| self.access(access))
            }
            _ => self.predicate(expr),
        }
    }

    fn predicate(&mut self, expr: &Expr) -> Result<(), Reason> {
        match expr {
            Expr::IsFalse(inner)
            | Expr::IsNotFalse(inner)
            | Expr::IsTrue(inner)
            | Expr::IsNotTrue(inner)
            | Expr::IsNull(inner)
            | Expr::IsNotNull(inner)
            | Expr::IsUnknown(inner)
            | Expr::IsNotUnknown(inner)
            | Expr::Nested(inner)
            | Expr::Collate {
                expr: inner,
                collation: _,
            }
            | Expr::UnaryOp { op: _, expr: inner }
            | Expr::IsNormalized {
                expr: inner,
                form: _,
                negated: _,
            } => self.expr(inner),
            Expr::IsDistinctFrom(left, right)
            | Expr::IsNotDistinctFrom(left, right)
            | Expr::AnyOp {
                left,
                compare_op: _,
                right,
                is_some: _,
            }
            | Expr::AllOp {
                left,
                compare_op: _,
                right,
            }
            | Expr::AtTimeZone {
                timestamp: left,
                time_zone: right,
            } => {
                self.expr(left)?;
                self.expr(right)
            }
            Expr::InList {
                expr,
                list,
                negated: _,
            } => {
                self.expr(expr)?;
                self.all(list)
            }
            Expr::InSubquery {
                expr,
                subquery,
                negated: _,
            } => {
                self.expr(expr)?;
                self.query(subquery)
            }
            _ => self.comparison(expr),
        }
    }

    fn comparison(&mut self, expr: &Expr) -> Result<(), Reason> {
        match expr {
            Expr::Between {
                expr,
                negated: _,
                low,
                high,
            } => {
                self.expr(expr)?;
                self.expr(low)?;
                self.expr(high)
            }
            Expr::Like {
                negated: _,
                any,
                expr,
                pattern,
                escape_char,
            }
            | Expr::ILike {
                negated: _,
                any,
                expr,
                pattern,
                escape_char,
            } => {
                if *any {
                    return Err("unparsed");
                }
                if let Some(escape) = escape_char {
                    plain_value(&escape.value)?;
                }
                self.expr(expr)?;
                self.expr(pattern)
            }
            Expr::SimilarTo {
                negated: _,
                expr,
                pattern,
                escape_char,
            } => {
                if let Some(escape) = escape_char {
                    plain_value(&escape.value)?;
                }
                self.expr(expr)?;
                self.expr(pattern)
            }
            _ => self.keyword_call(expr),
        }
    }

    /// Functions with a syntax of their own; also called plainly, so their names are asked about.
    fn keyword_call(&mut self, expr: &Expr) -> Result<(), Reason> {
        match expr {
            Expr::Extract {
                field: _,
                syntax: _,
                expr,
            } => {
                self.not_redefined(&["extract", "date_part"])?;
                self.expr(expr)
            }
            Expr::Ceil { expr, field: _ } => {
                self.not_redefined(&["ceil", "ceiling"])?;
                self.expr(expr)
            }
            Expr::Floor { expr, field: _ } => {
                self.not_redefined(&["floor"])?;
                self.expr(expr)
            }
            Expr::Position { expr, r#in } => {
                self.not_redefined(&["position"])?;
                self.expr(expr)?;
                self.expr(r#in)
            }
            Expr::Substring {
                expr,
                substring_from,
                substring_for,
                special: _,
                shorthand: _,
            } => {
                self.not_redefined(&["substring", "substr"])?;
                self.expr(expr)?;
                self.boxed(substring_from.as_deref())?;
                self.boxed(substring_for.as_deref())
            }
            Expr::Trim {
                trim_where: _,
                trim_what,
                expr,
                trim_characters,
            } => {
                self.not_redefined(&["trim", "btrim", "ltrim", "rtrim"])?;
                self.boxed(trim_what.as_deref())?;
                self.all(trim_characters.as_deref().unwrap_or_default())?;
                self.expr(expr)
            }
            Expr::Overlay {
                expr,
                overlay_what,
                overlay_from,
                overlay_for,
            } => {
                self.not_redefined(&["overlay"])?;
                self.expr(expr)?;
                self.expr(overlay_what)?;
                self.expr(overlay_from)?;
                self.boxed(overlay_for.as_deref())
            }
            _ => Err("unparsed"),
        }
    }

    fn not_redefined(&self, names: &[&str]) -> Result<(), Reason> {
        let safe = names
            .iter()
            .all(|name| !self.catalogue.is_unsafe_function(name));
        if safe { Ok(()) } else { Err("function") }
    }

    /// `t.f` calls `f(t)` where `t` has no column `f`.
    fn compound(&self, parts: &[Ident]) -> Result<(), Reason> {
        parts.iter().try_for_each(label)?;
        match parts.last() {
            Some(last) if self.catalogue.is_unsafe_field(&last.value) => Err("function"),
            _ => Ok(()),
        }
    }

    fn access(&mut self, access: &AccessExpr) -> Result<(), Reason> {
        match access {
            AccessExpr::Dot(Expr::Identifier(field)) => self.compound(std::slice::from_ref(field)),
            AccessExpr::Dot(_) => Err("unparsed"),
            AccessExpr::Subscript(Subscript::Index { index }) => self.expr(index),
            AccessExpr::Subscript(Subscript::Slice {
                lower_bound,
                upper_bound,
                stride,
            }) => {
                if stride.is_some() {
                    return Err("unparsed");
                }
                self.optional(lower_bound.as_ref())?;
                self.optional(upper_bound.as_ref())
            }
        }
    }

    pub(super) fn cast_to(&self, data_type: &DataType) -> Result<(), Reason> {
        match types::name(data_type) {
            Some(name) if self.catalogue.cast(name) => Ok(()),
            _ => Err("type"),
        }
    }

    fn function(&mut self, function: &Function) -> Result<(), Reason> {
        let Function {
            name,
            uses_odbc_syntax,
            parameters,
            args,
            filter,
            null_treatment,
            over,
            within_group,
        } = function;
        let no_parameters = matches!(parameters, FunctionArguments::None);
        if *uses_odbc_syntax || !no_parameters || null_treatment.is_some() {
            return Err("unparsed");
        }
        let last = types::last_part(name).ok_or("unparsed")?;
        let word = match name.0.as_slice() {
            [part] => part
                .as_ident()
                .is_some_and(|ident| ident.quote_style.is_none()),
            _ => false,
        };
        match args {
            FunctionArguments::None if word && WORDS_WITHOUT_ARGUMENTS.contains(&last) => {}
            FunctionArguments::Subquery(query) if word && last == "array" => self.query(query)?,
            FunctionArguments::List(arguments) => {
                let known =
                    word && (WORDS_WITH_ARGUMENTS.contains(&last) || CLOCK_WORDS.contains(&last));
                if !known {
                    self.function_named(last)?;
                }
                self.argument_list(arguments)?;
            }
            FunctionArguments::None | FunctionArguments::Subquery(_) => return Err("unparsed"),
        }
        self.boxed(filter.as_deref())?;
        self.ordering(within_group)?;
        match over {
            Some(WindowType::WindowSpec(spec)) => self.window(spec),
            Some(WindowType::NamedWindow(_)) | None => Ok(()),
        }
    }

    fn argument_list(&mut self, list: &FunctionArgumentList) -> Result<(), Reason> {
        let FunctionArgumentList {
            duplicate_treatment: _,
            args,
            clauses,
        } = list;
        for clause in clauses {
            match clause {
                FunctionArgumentClause::OrderBy(ordering) => self.ordering(ordering)?,
                _ => return Err("unparsed"),
            }
        }
        self.arguments(args)
    }

    pub(super) fn arguments(&mut self, args: &[FunctionArg]) -> Result<(), Reason> {
        for arg in args {
            let arg = match arg {
                FunctionArg::Unnamed(arg)
                | FunctionArg::Named {
                    name: _,
                    arg,
                    operator: _,
                } => arg,
                FunctionArg::ExprNamed {
                    name,
                    arg,
                    operator: _,
                } => {
                    if !matches!(name, Expr::Identifier(_)) {
                        return Err("unparsed");
                    }
                    arg
                }
            };
            match arg {
                FunctionArgExpr::Expr(expr) => self.expr(expr)?,
                FunctionArgExpr::QualifiedWildcard(_) | FunctionArgExpr::Wildcard => {}
                FunctionArgExpr::WildcardWithOptions(_) => return Err("unparsed"),
            }
        }
        Ok(())
    }

    fn window(&mut self, spec: &WindowSpec) -> Result<(), Reason> {
        let WindowSpec {
            window_name: _,
            order_by,
            window_frame,
            ..
        } = spec;
        self.all(&spec.partition_by)?;
        self.ordering(order_by)?;
        if let Some(frame) = window_frame {
            for bound in [Some(&frame.start_bound), frame.end_bound.as_ref()]
                .into_iter()
                .flatten()
            {
                match bound {
                    WindowFrameBound::CurrentRow => {}
                    WindowFrameBound::Preceding(expr) | WindowFrameBound::Following(expr) => {
                        self.boxed(expr.as_deref())?;
                    }
                }
            }
        }
        Ok(())
    }

    pub(super) fn named_window(&mut self, window: &NamedWindowDefinition) -> Result<(), Reason> {
        match &window.1 {
            NamedWindowExpr::NamedWindow(_) => Ok(()),
            NamedWindowExpr::WindowSpec(spec) => self.window(spec),
        }
    }
}

fn plain_value(value: &Value) -> Result<(), Reason> {
    match value {
        Value::Number(..)
        | Value::SingleQuotedString(_)
        | Value::EscapedStringLiteral(_)
        | Value::UnicodeStringLiteral(_)
        | Value::HexStringLiteral(_)
        | Value::Boolean(_)
        | Value::Null
        | Value::Placeholder(_) => Ok(()),
        _ => Err("unparsed"),
    }
}
