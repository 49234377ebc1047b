//! What a session hears of its connection's answers.
//!
//! Not the answers. Invariant: what a server skipped is news, and what it did mostly is none.

use super::{Described, Freed};
use crate::postgres::codec::message::Status;
use crate::postgres::described::Shape;

/// Which command is complete, as far as a session must know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Tag {
    Commit,
    Set,
    Reset,
    DeallocateAll,
    Other,
}

impl Tag {
    pub(super) fn of(words: &[u8]) -> Self {
        match words {
            b"COMMIT" => Self::Commit,
            b"SET" => Self::Set,
            b"RESET" => Self::Reset,
            b"DEALLOCATE ALL" => Self::DeallocateAll,
            _ => Self::Other,
        }
    }
}

/// What the session must hear of, beside the bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) enum News {
    /// A command of the client is complete.
    Complete(Tag),
    /// The client's statement failed; the SQLSTATE.
    Failed(Vec<u8>),
    /// A statement has other columns than the client was told.
    Stale,
    /// The same, and it is the server that noticed: somebody has changed the database.
    Outdated,
    /// A statement was described.
    Described(Box<Described>, Shape),
    /// A question of Breccia's own failed; the whole body of the error.
    OwnFailed(Vec<u8>),
    /// A statement of the registry could not be prepared; the change of a name that is none then, by its
    /// number.
    NotPrepared(u64, Option<u64>),
    /// A change of a name is none: the server skipped it. Its number.
    Undone(u64),
    /// The server has skipped this change of the unnamed statement.
    UnnamedSkipped(u64),
    /// It could not carry out this one, and has no unnamed statement since.
    UnnamedFailed(u64),
    /// It has skipped what should have made the session's unnamed statement its own.
    UnnamedElsewhere,
    /// A statement that Breccia closed may still be there.
    NotClosed,
    /// Prepared statements are still there: letting go of all of them failed.
    NotEmptied,
    /// One is still there: letting go of it failed.
    NotFreed(Box<Freed>),
    /// DISCARD ALL is complete; whether nothing was asked behind it.
    Discarded { last: bool },
    /// A parameter of the connection is another; the body that says so, and whether the client got
    /// it.
    Parameter(Vec<u8>, bool),
    /// A batch of the client is over, and what it changed is so: `ReadyForQuery`.
    Ready(Status),
    /// More may come than is owed: the connection is for nobody else.
    Unread,
    /// The connection ends: the server said so; the SQLSTATE, and whether the client heard it.
    Fatal(Vec<u8>, bool),
    /// The connection ends: the server said so in a warning, as it does when it is shut down at once
    /// or another of its processes has crashed.
    Ends,
}
