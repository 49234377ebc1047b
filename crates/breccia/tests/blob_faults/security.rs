//! Requests that must not be served: unsigned, wrongly signed, too old, of others; and hostile keys.
//!
//! Not the codec's own tests of signatures. Invariant: each refused request would be served if it were not
//! for one thing.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use breccia_testkit::{Exchange, HttpReply, S3Request, S3Server, http_call};

use super::site::{Plan, Site, among_others, bytes_of, generation_files};

fn refused(what: &str, reply: &HttpReply, code: &str) -> Result<()> {
    let text = reply.text();
    ensure!(
        reply.status == 403 || reply.status == 400,
        "{what}: {} {text}",
        reply.status
    );
    ensure!(
        text.contains(&format!("<Code>{code}")),
        "{what}: {} {text}",
        reply.status
    );
    Ok(())
}

fn raw(site: &Site, head: &str, body: &[u8]) -> Result<HttpReply> {
    let mut exchange = Exchange::open(site.s3.address(), head)?;
    let _sent = exchange.write(body);
    Ok(exchange.reply()?.0)
}

fn site() -> Result<Site> {
    let site = Plan::new()?.fs("disk").sqlite("file").start()?;
    site.put("there", b"secret")?;
    Ok(site)
}

#[test]
fn requests_that_are_not_rightly_signed_are_refused() -> Result<()> {
    let _shared = among_others();
    let site = site()?;
    let address = site.s3.address();
    for (method, target) in [
        ("GET", "/mail/there"),
        ("PUT", "/mail/new"),
        ("DELETE", "/mail/there"),
        ("GET", "/mail?list-type=2"),
        ("GET", "/"),
        ("POST", "/mail?delete"),
        ("POST", "/mail/new?uploads"),
    ] {
        let reply = http_call(address, method, target, &[], b"")?;
        refused(
            &format!("unsigned {method} {target}"),
            &reply,
            "AccessDenied",
        )?;
        let mut server = site.s3.clone();
        server.secret_key.push('x');
        let reply = S3Request::new(&server, method, target).send(b"")?;
        refused(
            &format!("{method} {target}"),
            &reply,
            "SignatureDoesNotMatch",
        )?;
        server.access_key.push('x');
        let reply = S3Request::new(&server, method, target).send(b"")?;
        refused(&format!("{method} {target}"), &reply, "InvalidAccessKeyId")?;
    }
    let get = site.request("GET", "there");
    let (head, _) = get.length(0).head();
    ensure!(raw(&site, &head, b"")?.status == 200, "the right one");
    for (what, from, to) in [
        ("another key", "/mail/there", "/mail/other"),
        ("a query", "/mail/there ", "/mail/there?tagging= "),
        ("another method", "GET ", "DELETE "),
        ("another host", "host: 127.0.0.1", "host: localhost"),
    ] {
        let reply = raw(&site, &head.replacen(from, to, 1), b"")?;
        refused(what, &reply, "SignatureDoesNotMatch")?;
    }
    ensure!(site.get("there")?.as_deref() == Some(b"secret".as_slice()));
    ensure!(site.keys()? == ["there"]);
    Ok(())
}

#[test]
fn signatures_have_their_time() -> Result<()> {
    let _shared = among_others();
    let site = site()?;
    let get = || site.request("GET", "there");
    for (seconds, served) in [
        (-20 * 60, false),
        (-10 * 60, true),
        (10 * 60, true),
        (20 * 60, false),
    ] {
        let reply = get().at(seconds).send(b"")?;
        if served {
            ensure!(reply.status == 200, "{seconds}: {}", reply.text());
        } else {
            refused(&format!("{seconds} s"), &reply, "RequestTimeTooSkewed")?;
        }
    }
    ensure!(get().send_presigned(60, b"")?.status == 200, "presigned");
    ensure!(
        get().at(-50).send_presigned(60, b"")?.status == 200,
        "presigned before"
    );
    refused(
        "past its time",
        &get().at(-70).send_presigned(60, b"")?,
        "AccessDenied",
    )?;
    refused(
        "from the future",
        &get().at(3_600).send_presigned(60, b"")?,
        "AccessDenied",
    )?;
    let reply = get().send_presigned(604_801, b"")?;
    refused("for too long", &reply, "AuthorizationQueryParametersError")?;
    let target = get()
        .presigned_target(60)
        .replace("X-Amz-Expires=60", "X-Amz-Expires=6000");
    let reply = http_call(site.s3.address(), "GET", &target, &[], b"")?;
    refused("a longer time", &reply, "SignatureDoesNotMatch")
}

