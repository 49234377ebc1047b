//! A server's status flags. Source: the protocol's `SERVER_STATUS_flags_enum`.

/// A transaction is open.
pub const IN_TRANS: u16 = 0x0001;
/// Autocommit is on.
pub const AUTOCOMMIT: u16 = 0x0002;
/// Another result follows.
pub const MORE_RESULTS_EXISTS: u16 = 0x0008;
/// A cursor is open.
pub const CURSOR_EXISTS: u16 = 0x0040;
/// The cursor has no more rows.
pub const LAST_ROW_SENT: u16 = 0x0080;
/// No backslash escapes anything in a text: clients quote by it.
pub const NO_BACKSLASH_ESCAPES: u16 = 0x0200;
/// The transaction that is open is READ ONLY.
pub const IN_TRANS_READONLY: u16 = 0x2000;
/// Changes of the session stand in the packet.
pub const SESSION_STATE_CHANGED: u16 = 0x4000;
/// Double quotes hold names. MariaDB's alone.
pub const ANSI_QUOTES: u16 = 0x8000;
