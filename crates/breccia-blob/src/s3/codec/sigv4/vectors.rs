//! Requests whose signatures were computed by others: AWS's documentation and botocore.
//!
//! Invariant: each row is signed and verified; both must agree with the published signature.

use hyper::HeaderMap;
use hyper::header::{HeaderName, HeaderValue};

use super::*;
use crate::s3::codec::{hex, time};

pub(super) const ACCESS_KEY: &str = "AKIAIOSFODNN7EXAMPLE";
const SECRET: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
pub(super) const NOW_MS: u64 = 1_369_353_600_000;

pub(super) fn headers(rows: &[(&str, &str)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in rows {
        map.append(
            HeaderName::from_bytes(name.as_bytes()).unwrap(),
            HeaderValue::from_str(value).unwrap(),
        );
    }
    map
}

pub(super) fn key(region: &str) -> SigningKey {
    SigningKey::derive(SECRET, Scope::s3("20130524", region))
}

pub(super) fn lookup(access_key: &str, scope: &Scope) -> Option<SigningKey> {
    (access_key == ACCESS_KEY).then(|| SigningKey::derive(SECRET, scope.clone()))
}

pub(super) fn signer<'a>(key: &'a SigningKey, session_token: Option<&'a str>) -> Signer<'a> {
    Signer {
        access_key: ACCESS_KEY,
        session_token,
        key,
        now_ms: NOW_MS,
    }
}

struct Row<'a> {
    region: &'a str,
    method: &'a str,
    path: &'a str,
    query: &'a str,
    headers: &'a [(&'a str, &'a str)],
    payload: Payload,
    token: Option<&'a str>,
}

fn check(row: &Row<'_>, expected: &str) {
    let (key, mut map) = (key(row.region), headers(row.headers));
    let signature = signer(&key, row.token)
        .sign(row.method, row.path, row.query, &mut map, &row.payload)
        .unwrap();
    assert_eq!(hex::encode(&signature), expected, "{}", row.path);
    let head = RequestHead {
        method: row.method,
        path: row.path,
        query: row.query,
        headers: &map,
    };
    let verified = verify(&head, NOW_MS, Regions::Any, &lookup)
        .unwrap()
        .unwrap();
    assert_eq!(verified.payload, row.payload);
    assert_eq!(verified.seed_signature(), signature);
    assert_eq!(verified.authorization.session_token.as_deref(), row.token);
}

const EXAMPLE: (&str, &str) = ("host", "examplebucket.s3.amazonaws.com");

fn aws<'a>(
    method: &'a str,
    path: &'a str,
    query: &'a str,
    headers: &'a [(&'a str, &'a str)],
) -> Row<'a> {
    Row {
        region: "us-east-1",
        method,
        path,
        query,
        headers,
        payload: Payload::EMPTY,
        token: None,
    }
}

#[test]
fn the_examples_of_aws_are_signed_alike() {
    check(
        &aws("GET", "/test.txt", "", &[EXAMPLE, ("range", "bytes=0-9")]),
        "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
    );
    let welcome = "44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072";
    let put = [
        EXAMPLE,
        ("date", "Fri, 24 May 2013 00:00:00 GMT"),
        ("x-amz-storage-class", "REDUCED_REDUNDANCY"),
    ];
    check(
        &Row {
            payload: Payload::parse(welcome.as_bytes()).unwrap(),
            ..aws("PUT", "/test$file.text", "", &put)
        },
        "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd",
    );
    check(
        &aws("GET", "/", "lifecycle", &[EXAMPLE]),
        "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543",
    );
    check(
        &aws("GET", "/", "prefix=J&max-keys=2", &[EXAMPLE]),
        "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7",
    );
    let chunked = [
        ("host", "s3.amazonaws.com"),
        ("x-amz-storage-class", "REDUCED_REDUNDANCY"),
        ("content-encoding", "aws-chunked"),
        ("x-amz-decoded-content-length", "66560"),
        ("content-length", "66824"),
    ];
    check(
        &Row {
            payload: Payload::SignedChunks { trailer: false },
            ..aws("PUT", "/examplebucket/chunkObject.txt", "", &chunked)
        },
        "4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9",
    );
}

#[test]
fn the_presigned_example_of_aws_is_signed_alike() {
    let (key, map) = (key("us-east-1"), headers(&[EXAMPLE]));
    let query = signer(&key, None)
        .presign("GET", "/test.txt", "", &map, 86_400)
        .unwrap();
    assert_eq!(
        query,
        "X-Amz-Algorithm=AWS4-HMAC-SHA256\
         &X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20130524%2Fus-east-1%2Fs3%2Faws4_request\
         &X-Amz-Date=20130524T000000Z&X-Amz-Expires=86400&X-Amz-SignedHeaders=host\
         &X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404"
    );
}

