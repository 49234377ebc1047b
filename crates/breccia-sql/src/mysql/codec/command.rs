//! The first byte of each command. Source: the protocol's "Command Phase".

/// Ends the connection.
pub const QUIT: u8 = 0x01;
/// Enters a schema.
pub const INIT_DB: u8 = 0x02;
/// A text.
pub const QUERY: u8 = 0x03;
/// The columns of a table.
pub const FIELD_LIST: u8 = 0x04;
/// Flushes and resets.
pub const REFRESH: u8 = 0x07;
/// Stops the server.
pub const SHUTDOWN: u8 = 0x08;
/// A line of figures.
pub const STATISTICS: u8 = 0x09;
/// The server's threads.
pub const PROCESS_INFO: u8 = 0x0a;
/// Ends a thread.
pub const PROCESS_KILL: u8 = 0x0c;
/// Writes to the server's log.
pub const DEBUG: u8 = 0x0d;
/// Is it there?
pub const PING: u8 = 0x0e;
/// Another user logs in.
pub const CHANGE_USER: u8 = 0x11;
/// The binary log follows.
pub const BINLOG_DUMP: u8 = 0x12;
/// A replica makes itself known.
pub const REGISTER_REPLICA: u8 = 0x15;
/// Prepares a statement.
pub const STMT_PREPARE: u8 = 0x16;
/// Runs a prepared statement.
pub const STMT_EXECUTE: u8 = 0x17;
/// Sends a parameter ahead.
pub const STMT_SEND_LONG_DATA: u8 = 0x18;
/// Forgets a prepared statement.
pub const STMT_CLOSE: u8 = 0x19;
/// Forgets what was sent ahead, and the cursor.
pub const STMT_RESET: u8 = 0x1a;
/// Several statements in one text, or not.
pub const SET_OPTION: u8 = 0x1b;
/// More rows of a cursor.
pub const STMT_FETCH: u8 = 0x1c;
/// The binary log follows, by identifiers of transactions.
pub const BINLOG_DUMP_GTID: u8 = 0x1e;
/// The session as it began.
pub const RESET_CONNECTION: u8 = 0x1f;
