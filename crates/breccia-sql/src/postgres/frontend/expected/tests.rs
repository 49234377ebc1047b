//! Scripts of a server's answers, and what a client gets of them.
//!
//! Not over connections. Invariant: however the bytes are cut, the client gets the same.

use super::*;
use crate::postgres::codec::message;

/// What a server sends, and what a client of it should get.
struct Script {
    owed: Vec<Owed>,
    sent: Vec<u8>,
    shown: Vec<u8>,
    news: Vec<News>,
}

fn parse(shown: bool) -> Owed {
    let statement = crate::postgres::statement::Statements::default().private(b"x", b"\0\0");
    Owed::Parse {
        shown,
        statement: Some(statement),
    }
}

fn row(out: &mut Vec<u8>, bytes: usize) {
    message::frame(out, b'D', |out| out.resize(out.len() + bytes, b'x'));
}

/// A hidden question, a hidden Parse, a statement, and answers of our own between them.
fn extended() -> Script {
    let mut insert = Vec::new();
    message::empty(&mut insert, b'3');
    let owed = vec![
        Owed::Query { shown: false },
        parse(false),
        Owed::Insert(insert.clone().into(), None),
        Owed::Bind,
        Owed::Describe,
        Owed::Execute,
        Owed::Sync,
    ];
    let (mut sent, mut shown) = (Vec::new(), insert);
    message::complete(&mut sent, "SET");
    message::parameter_status(&mut sent, "a", "b");
    message::ready(&mut sent, Status::Idle);
    message::empty(&mut sent, b'1');
    let rest = |out: &mut Vec<u8>| {
        message::empty(out, b'2');
        message::empty(out, b'n');
        row(out, 10);
        row(out, PASSED_BYTES + 10);
        message::complete(out, "SELECT 2");
        message::ready(out, Status::Open);
    };
    rest(&mut sent);
    rest(&mut shown);
    let news = vec![News::Complete(Tag::Other)];
    Script {
        owed,
        sent,
        shown,
        news,
    }
}

/// An error skips all up to the Sync, our own answers too.
fn failed() -> Script {
    let owed = vec![
        parse(false),
        Owed::Bind,
        Owed::Insert(b"never".as_slice().into(), Some(7)),
        Owed::Execute,
        Owed::Sync,
    ];
    let mut sent = Vec::new();
    message::error(&mut sent, message::Severity::Error, "42601", "no", "");
    message::ready(&mut sent, Status::Idle);
    let news = vec![
        News::Failed(b"42601".to_vec()),
        News::NotPrepared(1),
        News::Undone(7),
    ];
    Script {
        shown: sent.clone(),
        owed,
        sent,
        news,
    }
}

fn check(script: &Script, piece: usize) {
    let mut expected = Expected::default();
    script
        .owed
        .iter()
        .for_each(|owed| expected.push(owed.clone()));
    let (mut received, mut out, mut news) = (BytesMut::new(), Vec::new(), Vec::new());
    for bytes in script.sent.chunks(piece) {
        received.extend_from_slice(bytes);
        let digested = expected.digest(&mut received, &mut out, &mut news);
        digested.expect("good frames");
    }
    news.retain(|item| !matches!(item, News::Parameter(..) | News::Ready(_)));
    assert_eq!(
        (&out, &news),
        (&script.shown, &script.news),
        "pieces of {piece}"
    );
    assert!(expected.is_empty() && received.is_empty());
}

#[test]
fn answers_are_the_same_however_they_are_cut() {
    for script in [extended(), failed()] {
        for piece in (1..64).chain([1000, 40_000, usize::MAX]) {
            check(&script, piece);
        }
    }
}

