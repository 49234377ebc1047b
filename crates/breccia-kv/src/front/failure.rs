//! The words of a failure, the same for all protocols: what happened, where, and what became of the
//! request. One exhaustive match; how a protocol marks an error is the frontend's.
//!
//! Invariant: every text says "not applied" or "outcome unknown", and never holds a secret.

use breccia_core::error::Effect;

use crate::pipeline::{Cause, Failure};

/// The text of a failure at `leaf` (as in `cache/redis-b`), its code first.
pub(crate) fn failure_text(failure: &Failure, leaf: &str) -> String {
    let effect = match failure.effect {
        Effect::NotApplied => "not applied",
        Effect::Unknown => "outcome unknown",
    };
    match &failure.cause {
        Cause::Down(why) => {
            format!("SHARDDOWN {leaf} is unreachable ({why}); keys of other shards work; {effect}")
        }
        Cause::Lost(why) => format!("SHARDDOWN {leaf} broke off ({why}); {effect}"),
        Cause::Deadline => {
            format!("TIMEOUT {leaf} took no request within the listener's deadline; {effect}")
        }
        Cause::Timeout => {
            format!("TIMEOUT {leaf} did not answer within the store's timeout; {effect}")
        }
        Cause::Full(limit) => format!("SHARDBUSY {leaf}: {limit}; {effect}"),
        Cause::LargeReply(why) => format!("ERR breccia: {leaf}: {why}; {effect}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(cause: Cause, effect: Effect, expected: &str) {
        assert_eq!(
            failure_text(&Failure { cause, effect }, "cache/redis-b"),
            expected
        );
    }

    #[test]
    fn every_failure_names_the_shard_and_the_outcome() {
        check(
            Cause::Down("connection refused, 3 s".into()),
            Effect::NotApplied,
            "SHARDDOWN cache/redis-b is unreachable (connection refused, 3 s); keys of other \
             shards work; not applied",
        );
        check(
            Cause::Lost("reset".into()),
            Effect::Unknown,
            "SHARDDOWN cache/redis-b broke off (reset); outcome unknown",
        );
        check(
            Cause::Deadline,
            Effect::NotApplied,
            "TIMEOUT cache/redis-b took no request within the listener's deadline; not applied",
        );
        check(
            Cause::Timeout,
            Effect::Unknown,
            "TIMEOUT cache/redis-b did not answer within the store's timeout; outcome unknown",
        );
        check(
            Cause::Full("max-in-flight (4) is reached".into()),
            Effect::NotApplied,
            "SHARDBUSY cache/redis-b: max-in-flight (4) is reached; not applied",
        );
        check(
            Cause::LargeReply("a reply that must be held whole is larger than 256 MiB".into()),
            Effect::Unknown,
            "ERR breccia: cache/redis-b: a reply that must be held whole is larger than 256 MiB; \
             outcome unknown",
        );
    }
}