#[test]
fn headers_that_are_not_signed_have_no_say() -> Result<()> {
    let _shared = among_others();
    let site = site()?;
    site.put("source", b"source")?;
    for (name, value) in [
        ("x-amz-copy-source", "/mail/there"),
        ("x-amz-meta-owner", "mallory"),
        ("x-amz-tagging", "a=b"),
        ("x-amz-acl", "private"),
        ("x-amz-metadata-directive", "REPLACE"),
    ] {
        let put = || site.request("PUT", "new").unsigned(name, value);
        refused(name, &put().send(b"body")?, "AccessDenied")?;
        refused(name, &put().send_presigned(60, b"body")?, "AccessDenied")?;
    }
    ensure!(site.get("new")?.is_none(), "it was stored");
    let signed = site
        .request("PUT", "new")
        .header("x-amz-meta-owner", "alice");
    signed.send(b"body")?.success()?;
    signed.send_presigned(60, b"body")?.success()?;
    let head = site.call("HEAD", "new", b"")?;
    ensure!(head.header("x-amz-meta-owner") == Some("alice"));
    Ok(())
}

#[test]
fn chunks_of_another_body_are_refused() -> Result<()> {
    let _shared = among_others();
    let site = site()?;
    let streaming = |length: usize, wire: usize| {
        site.request("PUT", "chunks")
            .payload("STREAMING-AWS4-HMAC-SHA256-PAYLOAD")
            .header("x-amz-decoded-content-length", &length.to_string())
            .length(wire)
    };
    let first = bytes_of("first", 1, 70_000);
    let second = bytes_of("second", 1, 70_000);
    let wire_of = |signer: &mut breccia_testkit::ChunkSigner, pieces: &[&[u8]]| {
        let mut wire: Vec<u8> = pieces
            .iter()
            .flat_map(|piece| signer.chunk(piece))
            .collect();
        wire.extend_from_slice(&signer.chunk(b""));
        wire.extend_from_slice(b"\r\n");
        wire
    };
    let (_, mut signer) = streaming(140_000, 0).head();
    let length = wire_of(&mut signer, &[&first, &second]).len();
    let (head, signer) = streaming(140_000, length).head();
    let right = wire_of(&mut signer.clone(), &[&first, &second]);
    // The chunks' signatures hold for one place in one chain.
    let (mut once, mut twice) = (signer.clone(), signer.clone());
    let chunk = once.chunk(&first);
    let mut replayed = [chunk.clone(), chunk].concat();
    replayed.extend_from_slice(&twice.chunk(b""));
    replayed.extend_from_slice(b"\r\n");
    refused(
        "a chunk sent twice",
        &raw(&site, &head, &replayed)?,
        "SignatureDoesNotMatch",
    )?;
    let swapped = wire_of(&mut signer.clone(), &[&second, &first]);
    let (other_head, _) = streaming(140_000, length).at(1).head();
    refused(
        "the chunks of another request",
        &raw(&site, &other_head, &swapped)?,
        "SignatureDoesNotMatch",
    )?;
    ensure!(site.get("chunks")?.is_none(), "it was stored");
    ensure!(raw(&site, &head, &right)?.status == 200, "the right ones");
    ensure!(site.get("chunks")? == Some([first, second].concat()));
    Ok(())
}

/// Every file under a folder but those of the site's members and its state.
fn files(folder: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(files(&path)?);
        } else {
            found.push(path.display().to_string());
        }
    }
    Ok(found)
}

#[test]
fn a_key_that_looks_like_a_path_is_a_key() -> Result<()> {
    let _shared = among_others();
    let site = Plan::new()?.fs("disk").start()?;
    let before = generation_files(&site.folder().join("disk"))?.len();
    let keys = [
        "../../../../etc/passwd",
        "..%2F..%2Fetc%2Fpasswd",
        "%2E%2E/%2e%2e/x",
        "%2Fetc%2Fpasswd",
        "/absolute",
        "a/../../b",
        "a//b",
        ".",
        "..",
        "%00null",
        "x%0d%0aSet-Cookie%3a1",
        "%25%32%65%25%32%65/double",
        "index.sqlite",
        "breccia-fs.lock",
        "~.breccia/marker",
        "data/00/0000000000000001",
    ];
    for (number, key) in keys.iter().enumerate() {
        let body = format!("body {number}");
        let target = format!("/mail/{key}");
        // As it is signed: each segment escaped once.
        let put = S3Request::new(&site.s3, "PUT", &canonical(&target)).send(body.as_bytes())?;
        ensure!(put.status == 200, "{key}: {} {}", put.status, put.text());
        let get = S3Request::new(&site.s3, "GET", &canonical(&target)).send(b"")?;
        ensure!(
            get.status == 200 && get.text() == body,
            "{key}: {} {}",
            get.status,
            get.text()
        );
    }
    let page = site
        .call("GET", "?list-type=2&encoding-type=url", b"")?
        .success()?
        .text();
    let listed = page.matches("<Key>").count();
    let names: std::collections::BTreeSet<String> = keys.iter().map(|key| decoded(key)).collect();
    ensure!(
        listed == names.len(),
        "{listed} of {} are listed: {page}",
        names.len()
    );
    let found = generation_files(&site.folder().join("disk"))?.len();
    ensure!(
        found == before + names.len(),
        "{found} files, {before} before"
    );
    for file in files(site.folder())? {
        let known = ["/data/", "/index.sqlite", "/breccia-fs.lock", "/ballast"];
        ensure!(
            known.iter().any(|part| file.contains(part)),
            "{file} was made"
        );
    }
    let passwd = std::fs::read_to_string("/etc/passwd").context("/etc/passwd")?;
    ensure!(passwd.contains("root"), "/etc/passwd was overwritten");
    Ok(())
}

