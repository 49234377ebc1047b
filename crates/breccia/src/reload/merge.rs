//! What a reload takes over from the file, and what waits for a restart.
//!
//! Pure: it compares plans and changes nothing that runs. Invariant: a key that differs is either
//! taken over or named, never passed over.

use std::collections::BTreeSet;

use breccia_config::{AdminPlan, ListenerPlan, Plan, StorePlan};

use super::{Reloaded, parts, stores};

/// The plan that is in force from now on: what was, with what can change under way taken from
/// `wanted`; and what became of each key that differs.
pub(super) fn merge(before: &Plan, wanted: &Plan) -> (Plan, Reloaded) {
    let mut plan = before.clone();
    let mut done = Reloaded::default();
    let mut apply = |key: &str, differs: bool| {
        if differs {
            done.applied.push(key.to_owned());
        }
    };
    apply("log.level", plan.log.level != wanted.log.level);
    apply("drain-timeout", plan.drain_timeout != wanted.drain_timeout);
    plan.log.level = wanted.log.level;
    plan.drain_timeout = wanted.drain_timeout;
    if let (Some(old), Some(new)) = (&mut plan.admin, &wanted.admin) {
        apply("admin.token", old.token != new.token);
        old.token.clone_from(&new.token);
    }
    for (name, old) in &mut plan.listeners {
        if let Some(new) = wanted.listeners.get(name) {
            for key in apply_listener(old, new) {
                apply(&format!("listener.{name}.{key}"), true);
            }
        }
    }
    for (name, old) in &mut plan.stores {
        if let Some(new) = wanted.stores.get(name) {
            let alone = stores::is_alone(before, wanted, name);
            for key in stores::take_over(old, new, alone) {
                apply(&format!("store.{name}.{key}"), true);
            }
        }
    }
    for key in parts::take_over(&mut plan, before, wanted) {
        apply(&key, true);
    }
    done.needs_restart = differing(&plan, wanted);
    (plan, done)
}

/// Takes over the settings of a listener that new connections see; answers their keys.
fn apply_listener(old: &mut ListenerPlan, new: &ListenerPlan) -> Vec<&'static str> {
    let mut keys = Vec::new();
    if old.protocol != new.protocol {
        // The users and limits of another protocol are not meant for this one.
        return keys;
    }
    macro_rules! take {
        ($old:ident $new:ident: $($field:ident $key:literal),+ $(,)?) => {$(
            if $old.$field != $new.$field {
                $old.$field.clone_from(&$new.$field);
                keys.push($key);
            }
        )+};
    }
    take!(old new:
        deadline "deadline",
        max_clients "max-clients",
        idle_timeout "idle-timeout",
        max_request_size "max-request-size",
        max_held_request "max-held-request",
        max_arguments "max-arguments",
        max_in_flight "max-in-flight",
        reply_buffer "reply-buffer",
        write_timeout "write-timeout",
        min_body_rate "min-body-rate",
        users "user",
        tls "tls",
    );
    if let (Some(old), Some(new)) = (&mut old.s3, &new.s3) {
        take!(old new: domain "domain", region "region");
    }
    if let (Some(old), Some(new)) = (&mut old.sql, &new.sql) {
        take!(old new:
            pool_mode "pool-mode",
            pool_size "pool-size",
            queue_timeout "queue-timeout",
            idle_in_transaction_timeout "idle-in-transaction-timeout",
            transaction_timeout "transaction-timeout",
            slow_statement "slow-statement",
            max_lifetime "max-lifetime",
            upstream_idle_timeout "upstream-idle-timeout",
            auth_query "auth-query",
            allow_md5 "allow-md5",
            local_infile "local-infile",
        );
    }
    keys
}

/// The keys, as far as they can be told, in which two plans still differ.
pub(super) fn differing(before: &Plan, wanted: &Plan) -> Vec<String> {
    let mut keys = Vec::new();
    let mut note = |key: String, differs: bool| {
        if differs {
            keys.push(key);
        }
    };
    note("workers".to_owned(), before.workers != wanted.workers);
    note("io-uring".to_owned(), before.io_uring != wanted.io_uring);
    note(
        "log.format".to_owned(),
        before.log.format != wanted.log.format,
    );
    note("state.dir".to_owned(), before.state_dir != wanted.state_dir);
    let place =
        |admin: &Option<AdminPlan>| admin.as_ref().map(|admin| (admin.bind, admin.insecure));
    note(
        "admin.bind".to_owned(),
        place(&before.admin) != place(&wanted.admin),
    );
    let names: BTreeSet<&String> = before
        .listeners
        .keys()
        .chain(wanted.listeners.keys())
        .collect();
    for name in names {
        let (old, new) = (before.listeners.get(name), wanted.listeners.get(name));
        match (old, new) {
            (Some(old), Some(new)) => {
                let key = |key: &str| format!("listener.{name}.{key}");
                note(key("protocol"), old.protocol != new.protocol);
                note(key("bind"), old.bind != new.bind);
                note(key("store"), old.store != new.store);
                if let (Some(old), Some(new)) = (&old.s3, &new.s3) {
                    note(key("buckets"), old.buckets != new.buckets);
                    note(key("domain"), old.domain != new.domain);
                    note(key("region"), old.region != new.region);
                    note(key("buffer-memory"), old.buffer_memory != new.buffer_memory);
                }
            }
            _ => note(format!("listener.{name}"), true),
        }
    }
    let names: BTreeSet<&String> = before.stores.keys().chain(wanted.stores.keys()).collect();
    for name in names {
        let (old, new) = (before.stores.get(name), wanted.stores.get(name));
        let told = old.zip(new).map(|(old, new)| stores::differing(old, new));
        let told = told.unwrap_or_default();
        for key in &told {
            note(format!("store.{name}.{key}"), true);
        }
        let differs = old.map(comparable) != new.map(comparable);
        note(format!("store.{name}"), differs && told.is_empty());
    }
    keys
}

/// A store's plan without what a layout has settled already: the order of `stores`.
pub(super) fn comparable(plan: &StorePlan) -> StorePlan {
    let mut plan = plan.clone();
    match &mut plan {
        StorePlan::ShardedInMemory(sharded) => sharded.stores.sort_unstable(),
        StorePlan::ShardedBlob(sharded) => sharded.stores.sort_unstable(),
        _ => {}
    }
    plan
}
