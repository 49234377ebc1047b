//! Golden vectors of every hash, and what a hash tag cuts out.
//!
//! The vectors were computed with other implementations: Python's xxhash (the reference C code),
//! binascii and zlib, and FNV-1a from its definition.
//!
//! Invariant: no vector here ever changes.

use proptest::prelude::*;

use super::*;

/// The bytes 0, 1, … 250, 0, …
fn counted(length: usize) -> Vec<u8> {
    (0..=250_u8).cycle().take(length).collect()
}

/// `hashes`: xxh3-64, fnv1a-64, crc16-xmodem, crc32-iso-hdlc.
fn check(key: &[u8], hashes: [u64; 4]) {
    let first_byte = key.first().copied().map_or(0, u64::from);
    let expected = hashes.into_iter().chain([first_byte]);
    assert_eq!(HashKind::ALL.len(), 5);
    for (kind, expected) in HashKind::ALL.iter().zip(expected) {
        assert_eq!(kind.hash(key), expected, "{kind} of {key:02x?}");
    }
}

#[test]
fn golden_vectors_hold() {
    check(
        b"",
        [
            0x2d06_8005_38d3_94c2,
            0xcbf2_9ce4_8422_2325,
            0x0000,
            0x0000_0000,
        ],
    );
    check(
        b"a",
        [
            0xe6c6_32b6_1e96_4e1f,
            0xaf63_dc4c_8601_ec8c,
            0x7c87,
            0xe8b7_be43,
        ],
    );
    check(
        b"foobar",
        [
            0xd78f_da63_144c_5c84,
            0x8594_4171_f739_67e8,
            0xb025,
            0x9ef6_1f95,
        ],
    );
    check(
        b"hello",
        [
            0x9555_e855_5c62_dcfd,
            0xa430_d846_80aa_bd0b,
            0xc362,
            0x3610_a686,
        ],
    );
    check(
        b"123456789",
        [
            0x72dc_b18b_67a1_7dff,
            0x06d5_5739_23c6_cdfc,
            0x31c3,
            0xcbf4_3926,
        ],
    );
}

#[test]
fn golden_vectors_of_binary_keys_hold() {
    check(
        b"\x01hello",
        [
            0xa82b_fa4e_5f4e_ecc9,
            0xe657_88c8_60f9_c52c,
            0x86c2,
            0x8aac_239d,
        ],
    );
    check(
        &[0; 32],
        [
            0xa057_271c_9071_c99d,
            0x0c82_1078_4d8a_f5a5,
            0x0000,
            0x190a_55ad,
        ],
    );
    check(
        &[0xff; 32],
        [
            0x36f6_a79e_eaf6_03f2,
            0x9ac5_e121_19fd_3f85,
            0x84b4,
            0xff6c_ab0b,
        ],
    );
}

#[test]
fn golden_vectors_hold_for_every_length_class() {
    check(
        &counted(17),
        [
            0x9ef3_41a9_9de3_7328,
            0x1ada_3547_1726_c09f,
            0x65e5,
            0x2c18_3a19,
        ],
    );
    check(
        &counted(32),
        [
            0x3523_581f_e96e_4c05,
            0xe6cb_594c_1a14_8ac5,
            0xd2ff,
            0x9126_7e8a,
        ],
    );
    check(
        &counted(129),
        [
            0xec76_42b4_31ba_3e5a,
            0x3c50_fcf9_0ff1_3adf,
            0xe7ae,
            0xca91_cdf7,
        ],
    );
    check(
        &counted(240),
        [
            0x375a_384d_957f_e865,
            0xf2f9_72d8_a87c_5ad5,
            0x27de,
            0xa60b_0b66,
        ],
    );
    check(
        &counted(241),
        [
            0x02e8_cd95_421c_6d02,
            0x5a38_4b26_4b4d_2cdf,
            0x659a,
            0xcbc8_d2f7,
        ],
    );
    check(
        &counted(1025),
        [
            0xe95c_4228_8f28_186e,
            0xabd8_d92d_a7b6_3a4b,
            0x11a9,
            0x4e70_0dfb,
        ],
    );
    check(
        &counted(65536),
        [
            0xaaae_6380_0707_a868,
            0x7df7_1ef4_4570_7abc,
            0xe71f,
            0x7faa_50d3,
        ],
    );
}

