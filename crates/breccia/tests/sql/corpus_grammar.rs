//! Makes statements: reads out of honest parts, and others out of at least one part that is not.
//!
//! Not a judge: what a statement is said to be follows from its parts alone, and the servers are
//! asked. Invariant: rows of a read depend on the data alone, so that two servers can be compared;
//! the same numbers of the dice make the same statement.

#![expect(
    clippy::format_push_string,
    reason = "a text that grows by pieces reads better so, and nothing here must be fast"
)]

use crate::rig::Dice;

#[path = "corpus_others.rs"]
mod others;
#[path = "corpus_parts.rs"]
mod parts;

/// Kinds of values, as far as parts must fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Int,
    Text,
    Bool,
    Numeric,
    Time,
    Json,
    Ints,
}

/// A statement and what it is made of.
#[derive(Debug)]
pub(super) struct Made {
    pub(super) sql: String,
    /// The parts that are not honest; empty for a read.
    pub(super) parts: Vec<&'static str>,
}

/// Something in FROM with its columns.
#[derive(Debug, Clone)]
struct Source {
    alias: String,
    columns: Vec<(String, Kind)>,
}

/// How many expressions may stand in each other.
const DEPTH: u32 = 3;

/// Makes one statement.
struct Maker<'a> {
    dice: &'a mut Dice,
    /// Of a hundred parts, so many are not honest.
    tainted: u64,
    parts: Vec<&'static str>,
    aliases: u32,
    /// Common table expressions so far.
    common: Vec<Source>,
}

/// A statement: three of four are reads.
pub(super) fn statement(dice: &mut Dice) -> Made {
    let tainted = if dice.roll(3) == 0 { 15 } else { 0 };
    let form = (tainted > 0 && dice.roll(3) == 0).then_some(());
    let mut maker = Maker {
        dice,
        tainted,
        parts: Vec::new(),
        aliases: 0,
        common: Vec::new(),
    };
    let sql = match form {
        Some(()) => maker.other_statement(),
        None => maker.read(),
    };
    let parts = maker.parts;
    let sql = noisy(dice, &sql);
    Made { sql, parts }
}

/// Names are written in other letters, and blanks and comments stand where they may.
fn noisy(dice: &mut Dice, sql: &str) -> String {
    const GAPS: [&str; 7] = [
        " ",
        "\n\t",
        " /* it's */ ",
        " /* FOR UPDATE /* $$ */ */ ",
        " -- nextval('ids')\n",
        "\r\n",
        "  ",
    ];
    let Ok((tokens, _)) = breccia_sql::class::lexer::tokens(sql.as_bytes(), true) else {
        return sql.to_owned();
    };
    let (mut out, mut at) = (String::new(), 0);
    for token in tokens {
        let gap = sql.get(at..token.start).unwrap_or_default();
        match gap {
            " " if dice.roll(20) == 0 => out += one(dice, &GAPS),
            gap => out += gap,
        }
        let raw = sql.get(token.start..token.end).unwrap_or_default();
        let word = token.kind == breccia_sql::class::lexer::Kind::Word;
        match dice.roll(30) {
            0 if word => out += &raw.to_ascii_uppercase(),
            1 if word => out.extend(raw.chars().map(|letter| match dice.roll(2) {
                0 => letter.to_ascii_uppercase(),
                _ => letter,
            })),
            _ => out += raw,
        }
        at = token.end;
    }
    out
}

/// One of some.
pub(super) fn one<T: Copy>(dice: &mut Dice, from: &[T]) -> T {
    let at = usize::try_from(dice.roll(from.len() as u64)).unwrap_or(0);
    from.get(at).copied().expect("a number below the length")
}

