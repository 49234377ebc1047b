//! Tests of what a verifier refuses, and of the few things it forgives.
//!
//! Invariant: a row changes one thing of a request that would pass.

use hyper::HeaderMap;

use super::vectors::{ACCESS_KEY, NOW_MS, headers, key, lookup, signer};
use super::*;

const MINUTE_MS: u64 = 60_000;

fn head<'a>(query: &'a str, headers: &'a HeaderMap) -> RequestHead<'a> {
    RequestHead {
        method: "GET",
        path: "/b/k",
        query,
        headers,
    }
}

fn outcome(query: &str, map: &HeaderMap, now_ms: u64) -> Result<bool, SignatureError> {
    verify(&head(query, map), now_ms, Regions::Any, &lookup).map(|answer| answer.is_some())
}

fn signed(rows: &[(&str, &str)], payload: &Payload) -> HeaderMap {
    let mut map = headers(rows);
    let key = key("us-east-1");
    signer(&key, None)
        .sign("GET", "/b/k", "", &mut map, payload)
        .unwrap();
    map
}

fn presigned(rows: &[(&str, &str)]) -> String {
    let key = key("us-east-1");
    signer(&key, None)
        .presign("GET", "/b/k", "x=1", &headers(rows), 60)
        .unwrap()
}

const HOST: (&str, &str) = ("host", "localhost");

/// Signs exactly these headers, as if the request had them, and sends only `sent`.
fn phantom(all: &[(&str, &str)], sent: &[&str]) -> HeaderMap {
    let mut map = signed(all, &Payload::EMPTY);
    for (name, _) in all {
        if !sent.contains(name) {
            map.remove(*name);
        }
    }
    map
}

#[test]
fn a_request_without_a_signature_is_anonymous() {
    assert_eq!(outcome("x=1", &headers(&[HOST]), NOW_MS), Ok(false));
}

#[test]
fn whatever_is_changed_breaks_the_signature() {
    let check = |query: &str, change: &dyn Fn(&mut HeaderMap), error: SignatureError| {
        let mut map = signed(
            &[HOST, ("range", "bytes=0-1"), ("x-amz-acl", "a")],
            &Payload::EMPTY,
        );
        change(&mut map);
        assert_eq!(outcome(query, &map, NOW_MS), Err(error));
    };
    let set = |name: &'static str, value: &'static str| {
        move |map: &mut HeaderMap| drop(map.insert(name, value.parse().unwrap()))
    };
    let add = |name: &'static str, value: &'static str| {
        move |map: &mut HeaderMap| assert!(map.append(name, value.parse().unwrap()))
    };
    check("y", &|_| {}, SignatureError::Mismatch);
    check("", &set("range", "bytes=0-2"), SignatureError::Mismatch);
    check("", &set("host", "elsewhere"), SignatureError::Mismatch);
    check("", &add("x-amz-acl", "b"), SignatureError::Mismatch);
    check(
        "",
        &set("x-amz-content-sha256", "UNSIGNED-PAYLOAD"),
        SignatureError::Mismatch,
    );
    check(
        "",
        &set("x-amz-date", "20130524T000001Z"),
        SignatureError::Mismatch,
    );
    check(
        "",
        &add("x-amz-date", "20130524T000000Z"),
        SignatureError::Date,
    );
    let unsigned = SignatureError::UnsignedHeader {
        name: "x-amz-meta-a".to_owned(),
    };
    check("", &set("x-amz-meta-a", "1"), unsigned);
    let absent = SignatureError::SignedHeaderAbsent {
        name: "range".to_owned(),
    };
    check("", &|map| drop(map.remove("range")), absent);
    check(
        "",
        &|map| drop(map.remove("x-amz-content-sha256")),
        SignatureError::PayloadMissing,
    );
    let payload = |streaming| SignatureError::Payload { streaming };
    check("", &set("x-amz-content-sha256", "abc"), payload(false));
    let asymmetric = "STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD";
    check("", &set("x-amz-content-sha256", asymmetric), payload(true));
    check("X-Amz-Signature=1", &|_| {}, SignatureError::TwoForms);
    check(
        "%zz",
        &|_| {},
        crate::s3::codec::uri::UriError::Escape { at: 0 }.into(),
    );
}

