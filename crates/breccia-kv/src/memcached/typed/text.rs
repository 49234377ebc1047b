//! The classic text commands over a typed store. Meta commands are not here.
//!
//! Invariant: each command on one key is one atomic `apply`.

use crate::entry::{Condition, Expiry, Operation, Outcome, Refusal, Value};
use crate::error::KvError;
use crate::store::{KeyedOperation, KvStore, KvStoreExt};

use super::super::codec::number::push;
use super::super::codec::{ArithmeticVerb, RetrievalVerb, StoreVerb};
use super::super::wire_error::{push_server_error, words};
use super::{Trouble, expiry};

pub(super) const NON_NUMERIC: Trouble =
    Trouble::Line("CLIENT_ERROR cannot increment or decrement non-numeric value");

/// Reads (and touches) the keys, and appends the reply.
pub(super) async fn retrieve(
    store: &dyn KvStore,
    verb: RetrievalVerb,
    exptime: i32,
    keys: &[&[u8]],
    out: &mut Vec<u8>,
) -> Result<(), Trouble> {
    match read(store, verb, exptime, keys).await {
        Ok(values) => {
            for (key, value) in keys.iter().zip(&values) {
                push_value(verb, key, value.as_ref(), out);
            }
            out.extend_from_slice(b"END\r\n");
        }
        Err(error @ KvError::Partial { .. }) => {
            retrieve_rest(store, verb, exptime, keys, &error, out).await;
        }
        Err(error) => return Err(error.into()),
    }
    Ok(())
}

/// Some shard failed: reads once more what the others hold, and ends in the error.
async fn retrieve_rest(
    store: &dyn KvStore,
    verb: RetrievalVerb,
    exptime: i32,
    keys: &[&[u8]],
    error: &KvError,
    out: &mut Vec<u8>,
) {
    let failed = |key: &[u8]| match error {
        KvError::Partial { parts } => parts
            .iter()
            .any(|part| part.error.is_some() && part.keys.iter().any(|named| named == key)),
        _ => true,
    };
    let rest: Vec<&[u8]> = keys.iter().copied().filter(|key| !failed(key)).collect();
    if let Ok(values) = read(store, verb, exptime, &rest).await {
        for (key, value) in rest.iter().zip(&values) {
            push_value(verb, key, value.as_ref(), out);
        }
    }
    push_server_error(words(error), out);
}

async fn read(
    store: &dyn KvStore,
    verb: RetrievalVerb,
    exptime: i32,
    keys: &[&[u8]],
) -> Result<Vec<Option<Value>>, KvError> {
    let operation = if verb.touches() {
        Operation::GetAndExpire {
            expiry: expiry(exptime),
        }
    } else {
        Operation::Get
    };
    let outcomes = match keys {
        [] => Vec::new(),
        [key] => store.apply(key, &[operation]).await?,
        _ => {
            let requests: Vec<_> = keys
                .iter()
                .map(|key| KeyedOperation { key, operation })
                .collect();
            store.apply_each(&requests).await?
        }
    };
    let mut values = Vec::with_capacity(keys.len());
    for outcome in outcomes {
        match outcome {
            Outcome::Value(value) => values.push(value),
            other => return Err(store.misfit(&other)),
        }
    }
    Ok(values)
}

fn push_value(verb: RetrievalVerb, key: &[u8], value: Option<&Value>, out: &mut Vec<u8>) {
    let Some(value) = value else { return };
    out.extend_from_slice(b"VALUE ");
    out.extend_from_slice(key);
    out.push(b' ');
    push(out, value.flags.into());
    out.push(b' ');
    push(out, value.data.len() as u64);
    if verb.with_cas() {
        out.push(b' ');
        push(out, value.cas);
    }
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(&value.data);
    out.extend_from_slice(b"\r\n");
}

/// What a storage command writes beside the data.
#[derive(Clone, Copy)]
pub(super) struct Write {
    pub(super) verb: StoreVerb,
    pub(super) flags: u32,
    pub(super) exptime: i32,
    pub(super) cas: u64,
}

/// Carries a storage command out; the line that answers it.
pub(super) async fn write(
    store: &dyn KvStore,
    key: &[u8],
    write: Write,
    data: &[u8],
) -> Result<&'static [u8], Trouble> {
    let condition = match write.verb {
        StoreVerb::Set => Condition::Always,
        StoreVerb::Add => Condition::IfAbsent,
        StoreVerb::Replace | StoreVerb::Append | StoreVerb::Prepend => Condition::IfPresent,
        StoreVerb::Cas => Condition::IfCas(write.cas),
    };
    let operation = match write.verb {
        StoreVerb::Append => Operation::Append { data, condition },
        StoreVerb::Prepend => Operation::Prepend { data, condition },
        _ => set(data, write.flags, condition, expiry(write.exptime)),
    };
    Ok(
        match stored(store, store.apply_one(key, operation).await?)? {
            Stored::Yes(_) => b"STORED\r\n",
            Stored::No { found: true } if write.verb == StoreVerb::Cas => b"EXISTS\r\n",
            Stored::No { found: false } if write.verb == StoreVerb::Cas => b"NOT_FOUND\r\n",
            Stored::No { .. } => b"NOT_STORED\r\n",
        },
    )
}

pub(super) fn set<'a>(
    data: &'a [u8],
    flags: u32,
    condition: Condition<'a>,
    expiry: Expiry,
) -> Operation<'a> {
    Operation::Set {
        data,
        flags,
        condition,
        expiry,
        want_old: false,
    }
}

/// How a write ended.
pub(super) enum Stored {
    /// It was made; with the CAS token, if the operation tells it.
    Yes(Option<u64>),
    /// Its condition did not hold.
    No { found: bool },
}

pub(super) fn stored(store: &dyn KvStore, outcome: Outcome) -> Result<Stored, Trouble> {
    match outcome {
        Outcome::Stored { cas, .. } => Ok(Stored::Yes(Some(cas))),
        Outcome::Length(_) => Ok(Stored::Yes(None)),
        Outcome::NotStored { found, .. } => Ok(Stored::No { found }),
        Outcome::Refused(Refusal::TooLong) => {
            Err(Trouble::Line("SERVER_ERROR out of memory storing object"))
        }
        other => Err(store.misfit(&other).into()),
    }
}

/// `incr` and `decr`.
pub(super) async fn count(
    store: &dyn KvStore,
    verb: ArithmeticVerb,
    key: &[u8],
    delta: u64,
    out: &mut Vec<u8>,
) -> Result<(), Trouble> {
    let down = verb == ArithmeticVerb::Decrement;
    match store
        .apply_one(
            key,
            Operation::Count {
                delta,
                down,
                create: None,
            },
        )
        .await?
    {
        Outcome::Counter(value) => {
            push(out, value);
            out.extend_from_slice(b"\r\n");
        }
        Outcome::NotStored { .. } => out.extend_from_slice(b"NOT_FOUND\r\n"),
        Outcome::Refused(Refusal::NotCounter) => return Err(NON_NUMERIC),
        other => return Err(store.misfit(&other).into()),
    }
    Ok(())
}
