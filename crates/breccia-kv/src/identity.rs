//! Whether a shard is the one its layout means: what its marker must be, and what is known of it.
//!
//! Not the checking: the gateway's markers module reads and writes them. Invariant: a shard with
//! an identity is refused until it has been accepted, and `refusal` costs one atomic load.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use breccia_core::layout::Marker;

/// What the key of every marker begins with. Such keys are Breccia's own.
pub const MARKER_PREFIX: &[u8] = b"breccia:layout:";

/// The key of a composite's marker.
#[must_use]
pub fn marker_key(composite: &str) -> Vec<u8> {
    [MARKER_PREFIX, composite.as_bytes()].concat()
}

/// A marker as a shard carries it.
#[derive(Clone, Debug)]
pub struct Carried {
    /// The key.
    pub key: Vec<u8>,
    /// How the value begins: enough to compare by.
    pub head: Vec<u8>,
    /// The whole value.
    pub value: Vec<u8>,
}

impl Carried {
    fn new(marker: &Marker) -> Self {
        Self {
            key: marker_key(marker.layout().composite()),
            head: marker.head().into_bytes(),
            value: marker.to_text().into_bytes(),
        }
    }
}

/// The identity of one shard. See the module's page.
#[derive(Debug)]
pub struct Identity {
    carried: Vec<Carried>,
    accepted: AtomicBool,
    why_not: RwLock<Arc<str>>,
}

impl Identity {
    /// One that has not been checked.
    #[must_use]
    pub fn new(markers: &[Marker]) -> Arc<Self> {
        Arc::new(Self {
            carried: markers.iter().map(Carried::new).collect(),
            accepted: AtomicBool::new(false),
            why_not: RwLock::new("its marker has not been checked yet".into()),
        })
    }

    /// What the shard carries, if it is the right one.
    #[must_use]
    pub fn carried(&self) -> &[Carried] {
        &self.carried
    }

    /// Why the shard must not be used now; `None`: it may.
    #[must_use]
    pub fn refusal(&self) -> Option<Arc<str>> {
        if self.accepted.load(Ordering::Relaxed) {
            return None;
        }
        Some(Arc::clone(
            &self.why_not.read().unwrap_or_else(PoisonError::into_inner),
        ))
    }

    /// The shard carries every marker.
    pub fn accept(&self) {
        self.accepted.store(true, Ordering::Relaxed);
    }

    /// The shard must not be used.
    pub fn refuse(&self, why: &str) {
        *self.why_not.write().unwrap_or_else(PoisonError::into_inner) = why.into();
        self.accepted.store(false, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_used_before_it_is_accepted() {
        let identity = Identity::new(&[]);
        assert!(identity.refusal().unwrap().contains("not been checked"));
        identity.accept();
        assert_eq!(identity.refusal(), None);
        identity.refuse("it is another");
        assert_eq!(identity.refusal().as_deref(), Some("it is another"));
    }
}
