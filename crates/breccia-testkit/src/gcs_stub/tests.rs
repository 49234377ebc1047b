//! The stub against the documented protocol, with plain HTTP requests.
//!
//! Not a test of Breccia's client. Invariant: each test has a stub of its own.

use anyhow::{Context, Result, anyhow};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::rand::SystemRandom;
use ring::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use serde_json::{Value, json};

use super::GcsStub;
use crate::http_message::{HttpReply, http_call};

const OBJECTS: &str = "/storage/v1/b/one/o";
const UPLOADS: &str = "/upload/storage/v1/b/one/o";

struct Client(GcsStub);

impl Client {
    fn new() -> Result<Client> {
        let stub = GcsStub::start()?;
        stub.create_bucket("one");
        Ok(Client(stub))
    }

    fn call(&self, method: &str, target: &str, body: &[u8]) -> Result<HttpReply> {
        http_call(&self.0.address(), method, target, &[], body)
    }

    fn json(&self, method: &str, target: &str, body: &Value) -> Result<(u16, Value)> {
        let body = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        let reply = self.call(method, target, body.as_bytes())?;
        let value = serde_json::from_slice(&reply.body).unwrap_or_default();
        Ok((reply.status, value))
    }

    fn put(&self, name: &str, content: &[u8]) -> Result<String> {
        let target = format!("{UPLOADS}?uploadType=media&name={name}");
        let reply = self.call("POST", &target, content)?.success()?;
        let value: Value = serde_json::from_slice(&reply.body)?;
        Ok(value["generation"]
            .as_str()
            .context("a generation")?
            .to_owned())
    }
}

#[test]
fn a_generation_guards_every_change() -> Result<()> {
    let client = Client::new()?;
    let generation = client.put("a%2Fb", b"content")?;
    let check = |method: &str, target: &str, status: u16| -> Result<()> {
        let target = target.replace("NOW", &generation);
        let reply = client.call(method, &target, b"")?;
        assert_eq!(reply.status, status, "{method} {target}: {}", reply.text());
        Ok(())
    };
    let upload = format!("{UPLOADS}?uploadType=media&name=a%2Fb");
    check("POST", &format!("{upload}&ifGenerationMatch=0"), 412)?;
    check("POST", &format!("{upload}&ifGenerationMatch=5"), 412)?;
    check("POST", &format!("{UPLOADS}?uploadType=media"), 400)?;
    check(
        "GET",
        &format!("{OBJECTS}/a%2Fb?ifGenerationMatch=NOW"),
        200,
    )?;
    check(
        "GET",
        &format!("{OBJECTS}/a%2Fb?ifGenerationNotMatch=NOW"),
        304,
    )?;
    check(
        "GET",
        &format!("{OBJECTS}/a%2Fb?alt=media&ifGenerationMatch=5"),
        412,
    )?;
    check("GET", &format!("{OBJECTS}/a%2Fb?generation=5"), 404)?;
    check("GET", &format!("{OBJECTS}/a%2Fb?generation=x"), 400)?;
    check("GET", "/storage/v1/b/none/o/a", 404)?;
    check("GET", "/storage/v1/b/none", 404)?;
    check("GET", "/storage/v1/b/one", 200)?;
    check(
        "DELETE",
        &format!("{OBJECTS}/a%2Fb?ifGenerationMatch=5"),
        412,
    )?;
    check(
        "DELETE",
        &format!("{OBJECTS}/none?ifGenerationMatch=5"),
        404,
    )?;
    check(
        "DELETE",
        &format!("{OBJECTS}/a%2Fb?ifGenerationMatch=NOW"),
        204,
    )?;
    check("DELETE", &format!("{OBJECTS}/a%2Fb"), 404)?;
    check("POST", &format!("{upload}&ifGenerationMatch=0"), 200)?;
    Ok(())
}

