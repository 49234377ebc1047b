//! Checks inside one blob store: keys that need or exclude each other.
//!
//! Not where it lies (`places.rs`). Invariant: no message shows a secret or a part of an endpoint.

use crate::decode::Decoder;
use crate::fault::ConfigError;
use crate::http_url::HttpEndpoint;
use crate::plan::SqlTlsMode;
use crate::tables;
use crate::value::Decoded;

use super::stores;

pub(super) fn check(decoder: &mut Decoder<'_>, store: &Decoded) {
    let kind = store.kind;
    if kind == tables::S3.name {
        for (present, absent) in [
            ("access-key", "secret-key"),
            ("secret-key", "access-key"),
            ("session-token", "access-key"),
        ] {
            needs(decoder, store, present, absent);
        }
    } else if kind == tables::AZURE.name {
        one_of(decoder, store, ["access-key", "sas-token"]);
    } else if kind == tables::GCS.name {
        if store.given("credentials") && store.get("anonymous") == Some(true) {
            exclusive(decoder, store, ["credentials", "anonymous"]);
        }
    } else if kind == tables::POSTGRESQL.name || kind == tables::MYSQL.name {
        sql(decoder, store);
    } else if kind == tables::SHARDED_BLOB.name {
        composite(decoder, store);
    }
    http_tls(decoder, store);
}

/// A key that is there needs another.
pub(super) fn needs(
    decoder: &mut Decoder<'_>,
    table: &Decoded,
    present: &'static str,
    absent: &'static str,
) {
    if table.given(present) && !table.given(absent) {
        decoder.fault_in(table, present, ConfigError::Pair { present, absent });
    }
}

fn exclusive(decoder: &mut Decoder<'_>, table: &Decoded, keys: [&'static str; 2]) {
    let [one, other] = keys;
    decoder.fault_in(table, other, ConfigError::Exclusive { one, other });
}

/// Exactly one of two keys; the first is the one whose description has an example.
pub(super) fn one_of(decoder: &mut Decoder<'_>, table: &Decoded, keys: [&'static str; 2]) {
    let [one, other] = keys;
    match (table.given(one), table.given(other)) {
        (true, true) => exclusive(decoder, table, keys),
        (false, false) => {
            let example = format!("it, or `{other}`");
            decoder.fault_in(table, one, ConfigError::MissingKey { example });
        }
        _ => {}
    }
}

fn http_tls(decoder: &mut Decoder<'_>, store: &Decoded) {
    if let Some(endpoint) = store.get::<&HttpEndpoint>("endpoint")
        && !endpoint.tls
        && store.given("tls")
    {
        let error = ConfigError::TlsNotAsked {
            what: "the endpoint",
            mend: "https:// in `endpoint`",
        };
        decoder.fault_in(store, "tls", error);
    }
    if store.values.contains_key("keys")
        && let Some(tls) = store.get::<&Decoded>("tls")
    {
        stores::certificates(decoder, tls);
        if tls.get("insecure") == Some(true) {
            stores::useless_ca(decoder, tls, "`insecure`");
        }
    }
}

fn sql(decoder: &mut Decoder<'_>, store: &Decoded) {
    one_of(decoder, store, ["host", "socket"]);
    if store.given("socket") {
        if store.given("port") {
            exclusive(decoder, store, ["socket", "port"]);
        }
        if store.given("tls") {
            let error = ConfigError::TlsNotAsked {
                what: "a Unix socket",
                mend: "`host` instead of `socket`",
            };
            decoder.fault_in(store, "tls", error);
        }
    }
    let Some(tls) = store.get::<&Decoded>("tls") else {
        return;
    };
    stores::certificates(decoder, tls);
    if let Some(mode) = tls.choice("mode", SqlTlsMode::ALL, SqlTlsMode::name)
        && !mode.verifies()
    {
        stores::useless_ca(decoder, tls, &format!("mode = \"{mode}\""));
    }
}

fn composite(decoder: &mut Decoder<'_>, store: &Decoded) {
    if store.get("marker") == Some(false) {
        decoder.fault_in(store, "marker", ConfigError::MarkerAlways);
    }
    let stalwart = is_stalwart(store);
    if stalwart == Some(false) && store.given("placement-prefix") {
        let (present, absent) = ("placement-prefix", "placement-key = \"stalwart\"");
        decoder.fault_in(store, present, ConfigError::Pair { present, absent });
    }
    // Raw keys are binary: a sign of a tag in one stands there by chance.
    if stalwart == Some(true) && store.given("hash-tag") {
        exclusive(decoder, store, ["placement-key", "hash-tag"]);
    }
}

/// Whether a composite hashes what Stalwart's names stand for; `None` if that was faulty.
pub(super) fn is_stalwart(store: &Decoded) -> Option<bool> {
    let rules = breccia_core::PlacementKey::NAMES;
    let raw = breccia_core::PlacementKey::Raw.name();
    let rule = store.choice("placement-key", rules, |name| name);
    rule.map(|rule| rule != raw)
}
