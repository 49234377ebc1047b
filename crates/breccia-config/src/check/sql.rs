//! Checks of SQL: the members of a sql-read-replica, its listeners, and their users.
//!
//! Not who may reach a listener (`listeners.rs`). Invariant: no message shows a verifier.

use std::collections::{BTreeMap, BTreeSet};

use breccia_core::address::Address;

use super::{Tables, blob, undefined};
use crate::Secret;
use crate::assemble::blob::sql_address;
use crate::decode::{Decoder, Spot};
use crate::fault::{ConfigError, Notice, SqlConfigError};
use crate::plan::{PoolMode, Protocol, TransactionRouting};
use crate::tables::{self, Family};
use crate::value::{Decoded, Name};

/// The length of both keys of a verifier, in bytes.
const VERIFIER_KEY_BYTES: usize = 32;

/// A store that a sql-read-replica names: the name, the key it stands under, and where.
type Listed<'d> = (&'d str, &'static str, usize);

pub(super) fn check(decoder: &mut Decoder<'_>, stores: &Tables) {
    for store in stores.values() {
        if store.kind == tables::SQL_READ_REPLICA.name {
            members(decoder, store, stores);
            if one_kind(decoder, store, stores) {
                one_role(decoder, store, stores);
            }
        }
    }
    users_of_servers(decoder, stores);
}

/// Whether stores of a type are servers of SQL.
fn is_server(kind: &str) -> bool {
    kind == tables::POSTGRESQL.name || kind == tables::MYSQL.name
}

/// The types of the servers of a sql-read-replica that are known, the primary's first.
fn kinds<'d>(store: &'d Decoded, stores: &'d Tables) -> impl Iterator<Item = &'static str> + 'd {
    let servers = listed(store).into_iter();
    let kinds = servers.filter_map(|(name, ..)| stores.get(name).map(|member| member.kind));
    kinds.filter(|kind| is_server(kind))
}

/// The protocol that the servers of a sql-read-replica speak: that of the first one that is known.
fn spoken(store: &Decoded, stores: &Tables) -> Option<Protocol> {
    let kind = kinds(store, stores).next()?;
    Some(if kind == tables::MYSQL.name {
        Protocol::Mysql
    } else {
        Protocol::Postgresql
    })
}

/// Whether its servers speak two protocols: that is the fault, whatever serves them.
fn is_mixed(store: &Decoded, stores: &Tables) -> bool {
    let mut kinds = kinds(store, stores);
    let first = kinds.next();
    kinds.any(|kind| Some(kind) != first)
}

/// What a listener of a sql-read-replica says, for a message.
pub(super) fn served_with(store: Option<&Decoded>, stores: &Tables) -> &'static str {
    match store.and_then(|store| spoken(store, stores)) {
        Some(Protocol::Mysql) => "protocol = \"mysql\"",
        _ => "protocol = \"postgresql\"",
    }
}

/// The primary and then the replicas of a sql-read-replica; none for other stores.
pub(super) fn listed(store: &Decoded) -> Vec<Listed<'_>> {
    let primary = store.get::<&str>("primary");
    let primary = primary.map(|name| (name, "primary", store.at("primary")));
    let replicas = store.get::<&[Name]>("replicas").unwrap_or(&[]);
    let replicas = replicas
        .iter()
        .map(|replica| (replica.name.as_str(), "replicas", replica.at));
    primary.into_iter().chain(replicas).collect()
}

/// The databases that hold no objects, because no composite of blobs lists them: servers of a
/// sql-read-replica, and those that nothing uses, such as a replica that was taken out of one.
pub(crate) fn only_servers(stores: &Tables) -> BTreeSet<&str> {
    let servers = stores.iter().filter(|(_, store)| is_server(store.kind));
    let blobs = blob_parents(stores);
    let servers = servers.map(|(name, _)| name.as_str());
    servers.filter(|name| !blobs.contains_key(name)).collect()
}

/// The shards of composites of blobs, each with one that lists it.
fn blob_parents(stores: &Tables) -> BTreeMap<&str, &str> {
    let mut parents = BTreeMap::new();
    for (name, store) in stores {
        if store.kind == tables::SHARDED_BLOB.name {
            for shard in store.get::<&[Name]>("stores").unwrap_or(&[]) {
                parents.entry(shard.name.as_str()).or_insert(name.as_str());
            }
        }
    }
    parents
}

