//! Prepared statements, known by their text whoever prepares them.
//!
//! Not where they are prepared: each connection upstream keeps its own set. Invariant: one text
//! with one list of parameter types, read under the same settings, has one name upstream; a name
//! never means anything else, and nobody can guess it.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::described::Shape;

/// Statements kept although nobody uses them, and their bytes; then those are let go.
const MAX_KEPT: usize = 10_000;
const MAX_KEPT_BYTES: usize = 64 << 20;

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
    /// What a server reads it by: [`super::settings::Settings::meaning`]. None: it is shared with
    /// nobody.
    pub meaning: Option<Arc<str>>,
    /// Some server has prepared it: it is no nonsense.
    pub proven: AtomicBool,
}

impl PartialEq for Statement {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

impl Eq for Statement {}

impl Statement {
    fn is(&self, meaning: &str, sql: &[u8], types: &[u8]) -> bool {
        self.meaning.as_deref() == Some(meaning) && *self.sql == *sql && *self.types == *types
    }

    fn bytes(&self) -> usize {
        self.sql.len() + self.types.len() + size_of::<Self>()
    }
}

/// All statements of a process.
#[derive(Debug, Default)]
pub struct Statements {
    known: Mutex<Known>,
    last: AtomicU64,
    hasher: RandomState,
}

#[derive(Debug, Default)]
struct Known {
    /// By the hash of what makes them one.
    statements: HashMap<u64, Arc<Statement>>,
    bytes: usize,
    /// How many there may be, and of how many bytes, before those that nobody uses are let go.
    most: (usize, usize),
}

impl Known {
    /// Lets go of what nobody uses, if another one of `bytes` would be too much.
    fn make_room(&mut self, bytes: usize) {
        let fits = |most: (usize, usize), count: usize, all: usize| {
            count < most.0.max(MAX_KEPT) && all + bytes <= most.1.max(MAX_KEPT_BYTES)
        };
        if fits(self.most, self.statements.len(), self.bytes) {
            return;
        }
        self.statements.retain(|_, it| Arc::strong_count(it) > 1);
        self.bytes = self.statements.values().map(|it| it.bytes()).sum();
        // What is in use cannot be let go of: it is not looked through for each new one.
        self.most = (self.statements.len() * 2, self.bytes * 2);
    }
}

impl Statements {
    /// The statement of this text and these types, as it is read under settings of this meaning.
    #[must_use]
    pub fn intern(&self, meaning: &Arc<str>, sql: &[u8], types: &[u8]) -> Arc<Statement> {
        let hash = self.hasher.hash_one((&**meaning, sql, types));
        match self.lock().statements.get(&hash) {
            Some(known) if known.is(meaning, sql, types) => return Arc::clone(known),
            // Two of one hash: the other one has nothing to do with this.
            Some(_) => return Arc::new(self.make(None, sql, types)),
            None => {}
        }
        let made = Arc::new(self.make(Some(Arc::clone(meaning)), sql, types));
        let mut known = self.lock();
        known.make_room(made.bytes());
        known.bytes += made.bytes();
        let before = known.statements.insert(hash, Arc::clone(&made));
        known.bytes -= before.map_or(0, |it| it.bytes());
        made
    }

    /// A statement that is shared with nobody.
    #[must_use]
    pub fn private(&self, sql: &[u8], types: &[u8]) -> Arc<Statement> {
        Arc::new(self.make(None, sql, types))
    }

    fn make(&self, meaning: Option<Arc<str>>, sql: &[u8], types: &[u8]) -> Statement {
        let id = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        Statement {
            id,
            name: self.name(id).into(),
            sql: sql.into(),
            types: types.into(),
            meaning,
            proven: AtomicBool::new(false),
        }
    }

