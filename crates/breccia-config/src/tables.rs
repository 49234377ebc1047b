//! Every table and key of the configuration file.
//!
//! Data only. Invariant: a key that is not described here does not exist; a default that is not
//! written here is not one.

use breccia_core::hash::HashKind;

use crate::field::{
    ANY_TIME, Choice, Field, Kind, NameRule, SOME_TIME, Table, count, flag, implied, integer,
    optional, required, text,
};
use crate::plan::{Eviction, LogFormat, LogLevel, MultiKey, Protocol, SubscriptionLoss};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// The whole file.
pub(crate) static FILE: Table = Table {
    name: "file",
    header: "",
    doc: "Keys before the first table header.",
    fields: &[
        optional("workers", count(1024), "Worker threads. Default: one for each core."),
        text("drain-timeout", ANY_TIME, "30s", "How long a drain waits for requests in flight."),
        implied("log", &LOG, "What is logged."),
        optional("admin", Kind::Table(&ADMIN), "The admin listener. Without it there is none."),
        implied("state", &STATE, "Where layouts are kept."),
        optional("store", STORES, "The stores, each under its name."),
        optional(
            "listener",
            Kind::Named { rule: NameRule::Store, table: &LISTENER },
            "The listeners, each under its name.",
        ),
    ],
};

const STORES: Kind = Kind::Typed {
    rule: NameRule::Store,
    variants: &[&REDIS, &MEMCACHED, &MEMORY, &SHARDED_IN_MEMORY],
    later: &[
        "redis-cluster",
        "redis-sentinel",
        "fs",
        "sqlite",
        "s3",
        "azure",
        "gcs",
        "postgresql",
        "mysql",
        "sharded-blob",
        "sql-read-replica",
    ],
};

static LOG: Table = Table {
    name: "log",
    header: "[log]",
    doc: "What is logged, to standard error.",
    fields: &[
        text("level", Kind::Choice(&LOG_LEVELS), "info", "The least severe level that is logged."),
        text("format", Kind::Choice(&LOG_FORMATS), "text", "For people, or one JSON object a line."),
    ],
};

static ADMIN: Table = Table {
    name: "admin",
    header: "[admin]",
    doc: "`/healthz`, `/readyz`, `/metrics`, `/status` and `POST /reload`.",
    fields: &[
        text("bind", Kind::SocketAddress, "127.0.0.1:9180", "Where it listens."),
        optional(
            "token",
            Kind::Secret,
            "What a caller must show, as `Authorization: Bearer …`, for all but `/metrics`, `/healthz` and `/readyz`.",
        ),
        flag("insecure", false, "Lets it listen off loopback without a token."),
    ],
};

static STATE: Table = Table {
    name: "state",
    header: "[state]",
    doc: "The folder that keeps layouts. One process uses it at a time.",
    fields: &[text("dir", Kind::Folder, "breccia-data", "The folder, as seen from this file.")],
};

pub(crate) static REDIS: Table = Table {
    name: "redis",
    header: "[store.NAME] type = \"redis\"",
    doc: "One Redis server, or another that speaks its protocol.",
    fields: &[
        required(
            "url",
            Kind::RedisUrl,
            "\"redis://127.0.0.1:6379/0\"",
            "`redis://user:password@host:port/database`, `rediss://…` for TLS (`#insecure` at its end accepts any certificate), or `unix:///path?db=N`. User and password percent-encoded.",
        ),
        optional("user", Kind::Text, "The user to log in as, if the url names none."),
        optional("password", Kind::Secret, "The password to log in with, if the url has none."),
        optional("tls", Kind::Table(&TLS_CLIENT), "More about TLS; needs `rediss://`."),
        TIMEOUT,
        STALL_GATE,
        CONNECTIONS,
        MAX_IN_FLIGHT,
        integer(
            "max-leases",
            count(65_536),
            256,
            "The most leased connections (transactions, blocking commands, big values) of a worker.",
        ),
        integer(
            "databases",
            count(1024),
            1,
            "How many databases a client may SELECT: its 0 is the url's database, its 1 the next.",
        ),
        PROBE_INTERVAL,
        PROBE_TIMEOUT,
    ],
};

