//! Commands about the whole store: SCAN, KEYS, DBSIZE, RANDOMKEY, FLUSHDB, FLUSHALL; and those that
//! need no store. Invariant: an answer that would be incomplete is an error.

use breccia_net::clock;

use super::arguments::{Refused, SYNTAX, argument, cursor, integer, is_word};
use super::plan::Planned;
use super::wire_error;
use crate::error::KvError;
use crate::resp::encode::{self, RespVersion};
use crate::store::{KvStore, KvStoreExt, ScanRequest};

/// A question about the whole store.
#[derive(Clone, Copy, Debug)]
pub(super) enum KeyspaceCommand<'a> {
    Scan(ScanRequest<'a>),
    Keys { pattern: &'a [u8] },
    Size,
    RandomKey,
    Flush,
}

/// Keys that SCAN looks at when COUNT is not given.
const SCAN_COUNT: usize = 10;

/// Translates a command; `None` if it is about single keys.
pub(super) fn plan<'a>(
    name: &str,
    arguments: &'a [Vec<u8>],
) -> Result<Option<Planned<'a>>, Refused> {
    let command = match name {
        "scan" => KeyspaceCommand::Scan(scan(arguments)?),
        "keys" => KeyspaceCommand::Keys {
            pattern: argument(arguments, 1),
        },
        "dbsize" => KeyspaceCommand::Size,
        "randomkey" => KeyspaceCommand::RandomKey,
        "flushdb" | "flushall" => match arguments {
            [_] => KeyspaceCommand::Flush,
            [_, mode] if is_word(mode, "SYNC") || is_word(mode, "ASYNC") => KeyspaceCommand::Flush,
            _ => return Err(SYNTAX.into()),
        },
        "ping" | "echo" => return answer(name, arguments).map(Some),
        _ => return Ok(None),
    };
    Ok(Some(Planned::Keyspace(command)))
}

/// PING and ECHO: the frontend answers them, except inside a transaction.
fn answer<'a>(name: &str, arguments: &[Vec<u8>]) -> Result<Planned<'a>, Refused> {
    let mut reply = Vec::new();
    match (name, arguments) {
        ("ping", [_]) => encode::simple(&mut reply, "PONG"),
        (_, [_, text]) => encode::bulk(&mut reply, text),
        _ => return Err(wire_error::wrong_arity(name)),
    }
    Ok(Planned::Answer(reply))
}

fn scan(arguments: &[Vec<u8>]) -> Result<ScanRequest<'_>, Refused> {
    let cursor = cursor(argument(arguments, 1))?;
    let mut request = ScanRequest {
        cursor,
        count: SCAN_COUNT,
        ..ScanRequest::default()
    };
    for option in arguments.get(2..).unwrap_or_default().chunks(2) {
        let [name, value] = option else {
            return Err(SYNTAX.into());
        };
        if is_word(name, "COUNT") {
            let count = integer(value)?;
            request.count = usize::try_from(count)
                .ok()
                .filter(|count| *count > 0)
                .ok_or_else(|| Refused::from(SYNTAX))?;
        } else if is_word(name, "MATCH") {
            request.pattern = Some(value);
        } else if is_word(name, "TYPE") {
            request.type_name = Some(value);
        } else {
            return Err(SYNTAX.into());
        }
    }
    Ok(request)
}

pub(super) async fn execute(
    store: &dyn KvStore,
    command: &KeyspaceCommand<'_>,
    version: RespVersion,
    out: &mut Vec<u8>,
) {
    if let Err(error) = answer_into(store, command, version, out).await {
        wire_error::write(&error, out);
    }
}

async fn answer_into(
    store: &dyn KvStore,
    command: &KeyspaceCommand<'_>,
    version: RespVersion,
    out: &mut Vec<u8>,
) -> Result<(), KvError> {
    match *command {
        KeyspaceCommand::Scan(request) => {
            let page = store.scan(request).await?;
            encode::array(out, 2);
            encode::bulk(out, page.cursor.to_string().as_bytes());
            encode::array(out, page.keys.len());
            for key in &page.keys {
                encode::bulk(out, key);
            }
        }
        KeyspaceCommand::Keys { pattern } => {
            let everything = pattern == b"*";
            let keys = store
                .scan_all(Some(pattern).filter(|_| !everything))
                .await?;
            encode::array(out, keys.len());
            for key in &keys {
                encode::bulk(out, key);
            }
        }
        KeyspaceCommand::Size => {
            let count = store.key_count().await?;
            encode::integer(out, i64::try_from(count).unwrap_or(i64::MAX));
        }
        KeyspaceCommand::RandomKey => match store.random_key(clock::seed()).await? {
            Some(key) => encode::bulk(out, &key),
            None => encode::null(out, version),
        },
        KeyspaceCommand::Flush => {
            store.flush().await?;
            encode::ok(out);
        }
    }
    Ok(())
}
