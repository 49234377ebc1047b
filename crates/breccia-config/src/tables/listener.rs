//! The tables of listeners. Data only.
//!
//! Invariant: every limit has a default, so that no listener is unbounded.

use super::{GIB, KIB, MIB, choice};
use crate::field::{
    Choice, Kind, SOME_TIME, Table, checked, count, flag, integer, optional, required, text,
};
use crate::plan::{PoolMode, Protocol};
use crate::rule;

choice!(PROTOCOLS, Protocol);
choice!(POOL_MODES, PoolMode);

pub(super) static LISTENER: Table = Table {
    name: "listener",
    header: "[listener.NAME]",
    doc: "Where clients come in.",
    fields: &[
        required(
            "protocol",
            Kind::Choice(&PROTOCOLS),
            "\"redis\"",
            "What clients speak.",
        ),
        required(
            "bind",
            Kind::Bind,
            "\"127.0.0.1:6380\"",
            "Where it listens. Off loopback it needs users, `tls.client-ca` or `insecure`.",
        ),
        checked(
            "store",
            Kind::StoreName,
            "\"cache\"",
            "**Required**, except for S3 with `buckets`: the store it serves. S3: clients make buckets in it. SQL: a `sql-read-replica`.",
        ),
        optional(
            "buckets",
            Kind::Buckets,
            "S3: the buckets there are, and the composite behind each. Keys are placed as they are.",
        ),
        optional(
            "tls",
            Kind::Table(&TLS_SERVER),
            "TLS towards clients; then none goes without. Without this table, plain.",
        ),
        flag(
            "insecure",
            false,
            "Lets anybody who can reach it use it. S3: unsigned requests may do everything.",
        ),
        text(
            "deadline",
            SOME_TIME,
            "1s",
            "How long a request may wait here before it is sent, for S3: for buffers; then it fails, not applied. Not for SQL, which has `queue-timeout`.",
        ),
        integer(
            "max-clients",
            count(1_000_000),
            10_000,
            "The most clients at once.",
        ),
        optional(
            "idle-timeout",
            SOME_TIME,
            "How long a client may be silent. Default: for ever; S3: `\"2m\"`.",
        ),
        optional(
            "max-request-size",
            Kind::Size {
                least: KIB,
                most: 4 * GIB,
            },
            "The largest request. S3: the largest XML body; objects have S3's own limits. Default: `\"64MiB\"`; Redis and MySQL: `\"1GiB\"`.",
        ),
        text(
            "max-held-request",
            Kind::Size {
                least: KIB,
                most: GIB,
            },
            "64MiB",
            "Redis: the largest request that must be held until it is whole. Those of one key are passed on as they come, and only `max-request-size` bounds them.",
        ),
        integer(
            "max-arguments",
            Kind::Integer {
                least: 16,
                most: 1_048_576,
            },
            1_048_576,
            "The most arguments of a request. Not for S3 and SQL.",
        ),
        integer(
            "max-in-flight",
            count(1_000_000),
            1024,
            "The most unanswered requests of one client; then its next bytes wait. Not for SQL.",
        ),
        text(
            "reply-buffer",
            Kind::Size {
                least: 16 * KIB,
                most: GIB,
            },
            "8MiB",
            "How much of its replies may wait for a client that does not read. Not for S3 and SQL.",
        ),
        optional(
            "write-timeout",
            SOME_TIME,
            "How long a reply may wait for a client that does not read; then the client is disconnected. Default: `\"10s\"`; S3 and SQL: `\"30s\"`.",
        ),
        text(
            "min-body-rate",
            Kind::Size {
                least: 0,
                most: GIB,
            },
            "1KiB",
            "How many bytes a second the sender of a big request must keep up; 0: no floor. Not for SQL.",
        ),
        optional(
            "domain",
            Kind::Ruled(&rule::DOMAIN),
            "S3: the domain whose subdomains are buckets (`BUCKET.DOMAIN`). Without it, path style only.",
        ),
        text(
            "region",
            Kind::Ruled(&rule::REGION),
            "us-east-1",
            "S3: the region it says it is in. Signatures may name any.",
        ),
        text(
            "buffer-memory",
            Kind::Size {
                least: MIB,
                most: 1 << 40,
            },
            "128MiB",
            "S3: how much of all bodies it may hold at once.",
        ),
        text(
            "pool-mode",
            Kind::Choice(&POOL_MODES),
            "transaction",
            "SQL: how long a client keeps an upstream connection: until its transaction ends, or until it leaves.",
        ),
        integer(
            "pool-size",
            count(10_000),
            20,
            "SQL: the most upstream connections for each role, database (MySQL: capabilities) and server.",
        ),
        text(
            "queue-timeout",
            SOME_TIME,
            "10s",
            "SQL: how long a client may wait for an upstream connection; then its statement fails, not applied.",
        ),
        optional(
            "idle-in-transaction-timeout",
            SOME_TIME,
            "SQL: how long a transaction may wait for its client; then the client is disconnected. Default: for ever.",
        ),
        optional(
            "transaction-timeout",
            SOME_TIME,
            "SQL: how long a transaction may take; then the client is disconnected, once the statement that runs has ended. Default: for ever.",
        ),
        text(
            "slow-statement",
            SOME_TIME,
            "1s",
            "SQL: a statement that takes this long is told to the log, without its literals.",
        ),
        text(
            "max-lifetime",
            SOME_TIME,
            "1h",
            "SQL: how old an upstream connection may grow; then it is closed as soon as nobody uses it.",
        ),
        text(
            "upstream-idle-timeout",
            SOME_TIME,
            "10m",
            "SQL: how long an upstream connection may be idle; then it is closed.",
        ),
        optional(
            "auth-query",
            Kind::Text,
            "PostgreSQL: a query for the name and the verifier of a user `$1` that has no `user` table here, asked as the servers' `user`.",
        ),
        flag(
            "allow-md5",
            false,
            "PostgreSQL: lets clients prove their password with MD5, for those that know no SCRAM.",
        ),
        flag(
            "local-infile",
            false,
            "MySQL: lets the server ask clients for files of theirs (`LOAD DATA LOCAL INFILE`).",
        ),
        optional(
            "user",
            Kind::List(&USER),
            "Who may log in. Without users nobody has to, except for S3, which needs one or `insecure`; MySQL goes without only if every server has a `user`, whom all are then. Not for memcached.",
        ),
    ],
};