pub(crate) static MEMCACHED: Table = Table {
    name: "memcached",
    header: "[store.NAME] type = \"memcached\"",
    doc: "One memcached server, 1.6 or later.",
    fields: &[
        required("address", Kind::Address, "\"127.0.0.1:11211\"", "The server."),
        TIMEOUT,
        STALL_GATE,
        CONNECTIONS,
        MAX_IN_FLIGHT,
        PROBE_INTERVAL,
        PROBE_TIMEOUT,
    ],
};

const TIMEOUT: Field = text(
    "timeout",
    SOME_TIME,
    "5s",
    "How long a sent request may stay unanswered; then its outcome is unknown.",
);
const STALL_GATE: Field = text(
    "stall-gate",
    SOME_TIME,
    "50ms",
    "While the oldest unanswered request is older than this, nothing more is sent.",
);
const CONNECTIONS: Field =
    integer("connections", count(1024), 1, "Shared connections of each worker.");
const MAX_IN_FLIGHT: Field = integer(
    "max-in-flight",
    count(1_000_000),
    16_384,
    "The most requests of a worker that wait here or there; more fail at once.",
);
const PROBE_INTERVAL: Field = text("probe-interval", SOME_TIME, "1s", "Time between health probes.");
const PROBE_TIMEOUT: Field =
    text("probe-timeout", SOME_TIME, "500ms", "How long a probe may stay unanswered.");

pub(crate) static MEMORY: Table = Table {
    name: "memory",
    header: "[store.NAME] type = \"memory\"",
    doc: "A store inside this process. It is empty after a restart.",
    fields: &[
        optional(
            "max-memory",
            Kind::Size { least: MIB, most: 1 << 44 },
            "The most it may hold. Default: no limit.",
        ),
        text(
            "eviction",
            Kind::Choice(&EVICTIONS),
            "noeviction",
            "At `max-memory`: refuse writes that need room, or let the least used entries go.",
        ),
    ],
};

pub(crate) static SHARDED_IN_MEMORY: Table = Table {
    name: "sharded-in-memory",
    header: "[store.NAME] type = \"sharded-in-memory\"",
    doc: "A composite: one store made of in-memory stores, composites among them.",
    fields: &[
        required(
            "stores",
            Kind::StoreNames,
            "[\"redis-a\", \"redis-b\"]",
            "The shards. Their order counts once, when the layout is made.",
        ),
        text("hash", Kind::Choice(&HASHES), "xxh3-64", "The hash of a key."),
        optional(
            "hash-tag",
            Kind::HashTag,
            "With `\"{}\"` only the part of a key between the first `{` and the next `}` is hashed. Placement then differs from the plain rule.",
        ),
        flag("marker", false, "Keeps a marker with the layout on every shard, as one key."),
        optional("layout-digest", Kind::Digest, "The only layout that is accepted."),
        text(
            "multi-key",
            Kind::Choice(&MULTI_KEYS),
            "shard",
            "What the keys of a command that cannot be split must share.",
        ),
        optional(
            "command",
            Kind::Named { rule: NameRule::Command, table: &COMMAND },
            "Where module commands have their keys, each under its name.",
        ),
        text(
            "subscription-loss",
            Kind::Choice(&SUBSCRIPTION_LOSSES),
            "disconnect",
            "What subscribers see when a shard's subscription connection is lost.",
        ),
    ],
};

static COMMAND: Table = Table {
    name: "command",
    header: "[store.NAME.command.\"COMMAND\"]",
    doc: "The keys of a module command, in the terms of Redis's own COMMAND reply. A name with a dot is quoted: `command.\"JSON.GET\"`.",
    fields: &[
        required(
            "first-key",
            count(1_000_000),
            "1",
            "The first argument that is a key; the command's name is argument 0.",
        ),
        optional(
            "last-key",
            Kind::Integer { least: -1_000_000, most: 1_000_000 },
            "The last one; -1 is the last argument. Default: `first-key`.",
        ),
        integer("step", count(1_000_000), 1, "The distance between keys."),
        flag("write", true, "Whether the command may change data."),
    ],
};

