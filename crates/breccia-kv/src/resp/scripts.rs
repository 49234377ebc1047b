//! The scripts that clients of one store have shown: the same for all workers of the process.
//!
//! One Redis knows a script once somebody ran it. Over shards only the shard that ran it does, and
//! a shard that was started again knows none. So the texts are kept here, and an EVALSHA for a
//! server that may not know its script is sent as EVAL. Not the sending; see `frontend/scripts.rs`.
//!
//! Invariant: what is kept is bounded, and a script's name is the SHA-1 of the text that is kept.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use breccia_net::clock;
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};

/// A longer script is not kept: it goes on as the client sent it.
const MAX_SCRIPT_BYTES: usize = 64 * 1024;
/// All texts together; the oldest make room.
const MAX_BYTES: usize = 4 << 20;
/// How many texts; the oldest make room.
const MAX_SCRIPTS: usize = 1024;

/// A script's name: the SHA-1 of its text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ScriptId([u8; 20]);

impl ScriptId {
    /// The name of a text.
    pub(crate) fn of(body: &[u8]) -> Self {
        let mut id = [0; 20];
        let made = digest(&SHA1_FOR_LEGACY_USE_ONLY, body);
        for (byte, from) in id.iter_mut().zip(made.as_ref()) {
            *byte = *from;
        }
        Self(id)
    }

    /// The name that EVALSHA was given: 40 digits in any case.
    pub(crate) fn parse(text: &[u8]) -> Option<Self> {
        if text.len() != 40 {
            return None;
        }
        let mut id = [0; 20];
        for (byte, pair) in id.iter_mut().zip(text.chunks_exact(2)) {
            let digits = std::str::from_utf8(pair).ok()?;
            if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                return None;
            }
            *byte = u8::from_str_radix(digits, 16).ok()?;
        }
        Some(Self(id))
    }
}

#[derive(Debug, Default)]
struct Known {
    bodies: BTreeMap<ScriptId, Arc<[u8]>>,
    /// The names, oldest first.
    order: VecDeque<ScriptId>,
    bytes: usize,
}

impl Known {
    fn drop_oldest(&mut self) -> bool {
        let Some(oldest) = self.order.pop_front() else {
            return false;
        };
        if let Some(body) = self.bodies.remove(&oldest) {
            self.bytes -= body.len();
        }
        true
    }
}

/// The scripts of one store. See the module's page.
#[derive(Debug)]
pub struct Scripts {
    /// Changes when all scripts are forgotten; what was noted under another one is void.
    epoch: AtomicU64,
    known: Mutex<Known>,
}

impl Default for Scripts {
    fn default() -> Self {
        Self {
            epoch: AtomicU64::new(clock::seed()),
            known: Mutex::default(),
        }
    }
}

impl Scripts {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Relaxed)
    }

    /// Keeps a text.
    pub(crate) fn learn(&self, id: ScriptId, body: &[u8]) {
        if body.len() > MAX_SCRIPT_BYTES {
            return;
        }
        let mut known = self.known();
        if known.bodies.contains_key(&id) {
            return;
        }
        while known.bodies.len() >= MAX_SCRIPTS || known.bytes + body.len() > MAX_BYTES {
            if !known.drop_oldest() {
                break;
            }
        }
        known.bytes += body.len();
        known.order.push_back(id);
        known.bodies.insert(id, body.into());
    }

    /// Forgets a text that is no script.
    pub(crate) fn forget(&self, id: ScriptId) {
        let mut known = self.known();
        if let Some(body) = known.bodies.remove(&id) {
            known.bytes -= body.len();
            known.order.retain(|other| *other != id);
        }
    }

    /// Forgets all: a client has flushed them.
    pub(crate) fn clear(&self) {
        let mut known = self.known();
        *known = Known::default();
        self.epoch.store(clock::seed(), Ordering::Relaxed);
    }

    /// The text of that name.
    pub(crate) fn body(&self, id: ScriptId) -> Option<Arc<[u8]>> {
        self.known().bodies.get(&id).cloned()
    }
}

/// The scripts that the server at the other end of one connection is known to have.
#[derive(Debug, Default)]
pub struct ScriptsSeen {
    epoch: u64,
    ids: BTreeSet<ScriptId>,
}

impl ScriptsSeen {
    pub(crate) fn has(&self, epoch: u64, id: ScriptId) -> bool {
        self.epoch == epoch && self.ids.contains(&id)
    }

    /// A script has run there; `epoch` is that of the moment it was sent.
    pub(crate) fn add(&mut self, epoch: u64, id: ScriptId) {
        if self.epoch != epoch || self.ids.len() >= MAX_SCRIPTS {
            self.epoch = epoch;
            self.ids.clear();
        }
        self.ids.insert(id);
    }

    /// The server has forgotten a script.
    pub(crate) fn remove(&mut self, id: ScriptId) {
        self.ids.remove(&id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_redis() {
        let wanted = b"e0e1f9fabfc9d4800c877a703b823ac0578ff8db";
        let id = ScriptId::of(b"return 1");
        assert_eq!(ScriptId::parse(wanted), Some(id));
        assert_eq!(ScriptId::parse(&wanted.to_ascii_uppercase()), Some(id));
        let wrong: [&[u8]; 4] = [b"", b"e0", &[b'+'; 40], &[b'g'; 40]];
        for text in wrong {
            assert_eq!(ScriptId::parse(text), None);
        }
    }

    #[test]
    fn the_oldest_scripts_make_room() {
        let scripts = Scripts::default();
        let body = |number: usize| {
            let mut body = number.to_string().into_bytes();
            body.resize(MAX_SCRIPT_BYTES, b' ');
            body
        };
        let count = MAX_BYTES / MAX_SCRIPT_BYTES;
        for number in 0..=count {
            scripts.learn(ScriptId::of(&body(number)), &body(number));
        }
        assert!(scripts.body(ScriptId::of(&body(0))).is_none());
        assert!(scripts.body(ScriptId::of(&body(1))).is_some());
        let long = vec![0; MAX_SCRIPT_BYTES + 1];
        scripts.learn(ScriptId::of(&long), &long);
        assert_eq!(scripts.known().bodies.len(), count);
        scripts.forget(ScriptId::of(&body(1)));
        assert_eq!(scripts.known().order.len(), count - 1);
        for number in 0..MAX_SCRIPTS + 10 {
            let body = number.to_string();
            scripts.learn(ScriptId::of(body.as_bytes()), body.as_bytes());
        }
        assert_eq!(scripts.known().bodies.len(), MAX_SCRIPTS);
    }

    #[test]
    fn what_was_seen_before_a_flush_is_void() {
        let (scripts, mut seen) = (Scripts::default(), ScriptsSeen::default());
        let (id, before) = (ScriptId::of(b"return 1"), scripts.epoch());
        scripts.learn(id, b"return 1");
        seen.add(before, id);
        assert!(seen.has(scripts.epoch(), id));
        scripts.clear();
        assert!(scripts.body(id).is_none());
        assert!(!seen.has(scripts.epoch(), id));
        // The reply of a request that was sent before the flush proves nothing.
        seen.add(before, id);
        assert!(!seen.has(scripts.epoch(), id));
    }
}
