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
/// `schema.table.column` is refused.
pub const NO_SCHEMA: u64 = 1 << 4;
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
/// A client can do what a password that has expired needs.
pub const CAN_HANDLE_EXPIRED_PASSWORDS: u64 = 1 << 22;
/// Changes of the session are told in OK.
pub const SESSION_TRACK: u64 = 1 << 23;
/// Rows end with OK.
pub const DEPRECATE_EOF: u64 = 1 << 24;
/// Descriptions of columns may be left away.
pub const OPTIONAL_RESULTSET_METADATA: u64 = 1 << 25;
/// The protocol may be compressed by zstd.
pub const ZSTD_COMPRESSION: u64 = 1 << 26;
/// Texts may carry attributes and parameters.
pub const QUERY_ATTRIBUTES: u64 = 1 << 27;
/// More than one proof may be asked for.
pub const MULTI_FACTOR: u64 = 1 << 28;
/// MariaDB: reports of progress.
pub const MARIADB_PROGRESS: u64 = 1 << 32;
/// MariaDB: several executions in one packet.
pub const MARIADB_STMT_BULK_OPERATIONS: u64 = 1 << 34;
/// MariaDB: more of the types of columns.
pub const MARIADB_EXTENDED_TYPE_INFO: u64 = 1 << 35;
/// MariaDB: descriptions of columns may be left away where they are known.
pub const MARIADB_CACHE_METADATA: u64 = 1 << 36;
