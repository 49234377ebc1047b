//! What a session is told when it begins, kept for those that come while all connections are lent.
//!
//! Not its settings, which its first statement brings to whatever connection it gets. Invariant: a
//! session is told only what a connection at its own settings has shown; what has changed since, its
//! first answer tells.

use std::sync::{Arc, PoisonError};

use super::Pool;
use crate::postgres::settings::Settings;

/// What a connection of a pool showed when it was at these settings.
#[derive(Debug, Clone)]
pub struct Greeting {
    /// The settings.
    pub settings: Arc<Settings>,
    /// Its parameters, as a server reports them.
    pub parameters: Vec<(String, String)>,
    /// Whether its transactions are READ COMMITTED unless they say otherwise.
    pub read_committed: bool,
}

impl Pool {
    /// Keeps what a connection has shown, in place of what is known.
    pub fn keep_greeting(&self, greeting: Greeting) {
        let mut known = self
            .kept()
            .greeting
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *known = Some(greeting);
    }

    /// What connections at these settings have shown last, if one would have to be waited for now.
    #[must_use]
    pub fn greeting_of_crowded(&self, settings: &Settings) -> Option<Greeting> {
        if !self.is_crowded() {
            return None;
        }
        let known = self
            .kept()
            .greeting
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        known
            .as_ref()
            .filter(|known| *known.settings == *settings)
            .cloned()
    }
}
