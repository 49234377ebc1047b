//! Answers of servers, cut anywhere, for clients of every kind.
//!
//! Not real servers. Invariant checked: a client's packets are numbered without a gap, and an answer
//! takes no byte of the next.

use super::*;
use crate::mysql::codec::lenenc;

const UPSTREAM: u64 = capabilities::PROTOCOL_41
    | capabilities::DEPRECATE_EOF
    | capabilities::SESSION_TRACK
    | capabilities::TRANSACTIONS;
const MODERN: u64 = UPSTREAM;
const OLD: u64 = capabilities::PROTOCOL_41 | capabilities::TRANSACTIONS;

/// Packets of a server.
#[derive(Default)]
struct Server {
    bytes: Vec<u8>,
    sequence: u8,
}

impl Server {
    fn new() -> Self {
        Self {
            bytes: Vec::new(),
            sequence: 1,
        }
    }

    fn packet(mut self, payload: &[u8]) -> Self {
        codec::write_packet(&mut self.bytes, &mut self.sequence, payload);
        self
    }

    fn ok(self, header: u8, flags: u16, state: &[u8]) -> Self {
        let ok = OkPacket {
            header,
            affected: 3,
            insert_id: 9,
            status: flags,
            warnings: 1,
            info: b"",
            state,
        };
        let mut payload = Vec::new();
        ok.write(&mut payload, UPSTREAM);
        self.packet(&payload)
    }

    fn error(self) -> Self {
        let mut payload = vec![0xff, 0x7a, 0x04, b'#'];
        payload.extend_from_slice(b"42S02no such table");
        self.packet(&payload)
    }
}

/// What a client gets, packet by packet, after the server's bytes came in pieces of `step`.
fn relayed(
    server: &Server,
    shape: Shape,
    client: u64,
    step: usize,
) -> (Vec<Vec<u8>>, Outcome, Fed) {
    let mut relay = Relay::new(
        shape,
        client,
        UPSTREAM,
        1,
        status::AUTOCOMMIT,
        Edit::default(),
    );
    let (mut input, mut out) = (BytesMut::new(), Vec::new());
    let mut fed = Fed::More;
    for piece in server.bytes.chunks(step) {
        input.extend_from_slice(piece);
        fed = relay.feed(&mut input, &mut out).expect("a proper answer");
        if fed != Fed::More {
            break;
        }
    }
    let (mut packets, mut at, mut sequence) = (Vec::new(), 0, 1_u8);
    while let Some(header) = out.get(at..).and_then(codec::header) {
        assert_eq!(header.sequence, sequence, "numbered without a gap");
        sequence = sequence.wrapping_add(1);
        at += HEADER_BYTES;
        packets.push(out.get(at..at + header.length).expect("whole").to_vec());
        at += header.length;
    }
    assert_eq!(at, out.len());
    (packets, relay.outcome.clone(), fed)
}

fn rows() -> Server {
    Server::new()
        .packet(&[1])
        .packet(b"\x03def-a-column")
        .packet(b"\x01x")
        .packet(b"\xfb")
        .ok(0xfe, status::AUTOCOMMIT, b"")
}

#[test]
fn rows_reach_clients_of_both_kinds_however_they_are_split() {
    let server = rows();
    for step in 1..server.bytes.len() {
        let (packets, outcome, fed) = relayed(&server, Shape::Results, MODERN, step);
        assert_eq!((packets.len(), fed), (5, Fed::Done), "{step}");
        assert_eq!(outcome.status, Some(status::AUTOCOMMIT));
        let (packets, _, fed) = relayed(&server, Shape::Results, OLD, step);
        assert_eq!((packets.len(), fed), (6, Fed::Done), "{step}");
        assert_eq!(
            packets.get(2).map(Vec::len),
            Some(5),
            "an end of the columns"
        );
        assert_eq!(packets.get(5).map(Vec::len), Some(5), "an end of the rows");
        assert_eq!(packets.get(5).and_then(|it| it.first()), Some(&0xfe));
    }
}

#[test]
fn a_result_without_rows_has_both_ends_for_an_old_client() {
    let server = Server::new()
        .packet(&[1])
        .packet(b"\x03def")
        .ok(0xfe, status::AUTOCOMMIT, b"");
    let (packets, ..) = relayed(&server, Shape::Results, OLD, 7);
    assert_eq!(packets.len(), 4);
    let opened = Server::new().packet(&[1]).packet(b"\x03def").ok(
        0xfe,
        status::AUTOCOMMIT | status::CURSOR_EXISTS,
        b"",
    );
    let (packets, ..) = relayed(&opened, Shape::Results, OLD, 7);
    assert_eq!(packets.len(), 3, "a cursor has no rows yet");
}

