//! The first packet of a connection, which has no type byte.
//!
//! Not authentication. Invariant: a packet longer than [`MAX_STARTUP_BYTES`] is refused before it
//! is read, so a stranger can make nobody hold more.

use super::{CodecError, int32, text};

/// The longest first packet, as PostgreSQL itself has it.
pub const MAX_STARTUP_BYTES: usize = 10_000;

const CANCEL: u32 = 80_877_102;
const SSL: u32 = 80_877_103;
const GSS: u32 = 80_877_104;

/// What a client begins with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Startup {
    /// It asks for TLS.
    Ssl,
    /// It asks for encryption by GSSAPI.
    Gss,
    /// It asks to cancel what another connection does.
    Cancel {
        /// The process, as told to that connection.
        process: u32,
        /// The secret told with it.
        secret: Vec<u8>,
    },
    /// It wants a session.
    Session {
        /// The minor version of the protocol it would like.
        minor: u16,
        /// Names and values, in their order.
        parameters: Vec<(String, String)>,
    },
}

/// Reads the packet that `bytes` begin with, and tells its length; `None` if it is not all there.
pub fn startup(bytes: &[u8]) -> Result<Option<(Startup, usize)>, CodecError> {
    let Some((length, _)) = int32(bytes) else {
        return Ok(None);
    };
    let length = length as usize;
    if !(8..=MAX_STARTUP_BYTES).contains(&length) {
        return Err(CodecError::Startup);
    }
    let Some(packet) = bytes.get(4..length) else {
        return Ok(None);
    };
    let (code, rest) = int32(packet).ok_or(CodecError::Startup)?;
    let read = match code {
        SSL => Startup::Ssl,
        GSS => Startup::Gss,
        CANCEL => cancel(rest)?,
        version => session(version, rest)?,
    };
    Ok(Some((read, length)))
}

fn cancel(body: &[u8]) -> Result<Startup, CodecError> {
    let (process, secret) = int32(body).ok_or(CodecError::Startup)?;
    // Four bytes in 3.0, up to 256 later.
    if !(4..=256).contains(&secret.len()) {
        return Err(CodecError::Startup);
    }
    Ok(Startup::Cancel {
        process,
        secret: secret.to_vec(),
    })
}

fn session(version: u32, mut body: &[u8]) -> Result<Startup, CodecError> {
    let [a, b, c, d] = version.to_be_bytes();
    let (major, minor) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
    if major != 3 {
        return Err(CodecError::Version { major, minor });
    }
    let mut parameters = Vec::new();
    loop {
        let (name, rest) = text(body).ok_or(CodecError::Startup)?;
        if name.is_empty() {
            return match rest {
                [] => Ok(Startup::Session { minor, parameters }),
                _ => Err(CodecError::Startup),
            };
        }
        let (value, rest) = text(rest).ok_or(CodecError::Startup)?;
        let owned = |bytes: &[u8]| String::from_utf8(bytes.to_vec());
        let (Ok(name), Ok(value)) = (owned(name), owned(value)) else {
            return Err(CodecError::Startup);
        };
        parameters.push((name, value));
        body = rest;
    }
}

/// Writes the packet that begins a session.
pub fn write_session(out: &mut Vec<u8>, parameters: &[(&str, &str)]) {
    packet(out, |out| {
        out.extend_from_slice(&[0, 3, 0, 0]);
        for (name, value) in parameters {
            super::message::write_text(out, name.as_bytes());
            super::message::write_text(out, value.as_bytes());
        }
        out.push(0);
    });
}

/// Writes the packet that asks for TLS.
pub fn write_ssl(out: &mut Vec<u8>) {
    packet(out, |out| out.extend_from_slice(&SSL.to_be_bytes()));
}

/// Writes the packet that asks to cancel.
pub fn write_cancel(out: &mut Vec<u8>, process: u32, secret: &[u8]) {
    packet(out, |out| {
        out.extend_from_slice(&CANCEL.to_be_bytes());
        out.extend_from_slice(&process.to_be_bytes());
        out.extend_from_slice(secret);
    });
}

fn packet(out: &mut Vec<u8>, fill: impl FnOnce(&mut Vec<u8>)) {
    let at = out.len();
    out.extend_from_slice(&[0; 4]);
    fill(out);
    super::message::set_length(out, at, at);
}
