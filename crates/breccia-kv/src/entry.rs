//! What a store holds under a key, the operations on one key, and what each of them answers.
//!
//! Plain values: no store, no wire format, no clock. Invariant: the list of operations is closed,
//! and each one has a single meaning (given by `edit.rs`) that a member performs exactly or
//! refuses with [`KvError::Unsupported`](crate::error::KvError).

use std::borrow::Cow;

use bytes::Bytes;

/// What a store holds under a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The value's bytes.
    pub data: Bytes,
    /// A number the client keeps beside the value (memcached's flags; 0 elsewhere).
    pub flags: u32,
    /// A token that changes on every write; 0 where the store keeps none.
    pub cas: u64,
    /// When the entry ends, in milliseconds since the Unix epoch; `None`: never.
    pub expires_at_ms: Option<u64>,
}

/// What a read returns: an [`Entry`] without its expiry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Value {
    /// The value's bytes.
    pub data: Bytes,
    /// A number the client keeps beside the value (memcached's flags; 0 elsewhere).
    pub flags: u32,
    /// A token that changes on every write; 0 where the store keeps none.
    pub cas: u64,
}

/// When a written entry shall end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expiry {
    /// As the entry had it before; never, if there was none.
    Keep,
    /// Never.
    Never,
    /// At this time, in milliseconds since the Unix epoch. A time that has passed ends it at once.
    At(u64),
    /// This many milliseconds from now, by the clock of the store that performs the write.
    After(u64),
}

/// What must hold for a write to happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition<'a> {
    /// Nothing.
    Always,
    /// The key has no entry.
    IfAbsent,
    /// The key has an entry.
    IfPresent,
    /// The key's entry has this CAS token.
    IfCas(u64),
    /// The key's entry has exactly these bytes as its value.
    IfEquals(&'a [u8]),
}

/// What must hold for a change of expiry to happen (Redis's NX, XX, GT, LT). An entry that never
/// expires counts as one with an infinitely late expiry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExpiryCondition {
    /// Nothing.
    Always,
    /// The entry has no expiry.
    IfNone,
    /// The entry has an expiry.
    IfSome,
    /// The new expiry is later than the present one.
    IfLater,
    /// The new expiry is earlier than the present one.
    IfSooner,
    /// The entry has an expiry, and the new one is earlier.
    IfSomeAndSooner,
}

/// How precisely a time is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeUnit {
    /// Whole seconds are enough.
    Seconds,
    /// Milliseconds are wanted; a store that counts in seconds refuses.
    Milliseconds,
}

/// A counter that is made when it is missing (memcached's auto-vivification).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewCounter {
    /// The first value; the delta is not added to it.
    pub value: u64,
    /// Its expiry.
    pub expiry: Expiry,
}

/// One operation on one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Operation<'a> {
    /// Reads the value. Answers [`Outcome::Value`].
    Get,
    /// Reads the value and changes its expiry ([`Expiry::Never`] takes it away). Answers
    /// [`Outcome::Value`].
    GetAndExpire {
        /// The new expiry.
        expiry: Expiry,
    },
    /// Reads part of the value; negative positions count from the end, both ends are included, and
    /// a missing key reads as empty. Answers [`Outcome::Data`].
    GetRange {
        /// First position.
        start: i64,
        /// Last position.
        end: i64,
    },
    /// The length of the value, 0 if there is none. Answers [`Outcome::Length`].
    Length,
    /// Whether the key has an entry. Answers [`Outcome::Flag`].
    Exists,
    /// As [`Operation::Exists`], and marks the entry as used. Answers [`Outcome::Flag`].
    Touch,
    /// The name of the value's data type. Answers [`Outcome::Type`].
    Type,
    /// The time left. Answers [`Outcome::Lifetime`], in milliseconds whatever the unit.
    TimeToLive {
        /// The precision that is needed.
        unit: TimeUnit,
    },
    /// The time of expiry. Answers [`Outcome::Lifetime`], in Unix milliseconds whatever the unit.
    ExpiresAt {
        /// The precision that is needed.
        unit: TimeUnit,
    },
    /// Writes the value. Answers [`Outcome::Stored`] or [`Outcome::NotStored`].
    Set {
        /// The new value.
        data: &'a [u8],
        /// The number to keep beside it.
        flags: u32,
        /// What must hold.
        condition: Condition<'a>,
        /// When the entry ends.
        expiry: Expiry,
        /// Whether the answer carries the value found.
        want_old: bool,
    },
    /// Removes the entry. Answers [`Outcome::Deleted`] or [`Outcome::NotDeleted`].
    Delete {
        /// What must hold.
        condition: Condition<'a>,
        /// Whether the answer carries the value removed.
        want_old: bool,
    },
    /// Adds bytes after the value, which is made if missing and `condition` allows it. Expiry and
    /// flags stay. Answers [`Outcome::Length`] or [`Outcome::NotStored`].
    Append {
        /// The bytes to add.
        data: &'a [u8],
        /// What must hold.
        condition: Condition<'a>,
    },
    /// As [`Operation::Append`], before the value.
    Prepend {
        /// The bytes to add.
        data: &'a [u8],
        /// What must hold.
        condition: Condition<'a>,
    },
    /// Overwrites part of the value, filling a gap with zero bytes. Answers [`Outcome::Length`].
    SetRange {
        /// Where the new bytes begin.
        offset: u64,
        /// The new bytes; if empty, nothing is written.
        data: &'a [u8],
    },
    /// Adds to a signed decimal number, which is made from 0 if missing. Expiry and flags stay.
    /// Answers [`Outcome::Integer`] or [`Outcome::Refused`].
    Increment {
        /// What to add.
        delta: i64,
    },
    /// Adds to a decimal number with the arithmetic of an 80-bit float, as Redis does. Answers
    /// [`Outcome::Data`] (the new number's text) or [`Outcome::Refused`].
    IncrementFloat {
        /// What to add, as decimal text: a float type would round it.
        delta: &'a [u8],
    },
    /// Adds to an unsigned decimal number with wrap-around, or subtracts with floor at zero, as
    /// memcached does. Answers [`Outcome::Counter`], [`Outcome::NotStored`] if it is missing and
    /// not to be made, or [`Outcome::Refused`].
    Count {
        /// What to add or subtract.
        delta: u64,
        /// Whether to subtract.
        down: bool,
        /// What to make if the key has no entry.
        create: Option<NewCounter>,
    },
    /// Changes the expiry. Answers [`Outcome::Flag`]: whether it was changed.
    Expire {
        /// The new expiry; [`Expiry::Keep`] changes nothing.
        expiry: Expiry,
        /// What must hold.
        condition: ExpiryCondition,
    },
    /// Takes the expiry away. Answers [`Outcome::Flag`]: whether there was one.
    Persist,
}

