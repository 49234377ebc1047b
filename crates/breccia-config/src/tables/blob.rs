//! The tables of blob stores: members and composites. Data only.
//!
//! Invariant: keys that several types share are one constant, so that they mean the same.

use super::store::{CA, CERT, HASH, HASH_TAG, KEY, LAYOUT_DIGEST, SERVER_NAME, TLS_CLIENT};
use super::{ANY_DAYS, choice};
use crate::field::{
    Choice, Field, Kind, SOME_TIME, Table, checked, count, flag, integer, optional, required, text,
};
use crate::plan::{KeyForm, SqlTlsMode};
use crate::rule;

choice!(KEY_FORMS, KeyForm);
choice!(TLS_MODES, SqlTlsMode);

static PLACEMENT_KEYS: Choice = Choice {
    names: || breccia_core::PlacementKey::NAMES.to_vec(),
    later: &[],
};

pub(crate) static FS: Table = Table {
    name: "fs",
    header: "[store.NAME]",
    doc: "A folder on this machine.",
    fields: &[required(
        "path",
        Kind::Folder,
        "\"blobs/1\"",
        "The folder, as seen from this file. It is made if it does not exist, and is Breccia's alone.",
    )],
};

pub(crate) static SQLITE: Table = Table {
    name: "sqlite",
    header: "[store.NAME]",
    doc: "An SQLite database on this machine.",
    fields: &[
        required(
            "path",
            Kind::OwnFile,
            "\"blobs.sqlite\"",
            "The file, as seen from this file. It is made if it does not exist.",
        ),
        integer(
            "max-connections",
            count(1024),
            4,
            "Connections that read; one more writes.",
        ),
    ],
};

pub(crate) static S3: Table = Table {
    name: "s3",
    header: "[store.NAME]",
    doc: "A bucket of Amazon S3, or of another server that speaks its protocol.",
    fields: &[
        required(
            "bucket",
            Kind::Ruled(&rule::MEMBER_BUCKET),
            "\"mail\"",
            "The bucket. It must exist.",
        ),
        optional(
            "endpoint",
            Kind::Endpoint { with_path: false },
            "The server. Default: AWS's own for the region.",
        ),
        text(
            "region",
            Kind::Ruled(&rule::REGION),
            "us-east-1",
            "The region requests are signed for.",
        ),
        optional(
            "access-key",
            Kind::Ruled(&rule::ACCESS_KEY),
            "The public half of the key pair. Default: `AWS_…` variables, web identity, or the instance's role.",
        ),
        optional("secret-key", Kind::Secret, "Its secret half."),
        optional(
            "session-token",
            Kind::Secret,
            "What temporary keys come with.",
        ),
        optional(
            "path-style",
            Kind::Flag,
            "Writes the bucket into the path, not into the host's name. Default: true with `endpoint`, else false.",
        ),
        KEY_PREFIX,
        KEYS,
        TIMEOUT,
        MAX_RETRIES,
        MAX_CONNECTIONS,
        TLS,
        PROBE_INTERVAL,
        PROBE_TIMEOUT,
    ],
};

pub(crate) static AZURE: Table = Table {
    name: "azure",
    header: "[store.NAME]",
    doc: "A container of Azure Blob Storage.",
    fields: &[
        required(
            "account",
            Kind::Ruled(&rule::ACCOUNT),
            "\"account\"",
            "The storage account.",
        ),
        required(
            "container",
            Kind::Ruled(&rule::CONTAINER),
            "\"mail\"",
            "The container. It must exist.",
        ),
        checked(
            "access-key",
            Kind::Secret,
            "{ env = \"AZURE_KEY\" }",
            "One of the account's keys. This or `sas-token`.",
        ),
        optional("sas-token", Kind::Secret, "A shared access signature."),
        optional(
            "endpoint",
            Kind::Endpoint { with_path: true },
            "The server; an emulator's has the account as its path. Default: `https://ACCOUNT.blob.core.windows.net`.",
        ),
        KEY_PREFIX,
        KEYS,
        TIMEOUT,
        MAX_RETRIES,
        MAX_CONNECTIONS,
        TLS,
        PROBE_INTERVAL,
        PROBE_TIMEOUT,
    ],
};

