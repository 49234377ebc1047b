//! The client against a server that misbehaves as it is told.

use std::time::Duration;

use breccia_core::error::Effect;
use bytes::Bytes;
use hyper::Method;

use super::stub::{Does, Stub, answer, text};
use super::*;
use crate::body::{Body, ByteSource, NextChunk, Whole};
use crate::error::{BlobError, BodyFault};

const TIMEOUT: Duration = Duration::from_millis(300);

fn client(stub: &Stub) -> HttpClient {
    let options = HttpOptions {
        timeout: TIMEOUT,
        max_connections: 2,
        max_retries: 2,
        ..HttpOptions::new("stub", stub.endpoint())
    };
    HttpClient::new(options).expect("a client")
}

/// Gives chunks of 100 KB, without an end.
struct Zeros;

impl ByteSource for Zeros {
    fn next(&mut self) -> NextChunk<'_> {
        Box::pin(async { Some(Ok(Bytes::from(vec![0; 100_000]))) })
    }
}

fn put() -> RequestHead {
    RequestHead::new(Method::PUT, "/b/k")
}

fn get() -> RequestHead {
    RequestHead::new(Method::GET, "//b/../k?x=%2F")
}

fn bytes(size: usize) -> Body {
    let data: Vec<u8> = (0..size)
        .map(|at| u8::try_from(at % 251).expect("small"))
        .collect();
    Body::from_bytes(data)
}

async fn stream(client: &HttpClient, body: &mut Body) -> Result<u16, BlobError> {
    let response = client
        .send(put(), Payload::Streamed(body), &Unsigned)
        .await?;
    let status = response.status.as_u16();
    response.discard().await;
    Ok(status)
}

#[tokio::test]
async fn connections_are_kept_and_targets_are_sent_as_they_are() {
    let stub = Stub::start(|_, _| answer("200 OK", "", "hello")).await;
    let client = client(&stub);
    for _ in 0..3 {
        let response = client.send(get(), Payload::empty(), &Unsigned).await;
        let found = response
            .expect("an answer")
            .collect(5)
            .await
            .expect("a body");
        assert_eq!(&*found.bytes, b"hello");
    }
    let mut body = bytes(1_000_000);
    assert_eq!(stream(&client, &mut body).await.expect("an answer"), 200);
    assert!(body.digests().is_some());
    let seen = stub.seen();
    assert_eq!(seen[0].line, "GET //b/../k?x=%2F");
    assert_eq!(seen[0].header("content-length"), None);
    assert_eq!(seen[3].header("content-length"), Some("1000000"));
    assert!(seen[3].whole && seen[3].body.len() == 1_000_000);
    assert_eq!(stub.connections(), 1);
}

#[tokio::test]
async fn a_body_with_a_wrong_digest_never_arrives_whole() {
    let stub = Stub::start(|_, _| answer("200 OK", "", "")).await;
    let client = client(&stub);
    for size in [0, 10, HOLD_BACK_BYTES, HOLD_BACK_BYTES + 1, 1_000_000] {
        let mut body = bytes(size).expect_md5([7; 16]);
        let error = stream(&client, &mut body)
            .await
            .expect_err("a wrong digest");
        let fault = BodyFault::Md5;
        assert!(
            matches!(&error, BlobError::Body { fault: found } if *found == fault),
            "{error}"
        );
    }
    let mut short = Body::new(Box::new(Whole::new(vec![0; 500_000].into())), 500_001);
    stream(&client, &mut short).await.expect_err("a short body");
    tokio::time::sleep(Duration::from_millis(50)).await;
    let seen = stub.seen();
    assert!(
        !seen.is_empty() && seen.iter().all(|seen| !seen.whole),
        "{}",
        seen.len()
    );
}

#[tokio::test]
async fn an_early_answer_is_given_and_ends_the_sending() {
    let early = Does::AnswersEarly(text("403 Forbidden", "", "no"));
    let stub = Stub::start(move |_, _| early.clone()).await;
    let client = client(&stub);
    let mut body = Body::new(Box::new(Zeros), u64::MAX);
    assert_eq!(stream(&client, &mut body).await.expect("an answer"), 403);
    assert!(body.digests().is_none());
}

