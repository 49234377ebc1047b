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
        change: None,
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
        News::NotPrepared(1, None),
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
    // Amid the copy it is ignored; behind the client's CopyDone it is not.
    let owed = expected.len();
    expected.push(Owed::Sync);
    assert_eq!(expected.len(), owed);
    expected.push(Owed::CopyEnd);
    expected.push(Owed::Sync);
    assert_eq!(expected.len(), owed + 1);
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
fn a_copy_whose_data_came_with_its_execute_ends_at_its_own_end() {
    // What the client has sent, and what the server says, `G` before all.
    let check = |sent: &[Owed], complete: bool, left: usize| {
        let mut expected = Expected::default();
        for owed in sent {
            expected.push(owed.clone());
        }
        let mut bytes = Vec::new();
        message::frame(&mut bytes, b'G', |out| out.extend_from_slice(&[0, 0, 0]));
        if complete {
            message::complete(&mut bytes, "COPY 1");
        } else {
            let severity = message::Severity::Error;
            message::error(&mut bytes, severity, "23502", "a null", "");
        }
        message::ready(&mut bytes, Status::Idle);
        let (mut out, mut news) = (Vec::new(), Vec::new());
        let mut received = BytesMut::from(&bytes[..]);
        expected
            .digest(&mut received, &mut out, &mut news)
            .expect("good");
        assert_eq!(out, bytes, "all of it is the client's");
        assert_eq!(expected.len(), left, "{expected:?}");
        assert!(!expected.copy_in && !expected.is_skipping());
    };
    let one = [Owed::Execute, Owed::CopyEnd, Owed::Sync];
    check(&one, true, 0);
    check(&one, false, 0);
    // A Sync between them is read as part of the copy, and the next batch stays owed.
    let two = [
        Owed::Execute,
        Owed::Sync,
        Owed::CopyEnd,
        Owed::Sync,
        Owed::Execute,
        Owed::Sync,
    ];
    check(&two, true, 2);
    check(&two, false, 2);
}

#[test]
fn a_sync_that_a_failed_copy_may_not_have_read_confuses_nothing() {
    // What is sent once the server reads the copy, what it says then, and what of it is shown.
    let check = |sent: &[Owed], said: &str, shown: &str, skipping: bool| {
        let mut expected = Expected::default();
        let mut digest = |sent: &[Owed], said: &str, skipping: Option<bool>| {
            for owed in sent {
                expected.push(owed.clone());
            }
            let mut bytes = Vec::new();
            for kind in said.bytes() {
                match kind {
                    b'Z' => message::ready(&mut bytes, Status::Idle),
                    b'E' => {
                        let severity = message::Severity::Error;
                        message::error(&mut bytes, severity, "P0001", "no", "");
                    }
                    kind => message::frame(&mut bytes, kind, |out| out.extend([0; 7])),
                }
            }
            let (mut out, mut news) = (Vec::new(), Vec::new());
            let mut received = BytesMut::from(&bytes[..]);
            let digested = expected.digest(&mut received, &mut out, &mut news);
            digested.expect("good");
            if let Some(skipping) = skipping {
                assert_eq!(expected.is_skipping(), skipping, "{said}");
                assert!(expected.is_empty(), "{said}: {expected:?}");
                assert!(news.contains(&News::Unread), "{news:?}");
            }
            let mut kinds = String::new();
            while let Some(head) = codec::head(&out).expect("frames") {
                kinds.push(char::from(head.tag));
                out.drain(..head.length);
            }
            kinds
        };
        assert_eq!(digest(&[Owed::Execute, Owed::Sync], "G", None), "G");
        assert_eq!(digest(sent, said, Some(skipping)), shown, "{sent:?}");
    };
    // It had read it, and the client is to send another one; it had not, and has answered.
    check(&[], "E", "E", true);
    check(&[], "EZ", "EZ", false);
    let end = [Owed::CopyEnd, Owed::Sync];
    check(&end, "EZ", "EZ", false);
    let more = [&end[..], &[Owed::Bind, Owed::Execute, Owed::Sync]].concat();
    check(&more, "EZ2CZ", "EZ2CZ", false);
    check(&more, "EZZ2CZ", "EZ2CZ", false);
    let query = [&end[..], &[Owed::Query { shown: true }]].concat();
    check(&query, "EZTCZ", "EZTCZ", false);
    check(&query, "EZZTCZ", "EZTCZ", false);
}

#[test]
fn the_end_of_a_copy_outside_of_one_is_owed_nothing() {
    let mut expected = Expected::default();
    expected.push(Owed::CopyEnd);
    assert!(expected.is_empty());
    for owed in [Owed::Execute, Owed::CopyEnd, Owed::Sync] {
        expected.push(owed);
    }
    let mut sent = Vec::new();
    message::complete(&mut sent, "SELECT 1");
    message::ready(&mut sent, Status::Idle);
    let (mut out, mut news) = (Vec::new(), Vec::new());
    let mut received = BytesMut::from(&sent[..]);
    expected
        .digest(&mut received, &mut out, &mut news)
        .expect("good");
    assert!(expected.is_empty() && out == sent);
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
        let unprepared = news.iter().any(|it| matches!(it, News::NotPrepared(..)));
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

#[test]
fn what_a_batch_prepares_is_in_doubt_until_that_is_answered() {
    let fits = |sql: Option<&[u8]>| sql == Some(b"x");
    let mut expected = Expected::default();
    expected.push(parse(false));
    assert!(!expected.is_preparing(fits), "it is of the batch under way");
    expected.push(Owed::Sync);
    assert!(expected.is_preparing(fits));
    assert!(
        !expected.is_preparing(|sql| sql.is_none()),
        "the unnamed one"
    );
    expected.push(parse(true));
    assert!(!expected.is_preparing(fits), "this batch prepares it too");
    expected.push(Owed::Sync);
    let mut sent = Vec::new();
    for _ in 0..2 {
        message::empty(&mut sent, b'1');
        message::ready(&mut sent, Status::Idle);
    }
    let (mut received, mut out) = (BytesMut::from(&sent[..]), Vec::new());
    let digested = expected.digest(&mut received, &mut out, &mut Vec::new());
    assert_eq!(digested, Ok(()));
    assert!(!expected.is_preparing(fits), "all is answered");
}

#[test]
fn a_server_that_ends_a_connection_behind_its_answer_is_heard_in_a_transaction_of_a_primary_alone()
{
    for (status, on_replica, shown) in [
        (Status::Open, false, true),
        (Status::Open, true, false),
        (Status::Idle, false, false),
    ] {
        let mut expected = Expected {
            on_replica,
            ..Expected::default()
        };
        expected.push(Owed::Query { shown: true });
        let mut answer = Vec::new();
        message::complete(&mut answer, "SELECT 1");
        message::ready(&mut answer, status);
        let mut sent = answer.clone();
        message::error(&mut sent, message::Severity::Fatal, "57P01", "bye", "");
        let (mut received, mut out, mut news) = (BytesMut::from(&sent[..]), Vec::new(), Vec::new());
        expected
            .digest(&mut received, &mut out, &mut news)
            .expect("good");
        let all = if shown { &sent } else { &answer };
        assert_eq!(&out, all, "{status:?} {on_replica}");
        assert!(
            news.iter()
                .any(|it| matches!(it, News::Fatal(_, told) if *told == shown))
        );
    }
}