pub(crate) static GCS: Table = Table {
    name: "gcs",
    header: "[store.NAME]",
    doc: "A bucket of Google Cloud Storage.",
    fields: &[
        required(
            "bucket",
            Kind::Ruled(&rule::MEMBER_BUCKET),
            "\"mail\"",
            "The bucket. It must exist.",
        ),
        optional(
            "credentials",
            Kind::File,
            "A service account's JSON file. Default: the metadata server of the machine.",
        ),
        flag(
            "anonymous",
            false,
            "Signs nothing: for emulators and open buckets.",
        ),
        text(
            "endpoint",
            Kind::Endpoint { with_path: false },
            "https://storage.googleapis.com",
            "The server.",
        ),
        KEY_PREFIX,
        KEYS,
        TIMEOUT,
        MAX_RETRIES,
        MAX_CONNECTIONS,
        TLS,
        PROBE_INTERVAL,
        PROBE_TIMEOUT,
    ],
};

pub(crate) static POSTGRESQL: Table = Table {
    name: "postgresql",
    header: "[store.NAME]",
    doc: "A PostgreSQL database that holds objects in tables, or a server of a `sql-read-replica`.",
    fields: &[
        HOST,
        port(5432),
        optional(
            "socket",
            Kind::SocketPath,
            "The path of its Unix socket, such as `/run/postgresql/.s.PGSQL.5432`, instead of `host`.",
        ),
        optional(
            "database",
            Kind::Text,
            "The database. Default: as `user`. Of a store that is only a server of a `sql-read-replica`: where Breccia's own questions go, by default `postgres`.",
        ),
        checked("user", Kind::Text, "\"breccia\"", SQL_USER),
        PASSWORD,
        MONITOR_USER,
        MONITOR_PASSWORD,
        SQL_TLS,
        SQL_CONNECTIONS,
        SQL_TIMEOUT,
        TABLE_PREFIX,
        WEIGHT,
        PROBE_INTERVAL,
        PROBE_TIMEOUT,
    ],
};

pub(crate) static MYSQL: Table = Table {
    name: "mysql",
    header: "[store.NAME]",
    doc: "A MySQL or MariaDB database that holds objects in tables, or a server of a `sql-read-replica`.",
    fields: &[
        HOST,
        port(3306),
        optional(
            "socket",
            Kind::SocketPath,
            "The path of its Unix socket, such as `/run/mysqld/mysqld.sock`, instead of `host`.",
        ),
        checked(
            "database",
            Kind::Text,
            "\"blobs\"",
            "**Required** to hold objects: the database. A server of a `sql-read-replica` needs none: clients name theirs.",
        ),
        checked("user", Kind::Text, "\"breccia\"", SQL_USER),
        PASSWORD,
        MONITOR_USER,
        MONITOR_PASSWORD,
        SQL_TLS,
        SQL_CONNECTIONS,
        SQL_TIMEOUT,
        TABLE_PREFIX,
        WEIGHT,
        PROBE_INTERVAL,
        PROBE_TIMEOUT,
    ],
};

pub(crate) static SHARDED_BLOB: Table = Table {
    name: "sharded-blob",
    header: "[store.NAME]",
    doc: "A composite: one store made of blob stores, composites among them. Each shard carries a marker with the layout.",
    fields: &[
        required(
            "stores",
            Kind::StoreNames,
            "[\"disk-a\", \"s3-a\"]",
            "The shards. Their order counts once, when the layout is made.",
        ),
        HASH,
        HASH_TAG,
        LAYOUT_DIGEST,
        flag(
            "marker",
            true,
            "Always true: blob shards never go without a marker.",
        ),
        text(
            "placement-key",
            Kind::Choice(&PLACEMENT_KEYS),
            "raw",
            "What is hashed: the key as it is, or what Stalwart made the name of. With `stalwart`, data that Stalwart sharded is found where it lies; a key that is no such name is hashed as it is.",
        ),
        text(
            "placement-prefix",
            Kind::Ruled(&rule::PLACEMENT_PREFIX),
            "",
            "With `stalwart`: the prefix of its store, in front of every name.",
        ),
        text(
            "upload-expiry",
            ANY_DAYS,
            "7d",
            "How old an unfinished upload may grow; then its parts are removed.",
        ),
    ],
};

