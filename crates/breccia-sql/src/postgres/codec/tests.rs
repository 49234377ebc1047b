//! Tests of the codec: every cut of a frame is "not yet", and wrong lengths are errors.

use super::startup::{MAX_STARTUP_BYTES, Startup, startup, write_cancel, write_session, write_ssl};
use super::*;

#[test]
fn a_cut_frame_is_not_there_yet() {
    let mut bytes = Vec::new();
    message::query(&mut bytes, "SELECT 1");
    for cut in 0..HEAD_BYTES {
        assert_eq!(head(&bytes[..cut]), Ok(None));
    }
    let whole = head(&bytes).expect("a frame").expect("its head");
    assert_eq!((whole.tag, whole.length), (b'Q', bytes.len()));
    assert_eq!(query(body(&bytes)), Ok(&b"SELECT 1"[..]));
}

#[test]
fn lengths_that_cannot_be_are_errors() {
    for length in [0u32, 3, u32::MAX, 1 << 30] {
        let mut bytes = vec![b'Q'];
        bytes.extend_from_slice(&length.to_be_bytes());
        assert!(head(&bytes).is_err(), "{length}");
    }
}

#[test]
fn an_older_protocol_is_offered_by_its_full_number() {
    let mut bytes = Vec::new();
    message::negotiate(&mut bytes, &["_pq_.x"]);
    let expected = b"v\0\0\0\x13\0\x03\0\0\0\0\0\x01_pq_.x\0";
    assert_eq!(bytes, expected);
}

#[test]
fn startup_packets_are_read_back_at_every_cut() {
    let mut session = Vec::new();
    write_session(&mut session, &[("user", "u"), ("database", "d")]);
    let mut ssl = Vec::new();
    write_ssl(&mut ssl);
    let mut cancel = Vec::new();
    write_cancel(&mut cancel, 7, &[1, 2, 3, 4]);
    for packet in [&session, &ssl, &cancel] {
        for cut in 0..packet.len() {
            assert_eq!(startup(&packet[..cut]), Ok(None), "{cut}");
        }
        let (_, length) = startup(packet).expect("good").expect("whole");
        assert_eq!(length, packet.len());
    }
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let expected = Startup::Session {
        minor: 0,
        parameters: vec![pair("user", "u"), pair("database", "d")],
    };
    assert_eq!(startup(&session), Ok(Some((expected, session.len()))));
}

#[test]
fn startup_packets_that_cannot_be_are_errors() {
    let long = u32::try_from(MAX_STARTUP_BYTES + 1).expect("small");
    for length in [0u32, 7, long, u32::MAX] {
        assert!(startup(&length.to_be_bytes()).is_err(), "{length}");
    }
    // No final zero, a name without a value, protocol 2.
    for body in [
        &b"\0\x03\0\0user\0u\0"[..],
        b"\0\x03\0\0user\0\0",
        b"\0\x02\0\0\0",
    ] {
        let mut packet = u32::try_from(body.len() + 4)
            .expect("small")
            .to_be_bytes()
            .to_vec();
        packet.extend_from_slice(body);
        assert!(startup(&packet).is_err(), "{body:?}");
    }
}

#[test]
fn insides_are_read_and_checked() {
    let mut bytes = Vec::new();
    message::parse(&mut bytes, b"s1", b"SELECT $1", &[0, 1, 0, 0, 0, 23]);
    let read = parse(body(&bytes)).expect("a good Parse");
    assert_eq!((read.name, read.sql), (&b"s1"[..], &b"SELECT $1"[..]));
    assert!(parse(b"s1\0SELECT 1\0\0\x02\0\0\0\x17").is_err());
    assert!(bind(b"portal\0statement").is_err());
    assert_eq!(named(b'C', b"Sx\0"), Ok((b'S', &b"x"[..])));
    assert!(named(b'C', b"Qx\0").is_err());
    let mut bytes = Vec::new();
    message::error(&mut bytes, message::Severity::Error, "25006", "no", "");
    assert_eq!(field(body(&bytes), b'C'), Some(&b"25006"[..]));
    assert_eq!(field(body(&bytes), b'H'), None);
}
