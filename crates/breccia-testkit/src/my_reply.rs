//! What a server of `MySQL`'s protocol answered, and the little reading that tests need.
//!
//! Not a decoder of all types: of a row in binary, numbers and strings are read, the rest stays bytes.
//! Invariant: what is read stands beside the packets, which are never changed.

use std::fmt;

use anyhow::{Context, Result, bail};

/// An error of the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MyFault {
    /// Its number.
    pub code: u16,
    /// The SQLSTATE.
    pub state: String,
    /// The text.
    pub message: String,
}

impl fmt::Display for MyFault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} ({}): {}", self.code, self.state, self.message)
    }
}

/// One result of a reply: rows, or an OK.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MyResult {
    /// Names of the columns, and their types' numbers.
    pub columns: Vec<(String, u8)>,
    /// The rows.
    pub rows: Vec<Vec<Option<Vec<u8>>>>,
    /// Rows affected.
    pub affected: u64,
    /// The insert id.
    pub insert_id: u64,
    /// Flags of status.
    pub status: u16,
    /// Warnings, of an OK.
    pub warnings: u16,
}

/// Everything that answers one command.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MyReply {
    /// All packets, with their numbers.
    pub packets: Vec<(Vec<u8>, u8)>,
    /// The results.
    pub results: Vec<MyResult>,
    /// The error that ended it.
    pub fault: Option<MyFault>,
}

impl MyReply {
    /// The last status told; 0 without one.
    pub fn status(&self) -> u16 {
        self.results.last().map_or(0, |it| it.status)
    }

    /// Rows affected, as the last OK tells.
    pub fn affected(&self) -> u64 {
        self.results.last().map_or(0, |it| it.affected)
    }

    /// The insert id, as the last OK tells.
    pub fn insert_id(&self) -> u64 {
        self.results.last().map_or(0, |it| it.insert_id)
    }

    /// The rows of the last result, as text; NULL is `NULL`.
    pub fn rows(&self) -> Vec<Vec<String>> {
        let rows = self
            .results
            .last()
            .map(|it| it.rows.as_slice())
            .unwrap_or_default();
        let text = |value: &Option<Vec<u8>>| match value {
            Some(value) => String::from_utf8_lossy(value).into_owned(),
            None => "NULL".to_owned(),
        };
        rows.iter()
            .map(|row| row.iter().map(text).collect())
            .collect()
    }

    /// The first value of the last result's first row.
    pub fn text(&self) -> Option<String> {
        self.rows().into_iter().next()?.into_iter().next()
    }

    /// The number of the error; 0 without one.
    pub fn code(&self) -> u16 {
        self.fault.as_ref().map_or(0, |fault| fault.code)
    }

    /// The reply, or its error as an error.
    pub fn good(self) -> Result<MyReply> {
        match self.fault {
            Some(fault) => bail!("{fault}"),
            None => Ok(self),
        }
    }

    pub(crate) fn set_fault(&mut self, packet: &[u8], capabilities: u32) {
        self.fault = Some(MyReply::fault_of(packet, capabilities));
    }

    /// Reads an error packet; before the capabilities are agreed it has no SQLSTATE.
    pub(crate) fn fault_of(packet: &[u8], _capabilities: u32) -> MyFault {
        let code = packet.get(1..3).map_or(0, |it| {
            it.iter()
                .rev()
                .fold(0, |all, byte| all << 8 | u16::from(*byte))
        });
        let text =
            |bytes: Option<&[u8]>| String::from_utf8_lossy(bytes.unwrap_or_default()).into_owned();
        let marked = packet.get(3) == Some(&b'#');
        MyFault {
            code,
            state: text(packet.get(4..9).filter(|_| marked)),
            message: text(packet.get(if marked { 9 } else { 3 }..)),
        }
    }
}

impl MyResult {
    /// Reads an OK.
    pub(crate) fn ok(packet: &[u8]) -> Result<MyResult> {
        let mut reader = Reader::new(packet);
        reader.take(1)?;
        Ok(MyResult {
            affected: reader.lenenc()?,
            insert_id: reader.lenenc()?,
            status: reader.u16()?,
            warnings: reader.u16()?,
            ..MyResult::default()
        })
    }

