//! What an upload's parts come to: which are chosen, their size, `ETag` and checksum.
//!
//! Pure: no file, no index. Invariant: the object's tag and checksum are made of what is stored of
//! the parts, never of what the client says about them.

use crc_fast::{CrcAlgorithm, checksum_combine};

use super::records::{PartRow, StoredChecksum};

use crate::checksum::{self, Algorithm, Checksum, ChecksumKind};
use crate::error::{BlobError, BodyFault};
use crate::meta::ETag;
use crate::upload::{ChecksumChoice, MIN_PART_BYTES, PartChoice};

/// The parts of an object to be, and what is known of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Chosen {
    pub(super) parts: Vec<PartRow>,
    pub(super) size: u64,
    pub(super) etag: ETag,
    pub(super) checksum: Option<Checksum>,
}

/// Chooses the parts the client names from those that are there, which are in order.
pub(super) fn choose(
    there: Vec<PartRow>,
    choices: &[PartChoice],
    wanted: Option<(Algorithm, ChecksumChoice)>,
    expected: Option<&Checksum>,
) -> Result<Chosen, BlobError> {
    let pairs = choices.iter().zip(choices.iter().skip(1));
    let ascending = pairs
        .into_iter()
        .all(|(left, right)| left.number < right.number);
    if choices.is_empty() || !ascending {
        return Err(BlobError::PartOrder);
    }
    let mut there = there.into_iter();
    let mut parts = Vec::with_capacity(choices.len());
    for choice in choices {
        let found = there.find(|part| part.number >= choice.number);
        let part = found.filter(|part| fits(part, choice));
        let number = choice.number;
        parts.push(part.ok_or(BlobError::InvalidPart { number })?);
    }
    let all_but_last = parts.iter().rev().skip(1).rev();
    if let Some(small) = all_but_last
        .into_iter()
        .find(|p| p.file.size < MIN_PART_BYTES)
    {
        return Err(BlobError::PartTooSmall {
            number: small.number,
            size: small.file.size,
        });
    }
    let checksum = whole_checksum(&parts, wanted);
    if let Some(expected) = expected
        && checksum
            .as_ref()
            .is_none_or(|c| c.algorithm != expected.algorithm || c.value != expected.value)
    {
        let algorithm = expected.algorithm;
        let fault = BodyFault::Checksum { algorithm };
        return Err(BlobError::Body { fault });
    }
    let size = parts
        .iter()
        .fold(0, |sum: u64, part| sum.saturating_add(part.file.size));
    let md5s: Vec<u8> = parts
        .iter()
        .filter_map(|p| p.etag.md5())
        .flatten()
        .collect();
    Ok(Chosen {
        size,
        etag: ETag::of_parts(checksum::md5(&md5s), parts.len()),
        checksum,
        parts,
    })
}

fn fits(part: &PartRow, choice: &PartChoice) -> bool {
    let stored = part.checksum.as_ref().and_then(StoredChecksum::read);
    let same = match (&choice.checksum, stored) {
        (None, _) => true,
        (Some(said), Some(stored)) => {
            said.algorithm == stored.algorithm && said.value == stored.value
        }
        (Some(_), None) => false,
    };
    part.number == choice.number && part.etag == choice.etag && same
}

/// The checksum of the object, if all parts carry one of the same algorithm.
fn whole_checksum(
    parts: &[PartRow],
    wanted: Option<(Algorithm, ChecksumChoice)>,
) -> Option<Checksum> {
    let carried: Option<Vec<(Checksum, u64)>> = parts
        .iter()
        .map(|part| Some((part.checksum.as_ref()?.read()?, part.file.size)))
        .collect();
    let carried = carried?;
    let algorithm = carried.first()?.0.algorithm;
    let same = carried.iter().all(|(c, _)| c.algorithm == algorithm);
    if !same || wanted.is_some_and(|(wanted, _)| wanted != algorithm) {
        return None;
    }
    if wanted.is_some_and(|(_, choice)| choice == ChecksumChoice::FullObject) {
        return combined(algorithm, &carried);
    }
    let values: Vec<u8> = carried.iter().flat_map(|(c, _)| c.value.clone()).collect();
    Some(Checksum {
        algorithm,
        value: checksum::of(algorithm, &values),
        kind: ChecksumKind::Composite {
            parts: u32::try_from(carried.len()).unwrap_or(u32::MAX),
        },
    })
}

