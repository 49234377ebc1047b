//! The member against a server that misbehaves as it is told.
//!
//! Real servers are met in the integration tests. Invariant: the stub never has a whole object whose
//! digests are wrong.

use std::time::Duration;

use breccia_core::error::Effect;
use bytes::Bytes;

use super::*;
use crate::body::{ByteSource, NextChunk};
use crate::checksum::{self, Algorithm, Checksum};
use crate::condition::{ConditionalCall, ETagSet};
use crate::error::BodyFault;
use crate::http::stub::{Does, Seen, Stub, answer, text};
use crate::key_names::KeyMode;
use crate::listing::ListItem;
use crate::meta::ETag;
use crate::store::{BlobStoreExt, CopyOptions, copy_streamed};

fn options(stub: &Stub) -> S3Options {
    S3Options {
        endpoint: Some(stub.url()),
        credentials: CredentialSource::Given {
            access_key: "AK".to_owned(),
            secret_key: "SK".to_owned(),
            session_token: Some("token".to_owned()),
        },
        timeout: Duration::from_millis(300),
        max_retries: 1,
        ..S3Options::new("shard", "bucket")
    }
}

fn store(stub: &Stub) -> S3Store {
    S3Store::new(options(stub)).expect("a store")
}

fn key() -> Key {
    Key::new("a/../k e+y").expect("a key")
}

fn md5_tag(bytes: &[u8]) -> String {
    format!("etag: {}\r\n", ETag::of_md5(checksum::md5(bytes)).quoted())
}

async fn put(store: &S3Store, body: Body) -> Result<Written, BlobError> {
    store.put(&key(), body, PutOptions::default()).await
}

fn large() -> Bytes {
    Bytes::from(vec![7; 300_000])
}

#[tokio::test]
async fn a_put_is_one_signed_request() {
    let tag = md5_tag(&large());
    let stub = Stub::start(move |_, _| answer("200 OK", &tag, "")).await;
    let crc = Checksum::full(Algorithm::Crc32, checksum::of(Algorithm::Crc32, &large()));
    let body = Body::from_bytes(large()).expect(crc);
    put(&store(&stub), body).await.expect("a put");
    let [seen] = &stub.seen()[..] else {
        unreachable!("one request")
    };
    assert_eq!(seen.line, "PUT /bucket/a/../k%20e%2By");
    assert_eq!(
        seen.header("x-amz-content-sha256"),
        Some("UNSIGNED-PAYLOAD")
    );
    assert_eq!(seen.header("content-length"), Some("300000"));
    assert_eq!(seen.header("x-amz-security-token"), Some("token"));
    assert!(seen.header("x-amz-checksum-crc32").is_some());
    let authorization = seen.header("authorization").expect("a signature");
    assert!(authorization.contains("Credential=AK/") && !authorization.contains("SK"));
    assert!(seen.whole && seen.body == large());
}

