//! Read, decide, write with the token that was read.
//!
//! Invariant: an edit that keeps the entry's time of expiry keeps it exactly. memcached tells only
//! the seconds left and takes only new times, so sending those seconds back would move the end a
//! little with every edit; such edits read the server's own clock around the value instead.

use breccia_net::clock;
use bytes::Bytes;

use super::super::codec::Shape;
use super::MemcachedStore;
use super::expiry::time;
use super::request::{Line, WireKey, stat};
use super::single::number;
use crate::edit::{Change, Edit, apply_all};
use crate::entry::{Entry, Expiry, ExpiryCondition, Operation, Outcome};
use crate::error::KvError;

/// How often a lost race is tried again.
const TRIES: u32 = 64;

/// What was found under the key.
struct Found {
    entry: Option<Entry>,
    /// The time the entry's expiry is counted from.
    now_ms: u64,
}

/// How a write went.
enum Written {
    Won { cas: u64 },
    Lost,
}

impl MemcachedStore {
    pub(super) async fn edit(
        &self,
        key: &[u8],
        wire_key: &WireKey,
        operations: &[Operation<'_>],
    ) -> Result<Vec<Outcome>, KvError> {
        let _turn = self.turn(key).await?;
        let mut exact = operations.iter().any(needs_exact_time);
        for _ in 0..TRIES {
            let found = if exact {
                self.look_exactly(key, wire_key)
                    .await
                    .map_err(KvError::into_read)?
            } else {
                Some(self.look(key, wire_key).await.map_err(KvError::into_read)?)
            };
            // The server's clock ticked while it was asked.
            let Some(Found { entry, now_ms }) = found else {
                continue;
            };
            let edit = Edit { now_ms, new_cas: 0 };
            let (change, mut outcomes) = apply_all(edit, operations, entry.as_ref());
            let line = match &change {
                Change::Keep => return Ok(outcomes),
                Change::Remove => Line::on(b"md", wire_key),
                Change::Put(new) => {
                    let seconds = match last_expiry(operations, &outcomes) {
                        Some(expiry) => time(expiry, clock::unix_ms()).unwrap_or(0),
                        None if new.expires_at_ms.is_none() => 0,
                        // The edit made the entry, and so its time.
                        None if entry.is_none() => since(now_ms, new),
                        None if exact => calendar_seconds(new),
                        None => {
                            exact = true;
                            continue;
                        }
                    };
                    self.check_size(key, &new.data, new.flags).await?;
                    let line = Line::store(wire_key, &new.data).word(b"c");
                    line.flag(b'F', new.flags.into()).time(seconds)
                }
            };
            let line = match &entry {
                Some(old) => line.flag(b'C', old.cas),
                None => line.word(b"ME"),
            };
            if let Written::Won { cas } = self.write(key, line, &change).await? {
                set_tokens(&mut outcomes, cas);
                return Ok(outcomes);
            }
        }
        Err(KvError::Contention {
            store: self.name.clone(),
            tries: TRIES,
        })
    }

    async fn write(&self, key: &[u8], line: Line, change: &Change) -> Result<Written, KvError> {
        let shape = if *change == Change::Remove {
            Shape::MetaDelete
        } else {
            Shape::MetaSet
        };
        let reply = self.send(key, line, shape).reply().await?;
        let meta = self.meta(&reply)?;
        match meta.code {
            b"HD" => Ok(Written::Won {
                cas: number(meta.flag(b'c')).unwrap_or(0),
            }),
            b"EX" | b"NF" | b"NS" => Ok(Written::Lost),
            _ => Err(self.protocol(&reply)),
        }
    }

    async fn look(&self, key: &[u8], wire_key: &WireKey) -> Result<Found, KvError> {
        let reply = self
            .send(key, look_line(wire_key), Shape::MetaGet)
            .reply()
            .await?;
        let now_ms = clock::unix_ms();
        Ok(Found {
            entry: self.entry(&reply, now_ms)?,
            now_ms,
        })
    }

    /// Reads the server's clock before and after the value; `None` if it ticked in between.
    async fn look_exactly(&self, key: &[u8], wire_key: &WireKey) -> Result<Option<Found>, KvError> {
        let before = self.send(key, Line::new(b"stats"), Shape::Stats);
        let value = self.send(key, look_line(wire_key), Shape::MetaGet);
        let after = self.send(key, Line::new(b"stats"), Shape::Stats);
        let (before, value, after) = (
            before.reply().await?,
            value.reply().await?,
            after.reply().await?,
        );
        let time = |stats: &Bytes| stat(stats, b"time").ok_or_else(|| self.protocol(stats));
        let now = time(&before)?;
        if time(&after)? != now {
            return Ok(None);
        }
        let now_ms = now.saturating_mul(1000);
        Ok(Some(Found {
            entry: self.entry(&value, now_ms)?,
            now_ms,
        }))
    }

    fn entry(&self, reply: &Bytes, now_ms: u64) -> Result<Option<Entry>, KvError> {
        let meta = self.meta(reply)?;
        if meta.code == b"EN" {
            return Ok(None);
        }
        let wrong = || self.protocol(reply);
        let data = meta.value.ok_or_else(wrong)?;
        let flags = number(meta.flag(b'f')).and_then(|flags| u32::try_from(flags).ok());
        let cas = number(meta.flag(b'c')).ok_or_else(wrong)?;
        if cas == 0 {
            let reason = "the server keeps no CAS tokens (memcached -C)";
            return Err(self.unsupported("an edit", reason));
        }
        let expires_at_ms = match meta.flag(b't') {
            Some(b"-1") => None,
            left => {
                let left = number(left).ok_or_else(wrong)?;
                // A time in its last second counts as still there: the server showed it.
                Some(
                    now_ms
                        .saturating_add(left.saturating_mul(1000))
                        .max(now_ms + 1),
                )
            }
        };
        let data = reply.slice_ref(data);
        Ok(Some(Entry {
            data,
            flags: flags.ok_or_else(wrong)?,
            cas,
            expires_at_ms,
        }))
    }
}

fn look_line(wire_key: &WireKey) -> Line {
    Line::on(b"mg", wire_key)
        .word(b"v")
        .word(b"f")
        .word(b"c")
        .word(b"t")
}

/// Whether an operation asks when the entry ends, or compares with it.
fn needs_exact_time(operation: &Operation<'_>) -> bool {
    use ExpiryCondition as If;
    matches!(
        operation,
        Operation::ExpiresAt { .. }
            | Operation::Expire {
                condition: If::IfLater | If::IfSooner | If::IfSomeAndSooner,
                ..
            }
    )
}

/// The expiry that the last operation to speak of one gave the entry; `None`: it kept its own.
fn last_expiry(operations: &[Operation<'_>], outcomes: &[Outcome]) -> Option<Expiry> {
    let pairs = operations.iter().zip(outcomes).rev();
    pairs
        .into_iter()
        .find_map(|(operation, outcome)| match (operation, outcome) {
            (Operation::Set { expiry, .. }, Outcome::Stored { .. })
            | (Operation::Expire { expiry, .. }, Outcome::Flag(true))
            | (Operation::GetAndExpire { expiry }, Outcome::Value(Some(_))) => {
                Some(*expiry).filter(|expiry| *expiry != Expiry::Keep)
            }
            (Operation::Persist, Outcome::Flag(true))
            | (Operation::Delete { .. }, Outcome::Deleted { .. }) => Some(Expiry::Never),
            _ => None,
        })
}

/// The time of an entry made at `now_ms`, whose form was checked before.
fn since(now_ms: u64, entry: &Entry) -> i32 {
    let ms = entry.expires_at_ms.unwrap_or(0).saturating_sub(now_ms);
    time(Expiry::After(ms), clock::unix_ms()).unwrap_or(0)
}

/// The kept time as memcached takes it. It was told by the server, so it fits.
fn calendar_seconds(entry: &Entry) -> i32 {
    let seconds = entry.expires_at_ms.unwrap_or(0) / 1000;
    i32::try_from(seconds).unwrap_or(i32::MAX)
}

/// What was written got its token only now.
fn set_tokens(outcomes: &mut [Outcome], token: u64) {
    for outcome in outcomes {
        match outcome {
            Outcome::Stored { cas, .. } => *cas = token,
            Outcome::Value(Some(value)) if value.cas == 0 => value.cas = token,
            _ => {}
        }
    }
}
