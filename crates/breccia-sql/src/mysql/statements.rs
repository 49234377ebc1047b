//! Prepared statements: what a client knows them by, and what a connection has prepared.
//!
//! Not the packets. Invariant: a number of a client names one text, read under the settings at which
//! the client prepared it, on whatever connection it runs.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, BuildHasherDefault, Hash, Hasher, RandomState};
use std::sync::{Arc, OnceLock};

use super::settings::Settings;

/// The most statements of one client, as servers have it (`max_prepared_stmt_count`).
pub const MAX_OF_CLIENT: usize = 16_382;
/// The most bytes of texts that one client has prepared.
pub const MAX_TEXT_BYTES: usize = 64 << 20;
/// The most statements kept prepared on one connection; the one used longest ago is closed.
pub const MAX_OF_CONNECTION: usize = 256;

/// A text, and the settings it is read under.
#[derive(Debug, Clone, Eq)]
pub struct Key {
    /// The text.
    pub sql: Arc<[u8]>,
    /// The settings.
    pub under: Arc<Settings>,
    /// The client's number, of a statement that has something on its connection: two of one text do not
    /// share that. 0: none.
    owner: u32,
    /// Of the first two: every execution looks for its statement, and most texts are longer than their answers.
    hash: u64,
}

impl Key {
    /// The key of a text under some settings.
    #[must_use]
    pub fn new(sql: Arc<[u8]>, under: Arc<Settings>) -> Self {
        static STATE: OnceLock<RandomState> = OnceLock::new();
        let hash = STATE.get_or_init(RandomState::new).hash_one((&sql, &under));
        Self {
            sql,
            under,
            owner: 0,
            hash,
        }
    }

    /// The same for one statement of a client alone.
    #[must_use]
    pub fn owned(&self, owner: u32) -> Self {
        Self {
            owner,
            ..self.clone()
        }
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        let same_text = || Arc::ptr_eq(&self.sql, &other.sql) || self.sql == other.sql;
        self.hash == other.hash
            && self.owner == other.owner
            && self.under == other.under
            && same_text()
    }
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

/// A statement on a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// Its number on the server.
    pub number: u32,
    /// The types of its parameters that were sent last, if any were.
    pub types: Option<Arc<[u8]>>,
    used: u64,
}

/// The statements of one connection.
#[derive(Debug, Default)]
pub struct Prepared {
    known: HashMap<Key, Known, BuildHasherDefault<AsIs>>,
    clock: u64,
}

/// What [`Key`] has hashed is not hashed again.
#[derive(Debug, Default)]
struct AsIs(u64);

impl Hasher for AsIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = self.0.rotate_left(8) ^ hash;
    }
}

impl Prepared {
    /// A statement that is prepared here; it counts as used.
    pub fn touch(&mut self, key: &Key) -> Option<&mut Known> {
        self.clock += 1;
        let known = self.known.get_mut(key)?;
        known.used = self.clock;
        Some(known)
    }

    /// A statement was prepared; the number of one that must be closed for it, if any.
    pub fn add(&mut self, key: Key, number: u32) -> Option<u32> {
        self.clock += 1;
        let used = self.clock;
        let known = Known {
            number,
            types: None,
            used,
        };
        let replaced = self.known.insert(key, known).map(|it| it.number);
        if replaced.is_some() || self.known.len() <= MAX_OF_CONNECTION {
            return replaced;
        }
        let oldest = self.known.iter().min_by_key(|(_, it)| it.used);
        let oldest = oldest.map(|(key, _)| key.clone())?;
        self.known.remove(&oldest).map(|it| it.number)
    }

    /// The number of a statement that is let go of.
    pub fn remove(&mut self, key: &Key) -> Option<u32> {
        self.known.remove(key).map(|it| it.number)
    }

    /// The server has dropped all of them.
    pub fn clear(&mut self) {
        self.known.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: usize) -> Key {
        Key::new(number.to_string().into_bytes().into(), Arc::default())
    }

    #[test]
    fn the_statement_used_longest_ago_makes_room() {
        let mut prepared = Prepared::default();
        for number in 0..MAX_OF_CONNECTION {
            let id = u32::try_from(number).expect("small");
            assert_eq!(prepared.add(key(number), id), None);
        }
        assert_eq!(prepared.touch(&key(0)).map(|it| it.number), Some(0));
        assert_eq!(prepared.add(key(999), 999), Some(1));
        assert_eq!(prepared.touch(&key(1)), None);
        assert_eq!(prepared.add(key(999), 1000), Some(999), "prepared anew");
        assert_eq!(prepared.remove(&key(0)), Some(0));
    }
}
