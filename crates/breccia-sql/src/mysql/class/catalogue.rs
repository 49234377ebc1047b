//! What the tables, views and functions of a database are, as far as the proof needs it.
//!
//! Pure: rows of [`QUERIES`] are handed in. Not a copy of the schema: no columns are known.
//! Invariant: a view is provable only if all that its definition names is.

use std::collections::{HashMap, HashSet};
use std::hash::{Hash as _, Hasher as _};

use super::prove::{self, Reason};
use super::words::Words;

/// What is asked: tables with kind, engine and how names compare; views; functions.
pub const QUERIES: [&str; 3] = [
    "SELECT TABLE_SCHEMA, TABLE_NAME, TABLE_TYPE, ENGINE, @@lower_case_table_names \
     FROM information_schema.TABLES WHERE TABLE_SCHEMA NOT IN \
     ('information_schema', 'performance_schema', 'mysql', 'sys') \
     AND TABLE_TYPE NOT LIKE '%TEMPORARY%' ORDER BY 1, 2, 3",
    "SELECT TABLE_SCHEMA, TABLE_NAME, VIEW_DEFINITION FROM information_schema.VIEWS \
     WHERE TABLE_SCHEMA NOT IN ('sys') ORDER BY 1, 2",
    "SELECT ROUTINE_SCHEMA, ROUTINE_NAME, \
     ROUTINE_DEFINITION LIKE '%lastval%' OR ROUTINE_DEFINITION LIKE '%previous%value%', \
     ROUTINE_DEFINITION LIKE '%nextval%' OR ROUTINE_DEFINITION LIKE '%next%value%' \
     FROM information_schema.ROUTINES ORDER BY 1, 2",
];

/// What is asked besides: columns that are computed when they are read, and those that ask a sequence.
pub const COMPUTED: &str = "SELECT TABLE_SCHEMA, TABLE_NAME, \
     IF(EXTRA LIKE '%VIRTUAL%', GENERATION_EXPRESSION, NULL), \
     COLUMN_DEFAULT LIKE '%lastval%', COLUMN_DEFAULT LIKE '%nextval%' \
     FROM information_schema.COLUMNS \
     WHERE (EXTRA LIKE '%VIRTUAL%' OR COLUMN_DEFAULT LIKE '%lastval%' \
     OR COLUMN_DEFAULT LIKE '%nextval%') AND TABLE_SCHEMA NOT IN \
     ('information_schema', 'performance_schema', 'mysql', 'sys') ORDER BY 1, 2, 3";

/// What is asked besides: tables with triggers.
pub const TRIGGERS: &str = "SELECT EVENT_OBJECT_TABLE, \
     MAX(ACTION_STATEMENT LIKE '%lastval%' OR ACTION_STATEMENT LIKE '%previous%value%'), \
     MAX(ACTION_STATEMENT LIKE '%nextval%' OR ACTION_STATEMENT LIKE '%next%value%') \
     FROM information_schema.TRIGGERS GROUP BY 1 ORDER BY 1";

/// A row of an answer.
pub type Row = Vec<Option<String>>;

/// Engines whose tables hold the same on a replica, and only for what was committed or replicated.
const ENGINES: [&str; 5] = ["innodb", "rocksdb", "tokudb", "aria", "myisam"];
/// Schemas of the server itself.
const OWN_SCHEMAS: [&str; 4] = ["information_schema", "performance_schema", "mysql", "sys"];
/// How deep views may name views.
const MOST_ROUNDS: usize = 32;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Relation {
    Table,
    View { proven: bool, uses_now: bool },
    Not(Reason),
}

/// What is known of a server's tables, views and functions.
#[derive(Debug, Default)]
pub struct Catalogue {
    relations: HashMap<String, HashMap<String, Relation>>,
    routines: HashSet<String>,
    /// Those of them that count as reads because the administrator says so.
    vouched: HashSet<String>,
    /// The definitions of views that are not proven, by schema and name.
    unproven: HashMap<(String, String), String>,
    /// Tables and views behind which something may be run, of whatever schema, in lower case.
    hiding: HashSet<String>,
    /// Something that is stored asks for the last number that its connection took from a sequence.
    asks_last_number: bool,
    /// Routines and tables that take numbers from sequences, of whatever schema, in lower case.
    takes_numbers: HashSet<String>,
    /// Names are compared in lower case.
    folds: bool,
    fingerprint: u64,
}

