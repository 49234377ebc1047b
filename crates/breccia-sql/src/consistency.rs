//! How fresh reads must be, as an administrator says it.
//!
//! Not how that is kept: sessions do that. Invariant: whatever is asked for, a replica of which nobody
//! knows how far behind it is serves nobody.

/// How fresh a read must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Consistency {
    /// Never older than what its session wrote or has read.
    Session,
    /// Never older than any commit acknowledged before it arrived.
    Store,
    /// At most `max-lag` old.
    Eventual,
}
