//! What a client and a server agree on when they meet.
//!
//! Source: the protocol's "Capabilities Flags"; MariaDB's own are the upper 32 bits.

/// MySQL's old password hashing; a MariaDB server leaves it away to say that it has flags of its own.
pub const LONG_PASSWORD: u64 = 1;
/// Affected rows are those found, and not those changed.
pub const FOUND_ROWS: u64 = 1 << 1;
/// More column flags.
pub const LONG_FLAG: u64 = 1 << 2;
/// A schema is named at login.
pub const CONNECT_WITH_DB: u64 = 1 << 3;
/// The protocol may be compressed.
pub const COMPRESS: u64 = 1 << 5;
/// LOAD DATA LOCAL may ask for files.
pub const LOCAL_FILES: u64 = 1 << 7;
/// Blanks before `(` are ignored.
pub const IGNORE_SPACE: u64 = 1 << 8;
/// Protocol 4.1.
pub const PROTOCOL_41: u64 = 1 << 9;
/// `interactive_timeout` counts.
pub const INTERACTIVE: u64 = 1 << 10;
/// TLS follows.
pub const SSL: u64 = 1 << 11;
/// Status flags are told.
pub const TRANSACTIONS: u64 = 1 << 13;
/// Passwords of 4.1.
pub const SECURE_CONNECTION: u64 = 1 << 15;
/// Several statements in one text.
pub const MULTI_STATEMENTS: u64 = 1 << 16;
/// Several results of one text.
pub const MULTI_RESULTS: u64 = 1 << 17;
/// Several results of a prepared statement.
pub const PS_MULTI_RESULTS: u64 = 1 << 18;
/// Ways of authentication have names.
pub const PLUGIN_AUTH: u64 = 1 << 19;
/// Attributes of the connection.
pub const CONNECT_ATTRS: u64 = 1 << 20;
/// What proves the user may be longer than 255 bytes.
pub const PLUGIN_AUTH_LENENC: u64 = 1 << 21;
/// Changes of the session are told in OK.
pub const SESSION_TRACK: u64 = 1 << 23;
/// Rows end with OK.
pub const DEPRECATE_EOF: u64 = 1 << 24;
