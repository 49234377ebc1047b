//! From checked tables to the plans of listeners.
//!
//! No checks. Invariant: as in [`super`], a `None` is a gap in the field tables.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{optional, sql};
use crate::plan::{
    BindPlan, ListenerPlan, Protocol, S3ListenerPlan, S3UserPlan, TlsServerPlan, UserPlan,
};
use crate::value::{Decoded, Name};

/// The default of `write-timeout`.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// The default of `write-timeout` for S3 and SQL: objects and long results go to slow clients.
const LONG_WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// The default of `max-request-size`.
const REQUEST_SIZE: u64 = 64 << 20;

/// The default of `max-request-size` for Redis and `MySQL`: their largest value, and room for what is
/// around it.
const LARGE_REQUEST_SIZE: u64 = 1 << 30;

/// The default of `idle-timeout` for S3: clients open a connection anew without a log-in.
const S3_IDLE_TIMEOUT: Duration = Duration::from_mins(2);

pub(super) fn listener(table: &Decoded) -> Option<ListenerPlan> {
    let protocol = table.choice("protocol", Protocol::ALL, Protocol::name)?;
    let is_s3 = protocol == Protocol::S3;
    let is_sql = protocol.is_sql();
    let s3 = if is_s3 { Some(s3(table)?) } else { None };
    let fixed = s3.as_ref().is_some_and(|s3| s3.buckets.is_some());
    Some(ListenerPlan {
        protocol,
        bind: table.get::<&BindPlan>("bind")?.clone(),
        store: match table.get("store") {
            None if fixed => String::new(),
            store => store?,
        },
        tls: optional(table, "tls", tls_server).ok()?,
        insecure: table.get("insecure")?,
        deadline: table.get("deadline")?,
        max_clients: table.get("max-clients")?,
        idle_timeout: table
            .get("idle-timeout")
            .or(is_s3.then_some(S3_IDLE_TIMEOUT)),
        max_request_size: table.get("max-request-size").unwrap_or(match protocol {
            Protocol::Redis | Protocol::Mysql => LARGE_REQUEST_SIZE,
            _ => REQUEST_SIZE,
        }),
        max_held_request: table.get("max-held-request")?,
        max_arguments: table.get("max-arguments")?,
        max_in_flight: table.get("max-in-flight")?,
        reply_buffer: table.get("reply-buffer")?,
        write_timeout: table.get("write-timeout").unwrap_or(if is_s3 || is_sql {
            LONG_WRITE_TIMEOUT
        } else {
            WRITE_TIMEOUT
        }),
        min_body_rate: table.get("min-body-rate")?,
        users: table
            .get::<&[Decoded]>("user")
            .unwrap_or(&[])
            .iter()
            .map(|table| user(table, protocol))
            .collect::<Option<_>>()?,
        s3,
        sql: if is_sql {
            Some(sql::listener(table)?)
        } else {
            None
        },
    })
}

fn s3(table: &Decoded) -> Option<S3ListenerPlan> {
    let buckets = table.get::<&BTreeMap<String, Name>>("buckets");
    let owned = |(bucket, store): (&String, &Name)| (bucket.clone(), store.name.clone());
    Some(S3ListenerPlan {
        buckets: buckets.map(|buckets| buckets.iter().map(owned).collect()),
        domain: table.get("domain"),
        region: table.get("region")?,
        buffer_memory: table.get("buffer-memory")?,
    })
}

fn tls_server(table: &Decoded) -> Option<TlsServerPlan> {
    Some(TlsServerPlan {
        cert: table.get("cert")?,
        key: table.get("key")?,
        client_ca: table.get("client-ca"),
    })
}

fn user(table: &Decoded, protocol: Protocol) -> Option<UserPlan> {
    let s3 = if protocol == Protocol::S3 {
        let buckets = table.get::<&[Name]>("buckets");
        Some(S3UserPlan {
            access_key: table.get("access-key")?,
            secret_key: table.get("secret-key")?,
            buckets: buckets.map(|names| names.iter().map(|name| name.name.clone()).collect()),
            read_only: table.get("read-only")?,
        })
    } else {
        None
    };
    Some(UserPlan {
        name: table.get("name")?,
        password: table.get("password"),
        s3,
        sql: protocol.is_sql().then(|| sql::user(table)),
    })
}
