//! Finds the keys of one request from the command's key specifications.
//!
//! Not a syntax check: a request that the server would refuse may still yield keys. The other way
//! round holds, and is the invariant: where this file gives an error, the server refuses the
//! request too, so it may be sent to any shard for its own answer.

use super::{Begin, CommandSpec, Find, KeyFlags, KeySpec};

/// A request's arguments, the command's name first.
pub trait Arguments {
    /// How many there are.
    fn count(&self) -> usize;
    /// One of them.
    fn argument(&self, index: usize) -> Option<&[u8]>;
}

impl<T: AsRef<[u8]>> Arguments for [T] {
    fn count(&self) -> usize {
        self.len()
    }

    fn argument(&self, index: usize) -> Option<&[u8]> {
        self.get(index).map(AsRef::as_ref)
    }
}

/// Why the keys of a request cannot be told. The server refuses such a request as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// Too few or too many arguments for the command.
    #[error("wrong number of arguments")]
    Arity,
    /// No subcommand of that name.
    #[error("unknown subcommand")]
    UnknownSubcommand,
    /// The argument that gives the number of keys is no number, or exceeds the arguments.
    #[error("the number of keys is not a number or greater than the number of arguments")]
    KeyCount,
    /// A keyword that must stand before the keys is missing or is the last argument.
    #[error("the keyword before the keys is missing")]
    Keyword,
}

/// Puts the argument positions of the request's keys into `found`, in the order of the request.
///
/// `found` is emptied first; keep it from request to request and nothing is allocated. A command
/// without keys leaves it empty. Shard channels (SPUBLISH, SSUBSCRIBE) are no keys.
///
/// # Errors
///
/// See [`KeyError`]: the server would refuse the request too.
pub fn keys<A: Arguments + ?Sized>(
    spec: &CommandSpec,
    arguments: &A,
    found: &mut Vec<usize>,
) -> Result<(), KeyError> {
    found.clear();
    let spec = with_subcommand(spec, arguments)?;
    if !spec.accepts(arguments.count()) {
        return Err(KeyError::Arity);
    }
    match spec.name {
        "sort" => sort(arguments, found),
        "sort_ro" => found.push(1),
        "georadius" => radius(arguments, 6, found),
        "georadiusbymember" => radius(arguments, 5, found),
        "migrate" => migrate(arguments, found),
        // With no source the server's own specifications fail, but the command does not.
        "pfmerge" => found.extend(1..arguments.count()),
        _ => {
            for group in spec.keys {
                if !group.flags.contains(KeyFlags::NOT_KEY) {
                    by_spec(group, arguments, found)?;
                }
            }
        }
    }
    Ok(())
}

/// The option by which SORT or `SORT_RO` would reach keys that are not among its arguments.
///
/// `BY weight_*` and `GET object_*` make the server build key names out of data, and over several
/// shards it would silently miss those that live elsewhere. `BY` without a `*` and `GET #` do not.
#[must_use]
pub fn pattern_option<A: Arguments + ?Sized>(
    spec: &CommandSpec,
    arguments: &A,
) -> Option<&'static str> {
    if !matches!(spec.name, "sort" | "sort_ro") {
        return None;
    }
    let mut index = 2;
    while let (Some(word), Some(value)) = (arguments.argument(index), arguments.argument(index + 1))
    {
        if word.eq_ignore_ascii_case(b"by") {
            if value.contains(&b'*') {
                return Some("BY");
            }
            index += 1;
        } else if word.eq_ignore_ascii_case(b"get") {
            if value != b"#" {
                return Some("GET");
            }
            index += 1;
        } else if word.eq_ignore_ascii_case(b"limit") {
            index += 2;
        } else if word.eq_ignore_ascii_case(b"store") {
            index += 1;
        }
        index += 1;
    }
    None
}

fn with_subcommand<'s, A: Arguments + ?Sized>(
    spec: &'s CommandSpec,
    arguments: &A,
) -> Result<&'s CommandSpec, KeyError> {
    if spec.subcommands.is_empty() {
        return Ok(spec);
    }
    match arguments.argument(1) {
        None if spec.accepts(arguments.count()) => Ok(spec),
        None => Err(KeyError::Arity),
        Some(name) => spec.subcommand(name).ok_or(KeyError::UnknownSubcommand),
    }
}

