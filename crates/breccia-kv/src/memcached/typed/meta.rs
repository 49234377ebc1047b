//! The meta commands over a typed store.
//!
//! What depends on state that only memcached keeps with an item (stale and win marks, last access,
//! "was it read") is refused: `mg` with `N R h l`, `md I`, `ms I` with a CAS token, and `me`.
//! Invariant: flags are returned in the order they were given.

use crate::entry::{Condition, Lifetime, Operation, Outcome, Refusal, TimeUnit, Value};
use crate::store::{KvStore, KvStoreExt};

use super::super::codec::number::push;
use super::super::codec::{INVALID_FLAG, MetaCommand, MetaVerb, encode_base64};
use super::text::{NON_NUMERIC, Stored, set, stored};
use super::{Answer, Trouble, expire, expiry, refused};

/// How often a counter is tried to be made while others make and remove it.
const TRIES: usize = 100;

/// Carries a meta command out and appends its answer.
pub(super) async fn run(
    store: &dyn KvStore,
    command: &MetaCommand<'_>,
    data: &[u8],
    out: &mut Vec<u8>,
) -> Result<Answer, Trouble> {
    if command.flags.unknown.is_some() {
        return Err(Trouble::Line(command.verb.flag_error(INVALID_FLAG)));
    }
    match command.verb {
        MetaVerb::Get => get(store, command, out).await,
        MetaVerb::Set => write(store, command, data, out).await,
        MetaVerb::Delete => delete(store, command, out).await,
        MetaVerb::Arithmetic => arithmetic(store, command, out).await,
        MetaVerb::Debug => Err(refused(store, "'me'")),
    }
}

/// What the flags of an answer are made of.
#[derive(Default)]
struct Item {
    value: Value,
    /// What each `t` flag says; there is at most one.
    ttl: Option<Lifetime>,
}

async fn get(
    store: &dyn KvStore,
    command: &MetaCommand<'_>,
    out: &mut Vec<u8>,
) -> Result<Answer, Trouble> {
    let flags = &command.flags;
    if let Some(letter) = b"NRhl".iter().find(|letter| flags.has(**letter)) {
        return Err(refused(
            store,
            &format!("the mg flag '{}'", char::from(*letter)),
        ));
    }
    let operations = reading(command);
    let (mut value, mut ttl) = (None, None);
    for outcome in store.apply(command.key.bytes(), &operations).await? {
        match outcome {
            Outcome::Value(found) => value = found,
            Outcome::Lifetime(lifetime) => ttl = Some(lifetime),
            other => return Err(misfit(store, Some(other))),
        }
    }
    let Some(value) = value else {
        out.extend_from_slice(b"EN");
        push_flags(command, b"Ok", &Item::default(), out);
        return Ok(Answer::Usual);
    };
    let item = Item { value, ttl };
    if flags.value {
        out.extend_from_slice(b"VA ");
        push(out, item.value.data.len() as u64);
    } else {
        out.extend_from_slice(b"HD");
    }
    push_flags(command, b"stcfOk", &item, out);
    if flags.value {
        out.extend_from_slice(&item.value.data);
        out.extend_from_slice(b"\r\n");
    }
    Ok(Answer::Wanted)
}

/// What `mg` asks of the store, in the order of the flags: `t` before `T` tells the old time to
/// live.
fn reading(command: &MetaCommand<'_>) -> Vec<Operation<'static>> {
    let touch = command.flags.ttl.map(expiry);
    let mut operations = Vec::new();
    for flag in command.flags.iter() {
        match (flag.first(), touch) {
            (Some(b'T'), Some(expiry)) => operations.push(Operation::GetAndExpire { expiry }),
            (Some(b't'), _) => operations.push(Operation::TimeToLive {
                unit: TimeUnit::Seconds,
            }),
            _ => {}
        }
    }
    if touch.is_none() {
        operations.push(Operation::Get);
    }
    operations
}

/// Adds what the flags ask for to the operations, in the order of the flags: `t` before `T` tells
/// the old time to live.
fn in_order<'o>(
    command: &MetaCommand<'_>,
    mut operations: Vec<Operation<'o>>,
) -> Vec<Operation<'o>> {
    for flag in command.flags.iter() {
        match (flag.first(), command.flags.ttl) {
            (Some(b'T'), Some(ttl)) => operations.push(expire(ttl)),
            (Some(b't'), _) => {
                operations.push(Operation::TimeToLive {
                    unit: TimeUnit::Seconds,
                });
            }
            _ => {}
        }
    }
    operations
}

