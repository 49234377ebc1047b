//! From checked tables to the plans of SQL.
//!
//! No checks. Invariant: as in [`super`], a `None` is a gap in the field tables.

use crate::plan::{
    Consistency, PoolMode, SqlListenerPlan, SqlReadReplicaPlan, SqlUserPlan, TransactionRouting,
};
use crate::value::{Decoded, Name};

pub(super) fn read_replica(table: &Decoded) -> Option<SqlReadReplicaPlan> {
    let (promises, ways) = (Consistency::ALL, TransactionRouting::ALL);
    Some(SqlReadReplicaPlan {
        primary: table.get("primary")?,
        replicas: super::store_names(table, "replicas")?,
        consistency: table.choice("consistency", promises, Consistency::name)?,
        transactions: table.choice("transactions", ways, TransactionRouting::name)?,
        max_lag: table.get("max-lag")?,
        replica_wait: table.get("replica-wait")?,
        read_functions: read_functions(table),
    })
}

fn read_functions(table: &Decoded) -> Vec<String> {
    let names = table.get::<&[Name]>("read-functions").unwrap_or_default();
    names.iter().map(|name| name.name.clone()).collect()
}

pub(super) fn listener(table: &Decoded) -> Option<SqlListenerPlan> {
    Some(SqlListenerPlan {
        pool_mode: table.choice("pool-mode", PoolMode::ALL, PoolMode::name)?,
        pool_size: table.get("pool-size")?,
        queue_timeout: table.get("queue-timeout")?,
        idle_in_transaction_timeout: table.get("idle-in-transaction-timeout"),
        transaction_timeout: table.get("transaction-timeout"),
        slow_statement: table.get("slow-statement")?,
        max_lifetime: table.get("max-lifetime")?,
        upstream_idle_timeout: table.get("upstream-idle-timeout")?,
        auth_query: table.get("auth-query"),
        allow_md5: table.get("allow-md5")?,
        local_infile: table.get("local-infile")?,
    })
}

pub(super) fn user(table: &Decoded) -> SqlUserPlan {
    SqlUserPlan {
        scram_verifier: table.get("scram-verifier"),
        upstream_user: table.get("upstream-user"),
        upstream_password: table.get("upstream-password"),
    }
}
