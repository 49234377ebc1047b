//! What can go wrong in the in-memory slice.
//!
//! Not the wire's words: each frontend maps these in its `wire_error.rs`. Invariant: `effect()` is
//! `NotApplied` only if the request was not carried out and never will be.

use std::fmt;
use std::sync::Arc;

use breccia_core::error::{Effect, ErrorKind, Origin};
use breccia_net::layout_store::LayoutStoreError;
use thiserror::Error;

use crate::entry::Refusal;
use crate::store::StoreKind;

/// What became of one shard's part of a request that failed elsewhere or there.
#[derive(Clone, Debug)]
pub struct Part {
    /// The shard.
    pub store: String,
    /// The keys of the part, in the order of the request.
    pub keys: Vec<Vec<u8>>,
    /// Whether the part writes.
    pub writes: bool,
    /// Why it failed; `None`: it was carried out.
    pub error: Option<Arc<KvError>>,
}

impl Part {
    fn is_not_applied(&self) -> bool {
        self.error
            .as_ref()
            .is_some_and(|error| error.effect() == Effect::NotApplied)
    }
}

/// A failed request to a store.
#[derive(Clone, Debug, Error)]
#[non_exhaustive]
pub enum KvError {
    /// The endpoint cannot be reached.
    #[error(
        "{store} is unreachable ({reason}); keys of other shards work; {}", effect_words(*effect)
    )]
    Down {
        /// The store.
        store: String,
        /// Why, and for how long.
        reason: String,
        /// Whether the request may have been carried out.
        effect: Effect,
    },
    /// The request waited here, unsent, until its deadline.
    #[error("{store} took no request within the deadline; not applied")]
    Deadline {
        /// The store.
        store: String,
    },
    /// No answer in time.
    #[error("{store} did not answer within the store's timeout; {}", effect_words(*effect))]
    Timeout {
        /// The store.
        store: String,
        /// Whether the request may have been carried out.
        effect: Effect,
    },
    /// The connection broke before the answer came.
    #[error("{store} broke off ({reason}); {}", effect_words(*effect))]
    Lost {
        /// The store.
        store: String,
        /// How it broke.
        reason: String,
        /// Whether the request may have been carried out.
        effect: Effect,
    },
    /// A named limit is reached; nothing was sent.
    #[error("{store}: {limit}; not applied")]
    Overloaded {
        /// The store.
        store: String,
        /// The limit.
        limit: String,
    },
    /// The store cannot do this exactly.
    #[error("'{operation}' cannot be done exactly by '{store}' ({kind}): {reason}")]
    Unsupported {
        /// The store.
        store: String,
        /// What it is.
        kind: StoreKind,
        /// The operation.
        operation: &'static str,
        /// What stands in the way.
        reason: String,
    },
    /// The key is longer than the store takes.
    #[error("a key of {length} bytes is too long for '{store}' ({kind}): it takes {limit} bytes")]
    KeyTooLong {
        /// The store.
        store: String,
        /// What it is.
        kind: StoreKind,
        /// The key's length in bytes.
        length: usize,
        /// The longest key it takes.
        limit: usize,
    },
    /// The value is larger than the store takes.
    #[error("a value of {length} bytes is too large for '{store}' ({kind}): {limit}")]
    ValueTooLarge {
        /// The store.
        store: String,
        /// What it is.
        kind: StoreKind,
        /// The value's length in bytes.
        length: usize,
        /// The limit that is in the way, and its name.
        limit: String,
    },
    /// The store may not use more memory.
    #[error("'{store}' has reached its max-memory; not applied")]
    OutOfMemory {
        /// The store.
        store: String,
    },
    /// Others changed the key again and again while it was being edited.
    #[error("'{store}': other clients changed the key during {tries} tries; not applied")]
    Contention {
        /// The store.
        store: String,
        /// How often it was tried.
        tries: u32,
    },
    /// The server answered with an error of its own.
    #[error("{store}: {text}")]
    Server {
        /// The store.
        store: String,
        /// The server's words.
        text: String,
        /// Whether the request may have been carried out.
        effect: Effect,
    },
    /// The server sent what its protocol does not allow.
    #[error("{store} sent what its protocol does not allow: {problem}; {}", effect_words(*effect))]
    Protocol {
        /// The store.
        store: String,
        /// What was wrong.
        problem: String,
        /// Whether the request may have been carried out.
        effect: Effect,
    },
    /// The server's own SCAN cursor does not fit beside the shard's number.
    #[error("{store} sent the SCAN cursor {cursor}, above 2^44: it cannot be merged")]
    CursorTooLarge {
        /// The store.
        store: String,
        /// The cursor.
        cursor: u64,
    },
    /// The operation does not fit the value found.
    #[error("'{store}': {refusal}; not applied")]
    WrongValue {
        /// The store.
        store: String,
        /// What does not fit.
        refusal: Refusal,
    },
    /// The members of a composite are not those of its layout.
    #[error("the composite '{composite}' {problem}")]
    Members {
        /// The composite.
        composite: String,
        /// What does not fit, and what to do.
        problem: String,
    },
    /// The layout of a composite is refused.
    #[error("the layout of '{composite}' is refused: {source}")]
    Layout {
        /// The composite.
        composite: String,
        /// What is wrong, and how it is mended.
        source: Arc<LayoutStoreError>,
    },
    /// Part of a request for many keys failed.
    #[error("{}", parts_words(parts))]
    Partial {
        /// All parts, those carried out too.
        parts: Vec<Part>,
    },
}

