//! The words every Breccia error is described with, and this crate's own error.
//!
//! Not here: texts for a wire; each frontend maps a kind to its protocol by itself.
//!
//! Invariant: retries and wire answers look only at [`ErrorKind`], [`Origin`] and [`Effect`],
//! never at a message.

use thiserror::Error;

/// What kind of trouble an error is. A closed set: a frontend maps it in one exhaustive match.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ErrorKind {
    /// Arguments, config or layout are refused; nothing starts until somebody changes them.
    Refused,
    /// The request itself is wrong: malformed, over a limit, or of the wrong type for its key.
    Invalid,
    /// The client has not proved who it is, or may not do this.
    Unauthorized,
    /// The request is understood, and cannot be done exactly by the stores it would go to.
    Unsupported,
    /// The keys of one request lie on different shards.
    CrossShard,
    /// The endpoint cannot be reached, or its connection was lost.
    Unreachable,
    /// The time allowed has passed.
    Timeout,
    /// A queue or another named limit is full.
    Overloaded,
    /// Somebody else changed the value first.
    Conflict,
    /// A peer sent bytes its protocol does not allow.
    Protocol,
    /// A server answered with an error of its own.
    Server,
    /// This process is draining or closing.
    Closing,
    /// The machine refused: a file, a socket, memory.
    System,
}

/// Where the trouble came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Origin {
    /// The client, its request, or its configuration.
    Downstream,
    /// A store, or the way to it.
    Upstream,
    /// Breccia itself or the machine it runs on.
    Internal,
}

/// What is known of a request that ended in an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Effect {
    /// It was not carried out, and never will be.
    NotApplied,
    /// It may have been carried out, or still be.
    Unknown,
}

impl Effect {
    /// The effect of a request made of two parts: unknown as soon as one part is.
    #[must_use]
    pub fn and(self, other: Effect) -> Effect {
        match (self, other) {
            (Effect::NotApplied, Effect::NotApplied) => Effect::NotApplied,
            _ => Effect::Unknown,
        }
    }
}

/// What can be wrong with a name, an address or a layout.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum CoreError {
    /// A hash function of this name does not exist.
    #[error("there is no hash '{name}'; use one of {known}", known = crate::hash::known_names())]
    UnknownHash {
        /// The name as given.
        name: String,
    },
    /// A hash tag is not two printable characters.
    #[error(
        "'{text}' is not a hash tag; write the opening and the closing character, as in \"{{}}\""
    )]
    BadHashTag {
        /// The text as given.
        text: String,
    },
    /// A placement key that no rule has.
    #[error(
        "there is no placement key '{text}'; use one of {known}, and a prefix of at most {most} \
         printable ASCII characters without '\"' and '\\'",
        known = crate::placement_key::PlacementKey::NAMES.join(", "),
        most = crate::placement_key::MAX_PREFIX_BYTES
    )]
    BadPlacementKey {
        /// The text as given.
        text: String,
    },
    /// An address could not be read.
    #[error("'{text}' is not an address: {problem}; write host:port, [ipv6]:port or unix:/path")]
    BadAddress {
        /// The text as given.
        text: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A store name cannot be written into a layout or a file name.
    #[error(
        "'{name}' cannot name a store: use 1 to {max} letters, digits, '-', '_' or '.', and begin \
         with a letter, a digit or '_'",
        max = crate::layout::MAX_NAME_BYTES
    )]
    BadName {
        /// The name as given.
        name: String,
    },
    /// A composite without shards.
    #[error("the composite '{composite}' has no shards; list at least one store in `stores`")]
    NoShards {
        /// The composite.
        composite: String,
    },
    /// A composite with more shards than a layout can hold.
    #[error(
        "the composite '{composite}' lists {count} shards; a composite holds at most {max}: group \
         them into composites of composites",
        max = crate::slots::MAX_SHARDS
    )]
    TooManyShards {
        /// The composite.
        composite: String,
        /// How many it lists.
        count: usize,
    },
    /// A shard name that occurs twice in one composite.
    #[error("the composite '{composite}' already has a shard '{shard}'; shard names are unique")]
    DuplicateShard {
        /// The composite.
        composite: String,
        /// The name that occurs twice.
        shard: String,
    },
    /// A shard name that the layout does not hold.
    #[error("the layout of '{composite}' has no shard '{shard}'; it has {known}")]
    UnknownShard {
        /// The composite.
        composite: String,
        /// The name that was asked for.
        shard: String,
        /// The names it has, for the message.
        known: String,
    },
    /// A move names a slot or a shard outside of the layout.
    #[error(
        "slot {slot} cannot move to shard number {shard}: the layout of '{composite}' has slots 0 \
         to {last_slot} and shards 0 to {last_shard}"
    )]
    MoveOutside {
        /// The composite.
        composite: String,
        /// The slot to be moved.
        slot: u32,
        /// The shard it should move to.
        shard: u16,
        /// The last slot there is.
        last_slot: u32,
        /// The last shard there is.
        last_shard: u16,
    },
    /// A layout document of a format this release does not know.
    #[error(
        "the layout document has format {found}, and this release reads format {known}; use the \
         release of Breccia that wrote it, or a later one"
    )]
    UnknownFormat {
        /// The format it states.
        found: u64,
        /// The format known here.
        known: u64,
    },
    /// A layout document that cannot be read.
    #[error(
        "line {line} of the layout document: {problem}; restore the document from a copy, from \
         another gateway (`breccia layout export`) or from a backup of the state folder"
    )]
    BadDocument {
        /// The line, counted from one; one past the end when something is missing.
        line: usize,
        /// What is wrong there.
        problem: String,
    },
    /// A layout document whose fields do not give the digest it states.
    #[error(
        "the layout document of '{composite}' states digest {stated}, but its fields give \
         {computed}: it was edited or damaged; restore it from a copy, from another gateway \
         (`breccia layout export`) or from a backup of the state folder"
    )]
    DigestMismatch {
        /// The composite the document names.
        composite: String,
        /// The digest written in the document.
        stated: String,
        /// The digest of what it holds.
        computed: String,
    },
    /// What a shard carries as its marker is none.
    #[error("what the shard carries as its marker is none: {problem}")]
    Marker {
        /// What is wrong with it.
        problem: String,
    },
}

impl CoreError {
    /// What kind of trouble this is: all of it is refused input.
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::Refused
    }

    /// Where it came from: what somebody wrote.
    pub fn origin(&self) -> Origin {
        Origin::Downstream
    }

    /// Pure decisions have no effect.
    pub fn effect(&self) -> Effect {
        Effect::NotApplied
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_unknown_part_makes_the_whole_unknown() {
        let check = |a: Effect, b: Effect, whole: Effect| assert_eq!(a.and(b), whole);
        check(Effect::NotApplied, Effect::NotApplied, Effect::NotApplied);
        check(Effect::NotApplied, Effect::Unknown, Effect::Unknown);
        check(Effect::Unknown, Effect::NotApplied, Effect::Unknown);
        check(Effect::Unknown, Effect::Unknown, Effect::Unknown);
    }
}
