//! What clients are told of trouble of Breccia's own: a server's number and SQLSTATE for it.
//!
//! Invariant: a number says what a client may do. Those of class 08 mean that a connection is to be made
//! anew; none is one that a server gives for a statement that was carried out.

use crate::error::SqlError;

/// The number and the SQLSTATE that stand for an error.
#[must_use]
pub fn code_of(error: &SqlError) -> (u16, [u8; 5]) {
    match error {
        SqlError::Refused {
            sqlstate, errno, ..
        }
        | SqlError::Settings {
            sqlstate, errno, ..
        }
        | SqlError::Question {
            sqlstate, errno, ..
        } => {
            let state = sqlstate.as_bytes().try_into().unwrap_or(*b"HY000");
            (errno.unwrap_or(1105), state)
        }
        SqlError::Interrupted {
            errno, sqlstate, ..
        } => {
            let state = sqlstate.as_bytes().try_into().unwrap_or(*b"08S01");
            (*errno, state)
        }
        // ER_UNKNOWN_ERROR.
        SqlError::Forgotten => (1105, *b"HY000"),
        // ER_CON_COUNT_ERROR: too many connections.
        SqlError::PoolFull { .. } | SqlError::Crowded => (1040, *b"08004"),
        // ER_NET_READ_ERROR: the connection to the server is no more, and what it did is unknown.
        SqlError::Lost { .. }
        | SqlError::Codec { .. }
        | SqlError::Malformed { .. }
        | SqlError::Left => (1158, *b"08S01"),
        // ER_QUERY_INTERRUPTED.
        SqlError::Cancelled => (1317, *b"70100"),
        // ER_ACCESS_DENIED_ERROR.
        SqlError::Login { .. } | SqlError::Method { .. } | SqlError::Scram { .. } => {
            (1045, *b"28000")
        }
        // ER_SERVER_SHUTDOWN: there is no server for it now, and another try may find one.
        SqlError::Connect { .. }
        | SqlError::Down { .. }
        | SqlError::NoTls { .. }
        | SqlError::Timeout { .. }
        | SqlError::Hanging { .. }
        | SqlError::Paused { .. }
        | SqlError::Deposed { .. }
        | SqlError::NoPrimary { .. }
        | SqlError::LastValue => (1053, *b"08S01"),
    }
}
