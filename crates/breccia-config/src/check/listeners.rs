//! Checks of listeners: who may reach them, what they serve, and whether two want one place.
//!
//! Not what a protocol's clients may do once they are in. Invariant: a doubt about who may reach a
//! listener is a fault, unless the file says `insecure`.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use breccia_core::address::Address;

use super::composites::leaves;
use super::{Tables, foreign, places, s3, sql, undefined};
use crate::decode::{Decoder, Spot};
use crate::fault::ConfigError;
use crate::plan::{BindPlan, Protocol};
use crate::tables::{self, Family};
use crate::value::Decoded;

pub(super) fn check(
    decoder: &mut Decoder<'_>,
    file: &Decoded,
    listeners: &Tables,
    stores: &Tables,
) {
    let mut taken: Vec<(BindPlan, &Decoded)> = Vec::new();
    if let Some(admin) = file.get::<&Decoded>("admin") {
        open_admin(decoder, admin);
        if let Some(bind) = admin.get::<SocketAddr>("bind") {
            taken.push((BindPlan::Tcp(bind), admin));
        }
    }
    let mut in_order: Vec<&Decoded> = listeners.values().collect();
    in_order.sort_by_key(|listener| listener.at);
    s3::modes(decoder, &in_order);
    for listener in in_order {
        let protocol = listener.choice("protocol", Protocol::ALL, Protocol::name);
        if let Some(bind) = listener.get::<&BindPlan>("bind") {
            open_listener(decoder, listener, bind, protocol);
            if let Some((_, other)) = taken.iter().find(|(other, _)| overlap(other, bind)) {
                let other = other.path.clone();
                let error = ConfigError::BindTaken {
                    bind: bind.to_string(),
                    other,
                };
                decoder.fault_in(listener, "bind", error);
            }
            taken.push((bind.clone(), listener));
        }
        users(decoder, listener, protocol);
        if let Some(protocol) = protocol {
            foreign::keys(decoder, listener, protocol);
        }
        if protocol == Some(Protocol::S3) {
            s3::key_pairs(decoder, listener);
            s3::stores(decoder, listener, stores);
        } else if let Some(protocol) = protocol.filter(|it| it.is_sql()) {
            sql::listener(decoder, listener, protocol, stores);
        } else {
            served(decoder, listener, protocol, stores);
        }
    }
    for store in stores.values() {
        connects_to_itself(decoder, store, &taken);
    }
}

fn open_admin(decoder: &mut Decoder<'_>, admin: &Decoded) {
    if let Some(bind) = admin.get::<SocketAddr>("bind").map(BindPlan::Tcp)
        && !bind.is_local()
        && !admin.given("token")
        && admin.get("insecure") == Some(false)
    {
        decoder.fault_in(
            admin,
            "bind",
            ConfigError::OpenAdmin {
                bind: bind.to_string(),
            },
        );
    }
}

/// A listener that others can reach needs a proof of who they are.
fn open_listener(
    decoder: &mut Decoder<'_>,
    listener: &Decoded,
    bind: &BindPlan,
    protocol: Option<Protocol>,
) {
    let certificates = match listener.get::<&Decoded>("tls") {
        Some(tls) => tls.given("client-ca"),
        // Faulty, and reported: what it would have said is not known.
        None => listener.given("tls"),
    };
    // Without users an S3 listener is refused wherever it is, and each of them has keys.
    let is_s3 = protocol == Some(Protocol::S3);
    if is_s3 || bind.is_local() || certificates || listener.get("insecure") != Some(false) {
        return;
    }
    let bind = bind.to_string();
    if protocol == Some(Protocol::Memcached) {
        // It has no users: those that are written are refused elsewhere.
        let proof = "tls.client-ca".to_owned();
        decoder.fault_in(listener, "bind", ConfigError::OpenListener { bind, proof });
        return;
    }
    let is_sql = protocol.is_some_and(Protocol::is_sql);
    let asks = protocol == Some(Protocol::Postgresql);
    match listener.get::<&[Decoded]>("user") {
        // Faulty, and reported.
        None if listener.given("user") => {}
        // The servers know the users; and of those that are written each has a proof.
        None | Some([]) if asks && listener.given("auth-query") => {}
        Some([_, ..]) if is_sql => {}
        None | Some([]) => {
            let query = if asks { ", `auth-query`" } else { "" };
            let proof = format!("a [[{}.user]]{query} or tls.client-ca", listener.path);
            decoder.fault_in(listener, "bind", ConfigError::OpenListener { bind, proof });
        }
        Some(users) => {
            for user in users.iter().filter(|user| !user.given("password")) {
                let spot = Spot {
                    path: &user.path,
                    at: user.at,
                };
                decoder.fault(spot, ConfigError::OpenUser { bind: bind.clone() });
            }
        }
    }
}

