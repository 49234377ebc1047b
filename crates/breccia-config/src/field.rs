//! How a table of the file is described: its keys, their kinds, defaults and words.
//!
//! Only the model; the tables themselves are in [`crate::tables`]. Invariant: decoding,
//! suggestions, the JSON schema and the reference page all read these descriptions and nothing
//! else, so they cannot disagree.

use std::time::Duration;

use crate::rule::Rule;
use crate::units;

/// One TOML table.
pub(crate) struct Table {
    /// What the schema and the reference call it.
    pub(crate) name: &'static str,
    /// How its header is written, such as `[store.NAME]`.
    pub(crate) header: &'static str,
    /// What it is.
    pub(crate) doc: &'static str,
    /// Its keys, in the order of the reference.
    pub(crate) fields: &'static [Field],
}

/// One key of a table.
pub(crate) struct Field {
    pub(crate) key: &'static str,
    pub(crate) kind: Kind,
    pub(crate) need: Need,
    pub(crate) doc: &'static str,
}

/// Whether a key must be there, and what holds if it is not.
#[derive(Clone, Copy)]
pub(crate) enum Need {
    /// It must; the example is a value that would do, as TOML.
    Required { example: &'static str },
    /// Some tables need it, and some do not: a check of its own says which. An example like that
    /// of a required key.
    Checked { example: &'static str },
    /// It need not, and nothing takes its place.
    Optional,
    /// It need not, and this takes its place.
    Default(Default),
    /// A table that counts as empty when it is absent, so that its own defaults hold.
    Implied,
}

/// A default, as it would be written.
#[derive(Clone, Copy)]
pub(crate) enum Default {
    Flag(bool),
    Integer(i64),
    Text(&'static str),
}

/// What a value may be.
#[derive(Clone, Copy)]
pub(crate) enum Kind {
    Flag,
    Integer {
        least: i64,
        most: i64,
    },
    Duration {
        least: Duration,
        most: Duration,
    },
    Size {
        least: u64,
        most: u64,
    },
    Text,
    /// A text of a form.
    Ruled(&'static Rule),
    Choice(&'static Choice),
    HashTag,
    Digest,
    RedisUrl,
    /// Urls of servers that know where others are.
    RedisUrls,
    /// An HTTP endpoint; a path after the port only if it says so.
    Endpoint {
        with_path: bool,
    },
    /// A name or IP address, without a port.
    Host,
    /// The absolute path of a Unix socket.
    SocketPath,
    Address,
    Bind,
    SocketAddress,
    Secret,
    /// The name of an environment variable.
    EnvName,
    /// A file that must be readable.
    File,
    /// A folder, which need not exist.
    Folder,
    /// A file that is made if it does not exist.
    OwnFile,
    StoreName,
    StoreNames,
    /// Names of stores; may be none.
    ReplicaNames,
    /// Names of buckets.
    BucketNames,
    /// Names of a database's functions.
    FunctionNames,
    /// Buckets, each with the name of its store.
    Buckets,
    Table(&'static Table),
    List(&'static Table),
    Named {
        rule: NameRule,
        table: &'static Table,
    },
    /// Named tables of several types, told apart by their `type`.
    Typed {
        rule: NameRule,
        variants: &'static [&'static Table],
        later: &'static [&'static str],
    },
}

/// A closed list of values.
pub(crate) struct Choice {
    /// The values of this release.
    pub(crate) names: fn() -> Vec<&'static str>,
    /// Values of later releases, for a better message.
    pub(crate) later: &'static [&'static str],
}

/// What may name a table.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum NameRule {
    /// A store or listener: fit for file names, layouts and metrics.
    Store,
    /// A Redis command.
    Command,
}

pub(crate) const fn required(
    key: &'static str,
    kind: Kind,
    example: &'static str,
    doc: &'static str,
) -> Field {
    Field {
        key,
        kind,
        need: Need::Required { example },
        doc,
    }
}

pub(crate) const fn checked(
    key: &'static str,
    kind: Kind,
    example: &'static str,
    doc: &'static str,
) -> Field {
    Field {
        key,
        kind,
        need: Need::Checked { example },
        doc,
    }
}

pub(crate) const fn optional(key: &'static str, kind: Kind, doc: &'static str) -> Field {
    Field {
        key,
        kind,
        need: Need::Optional,
        doc,
    }
}

pub(crate) const fn implied(key: &'static str, table: &'static Table, doc: &'static str) -> Field {
    Field {
        key,
        kind: Kind::Table(table),
        need: Need::Implied,
        doc,
    }
}

pub(crate) const fn text(
    key: &'static str,
    kind: Kind,
    default: &'static str,
    doc: &'static str,
) -> Field {
    Field {
        key,
        kind,
        need: Need::Default(Default::Text(default)),
        doc,
    }
}

pub(crate) const fn integer(
    key: &'static str,
    kind: Kind,
    default: i64,
    doc: &'static str,
) -> Field {
    Field {
        key,
        kind,
        need: Need::Default(Default::Integer(default)),
        doc,
    }
}

pub(crate) const fn flag(key: &'static str, default: bool, doc: &'static str) -> Field {
    Field {
        key,
        kind: Kind::Flag,
        need: Need::Default(Default::Flag(default)),
        doc,
    }
}

/// A duration that may not be zero, up to a week.
pub(crate) const SOME_TIME: Kind = Kind::Duration {
    least: Duration::from_millis(1),
    most: Duration::from_hours(168),
};

/// A duration that may be zero, up to a week.
pub(crate) const ANY_TIME: Kind = Kind::Duration {
    least: Duration::ZERO,
    most: Duration::from_hours(168),
};

/// A count from 1 up.
pub(crate) const fn count(most: i64) -> Kind {
    Kind::Integer { least: 1, most }
}

impl Kind {
    /// What the value must be, for a message: "must be …".
    pub(crate) fn expected(self) -> &'static str {
        match self {
            Self::Flag => "true or false",
            Self::Integer { .. } => "a whole number",
            Self::Duration { .. } => "a duration",
            Self::Size { .. } => "a size",
            Self::Secret => "a string or a table",
            Self::StoreNames | Self::ReplicaNames => "a list of store names",
            Self::RedisUrls => "a list of urls",
            Self::BucketNames => "a list of bucket names",
            Self::FunctionNames => "a list of function names",
            Self::Buckets | Self::Table(_) | Self::Named { .. } | Self::Typed { .. } => "a table",
            Self::List(_) => "a list of tables",
            _ => "a string",
        }
    }

    /// A value that would do, as TOML.
    pub(crate) fn example(self) -> String {
        match self {
            Self::Flag => "true".to_owned(),
            Self::Integer { least, most } => 1.clamp(least, most).to_string(),
            Self::Duration { .. } => "\"500ms\"".to_owned(),
            Self::Size { .. } => "\"64MiB\"".to_owned(),
            Self::Choice(choice) => {
                format!(
                    "\"{}\"",
                    (choice.names)().first().copied().unwrap_or_default()
                )
            }
            Self::HashTag => "\"{}\"".to_owned(),
            Self::Digest => "\"0123456789abcdef\"".to_owned(),
            Self::RedisUrl => "\"redis://127.0.0.1:6379/0\"".to_owned(),
            Self::RedisUrls => "[\"redis://127.0.0.1:6379\"]".to_owned(),
            Self::Endpoint { .. } => "\"http://127.0.0.1:9000\"".to_owned(),
            Self::Host => "\"127.0.0.1\"".to_owned(),
            Self::SocketPath => "\"/run/server.sock\"".to_owned(),
            Self::Ruled(rule) => rule.example.to_owned(),
            Self::Address => "\"127.0.0.1:11211\"".to_owned(),
            Self::Bind | Self::SocketAddress => "\"127.0.0.1:6380\"".to_owned(),
            Self::Secret => "{ env = \"NAME\" }".to_owned(),
            Self::EnvName => "\"NAME\"".to_owned(),
            Self::File | Self::Folder | Self::OwnFile => "\"path/from/this/file\"".to_owned(),
            Self::Text => "\"text\"".to_owned(),
            Self::StoreName => "\"cache\"".to_owned(),
            Self::StoreNames => "[\"redis-a\", \"redis-b\"]".to_owned(),
            Self::ReplicaNames => "[\"pg-2\"]".to_owned(),
            Self::BucketNames => "[\"mail\"]".to_owned(),
            Self::FunctionNames => "[\"next_page\"]".to_owned(),
            Self::Buckets => "{ mail = \"mail-blobs\" }".to_owned(),
            Self::Table(table) => table.example(),
            Self::List(table) => format!("[{}]", table.example()),
            Self::Named { table, .. } => format!("{{ NAME = {} }}", table.example()),
            Self::Typed { .. } => "{ NAME = { type = \"memory\" } }".to_owned(),
        }
    }

    /// What the reference says of the value.
    pub(crate) fn in_words(self) -> String {
        match self {
            Self::Flag => "true or false".to_owned(),
            Self::Integer { least, most } => format!("{least} to {most}"),
            Self::Duration { least, most } => {
                format!(
                    "duration, {} to {}",
                    units::show_duration(least),
                    units::show_duration(most)
                )
            }
            Self::Size { least, most } => {
                format!(
                    "size, {} to {}",
                    units::show_size(least),
                    units::show_size(most)
                )
            }
            Self::Choice(choice) => {
                let quoted: Vec<_> = (choice.names)()
                    .iter()
                    .map(|name| format!("`\"{name}\"`"))
                    .collect();
                quoted.join(", ")
            }
            Self::HashTag => "two signs".to_owned(),
            Self::Digest => "16 hex digits".to_owned(),
            Self::RedisUrl => "url".to_owned(),
            Self::RedisUrls => "list of urls".to_owned(),
            Self::Endpoint { with_path: false } => "`http(s)://host:port`".to_owned(),
            Self::Endpoint { with_path: true } => "`http(s)://host:port/path`".to_owned(),
            Self::Host => "host".to_owned(),
            Self::SocketPath => "path".to_owned(),
            Self::Ruled(rule) => rule.words.to_owned(),
            Self::Address => "`host:port` or `unix:/path`".to_owned(),
            Self::Bind => "`ip:port` or `unix:/path`".to_owned(),
            Self::SocketAddress => "`ip:port`".to_owned(),
            Self::Secret => "secret".to_owned(),
            Self::EnvName => "name".to_owned(),
            Self::File | Self::OwnFile => "file".to_owned(),
            Self::Folder => "folder".to_owned(),
            Self::Text => "text".to_owned(),
            Self::StoreName => "store".to_owned(),
            Self::StoreNames => "list of stores".to_owned(),
            Self::ReplicaNames => "list of stores, may be empty".to_owned(),
            Self::BucketNames => "list of buckets".to_owned(),
            Self::FunctionNames => "list of functions".to_owned(),
            Self::Buckets => "`{ BUCKET = \"STORE\" }`".to_owned(),
            Self::Table(_) => "table".to_owned(),
            Self::List(_) => "tables".to_owned(),
            Self::Named { .. } | Self::Typed { .. } => "named tables".to_owned(),
        }
    }
}

impl Table {
    /// The key's description.
    pub(crate) fn field(&self, key: &str) -> Option<&'static Field> {
        self.fields.iter().find(|field| field.key == key)
    }

    /// An inline table with just what must be there.
    fn example(&self) -> String {
        let mut parts = Vec::new();
        for field in self.fields {
            if let Need::Required { example } | Need::Checked { example } = field.need {
                parts.push(format!("{} = {example}", field.key));
            }
        }
        if parts.is_empty()
            && let Some(field) = self.fields.first()
        {
            parts.push(format!("{} = {}", field.key, field.kind.example()));
        }
        format!("{{ {} }}", parts.join(", "))
    }
}
