//! What is owed that decides whether a statement is there.
//!
//! Not who waits for it. Invariant: a batch that is not answered has prepared nothing for certain.

use super::{Expected, Owed};

/// So much of what is owed is looked through; with more, names wait.
const LOOKED_THROUGH: usize = 1024;

impl Expected {
    /// Whether a batch that is not answered prepares what `fits`, by its text, or the unnamed statement,
    /// which has none here; and the batch under way does not. More than are looked through may.
    pub(in super::super) fn is_preparing(&self, fits: impl Fn(Option<&[u8]>) -> bool) -> bool {
        let mut earlier = false;
        for (at, owed) in self.owed.iter().rev().enumerate() {
            match owed {
                Owed::Sync | Owed::OwnSync | Owed::Query { .. } | Owed::Function => earlier = true,
                Owed::Parse {
                    statement: Some(statement),
                    ..
                } if fits(Some(&statement.sql)) => return earlier,
                Owed::Parse {
                    shown: false,
                    statement: None,
                    ..
                }
                | Owed::Unnamed(_)
                    if fits(None) =>
                {
                    return earlier;
                }
                _ => {}
            }
            if at == LOOKED_THROUGH {
                return true;
            }
        }
        false
    }
}
