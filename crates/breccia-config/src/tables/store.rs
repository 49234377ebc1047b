//! The tables of stores: members and composites. Data only.
//!
//! Invariant: keys that several types share are one constant, so that they mean the same.

use breccia_core::hash::HashKind;

use super::{MIB, choice};
use crate::field::{
    Choice, Field, Kind, NameRule, SOME_TIME, Table, count, flag, integer, optional, required, text,
};
use crate::plan::{ConnectionsPer, Eviction, MultiKey, SubscriptionLoss};

choice!(EVICTIONS, Eviction);
choice!(HASHES, HashKind);
choice!(CONNECTIONS_PER, ConnectionsPer);
choice!(MULTI_KEYS, MultiKey);
choice!(SUBSCRIPTION_LOSSES, SubscriptionLoss);

pub(crate) static REDIS: Table = Table {
    name: "redis",
    header: "[store.NAME]",
    doc: "One Redis server, or another that speaks its protocol.",
    fields: &[
        required(
            "url",
            Kind::RedisUrl,
            "\"redis://127.0.0.1:6379/0\"",
            "`redis://user:password@host:port/database`, `rediss://…` for TLS (`#insecure` at its end accepts any certificate), or `unix:///path?db=N`. User and password percent-encoded.",
        ),
        optional(
            "user",
            Kind::Text,
            "The user to log in as, if the url names none.",
        ),
        optional(
            "password",
            Kind::Secret,
            "The password to log in with, if the url has none.",
        ),
        optional(
            "tls",
            Kind::Table(&TLS_CLIENT),
            "More about TLS; needs `rediss://`.",
        ),
        TIMEOUT,
        STALL_GATE,
        CONNECTIONS,
        text(
            "connections-per",
            Kind::Choice(&CONNECTIONS_PER),
            "worker",
            "`worker`: each worker has `connections` of its own. `process`: all share them, which suits a server before very many gateways and costs more CPU. Leases and large values have connections of their own either way.",
        ),
        MAX_IN_FLIGHT,
        MAX_LEASES,
        DATABASES,
        PROBE_INTERVAL,
        PROBE_TIMEOUT,
    ],
};

pub(crate) static REDIS_SENTINEL: Table = Table {
    name: "redis-sentinel",
    header: "[store.NAME]",
    doc: "The primary that Redis Sentinel names, whichever server it is: see [redis-members.md](redis-members.md).",
    fields: &[
        required(
            "urls",
            Kind::RedisUrls,
            "[\"redis://127.0.0.1:26379\"]",
            "The sentinels: `redis://host:port`, or `rediss://…` in all of them for TLS, to sentinels and servers. Those that they know are asked too.",
        ),
        required(
            "service",
            Kind::Text,
            "\"mymaster\"",
            "The name under which the sentinels watch the primary.",
        ),
        optional(
            "sentinel-user",
            Kind::Text,
            "The user to log in to the sentinels as.",
        ),
        optional(
            "sentinel-password",
            Kind::Secret,
            "The password to log in to the sentinels with.",
        ),
        READ_FROM_REPLICAS,
        SERVERS_USER,
        SERVERS_PASSWORD,
        SERVERS_TLS,
        TIMEOUT,
        STALL_GATE,
        CONNECTIONS,
        MAX_IN_FLIGHT,
        MAX_LEASES,
        DATABASES,
        PROBE_INTERVAL,
        PROBE_TIMEOUT,
    ],
};

pub(crate) static REDIS_CLUSTER: Table = Table {
    name: "redis-cluster",
    header: "[store.NAME]",
    doc: "A Redis Cluster, as one store: see [redis-members.md](redis-members.md).",
    fields: &[
        required(
            "urls",
            Kind::RedisUrls,
            "[\"redis://127.0.0.1:7000\"]",
            "Servers of the cluster to ask for all others: `redis://host:port`, or `rediss://…` in all of them for TLS.",
        ),
        READ_FROM_REPLICAS,
        SERVERS_USER,
        SERVERS_PASSWORD,
        SERVERS_TLS,
        TIMEOUT,
        STALL_GATE,
        CONNECTIONS,
        MAX_IN_FLIGHT,
        MAX_LEASES,
        PROBE_INTERVAL,
        PROBE_TIMEOUT,
    ],
};