#[tokio::test]
async fn a_server_that_takes_nothing_more_has_not_applied_it() {
    let stub = Stub::start(|_, _| Does::Stalls).await;
    let client = client(&stub);
    let mut body = Body::new(Box::new(Zeros), u64::MAX);
    let error = stream(&client, &mut body).await.expect_err("a stall");
    assert!(
        matches!(
            &error,
            BlobError::Timeout {
                effect: Effect::NotApplied,
                ..
            }
        ),
        "{error}"
    );
}

#[tokio::test]
async fn a_lost_reply_to_a_whole_write_is_unknown() {
    let check = async |does: Does, head: RequestHead, timeout: bool, effect: Effect| {
        let stub = Stub::start(move |_, _| does.clone()).await;
        let sent = client(&stub)
            .send(head, Payload::Bytes("x".into()), &Unsigned)
            .await;
        let error = match sent {
            Ok(answer) => answer.collect(100).await.expect_err("no whole answer"),
            Err(error) => error,
        };
        assert_eq!(
            matches!(error, BlobError::Timeout { .. }),
            timeout,
            "{error}"
        );
        assert_eq!(error.effect(), effect, "{error}");
    };
    let closes = |text: &str| Does::AnswersAndCloses(text.to_owned());
    check(closes(""), put(), false, Effect::Unknown).await;
    check(
        closes("HTTP/1.1 200 OK\r\ncont"),
        put(),
        false,
        Effect::Unknown,
    )
    .await;
    let cut = "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf";
    check(closes(cut), put(), false, Effect::Unknown).await;
    check(Does::KeepsSilent, put(), true, Effect::Unknown).await;
    check(Does::Answers(cut.to_owned()), put(), true, Effect::Unknown).await;
    check(closes(cut), get(), false, Effect::NotApplied).await;
    check(closes("nonsense\r\n\r\n"), put(), false, Effect::Unknown).await;
}

#[tokio::test]
async fn what_may_be_repeated_is_and_nothing_else() {
    let stub = Stub::start(|_, place| match place {
        0 => Does::AnswersAndCloses(String::new()),
        1 => answer("503 Slow Down", "retry-after: 0\r\n", ""),
        2 => answer("200 OK", "", "ok"),
        _ => answer("503 Slow Down", "retry-after: 9999\r\n", ""),
    })
    .await;
    let client = client(&stub);
    let mut statuses = Vec::new();
    for _ in 0..2 {
        let answer = client
            .send_repeatable(&get(), Bytes::new(), &Unsigned)
            .await;
        statuses.push(answer.expect("an answer").status.as_u16());
    }
    assert_eq!((statuses, stub.seen().len()), (vec![200, 503], 4));
    client
        .send(put(), Payload::empty(), &Unsigned)
        .await
        .expect("an answer");
    assert_eq!(stub.seen().len(), 5);
}

#[tokio::test]
async fn a_connection_the_server_closed_is_replaced_unseen() {
    let closing = text("200 OK", "", "x");
    let stub = Stub::start(move |_, _| Does::AnswersAndCloses(closing.clone())).await;
    let client = client(&stub);
    for _ in 0..3 {
        stream(&client, &mut bytes(200_000))
            .await
            .expect("an answer");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!((stub.connections(), stub.seen().len()), (3, 3));
}

#[tokio::test]
async fn connections_are_bounded_and_waiting_for_one_ends() {
    let stub = Stub::start(|_, _| answer("200 OK", "", "x")).await;
    let client = client(&stub);
    let ask = || client.send(get(), Payload::empty(), &Unsigned);
    let held = (ask().await.expect("one"), ask().await.expect("two"));
    let error = ask().await.expect_err("no third");
    assert!(matches!(error, BlobError::Overloaded { .. }), "{error}");
    drop(held);
    ask().await.expect("a free one");
}

#[test]
fn connections_of_an_ended_runtime_are_not_used() {
    let runtime = || {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_all().build().expect("a runtime")
    };
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        runtime().block_on(async {
            let stub = Stub::start(|_, _| answer("200 OK", "", "x")).await;
            sender.send(stub).expect("a receiver");
            std::future::pending::<()>().await;
        });
    });
    let server = receiver.recv().expect("a stub");
    let client = client(&server);
    for _ in 0..3 {
        runtime().block_on(async {
            for _ in 0..2 {
                stream(&client, &mut bytes(10)).await.expect("an answer");
            }
        });
    }
    assert_eq!(server.connections(), 3);
}
