//! The error of a prepared statement whose columns are not what its client was told.
//!
//! Not the finding out ([`super::super::looks`]). Invariant: it is worded as PostgreSQL's own, for
//! drivers go by it.

use crate::postgres::codec::message::{self, Status};

/// What PostgreSQL says of a prepared statement whose columns are not what they were, or of any in a
/// transaction that has failed. Drivers that know of it look at the function's name.
pub(super) fn write(out: &mut Vec<u8>, status: Option<Status>) {
    let ((sqlstate, text), place) = match status {
        Some(Status::Failed) => (message::ABORTED, "exec_bind_message"),
        _ => (
            ("0A000", "cached plan must not change result type"),
            "RevalidateCachedQuery",
        ),
    };
    message::frame(out, b'E', |out| {
        let fields = [
            ('S', "ERROR"),
            ('V', "ERROR"),
            ('C', sqlstate),
            ('M', text),
            ('R', place),
        ];
        for (name, value) in fields {
            out.push(u8::try_from(name).unwrap_or_default());
            message::write_text(out, value.as_bytes());
        }
        out.push(0);
    });
}