fn misfit(store: &dyn KvStore, outcome: Option<Outcome>) -> Trouble {
    store
        .misfit(&outcome.unwrap_or(Outcome::Flag(false)))
        .into()
}

/// Appends those of the request's flags that are returned (`letters`), and the line's end.
fn push_flags(command: &MetaCommand<'_>, letters: &[u8], item: &Item, out: &mut Vec<u8>) {
    for flag in command.flags.iter() {
        let Some(letter) = flag.first().filter(|letter| letters.contains(letter)) else {
            continue;
        };
        out.push(b' ');
        out.push(*letter);
        match letter {
            b's' => push(out, item.value.data.len() as u64),
            b'f' => push(out, item.value.flags.into()),
            b'c' => push(out, item.value.cas),
            b't' => push_ttl(item.ttl, out),
            b'O' => out.extend_from_slice(flag.get(1..).unwrap_or_default()),
            b'k' => {
                if command.key.decoded.is_some() {
                    encode_base64(command.key.bytes(), out);
                    out.extend_from_slice(b" b");
                } else {
                    out.extend_from_slice(command.key.text);
                }
            }
            _ => {}
        }
    }
    out.extend_from_slice(b"\r\n");
}

fn push_ttl(ttl: Option<Lifetime>, out: &mut Vec<u8>) {
    match ttl {
        // An item whose own request let it end has no time left.
        Some(Lifetime::Missing) => out.push(b'0'),
        Some(Lifetime::Ms(left)) => push(out, left.div_ceil(1000)),
        Some(Lifetime::Forever) | None => out.extend_from_slice(b"-1"),
    }
}

async fn write(
    store: &dyn KvStore,
    command: &MetaCommand<'_>,
    data: &[u8],
    out: &mut Vec<u8>,
) -> Result<Answer, Trouble> {
    let flags = &command.flags;
    let mode = flags.mode.unwrap_or(b'S');
    let compares = flags.cas.is_some() && matches!(mode, b'S' | b'R');
    if flags.invalidate && compares {
        return Err(refused(store, "the ms flag 'I'"));
    }
    // A token of 0 compares with nothing when appending.
    let appended = match flags.cas {
        Some(cas) if cas != 0 => Condition::IfCas(cas),
        _ => Condition::IfPresent,
    };
    let condition = match (mode, flags.cas) {
        (b'E', _) => Condition::IfAbsent,
        (_, Some(cas)) => Condition::IfCas(cas),
        (b'R', None) => Condition::IfPresent,
        _ => Condition::Always,
    };
    let ends = expiry(flags.ttl.unwrap_or(0));
    let mut operations = vec![match mode {
        b'A' => Operation::Append {
            data,
            condition: appended,
        },
        b'P' => Operation::Prepend {
            data,
            condition: appended,
        },
        _ => set(data, flags.client_flags, condition, ends),
    }];
    if flags.has(b'c') && matches!(mode, b'A' | b'P') {
        operations.push(Operation::Get);
    }
    let mut outcomes = store
        .apply(command.key.bytes(), &operations)
        .await?
        .into_iter();
    let Some(outcome) = outcomes.next() else {
        return Err(misfit(store, None));
    };
    let mut item = Item::default();
    let (code, answer): (&[u8], _) = match stored(store, outcome)? {
        Stored::Yes(cas) => {
            if let Some(Outcome::Value(Some(value))) = outcomes.next() {
                item.value.cas = value.cas;
            } else {
                item.value.cas = cas.unwrap_or(0);
            }
            (b"HD", Answer::Usual)
        }
        Stored::No { found: false } if compares => (b"NF", Answer::Wanted),
        Stored::No { found: true } if compares || mode == b'A' || mode == b'P' => {
            (b"EX", Answer::Wanted)
        }
        Stored::No { .. } => (b"NS", Answer::Wanted),
    };
    out.extend_from_slice(code);
    push_flags(command, b"Okc", &item, out);
    Ok(answer)
}

