//! Checks inside one store: keys that contradict each other.
//!
//! Not what two stores demand of each other. Invariant: no message shows a part of a url.

use std::time::Duration;

use crate::decode::{Decoder, Spot};
use crate::fault::ConfigError;
use crate::plan::Eviction;
use crate::units::show_duration;
use crate::url::RedisUrl;
use crate::value::{Decoded, Value};

use super::Tables;

pub(super) fn check(decoder: &mut Decoder<'_>, store: &Decoded) {
    if let Some(url) = store.get::<&RedisUrl>("url") {
        credentials(decoder, store, url);
        tls(decoder, store, url);
        databases(decoder, store, url);
    }
    if let (Some(stall_gate), Some(timeout)) = (time(store, "stall-gate"), time(store, "timeout"))
        && stall_gate > timeout
    {
        let error = ConfigError::StallGateAboveTimeout {
            stall_gate: show_duration(stall_gate),
            timeout: show_duration(timeout),
        };
        decoder.fault_in(store, "stall-gate", error);
    }
    if let Some(eviction) = store.choice("eviction", Eviction::ALL, Eviction::name)
        && eviction != Eviction::NoEviction
        && !store.given("max-memory")
    {
        decoder.fault_in(store, "eviction", ConfigError::EvictionWithoutLimit);
    }
    for command in store
        .get::<&Tables>("command")
        .into_iter()
        .flatten()
        .map(|(_, table)| table)
    {
        last_key(decoder, command);
    }
}

fn time(store: &Decoded, key: &str) -> Option<Duration> {
    store.get(key)
}

fn credentials(decoder: &mut Decoder<'_>, store: &Decoded, url: &RedisUrl) {
    if url.password.is_some() {
        decoder.literal_secret(Spot {
            path: &store.key("url"),
            at: store.at("url"),
        });
        if store.given("password") {
            decoder.fault_in(
                store,
                "password",
                ConfigError::UrlConflict { what: "password" },
            );
        }
    }
    if url.user.is_some() && store.given("user") {
        decoder.fault_in(store, "user", ConfigError::UrlConflict { what: "user" });
    }
    if url.password.is_none() && !store.given("password") {
        let key = if store.given("user") { "user" } else { "url" };
        if store.given("user") || url.user.is_some() {
            decoder.fault_in(store, key, ConfigError::UserWithoutPassword);
        }
    }
}

pub(super) fn tls(decoder: &mut Decoder<'_>, store: &Decoded, url: &RedisUrl) {
    if store.given("tls") && !url.tls {
        let error = ConfigError::TlsNotAsked {
            what: "the url",
            mend: "rediss:// in the url",
        };
        decoder.fault_in(store, "tls", error);
    }
    let Some(tls) = store.get::<&Decoded>("tls") else {
        return;
    };
    certificates(decoder, tls);
    if tls.get("insecure") == Some(true) || url.insecure {
        useless_ca(decoder, tls, "`insecure`");
    }
}

/// A certificate comes with its key.
pub(super) fn certificates(decoder: &mut Decoder<'_>, tls: &Decoded) {
    for (present, absent) in [("cert", "key"), ("key", "cert")] {
        if tls.given(present) && !tls.given(absent) {
            decoder.fault_in(tls, present, ConfigError::Pair { present, absent });
        }
    }
}

/// Reports `ca` where nothing is checked.
pub(super) fn useless_ca(decoder: &mut Decoder<'_>, tls: &Decoded, what: &str) {
    if tls.given("ca") {
        let (what, present) = (what.to_owned(), "ca");
        decoder.fault_in(
            tls,
            "ca",
            ConfigError::TlsInsecureConflict { what, present },
        );
    }
}

fn databases(decoder: &mut Decoder<'_>, store: &Decoded, url: &RedisUrl) {
    let last = store
        .get("databases")
        .and_then(|databases: u32| url.database.checked_add(databases.saturating_sub(1)));
    if store.values.contains_key("databases")
        && last.is_none_or(|last| i32::try_from(last).is_err())
    {
        decoder.fault_in(
            store,
            "databases",
            ConfigError::DatabaseRange {
                first: url.database,
            },
        );
    }
}

fn last_key(decoder: &mut Decoder<'_>, command: &Decoded) {
    let integer = |key| match command.values.get(key)?.value {
        Value::Integer(number) => Some(number),
        _ => None,
    };
    if let (Some(first_key), Some(last_key)) = (integer("first-key"), integer("last-key"))
        && last_key >= 0
        && last_key < first_key
    {
        decoder.fault_in(
            command,
            "last-key",
            ConfigError::LastKey {
                first_key,
                last_key,
            },
        );
    }
}
