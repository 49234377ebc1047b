//! What is known of each Redis command: arity, flags, where its keys stand, how a proxy may treat it.
//!
//! `table.rs` is generated from a real server's COMMAND reply by `cargo xtask commands`; this file
//! holds its types, [`find`] looks a name up and [`keys`] finds the keys of one request. This is not
//! a parser of commands: it knows nothing of what arguments mean beyond where keys stand.
//!
//! Invariant: every fact here comes from the server's own reply, or is a hand-written fix-up in
//! `keys.rs` that a test holds against the server's COMMAND GETKEYS.

mod flags;
mod keys;
mod lookup;
#[rustfmt::skip]
mod table;

#[cfg(test)]
mod tests;

pub use flags::{Flags, KeyFlags};
pub use keys::{Arguments, KeyError, keys, pattern_option};
pub use lookup::{find, find_row};
pub use table::{COMMANDS, REDIS_VERSION};

/// One command or subcommand, as the server describes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CommandSpec {
    /// Lower case; a subcommand's own part only (`get` of `config|get`).
    pub name: &'static str,
    /// Number of arguments with the name; negative: at least that many.
    pub arity: i32,
    /// What the command does and when it is allowed.
    pub flags: Flags,
    /// Position of the first key, 0 for none, as far as the three plain numbers can tell.
    pub first_key: i32,
    /// Position of the last key; negative counts from the end.
    pub last_key: i32,
    /// Distance between keys.
    pub step: i32,
    /// The exact key positions.
    pub keys: &'static [KeySpec],
    /// To which servers a proxy should send it.
    pub request_policy: RequestPolicy,
    /// How a proxy should merge the replies.
    pub response_policy: ResponsePolicy,
    /// Equal data may answer differently (TIME, RANDOMKEY).
    pub nondeterministic_output: bool,
    /// Equal data may answer in another order (SMEMBERS).
    pub nondeterministic_order: bool,
    /// Subcommands, sorted by name.
    pub subcommands: &'static [CommandSpec],
}

impl CommandSpec {
    /// Whether a request of `count` arguments, the name among them, has the right length.
    #[must_use]
    pub const fn accepts(&self, count: usize) -> bool {
        let wanted = self.arity.unsigned_abs() as usize;
        if self.arity < 0 {
            count >= wanted
        } else {
            count == wanted
        }
    }

    /// The subcommand of that name, in any case.
    #[must_use]
    pub fn subcommand(&self, name: &[u8]) -> Option<&'static CommandSpec> {
        self.subcommands
            .iter()
            .find(|spec| spec.name.as_bytes().eq_ignore_ascii_case(name))
    }

    /// Where the keys stand, told apart cheaply: nearly all requests have one key at a fixed place.
    #[must_use]
    pub const fn shape(&self) -> KeyShape {
        match self.keys {
            [] if self.subcommands.is_empty() => KeyShape::None,
            [
                KeySpec {
                    begin: Begin::Index(index),
                    find: Find::Range { last: 0, .. },
                    flags,
                },
            ] if self.subcommands.is_empty() && !flags.contains(KeyFlags::NOT_KEY) => {
                KeyShape::One(*index)
            }
            _ => KeyShape::Many,
        }
    }

    /// Whether the command changes data.
    #[must_use]
    pub const fn writes(&self) -> bool {
        self.flags.contains(Flags::WRITE)
    }
}

/// Where a command's keys stand, as far as can be told without its arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyShape {
    /// It never has keys.
    None,
    /// Exactly one key, always at this argument position.
    One(u16),
    /// Anything else: ask [`keys`].
    Many,
}

/// One group of keys among a command's arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeySpec {
    /// Where the group begins.
    pub begin: Begin,
    /// Which arguments from there on are keys.
    pub find: Find,
    /// What is done with these keys.
    pub flags: KeyFlags,
}

/// Where a group of keys begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begin {
    /// At this argument position.
    Index(u16),
    /// After this word, searched from a position; a negative one searches backwards from the end.
    Keyword {
        /// The word, in the server's case; compared in any case.
        text: &'static str,
        /// Where the search starts.
        start_from: i32,
    },
    /// The server cannot say: a fix-up in `keys.rs` knows.
    Unknown,
}

/// Which arguments, from a group's beginning on, are keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Find {
    /// A run of keys.
    Range {
        /// Last key, relative to the first; negative counts from the end of the request.
        last: i32,
        /// Distance between keys.
        step: u16,
        /// With `last` −1: the run takes only one `limit`-th of what is left; 0 and 1 mean all.
        limit: u16,
    },
    /// A run whose length is an argument.
    KeyNum {
        /// Where the number stands, relative to the beginning.
        key_num_index: u16,
        /// Where the first key stands, relative to the beginning.
        first_key: u16,
        /// Distance between keys.
        step: u16,
    },
    /// The server cannot say: a fix-up in `keys.rs` knows.
    Unknown,
}

/// To which servers a proxy should send a command (the server's `request_policy` tip).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestPolicy {
    /// No tip: by key, or to any server when there is none.
    None,
    /// To every endpoint, replicas too.
    AllEndpoints,
    /// To every primary.
    AllShards,
    /// Split by key, one part for each shard that owns some.
    MultiShard,
    /// Needs code of its own.
    Special,
}

/// How a proxy should merge several replies (the server's `response_policy` tip).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResponsePolicy {
    /// No tip: concatenated, or in key order.
    None,
    /// The first reply that is no error.
    OneSucceeded,
    /// An error if any reply is one.
    AllSucceeded,
    /// Logical AND of integers.
    And,
    /// Logical OR of integers.
    Or,
    /// The smallest number.
    Min,
    /// The greatest number.
    Max,
    /// The sum.
    Sum,
    /// Needs code of its own.
    Special,
}

/// The plainest command; the table's rows name only what differs from it.
const PLAIN: CommandSpec = CommandSpec {
    name: "",
    arity: 1,
    flags: Flags::NONE,
    first_key: 0,
    last_key: 0,
    step: 0,
    keys: &[],
    request_policy: RequestPolicy::None,
    response_policy: ResponsePolicy::None,
    nondeterministic_output: false,
    nondeterministic_order: false,
    subcommands: &[],
};

/// Shorthand for the generated table.
const fn key(begin: Begin, find: Find, flags: u16) -> KeySpec {
    KeySpec {
        begin,
        find,
        flags: KeyFlags::from_bits(flags),
    }
}

/// Shorthand for the generated table.
const fn range(last: i32, step: u16, limit: u16) -> Find {
    Find::Range { last, step, limit }
}

/// Shorthand for the generated table.
const fn key_num(key_num_index: u16, first_key: u16, step: u16) -> Find {
    Find::KeyNum {
        key_num_index,
        first_key,
        step,
    }
}

/// Shorthand for the generated table.
const fn keyword(text: &'static str, start_from: i32) -> Begin {
    Begin::Keyword { text, start_from }
}