async fn delete(
    store: &dyn KvStore,
    command: &MetaCommand<'_>,
    out: &mut Vec<u8>,
) -> Result<Answer, Trouble> {
    if command.flags.invalidate {
        return Err(refused(store, "the md flag 'I'"));
    }
    let condition = command
        .flags
        .cas
        .map_or(Condition::Always, Condition::IfCas);
    let operation = Operation::Delete {
        condition,
        want_old: false,
    };
    let (code, answer): (&[u8], _) = match store.apply_one(command.key.bytes(), operation).await? {
        Outcome::Deleted { .. } => (b"HD", Answer::Usual),
        Outcome::NotDeleted { found: true } => (b"EX", Answer::Wanted),
        Outcome::NotDeleted { found: false } => (b"NF", Answer::Wanted),
        other => return Err(misfit(store, Some(other))),
    };
    out.extend_from_slice(code);
    push_flags(command, b"Ok", &Item::default(), out);
    Ok(answer)
}

async fn arithmetic(
    store: &dyn KvStore,
    command: &MetaCommand<'_>,
    out: &mut Vec<u8>,
) -> Result<Answer, Trouble> {
    for _ in 0..TRIES {
        let counted = match command.flags.cas {
            Some(cas) if cas != 0 => count_if(store, command, cas).await?,
            _ => count(store, command).await?,
        };
        let (item, answer) = match counted {
            Counted::Yes(item) => (item, Answer::Usual),
            Counted::Missing => match create(store, command).await? {
                Some(item) => (item, Answer::Wanted),
                None if command.flags.vivify.is_some() => continue,
                None => return Ok(push_code(command, b"NF", out)),
            },
            Counted::Changed => return Ok(push_code(command, b"EX", out)),
        };
        if command.flags.value {
            out.extend_from_slice(b"VA ");
            push(out, item.value.data.len() as u64);
        } else {
            out.extend_from_slice(b"HD");
        }
        push_flags(command, b"ctOk", &item, out);
        if command.flags.value {
            out.extend_from_slice(&item.value.data);
            out.extend_from_slice(b"\r\n");
        }
        return Ok(answer);
    }
    let tries = u32::try_from(TRIES).unwrap_or(u32::MAX);
    let store = store.capabilities().name.clone();
    Err(crate::error::KvError::Contention { store, tries }.into())
}

fn push_code(command: &MetaCommand<'_>, code: &[u8], out: &mut Vec<u8>) -> Answer {
    out.extend_from_slice(code);
    push_flags(command, b"Ok", &Item::default(), out);
    Answer::Wanted
}

enum Counted {
    Yes(Item),
    Missing,
    /// The CAS token is another.
    Changed,
}

fn is_down(command: &MetaCommand<'_>) -> bool {
    matches!(command.flags.mode, Some(b'D' | b'-'))
}

/// The new number's text (no padding), its token and time to live.
fn counted(number: u64, outcomes: impl Iterator<Item = Outcome>) -> Item {
    let mut item = Item::default();
    item.value.data = number.to_string().into();
    for outcome in outcomes {
        match outcome {
            Outcome::Value(Some(value)) => item.value.cas = value.cas,
            Outcome::Lifetime(lifetime) => item.ttl = Some(lifetime),
            _ => {}
        }
    }
    item
}

