//! What no Redis command does by itself: read, decide here, write under WATCH.
//!
//! Invariant: the write happens only if the key did not change since it was read, and only a lost
//! race is tried again.

use breccia_core::error::Effect;
use bytes::Bytes;

use super::super::codec::reply::{elements, integer, text};
use super::RedisStore;
use super::command::Command;
use crate::edit::{Change, Edit, apply_all};
use crate::entry::{Condition, Entry, Operation, Outcome, Refusal};
use crate::error::KvError;
use crate::store::StoreKind;

/// How often a lost race is tried again.
const TRIES: u32 = 64;

/// What was found under a watched key.
struct Found {
    entry: Option<Entry>,
    now_ms: u64,
    /// Whether the value is of another type than string.
    other_type: bool,
}

impl RedisStore {
    pub(super) async fn apply_watched(
        &self,
        key: &[u8],
        operations: &[Operation<'_>],
    ) -> Result<Vec<Outcome>, KvError> {
        if let Some(error) = operations.iter().find_map(|one| self.beyond_redis(one)) {
            return Err(error);
        }
        for _ in 0..TRIES {
            if let Some(outcomes) = self.try_watched(key, operations).await? {
                return Ok(outcomes);
            }
        }
        Err(KvError::Contention {
            store: self.name().to_owned(),
            tries: TRIES,
        })
    }

    /// The refusal of what even a watched key does not give: Redis keeps neither flags nor tokens.
    pub(super) fn beyond_redis(&self, operation: &Operation<'_>) -> Option<KvError> {
        let reason = match operation {
            Operation::Set { flags: 1.., .. } => "Redis keeps no flags with a value",
            Operation::Set {
                condition: Condition::IfCas(_),
                ..
            }
            | Operation::Delete {
                condition: Condition::IfCas(_),
                ..
            }
            | Operation::Append {
                condition: Condition::IfCas(_),
                ..
            }
            | Operation::Prepend {
                condition: Condition::IfCas(_),
                ..
            } => "Redis keeps no CAS token with a value",
            _ => return None,
        };
        Some(KvError::Unsupported {
            store: self.name().to_owned(),
            kind: StoreKind::Redis,
            operation: operation.name(),
            reason: reason.into(),
        })
    }

    /// One try; `None` if another client changed the key meanwhile.
    async fn try_watched(
        &self,
        key: &[u8],
        operations: &[Operation<'_>],
    ) -> Result<Option<Vec<Outcome>>, KvError> {
        let lease = self.lease()?;
        let look = [
            Command::words(&[b"WATCH", key]),
            Command::words(&[b"GET", key]),
            Command::words(&[b"PEXPIRETIME", key]),
            Command::words(&[b"TIME"]),
        ];
        let replies = match lease.ask(&look).await {
            // A connection that lay idle may be gone, and then all of its age are.
            Err(_) if lease.reused => {
                self.drop_idle();
                return Ok(None);
            }
            answer => answer.map_err(KvError::into_read)?,
        };
        let replies: Vec<&[u8]> = replies.iter().collect();
        let Found {
            entry,
            now_ms,
            other_type,
        } = self.found(&replies)?;
        let edit = Edit { now_ms, new_cas: 0 };
        let (change, outcomes) = if other_type {
            (
                Change::Keep,
                vec![Outcome::Refused(Refusal::WrongType); operations.len()],
            )
        } else {
            apply_all(edit, operations, entry.as_ref())
        };
        let Some(write) = write_of(key, &change, entry.as_ref()) else {
            if lease.ask(&[Command::words(&[b"UNWATCH"])]).await.is_ok() {
                lease.give_back();
            }
            return Ok(Some(outcomes));
        };
        let commit = [
            Command::words(&[b"MULTI"]),
            write,
            Command::words(&[b"EXEC"]),
        ];
        let replies = lease.ask(&commit).await?;
        let written = self.executed(&replies)?;
        lease.give_back();
        let refused = written
            .iter()
            .flatten()
            .find(|reply| reply.first() == Some(&b'-'));
        if let Some(reply) = refused {
            return Err(self.server_error(reply, Effect::NotApplied));
        }
        Ok(written.map(|_| outcomes))
    }

    fn found(&self, replies: &[&[u8]]) -> Result<Found, KvError> {
        let [watch, get, expires_at, time] = replies else {
            return Err(self.protocol("too few replies").into_read());
        };
        let other_type = get.starts_with(b"-WRONGTYPE");
        let refused = [watch, get, expires_at, time]
            .into_iter()
            .find(|reply| reply.first() == Some(&b'-') && !reply.starts_with(b"-WRONGTYPE"));
        if let Some(reply) = refused {
            return Err(self.server_error(reply, Effect::NotApplied));
        }
        let wrong = || {
            self.protocol("TIME or PEXPIRETIME answers no number")
                .into_read()
        };
        let expires_at_ms = u64::try_from(integer(expires_at).ok_or_else(wrong)?).ok();
        let entry = text(get).map(|data| Entry {
            data: Bytes::copy_from_slice(data),
            flags: 0,
            cas: 0,
            expires_at_ms,
        });
        let parts: Option<Vec<u64>> = elements(time).map(|parts| {
            let number = |part| std::str::from_utf8(text(part)?).ok()?.parse().ok();
            parts.filter_map(number).collect()
        });
        let Some([seconds, microseconds]) = parts.as_deref() else {
            return Err(wrong());
        };
        Ok(Found {
            entry,
            now_ms: seconds * 1000 + microseconds / 1000,
            other_type,
        })
    }
}

/// The command that makes a change.
fn write_of<'a>(key: &'a [u8], change: &Change, old: Option<&Entry>) -> Option<Command<'a>> {
    match change {
        Change::Keep => None,
        Change::Remove => Some(Command::words(&[b"DEL", key])),
        Change::Put(entry) => {
            let mut set = Command::words(&[b"SET", key]);
            set.push(entry.data.to_vec());
            match entry.expires_at_ms {
                None => {}
                at if old.is_some_and(|old| old.expires_at_ms == at) => set.push("KEEPTTL".into()),
                Some(at) => {
                    set.push("PXAT".into());
                    set.push(at.to_string().into());
                }
            }
            Some(set)
        }
    }
}
