//! The metrics every release keeps: names, meanings, labels.
//!
//! Not the values. Invariant: a name, once released, keeps its meaning and its labels.

use super::{Family, Kind};

macro_rules! families {
    ($($(#[$doc:meta])* $constant:ident: $kind:ident $name:literal [$($label:literal),*] $help:literal;)*) => {
        $(
            #[doc = $help]
            pub static $constant: Family = Family {
                name: $name,
                help: $help,
                kind: Kind::$kind,
                labels: &[$($label),*],
            };
        )*

        /// Every family of this table, for documentation and tests.
        pub static FAMILIES: &[&Family] = &[$(&$constant),*];
    };
}

families! {
    REQUESTS: Counter "breccia_requests_total" ["listener", "command", "outcome"]
        "Requests of clients by listener, command and outcome.";
    REQUEST_SECONDS: Histogram "breccia_request_seconds" ["listener"]
        "Time from a request's arrival to its reply.";
    CONNECTIONS: Gauge "breccia_connections" ["listener"]
        "Connections of clients that are open.";
    CONNECTIONS_ACCEPTED: Counter "breccia_connections_accepted_total" ["listener"]
        "Connections of clients that were accepted.";
    CONNECTIONS_REFUSED: Counter "breccia_connections_refused_total" ["listener", "reason"]
        "Connections of clients that were closed before their first request.";
    LIMIT_HITS: Counter "breccia_limit_hits_total" ["listener", "limit"]
        "Requests or connections that met a configured limit.";
    SUBSCRIPTION_LOSSES: Counter "breccia_subscription_losses_total" ["store"]
        "Subscribers that may have missed messages because the connection to a shard was lost.";
    CLUSTER_REDIRECTS: Counter "breccia_cluster_redirects_total" ["store", "kind"]
        "Requests that a server of a cluster wanted elsewhere (moved, ask) or later, and that were sent again.";
    STORE_UP: Gauge "breccia_store_up" ["store"]
        "1 while the store's endpoint answers, 0 while it is down.";
    STORE_REQUESTS: Counter "breccia_store_requests_total" ["store", "outcome"]
        "Requests sent to a store by outcome.";
    STORE_SECONDS: Histogram "breccia_store_seconds" ["store"]
        "Time from sending a request to a store to its reply.";
    STORE_CONNECTIONS: Gauge "breccia_store_connections" ["store", "state"]
        "Connections to a store by state.";
    STORE_FREE_BYTES: Gauge "breccia_store_free_bytes" ["store"]
        "Free bytes of the file system an fs or sqlite store lies on, as last seen while in use.";
    STORE_SIZE_BYTES: Gauge "breccia_store_size_bytes" ["store"]
        "Size in bytes of the file system an fs or sqlite store lies on, as last seen while in use.";
    MEMORY_BYTES: Gauge "breccia_memory_bytes" ["store"]
        "Bytes that the entries of a memory store take.";
    MEMORY_ENTRIES: Gauge "breccia_memory_entries" ["store"]
        "Entries of a memory store.";
    MEMORY_EVICTED: Counter "breccia_memory_evicted_total" ["store"]
        "Entries that a memory store gave up for lack of memory.";
    LAYOUT_EPOCH: Gauge "breccia_layout_epoch" ["store"]
        "The epoch of a composite's layout.";
    MULTIKEY_SAME_SHARD: Counter "breccia_multikey_same_shard_total" []
        "Multi-key commands whose keys share a shard but not a slot: growth would break them.";
    BLOB_MISPLACED: Counter "breccia_blob_misplaced_total" ["store"]
        "Objects left out of listings because their shard is not where the layout puts them.";
    REPLICA_LAG_SECONDS: Gauge "breccia_replica_lag_seconds" ["store"]
        "How long ago the primary was where the replica is, in whole seconds; none while that is not known.";
    REPLICA_LAG_BYTES: Gauge "breccia_replica_lag_bytes" ["store"]
        "Bytes of the write-ahead log the replica has not replayed; none while that is not known.";
    STORE_PAUSED: Gauge "breccia_store_paused" ["store"]
        "1 while an administrator has paused a server of SQL or a composite of them.";
    SQL_ROUTED: Counter "breccia_sql_routed_total" ["target", "reason"]
        "Statements by where they were sent (primary, replica) and why.";
    SQL_PINNED: Counter "breccia_sql_pinned_total" ["reason"]
        "Sessions that came to keep their connection to the primary, by the first reason.";
    RELOADS: Counter "breccia_reloads_total" ["outcome"]
        "Reloads of the configuration by outcome.";
}
