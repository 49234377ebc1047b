//! Every table and key of the configuration file.
//!
//! Data only. Invariant: a key that is not described here does not exist; a default that is not
//! written here is not one.

mod blob;
mod listener;
mod sql;
mod store;

use crate::field::{ANY_TIME, Choice, Kind, NameRule, Table, count, flag, implied, optional, text};
use crate::plan::{LogFormat, LogLevel};
pub(crate) use blob::{AZURE, FS, GCS, MYSQL, POSTGRESQL, S3, SHARDED_BLOB, SQLITE};
use listener::LISTENER;
pub(crate) use sql::SQL_READ_REPLICA;
pub(crate) use store::{
    MEMCACHED, MEMORY, REDIS, REDIS_CLUSTER, REDIS_SENTINEL, SHARDED_IN_MEMORY,
};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// A closed list of values out of an enum with `ALL` and `name`.
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
use choice;

choice!(LOG_LEVELS, LogLevel);
choice!(LOG_FORMATS, LogFormat);

/// The whole file.
pub(crate) static FILE: Table = Table {
    name: "file",
    header: "",
    doc: "Keys before the first table header.",
    fields: &[
        optional(
            "workers",
            count(1024),
            "Worker threads. Default: one for each core.",
        ),
        flag(
            "io-uring",
            true,
            "What a worker has to send to several connections leaves in one system call, if the system allows io_uring: less CPU. Where it does not, each send is a call.",
        ),
        text(
            "drain-timeout",
            ANY_TIME,
            "30s",
            "How long a drain waits for requests in flight.",
        ),
        implied("log", &LOG, "What is logged."),
        optional(
            "admin",
            Kind::Table(&ADMIN),
            "The admin listener. Without it there is none.",
        ),
        implied("state", &STATE, "Where layouts are kept."),
        optional("store", STORES, "The stores, each under its name."),
        optional(
            "listener",
            Kind::Named {
                rule: NameRule::Store,
                table: &LISTENER,
            },
            "The listeners, each under its name.",
        ),
    ],
};

const STORES: Kind = Kind::Typed {
    rule: NameRule::Store,
    variants: &[
        &REDIS,
        &REDIS_SENTINEL,
        &REDIS_CLUSTER,
        &MEMCACHED,
        &MEMORY,
        &SHARDED_IN_MEMORY,
        &FS,
        &SQLITE,
        &S3,
        &AZURE,
        &GCS,
        &POSTGRESQL,
        &MYSQL,
        &SHARDED_BLOB,
        &SQL_READ_REPLICA,
    ],
    later: &[],
};

/// Whether stores of a type are Redis servers.
pub(crate) fn is_redis(kind: &str) -> bool {
    let all = [&REDIS, &REDIS_SENTINEL, &REDIS_CLUSTER];
    all.iter().any(|table| table.name == kind)
}

/// What kind of data a type of store holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    InMemory,
    /// Databases too, also where they are only servers of SQL: a type has one family.
    Blob,
    /// Only what is made of servers of SQL.
    Sql,
}

impl Family {
    /// The family of a type; `None` if there is no such type.
    pub(crate) fn of(kind: &str) -> Option<Self> {
        let is = |tables: &[&Table]| tables.iter().any(|table| table.name == kind);
        if is(&[
            &REDIS,
            &REDIS_SENTINEL,
            &REDIS_CLUSTER,
            &MEMCACHED,
            &MEMORY,
            &SHARDED_IN_MEMORY,
        ]) {
            Some(Self::InMemory)
        } else if is(&[
            &FS,
            &SQLITE,
            &S3,
            &AZURE,
            &GCS,
            &POSTGRESQL,
            &MYSQL,
            &SHARDED_BLOB,
        ]) {
            Some(Self::Blob)
        } else if is(&[&SQL_READ_REPLICA]) {
            Some(Self::Sql)
        } else {
            None
        }
    }

    /// Its members, for a message.
    pub(crate) fn in_words(self) -> &'static str {
        match self {
            Self::InMemory => {
                "in-memory stores (redis, redis-sentinel, redis-cluster, memcached, memory, sharded-in-memory)"
            }
            Self::Blob => {
                "blob stores (fs, sqlite, s3, azure, gcs, postgresql, mysql, sharded-blob)"
            }
            Self::Sql => "postgresql or mysql stores",
        }
    }

    /// The composite that is made of its members.
    pub(crate) fn composite(self) -> &'static str {
        match self {
            Self::InMemory => SHARDED_IN_MEMORY.name,
            Self::Blob => SHARDED_BLOB.name,
            Self::Sql => SQL_READ_REPLICA.name,
        }
    }
}

/// A duration that may not be zero, up to a year.
const ANY_DAYS: Kind = Kind::Duration {
    least: std::time::Duration::from_mins(1),
    most: std::time::Duration::from_hours(365 * 24),
};

static LOG: Table = Table {
    name: "log",
    header: "[log]",
    doc: "What is logged, to standard error.",
    fields: &[
        text(
            "level",
            Kind::Choice(&LOG_LEVELS),
            "info",
            "The least severe level that is logged.",
        ),
        text(
            "format",
            Kind::Choice(&LOG_FORMATS),
            "text",
            "For people, or one JSON object a line.",
        ),
    ],
};

static ADMIN: Table = Table {
    name: "admin",
    header: "[admin]",
    doc: "`/healthz`, `/readyz`, `/metrics`, `/status` and `POST /reload`.",
    fields: &[
        text(
            "bind",
            Kind::SocketAddress,
            "127.0.0.1:9180",
            "Where it listens.",
        ),
        optional(
            "token",
            Kind::Secret,
            "What a caller must show, as `Authorization: Bearer …`, for all but `/metrics`, `/healthz` and `/readyz`.",
        ),
        flag(
            "insecure",
            false,
            "Lets it listen off loopback without a token.",
        ),
    ],
};

static STATE: Table = Table {
    name: "state",
    header: "[state]",
    doc: "The folder that keeps layouts. One process uses it at a time.",
    fields: &[text(
        "dir",
        Kind::Folder,
        "breccia-data",
        "The folder, as seen from this file.",
    )],
};

/// A secret that is not written out.
pub(crate) static SECRET: Table = Table {
    name: "secret",
    header: "",
    doc: "A secret: the text itself, or one of these.",
    fields: &[
        optional(
            "env",
            Kind::EnvName,
            "The environment variable that holds it.",
        ),
        optional(
            "file",
            Kind::File,
            "The file that holds it; a line break at its end is dropped.",
        ),
    ],
};