    pub(crate) fn add_column(&mut self, packet: &[u8]) -> Result<()> {
        let mut reader = Reader::new(packet);
        for _ in 0..4 {
            reader.string()?;
        }
        let name = String::from_utf8_lossy(reader.string()?).into_owned();
        reader.string()?;
        // Six bytes of length and character set, four of width, then the type.
        let tail = reader.rest();
        let kind = tail.get(7).copied().context("a short column")?;
        self.columns.push((name, kind));
        Ok(())
    }

    pub(crate) fn add_row(&mut self, packet: &[u8], binary: bool) -> Result<()> {
        let mut reader = Reader::new(packet);
        let mut row = Vec::with_capacity(self.columns.len());
        if binary {
            reader.take(1)?;
            let nulls = reader.take((self.columns.len() + 9) / 8)?.to_vec();
            for (at, (_, kind)) in self.columns.iter().enumerate() {
                let byte = nulls.get((at + 2) / 8).copied().unwrap_or(0);
                let is_null = byte & (1 << ((at + 2) % 8)) != 0;
                row.push(if is_null {
                    None
                } else {
                    Some(reader.binary(*kind)?)
                });
            }
        } else {
            for _ in &self.columns {
                if reader.rest().first() == Some(&0xfb) {
                    reader.take(1)?;
                    row.push(None);
                } else {
                    row.push(Some(reader.string()?.to_vec()));
                }
            }
        }
        self.rows.push(row);
        Ok(())
    }
}

/// The status in the packet that ends rows.
pub(crate) fn status_of(packet: &[u8], deprecated: bool) -> Result<u16> {
    if deprecated {
        return Ok(MyResult::ok(packet)?.status);
    }
    let mut reader = Reader::new(packet);
    reader.take(3)?;
    reader.u16()
}

/// Puts a string behind its length.
pub(crate) fn lenenc_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    let length = bytes.len().to_le_bytes();
    let (mark, width) = match bytes.len() {
        0..251 => (None, 1),
        251..0x1_0000 => (Some(0xfc), 2),
        0x1_0000..0x100_0000 => (Some(0xfd), 3),
        _ => (Some(0xfe), 8),
    };
    out.extend(mark);
    out.extend(length.iter().take(width));
    out.extend(bytes);
}

/// Reads a payload from its beginning.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Reader(bytes)
    }

    pub(crate) fn rest(&self) -> &'a [u8] {
        self.0
    }

    pub(crate) fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let (now, later) = self
            .0
            .split_at_checked(count)
            .context("a packet too short")?;
        self.0 = later;
        Ok(now)
    }

    fn number(&mut self, width: usize) -> Result<u64> {
        let bytes = self.take(width)?.iter().rev();
        Ok(bytes.fold(0, |all, byte| all << 8 | u64::from(*byte)))
    }

    pub(crate) fn u16(&mut self) -> Result<u16> {
        Ok(u16::try_from(self.number(2)?)?)
    }

    pub(crate) fn u32(&mut self) -> Result<u32> {
        Ok(u32::try_from(self.number(4)?)?)
    }

    pub(crate) fn lenenc(&mut self) -> Result<u64> {
        match self.number(1)? {
            0xfc => self.number(2),
            0xfd => self.number(3),
            0xfe => self.number(8),
            small => Ok(small),
        }
    }

    pub(crate) fn string(&mut self) -> Result<&'a [u8]> {
        let length = usize::try_from(self.lenenc()?)?;
        self.take(length)
    }

    pub(crate) fn until_zero(&mut self) -> Result<&'a [u8]> {
        let end = self
            .0
            .iter()
            .position(|it| *it == 0)
            .context("no end of text")?;
        let text = self.take(end)?;
        self.take(1)?;
        Ok(text)
    }

    /// A value of a row in binary: integers as text, what has a length as its bytes.
    fn binary(&mut self, kind: u8) -> Result<Vec<u8>> {
        let signed = |value: u64, bits: u32| {
            let shift = 64 - bits;
            ((value << shift).cast_signed() >> shift)
                .to_string()
                .into_bytes()
        };
        Ok(match kind {
            0x01 => signed(self.number(1)?, 8),
            0x02 | 0x0d => signed(self.number(2)?, 16),
            0x03 | 0x09 => signed(self.number(4)?, 32),
            0x08 => signed(self.number(8)?, 64),
            0x04 => self.take(4)?.to_vec(),
            0x05 => self.take(8)?.to_vec(),
            // Dates and times: a length of one byte.
            _ => self.string()?.to_vec(),
        })
    }
}