#[test]
fn what_rust_s3_signs_and_does_not_send_is_forgiven() {
    let both = [
        HOST,
        ("content-length", "0"),
        ("content-type", "text/plain"),
    ];
    assert_eq!(outcome("", &phantom(&both, &["host"]), NOW_MS), Ok(true));
    assert_eq!(
        outcome("", &phantom(&both, &["host", "content-type"]), NOW_MS),
        Ok(true)
    );
    let other = [HOST, ("content-length", "5")];
    let mismatch = Err(SignatureError::Mismatch);
    assert_eq!(outcome("", &phantom(&other, &["host"]), NOW_MS), mismatch);
    let mut chunked = phantom(&both, &["host"]);
    chunked.insert("transfer-encoding", "chunked".parse().unwrap());
    let absent = SignatureError::SignedHeaderAbsent {
        name: "content-length".to_owned(),
    };
    assert_eq!(outcome("", &chunked, NOW_MS), Err(absent));
}

#[test]
fn clocks_may_be_off_by_a_quarter_of_an_hour() {
    let map = signed(&[HOST], &Payload::EMPTY);
    let check = |now_ms: u64, good: bool| {
        let skewed = SignatureError::Skewed {
            request_ms: NOW_MS,
            now_ms,
        };
        let expected = if good { Ok(true) } else { Err(skewed) };
        assert_eq!(outcome("", &map, now_ms), expected);
    };
    check(NOW_MS + 15 * MINUTE_MS, true);
    check(NOW_MS + 15 * MINUTE_MS + 1, false);
    check(NOW_MS - 15 * MINUTE_MS, true);
    check(NOW_MS - 15 * MINUTE_MS - 1, false);
}

#[test]
fn presigned_urls_live_from_their_date_to_their_end() {
    let (query, map) = (presigned(&[HOST]), headers(&[HOST]));
    let check = |now_ms: u64, expected: Result<bool, SignatureError>| {
        assert_eq!(outcome(&query, &map, now_ms), expected);
    };
    check(NOW_MS, Ok(true));
    check(NOW_MS + MINUTE_MS, Ok(true));
    let expired = SignatureError::Expired {
        expired_ms: NOW_MS + MINUTE_MS,
        now_ms: NOW_MS + MINUTE_MS + 1,
    };
    check(NOW_MS + MINUTE_MS + 1, Err(expired));
    check(NOW_MS - 15 * MINUTE_MS, Ok(true));
    check(
        NOW_MS - 15 * MINUTE_MS - 1,
        Err(SignatureError::NotYetValid),
    );
}

#[test]
fn the_holder_of_a_presigned_url_can_add_nothing() {
    let query = presigned(&[HOST]);
    let check = |name: &'static str| {
        let error = SignatureError::UnsignedHeader {
            name: name.to_owned(),
        };
        let map = headers(&[HOST, (name, "20130524T000000Z")]);
        assert_eq!(outcome(&query, &map, NOW_MS), Err(error));
    };
    check("x-amz-copy-source");
    check("x-amz-date");
    check("x-amz-security-token");
    let mismatch = Err(SignatureError::Mismatch);
    assert_eq!(
        outcome(&format!("{query}&y=1"), &headers(&[HOST]), NOW_MS),
        mismatch
    );
    let same = headers(&[HOST, ("x-amz-content-sha256", "UNSIGNED-PAYLOAD")]);
    assert_eq!(outcome(&query, &same, NOW_MS), Ok(true));
    let other = headers(&[
        HOST,
        ("x-amz-content-sha256", "STREAMING-UNSIGNED-PAYLOAD-TRAILER"),
    ]);
    assert_eq!(outcome(&query, &other, NOW_MS), mismatch);
}