impl Catalogue {
    /// Builds it from the answers to [`QUERIES`], in their order.
    #[must_use]
    pub fn from_rows(tables: &[Row], views: &[Row], routines: &[Row]) -> Self {
        Self::vouching([tables, views, routines, &[]], &[])
    }

    /// The same, with the answer to [`COMPUTED`] behind them; stored functions of these names count as
    /// reads.
    #[must_use]
    pub fn vouching(rows: [&[Row]; 4], read_functions: &[String]) -> Self {
        let mut hasher = std::hash::DefaultHasher::new();
        rows.hash(&mut hasher);
        let [tables, views, routines, computed] = rows;
        let mut catalogue = Self {
            fingerprint: hasher.finish(),
            folds: tables
                .first()
                .and_then(|row| cell(row, 4))
                .is_some_and(|it| it != "0"),
            ..Self::default()
        };
        for row in tables {
            let (Some(schema), Some(name)) = (cell(row, 0), cell(row, 1)) else {
                continue;
            };
            let relation = judge(cell(row, 2).unwrap_or_default(), cell(row, 3));
            catalogue.put(schema, name, relation);
        }
        for row in routines {
            if let Some(name) = cell(row, 1) {
                catalogue.routines.insert(name.to_lowercase());
                catalogue.note_numbers(name, row, 2);
            }
        }
        // What the server brought along is what it is.
        let vouched = read_functions.iter().map(|name| name.to_lowercase());
        let vouched = vouched.filter(|name| catalogue.routines.contains(name));
        catalogue.vouched = vouched.collect();
        let asks =
            |row: &Row| cell(row, 2).is_some_and(|it| it.to_ascii_lowercase().contains("lastval("));
        catalogue.asks_last_number |= views.iter().any(asks);
        catalogue.doubt_computed(computed);
        catalogue.prove_views(views);
        catalogue
    }

    /// A table is not the same on every server if what it computes for its readers is not proven to be.
    fn doubt_computed(&mut self, rows: &[Row]) {
        for row in rows {
            let (Some(schema), Some(name)) = (cell(row, 0), cell(row, 1)) else {
                continue;
            };
            self.note_numbers(name, row, 3);
            let Some(expression) = cell(row, 2) else {
                continue;
            };
            let proof = prove::definition(self, &format!("SELECT {expression}"));
            if !proof.is_ok_and(|proof| !proof.uses_now) {
                self.put(schema, name, Relation::Not("generated-column"));
            }
        }
    }

    /// Two cells from `at` on: whether what is stored asks for the last number of a sequence, or takes one.
    fn note_numbers(&mut self, name: &str, row: &Row, at: usize) {
        self.asks_last_number |= cell(row, at) == Some("1");
        if cell(row, at + 1) == Some("1") {
            self.takes_numbers.insert(name.to_lowercase());
        }
    }

    /// Whether a statement may take a number from a sequence, for which something stored may ask later on
    /// where no text shows it.
    pub(super) fn takes_number(&self, words: &Words<'_>) -> bool {
        let takes = |at: usize| {
            let said = words.is(at, "nextval") || words.are(at, &["next", "value"]);
            let name = words.name(at).map(|name| name.to_lowercase());
            said || name.is_some_and(|name| self.takes_numbers.contains(&name))
        };
        self.asks_last_number && (0..words.len()).any(takes)
    }

    /// The same with the tables that have triggers: the answer to [`TRIGGERS`].
    #[must_use]
    pub fn with_triggers(mut self, rows: &[Row]) -> Self {
        let mut hasher = std::hash::DefaultHasher::new();
        (self.fingerprint, rows).hash(&mut hasher);
        self.fingerprint = hasher.finish();
        for row in rows {
            if let Some(name) = cell(row, 0) {
                self.hiding.insert(name.to_lowercase());
                self.note_numbers(name, row, 1);
            }
        }
        self
    }

    /// Two catalogues with the same number were built from the same rows.
    #[must_use]
    pub fn fingerprint(&self) -> u64 {
        self.fingerprint
    }

