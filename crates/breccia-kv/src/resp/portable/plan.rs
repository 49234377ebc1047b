//! From a command's arguments to operations. Pure but for the clock that relative times are held
//! against. Invariant: the names in [`is_portable`] are exactly those [`plan`] knows.

use super::arguments::{Refused, argument, integer};
use super::expiry::{
    StringOptions, Time, TimeForm, any_time, expire_condition, getex_options, set_options,
    time_ahead,
};
use super::keyspace::{self, KeyspaceCommand};
use super::reply::{Reply, Rounding};
use super::wire_error::wrong_arity;
use crate::entry::{Condition, Expiry, Operation, TimeUnit};
use crate::resp::commands::CommandSpec;
use crate::store::KeyedOperation;

/// What a command comes to.
#[derive(Clone, Debug)]
pub(super) enum Planned<'a> {
    /// The reply is known without asking.
    Answer(Vec<u8>),
    /// Operations on one key, as one.
    One {
        key: &'a [u8],
        operations: Vec<Operation<'a>>,
        reply: Reply,
    },
    /// One operation on each of many keys.
    Each {
        requests: Vec<KeyedOperation<'a>>,
        reply: Reply,
    },
    /// A question about the whole store.
    Keyspace(KeyspaceCommand<'a>),
}

const STRINGS: [&str; 21] = [
    "append",
    "decr",
    "decrby",
    "get",
    "getdel",
    "getex",
    "getrange",
    "getset",
    "incr",
    "incrby",
    "incrbyfloat",
    "mget",
    "mset",
    "psetex",
    "set",
    "setex",
    "setnx",
    "setrange",
    "strlen",
    "substr",
    "type",
];
const KEYS: [&str; 13] = [
    "del",
    "exists",
    "expire",
    "expireat",
    "expiretime",
    "persist",
    "pexpire",
    "pexpireat",
    "pexpiretime",
    "pttl",
    "touch",
    "ttl",
    "unlink",
];
const LISTING: [&str; 4] = ["dbsize", "keys", "randomkey", "scan"];
const OTHERS: [&str; 4] = ["echo", "flushall", "flushdb", "ping"];

/// Whether a command (its name in lower case) is in the portable set.
pub(super) fn is_portable(name: &str) -> bool {
    [&STRINGS[..], &KEYS, &LISTING, &OTHERS]
        .iter()
        .any(|names| names.contains(&name))
}

/// Whether a command lists or counts keys.
pub(super) fn lists_keys(name: &str) -> bool {
    LISTING.contains(&name)
}

/// Translates one command, whose number of arguments is right.
pub(super) fn plan<'a>(
    spec: &CommandSpec,
    arguments: &'a [Vec<u8>],
) -> Result<Planned<'a>, Refused> {
    let name = spec.name;
    if let Some(planned) = keyspace::plan(name, arguments)? {
        return Ok(planned);
    }
    let planned = match name {
        "get" | "strlen" | "type" | "ttl" | "pttl" | "expiretime" | "pexpiretime" => {
            read(name, arguments)
        }
        "getrange" | "substr" => range(arguments)?,
        "set" | "setnx" | "setex" | "psetex" | "getset" => write(name, arguments)?,
        "getex" => getex(arguments)?,
        "getdel" => {
            let delete = Operation::Delete {
                condition: Condition::Always,
                want_old: true,
            };
            one(arguments, delete, Reply::Old)
        }
        "append" => {
            let data = argument(arguments, 2);
            let append = Operation::Append {
                data,
                condition: Condition::Always,
            };
            one(arguments, append, Reply::Number)
        }
        "setrange" => setrange(arguments)?,
        "incr" | "decr" | "incrby" | "decrby" => increment(name, arguments)?,
        "incrbyfloat" => {
            let delta = argument(arguments, 2);
            one(arguments, Operation::IncrementFloat { delta }, Reply::Bulk)
        }
        "expire" | "pexpire" | "expireat" | "pexpireat" => expire(name, arguments)?,
        "persist" => one(arguments, Operation::Persist, Reply::Number),
        "mset" => mset(arguments)?,
        "mget" => each(arguments, Operation::Get, Reply::Values),
        "del" | "unlink" => each(arguments, Operation::delete(), Reply::Count),
        "exists" => each(arguments, Operation::Exists, Reply::Count),
        "touch" => each(arguments, Operation::Touch, Reply::Count),
        // `is_portable` keeps all other names away.
        _ => return Err(format!("ERR breccia: '{name}' is not in the portable set").into()),
    };
    Ok(planned)
}

fn one<'a>(arguments: &'a [Vec<u8>], operation: Operation<'a>, reply: Reply) -> Planned<'a> {
    Planned::One {
        key: argument(arguments, 1),
        operations: vec![operation],
        reply,
    }
}

fn each<'a>(arguments: &'a [Vec<u8>], operation: Operation<'a>, reply: Reply) -> Planned<'a> {
    let requests = arguments
        .iter()
        .skip(1)
        .map(|key| KeyedOperation { key, operation })
        .collect();
    Planned::Each { requests, reply }
}