impl Maker<'_> {
    fn one<T: Copy>(&mut self, from: &[T]) -> T {
        one(self.dice, from)
    }

    fn often(&mut self, of_a_hundred: u64) -> bool {
        self.dice.roll(100) < of_a_hundred
    }

    /// One of the parts, and one that is not honest now and then.
    fn part(&mut self, honest: &[&'static str], others: &[&'static str]) -> &'static str {
        let tainted = self.tainted;
        if !others.is_empty() && self.often(tainted) {
            let part = self.one(others);
            self.parts.push(part);
            return part;
        }
        self.one(honest)
    }

    fn alias(&mut self) -> String {
        self.aliases += 1;
        match self.dice.roll(8) {
            0 => format!("\"Q {}\"", self.aliases),
            1 => format!("é{}", self.aliases),
            _ => format!("q{}", self.aliases),
        }
    }

    /// A statement that only reads, unless one of its parts does not.
    fn read(&mut self) -> String {
        match self.dice.roll(40) {
            0 => {
                let rows: Vec<_> = (0..=self.dice.roll(3))
                    .map(|_| {
                        let (number, text) =
                            (self.expression(Kind::Int, &[], 1), self.literal(Kind::Text));
                        format!("({number}, {text})")
                    })
                    .collect();
                format!("VALUES {} ORDER BY 1, 2", rows.join(", "))
            }
            1 => format!("TABLE {}", self.part(parts::TABLES, others::OTHER_TABLES)),
            2 => {
                let options = self.one(&[
                    "",
                    "(costs off) ",
                    "(format json) ",
                    "verbose ",
                    "(verbose, settings off) ",
                ]);
                format!("EXPLAIN {options}{}", self.query(DEPTH))
            }
            3 => format!("({})", self.query(DEPTH)),
            4..=6 => {
                let query = self.one(others::WHOLE);
                self.fill(query, &[], 1)
            }
            _ => self.query(DEPTH),
        }
    }

    /// A query, with its common table expressions and its order.
    fn query(&mut self, depth: u32) -> String {
        let before = self.common.len();
        let mut out = String::new();
        if depth == DEPTH && self.often(20) {
            out = self.with(depth);
        }
        let kinds: Vec<Kind> = (0..=self.dice.roll(3)).map(|_| self.kind()).collect();
        out += &self.body(&kinds, depth);
        self.common.truncate(before);
        // Numbers order what comes out, whatever it is; JSON and all cannot be compared alike.
        let positions: Vec<_> = (1..=kinds.len())
            .map(|position| position.to_string())
            .collect();
        out += &format!(" ORDER BY {}", positions.join(", "));
        if self.often(30) {
            let count = self.dice.roll(20);
            out += &match self.dice.roll(4) {
                0 => format!(" OFFSET {count} ROWS FETCH FIRST {count} ROWS ONLY"),
                1 => format!(" LIMIT {count} OFFSET 1"),
                2 => format!(" LIMIT ({count} + 1)"),
                _ => format!(" LIMIT {count}"),
            };
        }
        out
    }

    fn with(&mut self, depth: u32) -> String {
        let mut all = Vec::new();
        for _ in 0..=self.dice.roll(2) {
            let name = self.alias();
            let kinds = [Kind::Int, Kind::Text];
            let body = self.body(&kinds, depth - 1);
            let kept = self.one(&["", "", "MATERIALIZED ", "NOT MATERIALIZED "]);
            all.push(format!("{name} (c1, c2) AS {kept}({body})"));
            let columns = vec![("c1".to_owned(), Kind::Int), ("c2".to_owned(), Kind::Text)];
            self.common.push(Source {
                alias: name,
                columns,
            });
        }
        if self.often(15) {
            let name = self.alias();
            all.push(format!(
                "{name} (c1, c2) AS (SELECT 1, 'x' UNION ALL SELECT c1 + 1, c2 || 'y' FROM {name} \
                 WHERE c1 < 5)"
            ));
            let columns = vec![("c1".to_owned(), Kind::Int), ("c2".to_owned(), Kind::Text)];
            self.common.push(Source {
                alias: name,
                columns,
            });
            return format!("WITH RECURSIVE {} ", all.join(", "));
        }
        format!("WITH {} ", all.join(", "))
    }

    /// A SELECT, or several in a set operation, with columns of these kinds.
    fn body(&mut self, kinds: &[Kind], depth: u32) -> String {
        if depth > 0 && self.often(12) {
            let operation = self.one(&["UNION", "UNION ALL", "INTERSECT", "EXCEPT", "EXCEPT ALL"]);
            let left = self.select(kinds, depth - 1);
            let right = self.select(kinds, depth - 1);
            return if self.often(30) {
                format!("({left}) {operation} ({right})")
            } else {
                format!("{left} {operation} {right}")
            };
        }
        self.select(kinds, depth)
    }

    fn select(&mut self, kinds: &[Kind], depth: u32) -> String {
        let (from, sources) = self.from(depth);
        if depth > 0 && !sources.is_empty() && self.often(15) {
            return self.grouped(kinds, depth, &from, &sources);
        }
        let distinct = if self.often(10) { "DISTINCT " } else { "" };
        let windows = distinct.is_empty() && !sources.is_empty();
        let items: Vec<_> = kinds
            .iter()
            .map(|kind| {
                let item = if windows && *kind == Kind::Int && self.often(12) {
                    self.window(&sources)
                } else {
                    self.expression(*kind, &sources, depth)
                };
                match self.dice.roll(4) {
                    0 => format!("{item} AS {}", self.alias()),
                    _ => item,
                }
            })
            .collect();
        let mut out = format!("SELECT {distinct}{}{from}", items.join(", "));
        if self.often(50) {
            out += &format!(" WHERE {}", self.expression(Kind::Bool, &sources, depth));
        }
        out
    }

    fn grouped(&mut self, kinds: &[Kind], depth: u32, from: &str, sources: &[Source]) -> String {
        let items: Vec<_> = kinds
            .iter()
            .map(|kind| {
                let part = self.part(parts::aggregates(*kind), others::aggregates(*kind));
                self.fill(part, sources, depth.saturating_sub(1))
            })
            .collect();
        let mut out = format!("SELECT {}{from}", items.join(", "));
        if self.often(30) {
            out += &format!(" WHERE {}", self.expression(Kind::Bool, sources, 1));
        }
        if self.often(70) {
            let by = self.expression(Kind::Int, sources, 0);
            // A bare number would be a position.
            out += &match self.dice.roll(5) {
                0 => format!(" GROUP BY GROUPING SETS ((0 + ({by})), ())"),
                1 => format!(" GROUP BY ROLLUP (0 + ({by}))"),
                _ => format!(" GROUP BY 0 + ({by})"),
            };
        }
        if self.often(30) {
            let limit = self.expression(Kind::Int, &[], 0);
            out += &format!(" HAVING count(*) > {limit} OR true");
        }
        out
    }

    fn window(&mut self, sources: &[Source]) -> String {
        let part = self.part(parts::WINDOWS, others::OTHER_WINDOWS);
        self.fill(part, sources, 1)
    }

    /// The words from FROM on, and what stands there.
    fn from(&mut self, depth: u32) -> (String, Vec<Source>) {
        if self.often(8) {
            return (String::new(), Vec::new());
        }
        let (mut out, first) = self.source(depth, &[]);
        let mut sources = vec![first];
        let more = if depth > 0 { self.dice.roll(6) / 2 } else { 0 };
        for _ in 0..more {
            let (text, source) = self.source(depth - 1, &sources);
            let join = self.one(&[
                "JOIN",
                "JOIN",
                "LEFT JOIN",
                "LEFT OUTER JOIN",
                "INNER JOIN",
                "FULL OUTER JOIN",
                "CROSS JOIN",
            ]);
            let lateral = text.starts_with("LATERAL");
            let join = if lateral { "CROSS JOIN" } else { join };
            let condition = match join {
                "CROSS JOIN" => String::new(),
                _ => match (
                    column(sources.get(..1).unwrap_or_default(), Kind::Int),
                    column(std::slice::from_ref(&source), Kind::Int),
                ) {
                    (Some(left), Some(right)) => format!(" ON {left} = {right}"),
                    _ => " ON true".to_owned(),
                },
            };
            let join = if condition == " ON true" && join.starts_with("FULL") {
                "LEFT JOIN"
            } else {
                join
            };
            out += &format!(" {join} {text}{condition}");
            sources.push(source);
        }
        (format!(" FROM {out}"), sources)
    }

    fn source(&mut self, depth: u32, before: &[Source]) -> (String, Source) {
        if let Some(common) = self.common.last().cloned()
            && self.often(40)
        {
            let alias = self.alias();
            let text = format!("{} AS {alias}", common.alias);
            return (text, Source { alias, ..common });
        }
        match self.dice.roll(10) {
            0 | 1 if depth > 0 => {
                let kinds = [self.kind(), Kind::Int];
                let lateral = !before.is_empty() && self.often(30);
                let body = if lateral {
                    let items: Vec<_> = kinds
                        .iter()
                        .map(|kind| self.expression(*kind, before, 1))
                        .collect();
                    format!("SELECT {}", items.join(", "))
                } else {
                    self.body(&kinds, depth - 1)
                };
                let alias = self.alias();
                let [first, second] = kinds;
                let columns = vec![("d1".to_owned(), first), ("d2".to_owned(), second)];
                let lateral = if lateral { "LATERAL " } else { "" };
                (
                    format!("{lateral}({body}) {alias} (d1, d2)"),
                    Source { alias, columns },
                )
            }
            2 => {
                let part = self.part(parts::ROW_FUNCTIONS, others::OTHER_ROW_FUNCTIONS);
                let text = self.fill(part, &[], 0);
                let alias = self.alias();
                let columns = vec![("f1".to_owned(), Kind::Int)];
                (format!("{text} AS {alias} (f1)"), Source { alias, columns })
            }
            _ => self.table(),
        }
    }

    fn table(&mut self) -> (String, Source) {
        let tainted = self.tainted;
        let alias = self.alias();
        if self.often(tainted) {
            let name = self.one(others::OTHER_TABLES);
            self.parts.push(name);
            let source = Source {
                alias: alias.clone(),
                columns: Vec::new(),
            };
            return (format!("{name} AS {alias}"), source);
        }
        let (name, columns) = self.one(parts::RELATIONS);
        let columns = columns
            .iter()
            .map(|(name, kind)| ((*name).to_owned(), *kind))
            .collect();
        let as_word = self.one(&["AS ", ""]);
        let sample = if name == "t" && self.often(5) {
            " TABLESAMPLE system (100)"
        } else {
            ""
        };
        (
            format!("{name} {as_word}{alias}{sample}"),
            Source { alias, columns },
        )
    }

    fn kind(&mut self) -> Kind {
        self.one(&[
            Kind::Int,
            Kind::Int,
            Kind::Text,
            Kind::Text,
            Kind::Bool,
            Kind::Numeric,
            Kind::Time,
            Kind::Ints,
        ])
    }

    fn expression(&mut self, kind: Kind, sources: &[Source], depth: u32) -> String {
        if depth == 0 || self.often(35) {
            if let Some(column) = self.column(sources, kind)
                && self.often(75)
            {
                return column;
            }
            return self.literal(kind);
        }
        if self.often(6) {
            return self.subquery(kind, sources, depth - 1);
        }
        let part = self.part(parts::expressions(kind), others::expressions(kind));
        self.fill(part, sources, depth - 1)
    }

    fn subquery(&mut self, kind: Kind, sources: &[Source], depth: u32) -> String {
        let (from, inner) = self.from(0);
        let all: Vec<_> = sources.iter().chain(&inner).cloned().collect();
        let condition = self.expression(Kind::Bool, &all, depth.min(1));
        match kind {
            Kind::Bool => format!("EXISTS (SELECT 1{from} WHERE {condition})"),
            Kind::Int if self.often(50) => {
                format!("(SELECT count(*)::int{from} WHERE {condition})")
            }
            Kind::Ints => format!("ARRAY(SELECT 1{from} WHERE {condition})"),
            _ => {
                let item = self.expression(kind, &all, depth.min(1));
                format!("(SELECT {item}{from} WHERE {condition} ORDER BY 1 LIMIT 1)")
            }
        }
    }

    fn column(&mut self, sources: &[Source], kind: Kind) -> Option<String> {
        let all: Vec<_> = sources
            .iter()
            .flat_map(|source| source.columns.iter().map(move |column| (source, column)))
            .filter(|(_, (_, found))| *found == kind)
            .collect();
        if all.is_empty() {
            return None;
        }
        let (source, (name, _)) = self.one(&all);
        Some(format!("{}.{name}", source.alias))
    }

    fn literal(&mut self, kind: Kind) -> String {
        let literals = parts::literals(kind);
        let literal = self.one(literals);
        literal.replace("{r}", &self.dice.roll(60).to_string())
    }

    /// Puts expressions into the places of a part.
    fn fill(&mut self, part: &str, sources: &[Source], depth: u32) -> String {
        let mut out = String::new();
        let mut rest = part;
        while let Some((before, behind)) = rest.split_once('{') {
            let Some((place, behind)) = behind.split_once('}') else {
                break;
            };
            out += before;
            rest = behind;
            let kind = match place {
                "i" => Kind::Int,
                "t" => Kind::Text,
                "b" => Kind::Bool,
                "n" => Kind::Numeric,
                "w" => Kind::Time,
                "j" => Kind::Json,
                "a" => Kind::Ints,
                other => {
                    // A brace of the part's own.
                    out += &format!("{{{other}}}");
                    continue;
                }
            };
            out += &self.expression(kind, sources, depth);
        }
        out + rest
    }

    /// Something that is no read whatever it is made of.
    fn other_statement(&mut self) -> String {
        self.tainted = 0;
        let form = self.one(others::STATEMENTS);
        self.parts.push(form);
        let mut out = String::new();
        for (number, piece) in form.split("{q}").enumerate() {
            if number > 0 {
                let kinds = [Kind::Int, Kind::Text];
                out += &self.body(&kinds, 1);
            }
            out += piece;
        }
        out
    }
}

/// A column of this kind, the first one.
fn column(sources: &[Source], kind: Kind) -> Option<String> {
    sources.iter().find_map(|source| {
        let (name, _) = source.columns.iter().find(|(_, found)| *found == kind)?;
        Some(format!("{}.{name}", source.alias))
    })
}