    fn put(&mut self, schema: &str, name: &str, relation: Relation) {
        let (schema, name) = (self.fold(schema), self.fold(name));
        self.relations
            .entry(schema)
            .or_default()
            .insert(name, relation);
    }

    fn fold(&self, name: &str) -> String {
        if self.folds {
            name.to_lowercase()
        } else {
            name.to_owned()
        }
    }

    /// Views that name only what is proven are proven, round by round: a ring never is.
    fn prove_views(&mut self, views: &[Row]) {
        let mut open: Vec<_> = views
            .iter()
            .filter_map(|row| Some((cell(row, 0)?, cell(row, 1)?, cell(row, 2)?)))
            .collect();
        for _ in 0..MOST_ROUNDS {
            let before = open.len();
            let mut proven = Vec::new();
            open.retain(|(schema, name, definition)| {
                let proof = prove::definition(self, definition);
                if let Ok(proof) = proof {
                    proven.push((*schema, *name, proof.uses_now));
                }
                proof.is_err()
            });
            for (schema, name, uses_now) in proven {
                self.put(
                    schema,
                    name,
                    Relation::View {
                        proven: true,
                        uses_now,
                    },
                );
            }
            if open.is_empty() || open.len() == before {
                break;
            }
        }
        for (schema, name, definition) in open {
            self.hiding.insert(name.to_lowercase());
            let at = (self.fold(schema), self.fold(name));
            self.unproven.insert(at, definition.to_owned());
        }
    }

    /// Whether a stored function, of whatever schema, or a procedure bears this name, in lower case.
    pub(super) fn is_routine(&self, name: &str) -> bool {
        self.routines.contains(name)
    }

    /// Whether a stored function of this name, in lower case, counts as a read.
    pub(super) fn vouches_for(&self, name: &str) -> bool {
        self.vouched.contains(name)
    }

    /// The definition of a view that is not proven.
    pub(super) fn unproven_view(&self, schema: &str, name: &str) -> Option<&str> {
        let at = (self.fold(schema), self.fold(name));
        self.unproven.get(&at).map(String::as_str)
    }

    /// Whether something may be run behind a table or a view of this name, in lower case.
    pub(super) fn hides(&self, name: &str) -> bool {
        self.hiding.contains(name)
    }

    /// Whether there is a relation of this name.
    pub(super) fn knows(&self, schema: &str, name: &str) -> bool {
        let schema = self.relations.get(&self.fold(schema));
        schema.is_some_and(|names| names.contains_key(&self.fold(name)))
    }

    /// Whether a relation may be read on a replica, and whether it tells the time.
    pub(super) fn relation(&self, schema: &str, name: &str) -> Result<bool, Reason> {
        own_schema(schema)?;
        let names = self
            .relations
            .get(&self.fold(schema))
            .ok_or("unknown-table")?;
        match names.get(&self.fold(name)) {
            None => Err("unknown-table"),
            Some(Relation::Table) => Ok(false),
            Some(Relation::View {
                proven: true,
                uses_now,
            }) => Ok(*uses_now),
            Some(Relation::View { proven: false, .. }) => Err("view"),
            Some(Relation::Not(reason)) => Err(reason),
        }
    }
}

/// The schemas of the server itself differ from server to server.
pub(super) fn own_schema(schema: &str) -> Result<(), Reason> {
    let own = OWN_SCHEMAS.iter().any(|it| it.eq_ignore_ascii_case(schema));
    if own { Err("catalogue") } else { Ok(()) }
}

fn judge(kind: &str, engine: Option<&str>) -> Relation {
    let engine = engine.unwrap_or_default().to_ascii_lowercase();
    match kind {
        "VIEW" => Relation::View {
            proven: false,
            uses_now: false,
        },
        "BASE TABLE" | "SYSTEM VERSIONED" if ENGINES.contains(&engine.as_str()) => Relation::Table,
        "BASE TABLE" | "SYSTEM VERSIONED" => Relation::Not("engine"),
        "SEQUENCE" => Relation::Not("sequence"),
        _ => Relation::Not("unknown-table"),
    }
}

fn cell(row: &Row, at: usize) -> Option<&str> {
    row.get(at)?.as_deref()
}