fn read<'a>(name: &str, arguments: &'a [Vec<u8>]) -> Planned<'a> {
    let (seconds, milliseconds) = (TimeUnit::Seconds, TimeUnit::Milliseconds);
    let (operation, reply) = match name {
        "strlen" => (Operation::Length, Reply::Number),
        "type" => (Operation::Type, Reply::Type),
        "ttl" => (
            Operation::TimeToLive { unit: seconds },
            Reply::Time(Rounding::Seconds),
        ),
        "pttl" => (
            Operation::TimeToLive { unit: milliseconds },
            Reply::Time(Rounding::None),
        ),
        "expiretime" => (
            Operation::ExpiresAt { unit: seconds },
            Reply::Time(Rounding::Seconds),
        ),
        "pexpiretime" => (
            Operation::ExpiresAt { unit: milliseconds },
            Reply::Time(Rounding::None),
        ),
        _ => (Operation::Get, Reply::Bulk),
    };
    one(arguments, operation, reply)
}

fn range(arguments: &[Vec<u8>]) -> Result<Planned<'_>, Refused> {
    let start = integer(argument(arguments, 2))?;
    let end = integer(argument(arguments, 3))?;
    Ok(one(
        arguments,
        Operation::GetRange { start, end },
        Reply::Bulk,
    ))
}

fn write<'a>(name: &str, arguments: &'a [Vec<u8>]) -> Result<Planned<'a>, Refused> {
    let set = |data, condition, expiry, want_old| Operation::Set {
        data,
        flags: 0,
        condition,
        expiry,
        want_old,
    };
    let second = argument(arguments, 2);
    let third = argument(arguments, 3);
    let (operation, reply) = match name {
        "setnx" => (
            set(second, Condition::IfAbsent, Expiry::Never, false),
            Reply::Number,
        ),
        "setex" | "psetex" => {
            let form = if name == "setex" {
                TimeForm::EX
            } else {
                TimeForm::PX
            };
            let expiry = time_ahead(name, form, second)?;
            (
                set(third, Condition::Always, expiry, false),
                Reply::OkOrNull,
            )
        }
        "getset" => (
            set(second, Condition::Always, Expiry::Never, true),
            Reply::Old,
        ),
        _ => {
            let StringOptions {
                condition,
                get,
                time,
            } = set_options(arguments)?;
            let expiry = match time {
                Time::Given(form, text) => time_ahead("set", form, text)?,
                Time::Keep => Expiry::Keep,
                Time::Unsaid | Time::Persist => Expiry::Never,
            };
            let reply = if get { Reply::Old } else { Reply::OkOrNull };
            (set(second, condition, expiry, get), reply)
        }
    };
    Ok(one(arguments, operation, reply))
}

fn getex(arguments: &[Vec<u8>]) -> Result<Planned<'_>, Refused> {
    let expiry = match getex_options(arguments)? {
        Time::Given(form, text) => match time_ahead("getex", form, text) {
            Ok(expiry) => expiry,
            // Redis looks at the key before it looks at the time.
            Err(error) => return Ok(one(arguments, Operation::Get, Reply::ErrorIfFound(error))),
        },
        Time::Persist => Expiry::Never,
        Time::Unsaid | Time::Keep => return Ok(one(arguments, Operation::Get, Reply::Bulk)),
    };
    Ok(one(
        arguments,
        Operation::GetAndExpire { expiry },
        Reply::Bulk,
    ))
}

fn setrange(arguments: &[Vec<u8>]) -> Result<Planned<'_>, Refused> {
    let offset = integer(argument(arguments, 2))?;
    let offset = u64::try_from(offset).map_err(|_| b"ERR offset is out of range".to_vec())?;
    let data = argument(arguments, 3);
    Ok(one(
        arguments,
        Operation::SetRange { offset, data },
        Reply::Number,
    ))
}

fn increment<'a>(name: &str, arguments: &'a [Vec<u8>]) -> Result<Planned<'a>, Refused> {
    let delta = match name {
        "incr" => 1,
        "decr" => -1,
        "incrby" => integer(argument(arguments, 2))?,
        _ => integer(argument(arguments, 2))?
            .checked_neg()
            .ok_or_else(|| b"ERR decrement would overflow".to_vec())?,
    };
    Ok(one(
        arguments,
        Operation::Increment { delta },
        Reply::Number,
    ))
}

fn expire<'a>(name: &str, arguments: &'a [Vec<u8>]) -> Result<Planned<'a>, Refused> {
    let form = match name {
        "expire" => TimeForm::EX,
        "pexpire" => TimeForm::PX,
        "expireat" => TimeForm::EXAT,
        _ => TimeForm::PXAT,
    };
    let condition = expire_condition(arguments)?;
    let expiry = any_time(name, form, argument(arguments, 2))?;
    Ok(one(
        arguments,
        Operation::Expire { expiry, condition },
        Reply::Number,
    ))
}

fn mset(arguments: &[Vec<u8>]) -> Result<Planned<'_>, Refused> {
    let pairs = arguments.get(1..).unwrap_or_default();
    if pairs.len() % 2 != 0 {
        return Err(wrong_arity("mset"));
    }
    let pair = |pair: &'_ [Vec<u8>]| pair.len() == 2;
    let requests = pairs
        .chunks(2)
        .filter(|chunk| pair(chunk))
        .map(|chunk| KeyedOperation {
            key: argument(chunk, 0),
            operation: Operation::set(argument(chunk, 1)),
        })
        .collect();
    Ok(Planned::Each {
        requests,
        reply: Reply::Ok,
    })
}
