//! Bit sets of command and key flags, named as the server names them.
//!
//! Not a general bit-set library: a number, named constants and a test for membership.
//! Invariant: each constant is one bit, and the generated table uses no bit that has no name here.

macro_rules! bit_set {
    ($(#[$doc:meta])* $set:ident($number:ty), $table:ident: $($(#[$bit_doc:meta])* $name:ident = $bit:literal,)*) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
        pub struct $set($number);

        impl $set {
            /// The empty set.
            pub const NONE: $set = $set(0);
            $($(#[$bit_doc])* pub const $name: $set = $set(1 << $bit);)*

            /// The set of these bits.
            pub(super) const fn from_bits(bits: $number) -> $set {
                $set(bits)
            }

            /// Whether every bit of `other` is in this set.
            #[must_use]
            pub const fn contains(self, other: $set) -> bool {
                self.0 & other.0 == other.0
            }

            /// Whether any bit of `other` is in this set.
            #[must_use]
            pub const fn intersects(self, other: $set) -> bool {
                self.0 & other.0 != 0
            }

            /// Both sets together.
            #[must_use]
            pub const fn union(self, other: $set) -> $set {
                $set(self.0 | other.0)
            }
        }

        /// The same bits as plain numbers: the generated table combines them in constants.
        #[allow(dead_code, reason = "the server may name a flag that no command of this version has")]
        pub(super) mod $table {
            $(pub(in super::super) const $name: $number = 1 << $bit;)*
        }
    };
}

bit_set! {
    /// What a command does and when it is allowed.
    Flags(u32), flag_bits:
    /// May change data.
    WRITE = 0,
    /// Only reads.
    READONLY = 1,
    /// Refused when the server is out of memory.
    DENYOOM = 2,
    /// For administrators.
    ADMIN = 3,
    /// Publish and subscribe.
    PUBSUB = 4,
    /// Not from scripts.
    NOSCRIPT = 5,
    /// May block the client.
    BLOCKING = 6,
    /// Allowed while the server loads its data.
    LOADING = 7,
    /// Allowed on a stale replica.
    STALE = 8,
    /// Not shown by MONITOR.
    SKIP_MONITOR = 9,
    /// Not in the slow log.
    SKIP_SLOWLOG = 10,
    /// Implies ASKING.
    ASKING = 11,
    /// Constant or logarithmic time.
    FAST = 12,
    /// Needs no authentication.
    NO_AUTH = 13,
    /// Part of a module.
    MODULE = 14,
    /// May propagate writes.
    MAY_REPLICATE = 15,
    /// Its keys may be missing.
    NO_MANDATORY_KEYS = 16,
    /// Refused while data is loaded in the background.
    NO_ASYNC_LOADING = 17,
    /// Not within MULTI.
    NO_MULTI = 18,
    /// Key positions depend on the arguments.
    MOVABLEKEYS = 19,
    /// Allowed while a script runs too long.
    ALLOW_BUSY = 20,
}

bit_set! {
    /// What is done with a group of keys.
    KeyFlags(u16), key_bits:
    /// Read.
    RO = 0,
    /// Read and written.
    RW = 1,
    /// Overwritten unseen.
    OW = 2,
    /// Removed unseen.
    RM = 3,
    /// User data is returned, copied or tested.
    ACCESS = 4,
    /// User data is changed.
    UPDATE = 5,
    /// User data is added.
    INSERT = 6,
    /// User data is removed.
    DELETE = 7,
    /// Not a key, though placed like one (a shard channel).
    NOT_KEY = 8,
    /// Some keys are not covered.
    INCOMPLETE = 9,
    /// The flags depend on the arguments.
    VARIABLE_FLAGS = 10,
}

impl KeyFlags {
    /// Whether the command may change these keys.
    #[must_use]
    pub const fn writes(self) -> bool {
        self.intersects(KeyFlags::RW.union(KeyFlags::OW).union(KeyFlags::RM))
    }
}
