//! Checks of what kind of data the members of a composite hold.
//!
//! Invariant: under an in-memory composite lie only in-memory stores, and under a blob composite
//! only blob stores; nothing is made of sql-read-replicas.

use super::{Tables, sql};
use crate::decode::{Decoder, Spot};
use crate::fault::{ConfigError, SqlConfigError};
use crate::tables::Family;
use crate::value::Name;

pub(super) fn check(decoder: &mut Decoder<'_>, stores: &Tables) {
    for store in stores.values() {
        let (Some(family), Some(members)) =
            (Family::of(store.kind), store.get::<&[Name]>("stores"))
        else {
            continue;
        };
        let key = store.key("stores");
        for member in members {
            let Some(kind) = stores.get(&member.name).map(|member| member.kind) else {
                continue;
            };
            let Some(other) = Family::of(kind).filter(|other| *other != family) else {
                continue;
            };
            let name = member.name.clone();
            let error = if other == Family::Sql {
                {
                    let protocol = sql::served_with(stores.get(&name), stores);
                    SqlConfigError::NoMember { name, protocol }.into()
                }
            } else {
                ConfigError::OtherFamily {
                    name,
                    kind,
                    composite: store.kind,
                    wanted: family.in_words(),
                    other: other.composite(),
                }
            };
            let spot = Spot {
                path: &key,
                at: member.at,
            };
            decoder.fault(spot, error);
        }
    }
}