const KEY_PREFIX: Field = text(
    "key-prefix",
    Kind::Ruled(&rule::KEY_PREFIX),
    "",
    "What stands in front of every key, verbatim.",
);
const KEYS: Field = text(
    "keys",
    Kind::Choice(&KEY_FORMS),
    "plain",
    "Keys as they are, where one that the server cannot hold is refused; or all as base32hex, which keeps their order. Fixed when the layout is made.",
);
const TIMEOUT: Field = text(
    "timeout",
    SOME_TIME,
    "30s",
    "How long connecting may take, and how long the server may be silent.",
);
const MAX_RETRIES: Field = integer(
    "max-retries",
    Kind::Integer { least: 0, most: 20 },
    3,
    "How often a request is repeated. Only those that are safe to repeat are.",
);
const MAX_CONNECTIONS: Field = integer(
    "max-connections",
    count(10_000),
    64,
    "The most connections for requests; sources of copies, and questions while an answer is read, may each take as many more.",
);
const TLS: Field = optional(
    "tls",
    Kind::Table(&TLS_CLIENT),
    "More about TLS; needs an `https` endpoint.",
);
const PROBE_INTERVAL: Field = text(
    "probe-interval",
    SOME_TIME,
    "5s",
    "Time between health probes. The servers of a `sql-read-replica` are asked every 500 ms, or as often as the least of these times if that is more often.",
);
const PROBE_TIMEOUT: Field = text(
    "probe-timeout",
    SOME_TIME,
    "2s",
    "How long a probe may stay unanswered. A server of a `sql-read-replica` always has 500 ms.",
);

const HOST: Field = checked(
    "host",
    Kind::Host,
    "\"127.0.0.1\"",
    "The server. This or `socket`.",
);
const SQL_USER: &str = "**Required** to hold objects: the user to log in as. It makes its tables at the first start. As a server of a `sql-read-replica`: who clients are there; without it each is itself.";
const PASSWORD: Field = optional("password", Kind::Secret, "The password to log in with.");
const MONITOR_USER: Field = checked(
    "monitor-user",
    Kind::Text,
    "\"monitor\"",
    "As a server of a `sql-read-replica`: who Breccia's own questions are asked as. Default: `user`; **required** without that.",
);
const MONITOR_PASSWORD: Field = optional(
    "monitor-password",
    Kind::Secret,
    "The password of `monitor-user`.",
);
const WEIGHT: Field = integer(
    "weight",
    count(1000),
    1,
    "As a replica of a `sql-read-replica`: its share of the reads, next to the others'.",
);
const SQL_TLS: Field = optional(
    "tls",
    Kind::Table(&SQL_TLS_TABLE),
    "TLS towards the server. Without it, plain.",
);
const SQL_CONNECTIONS: Field = integer(
    "max-connections",
    count(10_000),
    16,
    "The most connections for objects.",
);
const SQL_TIMEOUT: Field = text(
    "timeout",
    SOME_TIME,
    "30s",
    "How long connecting and each of Breccia's own statements may take.",
);
const TABLE_PREFIX: Field = text(
    "table-prefix",
    Kind::Ruled(&rule::TABLE_PREFIX),
    "breccia_",
    "What the names of its tables begin with.",
);

const fn port(default: i64) -> Field {
    integer("port", count(65_535), default, "The server's port.")
}

static SQL_TLS_TABLE: Table = Table {
    name: "sql-tls",
    header: "[store.NAME.tls]` of `postgresql` and `mysql",
    doc: "TLS towards an SQL server.",
    fields: &[
        text(
            "mode",
            Kind::Choice(&TLS_MODES),
            "verify-full",
            "Whether TLS is used and what is checked, in the words of PostgreSQL's `sslmode`.",
        ),
        CA,
        CERT,
        KEY,
        SERVER_NAME,
    ],
};