#[test]
fn an_error_in_place_of_rows_comes_behind_the_columns_end_for_an_old_client() {
    let server = Server::new().packet(&[1]).packet(b"\x03def").error();
    for step in 1..server.bytes.len() {
        let (packets, _, fed) = relayed(&server, Shape::Results, OLD, step);
        assert_eq!((packets.len(), fed), (4, Fed::Done), "{step}");
        assert_eq!(packets.get(2).and_then(|it| it.first()), Some(&0xfe));
        let (packets, ..) = relayed(&server, Shape::Results, MODERN, step);
        assert_eq!(packets.len(), 3, "{step}");
        assert_eq!(packets.get(2).and_then(|it| it.first()), Some(&0xff));
    }
}

#[test]
fn several_results_are_one_answer() {
    let server = rows();
    let mut bytes = Server::new().ok(0, status::MORE_RESULTS_EXISTS, b"");
    let second = rows();
    let mut at = 0;
    while let Some(header) = second.bytes.get(at..).and_then(codec::header) {
        at += HEADER_BYTES;
        bytes = bytes.packet(second.bytes.get(at..at + header.length).expect("whole"));
        at += header.length;
    }
    for step in [1, 3, 1000] {
        let (packets, outcome, fed) = relayed(&bytes, Shape::Results, MODERN, step);
        assert_eq!((packets.len(), outcome.parts, fed), (6, 2, Fed::Done));
    }
    let failed = Server::new()
        .packet(&[1])
        .packet(b"\x03def")
        .packet(b"\x01x")
        .error();
    let (packets, outcome, fed) = relayed(&failed, Shape::Results, OLD, 2);
    assert_eq!((packets.len(), fed), (5, Fed::Done));
    assert_eq!(outcome.error.map(|(code, ..)| code), Some(1146));
    let _ = server;
}

#[test]
fn what_changed_is_noted_and_told_to_those_who_asked() {
    let mut state = Vec::new();
    let variable = |name: &'static [u8]| Change::Variable {
        name,
        value: b"utf8mb4",
    };
    codec::write_change(&mut state, &variable(b"character_set_client"));
    codec::write_change(&mut state, &variable(b"last_gtid"));
    codec::write_change(&mut state, &Change::StateChange(true));
    let server = Server::new().ok(
        0,
        status::AUTOCOMMIT | status::SESSION_STATE_CHANGED,
        &state,
    );
    let (packets, outcome, _) = relayed(&server, Shape::Results, MODERN, 5);
    assert_eq!(outcome.noted.len(), 3);
    let told = OkPacket::parse(packets.first().expect("one"), MODERN).expect("OK");
    assert_eq!(
        changes(told.state).count(),
        1,
        "only what servers tell by themselves"
    );
    let (packets, ..) = relayed(&server, Shape::Results, OLD, 5);
    let told = OkPacket::parse(packets.first().expect("one"), OLD).expect("OK");
    assert_eq!(told.status, status::AUTOCOMMIT);
    assert_eq!((told.affected, told.insert_id, told.warnings), (3, 9, 1));
}

#[test]
fn a_prepared_statement_gets_the_clients_number() {
    let mut head = vec![0];
    head.extend_from_slice(&77_u32.to_le_bytes());
    head.extend_from_slice(&[1, 0, 2, 0, 0, 0, 0]);
    let server = Server::new()
        .packet(&head)
        .packet(b"\x03def-p1")
        .packet(b"\x03def-p2")
        .packet(b"\x03def-c1");
    for step in [1, 2, 1000] {
        let (packets, outcome, fed) = relayed(&server, Shape::Prepared(5), OLD, step);
        assert_eq!((packets.len(), fed), (6, Fed::Done));
        assert_eq!(packets.first().and_then(|it| it.get(1)), Some(&5));
        assert_eq!(outcome.prepared, Some((77, 1, 2)));
        let (packets, ..) = relayed(&server, Shape::Prepared(5), MODERN, step);
        assert_eq!(packets.len(), 4);
    }
}

#[test]
fn a_row_of_many_packets_is_read_to_its_end() {
    let mut row = Vec::new();
    lenenc::write_str(&mut row, &vec![0xfe; MAX_PACKET + 100]);
    let server = Server::new()
        .packet(&[1])
        .packet(b"\x03def")
        .packet(&row)
        .packet(b"\x01x")
        .ok(0xfe, status::AUTOCOMMIT, b"");
    for step in [65_536, usize::MAX] {
        let (packets, outcome, fed) = relayed(&server, Shape::Results, MODERN, step.min(1 << 26));
        assert_eq!((packets.len(), fed), (6, Fed::Done), "{step}");
        assert!(outcome.error.is_none());
    }
}

#[test]
fn what_is_no_answer_is_an_error() {
    let wrong = [
        Server::new().packet(&[]),
        Server::new().packet(&[0]),
        Server::new()
            .packet(&[1])
            .packet(b"\x03def")
            .packet(&[0xfe]),
        Server::new().packet(&[0xff]),
    ];
    for server in wrong {
        let mut relay = Relay::new(Shape::Results, MODERN, UPSTREAM, 1, 0, Edit::default());
        let mut input = BytesMut::from(server.bytes.as_slice());
        relay
            .feed(&mut input, &mut Vec::new())
            .expect_err("no answer");
    }
}