async fn count(store: &dyn KvStore, command: &MetaCommand<'_>) -> Result<Counted, Trouble> {
    let delta = command.flags.delta;
    let first = Operation::Count {
        delta,
        down: is_down(command),
        create: None,
    };
    let mut operations = vec![first];
    if command.flags.has(b'c') {
        operations.push(Operation::Get);
    }
    let operations = in_order(command, operations);
    let mut outcomes = store
        .apply(command.key.bytes(), &operations)
        .await?
        .into_iter();
    match outcomes.next() {
        Some(Outcome::Counter(number)) => Ok(Counted::Yes(counted(number, outcomes))),
        Some(Outcome::NotStored { .. }) => Ok(Counted::Missing),
        Some(Outcome::Refused(Refusal::NotCounter)) => Err(NON_NUMERIC),
        other => Err(misfit(store, other)),
    }
}

/// Counts only if the token is this one: a read, then a write on the same token.
async fn count_if(
    store: &dyn KvStore,
    command: &MetaCommand<'_>,
    cas: u64,
) -> Result<Counted, Trouble> {
    let key = command.key.bytes();
    let Some(value) = store.get(key).await? else {
        return Ok(Counted::Missing);
    };
    // memcached looks at the number's form only after the token, but an empty one never counts.
    if value.data.is_empty() {
        return Err(NON_NUMERIC);
    }
    if value.cas != cas {
        return Ok(Counted::Changed);
    }
    let Some(present) = crate::edit::parse_counter(&value.data) else {
        return Err(NON_NUMERIC);
    };
    let delta = command.flags.delta;
    let number = if is_down(command) {
        present.saturating_sub(delta)
    } else {
        present.wrapping_add(delta)
    };
    let text = format!("{number:<width$}", width = value.data.len());
    let keep = crate::entry::Expiry::Keep;
    let first = set(text.as_bytes(), value.flags, Condition::IfCas(cas), keep);
    let mut operations = vec![first];
    if command.flags.has(b'c') {
        operations.push(Operation::Get);
    }
    let operations = in_order(command, operations);
    let mut outcomes = store.apply(key, &operations).await?.into_iter();
    let Some(outcome) = outcomes.next() else {
        return Err(misfit(store, None));
    };
    Ok(match stored(store, outcome)? {
        Stored::Yes(_) => Counted::Yes(counted(number, outcomes)),
        Stored::No { found: true } => Counted::Changed,
        Stored::No { found: false } => Counted::Missing,
    })
}

/// Makes the counter as `N` and `J` ask; `None` if it may not be made or is there by now. The new
/// item lives for ever until the `N` flag's turn comes, as in memcached.
async fn create(store: &dyn KvStore, command: &MetaCommand<'_>) -> Result<Option<Item>, Trouble> {
    let Some(vivify) = command.flags.vivify else {
        return Ok(None);
    };
    let number = command.flags.initial;
    let text = number.to_string();
    let ends = crate::entry::Expiry::Never;
    let mut operations = vec![set(text.as_bytes(), 0, Condition::IfAbsent, ends)];
    if command.flags.has(b'c') {
        operations.push(Operation::Get);
    }
    for flag in command.flags.iter() {
        match (flag.first(), command.flags.ttl) {
            (Some(b'N'), _) => operations.push(expire(vivify)),
            (Some(b'T'), Some(ttl)) => operations.push(expire(ttl)),
            (Some(b't'), _) => {
                operations.push(Operation::TimeToLive {
                    unit: TimeUnit::Seconds,
                });
            }
            _ => {}
        }
    }
    let mut outcomes = store
        .apply(command.key.bytes(), &operations)
        .await?
        .into_iter();
    let Some(outcome) = outcomes.next() else {
        return Err(misfit(store, None));
    };
    Ok(match stored(store, outcome)? {
        Stored::Yes(_) => Some(counted(number, outcomes)),
        Stored::No { .. } => None,
    })
}
