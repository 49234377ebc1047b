//! Prepared statements: the head of a description, and that of an execution.

use std::ops::Range;

use super::{CodecError, Reader};

/// What a server says of a statement it has prepared. Source: `COM_STMT_PREPARE_OK`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PrepareOk {
    /// The statement's number.
    pub statement: u32,
    /// Columns of its rows.
    pub columns: u16,
    /// Its parameters.
    pub parameters: u16,
    /// Warnings.
    pub warnings: u16,
}

impl PrepareOk {
    /// Reads it.
    pub fn parse(payload: &[u8]) -> Result<Self, CodecError> {
        let mut reader = Reader::new(payload);
        if reader.u8()? != 0 {
            return Err(CodecError::Malformed);
        }
        let statement = reader.u32()?;
        let (columns, parameters) = (reader.u16()?, reader.u16()?);
        // A filler, and warnings, which servers of old leave away.
        let warnings = match reader.u8() {
            Ok(_) => reader.u16().unwrap_or(0),
            Err(_) => 0,
        };
        Ok(Self {
            statement,
            columns,
            parameters,
            warnings,
        })
    }

    /// Writes it.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.push(0);
        out.extend_from_slice(&self.statement.to_le_bytes());
        out.extend_from_slice(&self.columns.to_le_bytes());
        out.extend_from_slice(&self.parameters.to_le_bytes());
        out.push(0);
        out.extend_from_slice(&self.warnings.to_le_bytes());
    }
}

/// The command, the statement's number, the flags, and how often it is to run.
const FIXED: usize = 10;

/// Where things stand in `COM_STMT_EXECUTE`, the command's byte being at 0.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ExecuteHead {
    /// Whether a cursor is asked for, and which.
    pub flags: u8,
    /// Where the byte stands that says whether types follow; none without parameters.
    pub flag: Option<usize>,
    /// Where the types stand, if they were sent.
    pub types: Option<Range<usize>>,
}

impl ExecuteHead {
    /// The most bytes of payload in which all of it stands.
    #[must_use]
    pub fn most_bytes(parameters: u16) -> usize {
        let count = usize::from(parameters);
        FIXED + count.div_ceil(8) + 1 + 2 * count
    }

    /// Reads the head of a statement with so many parameters. What follows the types is not looked at.
    pub fn parse(payload: &[u8], parameters: u16) -> Result<Self, CodecError> {
        let mut reader = Reader::new(payload);
        reader.take(5)?;
        let flags = reader.u8()?;
        reader.u32()?;
        if parameters == 0 {
            return Ok(Self {
                flags,
                flag: None,
                types: None,
            });
        }
        let count = usize::from(parameters);
        let nulls = count.div_ceil(8);
        reader.take(nulls)?;
        let flag = FIXED + nulls;
        let types = if reader.u8()? == 1 {
            reader.take(2 * count)?;
            Some(flag + 1..flag + 1 + 2 * count)
        } else {
            None
        };
        Ok(Self {
            flags,
            flag: Some(flag),
            types,
        })
    }
}

/// An execution for a connection that does not know the types, which its client has told before.
#[must_use]
pub fn with_types(payload: &[u8], types: &[u8], flag: usize) -> Vec<u8> {
    let mut payload = payload.to_vec();
    if let Some(byte) = payload.get_mut(flag) {
        *byte = 1;
        payload.splice(flag + 1..=flag, types.iter().copied());
    }
    payload
}

/// The first value of an execution, if it is a whole number or a text of one. `types`: two bytes for each
/// parameter. NULL is none: it has no bytes among the values, and what stands there is another's.
#[must_use]
pub fn first_number(types: &[u8], values: &[u8]) -> Option<u64> {
    let mut reader = Reader::new(values);
    match *types.first()? {
        1 => reader.u8().ok().map(u64::from),
        2 => reader.u16().ok().map(u64::from),
        3 => reader.u32().ok().map(u64::from),
        8 => {
            let (low, high) = (reader.u32().ok()?, reader.u32().ok()?);
            Some(u64::from(low) | u64::from(high) << 32)
        }
        // VARCHAR, BLOB and their kin.
        15 | 249..=254 => {
            let text = reader.string().ok()?;
            std::str::from_utf8(text).ok()?.trim().parse().ok()
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_number_of_an_execution_is_read() {
        let of = |types: &[u8], values: &[u8]| first_number(types, values);
        assert_eq!(
            of(&[8, 0], &0x4000_0001_u64.to_le_bytes()),
            Some(0x4000_0001)
        );
        assert_eq!(of(&[3, 0, 8, 0], &[1, 0, 0, 0x40, 9]), Some(0x4000_0001));
        assert_eq!(of(&[254, 0], b"\x0a1073741825"), Some(0x4000_0001));
        assert_eq!(of(&[2, 0], &[7, 0]), Some(7));
        for (types, values) in [
            (&[8, 0][..], &[1, 2, 3][..]),
            (&[254, 0], b"\x0912"),
            (&[254, 0], b"\x02xy"),
            (&[5, 0], &[0; 8]),
            (&[], &[]),
        ] {
            assert_eq!(of(types, values), None, "{types:?} {values:?}");
        }
    }
}
