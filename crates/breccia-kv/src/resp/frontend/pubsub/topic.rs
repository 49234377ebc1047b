//! What one can subscribe to: channels, patterns, and channels of one shard.
//!
//! Not who is subscribed. Invariant: two topics are the same exactly when Redis would count them as
//! one.

/// What kind of name a topic is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// A channel's name.
    Channel,
    /// A pattern over names of channels.
    Pattern,
    /// The name of a channel that lives on the one shard it hashes to.
    Shard,
}

impl Kind {
    /// The word Redis uses.
    pub(crate) fn verb(self, joins: bool) -> &'static str {
        match (self, joins) {
            (Self::Channel, true) => "subscribe",
            (Self::Channel, false) => "unsubscribe",
            (Self::Pattern, true) => "psubscribe",
            (Self::Pattern, false) => "punsubscribe",
            (Self::Shard, true) => "ssubscribe",
            (Self::Shard, false) => "sunsubscribe",
        }
    }

    /// The kind whose subscriptions a server confirms with this word.
    pub(crate) fn confirmed_by(word: &[u8]) -> Option<Self> {
        let all = [Self::Channel, Self::Pattern, Self::Shard];
        all.into_iter()
            .find(|kind| kind.verb(true).as_bytes() == word)
    }

    /// The kind whose end a server confirms with this word.
    pub(crate) fn ended_by(word: &[u8]) -> Option<Self> {
        let all = [Self::Channel, Self::Pattern, Self::Shard];
        all.into_iter()
            .find(|kind| kind.verb(false).as_bytes() == word)
    }

    /// The kind whose messages begin with this word.
    pub(crate) fn heard_by(word: &[u8]) -> Option<Self> {
        match word {
            b"message" => Some(Self::Channel),
            b"pmessage" => Some(Self::Pattern),
            b"smessage" => Some(Self::Shard),
            _ => None,
        }
    }
}

/// Something one can subscribe to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Topic {
    pub kind: Kind,
    pub name: Vec<u8>,
}

impl Topic {
    pub(crate) fn new(kind: Kind, name: &[u8]) -> Self {
        Self {
            kind,
            name: name.to_vec(),
        }
    }
}
