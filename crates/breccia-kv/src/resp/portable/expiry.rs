//! The options of SET, GETEX and the EXPIRE family, as Redis 7.0 reads them. No keys, no store.
//! Invariant: faults are found in Redis's order, so the same one is reported.

use breccia_net::clock;

use super::arguments::{Refused, SYNTAX, argument, integer, is_word};
use crate::entry::{Condition, Expiry, ExpiryCondition};

/// How a time in an argument is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TimeForm {
    seconds: bool,
    absolute: bool,
}

impl TimeForm {
    pub(super) const EX: Self = Self {
        seconds: true,
        absolute: false,
    };
    pub(super) const PX: Self = Self {
        seconds: false,
        absolute: false,
    };
    pub(super) const EXAT: Self = Self {
        seconds: true,
        absolute: true,
    };
    pub(super) const PXAT: Self = Self {
        seconds: false,
        absolute: true,
    };

    fn of_word(word: &[u8]) -> Option<Self> {
        let forms = [
            ("EX", Self::EX),
            ("PX", Self::PX),
            ("EXAT", Self::EXAT),
            ("PXAT", Self::PXAT),
        ];
        forms
            .into_iter()
            .find(|(name, _)| is_word(word, name))
            .map(|(_, form)| form)
    }
}

fn invalid_time(command: &str) -> Refused {
    format!("ERR invalid expire time in '{command}' command").into()
}

fn now_ms() -> i64 {
    i64::try_from(clock::unix_ms()).unwrap_or(i64::MAX)
}

/// A time that must lie ahead: of SET, SETEX, GETEX and their kin.
pub(super) fn time_ahead(command: &str, form: TimeForm, text: &[u8]) -> Result<Expiry, Refused> {
    let value = integer(text)?;
    let unit = if form.seconds { 1000 } else { 1 };
    let milliseconds = value.checked_mul(unit).filter(|_| value > 0);
    let fits = |ms: i64| form.absolute || ms.checked_add(now_ms()).is_some();
    let milliseconds = milliseconds
        .filter(|ms| fits(*ms))
        .ok_or_else(|| invalid_time(command))?;
    let milliseconds = milliseconds.unsigned_abs();
    Ok(if form.absolute {
        Expiry::At(milliseconds)
    } else {
        Expiry::After(milliseconds)
    })
}

/// A time that may have passed: of the EXPIRE family.
pub(super) fn any_time(command: &str, form: TimeForm, text: &[u8]) -> Result<Expiry, Refused> {
    let value = integer(text)?;
    let unit = if form.seconds { 1000 } else { 1 };
    let milliseconds = value
        .checked_mul(unit)
        .ok_or_else(|| invalid_time(command))?;
    let base = if form.absolute { 0 } else { now_ms() };
    if milliseconds > i64::MAX - base {
        return Err(invalid_time(command));
    }
    Ok(match u64::try_from(milliseconds) {
        // Before the epoch is as long ago as at its beginning.
        Err(_) => Expiry::At(0),
        Ok(ms) if form.absolute => Expiry::At(ms),
        Ok(ms) => Expiry::After(ms),
    })
}

/// NX, XX, GT, LT of the EXPIRE family, from the third argument on.
pub(super) fn expire_condition(arguments: &[Vec<u8>]) -> Result<ExpiryCondition, Refused> {
    let (mut nx, mut xx, mut gt, mut lt) = (false, false, false, false);
    for option in arguments.iter().skip(3) {
        match () {
            () if is_word(option, "NX") => nx = true,
            () if is_word(option, "XX") => xx = true,
            () if is_word(option, "GT") => gt = true,
            () if is_word(option, "LT") => lt = true,
            () => {
                let end = option
                    .iter()
                    .position(|byte| *byte == 0)
                    .unwrap_or(option.len());
                let shown = option.get(..end).unwrap_or_default();
                return Err([b"ERR Unsupported option ", shown].concat());
            }
        }
    }
    match (nx, xx, gt, lt) {
        (true, xx, gt, lt) if xx || gt || lt => {
            Err("ERR NX and XX, GT or LT options at the same time are not compatible".into())
        }
        (_, _, true, true) => {
            Err("ERR GT and LT options at the same time are not compatible".into())
        }
        (true, ..) => Ok(ExpiryCondition::IfNone),
        // An entry without expiry is never later, so XX adds nothing to GT.
        (_, _, true, _) => Ok(ExpiryCondition::IfLater),
        (_, true, _, true) => Ok(ExpiryCondition::IfSomeAndSooner),
        (_, _, _, true) => Ok(ExpiryCondition::IfSooner),
        (_, true, ..) => Ok(ExpiryCondition::IfSome),
        _ => Ok(ExpiryCondition::Always),
    }
}

/// What SET's and GETEX's options ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StringOptions<'a> {
    pub(super) condition: Condition<'a>,
    pub(super) get: bool,
    pub(super) time: Time<'a>,
}

/// What is to become of the expiry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Time<'a> {
    /// No option spoke of it.
    Unsaid,
    /// KEEPTTL.
    Keep,
    /// PERSIST.
    Persist,
    /// One of EX, PX, EXAT, PXAT with its argument.
    Given(TimeForm, &'a [u8]),
}

/// Reads the options of SET (from its third argument on).
pub(super) fn set_options(arguments: &[Vec<u8>]) -> Result<StringOptions<'_>, Refused> {
    let mut options = StringOptions {
        condition: Condition::Always,
        get: false,
        time: Time::Unsaid,
    };
    let mut index = 3;
    while index < arguments.len() {
        let option = argument(arguments, index);
        if is_word(option, "NX") && options.condition != Condition::IfPresent {
            options.condition = Condition::IfAbsent;
        } else if is_word(option, "XX") && options.condition != Condition::IfAbsent {
            options.condition = Condition::IfPresent;
        } else if is_word(option, "GET") {
            options.get = true;
        } else if is_word(option, "KEEPTTL") && matches!(options.time, Time::Unsaid | Time::Keep) {
            options.time = Time::Keep;
        } else {
            options.time = given_time(options.time, arguments, index)?;
            index += 1;
        }
        index += 1;
    }
    Ok(options)
}

/// Reads the options of GETEX (from its second argument on).
pub(super) fn getex_options(arguments: &[Vec<u8>]) -> Result<Time<'_>, Refused> {
    let mut time = Time::Unsaid;
    let mut index = 2;
    while index < arguments.len() {
        let option = argument(arguments, index);
        if is_word(option, "PERSIST") && matches!(time, Time::Unsaid | Time::Persist) {
            time = Time::Persist;
        } else {
            time = given_time(time, arguments, index)?;
            index += 1;
        }
        index += 1;
    }
    Ok(time)
}

/// A time option at `index`; the same one may be given again, another may not.
fn given_time<'a>(
    before: Time<'a>,
    arguments: &'a [Vec<u8>],
    index: usize,
) -> Result<Time<'a>, Refused> {
    let form = TimeForm::of_word(argument(arguments, index));
    let value = arguments.get(index + 1);
    match (form, value, before) {
        (Some(form), Some(value), Time::Unsaid) => Ok(Time::Given(form, value)),
        (Some(form), Some(value), Time::Given(old, _)) if old == form => {
            Ok(Time::Given(form, value))
        }
        _ => Err(SYNTAX.into()),
    }
}
