//! Bodies as clients send them, and those that are not what was announced.

use std::time::Duration;

use super::*;
use crate::s3::codec::chunked::{ChunkSigner, Encoder};

const CRC32: &str = "x-amz-checksum-crc32";
/// The CRC-32 of `123456789`.
const CRC32_VALUE: &str = "y/Q5Jg==";

/// A put in chunks; `signed` chunk by chunk, and with a trailer if it is given.
pub(super) fn chunked(signed: bool, trailer: Option<(&str, &str)>) -> Message {
    let payload = if signed {
        Payload::SignedChunks {
            trailer: trailer.is_some(),
        }
    } else {
        Payload::UnsignedChunks
    };
    let mut message = Message::new("PUT", "/mail/k")
        .header("content-encoding", "aws-chunked")
        .header("x-amz-decoded-content-length", "9");
    if let Some((name, _)) = trailer {
        message = message.header("x-amz-trailer", name);
    }
    let (mut message, seed, key, date) = message.signed_with(ACCESS_KEY, SECRET, &payload);
    let mut encoder = Encoder::new(signed.then(|| ChunkSigner::new(key, date, seed)));
    let mut body = encoder.chunk(b"12345").to_vec();
    body.extend_from_slice(&encoder.chunk(b"6789"));
    let trailers: Vec<(String, String)> = trailer
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    body.extend_from_slice(&encoder.finish(&trailers));
    // Not signed, as a client would: it is known only after the signature.
    message = message.body(body);
    message
}

#[test]
fn a_client_that_finds_no_room_is_told_whole() {
    let text = super::super::TOO_MANY_CLIENTS;
    let end = memchr::memmem::find(text, b"\r\n\r\n").expect("a head");
    let body = text.len() - end - 4;
    let head = String::from_utf8_lossy(&text[..end]);
    assert!(
        head.contains(&format!("content-length: {body}\r\n")),
        "{body}"
    );
}

#[tokio::test]
async fn chunked_bodies_are_unpacked_and_their_trailers_kept() {
    let server = Server::fixed(settings());
    for (signed, trailer) in [
        (true, None),
        (true, Some((CRC32, CRC32_VALUE))),
        (false, Some((CRC32, CRC32_VALUE))),
        (false, None),
    ] {
        let reply = server.send(chunked(signed, trailer)).await;
        assert_eq!(reply.status, 200, "{signed} {trailer:?}: {}", reply.text());
        let expected = trailer.map_or("", |(_, value)| value);
        assert_eq!(reply.header(CRC32), expected);
        let reply = server.ask("GET", "/mail/k").await;
        assert_eq!(
            (reply.text().as_str(), reply.header("content-encoding")),
            ("123456789", "")
        );
        assert_eq!(server.ask("DELETE", "/mail/k").await.status, 204);
    }
}

#[tokio::test]
async fn a_body_that_is_not_what_was_announced_leaves_nothing() {
    let server = Server::fixed(settings());
    let check = async |message: Message, status: u16, code: &str| {
        server.send(message).await.is(status, code);
        server.ask("GET", "/mail/k").await.is(404, "NoSuchKey");
    };
    let put = || Message::new("PUT", "/mail/k").body("123456789");
    let md5 = put().header("content-md5", "AAAAAAAAAAAAAAAAAAAAAA==");
    check(md5.signed(), 400, "BadDigest").await;
    let no_md5 = put().header("content-md5", "abc").signed();
    check(no_md5, 400, "InvalidDigest").await;
    let crc = put().header(CRC32, "AAAAAA==").signed();
    check(crc, 400, "BadDigest").await;
    let no_crc = put().header(CRC32, "AAAA").signed();
    check(no_crc, 400, "InvalidDigest").await;
    let two = put().header(CRC32, CRC32_VALUE);
    let two = two.header("x-amz-checksum-crc32c", "4waSgw==").signed();
    check(two, 400, "InvalidRequest").await;
    let named = put()
        .header("x-amz-sdk-checksum-algorithm", "SHA1")
        .signed();
    check(named, 400, "InvalidRequest").await;
    let mut other = put().signed();
    other.body[0] = b'x';
    check(other, 400, "XAmzContentSHA256Mismatch").await;
    let trailer = chunked(false, Some((CRC32, "AAAAAA==")));
    check(trailer, 400, "BadDigest").await;
    let trailer = chunked(false, Some((CRC32, "AA")));
    check(trailer, 400, "InvalidRequest").await;
    let mut forged = chunked(true, None);
    let at = memchr::memmem::find(&forged.body, b"6789").expect("the second chunk");
    forged.body[at] = b'x';
    check(forged, 403, "SignatureDoesNotMatch").await;
    let mut cut = chunked(true, None);
    let at = memchr::memmem::find(&cut.body, b"\r\n0;").expect("the last chunk");
    cut.body.truncate(at + 2);
    let length = cut.body.len().to_string();
    check(cut.header("content-length", &length), 400, "IncompleteBody").await;
}