fn users(decoder: &mut Decoder<'_>, listener: &Decoded, protocol: Option<Protocol>) {
    let mut names = BTreeSet::new();
    for user in listener.get::<&[Decoded]>("user").into_iter().flatten() {
        if protocol == Some(Protocol::Memcached) {
            decoder.fault(
                Spot {
                    path: &user.path,
                    at: user.at,
                },
                ConfigError::NoLogIn,
            );
        }
        if let Some(name) = user.get::<&str>("name")
            && !names.insert(name)
        {
            decoder.fault_in(
                user,
                "name",
                ConfigError::UserTwice {
                    name: name.to_owned(),
                },
            );
        }
    }
}

/// The store must be there, and hold what the protocol needs.
fn served(
    decoder: &mut Decoder<'_>,
    listener: &Decoded,
    protocol: Option<Protocol>,
    stores: &Tables,
) {
    const SHOWN: usize = 5;
    if !listener.given("store") && !listener.given("buckets") {
        let example = "store = \"cache\"".to_owned();
        decoder.fault_in(listener, "store", ConfigError::MissingKey { example });
    }
    let Some(name) = listener.get::<&str>("store") else {
        return;
    };
    let (Some(store), Some(protocol)) = (stores.get(name), protocol) else {
        if !stores.contains_key(name) {
            decoder.fault_in(listener, "store", undefined(name, stores));
        }
        return;
    };
    let other = match Family::of(store.kind) {
        Some(Family::Blob) => Some("protocol = \"s3\""),
        Some(Family::Sql) => Some(sql::served_with(Some(store), stores)),
        Some(Family::InMemory) | None => None,
    };
    if let Some(other) = other {
        let error = ConfigError::OtherProtocol {
            protocol: protocol.name(),
            wanted: "in-memory stores",
            store: name.to_owned(),
            kind: store.kind,
            other,
        };
        decoder.fault_in(listener, "store", error);
    }
    if protocol != Protocol::Memcached {
        return;
    }
    let redis: Vec<&str> = leaves(stores, name)
        .into_iter()
        .filter_map(|(name, store)| tables::is_redis(store.kind).then_some(name))
        .collect();
    if !redis.is_empty() {
        let mut shown: Vec<String> = redis
            .iter()
            .take(SHOWN)
            .map(|name| format!("'{name}'"))
            .collect();
        if redis.len() > SHOWN {
            shown.push(format!("{} more", redis.len() - SHOWN));
        }
        let error = ConfigError::MemcachedOverRedis {
            redis: shown.join(", "),
        };
        decoder.fault_in(listener, "store", error);
    }
}

/// Whether the system would refuse to bind both.
fn overlap(a: &BindPlan, b: &BindPlan) -> bool {
    match (a, b) {
        (BindPlan::Unix(a), BindPlan::Unix(b)) => a == b,
        (BindPlan::Tcp(a), BindPlan::Tcp(b)) => {
            let (ip_a, ip_b) = (a.ip().to_canonical(), b.ip().to_canonical());
            // Port 0 is any free one.
            a.port() == b.port()
                && a.port() != 0
                && (ip_a == ip_b || covers(ip_a, ip_b) || covers(ip_b, ip_a))
        }
        _ => false,
    }
}

/// Whether a wildcard takes the other address too; the IPv6 one takes IPv4 as well.
fn covers(wildcard: IpAddr, other: IpAddr) -> bool {
    wildcard.is_unspecified() && (wildcard.is_ipv6() || other.is_ipv4())
}

fn connects_to_itself(
    decoder: &mut Decoder<'_>,
    store: &Decoded,
    listening: &[(BindPlan, &Decoded)],
) {
    let Some((address, key)) = places::server(store) else {
        return;
    };
    let own = listening.iter().find(|(bind, _)| match (&address, bind) {
        (Address::Unix(path), BindPlan::Unix(bind)) => path == bind,
        (Address::Tcp { host, port }, BindPlan::Tcp(bind)) => {
            let ip = match host.as_str() {
                "localhost" => Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
                host => host.parse().ok(),
            };
            bind.port() == *port
                && ip.is_some_and(|ip: IpAddr| {
                    let bound = bind.ip().to_canonical();
                    bound == ip || (ip.is_loopback() && covers(bound, ip))
                })
        }
        _ => false,
    });
    if let Some((_, listener)) = own {
        let error = ConfigError::OwnListener {
            listener: listener.path.clone(),
        };
        decoder.fault_in(store, key, error);
    }
}