/// The CRC of all bytes, from those of the parts; none for hashes, which cannot be combined.
fn combined(algorithm: Algorithm, carried: &[(Checksum, u64)]) -> Option<Checksum> {
    let crc = crc_of(algorithm)?;
    let mut all: Option<u64> = None;
    for (checksum, size) in carried {
        let value = checksum
            .value
            .iter()
            .fold(0, |n: u64, byte| n << 8 | u64::from(*byte));
        all = Some(all.map_or(value, |before| checksum_combine(crc, before, value, *size)));
    }
    let bytes = all?.to_be_bytes();
    let (_, value) = bytes.split_at_checked(bytes.len().checked_sub(algorithm.length())?)?;
    Some(Checksum::full(algorithm, value.to_vec()))
}

/// The algorithm for combining, if it is a CRC.
pub(super) fn crc_of(algorithm: Algorithm) -> Option<CrcAlgorithm> {
    match algorithm {
        Algorithm::Crc32 => Some(CrcAlgorithm::Crc32IsoHdlc),
        Algorithm::Crc32c => Some(CrcAlgorithm::Crc32Iscsi),
        Algorithm::Crc64Nvme => Some(CrcAlgorithm::Crc64Nvme),
        Algorithm::Sha1 | Algorithm::Sha256 => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::records::FileRef;
    use super::*;

    const MIB: u64 = 1024 * 1024;

    fn part(number: u16, size: u64, algorithm: Option<Algorithm>, bytes: &[u8]) -> PartRow {
        let of = |algorithm| Checksum::full(algorithm, checksum::of(algorithm, bytes));
        PartRow {
            number,
            file: FileRef {
                generation: u64::from(number) + 100,
                size,
                file_bytes: size + 100,
            },
            etag: ETag::of_md5(checksum::md5(bytes)),
            modified_ms: 1,
            checksum: algorithm.map(|algorithm| StoredChecksum::from(&of(algorithm))),
        }
    }

    fn choice(part: &PartRow) -> PartChoice {
        PartChoice {
            number: part.number,
            etag: part.etag.clone(),
            checksum: None,
        }
    }

    #[test]
    fn parts_must_be_in_order_known_and_large_enough() {
        let there = [
            part(1, 5 * MIB, None, b"a"),
            part(2, 5 * MIB - 1, None, b"b"),
            part(7, 1, None, b"c"),
        ];
        let check = |numbers: &[usize], expected: &str| {
            let choices: Vec<_> = numbers.iter().map(|n| choice(&there[*n])).collect();
            let error = choose(there.to_vec(), &choices, None, None).expect_err("refused");
            assert!(format!("{error:?}").starts_with(expected), "{error:?}");
        };
        check(&[], "PartOrder");
        check(&[1, 0], "PartOrder");
        check(&[0, 0], "PartOrder");
        check(&[0, 1, 2], "PartTooSmall { number: 2");
        let good = [choice(&there[0]), choice(&there[2])];
        let chosen = choose(there.to_vec(), &good, None, None).expect("good");
        assert_eq!(chosen.size, 5 * MIB + 1);
        assert!(chosen.etag.as_str().ends_with("-2"));
        let check = |wrong: PartChoice| {
            let number = wrong.number;
            let error = choose(there.to_vec(), &[wrong], None, None).expect_err("refused");
            assert!(
                matches!(error, BlobError::InvalidPart { number: n } if n == number),
                "{error:?}"
            );
        };
        let mut wrong = good[0].clone();
        wrong.number = 3;
        check(wrong.clone());
        wrong.number = 2;
        check(wrong.clone());
        wrong.number = 9;
        check(wrong);
        let mut wrong = good[0].clone();
        wrong.checksum = Some(Checksum::full(Algorithm::Crc32, vec![0; 4]));
        check(wrong);
    }

    #[test]
    fn crcs_of_parts_are_combined_and_hashes_of_parts_hashed() {
        let first = vec![b'x'; 5 * 1024 * 1024];
        let whole = [&first[..], b"end"].concat();
        for algorithm in Algorithm::ALL.iter().copied() {
            let there = vec![
                part(1, first.len() as u64, Some(algorithm), &first),
                part(2, 3, Some(algorithm), b"end"),
            ];
            let choices: Vec<_> = there.iter().map(choice).collect();
            let wanted = Some((algorithm, ChecksumChoice::FullObject));
            let found = choose(there.clone(), &choices, wanted, None).expect("good");
            let full = Checksum::full(algorithm, checksum::of(algorithm, &whole));
            let expected = crc_of(algorithm).map(|_| full.clone());
            assert_eq!(found.checksum, expected, "{algorithm}");
            let error = choose(there.clone(), &choices, None, Some(&full));
            assert!(matches!(error, Err(BlobError::Body { .. })), "{algorithm}");
            let composite = choose(there, &choices, None, None).expect("good").checksum;
            let kind = composite.expect("one is kept").kind;
            assert_eq!(kind, ChecksumKind::Composite { parts: 2 });
        }
    }
}