#[test]
fn content_comes_back_whole_and_in_parts() -> Result<()> {
    let client = Client::new()?;
    client.put("a", b"123456789")?;
    let check = |range: &str, status: u16, body: &str| -> Result<()> {
        let target = format!("{OBJECTS}/a?alt=media");
        let headers = [("range", range)];
        let reply = http_call(&client.0.address(), "GET", &target, &headers, b"")?;
        let wanted = (status, body.to_owned());
        assert_eq!((reply.status, reply.text()), wanted, "{range}");
        // The check value of CRC-32C, and the MD5 of the same digits.
        let hash = "crc32c=4waSgw==,md5=JfnnlDI7RTiF9RgfG2JNCw==";
        assert_eq!(reply.header("x-goog-hash"), Some(hash));
        Ok(())
    };
    check("bytes=0-3", 206, "1234")?;
    check("bytes=7-", 206, "89")?;
    check("bytes=-2", 206, "89")?;
    check("bytes=2-900", 206, "3456789")?;
    check("bytes=x", 200, "123456789")
}

#[test]
fn an_upload_in_two_parts_sets_metadata_and_a_patch_changes_it() -> Result<()> {
    let client = Client::new()?;
    let metadata =
        json!({"name": "a", "contentType": "text/plain", "metadata": {"x": "1", "y": "2"}});
    let body = format!(
        "--line\r\nContent-Type: application/json\r\n\r\n{metadata}\r\n\
         --line\r\nContent-Type: image/png\r\n\r\n--lin\r\n\r\nbody\r\n--line--\r\n"
    );
    let headers = [("content-type", "multipart/related; boundary=line")];
    let target = format!("{UPLOADS}?uploadType=multipart&ifGenerationMatch=0");
    let address = client.0.address();
    http_call(&address, "POST", &target, &headers, body.as_bytes())?.success()?;
    let read = client.call("GET", &format!("{OBJECTS}/a?alt=media"), b"")?;
    assert_eq!(read.text(), "--lin\r\n\r\nbody");
    assert_eq!(read.header("content-type"), Some("text/plain"));
    let patch = json!({"metadata": {"x": null, "z": "3"}, "cacheControl": "no-store"});
    let patched = format!("{OBJECTS}/a?ifMetagenerationMatch=1");
    let (status, object) = client.json("PATCH", &patched, &patch)?;
    assert_eq!((status, &object["metageneration"]), (200, &json!("2")));
    assert_eq!(object["metadata"], json!({"y": "2", "z": "3"}));
    assert_eq!(client.json("PATCH", &patched, &patch)?.0, 412);
    let wrong = body.replace(
        "\"x\":\"1\"",
        "\"x\":\"1\"},\"crc32c\":\"AAAAAA==\",\"b\":{",
    );
    let target = format!("{UPLOADS}?uploadType=multipart");
    let reply = http_call(&address, "POST", &target, &headers, wrong.as_bytes())?;
    assert_eq!(reply.status, 400, "{}", reply.text());
    Ok(())
}

