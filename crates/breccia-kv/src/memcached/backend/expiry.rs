//! Times in memcached's form: whole seconds, relative up to thirty days, else by the calendar, which
//! ends in 2038. Invariant: a time that does not fit is refused before anything is done.

use super::MemcachedStore;
use crate::entry::{Expiry, NewCounter, Operation, TimeUnit};
use crate::error::KvError;

/// Longer times are taken as calendar times.
const MAX_RELATIVE_SECONDS: u64 = 30 * 86_400;

/// The number behind `T`.
pub(super) fn time(expiry: Expiry, now_ms: u64) -> Result<i32, String> {
    let (ms, absolute) = match expiry {
        Expiry::Never | Expiry::Keep => return Ok(0),
        Expiry::After(0) => return Ok(-1),
        Expiry::At(at) if at <= now_ms => return Ok(-1),
        Expiry::After(ms) => (ms, false),
        Expiry::At(at) => (at, true),
    };
    if ms % 1000 != 0 {
        return Err(format!("it counts whole seconds, and {ms} ms are none"));
    }
    let mut seconds = ms / 1000;
    if !absolute && seconds > MAX_RELATIVE_SECONDS {
        seconds = seconds.saturating_add(now_ms / 1000);
    }
    i32::try_from(seconds).map_err(|_| "it holds no time after 2038-01-19".into())
}

impl MemcachedStore {
    /// Refuses times that memcached cannot hold or tell.
    pub(super) fn check_times(
        &self,
        operation: &Operation<'_>,
        now_ms: u64,
    ) -> Result<(), KvError> {
        let expiry = match operation {
            Operation::TimeToLive {
                unit: TimeUnit::Milliseconds,
            }
            | Operation::ExpiresAt {
                unit: TimeUnit::Milliseconds,
            } => {
                return Err(self.unsupported(operation.name(), "it counts whole seconds"));
            }
            Operation::Set { expiry, .. }
            | Operation::Expire { expiry, .. }
            | Operation::GetAndExpire { expiry }
            | Operation::Count {
                create: Some(NewCounter { expiry, .. }),
                ..
            } => *expiry,
            _ => return Ok(()),
        };
        time(expiry, now_ms)
            .map(|_| ())
            .map_err(|reason| self.unsupported(operation.name(), reason))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_take_the_form_memcached_understands() {
        let now = 1_800_000_000_500;
        let check = |expiry, expected: Result<i32, &str>| {
            assert_eq!(
                time(expiry, now),
                expected.map_err(str::to_owned),
                "{expiry:?}"
            );
        };
        check(Expiry::Never, Ok(0));
        check(Expiry::After(0), Ok(-1));
        check(Expiry::After(10_000), Ok(10));
        check(Expiry::After(2_592_000_000), Ok(2_592_000));
        check(Expiry::After(2_592_001_000), Ok(1_802_592_001));
        check(
            Expiry::After(1500),
            Err("it counts whole seconds, and 1500 ms are none"),
        );
        check(Expiry::At(now), Ok(-1));
        check(Expiry::At(1_800_000_100_000), Ok(1_800_000_100));
        check(
            Expiry::At(2_147_483_648_000),
            Err("it holds no time after 2038-01-19"),
        );
        check(
            Expiry::After(u64::MAX - 615),
            Err("it holds no time after 2038-01-19"),
        );
    }
}