impl KvError {
    /// What kind of trouble it is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            KvError::Down { .. } | KvError::Lost { .. } => ErrorKind::Unreachable,
            KvError::Timeout { .. } | KvError::Deadline { .. } => ErrorKind::Timeout,
            KvError::Overloaded { .. } | KvError::OutOfMemory { .. } => ErrorKind::Overloaded,
            KvError::Unsupported { .. }
            | KvError::KeyTooLong { .. }
            | KvError::ValueTooLarge { .. } => ErrorKind::Unsupported,
            KvError::Contention { .. } => ErrorKind::Conflict,
            KvError::WrongValue { .. } => ErrorKind::Invalid,
            KvError::Members { .. } => ErrorKind::Refused,
            KvError::Layout { source, .. } => source.kind(),
            KvError::Server { .. } => ErrorKind::Server,
            KvError::Protocol { .. } | KvError::CursorTooLarge { .. } => ErrorKind::Protocol,
            KvError::Partial { parts } => {
                parts
                    .iter()
                    .find_map(|part| part.error.as_ref())
                    .map_or(ErrorKind::System, |e| {
                        // The parts' own kinds may differ; the first failure speaks for all.
                        e.kind()
                    })
            }
        }
    }

    /// Where it came from.
    #[must_use]
    pub fn origin(&self) -> Origin {
        match self {
            KvError::Unsupported { .. }
            | KvError::KeyTooLong { .. }
            | KvError::ValueTooLarge { .. }
            | KvError::WrongValue { .. }
            | KvError::Members { .. }
            | KvError::Layout { .. } => Origin::Downstream,
            KvError::OutOfMemory { .. } => Origin::Internal,
            KvError::Partial { parts } => parts
                .iter()
                .find_map(|part| part.error.as_ref())
                .map_or(Origin::Internal, |error| error.origin()),
            _ => Origin::Upstream,
        }
    }

    /// Whether the request may have been carried out.
    #[must_use]
    pub fn effect(&self) -> Effect {
        match self {
            KvError::Timeout { effect, .. }
            | KvError::Down { effect, .. }
            | KvError::Lost { effect, .. }
            | KvError::Server { effect, .. }
            | KvError::Protocol { effect, .. } => *effect,
            KvError::Partial { parts } if !parts.iter().all(Part::is_not_applied) => {
                Effect::Unknown
            }
            _ => Effect::NotApplied,
        }
    }

    /// The same error of a request that only read: nothing can have been applied.
    #[must_use]
    pub(crate) fn into_read(mut self) -> Self {
        match &mut self {
            KvError::Timeout { effect, .. }
            | KvError::Down { effect, .. }
            | KvError::Lost { effect, .. }
            | KvError::Server { effect, .. }
            | KvError::Protocol { effect, .. } => *effect = Effect::NotApplied,
            _ => {}
        }
        self
    }

    /// The same error, told by the composite the store belongs to: `cache/redis-b`.
    #[must_use]
    pub fn within(mut self, composite: &str) -> Self {
        match &mut self {
            KvError::Down { store, .. }
            | KvError::Deadline { store }
            | KvError::Timeout { store, .. }
            | KvError::Lost { store, .. }
            | KvError::Overloaded { store, .. }
            | KvError::Unsupported { store, .. }
            | KvError::KeyTooLong { store, .. }
            | KvError::ValueTooLarge { store, .. }
            | KvError::OutOfMemory { store }
            | KvError::Contention { store, .. }
            | KvError::Server { store, .. }
            | KvError::Protocol { store, .. }
            | KvError::CursorTooLarge { store, .. }
            | KvError::WrongValue { store, .. } => *store = format!("{composite}/{store}"),
            // These name the composite already.
            KvError::Members { .. } | KvError::Layout { .. } => {}
            KvError::Partial { parts } => {
                for part in parts {
                    part.store = format!("{composite}/{}", part.store);
                    part.error = part
                        .error
                        .take()
                        .map(|error| Arc::new(KvError::clone(&error).within(composite)));
                }
            }
        }
        self
    }
}

