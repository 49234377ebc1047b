//! The table of a primary with its read replicas. Data only.
//!
//! Not its members' (`blob.rs`): a database is one type of store, whatever it is used for.
//! Invariant: every wait has a bound.

use super::choice;
use crate::field::{ANY_TIME, Choice, Kind, SOME_TIME, Table, optional, required, text};
use crate::plan::{Consistency, TransactionRouting};

choice!(CONSISTENCIES, Consistency);
choice!(TRANSACTIONS, TransactionRouting);

pub(crate) static SQL_READ_REPLICA: Table = Table {
    name: "sql-read-replica",
    header: "[store.NAME]",
    doc: "A composite: a database server and its read replicas as one server, of `postgresql` stores or of `mysql` stores. No composite lists it.",
    fields: &[
        required(
            "primary",
            Kind::StoreName,
            "\"pg-1\"",
            "The server that takes writes. The servers are asked, so a promotion is followed.",
        ),
        required(
            "replicas",
            Kind::ReplicaNames,
            "[\"pg-2\"]",
            "The servers that may answer reads; `[]` if there are none yet.",
        ),
        text(
            "consistency",
            Kind::Choice(&CONSISTENCIES),
            "session",
            "What a read sees at least: what its session wrote or has read; every commit acknowledged before it; or the state of `max-lag` ago.",
        ),
        text(
            "transactions",
            Kind::Choice(&TRANSACTIONS),
            "primary",
            "Where transactions go: to the primary; or, `lazy`, their first reads to a replica until something else comes. `lazy` acts only under READ COMMITTED; that is PostgreSQL's default, but MySQL's and MariaDB's is REPEATABLE READ.",
        ),
        text(
            "max-lag",
            SOME_TIME,
            "10s",
            "A replica that lags more answers nobody; with `eventual`, also how old an answer may be.",
        ),
        text(
            "replica-wait",
            ANY_TIME,
            "10ms",
            "How long a read may wait for a replica to come up to it; then the primary answers.",
        ),
        optional(
            "read-functions",
            Kind::FunctionNames,
            "Functions of yours that count as reads although their bodies cannot be proven. You vouch for each of that name: it writes nothing, locks nothing, and leaves nothing in its session. Default: none.",
        ),
    ],
};
