//! The plans of blob stores: members and composites.
//!
//! Not the stores themselves: the blob slice defines those. Invariant: what must agree in one store
//! does (credentials are whole, TLS is there exactly when the endpoint asks for it), and a location
//! shows no secret.

use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use breccia_core::address::Address;
use breccia_core::hash::{HashKind, HashTag};
use breccia_core::placement_key::PlacementKey;

use super::TlsClientPlan;
use crate::Secret;
use crate::http_url::HttpEndpoint;

/// A store of type `fs`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FsPlan {
    /// The folder; it need not exist.
    pub path: PathBuf,
}

/// A store of type `sqlite`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SqlitePlan {
    /// The database file; it need not exist.
    pub path: PathBuf,
    /// Connections that read; one more writes.
    pub max_connections: usize,
}

/// A store of type `s3`.
#[derive(Debug, Clone, PartialEq)]
pub struct S3Plan {
    /// The bucket.
    pub bucket: String,
    /// The server: what the file says, or AWS's own for the region.
    pub endpoint: HttpEndpoint,
    /// Whether `endpoint` is AWS's own, because the file names none.
    pub is_aws: bool,
    /// The region requests are signed for.
    pub region: String,
    /// What requests are signed with; `None`: environment, web identity or the instance's role.
    pub credential: Option<S3Credential>,
    /// Whether the bucket stands in the path, and not in the host's name.
    pub path_style: bool,
    /// What all stores that speak HTTP have.
    pub http: HttpStorePlan,
}

/// A key pair of S3.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct S3Credential {
    /// The public half.
    pub access_key: String,
    /// The secret half.
    pub secret_key: Secret,
    /// What temporary keys come with.
    pub session_token: Option<Secret>,
}

/// A store of type `azure`.
#[derive(Debug, Clone, PartialEq)]
pub struct AzurePlan {
    /// The storage account.
    pub account: String,
    /// The container.
    pub container: String,
    /// What requests are signed with.
    pub credential: AzureCredential,
    /// The server: what the file says, or the account's own.
    pub endpoint: HttpEndpoint,
    /// What all stores that speak HTTP have.
    pub http: HttpStorePlan,
}

/// How to prove oneself to Azure.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum AzureCredential {
    /// One of the account's keys, base64.
    AccessKey(Secret),
    /// A shared access signature: a query string, perhaps with its `?`.
    SasToken(Secret),
}

/// A store of type `gcs`.
#[derive(Debug, Clone, PartialEq)]
pub struct GcsPlan {
    /// The bucket.
    pub bucket: String,
    /// What requests are signed with.
    pub credential: GcsCredential,
    /// The server: what the file says, or Google's own.
    pub endpoint: HttpEndpoint,
    /// What all stores that speak HTTP have.
    pub http: HttpStorePlan,
}

/// How to prove oneself to Google Cloud Storage.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum GcsCredential {
    /// A service account's JSON file.
    File(PathBuf),
    /// The metadata server of the machine this runs on.
    Metadata,
    /// Not at all: for emulators.
    Anonymous,
}

/// What the stores that speak HTTP have in common.
#[derive(Debug, Clone, PartialEq)]
pub struct HttpStorePlan {
    /// What stands in front of every key, verbatim; may be empty.
    pub key_prefix: String,
    /// How keys are written.
    pub keys: KeyForm,
    /// How long connecting may take, and how long the server may be silent.
    pub timeout: Duration,
    /// How often a request is repeated that is safe to repeat.
    pub max_retries: u32,
    /// The most connections.
    pub max_connections: usize,
    /// TLS towards the server; present exactly when the endpoint is `https`.
    pub tls: Option<TlsClientPlan>,
    /// Time between probes.
    pub probe_interval: Duration,
    /// How long a probe may stay unanswered.
    pub probe_timeout: Duration,
}

/// How the keys of a store that speaks HTTP are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeyForm {
    /// As they are. A key the store cannot hold is refused.
    Plain,
    /// As order-preserving base32hex: every key fits, and no other program reads them.
    Encoded,
}

impl KeyForm {
    /// Every form.
    pub const ALL: &[Self] = &[Self::Plain, Self::Encoded];

    /// The name in the file.
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Encoded => "encoded",
        }
    }
}

