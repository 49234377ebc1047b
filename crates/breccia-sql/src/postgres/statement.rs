//! Prepared statements, known by their text whoever prepares them.
//!
//! Not where they are prepared: each connection upstream keeps its own set. Invariant: one text
//! with one list of parameter types has one name upstream, and a name never means anything else.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Statements kept although nobody uses them; then those are let go.
const MAX_KEPT: usize = 10_000;

/// A statement as it was prepared.
#[derive(Debug)]
pub struct Statement {
    /// Unique in this process.
    pub id: u64,
    /// Its name upstream.
    pub name: Box<[u8]>,
    /// Its text.
    pub sql: Box<[u8]>,
    /// The types of its parameters, as they stand in a `Parse`.
    pub types: Box<[u8]>,
    /// Some server has prepared it: it is no nonsense.
    pub proven: AtomicBool,
}

/// All statements of a process.
#[derive(Debug, Default)]
pub struct Statements {
    known: Mutex<HashMap<Key, Arc<Statement>>>,
    last: AtomicU64,
}

type Key = (Box<[u8]>, Box<[u8]>);

impl Statements {
    /// The statement of this text and these types.
    #[must_use]
    pub fn intern(&self, sql: &[u8], types: &[u8]) -> Arc<Statement> {
        let key: Key = (sql.into(), types.into());
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(statement) = known.get(&key) {
            return Arc::clone(statement);
        }
        if known.len() >= MAX_KEPT {
            known.retain(|_, statement| Arc::strong_count(statement) > 1);
        }
        let id = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        let statement = Arc::new(Statement {
            id,
            name: upstream_name(id).into(),
            sql: sql.into(),
            types: types.into(),
            proven: AtomicBool::new(false),
        });
        known.insert(key, Arc::clone(&statement));
        statement
    }
}

/// Statements one connection upstream has prepared, least recently used first to go.
#[derive(Debug, Default)]
pub struct Prepared {
    /// The tick of the last use, by the statement's id.
    used: HashMap<u64, u64>,
    tick: u64,
}

/// The most statements one connection upstream holds; each costs the server memory.
pub const MAX_PREPARED: usize = 1000;

impl Prepared {
    /// Whether it is there; if so, it counts as used.
    pub fn touch(&mut self, id: u64) -> bool {
        self.tick += 1;
        let tick = self.tick;
        self.used.get_mut(&id).map(|used| *used = tick).is_some()
    }

    /// Adds one; answers the one that must be closed for it.
    pub fn insert(&mut self, id: u64) -> Option<u64> {
        self.tick += 1;
        let oldest = (self.used.len() >= MAX_PREPARED)
            .then(|| self.used.iter().min_by_key(|(_, tick)| **tick))
            .flatten()
            .map(|(id, _)| *id);
        if let Some(oldest) = oldest {
            self.used.remove(&oldest);
        }
        self.used.insert(id, self.tick);
        oldest
    }

    /// It is not there, or no more.
    pub fn remove(&mut self, id: u64) {
        self.used.remove(&id);
    }

    /// Whether none is there.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.used.is_empty()
    }

    /// None is there any more.
    pub fn clear(&mut self) {
        self.used.clear();
    }
}

/// The name upstream of the statement with this id.
#[must_use]
pub fn upstream_name(id: u64) -> Vec<u8> {
    format!("breccia_{id}").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_text_has_one_name_and_types_tell_them_apart() {
        let statements = Statements::default();
        let first = statements.intern(b"SELECT 1", b"\0\0");
        assert_eq!(first.id, statements.intern(b"SELECT 1", b"\0\0").id);
        let typed = statements.intern(b"SELECT 1", b"\0\x01\0\0\0\x17");
        assert_ne!(first.name, typed.name);
    }

    #[test]
    fn the_one_longest_unused_goes() {
        let mut prepared = Prepared::default();
        for id in 0..MAX_PREPARED as u64 {
            assert_eq!(prepared.insert(id), None);
        }
        assert!(prepared.touch(0));
        assert_eq!(prepared.insert(u64::MAX), Some(1));
        assert!(!prepared.touch(1));
    }
}
