//! Packets: what is written is read back, cut anywhere, and nothing makes a reader panic.
//!
//! Not against servers. Invariant: each packet that is written here has a row.

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
    for value in [
        0,
        250,
        251,
        255,
        256,
        65_535,
        65_536,
        0xff_ffff,
        0x100_0000,
        u64::MAX,
    ] {
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
        assert_eq!(
            (first.length, first.sequence),
            (length.min(MAX_PACKET), 250)
        );
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
    assert_eq!(
        (head.flags, head.flag, head.types),
        (1, Some(11), Some(12..16))
    );
    ExecuteHead::parse(&payload, 3).expect_err("types are missing");
    let bare = payload.get(..10).expect("longer");
    assert_eq!(ExecuteHead::parse(bare, 0).expect("a head").flag, None);
}

#[test]
fn changes_are_read_back() {
    let all = [
        Change::Variable {
            name: b"time_zone",
            value: b"+01:00",
        },
        Change::Schema(b"mail"),
        Change::StateChange(true),
        Change::Gtids(b"u:1-5"),
        Change::Characteristics(b"START TRANSACTION;"),
        Change::Transaction(b"T_______"),
        Change::Other {
            kind: 9,
            data: b"x",
        },
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

#[test]
fn replies_are_read_back_by_every_peer_and_cuts_are_noticed() {
    let mut state = Vec::new();
    write_change(&mut state, &Change::Schema(b"mail"));
    for negotiated in [ALL, ALL & !capabilities::SESSION_TRACK] {
        let tracks = negotiated & capabilities::SESSION_TRACK != 0;
        for (header, info) in [(0x00, &b""[..]), (0xfe, b"Rows matched: 1")] {
            let ok = OkPacket {
                header,
                affected: 300,
                insert_id: u64::MAX,
                status: status::AUTOCOMMIT | (status::SESSION_STATE_CHANGED * u16::from(tracks)),
                warnings: 7,
                info,
                state: if tracks { &state } else { b"" },
            };
            let mut out = Vec::new();
            ok.write(&mut out, negotiated);
            assert_eq!(OkPacket::parse(&out, negotiated), Ok(ok));
            for cut in 0..out.len() {
                let part = OkPacket::parse(&out[..cut], negotiated);
                assert_ne!(part, Ok(ok), "cut at {cut}");
            }
        }
        let error = ErrPacket {
            code: 1792,
            sqlstate: *b"25006",
            message: b"Cannot execute statement in a READ ONLY transaction",
        };
        let mut out = Vec::new();
        error.write(&mut out, negotiated);
        assert_eq!(ErrPacket::parse(&out), Ok(error));
        for cut in 0..out.len() {
            assert_ne!(ErrPacket::parse(&out[..cut]), Ok(error), "cut at {cut}");
        }
        let out = eof(status::AUTOCOMMIT, 3);
        let end = OkPacket::parse(&out, negotiated).expect("an end of rows");
        assert_eq!(
            (end.header, end.status, end.warnings),
            (0xfe, status::AUTOCOMMIT, 3)
        );
    }
    // Before anything is negotiated there is no SQLSTATE.
    let early = ErrPacket::parse(b"\xff\x10\x04Too many connections").expect("an error");
    assert_eq!((early.code, early.sqlstate), (1040, *b"HY000"));
}

#[test]
fn a_prepared_statement_is_read_back() {
    let prepared = PrepareOk {
        statement: 9,
        columns: 3,
        parameters: 65_535,
        warnings: 1,
    };
    let mut out = Vec::new();
    prepared.write(&mut out);
    assert_eq!(out.len(), 12);
    assert_eq!(PrepareOk::parse(&out), Ok(prepared));
    for cut in 0..out.len() {
        assert_ne!(PrepareOk::parse(&out[..cut]), Ok(prepared), "cut at {cut}");
    }
}

#[test]
fn a_signatures_challenge_keeps_its_zero_bytes() {
    let switch = AuthSwitch {
        plugin: "client_ed25519".to_owned(),
        nonce: [&[7; 31][..], &[0]].concat(),
    };
    let mut out = Vec::new();
    switch.write(&mut out);
    assert_eq!(out.len(), 1 + "client_ed25519".len() + 1 + 32);
    assert_eq!(AuthSwitch::parse(&out), Ok(Some(switch)));
    assert_eq!(AuthSwitch::parse(b"\xfe"), Ok(None));
}

#[test]
fn answers_of_every_kind_of_client_are_read() {
    let answer = |capabilities: u64, rest: &[u8]| {
        let mut payload = Vec::new();
        handshake::write_head(&mut payload, capabilities, 45);
        payload.extend_from_slice(rest);
        Response::parse(&payload)
    };
    let old = capabilities::PROTOCOL_41 | capabilities::LONG_PASSWORD;
    let of_4_1 = old | capabilities::SECURE_CONNECTION;
    let named = of_4_1 | capabilities::CONNECT_WITH_DB | capabilities::PLUGIN_AUTH;
    let all = named | capabilities::PLUGIN_AUTH_LENENC | capabilities::CONNECT_ATTRS;
    for (capabilities, rest, proof, schema, plugin) in [
        (old, &b"ann\0xy\0"[..], &b"xy"[..], None, None),
        (of_4_1, b"ann\0\x02xy", b"xy", None, None),
        (
            named,
            b"ann\0\x02xymail\0dialog\0",
            b"xy",
            Some("mail"),
            Some("dialog"),
        ),
        // Without a schema there is still its NUL; the last NUL may be missing.
        (named, b"ann\0\0\0dialog", b"", None, Some("dialog")),
        (
            all,
            b"ann\0\x02xymail\0dialog\0\x04\x01a\x01b",
            b"xy",
            Some("mail"),
            Some("dialog"),
        ),
    ] {
        let read = answer(capabilities, rest).expect("an answer");
        assert_eq!(
            (read.user.as_slice(), read.proof.as_slice()),
            (&b"ann"[..], proof)
        );
        assert_eq!(
            read.schema.as_deref(),
            schema.map(str::as_bytes),
            "{rest:?}"
        );
        assert_eq!(
            read.plugin.as_deref(),
            plugin.map(str::as_bytes),
            "{rest:?}"
        );
        let mut out = Vec::new();
        if capabilities & capabilities::SECURE_CONNECTION != 0 {
            read.write(&mut out);
            assert_eq!(Response::parse(&out), Ok(read));
        }
    }
    // What a client of MySQL 3.23 sends: two bytes of flags, three of its longest packet, a name.
    let ancient = b"\x85\x24\0\0\0ann\0";
    assert_eq!(Response::parse(ancient), Err(CodecError::TooOld));
    assert_eq!(
        answer(all, b"ann\0\xfe\xff\xff\xff\xff\xff\xff\xff\xff"),
        Err(CodecError::Malformed)
    );
}
