//! From a text to its verdict, and the memory of verdicts.
//!
//! Not a router: what a session does with a verdict depends on what the session did before.
//! Invariant: a verdict that depends on a literal is never remembered under a masked text.

use super::commands::{self, Shape};
use super::lexer::{self, Doubt, Kind, Lexer, Token};
use super::shapes::Shapes;
use super::walls::{self, Words};
use super::{Catalogue, Class, Signs, Verdict, prove};
use crate::cache::{Cache, Found};
use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use xxhash_rust::xxh3::xxh3_64;

/// Longer texts are neither remembered nor proven.
const LONGEST: usize = 16 * 1024;
/// Why a text goes to the primary that a replica has refused.
const REFUSED: &str = "refused";
/// Of a longer text, this many tokens are kept whole; behind them, only names and marks.
const WHOLE_TOKENS: usize = 64;

#[derive(Debug, Default)]
struct Inner {
    catalogue: Option<Arc<Catalogue>>,
    /// The last catalogue that was known. It proves nothing any more, but what pinned then pins on.
    last: Option<Arc<Catalogue>>,
    /// Counts catalogues: a verdict reached under an older one is not remembered.
    epoch: u64,
    cache: Cache<Verdict>,
}

/// Tells what texts are, by the catalogue of one database.
#[derive(Debug)]
pub struct Classifier {
    /// What tells it from all others.
    number: u64,
    inner: RwLock<Inner>,
    /// Grows whenever a text may get another verdict than before.
    version: AtomicU64,
}

thread_local! {
    static KEY: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    static SHAPES: RefCell<Shapes> = RefCell::default();
}

impl Default for Classifier {
    fn default() -> Self {
        static LAST: AtomicU64 = AtomicU64::new(0);
        Self {
            number: LAST.fetch_add(1, Ordering::Relaxed),
            inner: RwLock::default(),
            version: AtomicU64::default(),
        }
    }
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
        inner.last = Some(Arc::clone(&catalogue));
        inner.catalogue = Some(catalogue);
        inner.epoch += 1;
        inner.cache.forget();
        self.version.fetch_add(1, Ordering::Release);
    }

    /// Forgets the catalogue: until the next one, every query goes to the primary.
    pub fn forget_catalogue(&self) {
        let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        inner.catalogue = None;
        inner.epoch += 1;
        inner.cache.forget();
        self.version.fetch_add(1, Ordering::Release);
    }

    /// For whoever keeps a verdict: while this is what it was before the verdict was asked for, the
    /// verdict holds.
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
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
        self.see(sql, standard_conforming_strings).0
    }

    /// The same, and what the text mentions.
    pub fn see(&self, sql: &[u8], standard_conforming_strings: bool) -> (Arc<Verdict>, Signs) {
        if sql.len() > LONGEST || !standard_conforming_strings {
            let (verdict, _) = self.judge(sql, standard_conforming_strings);
            return (Arc::new(verdict), Signs::of(sql));
        }
        // Before the verdict is asked for: it may be of this version, or of a later one.
        let version = self.version();
        let known = SHAPES.with_borrow(|shapes| shapes.get(sql, self.number, version));
        known.unwrap_or_else(|| {
            let (verdict, any) = KEY.with_borrow_mut(|key| self.classify_masked(sql, key));
            let seen = (verdict, Signs::of(sql));
            if let Some(any) = any {
                SHAPES.with_borrow_mut(|shapes| {
                    shapes.put(sql, any, self.number, version, &seen);
                });
            }
            seen
        })
    }

    /// What a text is, by its masked key, which is written to `key`; and whether it is worth remembering
    /// for all texts of its shape or for this one alone.
    fn classify_masked(&self, sql: &[u8], key: &mut Vec<u8>) -> (Arc<Verdict>, Option<bool>) {
        let Some(hash) = masked_key(sql, key) else {
            return (Arc::new(self.judge(sql, true).0), Some(false));
        };
        let inner = self.inner.read().unwrap_or_else(PoisonError::into_inner);
        let found = inner.cache.get(hash, key);
        drop(inner);
        match found {
            // It is to outlive the turns of the cache, so it is asked for there each time.
            Found::Young(verdict) if verdict.class == Class::Primary(REFUSED) => (verdict, None),
            Found::Young(verdict) => (verdict, Some(true)),
            Found::Old(verdict) => {
                let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
                inner.cache.renew(hash);
                (verdict, None)
            }
            Found::Nothing => {
                let (verdict, epoch) = self.judge(sql, true);
                let verdict = Arc::new(verdict);
                let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
                if inner.epoch == epoch {
                    inner.cache.insert(hash, key, Arc::clone(&verdict), false);
                }
                (verdict, None)
            }
        }
    }

    /// Remembers that texts of this shape go to the primary: a replica refused one.
    pub fn mark_write(&self, sql: &[u8]) {
        if sql.len() > LONGEST {
            return;
        }
        let (mut verdict, _) = self.judge(sql, true);
        if verdict.class == Class::Read {
            verdict.class = Class::Primary(REFUSED);
        }
        KEY.with_borrow_mut(|key| {
            if let Some(hash) = masked_key(sql, key) {
                let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
                inner.cache.insert(hash, key, Arc::new(verdict), true);
                self.version.fetch_add(1, Ordering::Release);
            }
        });
    }

    fn judge(&self, sql: &[u8], conforming: bool) -> (Verdict, u64) {
        let inner = self.inner.read().unwrap_or_else(PoisonError::into_inner);
        let (catalogue, last) = (inner.catalogue.clone(), inner.last.clone());
        let epoch = inner.epoch;
        drop(inner);
        let known = Known {
            proofs: catalogue.as_deref(),
            pins: last.as_deref(),
        };
        (judge(known, sql, conforming), epoch)
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
fn doubtful(pins: Option<&Catalogue>, sql: &[u8], doubt: Option<Doubt>) -> Verdict {
    let text = String::from_utf8_lossy(sql);
    // The server refuses a text that does not end, so nothing of it happens.
    let happens = doubt != Some(Doubt::Unterminated);
    let named = || pins.is_some_and(|catalogue| catalogue.mentions_pinning(&text));
    Verdict {
        class: if happens && (walls::mentions_state(&text) || named()) {
            Class::Pin("unparsed")
        } else if happens && pins.is_none() {
            Class::Primary(START)
        } else {
            Class::Primary("unparsed")
        },
        hint_primary: true,
        ddl: happens && walls::mentions_ddl(&text),
        uses_now: true,
        single: false,
    }
}

/// What a text is judged by.
#[derive(Clone, Copy)]
struct Known<'c> {
    /// The catalogue that proofs rest on; none while it may have changed.
    proofs: Option<&'c Catalogue>,
    /// The one that says what pins; none before the first.
    pins: Option<&'c Catalogue>,
}

