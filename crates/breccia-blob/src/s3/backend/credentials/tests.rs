//! Each source of credentials against a stub of its service.

use std::collections::BTreeMap;

use super::*;
use crate::http::stub::{Stub, answer};
use crate::s3::codec::time::iso8601;

fn variables(pairs: &[(&str, &str)]) -> Variables {
    let pairs: BTreeMap<String, String> = pairs
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    Arc::new(move |name| pairs.get(name).cloned())
}

fn cache(pairs: &[(&str, &str)]) -> Result<CredentialCache, BlobError> {
    let given = CredentialSource::Surroundings;
    CredentialCache::new("s", &given, &variables(pairs), "eu-west-1")
}

fn json(expires_ms: u64) -> String {
    let expiration = iso8601(expires_ms);
    format!(
        r#"{{"Code":"Success","AccessKeyId":"AK","SecretAccessKey":"SK","Token":"T","Expiration":"{expiration}"}}"#
    )
}

fn in_an_hour() -> u64 {
    clock::unix_ms() + 3_600_000
}

#[tokio::test]
async fn the_environment_comes_first_and_must_be_whole() {
    let pairs = [("AWS_ACCESS_KEY_ID", "AK"), ("AWS_SECRET_ACCESS_KEY", "SK")];
    let found = cache(&pairs).expect("a cache").get().await.expect("keys");
    assert_eq!((found.access_key.as_str(), found.expires_ms), ("AK", None));
    assert!(!format!("{found:?}").contains("SK"));
    cache(&pairs[..1]).expect_err("half of a pair");
    cache(&[("AWS_WEB_IDENTITY_TOKEN_FILE", "f")]).expect_err("no role");
    cache(&[("AWS_EC2_METADATA_DISABLED", "true")]).expect_err("no source");
    let far = [("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://example.org/x")];
    cache(&far).expect_err("plain HTTP to a stranger");
}

#[tokio::test]
async fn a_web_identity_is_exchanged() {
    let stub = Stub::start(|_, _| {
        let body = "<AssumeRoleWithWebIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\">\
            <AssumeRoleWithWebIdentityResult><Credentials><AccessKeyId>AK</AccessKeyId>\
            <SecretAccessKey>SK</SecretAccessKey><SessionToken>T</SessionToken>\
            <Expiration>2999-01-01T00:00:00Z</Expiration></Credentials>\
            </AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>";
        answer("200 OK", "", body)
    })
    .await;
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("token");
    std::fs::write(&file, "a.b/c\n").expect("a token");
    let cache = cache(&[
        ("AWS_WEB_IDENTITY_TOKEN_FILE", file.to_str().expect("text")),
        ("AWS_ROLE_ARN", "arn:aws:iam::1:role/r"),
        ("AWS_ENDPOINT_URL_STS", &stub.url()),
    ])
    .expect("a cache");
    let found = cache.get().await.expect("keys");
    assert_eq!(found.session_token.as_deref(), Some("T"));
    let seen = stub.seen().remove(0);
    assert_eq!(seen.line, "POST /");
    let body = String::from_utf8(seen.body).expect("text");
    assert!(body.ends_with("&WebIdentityToken=a.b%2Fc"), "{body}");
}

#[tokio::test]
async fn a_container_is_asked_with_its_token() {
    let stub = Stub::start(|_, _| answer("200 OK", "", &json(in_an_hour()))).await;
    let cache = cache(&[
        (
            "AWS_CONTAINER_CREDENTIALS_FULL_URI",
            &format!("{}/v1/c", stub.url()),
        ),
        ("AWS_CONTAINER_AUTHORIZATION_TOKEN", "secret"),
    ])
    .expect("a cache");
    assert_eq!(cache.get().await.expect("keys").access_key, "AK");
    let seen = stub.seen().remove(0);
    assert_eq!(
        (seen.line.as_str(), seen.header("authorization")),
        ("GET /v1/c", Some("secret"))
    );
}

#[tokio::test]
async fn the_metadata_service_is_asked_once_by_all() {
    let stub = Stub::start(|seen, _| match seen.line.as_str() {
        "PUT /latest/api/token" => answer("200 OK", "", "tok"),
        "GET /latest/meta-data/iam/security-credentials/" => answer("200 OK", "", "role\n"),
        _ if seen.header("x-aws-ec2-metadata-token") == Some("tok") => {
            answer("200 OK", "", &json(in_an_hour()))
        }
        _ => answer("401 Unauthorized", "", ""),
    })
    .await;
    let cache = cache(&[("AWS_EC2_METADATA_SERVICE_ENDPOINT", &stub.url())]).expect("a cache");
    let all = futures_util::future::join_all((0..8).map(|_| cache.get())).await;
    assert!(all.iter().all(Result::is_ok), "{all:?}");
    assert_eq!(stub.seen().len(), 3);
}

#[tokio::test]
async fn a_failed_refresh_keeps_what_is_still_good() {
    let soon = clock::unix_ms() + 60_000;
    let stub = Stub::start(move |_, place| match place {
        0 => answer("200 OK", "", &json(soon)),
        _ => answer("403 Forbidden", "", ""),
    })
    .await;
    let url = format!("{}/c", stub.url());
    let cache = cache(&[("AWS_CONTAINER_CREDENTIALS_FULL_URI", &url)]).expect("a cache");
    for _ in 0..4 {
        assert_eq!(cache.get().await.expect("keys").access_key, "AK");
    }
    // Fetched, refused once, and then left alone for a while.
    assert_eq!(stub.seen().len(), 2);
}

#[tokio::test]
async fn an_error_names_the_source() {
    let stub = Stub::start(|_, _| answer("200 OK", "", "{\"SecretAccessKey\":\"SK\"}")).await;
    let url = format!("{}/c", stub.url());
    let cache = cache(&[("AWS_CONTAINER_CREDENTIALS_FULL_URI", &url)]).expect("a cache");
    let words = cache.get().await.expect_err("no keys").to_string();
    assert!(
        words.contains("AWS_CONTAINER_CREDENTIALS") && !words.contains("SK"),
        "{words}"
    );
}
