//! Tests of request targets. Not here: signatures over them.
//!
//! Invariant: every row says what a whole target means.

use super::*;
use proptest::prelude::*;

#[test]
fn encoding_keeps_only_unreserved_characters() {
    assert_eq!(
        encode(b"a b/~_-.%+\xff", Slash::Keep),
        "a%20b/~_-.%25%2B%FF"
    );
    assert_eq!(encode(b"a/b", Slash::Escape), "a%2Fb");
}

#[test]
fn bad_escapes_are_refused() {
    let check = |text: &str, at: usize| {
        assert_eq!(decode(text), Err(UriError::Escape { at }), "{text}");
    };
    check("%", 0);
    check("a%2", 1);
    check("a%zz", 1);
    check("ab%25%+1", 5);
}

#[test]
fn queries_keep_their_order_and_read_plus_as_space() {
    let query = Query::parse("uploads&b=2+3%2B&&a=&=x").unwrap();
    let expected: Vec<(String, Vec<u8>)> = [("uploads", ""), ("b", "2 3+"), ("a", ""), ("", "x")]
        .map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec()))
        .to_vec();
    assert_eq!(query.pairs(), expected);
    assert!(query.has("uploads") && !query.has("upload"));
    assert_eq!(query.text("b"), Some("2 3+"));
    assert_eq!(query.canonical(None), "=x&a=&b=2%203%2B&uploads=");
    assert_eq!(query.canonical(Some("b")), "=x&a=&uploads=");
    assert_eq!(Query::parse("%ff=1"), Err(UriError::ParameterName));
    let long = "a&".repeat(MOST_QUERY_PARAMETERS + 1);
    assert_eq!(Query::parse(&long), Err(UriError::TooManyParameters));
}

#[test]
fn path_style_targets_keep_every_byte_of_the_key() {
    let check = |path: &str, bucket: &str, key: &[u8]| {
        let target = Target::path_style(path).unwrap();
        assert_eq!(target.bucket.as_deref().unwrap_or(""), bucket, "{path}");
        assert_eq!(target.key.as_deref().unwrap_or(b""), key, "{path}");
    };
    check("/", "", b"");
    check("/b", "b", b"");
    check("/b/", "b", b"");
    check("/b/k", "b", b"k");
    check("/b//x", "b", b"/x");
    check("/b/a//b/", "b", b"a//b/");
    check("/b/./../x", "b", b"./../x");
    check("/b/a+b%2B%20%252F%ff", "b", b"a+b+ %2F\xff");
    for (path, error) in [
        ("", UriError::Path),
        ("b/k", UriError::Path),
        ("//k", UriError::Bucket),
        ("/a%2Fb/k", UriError::Bucket),
        ("/a%00/k", UriError::Bucket),
        ("/%ff/k", UriError::Bucket),
        ("/b/%", UriError::Escape { at: 0 }),
    ] {
        assert_eq!(Target::path_style(path), Err(error), "{path}");
    }
}

#[test]
fn a_bucket_may_stand_in_front_of_our_domain() {
    let check = |host: &str, path: &str, bucket: &str, key: &str| {
        let target = Target::of_host(host, &["s3.example.org", "localhost"], path).unwrap();
        assert_eq!(target.bucket.as_deref(), Some(bucket), "{host}{path}");
        assert_eq!(
            target.key.unwrap_or_default(),
            key.as_bytes(),
            "{host}{path}"
        );
    };
    check("b.s3.example.org", "/k", "b", "k");
    check("B.S3.example.ORG:9000", "//k", "b", "/k");
    check("a.b.localhost:80", "/", "a.b", "");
    check("s3.example.org", "/b/k", "b", "k");
    check("elsewhere.org", "/b/k", "b", "k");
    check("xs3.example.org", "/b/k", "b", "k");
    check("[::1]:9000", "/b/k", "b", "k");
}

proptest! {
    #[test]
    fn any_key_survives_the_target(key in proptest::collection::vec(any::<u8>(), 1..60)) {
        let path = format!("/b/{}", encode(&key, Slash::Keep));
        prop_assert_eq!(Target::path_style(&path).unwrap().key, Some(key));
    }

    #[test]
    fn any_text_is_answered(text in ".{0,60}") {
        let _answers = (decode(&text), Query::parse(&text), Target::path_style(&text));
    }
}
