use proptest::prelude::*;

use super::handshake::{AuthSwitch, ChangeUser, Greeting, Response};
use super::*;

const ALL: u64 = capabilities::PROTOCOL_41
    | capabilities::SESSION_TRACK
    | capabilities::PLUGIN_AUTH
    | capabilities::PLUGIN_AUTH_LENENC
    | capabilities::SECURE_CONNECTION
    | capabilities::CONNECT_WITH_DB
    | capabilities::LONG_PASSWORD;

#[test]
fn numbers_are_read_back_and_cuts_are_noticed() {
    for value in [0, 250, 251, 255, 256, 65_535, 65_536, 0xff_ffff, 0x100_0000, u64::MAX] {
        let mut out = Vec::new();
        lenenc::write_int(&mut out, value);
        assert_eq!(lenenc::read_int(&out), Some((value, out.len())));
        for cut in 0..out.len() {
            assert_eq!(lenenc::read_int(out.get(..cut).expect("shorter")), None);
        }
    }
}

#[test]
fn a_full_packet_is_followed_by_another() {
    for length in [0, 1, MAX_PACKET - 1, MAX_PACKET, MAX_PACKET + 1] {
        let (mut out, mut sequence) = (Vec::new(), 250);
        write_packet(&mut out, &mut sequence, &vec![7; length]);
        let packets = length / MAX_PACKET + 1;
        assert_eq!(out.len(), length + packets * HEADER_BYTES);
        assert_eq!(usize::from(sequence.wrapping_sub(250)), packets);
        let first = header(&out).expect("a header");
        assert_eq!((first.length, first.sequence), (length.min(MAX_PACKET), 250));
    }
}

#[test]
fn a_greeting_and_its_answer_are_read_back() {
    let greeting = Greeting {
        version: "5.5.5-10.11.6-MariaDB".to_owned(),
        connection: 7,
        nonce: (1..=20).collect(),
        capabilities: ALL,
        collation: 45,
        status: status::AUTOCOMMIT,
        plugin: "mysql_native_password".to_owned(),
    };
    let mut out = Vec::new();
    greeting.write(&mut out);
    assert_eq!(Greeting::parse(&out).expect("a greeting"), greeting);
    for cut in 0..out.len() {
        let _ = Greeting::parse(out.get(..cut).expect("shorter"));
    }
    let response = Response {
        capabilities: ALL,
        collation: 45,
        user: b"ann".to_vec(),
        proof: vec![0, 1, 2],
        schema: Some(b"mail".to_vec()),
        plugin: Some(b"caching_sha2_password".to_vec()),
    };
    let mut out = Vec::new();
    response.write(&mut out);
    assert!(!Response::is_ssl_request(&out));
    assert_eq!(Response::parse(&out).expect("an answer"), response);
    let mut head = Vec::new();
    handshake::write_head(&mut head, ALL | capabilities::SSL, 45);
    assert!(Response::is_ssl_request(&head));
    let switch = AuthSwitch {
        plugin: "client_ed25519".to_owned(),
        nonce: (1..=32).collect(),
    };
    let mut out = Vec::new();
    switch.write(&mut out);
    assert_eq!(AuthSwitch::parse(&out), Ok(Some(switch)));
}

#[test]
fn the_head_of_an_execution_is_found_in_place() {
    let mut payload = vec![command::STMT_EXECUTE, 9, 0, 0, 0, 1, 1, 0, 0, 0];
    payload.extend_from_slice(&[0, 1, 3, 0, 253, 0]);
    let head = ExecuteHead::parse(&payload, 2).expect("a head");
    assert_eq!((head.flags, head.flag, head.types), (1, Some(11), Some(12..16)));
    ExecuteHead::parse(&payload, 3).expect_err("types are missing");
    let bare = payload.get(..10).expect("longer");
    assert_eq!(ExecuteHead::parse(bare, 0).expect("a head").flag, None);
}

#[test]
fn changes_are_read_back() {
    let all = [
        Change::Variable { name: b"time_zone", value: b"+01:00" },
        Change::Schema(b"mail"),
        Change::StateChange(true),
        Change::Gtids(b"u:1-5"),
        Change::Characteristics(b"START TRANSACTION;"),
        Change::Transaction(b"T_______"),
        Change::Other { kind: 9, data: b"x" },
    ];
    let mut out = Vec::new();
    for change in &all {
        write_change(&mut out, change);
    }
    let found: Result<Vec<_>, _> = changes(&out).collect();
    assert_eq!(found.expect("changes"), all);
}

proptest! {
    #[test]
    fn no_bytes_make_a_reader_fail_otherwise_than_with_an_error(
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
        negotiated in any::<u64>(),
    ) {
        let _ = Greeting::parse(&bytes);
        let _ = Response::parse(&bytes);
        let _ = ChangeUser::parse(&bytes, negotiated);
        let _ = AuthSwitch::parse(&bytes);
        let _ = ErrPacket::parse(&bytes);
        let _ = PrepareOk::parse(&bytes);
        let _ = ExecuteHead::parse(&bytes, 3);
        if let Ok(ok) = OkPacket::parse(&bytes, negotiated) {
            prop_assert!(changes(ok.state).count() <= bytes.len());
        }
    }
}