fn by_spec<A: Arguments + ?Sized>(
    group: &KeySpec,
    arguments: &A,
    found: &mut Vec<usize>,
) -> Result<(), KeyError> {
    let count = arguments.count();
    let begin = match group.begin {
        Begin::Index(index) => usize::from(index),
        Begin::Keyword { text, start_from } => {
            after_keyword(text, start_from, arguments).ok_or(KeyError::Keyword)?
        }
        Begin::Unknown => return Ok(()),
    };
    match group.find {
        Find::Range { last, step, limit } => {
            let last = if let Ok(offset) = usize::try_from(last) {
                begin + offset
            } else {
                let rest = count.saturating_sub(begin);
                let from_end = last.unsigned_abs() as usize;
                let end = if limit > 1 {
                    begin + rest / usize::from(limit)
                } else {
                    count
                };
                end.checked_sub(from_end).ok_or(KeyError::Arity)?
            };
            if last < begin || last >= count {
                return Err(KeyError::Arity);
            }
            found.extend((begin..=last).step_by(usize::from(step).max(1)));
        }
        Find::KeyNum {
            key_num_index,
            first_key,
            step,
        } => {
            let number = arguments.argument(begin + usize::from(key_num_index));
            let number = number.and_then(strict_number).ok_or(KeyError::KeyCount)?;
            let first = begin + usize::from(first_key);
            let step = usize::from(step).max(1);
            let room = count.saturating_sub(first).div_ceil(step);
            if number > room {
                return Err(KeyError::KeyCount);
            }
            found.extend((first..count).step_by(step).take(number));
        }
        Find::Unknown => {}
    }
    Ok(())
}

/// The position after a keyword. The keyword itself cannot be the last argument.
fn after_keyword<A: Arguments + ?Sized>(
    text: &str,
    start_from: i32,
    arguments: &A,
) -> Option<usize> {
    let count = arguments.count();
    let is_keyword = |index: &usize| {
        arguments
            .argument(*index)
            .is_some_and(|argument| argument.eq_ignore_ascii_case(text.as_bytes()))
    };
    let last = count.checked_sub(1)?;
    let at = if let Ok(start) = usize::try_from(start_from) {
        (start..last).find(is_keyword)
    } else {
        let start = count.checked_sub(start_from.unsigned_abs() as usize)?;
        (1..=start.min(last.checked_sub(1)?)).rev().find(is_keyword)
    };
    at.map(|index| index + 1)
}

/// SORT key … [STORE destination]: the server cannot say where STORE stands.
fn sort<A: Arguments + ?Sized>(arguments: &A, found: &mut Vec<usize>) {
    found.push(1);
    let mut index = 2;
    let mut destination = None;
    while let Some(word) = arguments.argument(index) {
        if word.eq_ignore_ascii_case(b"limit") {
            index += 2;
        } else if word.eq_ignore_ascii_case(b"get") || word.eq_ignore_ascii_case(b"by") {
            index += 1;
        } else if word.eq_ignore_ascii_case(b"store") && index + 1 < arguments.count() {
            index += 1;
            destination = Some(index);
        }
        index += 1;
    }
    found.extend(destination);
}

/// GEORADIUS and GEORADIUSBYMEMBER: of several STORE and STOREDIST options the last one counts.
fn radius<A: Arguments + ?Sized>(arguments: &A, options: usize, found: &mut Vec<usize>) {
    found.push(1);
    let mut index = options;
    let mut destination = None;
    while let Some(word) = arguments.argument(index) {
        let stores = word.eq_ignore_ascii_case(b"store") || word.eq_ignore_ascii_case(b"storedist");
        if stores && index + 1 < arguments.count() {
            index += 1;
            destination = Some(index);
        }
        index += 1;
    }
    found.extend(destination);
}

/// MIGRATE address port key|"" …: with an empty key the keys follow the word KEYS.
fn migrate<A: Arguments + ?Sized>(arguments: &A, found: &mut Vec<usize>) {
    let single = arguments.argument(3).is_some_and(|key| !key.is_empty());
    let mut index = 6;
    while let Some(word) = arguments.argument(index).filter(|_| !single) {
        if word.eq_ignore_ascii_case(b"auth") {
            index += 1;
        } else if word.eq_ignore_ascii_case(b"auth2") {
            index += 2;
        } else if word.eq_ignore_ascii_case(b"keys") {
            found.extend(index + 1..arguments.count());
            return;
        }
        index += 1;
    }
    found.push(3);
}

/// A number as the server reads it: digits only, no sign, no leading zero.
fn strict_number(text: &[u8]) -> Option<usize> {
    match text {
        [b'0'] => Some(0),
        [b'1'..=b'9', rest @ ..] if rest.iter().all(u8::is_ascii_digit) => {
            std::str::from_utf8(text).ok()?.parse().ok()
        }
        _ => None,
    }
}