fn decoded(key: &str) -> String {
    let mut text = String::new();
    let mut rest = key;
    while let Some((before, after)) = rest.split_once('%') {
        text.push_str(before);
        let code = u8::from_str_radix(after.get(..2).unwrap_or("20"), 16).unwrap_or(b' ');
        text.push(char::from(code));
        rest = after.get(2..).unwrap_or_default();
    }
    text + rest
}

/// The target with its escapes in the form that is signed: upper case, and none for `.`, `-`, `_`, `~`.
fn canonical(target: &str) -> String {
    let mut text = String::new();
    for character in decoded(target).chars() {
        if character.is_ascii_alphanumeric() || "/.-_~".contains(character) {
            text.push(character);
        } else {
            let _infallible = write!(text, "%{:02X}", u32::from(character));
        }
    }
    text
}

/// A user who sees one bucket, one who only reads, and who may do everything.
fn with_users() -> Result<(Site, S3Server, S3Server)> {
    let plan = Plan::new()?.fs("disk").sqlite("file").made_by_clients();
    let site = plan
        .user("alice", "buckets = [\"alices\"]")
        .user("reader", "read-only = true")
        .start()?;
    site.s3.create_bucket("alices")?;
    site.put("there", b"secret")?;
    let user = |name: &str| {
        let mut server = site.s3.clone();
        server.access_key = format!("{name}-key");
        server.secret_key = format!("{name}-secret");
        server
    };
    let (alice, reader) = (user("alice"), user("reader"));
    Ok((site, alice, reader))
}

fn ask(server: &S3Server, method: &str, target: &str, source: &str) -> Result<HttpReply> {
    let mut request = S3Request::new(server, method, target);
    if !source.is_empty() {
        request = request.header("x-amz-copy-source", source);
    }
    request.send(b"")
}

fn untouched(site: &Site) -> Result<()> {
    ensure!(site.keys()? == ["there"], "{:?}", site.keys());
    ensure!(site.get("there")?.as_deref() == Some(b"secret".as_slice()));
    Ok(())
}

#[test]
fn a_user_reaches_only_its_own_buckets() -> Result<()> {
    let _shared = among_others();
    let (site, alice, _) = with_users()?;
    ensure!(ask(&alice, "PUT", "/alices/own", "")?.status == 200);
    ensure!(ask(&alice, "GET", "/alices/own", "")?.status == 200);
    for (method, target, source) in [
        ("GET", "/mail/there", ""),
        ("HEAD", "/mail/there", ""),
        ("PUT", "/mail/new", ""),
        ("DELETE", "/mail/there", ""),
        ("GET", "/mail?list-type=2", ""),
        ("GET", "/mail?uploads=", ""),
        ("POST", "/mail?delete=", ""),
        ("DELETE", "/mail", ""),
        ("PUT", "/alices/stolen", "/mail/there"),
        ("PUT", "/alices/stolen", "mail%2Fthere"),
        ("GET", "/alices/../mail/there", ""),
    ] {
        let reply = ask(&alice, method, target, source)?;
        let denied = matches!(reply.status, 403 | 404);
        ensure!(
            denied,
            "{method} {target} {source}: {} {}",
            reply.status,
            reply.text()
        );
    }
    let buckets = ask(&alice, "GET", "/", "")?.text();
    ensure!(
        buckets.contains("alices") && !buckets.contains("mail"),
        "{buckets}"
    );
    untouched(&site)
}

#[test]
fn a_reader_only_reads() -> Result<()> {
    let _shared = among_others();
    let (site, _, reader) = with_users()?;
    ensure!(ask(&reader, "GET", "/mail/there", "")?.status == 200);
    ensure!(ask(&reader, "GET", "/mail?list-type=2", "")?.status == 200);
    for (method, target, source) in [
        ("PUT", "/mail/new", ""),
        ("DELETE", "/mail/there", ""),
        ("POST", "/mail/new?uploads=", ""),
        ("POST", "/mail?delete=", ""),
        ("PUT", "/mail/copy", "/mail/there"),
        ("PUT", "/mail/there?tagging=", ""),
        ("DELETE", "/mail/there?tagging=", ""),
        ("PUT", "/brand-new", ""),
        ("DELETE", "/mail", ""),
    ] {
        let reply = ask(&reader, method, target, source)?;
        let text = reply.text();
        ensure!(
            reply.status == 403,
            "{method} {target}: {} {text}",
            reply.status
        );
    }
    untouched(&site)
}