static TLS_SERVER: Table = Table {
    name: "tls-server",
    header: "[listener.NAME.tls]",
    doc: "TLS towards clients.",
    fields: &[
        required(
            "cert",
            Kind::File,
            "\"cert.pem\"",
            "The certificate chain, PEM.",
        ),
        required("key", Kind::File, "\"key.pem\"", "Its key, PEM."),
        optional(
            "client-ca",
            Kind::File,
            "Who signs client certificates, PEM. With it, every client must show one.",
        ),
    ],
};

static USER: Table = Table {
    name: "user",
    header: "[[listener.NAME.user]]",
    doc: "One user. A client that gives only a password is `default`.",
    fields: &[
        required(
            "name",
            Kind::Text,
            "\"default\"",
            "The name to log in with; S3: for logs and messages.",
        ),
        optional(
            "password",
            Kind::Secret,
            "The password. Without it any will do; PostgreSQL: this or `scram-verifier`; MySQL: **required**. Not for S3.",
        ),
        optional(
            "scram-verifier",
            Kind::Secret,
            "PostgreSQL, instead of `password`: what proves it, `SCRAM-SHA-256$ITERATIONS:SALT$STOREDKEY:SERVERKEY`.",
        ),
        optional(
            "upstream-user",
            Kind::Text,
            "SQL: the role the user has upstream. Default: the servers' `user`, or else its own name, with MySQL also its own password.",
        ),
        optional(
            "upstream-password",
            Kind::Secret,
            "SQL: the password of `upstream-user`.",
        ),
        optional(
            "access-key",
            Kind::Ruled(&rule::ACCESS_KEY),
            "S3, **required** there: the public half of the key pair.",
        ),
        optional(
            "secret-key",
            Kind::Secret,
            "S3, **required** there: the secret half.",
        ),
        optional(
            "buckets",
            Kind::BucketNames,
            "S3: the buckets the user sees. Default: all.",
        ),
        flag("read-only", false, "S3: the user may only read."),
    ],
};
