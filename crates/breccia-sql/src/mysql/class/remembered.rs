//! Verdicts of texts that were seen lately, by the text without its literals.
//!
//! Not the rule of what may be remembered: that is the classifier's. Invariant: two texts have the
//! same key only if they have the same tokens, literals aside, under the same mode, schema and
//! version of the catalogue.

use std::cell::RefCell;
use std::sync::{Arc, Mutex, PoisonError};

use xxhash_rust::xxh3::xxh3_64;

use super::lexer::{self, Kind};
use super::{Mode, Verdict};
use crate::cache::{Cache, Found};

/// Longer texts are not remembered.
const LONGEST: usize = 16 * 1024;
/// Parts of the memory, so that threads seldom wait for each other.
const PARTS: usize = 8;

thread_local! {
    /// The key made last by this thread.
    static KEY: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// The hash of the key that this thread has made last.
#[derive(Debug, Clone, Copy)]
pub(super) struct Key(u64);

/// Makes the key of a text. `None`: it is too long, or cannot be cut.
pub(super) fn key(sql: &[u8], mode: Mode, schema: Option<&str>, version: u64) -> Option<Key> {
    if sql.len() > LONGEST {
        return None;
    }
    KEY.with_borrow_mut(|key| {
        key.clear();
        key.extend_from_slice(&version.to_le_bytes());
        let modes = [
            mode.ansi_quotes,
            mode.no_backslash_escapes,
            mode.pipes_as_concat,
            // Of a text that is ASCII all through nothing depends on it.
            mode.legible || sql.is_ascii(),
            mode.ignore_space,
            mode.multi_statements,
            schema.is_some(),
        ];
        key.push(
            modes
                .iter()
                .fold(0, |bits, mode| bits << 1 | u8::from(*mode)),
        );
        let schema = schema.unwrap_or_default();
        key.extend_from_slice(&schema.len().to_le_bytes());
        key.extend_from_slice(schema.as_bytes());
        let notes = lexer::scan(sql, mode, |token| match token.kind {
            Kind::Text => key.push(1),
            Kind::Number => key.push(2),
            kind => {
                key.push(if kind == Kind::Word { 3 } else { 4 });
                key.extend_from_slice(sql.get(token.start..token.end).unwrap_or_default());
            }
        });
        let notes = notes.ok()?;
        let notes = [
            notes.hint,
            notes.executable,
            notes.sets_by_hint,
            notes.foreign,
        ];
        key.push(
            notes
                .iter()
                .fold(0, |bits, note| bits << 1 | u8::from(*note)),
        );
        Some(Key(xxh3_64(key)))
    })
}

/// The memory.
#[derive(Debug, Default)]
pub(super) struct Remembered([Mutex<Cache<Verdict>>; PARTS]);

impl Remembered {
    fn part(&self, key: Key) -> Option<&Mutex<Cache<Verdict>>> {
        let part = usize::try_from(key.0 >> 32).unwrap_or(0) % PARTS;
        self.0.get(part)
    }

    /// The verdict of the key that this thread has made last.
    pub(super) fn get(&self, key: Key) -> Option<Arc<Verdict>> {
        let mut part = self
            .part(key)?
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        match KEY.with_borrow(|bytes| part.get(key.0, bytes)) {
            Found::Young(verdict) => Some(verdict),
            Found::Old(verdict) => {
                part.renew(key.0);
                Some(verdict)
            }
            Found::Nothing => None,
        }
    }

    /// Remembers the verdict of the key that this thread has made last.
    pub(super) fn put(&self, key: Key, verdict: &Arc<Verdict>) {
        if let Some(part) = self.part(key) {
            let mut part = part.lock().unwrap_or_else(PoisonError::into_inner);
            KEY.with_borrow(|bytes| part.insert(key.0, bytes, Arc::clone(verdict), false));
        }
    }
}
