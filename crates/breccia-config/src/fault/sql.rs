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
        "lists '{name}', which is of type {kind}, and a sql-read-replica is made of postgresql stores, or of mysql stores; list one for each server"
    )]
    NotAServer {
        /// The member.
        name: String,
        /// Its type.
        kind: &'static str,
    },
    /// A sql-read-replica as a member of something.
    #[error(
        "lists '{name}', which is of type sql-read-replica, and no composite is made of those; take it out, and serve it with {protocol}"
    )]
    NoMember {
        /// The member.
        name: String,
        /// The protocol it is served with, as the file says it.
        protocol: &'static str,
    },
    /// Servers of two protocols in one composite.
    #[error(
        "lists '{first}', which is of type {kind}, and '{name}', which is of type {other}, and a sql-read-replica has servers of one type; make a sql-read-replica of each"
    )]
    MixedServers {
        /// A server.
        first: String,
        /// Its type.
        kind: &'static str,
        /// One of another type.
        name: String,
        /// That type.
        other: &'static str,
    },
    /// A primary of another protocol than all of its replicas.
    #[error(
        "names '{name}', which is of type {kind}, and the replicas are of type {replicas}; name the {replicas} store that they replicate from, or, if '{name}' is the primary, list {kind} stores in `replicas`"
    )]
    StrangePrimary {
        /// The primary.
        name: String,
        /// Its type.
        kind: &'static str,
        /// The type of its replicas.
        replicas: &'static str,
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
        "is missing, and '{composite}' keeps objects in this database; add user = \"breccia\": only stores that no sharded-blob lists go without"
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
        "a {kind} listener serves stores of type sql-read-replica, and '{store}' is of type {kind}; wrap it: a [store.NAME] with type = \"sql-read-replica\", primary = \"{store}\" and replicas = []"
    )]
    NeedsReadReplica {
        /// The store.
        store: String,
        /// Its type, and the listener's protocol.
        kind: &'static str,
    },
    /// A listener without users before servers without one.
    #[error(
        "is missing, and store '{store}' has no `user`, so Breccia would not know who to log in there as: a MySQL client shows no password that could be passed on; add a [[{listener}.user]], or `user` and `password` to each server"
    )]
    NobodyToLogInAs {
        /// The listener's place in the file.
        listener: String,
        /// A server without a user.
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
