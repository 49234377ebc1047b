//! What can go wrong between a driver and its server, and what the caller is told.
//!
//! Not the drivers' own errors: each driver maps those here. Invariant: a fault whose statement may
//! still take effect is told as `Unknown` by whoever knows the phase; here nothing is guessed.

use breccia_core::error::Effect;

use super::statements::Dialect;
use crate::error::BlobError;

/// A failed statement, connection or unit of work.
#[derive(Debug)]
pub(crate) enum Fault {
    /// Decided by us: a condition, a body, a missing upload. The transaction is rolled back.
    Decided(BlobError),
    /// No connection, or it broke.
    Lost(String),
    /// No answer in time.
    Late,
    /// The server rolled it back because of somebody else: try again.
    Busy,
    /// No free connection in time, or the server has no room for one more.
    Overloaded(String),
    /// No room left.
    Full(String),
    /// A table is missing: the schema was never made.
    NoTable,
    /// The file or machine failed.
    System(String),
    /// What is stored is not what was written.
    Damaged(String),
    /// The server refuses the statement.
    Refused {
        /// Its code.
        code: String,
        /// Its words.
        message: String,
    },
    /// An answer that makes no sense.
    Protocol(String),
}

impl From<BlobError> for Fault {
    fn from(error: BlobError) -> Self {
        Self::Decided(error)
    }
}

impl Fault {
    /// Whether the connection may be used again after a rollback.
    pub(crate) fn spares_connection(&self) -> bool {
        matches!(
            self,
            Self::Decided(_)
                | Self::Busy
                | Self::Full(_)
                | Self::NoTable
                | Self::Damaged(_)
                | Self::Refused { .. }
        )
    }

    /// Whether a COMMIT that ends with it may have been carried out. MySQL and MariaDB may refuse one
    /// that is in the binary log already; the others undo what they refuse.
    pub(crate) fn leaves_commit_open(&self, dialect: Dialect) -> bool {
        match self {
            Self::Lost(_) | Self::Late | Self::System(_) | Self::Protocol(_) => true,
            Self::Refused { .. } => dialect == Dialect::Mysql,
            _ => false,
        }
    }

    /// The error the caller is told.
    pub(crate) fn into_error(self, store: &str, effect: Effect) -> BlobError {
        let store = store.to_owned();
        match self {
            Self::Decided(error) => error,
            Self::Lost(reason) => BlobError::Down {
                store,
                reason,
                effect,
            },
            Self::Late => BlobError::Timeout { store, effect },
            Self::Busy => BlobError::Conflict { store },
            Self::Overloaded(limit) => BlobError::Overloaded { store, limit },
            Self::Full(reason) => BlobError::Full { store, reason },
            Self::NoTable => BlobError::NotUsed {
                store,
                reason: "its tables are gone; restore them, or restart to make new ones".to_owned(),
            },
            Self::System(reason) => BlobError::System {
                store,
                what: "the database file".to_owned(),
                reason,
                effect,
            },
            Self::Damaged(problem) => BlobError::Damaged { store, problem },
            Self::Refused { code, message } => BlobError::Server {
                store,
                status: 0,
                code,
                message,
                effect,
            },
            Self::Protocol(problem) => BlobError::Protocol {
                store,
                problem,
                effect,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_refused_commit_leaves_open_depends_on_the_server() {
        let refused = Fault::Refused {
            code: "1180".to_owned(),
            message: "Got error 5 during COMMIT".to_owned(),
        };
        let check = |fault: &Fault, dialect, open| {
            assert_eq!(fault.leaves_commit_open(dialect), open, "{fault:?}");
        };
        check(&refused, Dialect::Mysql, true);
        check(&refused, Dialect::Postgresql, false);
        check(&Fault::Busy, Dialect::Mysql, false);
        check(&Fault::Late, Dialect::Postgresql, true);
    }
}
