//! What a statement is: a proof that it only reads, or the reason why it goes to the primary.
//!
//! Pure: no socket, no clock; the rows of the catalogue are handed in. Not a check of syntax: the
//! server does that. Invariant: every doubt is a reason for the primary.
//!
//! The way of a text: `lexer` cuts it, `remembered` may know a text alike, `commands` knows by its first words all that is no query,
//! `walls` refuses by tokens alone, and `prove` walks the tree of a query and asks `catalogue` about
//! every relation in it. Of a text that is not understood, `scent` finds words that bind its session.

mod blame;
mod builtin;
mod catalogue;
mod classify;
mod commands;
mod hidden;
pub mod lexer;
mod masked;
mod prove;
mod remembered;
mod scent;
mod walls;
mod words;

#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_names;
#[cfg(test)]
mod tests_random;

use std::fmt::Write as _;

pub use catalogue::{COMPUTED, Catalogue, QUERIES, Row, TRIGGERS};
pub use classify::Classifier;
pub use commands::RELEASE;
pub use hidden::Hidden;
pub use masked::masked;
pub(crate) use scent::{mentioned, scent};

/// How texts are read in a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is one setting of the session"
)]
pub struct Mode {
    /// `sql_mode` has `ANSI_QUOTES`: double quotes hold names.
    pub ansi_quotes: bool,
    /// `sql_mode` has `NO_BACKSLASH_ESCAPES`.
    pub no_backslash_escapes: bool,
    /// `sql_mode` has `PIPES_AS_CONCAT`.
    pub pipes_as_concat: bool,
    /// No byte of ASCII is half of a character in `character_set_client`, as it is in sjis, gbk and
    /// big5.
    pub legible: bool,
    /// `sql_mode` has `IGNORE_SPACE`, or the client asked for it.
    pub ignore_space: bool,
    /// A text may have several statements.
    pub multi_statements: bool,
}

impl Mode {
    /// How texts are read under a `sql_mode`.
    #[must_use]
    pub fn of(modes: &str) -> Self {
        let has = |mode: &str| modes.split(',').any(|it| it.eq_ignore_ascii_case(mode));
        Self {
            ansi_quotes: has("ANSI_QUOTES") || has("ANSI"),
            no_backslash_escapes: has("NO_BACKSLASH_ESCAPES"),
            pipes_as_concat: has("PIPES_AS_CONCAT") || has("ANSI"),
            ignore_space: has("IGNORE_SPACE"),
            // Under ORACLE, MariaDB reads another language.
            legible: !has("ORACLE"),
            multi_statements: false,
        }
    }
}

/// What a text is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Class {
    /// Nothing at all: empty, or only comments.
    Empty,
    /// One statement proven to read only: it may run on a replica.
    Read,
    /// Goes to the primary, and why: a short fixed word that can label a metric.
    Primary(&'static str),
    /// BEGIN or START TRANSACTION.
    Begin {
        /// READ ONLY is said.
        read_only: bool,
        /// WITH CONSISTENT SNAPSHOT or READ WRITE is said.
        characteristics: bool,
    },
    /// COMMIT, without CHAIN or RELEASE.
    Commit,
    /// ROLLBACK of the whole transaction, without CHAIN or RELEASE.
    Rollback,
    /// SET TRANSACTION: of the next transaction only.
    SetTransaction,
    /// SET of settings of the session, which the server tells of.
    Set,
    /// SET autocommit, alone in its text.
    SetAutocommit(bool),
    /// USE of a schema.
    Use(String),
    /// Changes the schema: the catalogue must be read again.
    Ddl,
    /// Changes its session in a way that cannot be moved: the session keeps its connection.
    Pin(&'static str),
    /// `SHOW breccia.name`: for Breccia itself.
    OwnShow {
        /// What follows `breccia.`, in lower case.
        name: String,
    },
    /// `SET breccia.name = value`: for Breccia itself.
    OwnSet {
        /// What follows `breccia.`, in lower case.
        name: String,
        /// The value, without its quotes.
        value: String,
    },
    /// `RESET breccia.name`: for Breccia itself.
    OwnReset {
        /// What follows `breccia.`, in lower case.
        name: String,
    },
    /// Something of Breccia's own where it cannot be: among other statements, say.
    OwnMisplaced,
    /// SHOW WARNINGS, SHOW ERRORS, their counts, GET DIAGNOSTICS: about the statement before.
    ShowWarnings,
    /// KILL.
    Kill {
        /// Only what runs is ended, and not the connection.
        query: bool,
        /// The connection; `None`: it is named otherwise.
        id: Option<u64>,
    },
    /// LOAD DATA LOCAL or LOAD XML LOCAL: the client is asked for a file.
    LoadLocal,
}

/// What a statement asks about statements before, which only the connection they ran on knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Asked {
    /// `FOUND_ROWS()`: the last one that answered with rows.
    pub rows: bool,
    /// `ROW_COUNT()` and its kin: the last one.
    pub last: bool,
    /// `LASTVAL()` and its kin: one that took a number of a sequence.
    pub number: bool,
    /// Warnings and their counts: the last one that had some, or opened a table.
    pub warnings: bool,
}

impl Asked {
    /// Whether it asks anything.
    #[must_use]
    pub fn anything(self) -> bool {
        self.rows || self.last || self.number || self.warnings
    }
}

