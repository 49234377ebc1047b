//! Tests of checksums. Not here: bodies.
//!
//! Invariant: the published check values hold.

use super::*;
use crate::s3::codec::hex;
use proptest::prelude::*;

const ALL: [Algorithm; 6] = [
    Algorithm::Crc32,
    Algorithm::Crc32c,
    Algorithm::Crc64Nvme,
    Algorithm::Sha1,
    Algorithm::Sha256,
    Algorithm::Md5,
];

#[test]
fn published_check_values_hold() {
    let check = |algorithm: Algorithm, expected: &str| {
        assert_eq!(hex::encode(&algorithm.of(b"123456789")), expected);
    };
    check(Algorithm::Crc32, "cbf43926");
    check(Algorithm::Crc32c, "e3069283");
    check(Algorithm::Crc64Nvme, "ae8b14860a799888");
    check(Algorithm::Sha1, "f7c3bc1d808e04732adf679965ccc34ca7ae3441");
    check(
        Algorithm::Sha256,
        "15e2b0d3c33891ebb0f1ef609ec419420c20e320ce94c65fbc8c3312448eb225",
    );
    check(Algorithm::Md5, "25f9e794323b453885f5181f1b624d0b");
}

#[test]
fn names_headers_and_lengths_agree() {
    for algorithm in ALL {
        let checksum = algorithm.of(b"x");
        assert_eq!(checksum.len(), algorithm.length());
        assert_eq!(from_base64(algorithm, &to_base64(&checksum)), Ok(checksum));
        assert_eq!(Algorithm::from_header(algorithm.header()), Some(algorithm));
    }
    assert_eq!(
        Algorithm::from_name("crc64nvme"),
        Some(Algorithm::Crc64Nvme)
    );
    assert_eq!(Algorithm::from_name("MD5"), None);
    assert_eq!(
        ChecksumType::from_name("COMPOSITE"),
        Some(ChecksumType::Composite)
    );
}

#[test]
fn checksums_of_another_length_or_form_are_refused() {
    let check = |text: &str| {
        let wrong = ChecksumError::Value {
            algorithm: Algorithm::Crc32,
        };
        assert_eq!(from_base64(Algorithm::Crc32, text), Err(wrong), "{text}");
    };
    for text in [
        "",
        "AAAAAA",
        "AAAAAAA=",
        "AAAAAB==",
        "AAAAAA==\n",
        "AAAA AA=",
        "????AA==",
    ] {
        check(text);
    }
    assert_eq!(from_base64(Algorithm::Crc32, "AAAAAA=="), Ok(vec![0; 4]));
}

#[test]
fn composites_are_checksums_of_checksums() {
    let parts = [Algorithm::Sha256.of(b"a"), Algorithm::Sha256.of(b"b")];
    let text = composite(Algorithm::Sha256, parts.iter().map(Vec::as_slice)).unwrap();
    let expected = Algorithm::Sha256.of(&parts.concat());
    assert_eq!(text, format!("{}-2", to_base64(&expected)));
    assert_eq!(from_composite(Algorithm::Sha256, &text), Ok((expected, 2)));
    for wrong in [
        "AAAAAA==",
        "AAAAAA==-",
        "AAAAAA==-+1",
        "AAAAA==-1",
        "AAAAAA==-99999999999",
    ] {
        assert!(from_composite(Algorithm::Crc32, wrong).is_err(), "{wrong}");
    }
    let refused = ChecksumError::NotCombinable {
        algorithm: Algorithm::Crc64Nvme,
        checksum_type: ChecksumType::Composite,
    };
    assert_eq!(composite(Algorithm::Crc64Nvme, []), Err(refused));
    assert!(full_object(Algorithm::Sha1, []).is_err());
    assert!(full_object(Algorithm::Crc32, [(&[1_u8, 2][..], 2)]).is_err());
}

proptest! {
    #[test]
    fn parts_combine_to_the_whole(parts in proptest::collection::vec(
        proptest::collection::vec(any::<u8>(), 0..50), 0..6)) {
        for algorithm in [Algorithm::Crc32, Algorithm::Crc32c, Algorithm::Crc64Nvme] {
            let sums: Vec<(Vec<u8>, u64)> = parts
                .iter()
                .map(|part| (algorithm.of(part), u64::try_from(part.len()).unwrap()))
                .collect();
            let whole = full_object(algorithm, sums.iter().map(|(sum, length)| (&sum[..], *length)));
            prop_assert_eq!(whole, Ok(algorithm.of(&parts.concat())));
        }
    }

    #[test]
    fn pieces_give_the_checksum_of_the_whole(data in proptest::collection::vec(any::<u8>(), 0..300), cut in 0_usize..300) {
        let (front, back) = data.split_at(cut.min(data.len()));
        for algorithm in ALL {
            let mut hasher = Hasher::new(algorithm);
            hasher.update(front);
            hasher.update(back);
            prop_assert_eq!(hasher.finish(), algorithm.of(&data));
        }
    }
}
