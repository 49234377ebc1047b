//! The packets with which a client and a server meet.
//!
//! Not what proves who the client is ([`crate::mysql::auth`]). Source: the protocol's "Connection
//! Phase". Invariant: what is written is read back the same.

use super::{CodecError, Reader, capabilities, lenenc};

/// Bytes of a server's challenge, without its NUL.
pub const NONCE_BYTES: usize = 20;
/// Its challenges may hold NULs, and have none behind them; MariaDB's clients take no other.
const WITHOUT_NUL: &str = "client_ed25519";
/// The longest packet of a client before it is known.
pub const MAX_LOGIN_BYTES: usize = 64 * 1024;

/// A server's first words: `Protocol::HandshakeV10`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Greeting {
    /// The server's version.
    pub version: String,
    /// The connection's number.
    pub connection: u32,
    /// The challenge.
    pub nonce: Vec<u8>,
    /// What the server can, MariaDB's own in the upper half.
    pub capabilities: u64,
    /// The number of its collation.
    pub collation: u8,
    /// Status flags.
    pub status: u16,
    /// How it would have clients prove themselves.
    pub plugin: String,
}

impl Greeting {
    /// Reads one.
    pub fn parse(payload: &[u8]) -> Result<Self, CodecError> {
        let mut reader = Reader::new(payload);
        if reader.u8()? != 10 {
            return Err(CodecError::TooOld);
        }
        let version = String::from_utf8_lossy(reader.text()?).into_owned();
        let connection = reader.u32()?;
        let mut nonce = reader.take(8)?.to_vec();
        reader.u8()?;
        let lower = u64::from(reader.u16()?);
        let (collation, status) = (reader.u8()?, reader.u16()?);
        let mut capabilities = lower | u64::from(reader.u16()?) << 16;
        let length = usize::from(reader.u8()?);
        reader.take(6)?;
        let extended = u64::from(reader.u32()?);
        if capabilities & capabilities::LONG_PASSWORD == 0 {
            capabilities |= extended << 32;
        }
        if capabilities & capabilities::PROTOCOL_41 == 0 {
            return Err(CodecError::TooOld);
        }
        // The second part and its NUL: 13 bytes at least, whatever length is told.
        let second = reader.take(length.saturating_sub(8).max(13))?;
        nonce.extend_from_slice(second.strip_suffix(b"\0").unwrap_or(second));
        nonce.truncate(NONCE_BYTES);
        let rest = reader.rest();
        let plugin = rest.strip_suffix(b"\0").unwrap_or(rest);
        Ok(Self {
            version,
            connection,
            nonce,
            capabilities,
            collation,
            status,
            plugin: String::from_utf8_lossy(plugin).into_owned(),
        })
    }

    /// Writes it.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.push(10);
        out.extend_from_slice(self.version.as_bytes());
        out.push(0);
        out.extend_from_slice(&self.connection.to_le_bytes());
        let (first, second) = self.nonce.split_at(self.nonce.len().min(8));
        out.extend_from_slice(first);
        out.push(0);
        let bytes = self.capabilities.to_le_bytes();
        let part = |from: usize, to: usize| bytes.get(from..to).unwrap_or_default();
        out.extend_from_slice(part(0, 2));
        out.push(self.collation);
        out.extend_from_slice(&self.status.to_le_bytes());
        out.extend_from_slice(part(2, 4));
        out.push(21);
        out.extend_from_slice(&[0; 6]);
        out.extend_from_slice(part(4, 8));
        out.extend_from_slice(second);
        out.push(0);
        out.extend_from_slice(self.plugin.as_bytes());
        out.push(0);
    }
}

/// A client's answer: `Protocol::HandshakeResponse41`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// What both can.
    pub capabilities: u64,
    /// The number of the client's collation.
    pub collation: u8,
    /// Who it is.
    pub user: Vec<u8>,
    /// What proves it.
    pub proof: Vec<u8>,
    /// The schema it enters.
    pub schema: Option<Vec<u8>>,
    /// How it proves itself, where it says so.
    pub plugin: Option<Vec<u8>>,
}

/// The head of a client's answer, which is all of a request for TLS: `Protocol::SSLRequest`.
const HEAD_BYTES: usize = 32;

impl Response {
    /// Whether a client's first packet asks for TLS, and is no answer yet.
    #[must_use]
    pub fn is_ssl_request(payload: &[u8]) -> bool {
        payload.len() == HEAD_BYTES
            && payload
                .get(1)
                .is_some_and(|byte| u64::from(*byte) << 8 & capabilities::SSL != 0)
    }