const READ_FROM_REPLICAS: Field = flag(
    "read-from-replicas",
    false,
    "Lets replicas answer commands that only read one key: what they answer may be out of date, also for who has just written.",
);
const SERVERS_USER: Field = optional("user", Kind::Text, "The user to log in to the servers as.");
const SERVERS_PASSWORD: Field = optional(
    "password",
    Kind::Secret,
    "The password to log in to the servers with.",
);
const SERVERS_TLS: Field = optional(
    "tls",
    Kind::Table(&TLS_CLIENT),
    "More about TLS; needs `rediss://`.",
);
const MAX_LEASES: Field = integer(
    "max-leases",
    count(65_536),
    256,
    "The most leased connections (transactions, blocking commands, big values) of a worker.",
);
const DATABASES: Field = integer(
    "databases",
    count(1024),
    1,
    "How many databases a client may SELECT: its 0 is the url's database (0 where it has none), its 1 the next.",
);

pub(crate) static MEMCACHED: Table = Table {
    name: "memcached",
    header: "[store.NAME]",
    doc: "One memcached server, 1.6 or later.",
    fields: &[
        required(
            "address",
            Kind::Address,
            "\"127.0.0.1:11211\"",
            "The server.",
        ),
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
const CONNECTIONS: Field = integer(
    "connections",
    count(1024),
    1,
    "Shared connections of each worker.",
);
const MAX_IN_FLIGHT: Field = integer(
    "max-in-flight",
    count(1_000_000),
    16_384,
    "The most requests of a worker that wait here or there; more fail at once.",
);
const PROBE_INTERVAL: Field = text(
    "probe-interval",
    SOME_TIME,
    "1s",
    "Time between health probes.",
);
const PROBE_TIMEOUT: Field = text(
    "probe-timeout",
    SOME_TIME,
    "500ms",
    "How long a probe may stay unanswered.",
);

pub(crate) static MEMORY: Table = Table {
    name: "memory",
    header: "[store.NAME]",
    doc: "A store inside this process. It is empty after a restart.",
    fields: &[
        optional(
            "max-memory",
            Kind::Size {
                least: MIB,
                most: 1 << 44,
            },
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
    header: "[store.NAME]",
    doc: "A composite: one store made of in-memory stores, composites among them.",
    fields: &[
        required(
            "stores",
            Kind::StoreNames,
            "[\"redis-a\", \"redis-b\"]",
            "The shards. Their order counts once, when the layout is made.",
        ),
        HASH,
        HASH_TAG,
        flag(
            "marker",
            false,
            "Keeps a marker with the layout on every shard, as one key that clients do not see: a server that was exchanged or emptied is then refused. Redis shards only.",
        ),
        LAYOUT_DIGEST,
        text(
            "multi-key",
            Kind::Choice(&MULTI_KEYS),
            "shard",
            "What the keys of a command that cannot be split must share.",
        ),
        optional(
            "command",
            Kind::Named {
                rule: NameRule::Command,
                table: &COMMAND,
            },
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

pub(super) const HASH: Field = text(
    "hash",
    Kind::Choice(&HASHES),
    "xxh3-64",
    "The hash of a key.",
);
pub(super) const HASH_TAG: Field = optional(
    "hash-tag",
    Kind::HashTag,
    "With `\"{}\"` only the part of a key between the first `{` and the next `}` is hashed. Placement then differs from the plain rule.",
);
pub(super) const LAYOUT_DIGEST: Field = optional(
    "layout-digest",
    Kind::Digest,
    "The only layout that is accepted.",
);

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
            Kind::Integer {
                least: -1_000_000,
                most: 1_000_000,
            },
            "The last one; -1 is the last argument. Default: `first-key`.",
        ),
        integer("step", count(1_000_000), 1, "The distance between keys."),
        flag("write", true, "Whether the command may change data."),
    ],
};

pub(super) static TLS_CLIENT: Table = Table {
    name: "tls-client",
    header: "[store.NAME.tls]",
    doc: "TLS towards a server.",
    fields: &[
        CA,
        CERT,
        KEY,
        SERVER_NAME,
        flag("insecure", false, "Accepts any certificate."),
    ],
};

pub(super) const CA: Field = optional(
    "ca",
    Kind::File,
    "Certificates to trust, PEM. Default: the system's.",
);
pub(super) const CERT: Field =
    optional("cert", Kind::File, "The own certificate, PEM; needs `key`.");
pub(super) const KEY: Field = optional("key", Kind::File, "The own key, PEM.");
pub(super) const SERVER_NAME: Field = optional(
    "server-name",
    Kind::Text,
    "The name the server's certificate must carry. Default: the host connected to.",
);