impl Operation<'_> {
    /// An unconditional write without flags and expiry.
    #[must_use]
    pub fn set(data: &[u8]) -> Operation<'_> {
        Operation::Set {
            data,
            flags: 0,
            condition: Condition::Always,
            expiry: Expiry::Never,
            want_old: false,
        }
    }

    /// An unconditional removal.
    #[must_use]
    pub fn delete() -> Self {
        Operation::Delete {
            condition: Condition::Always,
            want_old: false,
        }
    }

    /// Whether the operation may change the entry.
    #[must_use]
    pub fn writes(&self) -> bool {
        !matches!(
            self,
            Operation::Get
                | Operation::GetRange { .. }
                | Operation::Length
                | Operation::Exists
                | Operation::Touch
                | Operation::Type
                | Operation::TimeToLive { .. }
                | Operation::ExpiresAt { .. }
        )
    }

    /// The operation's name, for messages.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Operation::Get => "get",
            Operation::GetAndExpire { .. } => "get-and-expire",
            Operation::GetRange { .. } => "get-range",
            Operation::Length => "length",
            Operation::Exists => "exists",
            Operation::Touch => "touch",
            Operation::Type => "type",
            Operation::TimeToLive { .. } => "time-to-live",
            Operation::ExpiresAt { .. } => "expires-at",
            Operation::Set { .. } => "set",
            Operation::Delete { .. } => "delete",
            Operation::Append { .. } => "append",
            Operation::Prepend { .. } => "prepend",
            Operation::SetRange { .. } => "set-range",
            Operation::Increment { .. } => "increment",
            Operation::IncrementFloat { .. } => "increment-float",
            Operation::Count { .. } => "count",
            Operation::Expire { .. } => "expire",
            Operation::Persist => "persist",
        }
    }
}

/// How long an entry lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifetime {
    /// There is no entry.
    Missing,
    /// The entry never expires.
    Forever,
    /// The milliseconds that [`Operation::TimeToLive`] or [`Operation::ExpiresAt`] asked for.
    Ms(u64),
}

/// What an operation answered.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// The value, if the key has an entry.
    Value(Option<Value>),
    /// Some bytes.
    Data(Bytes),
    /// The value was written.
    Stored {
        /// Its CAS token; 0 where the store keeps none.
        cas: u64,
        /// The value found, if it was asked for.
        old: Option<Bytes>,
    },
    /// The condition did not hold; nothing was written.
    NotStored {
        /// Whether the key has an entry.
        found: bool,
        /// The value found, if it was asked for.
        old: Option<Bytes>,
    },
    /// The entry was removed.
    Deleted {
        /// The value removed, if it was asked for.
        old: Option<Bytes>,
    },
    /// Nothing was removed.
    NotDeleted {
        /// Whether the key has an entry: the condition did not hold.
        found: bool,
    },
    /// A length in bytes.
    Length(u64),
    /// A signed number.
    Integer(i64),
    /// An unsigned number.
    Counter(u64),
    /// Yes or no.
    Flag(bool),
    /// A time left, or a time of expiry.
    Lifetime(Lifetime),
    /// The name of a data type, if the key has an entry.
    Type(Option<Cow<'static, str>>),
    /// The operation does not fit the value found; nothing was changed by it.
    Refused(Refusal),
}

/// Why an operation does not fit the value it found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// The value is not a signed 64-bit decimal number.
    NotInteger,
    /// The sum does not fit into 64 bits.
    Overflow,
    /// The value or the delta is not a decimal number.
    NotFloat,
    /// The sum is not a number, or infinite.
    NotFinite,
    /// The value is not an unsigned 64-bit decimal number.
    NotCounter,
    /// The value would become longer than a value may be.
    TooLong,
    /// The value is not a string.
    WrongType,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Refusal::NotInteger => "the value is not an integer or out of range",
            Refusal::Overflow => "the increment would overflow",
            Refusal::NotFloat => "the value is not a valid float",
            Refusal::NotFinite => "the increment would produce NaN or infinity",
            Refusal::NotCounter => "the value is not an unsigned number",
            Refusal::TooLong => "the value would become longer than a value may be",
            Refusal::WrongType => "the key holds a value of another data type",
        })
    }
}
