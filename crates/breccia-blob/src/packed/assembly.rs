//! What the parts of an upload make together: which of them, in which order, with which digests.
//!
//! Not how a member joins them. Invariant: nothing is joined that the client did not name by its
//! tag.

use std::collections::BTreeMap;

use crate::checksum::{self, Algorithm, Checksum, ChecksumKind};
use crate::error::{BlobError, BodyFault};
use crate::meta::{ETag, PartSize};
use crate::s3::codec::checksum as codec;
use crate::upload::{ChecksumChoice, CompleteOptions, MIN_PART_BYTES, PartChoice, PartInfo};

/// A part as a member keeps it.
#[derive(Debug, Clone)]
pub(crate) struct StoredPart {
    pub(crate) info: PartInfo,
    /// The name of the object that keeps it, or keeps what is known of it.
    pub(crate) name: String,
    /// The version of that object.
    pub(crate) native: String,
    /// The block that holds its bytes, where parts are blocks.
    pub(crate) block: Option<String>,
}

/// What is to be made of an upload.
#[derive(Debug)]
pub(crate) struct Assembly {
    pub(crate) parts: Vec<StoredPart>,
    pub(crate) etag: ETag,
    pub(crate) checksum: Option<Checksum>,
    pub(crate) size: u64,
}

impl Assembly {
    /// Chooses the parts and computes what is known of the whole.
    ///
    /// # Errors
    /// What [`crate::store::BlobStore::complete_upload`] refuses.
    pub(crate) fn choose(
        stored: Vec<StoredPart>,
        choices: &[PartChoice],
        wanted: Option<(Algorithm, ChecksumChoice)>,
        options: &CompleteOptions,
    ) -> Result<Self, BlobError> {
        let mut stored: BTreeMap<u16, StoredPart> = stored
            .into_iter()
            .map(|part| (part.info.number, part))
            .collect();
        let last = choices.last().map_or(1, |choice| choice.number);
        if choices.is_empty() {
            return Err(BlobError::InvalidPart { number: last });
        }
        let mut before = 0;
        for choice in choices {
            if choice.number <= before {
                return Err(BlobError::PartOrder);
            }
            before = choice.number;
        }
        let mut parts = Vec::with_capacity(choices.len());
        for choice in choices {
            let number = choice.number;
            let part = stored
                .remove(&number)
                .filter(|part| fits(&part.info, choice))
                .ok_or(BlobError::InvalidPart { number })?;
            parts.push(part);
        }
        for part in &parts {
            let (number, size) = (part.info.number, part.info.size);
            if size < MIN_PART_BYTES && number != last {
                return Err(BlobError::PartTooSmall { number, size });
            }
        }
        let checksum = checksum_of(&parts, wanted);
        verify(checksum.as_ref(), options.checksum.as_ref())?;
        Ok(Self {
            etag: etag_of(&parts)?,
            checksum,
            size: parts
                .iter()
                .fold(0, |sum, part| part.info.size.saturating_add(sum)),
            parts,
        })
    }

    /// Numbers and sizes.
    pub(crate) fn sizes(&self) -> Vec<PartSize> {
        let sizes = self.parts.iter().map(|part| PartSize {
            number: part.info.number,
            size: part.info.size,
        });
        sizes.collect()
    }
}

fn fits(part: &PartInfo, choice: &PartChoice) -> bool {
    let same = |wanted: &Checksum| {
        part.checksum
            .as_ref()
            .is_some_and(|kept| kept.algorithm == wanted.algorithm && kept.value == wanted.value)
    };
    part.etag == choice.etag && choice.checksum.as_ref().is_none_or(same)
}

fn etag_of(parts: &[StoredPart]) -> Result<ETag, BlobError> {
    let mut all = Vec::with_capacity(parts.len().saturating_mul(16));
    for part in parts {
        let number = part.info.number;
        let md5 = part.info.etag.md5();
        all.extend_from_slice(&md5.ok_or(BlobError::InvalidPart { number })?);
    }
    Ok(ETag::of_parts(checksum::md5(&all), parts.len()))
}