/// All servers speak one protocol; whether they do.
fn one_kind(decoder: &mut Decoder<'_>, store: &Decoded, stores: &Tables) -> bool {
    let servers = listed(store).into_iter();
    let mut servers = servers.filter_map(|(name, key, at)| {
        let kind = stores.get(name)?.kind;
        is_server(kind).then_some((name, kind, key, at))
    });
    let Some(first) = servers.next() else {
        return true;
    };
    let rest: Vec<_> = servers.collect();
    let Some(stranger) = rest.iter().find(|(_, kind, ..)| *kind != first.1) else {
        return true;
    };
    // All others agree: it is the primary that does not belong there.
    let alone = first.2 == "primary" && rest.iter().all(|(_, kind, ..)| *kind != first.1);
    let (error, (.., key, at)) = if alone {
        let error = SqlConfigError::StrangePrimary {
            name: first.0.to_owned(),
            kind: first.1,
            replicas: stranger.1,
        };
        (error, first)
    } else {
        let error = SqlConfigError::MixedServers {
            first: first.0.to_owned(),
            kind: first.1,
            name: stranger.0.to_owned(),
            other: stranger.1,
        };
        (error, *stranger)
    };
    let path = store.key(key);
    decoder.fault(Spot { path: &path, at }, error.into());
    false
}

/// Sessions are of one role on all servers.
fn one_role(decoder: &mut Decoder<'_>, store: &Decoded, stores: &Tables) {
    let servers = listed(store).into_iter();
    let mut servers = servers.filter_map(|(name, key, at)| {
        let member = stores.get(name)?;
        let user = member.get::<&str>("user");
        let known = user.is_some() || !member.given("user");
        (is_server(member.kind) && known).then_some((name, user, key, at))
    });
    let Some((first, user, ..)) = servers.next() else {
        return;
    };
    if let Some((name, other, key, at)) = servers.find(|(_, other, ..)| *other != user) {
        let says = |user: Option<&str>| {
            user.map_or_else(|| "no `user`".to_owned(), |user| format!("user = {user:?}"))
        };
        let error = SqlConfigError::SeveralRoles {
            first: first.to_owned(),
            says: says(user),
            name: name.to_owned(),
            other: says(other),
        };
        let path = store.key(key);
        decoder.fault(Spot { path: &path, at }, error.into());
    }
}

/// Each member is a server of its own.
fn members(decoder: &mut Decoder<'_>, store: &Decoded, stores: &Tables) {
    let mut seen = BTreeSet::new();
    let mut taken: BTreeMap<Address, &str> = BTreeMap::new();
    for (name, key, at) in listed(store) {
        let path = store.key(key);
        let spot = Spot { path: &path, at };
        let name_of = || name.to_owned();
        if !seen.insert(name) {
            decoder.fault(spot, ConfigError::ListedTwice { name: name_of() });
            continue;
        }
        let Some(member) = stores.get(name) else {
            if !decoder.is_full() {
                decoder.fault(spot, undefined(name, stores));
            }
            continue;
        };
        let kind = member.kind;
        if kind == tables::SQL_READ_REPLICA.name {
            let protocol = served_with(Some(member), stores);
            let name = name_of();
            let error = SqlConfigError::NoMember { name, protocol };
            decoder.fault(spot, error.into());
        } else if !is_server(kind) {
            // Of a store without a known type that is the fault.
            if Family::of(kind).is_some() {
                let name = name_of();
                decoder.fault(spot, SqlConfigError::NotAServer { name, kind }.into());
            }
        } else if let Some(address) = sql_address(member) {
            match taken.get(&address) {
                None => drop(taken.insert(address, name)),
                Some(other) => {
                    let error = SqlConfigError::SameServer {
                        name: name_of(),
                        other: (*other).to_owned(),
                        address: address.to_string(),
                    };
                    decoder.fault(spot, error.into());
                }
            }
        }
    }
}