/// A store of type `postgresql` or `mysql`.
#[derive(Debug, Clone, PartialEq)]
pub struct SqlPlan {
    /// The server: host and port, or the path of its socket.
    pub address: Address,
    /// The database. Empty only for a `MySQL` server of a `sql-read-replica`: clients name theirs.
    pub database: String,
    /// The user to log in as; empty only for a server of a `sql-read-replica`: each client is itself.
    pub user: String,
    /// The password to log in with.
    pub password: Option<Secret>,
    /// As a server of a `sql-read-replica`: who Breccia asks as; `None`: as `user`, which is there
    /// then.
    pub monitor_user: Option<String>,
    /// The password of `monitor_user`; never without it.
    pub monitor_password: Option<Secret>,
    /// TLS towards the server; `None`: plain.
    pub tls: Option<SqlTlsPlan>,
    /// The most connections.
    pub max_connections: usize,
    /// How long connecting and one statement may take.
    pub timeout: Duration,
    /// What the names of the tables begin with.
    pub table_prefix: String,
    /// As a replica: its share of the reads, next to the others'.
    pub weight: u32,
    /// Time between probes.
    pub probe_interval: Duration,
    /// How long a probe may stay unanswered.
    pub probe_timeout: Duration,
}

/// `tls` of an SQL store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SqlTlsPlan {
    /// Whether TLS is used, and what is checked.
    pub mode: SqlTlsMode,
    /// Certificates that are trusted, PEM; `None`: the system's.
    pub ca: Option<PathBuf>,
    /// The own certificate, PEM; present exactly when `key` is.
    pub cert: Option<PathBuf>,
    /// The own key, PEM.
    pub key: Option<PathBuf>,
    /// The name the server's certificate must carry; `None`: the host's.
    pub server_name: Option<String>,
}

/// Whether an SQL store's connections use TLS, and what is checked of the server: the words of
/// `PostgreSQL`'s `sslmode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SqlTlsMode {
    /// No TLS.
    Disable,
    /// TLS if the server has it; nothing is checked.
    Prefer,
    /// TLS; nothing is checked.
    Require,
    /// TLS, and the certificate is signed by a trusted one.
    VerifyCa,
    /// The same, and it carries the server's name.
    VerifyFull,
}

impl SqlTlsMode {
    /// Every mode.
    pub const ALL: &[Self] = &[
        Self::Disable,
        Self::Prefer,
        Self::Require,
        Self::VerifyCa,
        Self::VerifyFull,
    ];

    /// The name in the file.
    pub fn name(self) -> &'static str {
        match self {
            Self::Disable => "disable",
            Self::Prefer => "prefer",
            Self::Require => "require",
            Self::VerifyCa => "verify-ca",
            Self::VerifyFull => "verify-full",
        }
    }

    /// Whether the server's certificate is checked.
    pub fn verifies(self) -> bool {
        matches!(self, Self::VerifyCa | Self::VerifyFull)
    }
}

/// A store of type `sharded-blob`. Its shards always carry markers.
#[derive(Debug, Clone, PartialEq)]
pub struct ShardedBlobPlan {
    /// The shards; their order counts once, when the layout is made.
    pub stores: Vec<String>,
    /// The hash of a key.
    pub hash: HashKind,
    /// Which part of a key is hashed; `None`: all of it.
    pub hash_tag: Option<HashTag>,
    /// Which bytes a key's hash is taken of.
    pub placement_key: PlacementKey,
    /// The only layout that is accepted: 16 hex digits, lower case.
    pub layout_digest: Option<String>,
    /// How old an unfinished upload may grow.
    pub upload_expiry: Duration,
}

/// A place in a bucket, as one text.
pub(crate) fn bucket_location(
    kind: &str,
    endpoint: &HttpEndpoint,
    bucket: &str,
    prefix: &str,
) -> String {
    let slash = if prefix.is_empty() { "" } else { "/" };
    format!("{kind}:{endpoint}/{bucket}{slash}{prefix}")
}

/// An absolute path without `.`, `..` and doubled slashes, as far as its text tells: links are not
/// followed. So a place has one text however the configuration file was named.
pub(crate) fn normalised(path: &Path) -> PathBuf {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let mut plain = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => match plain.components().next_back() {
                Some(Component::Normal(_)) => drop(plain.pop()),
                Some(Component::RootDir) => {}
                _ => plain.push(component),
            },
            _ => plain.push(component),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_compared_without_detours() {
        let check = |path: &str, wanted: &str| {
            assert_eq!(normalised(Path::new(path)), Path::new(wanted), "{path}");
        };
        check("/a//b/./c/", "/a/b/c");
        check("/a/../b", "/b");
        check("/../a", "/a");
        let here = std::env::current_dir().unwrap();
        assert_eq!(normalised(Path::new("./a//b")), here.join("a/b"));
    }
}