/// The checksum of the whole, if all parts have one of the same algorithm.
fn checksum_of(
    parts: &[StoredPart],
    wanted: Option<(Algorithm, ChecksumChoice)>,
) -> Option<Checksum> {
    let first = parts.first()?.info.checksum.as_ref()?.algorithm;
    let (algorithm, choice) = wanted.unwrap_or((first, ChecksumChoice::Composite));
    let mut values = Vec::with_capacity(parts.len());
    for part in parts {
        let kept = part.info.checksum.as_ref();
        let kept = kept.filter(|kept| kept.algorithm == algorithm)?;
        values.push((kept.value.as_slice(), part.info.size));
    }
    match choice {
        ChecksumChoice::FullObject => {
            let known = codec::Algorithm::from_name(algorithm.name())?;
            let value = codec::full_object(known, values).ok()?;
            Some(Checksum::full(algorithm, value))
        }
        ChecksumChoice::Composite => {
            let mut hasher = checksum::Hasher::new(algorithm);
            for (value, _) in values {
                hasher.update(value);
            }
            Some(Checksum {
                algorithm,
                value: hasher.finish(),
                kind: ChecksumKind::Composite {
                    parts: u32::try_from(parts.len()).ok()?,
                },
            })
        }
    }
}

fn verify(computed: Option<&Checksum>, wanted: Option<&Checksum>) -> Result<(), BlobError> {
    let Some(wanted) = wanted else {
        return Ok(());
    };
    let algorithm = wanted.algorithm;
    if computed.is_some_and(|found| found.algorithm == algorithm && found.value == wanted.value) {
        return Ok(());
    }
    Err(BlobError::Body {
        fault: BodyFault::Checksum { algorithm },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(number: u16, size: u64, bytes: &[u8]) -> StoredPart {
        let value = checksum::of(Algorithm::Crc32c, bytes);
        StoredPart {
            info: PartInfo {
                number,
                size,
                etag: ETag::of_md5(checksum::md5(bytes)),
                checksum: Some(Checksum::full(Algorithm::Crc32c, value)),
                modified_ms: 0,
            },
            name: String::new(),
            native: String::new(),
            block: None,
        }
    }

    fn choice(part: &StoredPart) -> PartChoice {
        PartChoice {
            number: part.info.number,
            etag: part.info.etag.clone(),
            checksum: part.info.checksum.clone(),
        }
    }

    #[test]
    fn parts_are_chosen_by_number_tag_and_size() {
        let stored = [
            part(1, MIN_PART_BYTES, b"a"),
            part(2, MIN_PART_BYTES, b"b"),
            part(5, 1, b"c"),
        ];
        let check = |places: &[usize], right: fn(&Result<Assembly, BlobError>) -> bool| {
            let choices: Vec<PartChoice> =
                places.iter().map(|place| choice(&stored[*place])).collect();
            let options = CompleteOptions::default();
            let found = Assembly::choose(stored.to_vec(), &choices, None, &options);
            assert!(right(&found), "{places:?}: {found:?}");
        };
        check(&[0, 1, 2], |found| {
            found
                .as_ref()
                .is_ok_and(|found| found.parts.len() == 3 && found.etag.as_str().ends_with("-3"))
        });
        check(&[0, 2], Result::is_ok);
        check(&[], |found| {
            matches!(found, Err(BlobError::InvalidPart { number: 1 }))
        });
        check(&[1, 0], |found| matches!(found, Err(BlobError::PartOrder)));
        check(&[0, 0], |found| matches!(found, Err(BlobError::PartOrder)));
        let mut wrong = choice(&stored[0]);
        wrong.number = 2;
        let found = Assembly::choose(stored.to_vec(), &[wrong], None, &CompleteOptions::default());
        assert!(matches!(found, Err(BlobError::InvalidPart { number: 2 })));
    }

    #[test]
    fn the_checksum_is_of_the_parts_or_of_the_whole() {
        let whole = b"0123456789";
        let mut stored = vec![part(1, 4, b"0123"), part(2, 6, b"456789")];
        for part in &mut stored {
            part.info.size = if part.info.number == 1 { 4 } else { 6 };
        }
        let full = checksum_of(
            &stored,
            Some((Algorithm::Crc32c, ChecksumChoice::FullObject)),
        );
        let expected = checksum::of(Algorithm::Crc32c, whole);
        assert_eq!(full.map(|found| found.value), Some(expected));
        let composite = checksum_of(&stored, None).expect("all have one");
        assert_eq!(composite.kind, ChecksumKind::Composite { parts: 2 });
        assert!(checksum_of(&stored, Some((Algorithm::Sha1, ChecksumChoice::Composite))).is_none());
        let wrong = Checksum::full(Algorithm::Crc32c, vec![0; 4]);
        assert!(verify(Some(&composite), Some(&wrong)).is_err());
    }
}
