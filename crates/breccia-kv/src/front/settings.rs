//! Who may use a listener, and within which limits: the settings a reload may change. Values only;
//! the binary makes them from the configuration.
//!
//! Invariant: a password never appears in `Debug` output.

use std::sync::{Arc, PoisonError, RwLock};

use super::limits::ListenerLimits;

/// Somebody who may log in.
#[derive(Clone)]
pub struct User {
    /// The name; `default` is who logs in with a password alone.
    pub name: String,
    /// The password; without one the name is enough.
    pub password: Option<String>,
}

impl std::fmt::Debug for User {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("User")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// The settings of a listener that may change while it runs.
#[derive(Clone, Debug, Default)]
pub struct ListenerSettings {
    /// Who may log in; nobody listed means no login is needed.
    pub users: Vec<User>,
    /// Limits of each client.
    pub limits: ListenerLimits,
}

/// Settings shared by all workers; a reload replaces them.
#[derive(Debug, Default)]
pub struct SharedSettings(RwLock<Arc<ListenerSettings>>);

impl SharedSettings {
    /// Settings to begin with.
    #[must_use]
    pub fn new(settings: ListenerSettings) -> Arc<Self> {
        Arc::new(Self(RwLock::new(Arc::new(settings))))
    }

    /// The settings now.
    #[must_use]
    pub fn get(&self) -> Arc<ListenerSettings> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Replaces them: for clients that connect from now on, and within a second for those that are
    /// connected. Nobody is logged out.
    pub fn set(&self, settings: ListenerSettings) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(settings);
    }
}

/// Compares secrets in a time that depends on the given one's length only.
pub(crate) fn same_secret(wanted: &[u8], given: &[u8]) -> bool {
    let mut difference = wanted.len() ^ given.len();
    for (index, byte) in given.iter().enumerate() {
        let other = wanted
            .get(index % wanted.len().max(1))
            .copied()
            .unwrap_or(0);
        difference |= usize::from(byte ^ other);
    }
    difference == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_compared_whole() {
        assert!(same_secret(b"secret", b"secret"));
        assert!(same_secret(b"", b""));
        for given in [&b"secre"[..], b"secretsecret", b"", b"Secret"] {
            assert!(!same_secret(b"secret", given));
        }
        assert!(!same_secret(b"", b"x"));
    }
}