#[tokio::test]
async fn a_wrong_digest_never_leaves_a_whole_object() {
    let stub = Stub::start(|_, _| answer("200 OK", "", "")).await;
    let store = store(&stub);
    for size in [0, 100, 65_536, 65_537, 300_000] {
        let bad = Body::from_bytes(vec![7; size]).expect_md5([1; 16]);
        let error = put(&store, bad).await.expect_err("a wrong digest");
        let fault = BodyFault::Md5;
        assert!(
            matches!(&error, BlobError::Body { fault: found } if *found == fault),
            "{error}"
        );
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(stub.seen().iter().all(|seen| !seen.whole));
}

#[tokio::test]
async fn what_becomes_of_a_put_is_told_honestly() {
    let check = async |does: Does, size: usize, effect: Effect, words: &str| {
        let stub = Stub::start(move |_, _| does.clone()).await;
        let error = put(&store(&stub), Body::from_bytes(vec![7; size])).await;
        let error = error.expect_err("no success");
        assert_eq!(error.effect(), effect, "{error}");
        assert!(error.to_string().contains(words), "{error}");
        assert_eq!(stub.seen().len(), 1, "sent once: {error}");
    };
    let (not, unknown) = (Effect::NotApplied, Effect::Unknown);
    let cut = || Does::AnswersAndCloses(String::new());
    check(cut(), 10, unknown, "unreachable").await;
    check(cut(), 300_000, unknown, "unreachable").await;
    check(Does::KeepsSilent, 300_000, unknown, "timeout").await;
    check(Does::Stalls, 30_000_000, not, "timeout").await;
    let refuse = |status: &str, code: &str| {
        let body = format!("<Error><Code>{code}</Code><Message>m</Message></Error>");
        text(status, "", &body)
    };
    let denied = refuse("403 Forbidden", "AccessDenied");
    check(Does::AnswersEarly(denied.clone()), 30_000_000, not, "'AK'").await;
    check(Does::Answers(denied), 10, not, "AccessDenied").await;
    let slow = refuse("503 Slow Down", "SlowDown");
    check(Does::Answers(slow), 10, not, "rate").await;
    let broken = refuse("500 Internal", "InternalError");
    check(Does::Answers(broken), 10, unknown, "InternalError").await;
    let full = refuse("507 Full", "XMinioStorageFull");
    check(Does::Answers(full), 10, not, "no room").await;
    let other = text("200 OK", &md5_tag(b"other"), "");
    check(Does::Answers(other), 10, unknown, "damaged").await;
    check(Does::Answers(text("200 OK", "", "")), 10, unknown, "ETag").await;
}

#[tokio::test]
async fn an_encrypted_object_has_a_tag_of_no_md5() {
    let kms =
        "etag: \"0123456789abcdef0123456789abcdef\"\r\nx-amz-server-side-encryption: aws:kms\r\n";
    let stub = Stub::start(move |_, _| answer("200 OK", kms, "")).await;
    let written = put(&store(&stub), Body::from_bytes("x"))
        .await
        .expect("a put");
    assert!(written.etag.as_str().ends_with("-0"), "{}", written.etag);
}

#[tokio::test]
async fn a_get_that_is_cut_or_silent_ends_with_an_error() {
    let head = "last-modified: Thu, 01 Jan 2026 00:00:00 GMT\r\n";
    let whole = text("200 OK", &format!("{}{head}", md5_tag(b"hello")), "hello");
    let cut = whole.strip_suffix("llo").expect("a body").to_owned();
    let check = async |does: Does, words: &str| {
        let stub = Stub::start(move |_, _| does.clone()).await;
        let error = store(&stub)
            .get_bytes(&key())
            .await
            .expect_err("a broken body");
        assert!(error.to_string().contains(words), "{error}");
    };
    check(Does::AnswersAndCloses(cut.clone()), "unreachable").await;
    check(Does::Answers(cut), "timeout").await;
    let stub = Stub::start(move |_, _| Does::Answers(whole.clone())).await;
    let (meta, bytes) = store(&stub).get_bytes(&key()).await.expect("a get");
    assert_eq!((&*bytes, meta.size), (&b"hello"[..], 5));
}

#[tokio::test]
async fn copies_in_both_directions_do_not_wait_for_each_other() {
    let body = String::from_utf8(large().to_vec()).expect("text");
    let headers = format!(
        "{}last-modified: Thu, 01 Jan 2026 00:00:00 GMT\r\n",
        md5_tag(body.as_bytes())
    );
    let (read, written) = (
        answer("200 OK", &headers, &body),
        answer("200 OK", &headers, ""),
    );
    let start = || {
        let (read, written) = (read.clone(), written.clone());
        Stub::start(move |seen, _| {
            let gets = seen.line.starts_with("GET");
            if gets { read.clone() } else { written.clone() }
        })
    };
    let (one, other) = (start().await, start().await);
    let of = |stub: &Stub| {
        let options = S3Options {
            max_connections: 1,
            ..options(stub)
        };
        S3Store::new(options).expect("a store")
    };
    let (one, other) = (of(&one), of(&other));
    let (from, to) = (key(), Key::new("copy").expect("a key"));
    let copy = |source, target| copy_streamed(source, &from, target, &to, CopyOptions::default());
    let (there, back) = tokio::join!(copy(&one, &other), copy(&other, &one));
    there.expect("a copy");
    back.expect("a copy back");
}

#[tokio::test]
async fn ranges_are_held_against_what_was_asked() {
    let check = async |headers: &str, status: &str, body: &str, expected: Option<Range>| {
        let headers = format!(
            "{}last-modified: Thu, 01 Jan 2026 00:00:00 GMT\r\n{headers}",
            md5_tag(b"")
        );
        let does = answer(status, &headers, body);
        let stub = Stub::start(move |_, _| does.clone()).await;
        let options = GetOptions {
            span: Some(crate::store::Span::Between(1, 2)),
            ..GetOptions::default()
        };
        let opened = store(&stub).get(&key(), options).await;
        assert_eq!(
            opened.ok().map(|opened| (opened.range, opened.meta.size)),
            expected
        );
        assert_eq!(stub.seen()[0].header("range"), Some("bytes=1-2"));
    };
    let partial = "206 Partial Content";
    check(
        "content-range: bytes 1-2/9\r\n",
        partial,
        "ab",
        Some((1..3, 9)),
    )
    .await;
    check("content-range: bytes 1-2/9\r\n", partial, "abc", None).await;
    check("", partial, "ab", None).await;
    check("", "200 OK", "abcdefghi", None).await;
    check("content-range: bytes */1\r\n", "416 Range", "", None).await;
}

type Range = (std::ops::Range<u64>, u64);

#[tokio::test]
async fn conditions_are_sent_only_where_they_were_seen_to_hold() {
    let tag = md5_tag(b"x");
    let stub = Stub::start(move |_, _| answer("200 OK", &tag, "")).await;
    let store = store(&stub);
    let put_if = async |condition: WriteCondition| {
        let options = PutOptions {
            condition,
            ..PutOptions::default()
        };
        store.put(&key(), Body::from_bytes("x"), options).await
    };
    let error = put_if(WriteCondition::IfAbsent)
        .await
        .expect_err("unprobed");
    assert!(
        matches!(error, BlobError::ConditionUnprobed { .. }),
        "{error}"
    );
    let set = |support| {
        let all = ConditionalSupport::all(support);
        *store.conditional.lock().expect("a lock") = all;
    };
    set(Support::No);
    let error = put_if(WriteCondition::IfAbsent)
        .await
        .expect_err("not offered");
    let call = ConditionalCall::PutIfAbsent;
    assert!(
        matches!(&error, BlobError::ConditionUnsupported { call: found, .. } if *found == call),
        "{error}"
    );
    assert_eq!(stub.seen().len(), 0);
    set(Support::Yes);
    put_if(WriteCondition::IfAbsent).await.expect("a put");
    let only = ETagSet::OneOf(vec![ETag::from_text("e")]);
    put_if(WriteCondition::IfMatch(only)).await.expect("a put");
    let seen = stub.seen();
    assert_eq!(seen[0].header("if-none-match"), Some("*"));
    assert_eq!(seen[1].header("if-match"), Some("\"e\""));
}

#[tokio::test]
async fn completing_may_fail_inside_of_a_success() {
    let stub = Stub::start(|seen: &Seen, _| {
        if seen.line.starts_with("GET") {
            let parts = "<ListPartsResult><IsTruncated>false</IsTruncated><Part><PartNumber>1</PartNumber>\
                <Size>5</Size><ETag>\"5d41402abc4b2a76b9719d911017c592\"</ETag></Part></ListPartsResult>";
            answer("200 OK", "", parts)
        } else {
            answer("200 OK", "", "  \n <Error><Code>InternalError</Code><Message>m</Message></Error>")
        }
    })
    .await;
    let choice = PartChoice {
        number: 1,
        etag: ETag::of_md5(checksum::md5(b"hello")),
        checksum: None,
    };
    let upload = UploadId("u&id".to_owned());
    let done = store(&stub)
        .complete_upload(&key(), &upload, vec![choice], CompleteOptions::default())
        .await;
    let error = done.expect_err("an error inside");
    assert_eq!(error.effect(), Effect::Unknown, "{error}");
    let seen = stub.seen();
    assert!(
        seen[1].line.ends_with("?uploadId=u%26id"),
        "{}",
        seen[1].line
    );
}

#[tokio::test]
async fn a_listing_out_of_order_is_refused() {
    let list = async |keys: &str| {
        let item = |key: &str| {
            format!("<Contents><Key>{key}</Key><Size>1</Size><ETag>e</ETag></Contents>")
        };
        let items: Vec<String> = keys.split_whitespace().map(item).collect();
        let items = items.concat();
        let body =
            format!("<ListBucketResult>{items}<IsTruncated>false</IsTruncated></ListBucketResult>");
        let stub = Stub::start(move |_, _| answer("200 OK", "", &body)).await;
        let request = ListRequest {
            limit: 10,
            ..ListRequest::default()
        };
        let page = store(&stub).list(request).await;
        page.map(|page| {
            page.items
                .iter()
                .map(ListItem::name)
                .map(<[u8]>::to_vec)
                .collect::<Vec<_>>()
        })
    };
    assert_eq!(list("a b ~.breccia/x").await.expect("a page"), [b"a", b"b"]);
    let error = list("b a").await.expect_err("out of order");
    assert!(matches!(error, BlobError::OutOfOrder { .. }), "{error}");
    list("a a").await.expect_err("twice");
}

#[tokio::test]
async fn reads_are_repeated_and_a_missing_bucket_is_no_missing_object() {
    let gone = "<Error><Code>NoSuchBucket</Code><Message>m</Message></Error>";
    let stub = Stub::start(move |_, place| match place {
        0 => answer("503 Busy", "", ""),
        _ => answer("404 Not Found", "", gone),
    })
    .await;
    let error = store(&stub).get_bytes(&key()).await.expect_err("no bucket");
    assert!(
        error.to_string().contains("bucket does not exist"),
        "{error}"
    );
    assert_eq!(stub.seen().len(), 2);
}

/// Gives nothing for ever.
struct Stuck;

impl ByteSource for Stuck {
    fn next(&mut self) -> NextChunk<'_> {
        Box::pin(std::future::pending())
    }
}

