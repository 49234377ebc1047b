//! Requests carried out over a typed [`KvStore`]: memory members, and composites that mix kinds.
//! All-memcached composites do not come here; their bytes pass through.
//!
//! Invariant: an answer equals memcached 1.6.18's to the byte, or is a refusal that says what needs
//! memcached shards. Never an approximation.

mod meta;
mod text;

use crate::entry::{Expiry, Operation, Outcome};
use crate::error::KvError;
use crate::store::{KvStore, KvStoreExt};

use super::codec::{Command, Request};
use super::wire_error::{push_client_error, push_error};

/// Beyond 30 days an expiry is a Unix time, below it is a number of seconds from now.
const LONGEST_RELATIVE_S: i32 = 60 * 60 * 24 * 30;

/// Why a request has no ordinary answer.
#[derive(Debug)]
enum Trouble {
    /// The store failed.
    Store(KvError),
    /// memcached's own error line.
    Line(&'static str),
    /// What was asked for cannot be done exactly.
    Refused(String),
}

impl From<KvError> for Trouble {
    fn from(error: KvError) -> Self {
        Self::Store(error)
    }
}

/// Carries a request out and appends its answer: nothing if it asked for none. Requests that need
/// no store (`super::local`) are not for here, and get none.
pub async fn execute(store: &dyn KvStore, request: &Request<'_>, out: &mut Vec<u8>) {
    let before = out.len();
    let quiet = match run(store, request, out).await {
        Ok(Answer::Wanted) => false,
        Ok(Answer::Usual) => true,
        Err(trouble) => {
            out.truncate(before);
            push_trouble(&trouble, out);
            false
        }
    };
    let asked_for_quiet = match &request.command {
        Command::Meta(meta) => meta.flags.quiet && quiet,
        _ => request.noreply,
    };
    if asked_for_quiet {
        out.truncate(before);
    }
}

/// Whether an answer is the one that `q` hides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Wanted,
    Usual,
}

fn push_trouble(trouble: &Trouble, out: &mut Vec<u8>) {
    match trouble {
        Trouble::Store(error) => push_error(error, out),
        Trouble::Line(line) => {
            out.extend_from_slice(line.as_bytes());
            out.extend_from_slice(b"\r\n");
        }
        Trouble::Refused(text) => push_client_error(text, out),
    }
}

async fn run(
    store: &dyn KvStore,
    request: &Request<'_>,
    out: &mut Vec<u8>,
) -> Result<Answer, Trouble> {
    match &request.command {
        Command::Retrieve {
            verb,
            exptime,
            keys,
        } => {
            let keys: Vec<&[u8]> = keys.iter().collect();
            text::retrieve(store, *verb, *exptime, &keys, out).await?;
        }
        Command::Store {
            verb,
            key,
            flags,
            exptime,
            cas,
        } => {
            let write = text::Write {
                verb: *verb,
                flags: *flags,
                exptime: *exptime,
                cas: *cas,
            };
            out.extend_from_slice(text::write(store, key, write, request.data).await?);
        }
        Command::Arithmetic { verb, key, delta } => {
            text::count(store, *verb, key, *delta, out).await?;
        }
        Command::Delete { key } => {
            let line: &[u8] = if store.delete(key).await? {
                b"DELETED\r\n"
            } else {
                b"NOT_FOUND\r\n"
            };
            out.extend_from_slice(line);
        }
        Command::Touch { key, exptime } => {
            let line: &[u8] = match store.apply_one(key, expire(*exptime)).await? {
                Outcome::Flag(true) => b"TOUCHED\r\n",
                Outcome::Flag(false) => b"NOT_FOUND\r\n",
                other => return Err(store.misfit(&other).into()),
            };
            out.extend_from_slice(line);
        }
        Command::FlushAll { delay } if *delay > 0 => {
            return Err(refused(store, "flush_all with a delay"));
        }
        Command::FlushAll { .. } => {
            store.flush().await?;
            out.extend_from_slice(b"OK\r\n");
        }
        Command::Meta(command) => return meta::run(store, command, request.data, out).await,
        _ => {}
    }
    Ok(Answer::Wanted)
}

/// When an item with this exptime ends.
fn expiry(exptime: i32) -> Expiry {
    match u64::try_from(exptime) {
        Ok(0) => Expiry::Never,
        Ok(seconds) if exptime <= LONGEST_RELATIVE_S => Expiry::After(seconds * 1000),
        Ok(unix_s) => Expiry::At(unix_s * 1000),
        Err(_) => Expiry::At(0),
    }
}

fn expire(exptime: i32) -> Operation<'static> {
    let condition = crate::entry::ExpiryCondition::Always;
    Operation::Expire {
        expiry: expiry(exptime),
        condition,
    }
}

/// The refusal of something that depends on what only memcached keeps.
fn refused(store: &dyn KvStore, what: &str) -> Trouble {
    let capabilities = store.capabilities();
    let not_memcached = capabilities
        .leaves
        .iter()
        .find(|leaf| leaf.kind != crate::store::StoreKind::Memcached)
        .or(capabilities.leaves.first());
    Trouble::Refused(match not_memcached {
        Some(leaf) => {
            format!(
                "{what} needs memcached shards only; '{}' is {}",
                leaf.name, leaf.kind
            )
        }
        None => format!("{what} needs memcached shards only"),
    })
}
