//! Requests: what a client's bytes ask for, borrowed from the read buffer. It answers no request.
//!
//! Invariant: a request that exists is well formed; `parse.rs` makes no other.

use super::line::Words;
use super::meta::{MetaFlags, MetaKey, MetaVerb};

/// Which retrieval.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetrievalVerb {
    /// `get` (and the ancient `bget`)
    Get,
    /// `gets`: with the CAS token
    Gets,
    /// `gat`: and touch
    Gat,
    /// `gats`: both
    Gats,
}

impl RetrievalVerb {
    /// The command's name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::Gets => "gets",
            Self::Gat => "gat",
            Self::Gats => "gats",
        }
    }

    /// Whether values come with their CAS token.
    pub fn with_cas(self) -> bool {
        matches!(self, Self::Gets | Self::Gats)
    }

    /// Whether the items' expiry is set, too.
    pub fn touches(self) -> bool {
        matches!(self, Self::Gat | Self::Gats)
    }
}

/// Which storage command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreVerb {
    /// `set`
    Set,
    /// `add`
    Add,
    /// `replace`
    Replace,
    /// `append`
    Append,
    /// `prepend`
    Prepend,
    /// `cas`
    Cas,
}

impl StoreVerb {
    /// The command's name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::Set => "set",
            Self::Add => "add",
            Self::Replace => "replace",
            Self::Append => "append",
            Self::Prepend => "prepend",
            Self::Cas => "cas",
        }
    }
}

/// Which way to count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArithmeticVerb {
    /// `incr`
    Increment,
    /// `decr`
    Decrement,
}

impl ArithmeticVerb {
    /// The command's name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::Increment => "incr",
            Self::Decrement => "decr",
        }
    }
}

/// The keys of a retrieval, in order. All are at most 250 bytes long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keys<'a> {
    pub(super) text: &'a [u8],
    pub(super) count: usize,
}

impl<'a> Keys<'a> {
    /// How many keys there are. `gat 10` has none.
    pub fn count(&self) -> usize {
        self.count
    }

    /// The keys, in the client's order.
    pub fn iter(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        Words::new(self.text)
    }
}

/// A meta command other than `mn`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetaCommand<'a> {
    /// Which.
    pub verb: MetaVerb,
    /// On which key.
    pub key: MetaKey<'a>,
    /// How.
    pub flags: MetaFlags<'a>,
}

/// What a request asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command<'a> {
    /// `get`, `gets`, `gat`, `gats`
    #[expect(missing_docs, reason = "the fields are the protocol's own words")]
    Retrieve {
        verb: RetrievalVerb,
        exptime: i32,
        keys: Keys<'a>,
    },
    /// `set`, `add`, `replace`, `append`, `prepend`, `cas`
    #[expect(missing_docs, reason = "the fields are the protocol's own words")]
    Store {
        verb: StoreVerb,
        key: &'a [u8],
        flags: u32,
        exptime: i32,
        cas: u64,
    },
    /// `incr`, `decr`
    #[expect(missing_docs, reason = "the fields are the protocol's own words")]
    Arithmetic {
        verb: ArithmeticVerb,
        key: &'a [u8],
        delta: u64,
    },
    /// `delete`
    #[expect(missing_docs, reason = "the fields are the protocol's own words")]
    Delete { key: &'a [u8] },
    /// `touch`
    #[expect(missing_docs, reason = "the fields are the protocol's own words")]
    Touch { key: &'a [u8], exptime: i32 },
    /// `flush_all`; a delay of 0 or less means now
    #[expect(missing_docs, reason = "the fields are the protocol's own words")]
    FlushAll { delay: i32 },
    /// `mg`, `ms`, `md`, `ma`, `me`
    Meta(MetaCommand<'a>),
    /// `mn`
    MetaNoop,
    /// `version`
    Version,
    /// `verbosity`
    Verbosity,
    /// `stats`, with what stood behind it
    #[expect(missing_docs, reason = "the fields are the protocol's own words")]
    Stats { arguments: &'a [u8] },
    /// `quit`
    Quit,
    /// `shutdown`
    Shutdown,
    /// A command about one server's insides (`slabs`, `lru`, `watch`, …)
    #[expect(missing_docs, reason = "the fields are the protocol's own words")]
    ServerOnly { name: &'a [u8] },
}

/// One request, borrowed from the read buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request<'a> {
    /// What it asks for.
    pub command: Command<'a>,
    /// The data block of a storage command, without its line end.
    pub data: &'a [u8],
    /// `noreply`: no answer at all is wanted. (A meta command's `q` is in its flags.)
    pub noreply: bool,
    /// Whether its bytes may be forwarded as they are.
    pub plain: bool,
    /// The command line's length, end included.
    pub line_length: usize,
    /// The whole request's length.
    pub frame_length: usize,
}