static TLS_CLIENT: Table = Table {
    name: "tls-client",
    header: "[store.NAME.tls]",
    doc: "TLS towards a server.",
    fields: &[
        optional("ca", Kind::File, "Certificates to trust, PEM. Default: the system's."),
        optional("cert", Kind::File, "The own certificate, PEM; needs `key`."),
        optional("key", Kind::File, "The own key, PEM."),
        optional(
            "server-name",
            Kind::Text,
            "The name the server's certificate must carry. Default: the url's host.",
        ),
        flag("insecure", false, "Accepts any certificate."),
    ],
};

static LISTENER: Table = Table {
    name: "listener",
    header: "[listener.NAME]",
    doc: "Where clients come in.",
    fields: &[
        required("protocol", Kind::Choice(&PROTOCOLS), "\"redis\"", "What clients speak."),
        required(
            "bind",
            Kind::Bind,
            "\"127.0.0.1:6380\"",
            "Where it listens. Off loopback it needs users, `tls.client-ca` or `insecure`.",
        ),
        required("store", Kind::StoreName, "\"cache\"", "The store it serves."),
        optional("tls", Kind::Table(&TLS_SERVER), "TLS towards clients. Without it, plain."),
        flag("insecure", false, "Lets anybody who can reach it use it."),
        text(
            "deadline",
            SOME_TIME,
            "1s",
            "How long a request may wait here before it is sent; then it fails, not applied.",
        ),
        integer("max-clients", count(1_000_000), 10_000, "The most clients at once."),
        optional("idle-timeout", SOME_TIME, "How long a client may be silent. Default: for ever."),
        text(
            "max-request-size",
            Kind::Size { least: KIB, most: 4 * GIB },
            "64MiB",
            "The largest request.",
        ),
        integer(
            "max-arguments",
            Kind::Integer { least: 16, most: 1_048_576 },
            1_048_576,
            "The most arguments of a request.",
        ),
        integer(
            "max-in-flight",
            count(1_000_000),
            1024,
            "The most unanswered requests of one client; then its next bytes wait.",
        ),
        text(
            "reply-buffer",
            Kind::Size { least: 16 * KIB, most: GIB },
            "8MiB",
            "How much of its replies may wait for a client that does not read.",
        ),
        text(
            "write-timeout",
            SOME_TIME,
            "10s",
            "How long a full reply buffer may stay full; then the client is disconnected.",
        ),
        text(
            "min-body-rate",
            Kind::Size { least: 0, most: GIB },
            "1KiB",
            "How many bytes a second the sender of a big request must keep up; 0: no floor.",
        ),
        optional(
            "user",
            Kind::List(&USER),
            "Who may log in. Without users nobody has to. Redis protocol only.",
        ),
    ],
};

static TLS_SERVER: Table = Table {
    name: "tls-server",
    header: "[listener.NAME.tls]",
    doc: "TLS towards clients.",
    fields: &[
        required("cert", Kind::File, "\"cert.pem\"", "The certificate chain, PEM."),
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
        required("name", Kind::Text, "\"default\"", "The name to log in with."),
        optional("password", Kind::Secret, "The password. Without it any will do."),
    ],
};

/// A secret that is not written out.
pub(crate) static SECRET: Table = Table {
    name: "secret",
    header: "",
    doc: "A secret: the text itself, or one of these.",
    fields: &[
        optional("env", Kind::EnvName, "The environment variable that holds it."),
        optional("file", Kind::File, "The file that holds it; a line break at its end is dropped."),
    ],
};

macro_rules! choice {
    ($name:ident, $kind:ty) => {
        choice!($name, $kind, &[]);
    };
    ($name:ident, $kind:ty, $later:expr) => {
        static $name: Choice = Choice {
            names: || <$kind>::ALL.iter().map(|value| value.name()).collect(),
            later: $later,
        };
    };
}

choice!(LOG_LEVELS, LogLevel);
choice!(LOG_FORMATS, LogFormat);
choice!(EVICTIONS, Eviction);
choice!(HASHES, HashKind);
choice!(MULTI_KEYS, MultiKey);
choice!(SUBSCRIPTION_LOSSES, SubscriptionLoss);
choice!(PROTOCOLS, Protocol, &["s3", "postgresql", "mysql"]);
