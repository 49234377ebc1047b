//! Tests of chunked bodies, with the examples of AWS's documentation.
//!
//! Invariant: a body is read whole, and in pieces, to the same end.

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::s3::codec::hex;
use crate::s3::codec::sigv4::{Scope, SigningKey};

const SECRET: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
const SEED: &str = "4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9";
const TRAILER_SEED: &str = "106e2a8a18243abcf37539882f36619c00e2dfc72633413f02d3b74544bfeb8e";

fn signer(seed: &str) -> ChunkSigner {
    let key = SigningKey::derive(SECRET, Scope::s3("20130524", "us-east-1"));
    let seed = hex::decode(seed.as_bytes()).unwrap();
    ChunkSigner::new(key, "20130524T000000Z".to_owned(), seed)
}

/// What a body says in the end.
type Answer = Result<(Vec<u8>, Vec<(String, String)>), ChunkError>;

fn read(mut decoder: Decoder, pieces: &[&[u8]]) -> Answer {
    let (mut data, mut trailers) = (Vec::new(), Vec::new());
    for piece in pieces {
        let mut input = Bytes::copy_from_slice(piece);
        while let Some(event) = decoder.next(&mut input)? {
            match event {
                Event::Data(bytes) => data.extend_from_slice(&bytes),
                Event::Trailer { name, value } => trailers.push((name, value)),
                Event::End => {}
            }
        }
        assert!(input.is_empty());
    }
    decoder.finish()?;
    Ok((data, trailers))
}

fn plain(length: u64, trailers: &[&str]) -> Decoder {
    Decoder::new(None, length, trailers.iter().copied()).unwrap()
}

fn signed(length: u64, trailers: &[&str]) -> Decoder {
    Decoder::new(Some(signer(SEED)), length, trailers.iter().copied()).unwrap()
}

fn checksum() -> Vec<(String, String)> {
    vec![("x-amz-checksum-crc32c".to_owned(), "sOO8/Q==".to_owned())]
}

#[test]
fn the_example_of_aws_is_written_and_read() {
    let mut body = Vec::new();
    let mut encoder = Encoder::new(Some(signer(SEED)));
    body.extend_from_slice(&encoder.chunk(&vec![b'a'; 65_536]));
    body.extend_from_slice(&encoder.chunk(&[b'a'; 1024]));
    body.extend_from_slice(&encoder.finish(&[]));
    assert_eq!(body.len(), 66_824);
    assert_eq!(Encoder::length(true, [65_536, 1024]), 66_824);
    let text = String::from_utf8(body.clone()).unwrap();
    for header in [
        "10000;chunk-signature=ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648\r\n",
        "400;chunk-signature=0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497\r\n",
        "0;chunk-signature=b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9\r\n\r\n",
    ] {
        assert!(text.contains(header), "{header}");
    }
    assert_eq!(
        read(signed(66_560, &[]), &[&body]),
        Ok((vec![b'a'; 66_560], vec![]))
    );
}

#[test]
fn the_trailer_example_of_aws_is_written_and_read() {
    let mut body = Vec::new();
    let mut encoder = Encoder::new(Some(signer(TRAILER_SEED)));
    body.extend_from_slice(&encoder.chunk(&vec![b'a'; 65_536]));
    body.extend_from_slice(&encoder.chunk(&[b'a'; 1024]));
    body.extend_from_slice(&encoder.finish(&checksum()));
    let text = String::from_utf8(body.clone()).unwrap();
    for header in [
        "10000;chunk-signature=b474d8862b1487a5145d686f57f013e54db672cee1c953b3010fb58501ef5aa2\r\n",
        "400;chunk-signature=1c1344b170168f8e65b41376b44b20fe354e373826ccbbe2c1d40a8cae51e5c7\r\n",
        "0;chunk-signature=2ca2aba2005185cf7159c6277faf83795951dd77a3a99e6e65d5c9f85863f992\r\n",
        "x-amz-checksum-crc32c:sOO8/Q==\r\n",
        "x-amz-trailer-signature:d81f82fc3505edab99d459891051a732e8730629a2e4a59689829ca17fe2e435\r\n\r\n",
    ] {
        assert!(text.contains(header), "{header}");
    }
    let decoder = || {
        let names = ["X-Amz-Checksum-CRC32C"];
        Decoder::new(Some(signer(TRAILER_SEED)), 66_560, names).unwrap()
    };
    assert_eq!(
        read(decoder(), &[&body]),
        Ok((vec![b'a'; 66_560], checksum()))
    );
    let forged = text.replace("sOO8/Q==", "sOO8/A==");
    assert_eq!(
        read(decoder(), &[forged.as_bytes()]),
        Err(ChunkError::TrailerSignature)
    );
    let start = text.find("x-amz-trailer-signature").unwrap();
    let unsigned = format!("{}\r\n", &text[..start]);
    assert_eq!(
        read(decoder(), &[unsigned.as_bytes()]),
        Err(ChunkError::TrailerSignature)
    );
}