#[tokio::test]
async fn a_body_needs_a_length_within_the_limit() {
    let mut small = settings();
    small.limits.max_put_bytes = 8;
    small.limits.max_xml_bytes = 8;
    let server = Server::fixed(small);
    let none = Message::new("PUT", "/mail/k").signed();
    server.send(none).await.is(411, "MissingContentLength");
    let mut chunks = Message::new("PUT", "/mail/k").signed();
    chunks = chunks.header("transfer-encoding", "chunked");
    server.send(chunks).await.is(411, "MissingContentLength");
    let large = Message::new("PUT", "/mail/k").body("123456789").signed();
    server.send(large).await.is(400, "EntityTooLarge");
    let document = Message::new("POST", "/mail?delete").body("<Delete></Delete>");
    server
        .send(document.signed())
        .await
        .is(400, "MaxMessageLengthExceeded");
}

#[tokio::test]
async fn nothing_is_asked_of_a_client_that_is_refused() {
    let server = Server::fixed(settings());
    let expecting = |message: Message| message.header("expect", "100-continue");
    let head = expecting(Message::new("PUT", "/mail/k").body("123456789"));
    let mut stream = server.connect().await;
    stream.write_all(&head.head_bytes()).await.expect("sent");
    Reply::read(&mut stream).await.is(403, "AccessDenied");
    let head = expecting(Message::new("PUT", "/mail/k").body("123456789").signed());
    let mut stream = server.connect().await;
    stream.write_all(&head.head_bytes()).await.expect("sent");
    let mut line = [0; 25];
    stream.read_exact(&mut line).await.expect("a line");
    assert_eq!(&line, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"123456789").await.expect("sent");
    assert_eq!(Reply::read(&mut stream).await.status, 200);
}

#[tokio::test]
async fn a_client_that_stops_sending_is_cut_and_leaves_nothing() {
    let mut strict = settings();
    strict.limits.idle_timeout = Duration::from_millis(200);
    let server = Server::fixed(strict);
    let mut message = Message::new("PUT", "/mail/k").body("123456789").signed();
    message.body.truncate(4);
    let mut stream = server.connect().await;
    stream.write_all(&message.bytes()).await.expect("sent");
    Reply::read(&mut stream).await.is(400, "RequestTimeout");
    server.ask("GET", "/mail/k").await.is(404, "NoSuchKey");
    let mut idle = server.connect().await;
    let mut bytes = Vec::new();
    let ended = tokio::time::timeout(Duration::from_secs(5), idle.read_to_end(&mut bytes)).await;
    assert!(ended.is_ok(), "a connection without a request is closed");
}

#[tokio::test]
async fn a_client_that_goes_away_leaves_nothing() {
    let server = Server::fixed(settings());
    let mut message = Message::new("PUT", "/mail/k").body("123456789").signed();
    message.body.truncate(4);
    let mut stream = server.connect().await;
    stream.write_all(&message.bytes()).await.expect("sent");
    drop(stream);
    tokio::time::sleep(Duration::from_millis(50)).await;
    server.ask("GET", "/mail/k").await.is(404, "NoSuchKey");
}

#[tokio::test]
async fn limits_of_requests_and_of_memory_answer_slow_down() {
    let mut tight = settings();
    tight.limits.max_in_flight = 1;
    tight.limits.deadline = Duration::from_millis(50);
    let server = Server::fixed(tight.clone());
    let mut message = Message::new("PUT", "/mail/k").body("123456789").signed();
    message.body.truncate(4);
    let mut stream = server.connect().await;
    stream.write_all(&message.bytes()).await.expect("sent");
    tokio::time::sleep(Duration::from_millis(50)).await;
    server.ask("GET", "/mail").await.is(503, "SlowDown");
    drop(stream);
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(server.ask("GET", "/mail").await.status, 200);
    tight.limits.max_in_flight = 10;
    server.frontend.settings.set(tight);
    let wait = Duration::from_secs(1);
    let all = server.frontend.budget.for_whole(u64::MAX, wait).await;
    assert!(all.is_some());
    let put = Message::new("PUT", "/mail/k").body("123456789").signed();
    server.send(put.clone()).await.is(503, "SlowDown");
    drop(all);
    assert_eq!(server.send(put).await.status, 200);
    let counted = server.registry.render();
    assert!(counted.contains("limit=\"buffer-memory\"} 1"), "{counted}");
}

#[tokio::test]
async fn a_drain_answers_what_has_begun_and_closes_what_is_idle() {
    let server = Server::fixed(settings());
    let mut idle = server.connect().await;
    let kept = Message::new("GET", "/mail").signed().bytes();
    let kept = String::from_utf8(kept)
        .expect("text")
        .replace("connection: close\r\n", "");
    idle.write_all(kept.as_bytes()).await.expect("sent");
    let mut first = [0; 12];
    idle.read_exact(&mut first).await.expect("a reply");
    let message = Message::new("PUT", "/mail/k").body("123456789").signed();
    let bytes = message.bytes();
    let mut busy = server.connect().await;
    busy.write_all(&bytes[..bytes.len() - 4])
        .await
        .expect("sent");
    tokio::time::sleep(Duration::from_millis(50)).await;
    server.drain.begin();
    let mut rest = Vec::new();
    let ended = tokio::time::timeout(Duration::from_secs(5), idle.read_to_end(&mut rest)).await;
    assert!(ended.is_ok(), "the idle connection is closed");
    busy.write_all(&bytes[bytes.len() - 4..])
        .await
        .expect("sent");
    assert_eq!(Reply::read(&mut busy).await.status, 200);
}