#[test]
fn a_copy_from_the_client_swallows_the_sync_behind_its_execute() {
    let mut expected = Expected::default();
    for owed in [Owed::Execute, Owed::Sync] {
        expected.push(owed);
    }
    let mut sent = Vec::new();
    message::frame(&mut sent, b'G', |out| out.extend_from_slice(&[0, 0, 0]));
    let (mut out, mut news) = (Vec::new(), Vec::new());
    let mut received = BytesMut::from(&sent[..]);
    expected
        .digest(&mut received, &mut out, &mut news)
        .expect("good");
    assert!(expected.copy_in && expected.unsynced);
    expected.push(Owed::Sync);
    let mut sent = Vec::new();
    message::complete(&mut sent, "COPY 1");
    message::ready(&mut sent, Status::Idle);
    let mut received = BytesMut::from(&sent[..]);
    expected
        .digest(&mut received, &mut out, &mut news)
        .expect("good");
    assert!(expected.is_empty() && !expected.copy_in);
}

#[test]
fn what_is_sent_after_a_failure_is_skipped_up_to_the_sync() {
    let script = failed();
    let mut expected = Expected::default();
    expected.push(Owed::Execute);
    let mut sent = Vec::new();
    message::error(&mut sent, message::Severity::Error, "42601", "no", "");
    let (mut out, mut news) = (Vec::new(), Vec::new());
    let mut received = BytesMut::from(&sent[..]);
    expected
        .digest(&mut received, &mut out, &mut news)
        .expect("good");
    script
        .owed
        .iter()
        .for_each(|owed| expected.push(owed.clone()));
    let mut sent = Vec::new();
    message::ready(&mut sent, Status::Idle);
    let mut received = BytesMut::from(&sent[..]);
    expected
        .digest(&mut received, &mut out, &mut news)
        .expect("good");
    assert!(expected.is_empty() && !expected.unsynced);
    assert_eq!(news.len(), 4, "{news:?}");
}

#[test]
fn a_query_behind_what_failed_is_skipped_up_to_a_sync() {
    let mut expected = Expected::default();
    for owed in [parse(true), Owed::Query { shown: true }] {
        expected.push(owed);
    }
    assert!(!expected.unsynced);
    let mut sent = Vec::new();
    message::error(&mut sent, message::Severity::Error, "42601", "no", "");
    let (mut out, mut news) = (Vec::new(), Vec::new());
    let mut received = BytesMut::from(&sent[..]);
    expected
        .digest(&mut received, &mut out, &mut news)
        .expect("good");
    assert!(expected.is_empty() && expected.unsynced, "a Sync is wanted");
    expected.push(Owed::Query { shown: true });
    assert!(expected.is_empty() && expected.unsynced, "it is skipped");
    expected.push(Owed::Sync);
    assert!(!expected.is_empty() && !expected.unsynced);
}

#[test]
fn what_is_prepared_for_a_query_fails_apart_from_it() {
    let check = |fails: bool| {
        let mut expected = Expected::default();
        for owed in [parse(false), Owed::OwnSync, Owed::Query { shown: true }] {
            expected.push(owed);
        }
        let (mut sent, mut shown) = (Vec::new(), Vec::new());
        if fails {
            message::error(&mut sent, message::Severity::Error, "25P02", "no", "");
        } else {
            message::empty(&mut sent, b'1');
        }
        message::ready(&mut sent, Status::Open);
        message::complete(&mut shown, "DEALLOCATE");
        message::ready(&mut shown, Status::Open);
        sent.extend_from_slice(&shown);
        let (mut out, mut news) = (Vec::new(), Vec::new());
        let mut received = BytesMut::from(&sent[..]);
        expected
            .digest(&mut received, &mut out, &mut news)
            .expect("good");
        assert_eq!((out, expected.is_empty()), (shown, true));
        let unprepared = news.iter().any(|it| matches!(it, News::NotPrepared(_)));
        let failed = news.iter().any(|it| matches!(it, News::Failed(_)));
        assert_eq!((unprepared, failed), (fails, false), "{news:?}");
    };
    check(false);
    check(true);
}

#[test]
fn an_answer_to_nothing_is_an_error() {
    for tag in [b'1', b'2', b'3', b'n', b'Z', b'R', b'K', b'W'] {
        let mut sent = Vec::new();
        message::frame(&mut sent, tag, |out| out.push(b'I'));
        let mut received = BytesMut::from(&sent[..]);
        let mut expected = Expected::default();
        let digested = expected.digest(&mut received, &mut Vec::new(), &mut Vec::new());
        assert!(digested.is_err(), "{}", char::from(tag));
    }
}