#[tokio::test]
async fn a_put_that_is_dropped_never_arrives_whole() {
    let stub = Stub::start(|_, _| answer("200 OK", "", "")).await;
    let store = store(&stub);
    let body = Body::new(Box::new(Stuck), 300_000);
    let putting = tokio::time::timeout(Duration::from_millis(50), put(&store, body));
    putting.await.expect_err("it cannot have ended");
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(stub.seen().iter().all(|seen| !seen.whole));
}

#[test]
fn options_are_checked_and_the_place_is_told_without_secrets() {
    let with = |change: fn(&mut S3Options)| {
        let mut options = S3Options {
            credentials: CredentialSource::Given {
                access_key: "AK".to_owned(),
                secret_key: "hidden".to_owned(),
                session_token: None,
            },
            ..S3Options::new("shard", "bucket")
        };
        change(&mut options);
        S3Store::new(options)
    };
    with(|options| options.bucket = String::new()).expect_err("no bucket");
    with(|options| options.endpoint = Some("h:80".to_owned())).expect_err("no scheme");
    with(|options| options.max_connections = 0).expect_err("no connections");
    let check = |change: fn(&mut S3Options), place: &str, root: &str| {
        let store = with(change).expect("a store");
        assert_eq!(store.location().as_deref(), Some(place));
        assert_eq!(store.root, root);
        assert!(!format!("{store:?}").contains("hidden"));
    };
    let insecure = |options: &mut S3Options| {
        options.tls.insecure = true;
        options.region = Some("eu-west-1".to_owned());
        options.keys = KeyMode::Encoded;
    };
    check(
        insecure,
        "s3:https://bucket.s3.eu-west-1.amazonaws.com:443/bucket/",
        "",
    );
    let local = |options: &mut S3Options| {
        options.endpoint = Some("http://127.0.0.1:9000/x/".to_owned());
        options.key_prefix = "p/".to_owned();
    };
    check(local, "s3:http://127.0.0.1:9000/x/bucket/p/", "/x/bucket");
}
