//! From a text to its verdict, and the memory of verdicts.
//!
//! Not a router: what a session does with a verdict depends on what the session did before.
//! Invariant: a verdict that depends on a literal is never remembered under a masked text.

use super::cache::{Cache, Found};
use super::commands::{self, Shape};
use super::lexer::{self, Doubt, Kind, Lexer, Token};
use super::walls::{self, Words};
use super::{Catalogue, Class, Verdict, prove};
use std::cell::RefCell;
use std::sync::{Arc, PoisonError, RwLock};
use xxhash_rust::xxh3::xxh3_64;

/// Longer texts are neither remembered nor proven.
const LONGEST: usize = 16 * 1024;
/// Of a longer text, this many tokens are kept whole; behind them, only names and marks.
const WHOLE_TOKENS: usize = 64;

#[derive(Debug, Default)]
struct Inner {
    catalogue: Option<Arc<Catalogue>>,
    /// Counts catalogues: a verdict reached under an older one is not remembered.
    epoch: u64,
    cache: Cache,
}

/// Tells what texts are, by the catalogue of one database.
#[derive(Debug, Default)]
pub struct Classifier {
    inner: RwLock<Inner>,
}

thread_local! {
    static KEY: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Statements whose verdict no literal changes, by their first word in a key.
fn is_memorable(key: &[u8]) -> bool {
    const FIRST: [&[u8]; 9] = [
        b"select", b"insert", b"update", b"delete", b"with", b"values", b"table", b"explain",
        b"merge",
    ];
    let end = key
        .iter()
        .position(|byte| !byte.is_ascii_lowercase())
        .unwrap_or(key.len());
    let word = key.get(..end).unwrap_or_default();
    FIRST.contains(&word) || key.first() == Some(&b'(')
}

impl Classifier {
    /// A classifier that knows no catalogue yet: every query goes to the primary.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes a new catalogue; verdicts that rest on the old one are forgotten.
    pub fn set_catalogue(&self, catalogue: Arc<Catalogue>) {
        let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        inner.catalogue = Some(catalogue);
        inner.epoch += 1;
        inner.cache.forget();
    }

    /// Forgets the catalogue: until the next one, every query goes to the primary.
    pub fn forget_catalogue(&self) {
        let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        inner.catalogue = None;
        inner.epoch += 1;
        inner.cache.forget();
    }

    /// How many verdicts are remembered.
    pub fn remembered(&self) -> usize {
        self.inner
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .cache
            .len()
    }

    /// What a text is. `standard_conforming_strings` is the session's setting of that name; while
    /// it is off, nothing is proven.
    pub fn classify(&self, sql: &[u8], standard_conforming_strings: bool) -> Arc<Verdict> {
        if sql.len() > LONGEST || !standard_conforming_strings {
            return Arc::new(self.judge(sql, standard_conforming_strings).0);
        }
        KEY.with_borrow_mut(|key| {
            let Some(hash) = masked_key(sql, key) else {
                return Arc::new(self.judge(sql, true).0);
            };
            let inner = self.inner.read().unwrap_or_else(PoisonError::into_inner);
            let found = inner.cache.get(hash, key);
            drop(inner);
            match found {
                Found::Young(verdict) => verdict,
                Found::Old(verdict) => {
                    let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
                    inner.cache.renew(hash);
                    verdict
                }
                Found::Nothing => {
                    let (verdict, epoch) = self.judge(sql, true);
                    let verdict = Arc::new(verdict);
                    let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
                    if inner.epoch == epoch {
                        inner.cache.insert(hash, key, Arc::clone(&verdict), false);
                    }
                    verdict
                }
            }
        })
    }

    /// Remembers that texts of this shape go to the primary: a replica refused one.
    pub fn mark_write(&self, sql: &[u8]) {
        if sql.len() > LONGEST {
            return;
        }
        let (mut verdict, _) = self.judge(sql, true);
        if verdict.class == Class::Read {
            verdict.class = Class::Primary("refused");
        }
        KEY.with_borrow_mut(|key| {
            if let Some(hash) = masked_key(sql, key) {
                let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
                inner.cache.insert(hash, key, Arc::new(verdict), true);
            }
        });
    }

    fn judge(&self, sql: &[u8], conforming: bool) -> (Verdict, u64) {
        let inner = self.inner.read().unwrap_or_else(PoisonError::into_inner);
        let (catalogue, epoch) = (inner.catalogue.clone(), inner.epoch);
        drop(inner);
        (judge(catalogue.as_deref(), sql, conforming), epoch)
    }
}

/// Writes the key of a text that can be remembered, and returns its hash.
fn masked_key(sql: &[u8], key: &mut Vec<u8>) -> Option<u64> {
    // What is wrong with a literal must not be said of all texts of its shape.
    std::str::from_utf8(sql).ok()?;
    let masked = lexer::mask(sql, true, key).ok()?;
    if masked.statements != 1 || !is_memorable(key) {
        return None;
    }
    key.push(u8::from(masked.hint));
    Some(xxh3_64(key))
}

fn tokens_of(sql: &[u8], conforming: bool) -> Result<(Vec<Token>, bool), Doubt> {
    if memchr::memchr(0, sql).is_some() {
        return Err(Doubt::Byte);
    }
    if sql.len() <= LONGEST {
        return lexer::tokens(sql, conforming);
    }
    let mut lexer = Lexer::new(sql, conforming);
    let mut tokens = Vec::new();
    while let Some(token) = lexer.token()? {
        let tells = !matches!(
            token.kind,
            Kind::Number | Kind::Parameter | Kind::Text(_) | Kind::Mark(b',')
        );
        if tells || tokens.len() < WHOLE_TOKENS {
            tokens.push(token);
        }
    }
    Ok((tokens, lexer.hint()))
}

/// The verdict about a text the lexer does not vouch for.
fn doubtful(sql: &[u8], doubt: Option<Doubt>) -> Verdict {
    const STATE: [&str; 10] = [
        "listen", "temp", "set", "advisory", "load", "prepare", "declare", "discard", "role",
        "dblink",
    ];
    let text = String::from_utf8_lossy(sql).to_ascii_lowercase();
    // The server refuses a text that does not end, so nothing of it happens.
    let happens = doubt != Some(Doubt::Unterminated);
    let pins = happens && STATE.iter().any(|word| text.contains(word));
    Verdict {
        class: if pins {
            Class::Pin("unparsed")
        } else {
            Class::Primary("unparsed")
        },
        hint_primary: true,
        ddl: happens && walls::mentions_ddl(&text),
        uses_now: true,
        single: false,
    }
}

fn judge(catalogue: Option<&Catalogue>, sql: &[u8], conforming: bool) -> Verdict {
    let Ok(text) = std::str::from_utf8(sql) else {
        return doubtful(sql, None);
    };
    let (tokens, hint_primary) = match tokens_of(sql, conforming) {
        Ok(tokens) => tokens,
        Err(doubt) => return doubtful(sql, Some(doubt)),
    };
    let words = Words {
        sql: text,
        tokens: &tokens,
    };
    let statements = words.statements();
    let provable = conforming && sql.len() <= LONGEST;
    let known = if !conforming {
        Err("unparsed")
    } else if !provable {
        Err("too-long")
    } else {
        catalogue.ok_or("catalogue")
    };
    let mut verdict = Verdict {
        class: Class::Empty,
        hint_primary,
        ddl: false,
        uses_now: walls::uses_now(&words),
        single: statements.len() == 1,
    };
    if let [statement] = statements.as_slice() {
        verdict.class = classify(catalogue, known, statement, &mut verdict);
        verdict.ddl |= verdict.class == Class::Ddl;
        return verdict;
    }
    for statement in &statements {
        // Nothing of a text of many statements is proven.
        let class = classify(catalogue, Err("multi"), statement, &mut verdict);
        verdict.ddl |= class == Class::Ddl;
        if class.is_own() {
            verdict.class = Class::OwnMisplaced;
            return verdict;
        }
        let pin = match class {
            Class::Pin(reason) => Some(reason),
            Class::Set { .. } | Class::Reset { .. } | Class::DiscardAll => Some("set"),
            Class::Deallocate { .. } => Some("prepare"),
            _ => None,
        };
        verdict.class = match (&verdict.class, pin) {
            (Class::Pin(reason), _) => Class::Pin(reason),
            (_, Some(reason)) => Class::Pin(reason),
            (_, None) => Class::Primary("multi"),
        };
    }
    verdict
}

/// Why a function named in the statement pins the session, if one does.
fn routine_pins(catalogue: &Catalogue, words: &Words<'_>) -> Option<&'static str> {
    (0..words.len())
        .filter(|at| words.mark(at + 1, b'('))
        .find_map(|at| words.name(at).and_then(|name| catalogue.pinning(&name)))
}

fn classify(
    catalogue: Option<&Catalogue>,
    known: Result<&Catalogue, &'static str>,
    words: &Words<'_>,
    verdict: &mut Verdict,
) -> Class {
    let shape = commands::shape(words);
    verdict.ddl |= matches!(shape, Shape::Changes(_));
    let pin = walls::pin(words)
        .or_else(|| catalogue.and_then(|catalogue| routine_pins(catalogue, words)));
    if let Some(reason) = pin {
        verdict.ddl |= shape == Shape::Known(Class::Ddl) || reason == "temp";
        return Class::Pin(reason);
    }
    let query = match shape {
        Shape::Known(class) | Shape::Changes(class) => return class,
        Shape::Query => *words,
        Shape::Plan(at) => words.from(at),
    };
    let proof = walls::forbids_read(&query)
        .and(known)
        .and_then(|catalogue| calls_unsafe(catalogue, &query).map(|()| catalogue))
        .and_then(|catalogue| prove::query(catalogue, &query));
    match proof {
        Ok(proof) => {
            verdict.uses_now |= proof.uses_now;
            Class::Read
        }
        Err(reason) => {
            // SELECT … INTO makes a table.
            verdict.ddl |= reason == "into";
            Class::Primary(reason)
        }
    }
}

/// A second wall beside the proof: no name before a parenthesis is that of an unsafe function.
fn calls_unsafe(catalogue: &Catalogue, words: &Words<'_>) -> Result<(), &'static str> {
    let calls = (0..words.len())
        .filter(|at| words.mark(at + 1, b'('))
        .any(|at| {
            words
                .name(at)
                .is_some_and(|name| catalogue.is_unsafe_function(&name))
        });
    if calls { Err("function") } else { Ok(()) }
}
