//! The bytes of a generation file: data, a table of block checksums, a footer and a trailer.
//!
//! Not here: files, or what a footer means. Invariant: a byte of a file that is not what was
//! written is found before the data it belongs to is given to anybody.
//!
//! ```text
//! ┌──────────────────┬───────────────────────┬───────────────┬──────────────────┐
//! │ data             │ a CRC-32C per 64 KiB  │ footer (JSON) │ trailer, 56 bytes│
//! └──────────────────┴───────────────────────┴───────────────┴──────────────────┘
//! trailer: magic (8) · version (4) · block bytes (4) · generation (8) · data bytes (8) ·
//!          table bytes (8) · footer bytes (8) · CRC-32C of table and footer (4) ·
//!          CRC-32C of the trailer so far (4); numbers are little endian
//! ```

use std::ops::Range;

use super::records::Record;

/// Each so many bytes of data have a checksum of their own.
pub(super) const BLOCK_BYTES: usize = 64 * 1024;
/// The trailer's length.
pub(super) const TRAILER_BYTES: usize = 56;
/// The largest footer: the manifest of 10,000 parts has some 3 MiB.
pub(super) const MAX_FOOTER_BYTES: u64 = 16 * 1024 * 1024;
/// The most data in one file: what its table of checksums takes in memory is 4 MiB then.
pub(super) const MAX_DATA_BYTES: u64 = 64 * 1024 * 1024 * 1024;

const MAGIC: &[u8; 8] = b"BRECCIA\x01";
const VERSION: u32 = 1;
const BLOCK: u64 = BLOCK_BYTES as u64;
/// As a trailer has it.
const BLOCK_FIELD: u32 = 64 * 1024;
const CRC_BYTES: u64 = 4;

/// Adds the checksums of the blocks of `data` to a table. All but the last call of a file give
/// whole blocks.
pub(super) fn add_blocks(table: &mut Vec<u8>, data: &[u8]) {
    for block in data.chunks(BLOCK_BYTES) {
        table.extend_from_slice(&crc_fast::crc32_iscsi(block).to_le_bytes());
    }
}

/// Adds table, footer and trailer behind the data that lies in `into` or was written before.
pub(super) fn add_tail(
    into: &mut Vec<u8>,
    generation: u64,
    data_bytes: u64,
    table: &[u8],
    footer: &[u8],
) {
    let start = into.len();
    into.extend_from_slice(table);
    into.extend_from_slice(footer);
    let tail_crc = crc_fast::crc32_iscsi(into.get(start..).unwrap_or_default());
    let trailer = into.len();
    into.extend_from_slice(MAGIC);
    into.extend_from_slice(&VERSION.to_le_bytes());
    into.extend_from_slice(&BLOCK_FIELD.to_le_bytes());
    for number in [
        generation,
        data_bytes,
        table.len() as u64,
        footer.len() as u64,
    ] {
        into.extend_from_slice(&number.to_le_bytes());
    }
    into.extend_from_slice(&tail_crc.to_le_bytes());
    let own = crc_fast::crc32_iscsi(into.get(trailer..).unwrap_or_default());
    into.extend_from_slice(&own.to_le_bytes());
}

/// A trailer that was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Trailer {
    pub(super) generation: u64,
    pub(super) data_bytes: u64,
    table_bytes: u64,
    footer_bytes: u64,
    tail_crc: u32,
}

/// Takes little-endian numbers off the front of a slice.
struct Numbers<'a>(&'a [u8]);

impl Numbers<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (first, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*first)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }
}

impl Trailer {
    /// Reads the last [`TRAILER_BYTES`] of a file of `file_bytes`.
    pub(super) fn read(bytes: &[u8], file_bytes: u64) -> Result<Self, &'static str> {
        let framed = bytes
            .len()
            .checked_sub(4)
            .filter(|_| bytes.len() == TRAILER_BYTES);
        let (body, own) = framed
            .and_then(|at| bytes.split_at_checked(at))
            .ok_or("it is shorter than a trailer")?;
        let found = Numbers(own).u32().ok_or("it is shorter than a trailer")?;
        if crc_fast::crc32_iscsi(body) != found {
            return Err("its trailer is damaged, or it was never finished");
        }
        let mut numbers = Numbers(body);
        let trailer = (|| {
            let magic: [u8; 8] = numbers.take()?;
            let version = numbers.u32()?;
            let block = numbers.u32()?;
            let trailer = Self {
                generation: numbers.u64()?,
                data_bytes: numbers.u64()?,
                table_bytes: numbers.u64()?,
                footer_bytes: numbers.u64()?,
                tail_crc: numbers.u32()?,
            };
            Some((magic, version, block, trailer))
        })();
        let (magic, version, block, trailer) = trailer.ok_or("it is shorter than a trailer")?;
        if magic != *MAGIC {
            return Err("it is not a file of Breccia");
        }
        if version != VERSION || block != BLOCK_FIELD {
            return Err("a later release wrote it");
        }
        trailer.fits(file_bytes)?;
        Ok(trailer)
    }

    fn fits(&self, file_bytes: u64) -> Result<(), &'static str> {
        let table = self.data_bytes.div_ceil(BLOCK).checked_mul(CRC_BYTES);
        let whole = [self.table_bytes, self.footer_bytes, TRAILER_BYTES as u64]
            .into_iter()
            .try_fold(self.data_bytes, u64::checked_add);
        let fits = table == Some(self.table_bytes)
            && whole == Some(file_bytes)
            && self.footer_bytes <= MAX_FOOTER_BYTES
            && self.data_bytes <= MAX_DATA_BYTES;
        if fits {
            Ok(())
        } else {
            Err("its length is not what its trailer says")
        }
    }

    /// How many bytes table and footer have together.
    pub(super) fn tail_bytes(&self) -> usize {
        // Both are bounded: see `fits`.
        usize::try_from(self.table_bytes.saturating_add(self.footer_bytes)).unwrap_or(usize::MAX)
    }

    /// Splits table and footer, and finds out whether they are what was written.
    pub(super) fn split<'a>(&self, tail: &'a [u8]) -> Result<(&'a [u8], &'a [u8]), &'static str> {
        let at = usize::try_from(self.table_bytes).unwrap_or(usize::MAX);
        if tail.len() != self.tail_bytes() || crc_fast::crc32_iscsi(tail) != self.tail_crc {
            return Err("its table or footer is damaged");
        }
        tail.split_at_checked(at)
            .ok_or("its table or footer is damaged")
    }
}