#[test]
fn requests_of_botocore_are_signed_alike() {
    check(
        &Row {
            region: "eu-west-1",
            payload: Payload::parse(
                b"8f434346648f6b96df89dda901c5176b10a6d83961dd3c1ac88b59b2dc327aa4",
            )
            .unwrap(),
            token: None,
            ..aws(
                "PUT",
                "/bucket/a%20b/c%2Bd//../%E2%82%AC~%27%28%29",
                "",
                &[
                    ("host", "127.0.0.1:9000"),
                    ("x-amz-meta-a", "  two   spaces "),
                    ("content-type", "text/html"),
                ],
            )
        },
        "5e59c3e4c572fd963049ef8faff4d6d4f3c22434c4e649b3d21d599fe5022141",
    );
    check(
        &Row {
            region: "eu-west-1",
            payload: Payload::parse(
                b"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            )
            .unwrap(),
            token: None,
            ..aws(
                "GET",
                "/bucket",
                "list-type=2&prefix=a%2Fb%20c%2B&delimiter=%2F&encoding-type=url&continuation-token=x%3D%3D",
                &[("host", "127.0.0.1:9000")],
            )
        },
        "682ffad7bed6830088d77a41ae66fe44bf51d9933c65ae2f08eae4d7f4ed599b",
    );
}

#[test]
fn tokens_and_odd_keys_of_botocore_are_signed_alike() {
    check(
        &Row {
            region: "eu-west-1",
            payload: Payload::parse(
                b"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            )
            .unwrap(),
            token: Some("to/ken+=="),
            ..aws(
                "POST",
                "/bucket/k",
                "uploads",
                &[("host", "127.0.0.1:9000"), ("x-amz-acl", "private")],
            )
        },
        "92304203cbcc23d8c5b0a975bdeba1c0876dd79ce34a4727d1e4e35e25e23159",
    );
    check(
        &Row {
            region: "eu-west-1",
            payload: Payload::parse(
                b"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            )
            .unwrap(),
            token: None,
            ..aws(
                "DELETE",
                "/bucket//lead//x/./y",
                "versionId=null",
                &[("host", "127.0.0.1:9000")],
            )
        },
        "7232d4f107b96556b42bbcbd907f35070bdada408debe44bcf301e5c84736e74",
    );
}

fn presigned(method: &str, path: &str, query: &str, rows: &[(&str, &str)]) {
    let map = headers(rows);
    let head = RequestHead {
        method,
        path,
        query,
        headers: &map,
    };
    let verified = verify(&head, NOW_MS, Regions::Any, &lookup)
        .unwrap()
        .unwrap();
    assert_eq!(verified.payload, Payload::Unsigned);
    assert_eq!(
        verified.authorization.form,
        Form::Presigned { expires_s: 600 }
    );
}

#[test]
fn presigned_requests_of_botocore_are_verified() {
    presigned(
        "PUT",
        "/bucket/a%20b/c%2Bd//../%E2%82%AC~%27%28%29",
        "X-Amz-Algorithm=AWS4-HMAC-SHA256\
         &X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20130524%2Feu-west-1%2Fs3%2Faws4_request\
         &X-Amz-Date=20130524T000000Z&X-Amz-Expires=600\
         &X-Amz-SignedHeaders=content-type%3Bhost%3Bx-amz-meta-a\
         &X-Amz-Signature=28b8efec4d32f106e4636eb13ca01263862b952a262ed802f1c309e152337017",
        &[
            ("host", "127.0.0.1:9000"),
            ("x-amz-meta-a", "  two   spaces "),
            ("content-type", "text/html"),
        ],
    );
    presigned(
        "GET",
        "/bucket",
        "list-type=2&prefix=a%2Fb%20c%2B&delimiter=%2F&encoding-type=url&continuation-token=x%3D%3D&X-Amz-Algorithm=AWS4-HMAC-SHA256\
         &X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20130524%2Feu-west-1%2Fs3%2Faws4_request\
         &X-Amz-Date=20130524T000000Z&X-Amz-Expires=600\
         &X-Amz-SignedHeaders=host\
         &X-Amz-Signature=98d13f5b17f834193171e4cf1cdd5ad2ade2377be577cc219d5f7ceaee0c0036",
        &[("host", "127.0.0.1:9000")],
    );
    presigned(
        "POST",
        "/bucket/k",
        "uploads=&X-Amz-Algorithm=AWS4-HMAC-SHA256\
         &X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20130524%2Feu-west-1%2Fs3%2Faws4_request\
         &X-Amz-Date=20130524T000000Z&X-Amz-Expires=600\
         &X-Amz-SignedHeaders=host%3Bx-amz-acl&X-Amz-Security-Token=to%2Fken%2B%3D%3D\
         &X-Amz-Signature=5c3935008299759daebe85c4a156419116e10a5e876cf7063ed28606edd25a62",
        &[("host", "127.0.0.1:9000"), ("x-amz-acl", "private")],
    );
    presigned(
        "DELETE",
        "/bucket//lead//x/./y",
        "versionId=null&X-Amz-Algorithm=AWS4-HMAC-SHA256\
         &X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20130524%2Feu-west-1%2Fs3%2Faws4_request\
         &X-Amz-Date=20130524T000000Z&X-Amz-Expires=600\
         &X-Amz-SignedHeaders=host\
         &X-Amz-Signature=9973a82c67d7ec5396704e407959266d4da9c6d9e582f09a59fd56b92700d3d5",
        &[("host", "127.0.0.1:9000")],
    );
}

#[test]
fn a_key_is_for_its_day() {
    let key = key("us-east-1");
    let late = Signer {
        now_ms: NOW_MS + 86_400_000,
        ..signer(&key, None)
    };
    let mut map = headers(&[EXAMPLE]);
    let answer = late.sign("GET", "/", "", &mut map, &Payload::EMPTY);
    assert_eq!(answer, Err(SignError::Day));
    assert_eq!(time::scope_date(NOW_MS), key.scope().date);
}
