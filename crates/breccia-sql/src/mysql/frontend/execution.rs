//! A prepared statement that is to run, as it is written for a connection.
//!
//! Not what becomes of it ([`super::prepared`]). Invariant: a connection is sent the statement's number there,
//! and the types of its parameters unless it has them from the execution before.

use std::sync::Arc;

use super::prepared::NUMBER;
use super::session::Session;
use crate::mysql::class::{Class, Verdict};
use crate::mysql::codec::{self, ExecuteHead, write_packet};
use crate::mysql::statements::Key;
use crate::mysql::upstream::Upstream;

/// A prepared statement that is to run.
#[derive(Debug)]
pub(super) struct Execution<'a> {
    pub(super) key: Key,
    pub(super) payload: &'a [u8],
    pub(super) head: ExecuteHead,
    pub(super) types: Option<Arc<[u8]>>,
}

impl Execution<'_> {
    /// The client that it ends, or whose statement (`true`): no server knows that number.
    pub(super) fn kills(&self, verdict: &Verdict) -> Option<(bool, u64)> {
        let Class::Kill { query, id } = verdict.class else {
            return None;
        };
        let parameter = || {
            let flag = self.head.flag?;
            let told = self.head.types.as_ref();
            let values = self.payload.get(told.map_or(flag + 1, |it| it.end)..)?;
            codec::first_number(self.types.as_deref()?, values)
        };
        let id = id
            .or_else(parameter)
            .filter(|id| Session::client_number(*id).is_some())?;
        Some((query, id))
    }

    pub(super) fn key(&self) -> &Key {
        &self.key
    }

    /// Writes the command for a connection that has the statement.
    pub(super) fn write(&self, upstream: &mut Upstream, out: &mut Vec<u8>) {
        let known = upstream.prepared.touch(&self.key);
        let told = self.head.types.is_some();
        let missed = known
            .as_ref()
            .is_some_and(|it| !told && it.types != self.types);
        let begin = out.len() + codec::HEADER_BYTES;
        match self.types.as_deref().zip(self.head.flag) {
            Some((types, flag)) if missed => {
                write_packet(out, &mut 0, &codec::with_types(self.payload, types, flag));
            }
            _ => write_packet(out, &mut 0, self.payload),
        }
        if let Some(known) = known {
            let place = begin + NUMBER.start..begin + NUMBER.end;
            if let Some(place) = out.get_mut(place) {
                place.copy_from_slice(&known.number.to_le_bytes());
            }
            known.types.clone_from(&self.types);
        }
    }
}