/// Reads a footer.
pub(super) fn read_footer(footer: &[u8]) -> Result<Record, &'static str> {
    serde_json::from_slice(footer).map_err(|_| "its footer is none this release knows")
}

/// Holds data that begins at a block's border against the table.
pub(super) fn check_blocks(table: &[u8], first_block: u64, data: &[u8]) -> Result<(), u64> {
    let skip = usize::try_from(first_block).unwrap_or(usize::MAX);
    let (crcs, _) = table.as_chunks::<4>();
    let mut crcs = crcs.iter().skip(skip);
    for (place, block) in (first_block..).zip(data.chunks(BLOCK_BYTES)) {
        let expected = crcs.next().map(|crc| u32::from_le_bytes(*crc));
        if expected != Some(crc_fast::crc32_iscsi(block)) {
            return Err(place);
        }
    }
    Ok(())
}

/// The whole blocks that cover a range of data.
pub(super) fn covering(range: &Range<u64>, data_bytes: u64) -> Range<u64> {
    let start = range.start / BLOCK * BLOCK;
    let end = range.end.div_ceil(BLOCK).saturating_mul(BLOCK);
    start..end.min(data_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(data: &[u8]) -> Vec<u8> {
        let mut table = Vec::new();
        add_blocks(&mut table, data);
        let footer = serde_json::to_vec(&Record::Reserved {
            name: "marker".to_owned(),
        })
        .expect("a footer");
        let mut file = data.to_vec();
        add_tail(&mut file, 7, data.len() as u64, &table, &footer);
        file
    }

    fn check(file: &[u8]) -> Result<(Vec<u8>, Record), String> {
        let at = file.len().checked_sub(TRAILER_BYTES).ok_or("short")?;
        let (rest, trailer) = file.split_at(at);
        let trailer = Trailer::read(trailer, file.len() as u64)?;
        let at = usize::try_from(trailer.data_bytes).map_err(|_| "long")?;
        let (data, tail) = rest.split_at(at);
        let (table, footer) = trailer.split(tail)?;
        check_blocks(table, 0, data).map_err(|block| format!("block {block}"))?;
        if trailer.generation != 7 {
            return Err("generation".to_owned());
        }
        Ok((data.to_vec(), read_footer(footer)?))
    }

    #[test]
    fn every_flipped_byte_is_found() {
        for size in [0, 1, 300] {
            let data: Vec<u8> = (0..=u8::MAX).cycle().take(size).collect();
            let file = file(&data);
            assert_eq!(check(&file).expect("it is whole").0, data);
            for place in 0..file.len() {
                let mut flipped = file.clone();
                flipped[place] ^= 0x10;
                assert!(check(&flipped).is_err(), "byte {place} of {size}");
            }
            for length in 0..file.len() {
                assert!(check(&file[..length]).is_err(), "{length} of {size}");
            }
        }
    }

    #[test]
    fn blocks_are_checked_each_at_its_place() {
        let numbers = (0_u8..251).cycle();
        let data: Vec<u8> = numbers.take(BLOCK_BYTES * 2 + 5).collect();
        let mut table = Vec::new();
        add_blocks(&mut table, &data);
        assert_eq!(table.len(), 12);
        assert_eq!(check_blocks(&table, 0, &data), Ok(()));
        assert_eq!(check_blocks(&table, 1, &data[BLOCK_BYTES..]), Ok(()));
        assert_eq!(check_blocks(&table, 0, &data[BLOCK_BYTES..]), Err(0));
        assert_eq!(check_blocks(&table, 3, &data[..1]), Err(3));
    }

    #[test]
    fn ranges_are_widened_to_blocks() {
        let check = |range: Range<u64>, size, expected: Range<u64>| {
            assert_eq!(covering(&range, size), expected, "{range:?} of {size}");
        };
        check(0..1, 10, 0..10);
        check(BLOCK - 1..BLOCK + 1, BLOCK * 3, 0..BLOCK * 2);
        check(BLOCK..BLOCK + 1, BLOCK + 9, BLOCK..BLOCK + 9);
    }
}