#[test]
fn plain_rule_agrees_with_other_programs() {
    let check = |key: &[u8], by_3: u64, by_5: u64| {
        let hash = HashKind::default().hash(key);
        assert_eq!((hash % 3, hash % 5), (by_3, by_5), "{key:02x?}");
    };
    check(b"hello", 2, 4);
    check(&[0; 32], 2, 4);
    check(&counted(32), 1, 1);
    check(&[0xff; 32], 0, 0);
    check(b"\x01hello", 0, 4);
    check(b"", 1, 3);
}

#[test]
fn splitmix64_golden_vectors_hold() {
    let check = |x: u64, mixed: u64| assert_eq!(splitmix64(x), mixed);
    check(0, 0xe220_a839_7b1d_cdaf);
    check(1, 0x910a_2dec_8902_5cc1);
    check(u64::MAX, 0xe4d9_7177_1b65_2c20);
    check(0x9555_e855_5c62_dcfd, 0x9a4b_f9bd_130b_59f9);
}

#[test]
fn names_are_frozen_and_read_back() {
    let names: Vec<&str> = HashKind::ALL.iter().map(|kind| kind.name()).collect();
    let frozen = [
        "xxh3-64",
        "fnv1a-64",
        "crc16-xmodem",
        "crc32-iso-hdlc",
        "first-byte",
    ];
    assert_eq!(names, frozen);
    for kind in HashKind::ALL {
        assert_eq!(kind.name().parse(), Ok(*kind));
        assert_eq!(kind.to_string(), kind.name());
    }
    let error = "xxh3"
        .parse::<HashKind>()
        .expect_err("no such name")
        .to_string();
    assert!(
        error.contains("'xxh3'") && error.contains("xxh3-64, fnv1a-64"),
        "{error}"
    );
}

#[test]
fn hash_tag_cuts_as_redis_cluster_does() {
    let check = |tag: &str, key: &str, part: &str| {
        let tag: HashTag = tag.parse().expect("a tag");
        assert_eq!(tag.hashed_part(key.as_bytes()), part.as_bytes(), "{key}");
    };
    check("{}", "{user1000}.following", "user1000");
    check("{}", "a{b}c{d}", "b");
    check("{}", "foo{}{bar}", "foo{}{bar}");
    check("{}", "foo{{bar}}zap", "{bar");
    check("{}", "foo}{bar}", "bar");
    check("{}", "{bar", "{bar");
    check("{}", "bar}", "bar}");
    check("{}", "{", "{");
    check("{}", "", "");
    check("||", "a|b|c", "b");
    check("||", "a|b", "a|b");
}

#[test]
fn hash_tags_are_two_printable_characters() {
    for text in ["", "{", "{}{", "{ ", "é", "{\n", "\"\"", "{\\"] {
        let error = text.parse::<HashTag>().expect_err(text).to_string();
        assert!(error.contains("as in \"{}\""), "{error}");
    }
    assert_eq!(
        "{}".parse::<HashTag>().map(|tag| tag.to_string()),
        Ok("{}".to_owned())
    );
}

proptest! {
    #[test]
    fn hashed_part_is_a_part_of_the_key_and_never_lost(key: Vec<u8>) {
        let tag: HashTag = "{}".parse().expect("a tag");
        let part = tag.hashed_part(&key);
        prop_assert!(part.len() <= key.len());
        prop_assert!(key.is_empty() || !part.is_empty());
        let holds_the_end = part.contains(&b'}');
        prop_assert!(part.len() == key.len() || !holds_the_end);
    }

    #[test]
    fn tagged_keys_hash_as_their_tag(before in "[a-z]{0,8}", tag in "[a-z]{1,8}", after: Vec<u8>) {
        let key = [before.as_bytes(), b"{", tag.as_bytes(), b"}", &after].concat();
        let braces: HashTag = "{}".parse().expect("a tag");
        prop_assert_eq!(braces.hashed_part(&key), tag.as_bytes());
    }
}