/// What holds objects has a user and a database. A server of a sql-read-replica may go without:
/// then each client brings its own. Of a database that nothing uses nothing is asked.
fn users_of_servers(decoder: &mut Decoder<'_>, stores: &Tables) {
    let blobs = blob_parents(stores);
    let served: BTreeSet<&str> = stores.values().flat_map(listed).map(|it| it.0).collect();
    for (name, store) in stores {
        if !is_server(store.kind) {
            continue;
        }
        blob::needs(decoder, store, "monitor-password", "monitor-user");
        let composite = blobs.get(name.as_str());
        if composite.is_some() && store.kind == tables::MYSQL.name && !store.given("database") {
            let example = "database = \"blobs\"".to_owned();
            decoder.fault_in(store, "database", ConfigError::MissingKey { example });
        }
        if store.given("user") {
            continue;
        }
        if let Some(composite) = composite {
            let composite = (*composite).to_owned();
            let error = SqlConfigError::UserForBlobs { composite };
            decoder.fault_in(store, "user", error.into());
            continue;
        }
        blob::needs(decoder, store, "password", "user");
        if served.contains(name.as_str()) && !store.given("monitor-user") {
            let error = SqlConfigError::NobodyToAskAs;
            decoder.fault_in(store, "monitor-user", error.into());
        }
    }
}

/// What an SQL listener serves, and who its users are.
pub(super) fn listener(
    decoder: &mut Decoder<'_>,
    listener: &Decoded,
    protocol: Protocol,
    stores: &Tables,
) {
    for user in listener.get::<&[Decoded]>("user").unwrap_or(&[]) {
        blob::needs(decoder, user, "upstream-password", "upstream-user");
        if protocol == Protocol::Mysql {
            if !user.given("password") {
                let example = "password = { env = \"PASSWORD\" }".to_owned();
                decoder.fault_in(user, "password", ConfigError::MissingKey { example });
            }
            continue;
        }
        blob::one_of(decoder, user, ["password", "scram-verifier"]);
        let verifier = user.get::<Secret>("scram-verifier");
        if verifier.is_some_and(|verifier| !is_verifier(verifier.expose())) {
            let error = SqlConfigError::BadVerifier;
            decoder.fault_in(user, "scram-verifier", error.into());
        }
    }
    if !listener.given("store") && !listener.given("buckets") {
        let example = "store = \"db\"".to_owned();
        decoder.fault_in(listener, "store", ConfigError::MissingKey { example });
    }
    let Some(name) = listener.get::<&str>("store") else {
        return;
    };
    let Some(store) = stores.get(name) else {
        decoder.fault_in(listener, "store", undefined(name, stores));
        return;
    };
    served(decoder, listener, protocol, (name, store), stores);
    lazy_in_session_mode(decoder, listener, protocol, (name, store));
    if protocol == Protocol::Mysql {
        somebody_upstream(decoder, listener, store, stores);
    } else if listener.given("auth-query") {
        let mut servers = listed(store).into_iter();
        let without = servers.find(|(server, ..)| {
            let asks = |it: &Decoded| it.given("user") || it.given("monitor-user");
            let found = stores.get(*server);
            found.is_some_and(|it| it.kind == tables::POSTGRESQL.name && !asks(it))
        });
        if let Some((server, ..)) = without {
            let store = server.to_owned();
            let error = SqlConfigError::AuthQueryNeedsUser { store };
            decoder.fault_in(listener, "auth-query", error.into());
        }
    }
}

/// Over MySQL a session keeps its connection to the primary and reads elsewhere all the same.
fn lazy_in_session_mode(
    decoder: &mut Decoder<'_>,
    listener: &Decoded,
    protocol: Protocol,
    (name, store): (&str, &Decoded),
) {
    let mode = listener.choice("pool-mode", PoolMode::ALL, PoolMode::name);
    let routing = store.choice(
        "transactions",
        TransactionRouting::ALL,
        TransactionRouting::name,
    );
    let is_session = mode == Some(PoolMode::Session);
    let is_lazy = routing == Some(TransactionRouting::Lazy);
    if protocol == Protocol::Postgresql && is_session && is_lazy {
        let spot = Spot {
            path: &listener.key("pool-mode"),
            at: listener.at("pool-mode"),
        };
        let store = name.to_owned();
        decoder.warn(spot, Notice::LazyInSessionMode { store });
    }
}

