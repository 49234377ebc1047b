//! Errors in memcached's words: `CLIENT_ERROR` for what the client must change, `SERVER_ERROR` for
//! the rest, each followed by `breccia:` unless memcached has the very same error.
//!
//! Invariant: an error is one line, whatever the texts it is made of hold.

use std::fmt::Display;

use crate::error::KvError;

/// Appends a `SERVER_ERROR breccia: …` line.
pub fn push_server_error(text: impl Display, out: &mut Vec<u8>) {
    push_line("SERVER_ERROR breccia: ", &text, out);
}

/// Appends a `CLIENT_ERROR breccia: …` line.
pub fn push_client_error(text: impl Display, out: &mut Vec<u8>) {
    push_line("CLIENT_ERROR breccia: ", &text, out);
}

fn push_line(start: &str, text: &dyn Display, out: &mut Vec<u8>) {
    out.extend_from_slice(start.as_bytes());
    let before = out.len();
    out.extend_from_slice(text.to_string().as_bytes());
    for byte in out
        .iter_mut()
        .skip(before)
        .filter(|byte| byte.is_ascii_control())
    {
        *byte = b' ';
    }
    out.extend_from_slice(b"\r\n");
}

/// Appends the line for a failed request to a store.
pub fn push_error(error: &KvError, out: &mut Vec<u8>) {
    match error {
        KvError::Unsupported { .. } | KvError::KeyTooLong { .. } | KvError::WrongValue { .. } => {
            push_client_error(error, out);
        }
        // Clients know these two by memcached's words.
        KvError::ValueTooLarge { .. } => {
            push_line("SERVER_ERROR object too large for cache: ", error, out);
        }
        KvError::OutOfMemory { .. } => {
            out.extend_from_slice(b"SERVER_ERROR out of memory storing object\r\n");
        }
        _ => push_server_error(words(error), out),
    }
}

/// The error's words, with the code that the Redis front gives it, too.
#[must_use]
pub fn words(error: &KvError) -> String {
    match code(error) {
        Some(code) => format!("{code} {error}"),
        None => error.to_string(),
    }
}

fn code(error: &KvError) -> Option<&'static str> {
    match error {
        KvError::Down { .. } => Some("SHARDDOWN"),
        KvError::Timeout { .. } => Some("TIMEOUT"),
        KvError::Partial { parts } => parts
            .iter()
            .find_map(|part| part.error.as_ref())
            .and_then(|error| code(error)),
        _ => None,
    }
}
