//! What a statement is: a proof that it only reads, or the reason why it goes to the primary.
//!
//! Pure: no socket, no clock, no connection; the rows of the database's catalogue are handed in.
//! Not a check of syntax: the server does that. Invariant: every doubt is a reason for the primary.
//!
//! The way of a text: `shapes` knows it if it was seen lately, else `lexer` masks its literals (the key of the cache), `commands` knows all that
//! is not a query by its first words, `walls` refuses by tokens alone, and `prove` walks the tree
//! of a query and asks `catalogue` about every name in it.

pub mod catalogue;
mod classify;
mod commands;
mod expressions;
pub mod lexer;
mod prove;
mod shapes;
mod shown;
mod signs;
mod types;
mod walls;

#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_blame;
#[cfg(test)]
mod tests_lexer;
#[cfg(test)]
mod tests_pins;
#[cfg(test)]
mod tests_support;

pub use catalogue::{Blame, Catalogue, CatalogueBuilder, QUERIES};
pub use classify::Classifier;
pub(crate) use classify::{LAST_VALUE, START};
pub use shown::shown;
pub use signs::Signs;
pub(crate) use walls::names_temp;

/// What a text sent by a client is.
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
        /// Nothing is said that raises the isolation above READ COMMITTED.
        read_committed: bool,
    },
    /// COMMIT or END, not AND CHAIN.
    Commit,
    /// ROLLBACK or ABORT of the whole transaction: not TO SAVEPOINT, not AND CHAIN.
    Rollback,
    /// `SET name = value` or `SET SESSION name = value`, alone in its text.
    Set {
        /// The parameter, in lower case unless quoted.
        name: String,
        /// The value as written; `None` for DEFAULT.
        value: Option<String>,
    },
    /// RESET.
    Reset {
        /// The parameter; `None` for ALL.
        name: Option<String>,
    },
    /// DISCARD ALL.
    DiscardAll,
    /// DEALLOCATE.
    Deallocate {
        /// The prepared statement; `None` for ALL.
        name: Option<String>,
    },
    /// Changes its session in a way that cannot be moved: the session keeps its connection.
    Pin(&'static str),
    /// DDL: goes to the primary, and the catalogue must be read again afterwards.
    Ddl,
    /// `SET breccia.name = value`: for Breccia itself.
    OwnSet {
        /// What follows `breccia.`.
        name: String,
        /// The value, without its quotes.
        value: String,
    },
    /// `SHOW breccia.name`: for Breccia itself.
    OwnShow {
        /// What follows `breccia.`.
        name: String,
    },
    /// `RESET breccia.name`: for Breccia itself.
    OwnReset {
        /// What follows `breccia.`.
        name: String,
    },
    /// Something of Breccia's own where it cannot be: among other statements, or with LOCAL.
    OwnMisplaced,
}

impl Class {
    /// Whether Breccia itself answers.
    #[must_use]
    pub fn is_own(&self) -> bool {
        matches!(
            self,
            Self::OwnSet { .. } | Self::OwnShow { .. } | Self::OwnReset { .. } | Self::OwnMisplaced
        )
    }
}

/// The class of a text and what else its session must know of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// What the text is.
    pub class: Class,
    /// A comment says `breccia: primary`.
    pub hint_primary: bool,
    /// Some statement of the text changes the catalogue.
    pub ddl: bool,
    /// Tells when its transaction began: `now()`, `current_timestamp` and kin, also in a view.
    pub uses_now: bool,
    /// Exactly one statement.
    pub single: bool,
}