fn effect_words(effect: Effect) -> &'static str {
    match effect {
        Effect::NotApplied => "not applied",
        Effect::Unknown => "outcome unknown",
    }
}

/// The failures, then (for writes) what became of each part.
fn parts_words(parts: &[Part]) -> String {
    let mut text = String::new();
    for error in parts.iter().filter_map(|part| part.error.as_ref()) {
        separate(&mut text, "; ");
        text.push_str(&error.to_string());
    }
    if parts.iter().any(|part| part.writes) {
        list(&mut text, "applied on", parts, |part| part.error.is_none());
        list(&mut text, "unknown on", parts, |part| {
            part.error.is_some() && !part.is_not_applied()
        });
        list(&mut text, "not applied on", parts, Part::is_not_applied);
    }
    text
}

fn list(text: &mut String, title: &str, parts: &[Part], choose: impl Fn(&Part) -> bool) {
    let mut first = true;
    for part in parts.iter().filter(|part| choose(part)) {
        if first {
            separate(text, "; ");
            text.push_str(title);
            text.push(' ');
        } else {
            text.push_str(", ");
        }
        first = false;
        text.push_str(&part.store);
        if !part.keys.is_empty() {
            text.push_str(" (");
            list_keys(text, &part.keys);
            text.push(')');
        }
    }
}

/// How many keys a message names before it only counts them.
const NAMED_KEYS: usize = 4;
/// How much of a key a message shows.
const SHOWN_KEY_BYTES: usize = 40;

fn list_keys(text: &mut String, keys: &[Vec<u8>]) {
    for (index, key) in keys.iter().take(NAMED_KEYS).enumerate() {
        if index > 0 {
            text.push(' ');
        }
        text.push_str(&Quoted(key).to_string());
    }
    if let Some(more) = keys.len().checked_sub(NAMED_KEYS).filter(|more| *more > 0) {
        text.push_str(" and ");
        text.push_str(&more.to_string());
        text.push_str(" more");
    }
}

fn separate(text: &mut String, separator: &str) {
    if !text.is_empty() {
        text.push_str(separator);
    }
}

/// A key made fit for a one-line message: printable, quoted, cut when long.
#[derive(Clone, Copy, Debug)]
pub struct Quoted<'a>(pub &'a [u8]);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self.0.get(..SHOWN_KEY_BYTES).unwrap_or(self.0);
        write!(f, "'{}'", shown.escape_ascii())?;
        if shown.len() < self.0.len() {
            write!(f, "… ({} bytes)", self.0.len())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(store: &str, keys: &[&str], error: Option<KvError>) -> Part {
        Part {
            store: store.into(),
            keys: keys.iter().map(|key| key.as_bytes().to_vec()).collect(),
            writes: true,
            error: error.map(Arc::new),
        }
    }

    #[test]
    fn a_partial_failure_names_shards_and_what_became_of_each() {
        let timeout = KvError::Timeout {
            store: "b".into(),
            effect: Effect::Unknown,
        };
        let full = KvError::Overloaded {
            store: "c".into(),
            limit: "max-in-flight".into(),
        };
        let error = KvError::Partial {
            parts: vec![
                part("a", &["k1", "k\n2"], None),
                part("b", &["k3"], Some(timeout)),
                part("c", &["1", "2", "3", "4", "5", "6"], Some(full)),
            ],
        }
        .within("cache");
        assert_eq!(
            error.to_string(),
            "cache/b did not answer within the store's timeout; outcome unknown; \
             cache/c: max-in-flight; not applied; applied on cache/a ('k1' 'k\\n2'); \
             unknown on cache/b ('k3'); not applied on cache/c ('1' '2' '3' '4' and 2 more)"
        );
        assert_eq!(error.effect(), Effect::Unknown);
        assert_eq!(error.kind(), ErrorKind::Timeout);
    }

    #[test]
    fn a_request_of_which_no_part_was_applied_was_not_applied() {
        let down = |store: &str| KvError::Down {
            store: store.into(),
            reason: "connection refused, 3 s".into(),
            effect: Effect::NotApplied,
        };
        let error = KvError::Partial {
            parts: vec![part("a", &["x"], Some(down("a")))],
        };
        assert_eq!(error.effect(), Effect::NotApplied);
        assert_eq!(
            down("b").within("cache").to_string(),
            "cache/b is unreachable (connection refused, 3 s); keys of other shards work; \
             not applied"
        );
    }
}
