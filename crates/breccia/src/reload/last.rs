//! What the last reload came to, for `/status`.
//!
//! Not the log, which has every reload. Invariant: a refused reload stays to be seen here, with its
//! faults, until the next one.

use std::time::Instant;

use breccia_net::clock;
use serde_json::{Value, json};

use super::Reloaded;

/// A reload that has ended.
#[derive(Debug, Clone)]
pub(crate) struct LastReload {
    ended: Instant,
    ended_unix_ms: u64,
    outcome: Result<Reloaded, Vec<String>>,
}

impl LastReload {
    /// One that ends now.
    pub(crate) fn now(outcome: Result<Reloaded, Vec<String>>) -> Self {
        Self {
            ended: clock::now(),
            ended_unix_ms: clock::unix_ms(),
            outcome,
        }
    }

    /// As `/status` shows it.
    pub(crate) fn to_json(&self) -> Value {
        let seconds = clock::now().saturating_duration_since(self.ended).as_secs();
        let mut value = match &self.outcome {
            Ok(done) => done.to_json(),
            Err(faults) => json!({ "faults": faults }),
        };
        if let Value::Object(map) = &mut value {
            let word = match self.outcome {
                Ok(_) => "applied",
                Err(_) => "refused",
            };
            map.insert("outcome".to_owned(), word.into());
            map.insert("seconds_ago".to_owned(), seconds.into());
            map.insert("unix_ms".to_owned(), self.ended_unix_ms.into());
        }
        value
    }
}
