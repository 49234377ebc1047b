//! Operations that one meta command does exactly. Invariant: an operation that is not one of them
//! gives `None` before anything is sent.

use std::borrow::Cow;

use bytes::Bytes;

use super::super::codec::Shape;
use super::MemcachedStore;
use super::expiry::time;
use super::request::{Line, WireKey};
use crate::entry::{
    Condition, Expiry, ExpiryCondition, Lifetime, NewCounter, Operation, Outcome, Refusal, Value,
};
use crate::error::KvError;

impl MemcachedStore {
    pub(super) async fn apply_single(
        &self,
        key: &[u8],
        wire_key: &WireKey,
        operation: &Operation<'_>,
        now_ms: u64,
    ) -> Result<Option<Outcome>, KvError> {
        let get = Line::on(b"mg", wire_key);
        let line = match *operation {
            Operation::Get
            | Operation::GetAndExpire {
                expiry: Expiry::Keep,
            } => get.word(b"v").word(b"f").word(b"c"),
            Operation::GetAndExpire { expiry } => {
                let line = get.word(b"v").word(b"f").word(b"c");
                line.time(time(expiry, now_ms).unwrap_or(0))
            }
            Operation::Length => get.word(b"s"),
            Operation::Exists | Operation::Touch | Operation::Type => get,
            Operation::TimeToLive { .. } => get.word(b"t"),
            Operation::Expire {
                expiry,
                condition: ExpiryCondition::Always,
            } if expiry != Expiry::Keep => get.time(time(expiry, now_ms).unwrap_or(0)),
            Operation::Set {
                data,
                flags,
                condition,
                expiry,
                want_old: false,
            } if expiry != Expiry::Keep && !matches!(condition, Condition::IfEquals(_)) => {
                let time = time(expiry, now_ms).unwrap_or(0);
                self.check_size(key, data, flags).await?;
                let line = Line::store(wire_key, data)
                    .word(b"c")
                    .flag(b'F', flags.into());
                return self.set(key, line.time(time), condition).await.map(Some);
            }
            Operation::Delete {
                condition,
                want_old: false,
            } => {
                return self.delete(key, wire_key, condition).await;
            }
            Operation::Count {
                delta,
                down,
                create,
            } => {
                return self
                    .count(key, wire_key, (delta, down), create, now_ms)
                    .await
                    .map(Some);
            }
            _ => return Ok(None),
        };
        let writes = operation.writes();
        let answer = self.send(key, line, Shape::MetaGet).reply().await;
        let reply = answer.map_err(|error| if writes { error } else { error.into_read() })?;
        self.read(operation, &reply).map(Some)
    }

    /// What the reply to `mg` says.
    fn read(&self, operation: &Operation<'_>, reply: &Bytes) -> Result<Outcome, KvError> {
        let meta = self.meta(reply)?;
        let found = meta.code != b"EN";
        let wrong = || self.protocol(reply);
        Ok(match operation {
            Operation::Length if !found => Outcome::Length(0),
            Operation::Length => Outcome::Length(number(meta.flag(b's')).ok_or_else(wrong)?),
            Operation::Exists | Operation::Touch | Operation::Expire { .. } => Outcome::Flag(found),
            Operation::Type => Outcome::Type(found.then_some(Cow::Borrowed("string"))),
            Operation::TimeToLive { .. } if !found => Outcome::Lifetime(Lifetime::Missing),
            Operation::TimeToLive { .. } => Outcome::Lifetime(match meta.flag(b't') {
                Some(b"-1") => Lifetime::Forever,
                seconds => Lifetime::Ms(number(seconds).ok_or_else(wrong)?.saturating_mul(1000)),
            }),
            _ if !found => Outcome::Value(None),
            _ => {
                let data = meta.value.ok_or_else(wrong)?;
                let flags = number(meta.flag(b'f')).and_then(|flags| u32::try_from(flags).ok());
                let cas = number(meta.flag(b'c'));
                Outcome::Value(Some(Value {
                    data: reply.slice_ref(data),
                    flags: flags.ok_or_else(wrong)?,
                    cas: cas.ok_or_else(wrong)?,
                }))
            }
        })
    }

    async fn set(
        &self,
        key: &[u8],
        line: Line,
        condition: Condition<'_>,
    ) -> Result<Outcome, KvError> {
        let line = match condition {
            Condition::IfAbsent => line.word(b"ME"),
            Condition::IfPresent => line.word(b"MR"),
            Condition::IfCas(cas) => line.flag(b'C', cas),
            Condition::Always | Condition::IfEquals(_) => line,
        };
        let reply = self.send(key, line, Shape::MetaSet).reply().await?;
        let meta = self.meta(&reply)?;
        Ok(match meta.code {
            b"HD" => {
                let cas = number(meta.flag(b'c')).ok_or_else(|| self.protocol(&reply))?;
                Outcome::Stored { cas, old: None }
            }
            b"NS" => Outcome::NotStored {
                found: condition == Condition::IfAbsent,
                old: None,
            },
            b"EX" => Outcome::NotStored {
                found: true,
                old: None,
            },
            b"NF" => Outcome::NotStored {
                found: false,
                old: None,
            },
            _ => return Err(self.protocol(&reply)),
        })
    }

    async fn delete(
        &self,
        key: &[u8],
        wire_key: &WireKey,
        condition: Condition<'_>,
    ) -> Result<Option<Outcome>, KvError> {
        let line = Line::on(b"md", wire_key);
        let line = match condition {
            Condition::Always | Condition::IfPresent => line,
            Condition::IfCas(cas) => line.flag(b'C', cas),
            Condition::IfAbsent | Condition::IfEquals(_) => return Ok(None),
        };
        let reply = self.send(key, line, Shape::MetaDelete).reply().await?;
        Ok(Some(match self.meta(&reply)?.code {
            b"HD" => Outcome::Deleted { old: None },
            b"EX" => Outcome::NotDeleted { found: true },
            b"NF" => Outcome::NotDeleted { found: false },
            _ => return Err(self.protocol(&reply)),
        }))
    }

    async fn count(
        &self,
        key: &[u8],
        wire_key: &WireKey,
        (delta, down): (u64, bool),
        create: Option<NewCounter>,
        now_ms: u64,
    ) -> Result<Outcome, KvError> {
        let mut line = Line::on(b"ma", wire_key).word(b"v").flag(b'D', delta);
        if down {
            line = line.word(b"MD");
        }
        if let Some(NewCounter { value, expiry }) = create {
            let seconds = time(expiry, now_ms).unwrap_or(0).to_string();
            line = line
                .flag(b'J', value)
                .word(&[b"N", seconds.as_bytes()].concat());
        }
        let reply = self.send(key, line, Shape::MetaArithmetic).reply().await?;
        if reply.starts_with(b"CLIENT_ERROR cannot increment or decrement non-numeric") {
            return Ok(Outcome::Refused(Refusal::NotCounter));
        }
        let meta = self.meta(&reply)?;
        match meta.code {
            b"NF" => Ok(Outcome::NotStored {
                found: false,
                old: None,
            }),
            _ => number(meta.value)
                .map(Outcome::Counter)
                .ok_or_else(|| self.protocol(&reply)),
        }
    }
}

/// A number as memcached writes it.
pub(super) fn number(text: Option<&[u8]>) -> Option<u64> {
    std::str::from_utf8(text?).ok()?.trim_end().parse().ok()
}