fn judge(catalogues: Known<'_>, sql: &[u8], conforming: bool) -> Verdict {
    let Ok(text) = std::str::from_utf8(sql) else {
        return doubtful(catalogues.pins, sql, None);
    };
    let (tokens, hint_primary) = match tokens_of(sql, conforming) {
        Ok(tokens) => tokens,
        Err(doubt) => return doubtful(catalogues.pins, sql, Some(doubt)),
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
        catalogues.proofs.ok_or("catalogue")
    };
    let pins = catalogues.pins;
    let mut verdict = Verdict {
        class: Class::Empty,
        hint_primary,
        ddl: false,
        uses_now: walls::uses_now(&words),
        single: statements.len() == 1,
    };
    if let [statement] = statements.as_slice() {
        verdict.class = classify(pins, known, statement, &mut verdict);
        verdict.ddl |= verdict.class == Class::Ddl;
        return verdict;
    }
    let mut made = false;
    for statement in &statements {
        // Nothing of a text of many statements is proven.
        let class = classify(pins, Err("multi"), statement, &mut verdict);
        verdict.ddl |= class == Class::Ddl;
        if class.is_own() {
            verdict.class = Class::OwnMisplaced;
            return verdict;
        }
        let makes_value = matches!(
            class,
            Class::Pin(_)
                | Class::Primary("write" | "function" | "call" | "copy" | "do" | "unparsed")
        );
        let pin = match class {
            Class::Pin(reason) => Some(reason),
            Class::Set { .. } | Class::Reset { .. } | Class::DiscardAll => Some("set"),
            Class::Deallocate { .. } => Some("prepare"),
            _ => None,
        };
        verdict.class = match (&verdict.class, pin) {
            (Class::Pin(reason), _) => Class::Pin(reason),
            (_, Some(reason)) => Class::Pin(reason),
            (Class::Primary(reason @ (START | LAST_VALUE)), None) => Class::Primary(reason),
            (_, None) if class == Class::Primary(START) => class,
            // Behind a statement that made the value it is this session's.
            (_, None) if class == Class::Primary(LAST_VALUE) && !made => class,
            (_, None) => Class::Primary("multi"),
        };
        made |= makes_value;
    }
    verdict
}

