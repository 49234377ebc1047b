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