#[test]
fn a_resumable_upload_appears_at_its_end() -> Result<()> {
    let client = Client::new()?;
    let begin = |query: &str| -> Result<HttpReply> {
        let target = format!("{UPLOADS}?uploadType=resumable&name=big{query}");
        client.call("POST", &target, br#"{"metadata":{"a":"b"}}"#)
    };
    let session = begin("&ifGenerationMatch=0")?;
    let session = session.header("location").context("a session")?.to_owned();
    let target = session.replace(&client.0.endpoint(), "");
    let piece = |range: &str, body: &[u8]| {
        http_call(
            &client.0.address(),
            "PUT",
            &target,
            &[("content-range", range)],
            body,
        )
    };
    let first = vec![1; 256 * 1024];
    let reply = piece("bytes 0-262143/*", &first)?;
    assert_eq!(
        (reply.status, reply.header("range")),
        (308, Some("bytes=0-262143"))
    );
    assert_eq!(
        client.call("GET", &format!("{OBJECTS}/big"), b"")?.status,
        404
    );
    assert_eq!(piece("bytes */*", b"")?.status, 308);
    assert_eq!(piece("bytes 262144-262145/262146", b"ab")?.status, 200);
    assert_eq!(piece("bytes */*", b"")?.status, 200);
    let (_, object) = client.json(
        "GET",
        &format!("{OBJECTS}/big?fields=size,metadata"),
        &Value::Null,
    )?;
    assert_eq!(object, json!({"size": "262146", "metadata": {"a": "b"}}));
    assert_eq!(begin("&ifGenerationMatch=0")?.status, 412);
    let again = begin("")?;
    let again = again
        .header("location")
        .context("a session")?
        .replace(&client.0.endpoint(), "");
    client.call("PUT", &again, b"whole")?.success()?;
    let read = client.call("GET", &format!("{OBJECTS}/big?alt=media"), b"")?;
    assert_eq!(read.text(), "whole");
    Ok(())
}

#[test]
fn composing_and_rewriting_make_new_objects() -> Result<()> {
    let client = Client::new()?;
    client.0.create_bucket("two");
    let generation = client.put("a", b"12345")?;
    client.put("b", b"6789")?;
    let compose = |sources: Value| {
        let body = json!({"sourceObjects": sources, "destination": {"contentType": "x/y"}});
        client.json(
            "POST",
            &format!("{OBJECTS}/c%2Fd/compose?ifGenerationMatch=0"),
            &body,
        )
    };
    let guarded = |generation: &str| json!({"name": "a", "objectPreconditions": {"ifGenerationMatch": generation}});
    assert_eq!(compose(json!([guarded("5")]))?.0, 412);
    assert_eq!(compose(json!([{"name": "none"}]))?.0, 404);
    assert_eq!(compose(vec![json!({"name": "a"}); 33].into())?.0, 400);
    let (status, object) = compose(json!([guarded(&generation), {"name": "b"}]))?;
    assert_eq!(
        (status, &object["crc32c"], &object["md5Hash"]),
        (200, &json!("4waSgw=="), &Value::Null)
    );
    assert_eq!(
        (&object["contentType"], &object["componentCount"]),
        (&json!("x/y"), &json!(2))
    );
    client.0.set_rewrite_calls(2);
    let target = format!("{OBJECTS}/c%2Fd/rewriteTo/b/two/o/e%2Ff");
    let (_, first) = client.json("POST", &target, &Value::Null)?;
    assert_eq!(first["done"], json!(false));
    let token = first["rewriteToken"].as_str().context("a token")?;
    let (_, second) = client.json(
        "POST",
        &format!("{target}?rewriteToken={token}"),
        &Value::Null,
    )?;
    assert_eq!(
        (&second["done"], &second["resource"]["contentType"]),
        (&json!(true), &json!("x/y"))
    );
    let read = client.call("GET", "/storage/v1/b/two/o/e%2Ff?alt=media", b"")?;
    assert_eq!(read.text(), "123456789");
    Ok(())
}

#[test]
fn a_listing_gives_each_name_once_in_order() -> Result<()> {
    let client = Client::new()?;
    for name in [
        "a",
        "b%2F",
        "b%2Fc",
        "b%2Fd%2Fe",
        "b%2Fd%2Ff",
        "b0",
        "%C3%A9",
    ] {
        client.put(name, b"")?;
    }
    let check = |query: &str, wanted: &[&str]| -> Result<()> {
        for size in [1, 2, 3, 1000] {
            let (mut seen, mut token) = (Vec::<String>::new(), String::new());
            loop {
                let target = format!("{OBJECTS}?{query}&maxResults={size}{token}");
                let (status, page) = client.json("GET", &target, &Value::Null)?;
                assert_eq!(status, 200, "{page}");
                let items = page["items"].as_array().into_iter().flatten();
                let mut names: Vec<String> = items.map(|item| item["name"].to_string()).collect();
                let prefixes = page["prefixes"].as_array().into_iter().flatten();
                names.extend(prefixes.map(|prefix| format!("{prefix}*")));
                names.sort();
                seen.extend(names);
                match page["nextPageToken"].as_str() {
                    Some(next) => token = format!("&pageToken={next}"),
                    None => break,
                }
            }
            let seen: Vec<String> = seen.iter().map(|name| name.replace('"', "")).collect();
            assert_eq!(seen, wanted, "{query} by {size}");
        }
        Ok(())
    };
    check("", &["a", "b/", "b/c", "b/d/e", "b/d/f", "b0", "é"])?;
    check("delimiter=/", &["a", "b/*", "b0", "é"])?;
    check("prefix=b/&delimiter=%2F", &["b/", "b/c", "b/d/*"])?;
    check("prefix=b/&startOffset=b/d", &["b/d/e", "b/d/f"])?;
    check("startOffset=b/c&endOffset=b0", &["b/c", "b/d/e", "b/d/f"])?;
    check("prefix=x", &[])?;
    assert_eq!(
        client
            .call("GET", &format!("{OBJECTS}?pageToken=%21"), b"")?
            .status,
        400
    );
    Ok(())
}

#[test]
fn a_token_is_for_a_signed_assertion() -> Result<()> {
    let client = Client::new()?;
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("key.json");
    client.0.service_account(&file)?;
    assert_eq!(client.call("GET", OBJECTS, b"")?.status, 401);
    let account: Value = serde_json::from_slice(&std::fs::read(&file)?)?;
    let pem = account["private_key"].as_str().context("a key")?;
    let der: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    let key = RsaKeyPair::from_pkcs8(&STANDARD.decode(der)?).map_err(|error| anyhow!("{error}"))?;
    let token = |audience: &Value| -> Result<(u16, Value)> {
        let claims =
            json!({"iss": account["client_email"], "aud": audience, "scope": "s", "exp": 1});
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let text = format!("{}.{}", part(&json!({"alg": "RS256"})), part(&claims));
        let mut signature = vec![0; key.public().modulus_len()];
        let random = SystemRandom::new();
        key.sign(&RSA_PKCS1_SHA256, &random, text.as_bytes(), &mut signature)
            .map_err(|error| anyhow!("{error}"))?;
        let assertion = format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature));
        let grant = "urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer";
        let body = format!("grant_type={grant}&assertion={assertion}");
        let reply = client.call("POST", "/token", body.as_bytes())?;
        Ok((reply.status, serde_json::from_slice(&reply.body)?))
    };
    assert_eq!(token(&json!("elsewhere"))?.0, 400);
    let (_, answer) = token(&account["token_uri"])?;
    let bearer = format!(
        "Bearer {}",
        answer["access_token"].as_str().context("a token")?
    );
    let list = || {
        let headers = [("authorization", bearer.as_str())];
        http_call(&client.0.address(), "GET", OBJECTS, &headers, b"")
    };
    assert_eq!(list()?.status, 200);
    client.0.revoke_tokens();
    assert_eq!(list()?.status, 401);
    Ok(())
}

#[test]
fn a_stub_fails_when_told_remembers_and_ends() -> Result<()> {
    let client = Client::new()?;
    client.0.fail_next(&[503, 429]);
    let statuses = [(); 3].map(|()| client.call("GET", OBJECTS, b"").map(|reply| reply.status));
    let statuses: Vec<u16> = statuses.into_iter().collect::<Result<_>>()?;
    assert_eq!(statuses, [503, 429, 200]);
    assert_eq!(client.0.requests(), vec![format!("GET {OBJECTS}"); 3]);
    client.0.forget_requests();
    assert_eq!(client.0.requests().len(), 0);
    let address = client.0.address();
    drop(client);
    assert!(http_call(&address, "GET", OBJECTS, &[], b"").is_err());
    Ok(())
}