/// Why something named in the statement pins the session, if anything does.
fn named_pins(catalogue: &Catalogue, words: &Words<'_>) -> Option<&'static str> {
    (0..words.len()).find_map(|at| {
        if words.kind(at) == Some(Kind::Operator) {
            return catalogue.pinning_operator(words.raw(at));
        }
        let name = words.name(at)?;
        let called = words.mark(at + 1, b'(');
        let routine = called.then(|| catalogue.pinning(&name)).flatten();
        routine.or_else(|| catalogue.pinning_relation(&name))
    })
}

/// Whether a statement is a block that may change its session through what it calls.
fn block_pins(pins: Option<&Catalogue>, words: &Words<'_>) -> bool {
    if !words.is(0, "do") {
        return false;
    }
    let Some(catalogue) = pins else {
        return true;
    };
    (1..words.len()).any(|at| {
        if words.is(at, "language") {
            let name = words.raw(at + 1).trim_matches(['\'', '"']);
            return !name.eq_ignore_ascii_case("plpgsql");
        }
        if words.is(at - 1, "language") {
            return false;
        }
        let Some(Kind::Text(quote)) = words.kind(at) else {
            return false;
        };
        let body = commands::content(words.raw(at));
        let Ok((tokens, _)) = lexer::tokens(body.as_bytes(), true) else {
            return true;
        };
        let inner = Words {
            sql: body,
            tokens: &tokens,
        };
        !matches!(quote, lexer::Quote::Dollar | lexer::Quote::Plain)
            || named_pins(catalogue, &inner).is_some()
    })
}

/// Words that stand before a parenthesis and call nothing that anybody could make.
#[rustfmt::skip]
pub(super) const NO_CALLS: [&str; 72] = [
    "all", "and", "any", "array", "as", "between", "bit", "by", "case", "cast", "char", "character",
    "coalesce", "conflict", "cube", "decimal", "default", "distinct", "do", "else", "end", "except",
    "exists", "extract", "filter", "float", "from", "greatest", "group", "having", "ilike", "in",
    "intersect", "interval", "into", "is", "join", "key", "lateral", "least", "like", "limit",
    "materialized", "merge_action", "not", "nullif", "numeric", "offset", "on", "only", "or", "order",
    "over", "overlay", "position", "returning", "rollup", "row", "select", "set", "sets", "some",
    "substring", "then", "trim", "union", "using", "values", "varchar", "varying", "when", "where",
];

/// Whether something is called of which the catalogue knows neither a function nor a relation.
fn calls_unknown(catalogue: &Catalogue, words: &Words<'_>) -> bool {
    let mut calls = (0..words.len()).filter(|at| words.mark(at + 1, b'('));
    calls.any(|at| {
        words.name(at).is_some_and(|name| {
            NO_CALLS.binary_search(&name.as_ref()).is_err() && !catalogue.is_known(&name)
        })
    })
}

/// Whether a function or procedure named in the statement changes the catalogue.
fn named_changes(catalogue: &Catalogue, words: &Words<'_>) -> bool {
    let mut calls = (0..words.len()).filter(|at| words.mark(at + 1, b'('));
    calls.any(|at| words.name(at).is_some_and(|name| catalogue.changes(&name)))
}

/// Why a statement that calls something goes to the primary before any catalogue is known: nobody
/// knows yet what the call does to its session.
pub(crate) const START: &str = "start";
/// Why a statement that asks for its session's last value of a sequence goes to the primary.
pub(crate) const LAST_VALUE: &str = "last-value";

fn classify(
    pins: Option<&Catalogue>,
    known: Result<&Catalogue, &'static str>,
    words: &Words<'_>,
    verdict: &mut Verdict,
) -> Class {
    let class = classify_shape(pins, known, words, verdict);
    if !matches!(class, Class::Primary(_)) {
        return class;
    }
    let calls = |names: &[&str]| {
        (0..words.len()).any(|at| {
            let name = words.name(at).filter(|_| words.mark(at + 1, b'('));
            name.is_some_and(|name| match names {
                [] => name != "values",
                names => names.contains(&name.as_ref()),
            })
        })
    };
    if calls(&["lastval", "currval"]) {
        Class::Primary(LAST_VALUE)
    } else if pins.is_none() && calls(&[]) {
        Class::Primary(START)
    } else if let (Some(last), Err("catalogue")) = (pins, known)
        && calls_unknown(last, words)
    {
        // It may have been made since the catalogue was read.
        Class::Primary(START)
    } else {
        class
    }
}

fn classify_shape(
    pins: Option<&Catalogue>,
    known: Result<&Catalogue, &'static str>,
    words: &Words<'_>,
    verdict: &mut Verdict,
) -> Class {
    let shape = commands::shape(words);
    verdict.ddl |= matches!(shape, Shape::Changes(_))
        || pins.is_some_and(|catalogue| named_changes(catalogue, words));
    let pin = walls::pin(words).or_else(|| pins.and_then(|pins| named_pins(pins, words)));
    let pin = pin.or_else(|| block_pins(pins, words).then_some("do"));
    if let Some(reason) = pin {
        // What is temporary is of this session alone, which is pinned.
        let makes = shape == Shape::Known(Class::Ddl) && !walls::makes_temporary(words);
        verdict.ddl |= makes || walls::makes_table(words);
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