    /// Reads a client's answer.
    pub fn parse(payload: &[u8]) -> Result<Self, CodecError> {
        let mut reader = Reader::new(payload);
        let mut capabilities = u64::from(reader.u32()?);
        if capabilities & capabilities::PROTOCOL_41 == 0 {
            return Err(CodecError::TooOld);
        }
        reader.u32()?;
        let collation = reader.u8()?;
        reader.take(19)?;
        let extended = u64::from(reader.u32()?);
        if capabilities & capabilities::LONG_PASSWORD == 0 {
            capabilities |= extended << 32;
        }
        let user = reader.text()?.to_vec();
        let proof = if capabilities & capabilities::PLUGIN_AUTH_LENENC != 0 {
            reader.string()?
        } else if capabilities & capabilities::SECURE_CONNECTION != 0 {
            let length = usize::from(reader.u8()?);
            reader.take(length)?
        } else {
            reader.text()?
        };
        let mut schema = None;
        if capabilities & capabilities::CONNECT_WITH_DB != 0 && !reader.is_empty() {
            schema = Some(text_or_rest(&mut reader).to_vec()).filter(|it| !it.is_empty());
        }
        let mut plugin = None;
        if capabilities & capabilities::PLUGIN_AUTH != 0 && !reader.is_empty() {
            plugin = Some(text_or_rest(&mut reader).to_vec());
        }
        Ok(Self {
            capabilities,
            collation,
            user,
            proof: proof.to_vec(),
            schema,
            plugin,
        })
    }

    /// Writes it.
    pub fn write(&self, out: &mut Vec<u8>) {
        write_head(out, self.capabilities, self.collation);
        out.extend_from_slice(&self.user);
        out.push(0);
        if self.capabilities & capabilities::PLUGIN_AUTH_LENENC != 0 {
            lenenc::write_str(out, &self.proof);
        } else {
            out.push(u8::try_from(self.proof.len()).unwrap_or(0));
            out.extend_from_slice(&self.proof);
        }
        if self.capabilities & capabilities::CONNECT_WITH_DB != 0 {
            out.extend_from_slice(self.schema.as_deref().unwrap_or_default());
            out.push(0);
        }
        if let Some(plugin) = &self.plugin {
            out.extend_from_slice(plugin);
            out.push(0);
        }
    }
}

/// Some clients leave the last NUL away.
fn text_or_rest<'a>(reader: &mut Reader<'a>) -> &'a [u8] {
    match reader.text() {
        Ok(text) => text,
        Err(_) => reader.rest(),
    }
}

/// Writes the head of an answer, which alone is a request for TLS.
pub fn write_head(out: &mut Vec<u8>, capabilities: u64, collation: u8) {
    let bytes = capabilities.to_le_bytes();
    out.extend_from_slice(bytes.get(..4).unwrap_or_default());
    out.extend_from_slice(&(1_u32 << 30).to_le_bytes());
    out.push(collation);
    out.extend_from_slice(&[0; 19]);
    out.extend_from_slice(bytes.get(4..).unwrap_or_default());
}

/// What a client sends to become another user: `COM_CHANGE_USER`, without its first byte.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangeUser {
    /// Who it is to be.
    pub user: Vec<u8>,
    /// What proves it.
    pub proof: Vec<u8>,
    /// The schema it enters.
    pub schema: Option<Vec<u8>>,
    /// The number of its collation.
    pub collation: Option<u8>,
    /// How it proves itself.
    pub plugin: Option<Vec<u8>>,
}

impl ChangeUser {
    /// Reads it.
    pub fn parse(body: &[u8], negotiated: u64) -> Result<Self, CodecError> {
        let mut reader = Reader::new(body);
        let user = reader.text()?.to_vec();
        let length = usize::from(reader.u8()?);
        let proof = reader.take(length)?.to_vec();
        let schema = Some(text_or_rest(&mut reader).to_vec()).filter(|it| !it.is_empty());
        let collation = reader.u16().ok().and_then(|it| u8::try_from(it).ok());
        let named = negotiated & capabilities::PLUGIN_AUTH != 0 && !reader.is_empty();
        let plugin = named.then(|| text_or_rest(&mut reader).to_vec());
        Ok(Self {
            user,
            proof,
            schema,
            collation,
            plugin,
        })
    }
}

/// A server's wish for another way to prove who a client is: `Protocol::AuthSwitchRequest`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthSwitch {
    /// The way.
    pub plugin: String,
    /// The challenge.
    pub nonce: Vec<u8>,
}

impl AuthSwitch {
    /// Reads it; `None` for the wish for a password of before 4.1.
    pub fn parse(payload: &[u8]) -> Result<Option<Self>, CodecError> {
        let mut reader = Reader::new(payload);
        if reader.u8()? != 0xfe {
            return Err(CodecError::Malformed);
        }
        if reader.is_empty() {
            return Ok(None);
        }
        let plugin = String::from_utf8_lossy(reader.text()?).into_owned();
        let rest = reader.rest();
        let nonce = match plugin.as_str() {
            WITHOUT_NUL => rest,
            _ => rest.strip_suffix(b"\0").unwrap_or(rest),
        };
        Ok(Some(Self {
            plugin,
            nonce: nonce.to_vec(),
        }))
    }

    /// Writes it.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.push(0xfe);
        out.extend_from_slice(self.plugin.as_bytes());
        out.push(0);
        out.extend_from_slice(&self.nonce);
        if self.plugin != WITHOUT_NUL {
            out.push(0);
        }
    }
}