#[test]
fn malformed_parameters_are_told_apart() {
    let query = presigned(&[HOST]);
    let check = |from: &str, to: &str| {
        let changed = query.replace(from, to);
        assert_ne!(changed, query);
        outcome(&changed, &headers(&[HOST]), NOW_MS).unwrap_err()
    };
    for (from, to) in [
        ("X-Amz-Expires=60", "X-Amz-Expires=0"),
        ("X-Amz-Expires=60", "X-Amz-Expires=604801"),
        ("X-Amz-Expires=60", "X-Amz-Expires=%2B6"),
        ("X-Amz-Expires=60", "X-Amz-Expires=6&X-Amz-Expires=60"),
        ("X-Amz-Date=2", "X-Amz-Date="),
        ("&X-Amz-Signature=", "&X-Amz-Signature=a"),
        ("=host", "=Host"),
        ("=host", "=host%3Bhost"),
        ("X-Amz-Credential=", "Credential="),
    ] {
        let seen = check(from, to);
        assert!(
            matches!(seen, SignatureError::QueryMalformed { .. }),
            "{to}: {seen}"
        );
    }
    for (from, to) in [
        ("aws4_request", "aws4"),
        ("%2Fs3%2F", "%2Fsqs%2F"),
        ("20130524%2F", "20130525%2F"),
    ] {
        let seen = check(from, to);
        assert!(
            matches!(
                seen,
                SignatureError::Scope {
                    presigned: true,
                    ..
                }
            ),
            "{to}: {seen}"
        );
    }
    assert_eq!(
        check("=AWS4-HMAC", "=AWS4-ECDSA-P256"),
        SignatureError::Algorithm
    );
    assert_eq!(check("=host", "=hosts"), SignatureError::HostNotSigned);
    let unknown = SignatureError::UnknownAccessKey {
        access_key: format!("X{ACCESS_KEY}"),
    };
    assert_eq!(check("=AKIA", "=XAKIA"), unknown);
}

#[test]
fn malformed_headers_are_told_apart() {
    let check = |value: &str| {
        let map = headers(&[
            HOST,
            ("x-amz-date", "20130524T000000Z"),
            ("authorization", value),
        ]);
        outcome("", &map, NOW_MS).unwrap_err()
    };
    let good = "Credential=a/b/20130524/r/s3/aws4_request,SignedHeaders=host,Signature=";
    let digits = "0".repeat(64);
    for value in [
        "Bearer x",
        "AWS4-HMAC-SHA256",
        "AWS4-HMAC-SHA256 Credential",
        "AWS4-HMAC-SHA256 Signature=1",
        &format!("AWS4-HMAC-SHA256 {good}12"),
        &format!("AWS4-HMAC-SHA256 {good}{digits},Signature={digits}"),
        &format!("AWS4-HMAC-SHA256 {good}{digits},More=1"),
    ] {
        let seen = check(value);
        assert!(
            matches!(seen, SignatureError::HeaderMalformed { .. }),
            "{value}: {seen}"
        );
    }
    assert_eq!(check("AWS AKIA:abc="), SignatureError::Version2);
    assert_eq!(
        check("AWS4-ECDSA-P256-SHA256 Credential=a"),
        SignatureError::Algorithm
    );
    // The payload's header is missing here: the claim itself was read.
    assert_eq!(
        check(&format!("AWS4-HMAC-SHA256 {good}{digits}")),
        SignatureError::PayloadMissing
    );
    let version_2 = outcome(
        "AWSAccessKeyId=a&Signature=b&Expires=1",
        &headers(&[HOST]),
        NOW_MS,
    );
    assert_eq!(version_2, Err(SignatureError::Version2));
}

#[test]
fn regions_may_be_limited_and_dates_may_stand_in_date() {
    let map = signed(&[HOST], &Payload::Unsigned);
    let check = |regions: Regions<'_>, good: bool| {
        let answer = verify(&head("", &map), NOW_MS, regions, &lookup);
        assert_eq!(answer.is_ok(), good, "{regions:?}");
    };
    check(Regions::OneOf(&["eu-west-1", "us-east-1"]), true);
    check(Regions::OneOf(&["eu-west-1"]), false);
    for date in ["Fri, 24 May 2013 00:00:00 GMT", "20130524T000000Z"] {
        let rows = [
            HOST,
            ("date", date),
            ("x-amz-content-sha256", "UNSIGNED-PAYLOAD"),
        ];
        let mut map = headers(&rows);
        let names = ["date", "host"].map(str::to_owned);
        let request = head("", &map);
        let query = crate::s3::codec::uri::Query::default();
        let text = canonical_request(&request, &query, &names, "UNSIGNED-PAYLOAD", false).unwrap();
        let key = key("us-east-1");
        let signature = key.sign(&string_to_sign("20130524T000000Z", key.scope_text(), &text));
        let value = format!(
            "AWS4-HMAC-SHA256 Credential={ACCESS_KEY}/{}, SignedHeaders=date;host, Signature={}",
            key.scope().to_text(),
            crate::s3::codec::hex::encode(&signature)
        );
        map.insert("authorization", value.parse().unwrap());
        assert_eq!(outcome("", &map, NOW_MS), Ok(true), "{date}");
        map.remove("date");
        assert_eq!(outcome("", &map, NOW_MS), Err(SignatureError::Date));
    }
}
