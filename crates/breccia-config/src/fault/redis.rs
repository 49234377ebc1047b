//! What can be wrong with what a file says of Redis servers that are found by asking others.
//!
//! Not what they share with single servers (`error.rs`). Invariant: as there, a message is `what;
//! what to do` and shows no part of a url.

/// What is wrong at one place that is about Redis members. Each message is `what; what to do`.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RedisConfigError {
    /// Markers where not every shard is a Redis.
    #[error(
        "markers need shards of type redis or redis-sentinel, and '{leaf}', which is served together with them, is of type {kind}; take `marker` out, or serve it apart"
    )]
    MarkerNeedsRedis {
        /// A store that is no Redis.
        leaf: String,
        /// Its type.
        kind: &'static str,
    },
    /// A login in the url of a server that is only asked.
    #[error(
        "a url of this list has a user or a password; write them as {keys}, which hold for all servers"
    )]
    LoginInUrls {
        /// The keys that take its place.
        keys: &'static str,
    },
    /// A database in the url of a server that is only asked.
    #[error("a url of this list has a database; leave it out: database 0 is used")]
    DatabaseInUrls,
    /// Some urls ask for TLS and others do not.
    #[error("some urls ask for TLS and some do not; write rediss:// in all of them, or in none")]
    MixedTls,
    /// A socket where a host is needed.
    #[error(
        "a url of this list is a socket, and servers name each other by host and port; write redis://host:port"
    )]
    SocketInUrls,
    /// Too many urls.
    #[error("lists {found} servers; write at most {most}: the others are found through them")]
    ManyUrls {
        /// How many there are.
        found: usize,
        /// The most.
        most: usize,
    },
    /// A server twice in one list.
    #[error("lists {address} twice; list each server once")]
    UrlTwice {
        /// The address.
        address: String,
    },
    /// A cluster beside members that are no Redis.
    #[error(
        "'{leaf}' is of type redis-cluster, and '{other}', which is served together with it, is of type {kind}; serve the cluster with Redis members only"
    )]
    MixedCluster {
        /// The cluster.
        leaf: String,
        /// A member of another protocol.
        other: String,
        /// Its type.
        kind: &'static str,
    },
}