/// Whether a statement opens tables, be they of a schema or of the server's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tables {
    /// It does not.
    No,
    /// It does.
    Yes,
    /// That cannot be seen.
    Unknown,
}

/// Whether `FOUND_ROWS()` counts the rows of a statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Selects {
    /// It answers with none, or with some that are not counted.
    No,
    /// It does.
    Yes,
    /// That cannot be seen: it may select in the middle of a write.
    Unknown,
}

/// The class of a text and what else its session must know of it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is one fact, independent of the others"
)]
pub struct Verdict {
    /// What the text is.
    pub class: Class,
    /// A comment says `breccia: primary`.
    pub hint_primary: bool,
    /// Some statement of the text changes the schema.
    pub ddl: bool,
    /// At most one statement.
    pub single: bool,
    /// Each of its statements is a read.
    pub only_reads: bool,
    /// Asks for the last insert id: `LAST_INSERT_ID()`, `@@last_insert_id`, `@@identity`.
    pub asks_last_insert_id: bool,
    /// What it asks about statements before.
    pub asked: Asked,
    /// Whether it opens tables.
    pub tables: Tables,
    /// Whether the rows it answers with are what `FOUND_ROWS()` counts.
    pub selects: Selects,
    /// Says `SQL_CALC_FOUND_ROWS`.
    pub calculates_found_rows: bool,
    /// May set the last insert id.
    pub may_set_last_insert_id: bool,
    /// Tells the time, also in a view.
    pub uses_now: bool,
    /// Says SET STATEMENT: of a setting that a server tells, the value before holds again.
    pub restores: bool,
    /// Commits what is open before it runs.
    pub commits: bool,
    /// May take a number of a sequence.
    pub takes_number: bool,
    /// May end the connection: `COMMIT RELEASE`.
    pub may_release: bool,
    /// Variables that it sets as `@@name = …`, of which MariaDB tells nothing.
    pub untold: Vec<Box<str>>,
    /// What it may run besides what it says.
    pub hidden: Hidden,
}

impl Verdict {
    /// Whether what a server tells of one of its statements may come from what the text does not show.
    #[must_use]
    pub fn hides(&self) -> bool {
        match self.hidden {
            Hidden::Nothing => false,
            // Of several it is mostly another one, which says it.
            Hidden::Triggers => self.single,
            Hidden::Routines => true,
        }
    }

    /// The verdict of one statement that goes to the primary for this reason.
    #[must_use]
    pub fn of_primary(reason: &'static str) -> Self {
        Self {
            class: Class::Primary(reason),
            hint_primary: false,
            ddl: false,
            single: true,
            only_reads: false,
            asks_last_insert_id: false,
            asked: Asked::default(),
            tables: Tables::Unknown,
            selects: Selects::Unknown,
            calculates_found_rows: false,
            may_set_last_insert_id: false,
            uses_now: false,
            restores: false,
            commits: false,
            takes_number: false,
            may_release: false,
            untold: Vec::new(),
            hidden: Hidden::Nothing,
        }
    }

    /// Whether the last insert id may be read where the text does not say so: by a function, a view, a
    /// trigger or a program.
    #[must_use]
    pub fn may_ask_last_insert_id(&self) -> bool {
        const QUIET: [&str; 14] = [
            "admin",
            "chain",
            "cursor",
            "global",
            "kill",
            "lock-tables",
            "long-data",
            "password",
            "ping",
            "release",
            "savepoint",
            "set",
            "show",
            "status",
        ];
        match self.class {
            Class::Primary(reason) => !QUIET.contains(&reason),
            Class::Ddl | Class::Pin(_) | Class::LoadLocal => true,
            _ => self.asks_last_insert_id || self.may_set_last_insert_id,
        }
    }
}

/// A class in words for an administrator.
#[must_use]
pub fn shown(class: &Class) -> String {
    let mut text = String::new();
    let _ = match class {
        Class::Empty => write!(text, "nothing"),
        Class::Read => write!(text, "a read: a replica may serve it"),
        Class::Primary(reason) => write!(text, "goes to the primary ({reason}): {}", why(reason)),
        Class::Pin(reason) => write!(text, "its session keeps its connection ({reason})"),
        other => write!(text, "goes to the primary or is answered here: {other:?}"),
    };
    text
}

/// What a reason means.
fn why(reason: &str) -> &'static str {
    match reason {
        "no-catalogue" => "the tables of the primary have not been read yet, or have just changed",
        "unknown-table" => "a table in it is not known, or may not be seen by the monitoring user",
        "catalogue" => "it reads the server's own tables, which differ between servers",
        "view" => "it reads a view whose definition is not proven to read only",
        "engine" => "it reads a table of an engine that does not hold the same on a replica",
        "sequence" => "it uses a sequence",
        "generated-column" => {
            "a virtual column of a table in it is not proven to be the same on every server"
        }
        "function" => "it calls a function that is not known to read only",
        "variable" => "it reads a variable that differs between connections or servers",
        "locks" => "it locks what it reads",
        "into" => "it writes what it reads to a file or a variable",
        "executable-comment" => "it has a comment that some servers run",
        "optimizer-hint" => "it has a hint that sets a variable",
        "charset" => "its bytes can be read in several ways, by the character set",
        "unlexed" => "it cannot be cut into words",
        "unknown" => "it is no statement that is known here",
        "unproven" => "its syntax is not one that is proven",
        "long" | "too-long" => "it is too long to be proven",
        "several" => "it has several statements",
        _ => "it is not a read",
    }
}
