//! Writing frames.
//!
//! Not deciding which. Invariant: what is written is whole, its length right.

use super::HEAD_BYTES;

/// `ReadyForQuery`'s status: idle, in a transaction, in a failed transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// No transaction is open.
    Idle,
    /// A transaction is open.
    Open,
    /// A transaction is open and has failed.
    Failed,
}

impl Status {
    /// Reads the one byte of a `ReadyForQuery`.
    #[must_use]
    pub fn of(byte: u8) -> Option<Self> {
        match byte {
            b'I' => Some(Self::Idle),
            b'T' => Some(Self::Open),
            b'E' => Some(Self::Failed),
            _ => None,
        }
    }

    fn byte(self) -> u8 {
        match self {
            Self::Idle => b'I',
            Self::Open => b'T',
            Self::Failed => b'E',
        }
    }
}

/// Writes the length of what lies between `from` and the end into the four bytes at `at`.
pub(super) fn set_length(out: &mut [u8], at: usize, from: usize) {
    let length = u32::try_from(out.len() - from).unwrap_or(u32::MAX);
    if let Some(place) = out.get_mut(at..at + 4) {
        place.copy_from_slice(&length.to_be_bytes());
    }
}

/// Writes a frame whose body `fill` writes.
pub fn frame(out: &mut Vec<u8>, tag: u8, fill: impl FnOnce(&mut Vec<u8>)) {
    let at = out.len();
    out.extend_from_slice(&[tag, 0, 0, 0, 0]);
    fill(out);
    set_length(out, at + 1, at + 1);
}

/// Writes the head of a frame whose body of `length` bytes follows by other means.
pub fn write_head(out: &mut Vec<u8>, tag: u8, length: usize) {
    out.push(tag);
    let length = u32::try_from(length + HEAD_BYTES - 1).unwrap_or(u32::MAX);
    out.extend_from_slice(&length.to_be_bytes());
}

/// Writes a string and the zero byte that ends it.
pub fn write_text(out: &mut Vec<u8>, text: &[u8]) {
    out.extend_from_slice(text);
    out.push(0);
}

/// `AuthenticationOk` (0), or another request without a body of its own.
pub fn authentication(out: &mut Vec<u8>, code: u32, body: &[u8]) {
    frame(out, b'R', |out| {
        out.extend_from_slice(&code.to_be_bytes());
        out.extend_from_slice(body);
    });
}

/// `AuthenticationSASL` with its mechanisms.
pub fn authentication_sasl(out: &mut Vec<u8>, mechanisms: &[&str]) {
    frame(out, b'R', |out| {
        out.extend_from_slice(&10u32.to_be_bytes());
        for mechanism in mechanisms {
            write_text(out, mechanism.as_bytes());
        }
        out.push(0);
    });
}

/// `ParameterStatus`.
pub fn parameter_status(out: &mut Vec<u8>, name: &str, value: &str) {
    frame(out, b'S', |out| {
        write_text(out, name.as_bytes());
        write_text(out, value.as_bytes());
    });
}

/// `BackendKeyData`.
pub fn backend_key(out: &mut Vec<u8>, process: u32, secret: u32) {
    frame(out, b'K', |out| {
        out.extend_from_slice(&process.to_be_bytes());
        out.extend_from_slice(&secret.to_be_bytes());
    });
}

/// `ReadyForQuery`.
pub fn ready(out: &mut Vec<u8>, status: Status) {
    frame(out, b'Z', |out| out.push(status.byte()));
}

/// `CommandComplete`.
pub fn complete(out: &mut Vec<u8>, tag: &str) {
    frame(out, b'C', |out| write_text(out, tag.as_bytes()));
}

/// `NegotiateProtocolVersion`: 3.0, in full as servers send it, and the options that are not known.
pub fn negotiate(out: &mut Vec<u8>, unknown: &[&str]) {
    frame(out, b'v', |out| {
        out.extend_from_slice(&0x0003_0000_u32.to_be_bytes());
        let count = u32::try_from(unknown.len()).unwrap_or(u32::MAX);
        out.extend_from_slice(&count.to_be_bytes());
        for name in unknown {
            write_text(out, name.as_bytes());
        }
    });
}

/// What a server says to whatever comes in a transaction that has failed: SQLSTATE and words.
pub const ABORTED: (&str, &str) = (
    "25P02",
    "current transaction is aborted, commands ignored until end of transaction block",
);

/// How bad an error is for the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// The connection ends.
    Fatal,
    /// The statement failed.
    Error,
}

/// `ErrorResponse`.
pub fn error(out: &mut Vec<u8>, severity: Severity, sqlstate: &str, text: &str, hint: &str) {
    let severity = match severity {
        Severity::Fatal => "FATAL",
        Severity::Error => "ERROR",
    };
    frame(out, b'E', |out| {
        for (kind, value) in [
            (b'S', severity),
            (b'V', severity),
            (b'C', sqlstate),
            (b'M', text),
            (b'H', hint),
        ] {
            if !value.is_empty() {
                out.push(kind);
                write_text(out, value.as_bytes());
            }
        }
        out.push(0);
    });
}

/// A `RowDescription` of columns of type text, each with the format of its values.
pub fn text_columns(out: &mut Vec<u8>, columns: &[(&str, u16)]) {
    frame(out, b'T', |out| {
        write_count(out, columns.len());
        for (name, format) in columns {
            write_text(out, name.as_bytes());
            // No table, no column; type text (25), any length, no modifier.
            out.extend_from_slice(&[0; 6]);
            out.extend_from_slice(&25u32.to_be_bytes());
            out.extend_from_slice(&(-1i16).to_be_bytes());
            out.extend_from_slice(&(-1i32).to_be_bytes());
            out.extend_from_slice(&format.to_be_bytes());
        }
    });
}

/// A `DataRow` of text, or NULL.
pub fn row(out: &mut Vec<u8>, values: &[Option<String>]) {
    frame(out, b'D', |out| {
        write_count(out, values.len());
        for value in values {
            let length = value.as_ref().map(String::len);
            let length = length.map_or(-1, |length| i32::try_from(length).unwrap_or(i32::MAX));
            out.extend_from_slice(&length.to_be_bytes());
            out.extend_from_slice(value.as_deref().unwrap_or_default().as_bytes());
        }
    });
}

fn write_count(out: &mut Vec<u8>, count: usize) {
    let count = u16::try_from(count).unwrap_or(u16::MAX);
    out.extend_from_slice(&count.to_be_bytes());
}

/// `Query`.
pub fn query(out: &mut Vec<u8>, sql: &str) {
    frame(out, b'Q', |out| write_text(out, sql.as_bytes()));
}

/// `Parse`; `types` is a count and that many numbers, as it stands in the frame.
pub fn parse(out: &mut Vec<u8>, name: &[u8], sql: &[u8], types: &[u8]) {
    frame(out, b'P', |out| {
        write_text(out, name);
        write_text(out, sql);
        out.extend_from_slice(types);
    });
}

/// `Describe` (`D`) or `Close` (`C`) of a statement (`S`) or portal (`P`).
pub fn named(out: &mut Vec<u8>, tag: u8, kind: u8, name: &[u8]) {
    frame(out, tag, |out| {
        out.push(kind);
        write_text(out, name);
    });
}

/// A frame without a body, such as `Sync` or `ParseComplete`.
pub fn empty(out: &mut Vec<u8>, tag: u8) {
    out.extend_from_slice(&[tag, 0, 0, 0, 4]);
}
