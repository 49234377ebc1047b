//! OK, errors, and ends of rows, as each peer reads them.

use super::{CodecError, Reader, capabilities, lenenc, status};

/// OK, or the end of rows that takes its form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OkPacket<'a> {
    /// 0x00; 0xfe at the end of rows.
    pub header: u8,
    /// Rows that were changed, or found.
    pub affected: u64,
    /// The insert id, or 0.
    pub insert_id: u64,
    /// Status flags.
    pub status: u16,
    /// Warnings.
    pub warnings: u16,
    /// Words for a person.
    pub info: &'a [u8],
    /// Changes of the session, as they are written: see [`super::changes`].
    pub state: &'a [u8],
}

impl<'a> OkPacket<'a> {
    /// Reads one of a server with which these capabilities were negotiated. An end of rows without
    /// `DEPRECATE_EOF` is read too.
    pub fn parse(payload: &'a [u8], negotiated: u64) -> Result<Self, CodecError> {
        let mut reader = Reader::new(payload);
        let header = reader.u8()?;
        if header == 0xfe && payload.len() == 5 {
            let warnings = reader.u16()?;
            return Ok(Self {
                header,
                affected: 0,
                insert_id: 0,
                status: reader.u16()?,
                warnings,
                info: b"",
                state: b"",
            });
        }
        let (affected, insert_id) = (reader.int()?, reader.int()?);
        let (flags, warnings) = (reader.u16()?, reader.u16()?);
        let (mut info, mut state): (&[u8], &[u8]) = (b"", b"");
        if !reader.is_empty() {
            info = reader.string()?;
        }
        let tracks = negotiated & capabilities::SESSION_TRACK != 0;
        if tracks && flags & status::SESSION_STATE_CHANGED != 0 && !reader.is_empty() {
            state = reader.string()?;
        }
        Ok(Self {
            header,
            affected,
            insert_id,
            status: flags,
            warnings,
            info,
            state,
        })
    }

    /// Writes it for a client with which these capabilities were negotiated.
    pub fn write(&self, out: &mut Vec<u8>, negotiated: u64) {
        out.push(self.header);
        lenenc::write_int(out, self.affected);
        lenenc::write_int(out, self.insert_id);
        out.extend_from_slice(&self.status.to_le_bytes());
        out.extend_from_slice(&self.warnings.to_le_bytes());
        // The manual has it without a length where changes are not told; servers write one always.
        let tracks = negotiated & capabilities::SESSION_TRACK != 0;
        let changed = tracks && self.status & status::SESSION_STATE_CHANGED != 0;
        if changed || !self.info.is_empty() {
            lenenc::write_str(out, self.info);
        }
        if changed {
            lenenc::write_str(out, self.state);
        }
    }
}

/// An end of columns or rows for clients without `DEPRECATE_EOF`.
#[must_use]
pub fn eof(status: u16, warnings: u16) -> [u8; 5] {
    let ([w0, w1], [s0, s1]) = (warnings.to_le_bytes(), status.to_le_bytes());
    [0xfe, w0, w1, s0, s1]
}

/// An error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ErrPacket<'a> {
    /// Its number.
    pub code: u16,
    /// Its SQLSTATE; HY000 where none was told.
    pub sqlstate: [u8; 5],
    /// Its words.
    pub message: &'a [u8],
}

impl<'a> ErrPacket<'a> {
    /// Reads one.
    pub fn parse(payload: &'a [u8]) -> Result<Self, CodecError> {
        let mut reader = Reader::new(payload);
        if reader.u8()? != 0xff {
            return Err(CodecError::Malformed);
        }
        let code = reader.u16()?;
        let rest = reader.rest();
        let (sqlstate, message) = match rest.strip_prefix(b"#").and_then(<[u8]>::split_first_chunk)
        {
            Some((sqlstate, message)) => (*sqlstate, message),
            None => (*b"HY000", rest),
        };
        Ok(Self {
            code,
            sqlstate,
            message,
        })
    }

    /// Writes it.
    pub fn write(&self, out: &mut Vec<u8>, negotiated: u64) {
        out.push(0xff);
        out.extend_from_slice(&self.code.to_le_bytes());
        if negotiated & capabilities::PROTOCOL_41 != 0 {
            out.push(b'#');
            out.extend_from_slice(&self.sqlstate);
        }
        out.extend_from_slice(self.message);
    }
}
