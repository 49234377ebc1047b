//! From outcomes to the bytes Redis would send. Decides nothing about keys or members. Invariant: an
//! outcome that does not belong to the command becomes an error, never a wrong value.

use super::wire_error::{refusal, unexpected};
use crate::entry::{Lifetime, Outcome, Refusal};
use crate::resp::encode::{self, RespVersion};

/// How a time is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rounding {
    /// In milliseconds.
    None,
    /// In seconds, half up.
    Seconds,
}

/// What shape a reply has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reply {
    /// Always OK.
    Ok,
    /// OK if it was written, else null.
    OkOrNull,
    /// A string, or null: the first outcome's.
    Bulk,
    /// The value that was there before.
    Old,
    /// A number, or 0 and 1.
    Number,
    /// A time left, or a time.
    Time(Rounding),
    /// The name of a type.
    Type,
    /// How many of the outcomes say yes.
    Count,
    /// All values.
    Values,
    /// Null if there is no value, else this error.
    ErrorIfFound(Vec<u8>),
}

impl Reply {
    pub(super) fn write(&self, outcomes: &[Outcome], version: RespVersion, out: &mut Vec<u8>) {
        match self {
            Reply::Values => {
                encode::array(out, outcomes.len());
                for outcome in outcomes {
                    value(outcome, version, out);
                }
            }
            Reply::Count => match count(outcomes) {
                Ok(count) => encode::integer(out, count),
                Err(outcome) => unexpected(outcome, out),
            },
            Reply::Ok => match outcomes
                .iter()
                .find(|one| !matches!(one, Outcome::Stored { .. }))
            {
                None => encode::ok(out),
                Some(outcome) => unexpected(outcome, out),
            },
            _ => match outcomes.first() {
                Some(Outcome::Refused(why)) => encode::error(out, refusal(*why)),
                Some(outcome) => self.write_one(outcome, version, out),
                None => encode::error(out, "ERR breccia: the store did not answer"),
            },
        }
    }

    fn write_one(&self, outcome: &Outcome, version: RespVersion, out: &mut Vec<u8>) {
        match (self, outcome) {
            (Reply::OkOrNull, Outcome::Stored { .. }) => encode::ok(out),
            (Reply::OkOrNull, Outcome::NotStored { .. })
            | (Reply::Bulk | Reply::ErrorIfFound(_), Outcome::Value(None))
            | (Reply::Old, Outcome::NotDeleted { .. }) => encode::null(out, version),
            (Reply::Bulk, Outcome::Value(Some(value))) => encode::bulk(out, &value.data),
            (Reply::Bulk, Outcome::Data(data)) => encode::bulk(out, data),
            (
                Reply::Old,
                Outcome::Stored { old, .. }
                | Outcome::NotStored { old, .. }
                | Outcome::Deleted { old },
            ) => match old {
                Some(data) => encode::bulk(out, data),
                None => encode::null(out, version),
            },
            (Reply::Number, Outcome::Integer(value)) => encode::integer(out, *value),
            (Reply::Number, Outcome::Length(length)) => {
                encode::integer(out, i64::try_from(*length).unwrap_or(i64::MAX));
            }
            (Reply::Number, Outcome::Flag(flag)) => encode::integer(out, i64::from(*flag)),
            (Reply::Number, Outcome::Stored { .. }) => encode::integer(out, 1),
            (Reply::Number, Outcome::NotStored { .. }) => encode::integer(out, 0),
            (Reply::Time(rounding), Outcome::Lifetime(lifetime)) => {
                encode::integer(out, time(*rounding, *lifetime));
            }
            (Reply::Type, Outcome::Type(name)) => {
                encode::simple(out, name.as_deref().unwrap_or("none"));
            }
            (Reply::ErrorIfFound(error), Outcome::Value(Some(_))) => {
                encode::error_bytes(out, error);
            }
            _ => unexpected(outcome, out),
        }
    }
}

fn time(rounding: Rounding, lifetime: Lifetime) -> i64 {
    match (lifetime, rounding) {
        (Lifetime::Missing, _) => -2,
        (Lifetime::Forever, _) => -1,
        (Lifetime::Ms(ms), Rounding::None) => i64::try_from(ms).unwrap_or(i64::MAX),
        (Lifetime::Ms(ms), Rounding::Seconds) => {
            i64::try_from(ms.saturating_add(500) / 1000).unwrap_or(i64::MAX)
        }
    }
}

fn value(outcome: &Outcome, version: RespVersion, out: &mut Vec<u8>) {
    match outcome {
        Outcome::Value(Some(value)) => encode::bulk(out, &value.data),
        // MGET reads what is not a string as nothing.
        Outcome::Value(None) | Outcome::Refused(Refusal::WrongType) => encode::null(out, version),
        other => unexpected(other, out),
    }
}

fn count(outcomes: &[Outcome]) -> Result<i64, &Outcome> {
    let mut count = 0;
    for outcome in outcomes {
        match outcome {
            Outcome::Deleted { .. } | Outcome::Flag(true) => count += 1,
            Outcome::NotDeleted { .. } | Outcome::Flag(false) => {}
            other => return Err(other),
        }
    }
    Ok(count)
}