/// Without users everybody is the servers' `user`: then each has one.
fn somebody_upstream(
    decoder: &mut Decoder<'_>,
    listener: &Decoded,
    store: &Decoded,
    stores: &Tables,
) {
    let nobody = listener
        .get::<&[Decoded]>("user")
        .is_none_or(<[_]>::is_empty);
    // Faulty users are reported already.
    let faulty = listener.get::<&[Decoded]>("user").is_none() && listener.given("user");
    if !nobody || faulty {
        return;
    }
    let mut servers = listed(store).into_iter();
    let without = servers.find(|(server, ..)| {
        let found = stores.get(*server);
        found.is_some_and(|it| it.kind == tables::MYSQL.name && !it.given("user"))
    });
    if let Some((server, ..)) = without {
        let error = SqlConfigError::NobodyToLogInAs {
            listener: listener.path.clone(),
            store: server.to_owned(),
        };
        decoder.fault_in(listener, "user", error.into());
    }
}

/// An SQL listener serves a sql-read-replica of servers that speak its protocol.
fn served(
    decoder: &mut Decoder<'_>,
    listener: &Decoded,
    protocol: Protocol,
    (name, store): (&str, &Decoded),
    stores: &Tables,
) {
    let kind = store.kind;
    let family = Family::of(kind);
    let other = match family {
        None => return,
        Some(Family::Sql) if is_mixed(store, stores) => return,
        Some(Family::Sql) => match spoken(store, stores) {
            Some(spoken) if spoken != protocol => served_with(Some(store), stores),
            _ => return,
        },
        Some(Family::InMemory) => "protocol = \"redis\"",
        Some(Family::Blob) if kind == tables::POSTGRESQL.name => "protocol = \"postgresql\"",
        Some(Family::Blob) if kind == tables::MYSQL.name => "protocol = \"mysql\"",
        Some(Family::Blob) => "protocol = \"s3\"",
    };
    let store = name.to_owned();
    let error = if kind == protocol.name() {
        SqlConfigError::NeedsReadReplica { store, kind }.into()
    } else {
        ConfigError::OtherProtocol {
            protocol: protocol.name(),
            wanted: match (family, protocol) {
                (Some(Family::Sql), Protocol::Mysql) => "sql-read-replicas of mysql stores",
                (Some(Family::Sql), _) => "sql-read-replicas of postgresql stores",
                _ => "stores of type sql-read-replica",
            },
            store,
            kind,
            other,
        }
    };
    decoder.fault_in(listener, "store", error);
}

/// Whether a text has the form of a verifier as `PostgreSQL` keeps it.
fn is_verifier(text: &str) -> bool {
    let parts = || {
        let (salted, keys) = text.strip_prefix("SCRAM-SHA-256$")?.split_once('$')?;
        let (iterations, salt) = salted.split_once(':')?;
        let (stored_key, server_key) = keys.split_once(':')?;
        Some((iterations, salt, [stored_key, server_key]))
    };
    parts().is_some_and(|(iterations, salt, keys)| {
        iterations.bytes().all(|byte| byte.is_ascii_digit())
            && iterations
                .parse::<i32>()
                .is_ok_and(|iterations| iterations > 0)
            && base64_bytes(salt).is_some_and(|bytes| bytes > 0)
            && keys.map(base64_bytes) == [Some(VERIFIER_KEY_BYTES); 2]
    })
}

/// How many bytes a text is the base64 of; `None` if of none.
fn base64_bytes(text: &str) -> Option<usize> {
    let body = text.trim_end_matches('=');
    let padding = text.len() - body.len();
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'+' || byte == b'/';
    let whole = text.len().is_multiple_of(4) && padding <= 2 && body.bytes().all(fits);
    whole.then(|| (text.len() / 4 * 3).saturating_sub(padding))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verifier_is_known_by_its_form() {
        let salt = "MTIzNDU2Nzg5MDEyMzQ1Ng==";
        let key = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA8=";
        let whole = format!("SCRAM-SHA-256$4096:{salt}${key}:{key}");
        assert!(is_verifier(&whole));
        let check = |from: &str, to: &str| {
            let text = whole.replacen(from, to, 1);
            assert!(text != whole && !is_verifier(&text), "{text}");
        };
        check("SCRAM-SHA-256", "SCRAM-SHA-512");
        check("SCRAM-SHA-256$", "md5");
        check("4096", "0");
        check("4096", "+4096");
        check("4096", "");
        check("4096", "99999999999");
        check(salt, "");
        check(salt, "MTI");
        check(salt, "M===");
        check(salt, "MTI-");
        check(key, "AAAA");
        check("8=", "8==");
        check(&format!(":{key}"), "");
    }
}
