//! Completing an upload: one transaction makes an object's row that names the parts' generations.
//!
//! No chunk is copied. Invariant: the upload ends exactly when its object becomes visible.

use std::collections::BTreeMap;

use breccia_net::clock;
use crc_fast::{CrcAlgorithm, checksum_combine};

use super::CHUNK;
use super::fault::Fault;
use super::objects::{ObjectRow, place};
use super::pool::Session;
use super::record::{self, ChecksumRecord, ObjectRecord, PartRecord};
use super::store::Inner;
use super::transaction::Work;
use super::uploads::{PartRow, all_parts, lock_upload, remove_upload};
use crate::checksum::{self, Algorithm, Checksum, ChecksumKind};
use crate::error::{BlobError, BodyFault};
use crate::key::Key;
use crate::meta::ETag;
use crate::store::Written;
use crate::upload::{
    ChecksumChoice, CompleteOptions, MIN_PART_BYTES, PartChoice, PartInfo, UploadId,
};

impl Inner {
    /// Makes the object of the chosen parts, and ends the upload.
    pub(super) async fn complete_upload(
        &self,
        key: &Key,
        upload: &UploadId,
        choices: Vec<PartChoice>,
        options: CompleteOptions,
    ) -> Result<Written, BlobError> {
        let complete = Complete {
            key,
            upload,
            choices,
            options,
        };
        self.transact(&complete).await
    }
}

struct Complete<'a> {
    key: &'a Key,
    upload: &'a UploadId,
    choices: Vec<PartChoice>,
    options: CompleteOptions,
}

impl Work for Complete<'_> {
    type Output = Written;

    async fn run(&self, session: &mut Session) -> Result<Written, Fault> {
        let upload = lock_upload(session, self.key, self.upload).await?;
        let stored = all_parts(session, self.upload).await?;
        let stored = stored.into_iter().map(|part| (part.info.number, part));
        let mut stored: BTreeMap<u16, PartRow> = stored.collect();
        let chosen = choose(&mut stored, &self.choices)?;
        let infos: Vec<&PartInfo> = chosen.iter().map(|part| &part.info).collect();
        let checksum = checksum_of(&infos, upload.checksum()?);
        verify(checksum.as_ref(), self.options.checksum.as_ref())?;
        let written = Written {
            etag: etag_of(&infos)?,
            checksum,
            modified_ms: clock::unix_ms(),
        };
        let sizes = infos.iter().map(|info| info.size);
        let row = ObjectRow {
            generation: chosen.first().map_or(0, |part| part.generation),
            size: sizes.fold(0, u64::saturating_add),
            modified_ms: written.modified_ms,
            etag: &written.etag,
            record: record::to_text(&ObjectRecord {
                headers: upload.headers,
                checksum: written.checksum.as_ref().map(ChecksumRecord::from),
                chunk: CHUNK as u64,
                parts: chosen
                    .iter()
                    .map(PartRow::record)
                    .collect::<Vec<PartRecord>>(),
            }),
            tags: record::to_text(&upload.tags),
        };
        place(session, self.key, &row, &self.options.condition).await?;
        let unused: Vec<i64> = stored.values().map(|part| part.generation).collect();
        remove_upload(session, self.key, self.upload, &unused).await?;
        Ok(written)
    }
}

/// Takes the chosen parts out of those that are stored.
fn choose(
    stored: &mut BTreeMap<u16, PartRow>,
    choices: &[PartChoice],
) -> Result<Vec<PartRow>, BlobError> {
    let Some(last) = choices.last() else {
        return Err(BlobError::InvalidPart { number: 1 });
    };
    let mut chosen: Vec<PartRow> = Vec::with_capacity(choices.len());
    for choice in choices {
        let number = choice.number;
        if chosen
            .last()
            .is_some_and(|before| before.info.number >= number)
        {
            return Err(BlobError::PartOrder);
        }
        let part = stored
            .remove(&number)
            .filter(|part| fits(&part.info, choice))
            .ok_or(BlobError::InvalidPart { number })?;
        chosen.push(part);
    }
    for part in &chosen {
        let (number, size) = (part.info.number, part.info.size);
        if size < MIN_PART_BYTES && number != last.number {
            return Err(BlobError::PartTooSmall { number, size });
        }
    }
    Ok(chosen)
}