#[test]
fn unsigned_bodies_are_read_with_their_trailers() {
    let check = |body: &str, length: u64, trailers: &[&str], expected: Answer| {
        assert_eq!(
            read(plain(length, trailers), &[body.as_bytes()]),
            expected,
            "{body:?}"
        );
    };
    let good = |data: &str| Ok((data.as_bytes().to_vec(), vec![]));
    check("0\r\n\r\n", 0, &[], good(""));
    check("3\r\nabc\r\n0\r\n\r\n", 3, &[], good("abc"));
    check(
        "0003\r\na\r\n\r\n1\r\nb\r\n0\r\n\r\n",
        4,
        &[],
        good("a\r\nb"),
    );
    let with_value = Ok((b"a".to_vec(), vec![("x-b".to_owned(), "v w".to_owned())]));
    check("1\r\na\r\n0\r\nX-B: v w \r\n\r\n", 1, &["x-b"], with_value);
    let malformed = |what| Err(ChunkError::Malformed { what });
    check(
        "3\r\nabcd\r\n0\r\n\r\n",
        3,
        &[],
        malformed("a chunk is longer than its size"),
    );
    for size in ["", "+1", "g", "1;x", "11111111111111111", " 1"] {
        check(
            &format!("{size}\r\na\r\n0\r\n\r\n"),
            1,
            &[],
            malformed("a size is not a number"),
        );
    }
    check(
        "1\na\r\n0\r\n\r\n",
        1,
        &[],
        malformed("a line does not end with CR LF"),
    );
    let length = |declared| Err(ChunkError::Length { declared });
    check("2\r\nab\r\n0\r\n\r\n", 1, &[], length(1));
    check("2\r\nab\r\n0\r\n\r\n", 3, &[], length(3));
    check("0\r\n\r\nx", 0, &[], Err(ChunkError::Extra));
    let trailer = |name: &str| {
        let name = name.to_owned();
        Err(ChunkError::Trailer { name })
    };
    check("0\r\nx-c:1\r\n\r\n", 0, &["x-b"], trailer("x-c"));
    check("0\r\nx-b:1\r\nx-b:2\r\n\r\n", 0, &["x-b"], trailer("x-b"));
    let missing = ChunkError::TrailerMissing {
        name: "x-b".to_owned(),
    };
    check("0\r\n\r\n", 0, &["x-b"], Err(missing));
    let long = "1".repeat(MOST_HEADER_LINE_BYTES);
    let limit = MOST_HEADER_LINE_BYTES;
    check(&long, 1, &[], Err(ChunkError::Incomplete));
    check(
        &format!("{long}1"),
        1,
        &[],
        Err(ChunkError::LineTooLong { limit }),
    );
    let names = vec!["a"; MOST_TRAILERS + 1];
    assert!(Decoder::new(None, 0, names).is_err());
}

#[test]
fn a_changed_chunk_is_told_at_its_end() {
    let mut encoder = Encoder::new(Some(signer(SEED)));
    let mut body = [encoder.chunk(b"first"), encoder.chunk(b"second")].concat();
    body.extend_from_slice(&encoder.finish(&[]));
    let text = String::from_utf8(body).unwrap();
    let check = |from: &str, to: &str, error: ChunkError| {
        let changed = text.replace(from, to);
        assert_ne!(changed, text);
        assert_eq!(read(signed(11, &[]), &[changed.as_bytes()]), Err(error));
    };
    check("first", "fIrst", ChunkError::ChunkSignature { chunk: 1 });
    check("second", "seconD", ChunkError::ChunkSignature { chunk: 2 });
    let last = text.rfind("0;chunk").unwrap();
    let cut = &text[last..];
    let alone = read(signed(0, &[]), &[cut.as_bytes()]);
    assert_eq!(alone, Err(ChunkError::ChunkSignature { chunk: 1 }));
    let unsigned = ChunkError::Malformed {
        what: "a chunk has no signature",
    };
    check(";chunk-signature=", ";chunk-sign=", unsigned);
}

#[test]
fn every_shorter_body_is_incomplete_and_every_cut_the_same() {
    for is_signed in [false, true] {
        let signer = || is_signed.then(|| signer(SEED));
        let mut encoder = Encoder::new(signer());
        let mut body = [encoder.chunk(b"first"), encoder.chunk(b"second")].concat();
        body.extend_from_slice(&encoder.finish(&checksum()));
        let decoder = || Decoder::new(signer(), 11, ["x-amz-checksum-crc32c"]).unwrap();
        for cut in 0..=body.len() {
            let (front, back) = body.split_at(cut);
            let expected = Ok((b"firstsecond".to_vec(), checksum()));
            assert_eq!(read(decoder(), &[front, back]), expected, "{cut}");
            if cut < body.len() {
                assert_eq!(
                    read(decoder(), &[front]),
                    Err(ChunkError::Incomplete),
                    "{cut}"
                );
            }
        }
        let singles: Vec<&[u8]> = body.chunks(1).collect();
        assert!(read(decoder(), &singles).is_ok());
    }
}

proptest! {
    #[test]
    fn any_bytes_give_one_answer_however_cut(
        pieces in proptest::collection::vec("(3\r\nabc\r\n|0\r\n|x-b:1\r\n|\r\n|\n|1|a|;){1,4}", 1..6)
    ) {
        let whole = pieces.concat();
        let parts: Vec<&[u8]> = pieces.iter().map(String::as_bytes).collect();
        let expected = read(plain(3, &["x-b"]), &[whole.as_bytes()]);
        prop_assert_eq!(read(plain(3, &["x-b"]), &parts), expected);
    }

    #[test]
    fn what_is_written_is_read(chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..5)) {
        let mut encoder = Encoder::new(Some(signer(SEED)));
        let mut body: Vec<u8> = Vec::new();
        for chunk in &chunks {
            body.extend_from_slice(&encoder.chunk(chunk));
        }
        body.extend_from_slice(&encoder.finish(&[]));
        let length = |chunk: &Vec<u8>| u64::try_from(chunk.len()).unwrap();
        let total = chunks.iter().map(length).sum();
        prop_assert_eq!(Encoder::length(true, chunks.iter().map(length)), length(&body));
        prop_assert_eq!(read(signed(total, &[]), &[&body]), Ok((chunks.concat(), vec![])));
    }
}