    /// The name upstream of the statement with this id. Who does not know it cannot ask for another
    /// session's statement by SQL.
    #[must_use]
    pub fn name(&self, id: u64) -> Vec<u8> {
        format!("breccia_{id:x}_{:016x}", self.hasher.hash_one(id)).into_bytes()
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Statements one connection upstream has prepared, least recently used first to go.
#[derive(Debug, Default)]
pub struct Prepared {
    /// By the statement's id.
    used: HashMap<u64, There>,
    tick: u64,
    /// Others may be there too, or stand for what the database was: a name is closed before it is
    /// prepared.
    doubtful: bool,
}

/// A statement that a connection has prepared.
#[derive(Debug, Clone, Copy)]
struct There {
    /// The tick of the last use.
    used: u64,
    /// As what it was described here.
    shape: Option<Shape>,
}

/// The most statements one connection upstream holds; each costs the server memory.
pub const MAX_PREPARED: usize = 1000;

impl Prepared {
    /// Whether it is there; if so, it counts as used.
    pub fn touch(&mut self, id: u64) -> bool {
        self.tick += 1;
        let tick = self.tick;
        let there = self.used.get_mut(&id);
        there.map(|there| there.used = tick).is_some()
    }

    /// As what one was described that is there.
    #[must_use]
    pub fn shape(&self, id: u64) -> Option<Shape> {
        self.used.get(&id)?.shape
    }

    /// One that is there was described.
    pub fn note_shape(&mut self, id: u64, shape: Shape) {
        if let Some(there) = self.used.get_mut(&id) {
            there.shape = Some(shape);
        }
    }

    /// Adds one; answers the one that must be closed for it.
    pub fn insert(&mut self, id: u64) -> Option<u64> {
        self.tick += 1;
        let oldest = (self.used.len() >= MAX_PREPARED)
            .then(|| self.used.iter().min_by_key(|(_, there)| there.used))
            .flatten()
            .map(|(id, _)| *id);
        if let Some(oldest) = oldest {
            self.used.remove(&oldest);
        }
        let there = There {
            used: self.tick,
            shape: None,
        };
        self.used.insert(id, there);
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

    /// Whatever is there may not be what it should: all are to be prepared anew.
    pub fn distrust(&mut self) {
        self.used.clear();
        self.doubtful = true;
    }

    /// Whether a name may be taken that is not known here.
    #[must_use]
    pub fn is_doubtful(&self) -> bool {
        self.doubtful
    }

    /// None is there any more.
    pub fn clear(&mut self) {
        self.used.clear();
    }

    /// Those of `other` are there too.
    pub fn join(&mut self, other: Prepared) {
        for (id, there) in other.used {
            self.used.entry(id).or_insert(there);
        }
        self.tick = self.tick.max(other.tick);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_text_has_one_name_and_types_and_settings_tell_them_apart() {
        let statements = Statements::default();
        let (plain, other): (Arc<str>, Arc<str>) = ("".into(), "timezone=UTC".into());
        let first = statements.intern(&plain, b"SELECT 1", b"\0\0");
        assert_eq!(first.id, statements.intern(&plain, b"SELECT 1", b"\0\0").id);
        let typed = statements.intern(&plain, b"SELECT 1", b"\0\x01\0\0\0\x17");
        let set = statements.intern(&other, b"SELECT 1", b"\0\0");
        let private = statements.private(b"SELECT 1", b"\0\0");
        let all = [&first, &typed, &set, &private].map(|it| it.name.clone());
        assert_eq!(
            all.iter().collect::<std::collections::HashSet<_>>().len(),
            4
        );
        assert!(all.iter().all(|name| name.len() < 63), "{all:?}");
    }

    #[test]
    fn what_nobody_uses_is_bounded_by_bytes_and_by_number() {
        let statements = Statements::default();
        let meaning: Arc<str> = "".into();
        let kept = statements.intern(&meaning, b"kept", b"\0\0");
        let mut sql = vec![b'x'; MAX_KEPT_BYTES / 8];
        for number in 0..64 {
            sql[0] = number;
            drop(statements.intern(&meaning, &sql, b"\0\0"));
            assert!(statements.lock().bytes <= MAX_KEPT_BYTES);
        }
        for number in 0..3 * MAX_KEPT {
            let sql = format!("SELECT {number}");
            drop(statements.intern(&meaning, sql.as_bytes(), b"\0\0"));
        }
        let known = statements.lock();
        assert!(known.statements.len() <= MAX_KEPT);
        let bytes: usize = known.statements.values().map(|it| it.bytes()).sum();
        assert_eq!(known.bytes, bytes);
        drop(known);
        assert_eq!(kept.id, statements.intern(&meaning, b"kept", b"\0\0").id);
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