fn fits(part: &PartInfo, choice: &PartChoice) -> bool {
    let same = |wanted: &Checksum| {
        part.checksum
            .as_ref()
            .is_some_and(|found| found.algorithm == wanted.algorithm && found.value == wanted.value)
    };
    part.etag == choice.etag && choice.checksum.as_ref().is_none_or(same)
}

fn etag_of(parts: &[&PartInfo]) -> Result<ETag, Fault> {
    let mut all = Vec::with_capacity(parts.len().saturating_mul(16));
    for part in parts {
        let md5 = part.etag.md5();
        let md5 = md5.ok_or_else(|| Fault::Damaged("a part's tag that is no MD5".to_owned()))?;
        all.extend_from_slice(&md5);
    }
    Ok(ETag::of_parts(checksum::md5(&all), parts.len()))
}

/// The checksum of the whole, if all parts have one of the same algorithm.
fn checksum_of(
    parts: &[&PartInfo],
    wanted: Option<(Algorithm, ChecksumChoice)>,
) -> Option<Checksum> {
    let first = parts.first()?.checksum.as_ref()?.algorithm;
    let (algorithm, choice) = wanted.unwrap_or((first, ChecksumChoice::Composite));
    let mut values = Vec::with_capacity(parts.len());
    for part in parts {
        let checksum = part.checksum.as_ref();
        let checksum = checksum.filter(|checksum| checksum.algorithm == algorithm)?;
        values.push((checksum.value.as_slice(), part.size));
    }
    match choice {
        ChecksumChoice::FullObject => combine(algorithm, &values),
        ChecksumChoice::Composite => {
            let raw: Vec<u8> = values
                .iter()
                .flat_map(|(value, _)| *value)
                .copied()
                .collect();
            Some(Checksum {
                algorithm,
                value: checksum::of(algorithm, &raw),
                kind: ChecksumKind::Composite {
                    parts: u32::try_from(parts.len()).ok()?,
                },
            })
        }
    }
}

/// The CRC of bytes whose pieces' CRCs are known. The SHAs cannot be combined.
fn combine(algorithm: Algorithm, pieces: &[(&[u8], u64)]) -> Option<Checksum> {
    let kind = match algorithm {
        Algorithm::Crc32 => CrcAlgorithm::Crc32IsoHdlc,
        Algorithm::Crc32c => CrcAlgorithm::Crc32Iscsi,
        Algorithm::Crc64Nvme => CrcAlgorithm::Crc64Nvme,
        Algorithm::Sha1 | Algorithm::Sha256 => return None,
    };
    let number = |value: &[u8]| {
        value
            .iter()
            .fold(0_u64, |number, byte| (number << 8) | u64::from(*byte))
    };
    let mut pieces = pieces.iter();
    let (first, _) = pieces.next()?;
    let whole = pieces.fold(number(first), |whole, (value, size)| {
        checksum_combine(kind, whole, number(value), *size)
    });
    let bytes = whole.to_be_bytes();
    let skip = bytes.len().saturating_sub(algorithm.length());
    let value = bytes.into_iter().skip(skip).collect();
    Some(Checksum::full(algorithm, value))
}

fn verify(computed: Option<&Checksum>, wanted: Option<&Checksum>) -> Result<(), BlobError> {
    let Some(wanted) = wanted else {
        return Ok(());
    };
    let same =
        |found: &Checksum| found.algorithm == wanted.algorithm && found.value == wanted.value;
    if computed.is_some_and(same) {
        return Ok(());
    }
    let algorithm = wanted.algorithm;
    Err(BlobError::Body {
        fault: BodyFault::Checksum { algorithm },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_combined_crc_is_that_of_all_bytes() {
        let (one, two, three) = (&b"1234"[..], &b""[..], &b"56789"[..]);
        for algorithm in [Algorithm::Crc32, Algorithm::Crc32c, Algorithm::Crc64Nvme] {
            let values: Vec<Vec<u8>> = [one, two, three]
                .iter()
                .map(|piece| checksum::of(algorithm, piece))
                .collect();
            let pieces: Vec<(&[u8], u64)> = values
                .iter()
                .zip([4, 0, 5])
                .map(|(value, size)| (value.as_slice(), size))
                .collect();
            let combined = combine(algorithm, &pieces).expect("a CRC");
            let expected = checksum::of(algorithm, b"123456789");
            assert_eq!(combined.value, expected, "{algorithm}");
        }
        assert_eq!(combine(Algorithm::Sha1, &[(b"x", 1)]), None);
    }
}
