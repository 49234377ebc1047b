//! What can be wrong with what a file says of SQL.
//!
//! Not where it is, and not what other protocols share (`error.rs`). Invariant: as there, a message
//! is `what; what to do` and shows no secret.

/// What is wrong at one place that is about SQL. Each message is `what; what to do`.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SqlConfigError {
    /// A member that is no database server.
    #[error(
        "lists '{name}', which is of type {kind}, and in this release a sql-read-replica is made of postgresql stores; list one for each PostgreSQL server"
    )]
    NotAServer {
        /// The member.
        name: String,
        /// Its type.
        kind: &'static str,
    },
    /// A sql-read-replica as a member of something.
    #[error(
        "lists '{name}', which is of type sql-read-replica, and no composite is made of those; take it out, and serve it with protocol = \"postgresql\""
    )]
    NoMember {
        /// The member.
        name: String,
    },
    /// Two members are one server.
    #[error(
        "lists '{name}' and '{other}', which are one server ({address}); list each server once"
    )]
    SameServer {
        /// The member that comes later.
        name: String,
        /// The other one.
        other: String,
        /// The address of both.
        address: String,
    },
    /// A database without a user that holds objects.
    #[error(
        "is missing, and '{composite}' keeps objects in this database; add user = \"breccia\": only stores that no sharded-blob lists, and a sql-read-replica does, go without"
    )]
    UserForBlobs {
        /// The composite of blobs that lists it.
        composite: String,
    },
    /// A database server that Breccia cannot ask what it is.
    #[error(
        "is missing, and without it nobody is served: there is no `user`, so clients log in to the server as themselves, and Breccia has no role of its own to ask for its state as; add monitor-user = \"monitor\" with monitor-password, or `user`"
    )]
    NobodyToAskAs,
    /// Servers of one composite that clients would be different roles on.
    #[error(
        "lists '{first}', which has {says}, and '{name}', which has {other}, so a session would be another role on each; give all of them one `user`, or none, and name who Breccia asks as with `monitor-user`"
    )]
    SeveralRoles {
        /// A server.
        first: String,
        /// What it says of its user.
        says: String,
        /// Another one.
        name: String,
        /// What that says.
        other: String,
    },
    /// The text is no verifier. It is not shown.
    #[error(
        "is not a SCRAM verifier; write SCRAM-SHA-256$ITERATIONS:SALT$STOREDKEY:SERVERKEY, as PostgreSQL keeps it in pg_authid"
    )]
    BadVerifier,
    /// A database server by itself behind an SQL listener.
    #[error(
        "a postgresql listener serves stores of type sql-read-replica, and '{store}' is of type postgresql; wrap it: a [store.NAME] with type = \"sql-read-replica\", primary = \"{store}\" and replicas = []"
    )]
    NeedsReadReplica {
        /// The store.
        store: String,
    },
    /// A query for verifiers that nobody can ask.
    #[error(
        "is asked as the `user` or `monitor-user` of the server, and store '{store}' has neither; add one there, or drop `auth-query`"
    )]
    AuthQueryNeedsUser {
        /// A server without a user.
        store: String,
    },
}
