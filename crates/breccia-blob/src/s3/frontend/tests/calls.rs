//! Each operation on objects and buckets that needs no upload, once and at its edges.

use super::*;

#[tokio::test]
async fn an_object_is_put_read_and_deleted() {
    let server = Server::fixed(settings());
    let put = Message::new("PUT", "/mail/a%20b/%C3%A9")
        .header("content-type", "text/plain")
        .header("cache-control", "no-cache")
        .header("content-encoding", "aws-chunked,gzip")
        .header("x-amz-meta-Colour", "gr\u{fc}n")
        .header("x-amz-tagging", "a=1&b=x%20y")
        .header("x-amz-acl", "private")
        .header("x-amz-storage-class", "STANDARD")
        .header("x-amz-checksum-crc32c", "4waSgw==")
        .header("content-md5", "JfnnlDI7RTiF9RgfG2JNCw==")
        .body("123456789");
    let reply = server.send(put.signed()).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    let etag = "\"25f9e794323b453885f5181f1b624d0b\"";
    assert_eq!(reply.header("etag"), etag);
    assert_eq!(reply.header("x-amz-checksum-crc32c"), "4waSgw==");
    assert_eq!(reply.header("x-amz-checksum-type"), "FULL_OBJECT");
    assert_eq!(reply.header("x-amz-request-id").len(), 16);
    let key = "/mail/a%20b/%C3%A9";
    for method in ["GET", "HEAD"] {
        let read = Message::new(method, key).header("x-amz-checksum-mode", "ENABLED");
        let reply = server.send(read.signed()).await;
        assert_eq!(reply.status, 200);
        let check = |name: &str, expected: &str| {
            assert_eq!(reply.header(name), expected, "{method} {name}");
        };
        check("etag", etag);
        check("content-length", "9");
        check("content-type", "text/plain");
        check("cache-control", "no-cache");
        check("content-encoding", "gzip");
        check("accept-ranges", "bytes");
        check("x-amz-meta-colour", "gr\u{fc}n");
        check("x-amz-tagging-count", "2");
        check("x-amz-checksum-crc32c", "4waSgw==");
        assert!(reply.header("last-modified").ends_with(" GMT"));
        let body = if method == "GET" { "123456789" } else { "" };
        assert_eq!(reply.text(), body);
    }
    assert_eq!(server.ask("DELETE", key).await.status, 204);
    server.ask("GET", key).await.is(404, "NoSuchKey");
    let head = server.ask("HEAD", key).await;
    assert_eq!((head.status, head.body.len()), (404, 0));
    assert_eq!(server.ask("DELETE", key).await.status, 204);
}

#[tokio::test]
async fn ranges_and_conditions_of_reads_are_kept() {
    let server = Server::fixed(settings());
    let etag = server
        .put("/mail/k", "0123456789")
        .await
        .header("etag")
        .to_owned();
    let ask = async |headers: &[(&str, &str)]| {
        let message = headers
            .iter()
            .fold(Message::new("GET", "/mail/k"), |message, (name, value)| {
                message.header(name, value)
            });
        let reply = server.send(message.signed()).await;
        let range = reply.header("content-range").to_owned();
        (reply.status, reply.text(), range)
    };
    let range = |text: &str| text.to_owned();
    let part = |text: &str, at: &str| (206, text.to_owned(), range(at));
    assert_eq!(
        ask(&[("range", "bytes=2-4")]).await,
        part("234", "bytes 2-4/10")
    );
    assert_eq!(
        ask(&[("range", "bytes=7-")]).await,
        part("789", "bytes 7-9/10")
    );
    assert_eq!(
        ask(&[("range", "bytes=-2")]).await,
        part("89", "bytes 8-9/10")
    );
    let (status, text, at) = ask(&[("range", "bytes=10-")]).await;
    assert_eq!((status, at.as_str()), (416, "bytes */10"));
    assert!(text.contains("InvalidRange"));
    assert_eq!(ask(&[("range", "rows=1-2")]).await.0, 200);
    let current = ask(&[("range", "bytes=0-0"), ("if-range", &etag)]).await;
    assert_eq!(current, part("0", "bytes 0-0/10"));
    assert_eq!(
        ask(&[("range", "bytes=0-0"), ("if-range", "\"x\"")])
            .await
            .0,
        200
    );
    assert_eq!(ask(&[("if-match", &etag)]).await.0, 200);
    assert_eq!(ask(&[("if-match", "\"x\"")]).await.0, 412);
    let (status, text, _) = ask(&[("if-none-match", &etag)]).await;
    assert_eq!((status, text.as_str()), (304, ""));
    let late = "Fri, 01 Jan 2100 00:00:00 GMT";
    assert_eq!(ask(&[("if-modified-since", late)]).await.0, 304);
    assert_eq!(ask(&[("if-unmodified-since", late)]).await.0, 200);
    let first = server.ask("GET", "/mail/k?partNumber=1").await;
    assert_eq!(
        (first.status, first.header("content-range")),
        (206, "bytes 0-9/10")
    );
    server
        .ask("GET", "/mail/k?partNumber=2")
        .await
        .is(416, "InvalidPartNumber");
    let target = "/mail/k?response-content-type=text%2Fcsv&response-expires=never";
    let reply = server.ask("GET", target).await;
    assert_eq!(reply.header("content-type"), "text/csv");
    assert_eq!(reply.header("expires"), "never");
}

#[tokio::test]
async fn conditions_of_writes_are_kept() {
    let server = Server::fixed(settings());
    let put = async |name: &str, value: &str| {
        let message = Message::new("PUT", "/mail/k").header(name, value).body("x");
        server.send(message.signed()).await
    };
    assert_eq!(put("if-none-match", "*").await.status, 200);
    put("if-none-match", "*")
        .await
        .is(412, "PreconditionFailed");
    put("if-match", "\"x\"").await.is(412, "PreconditionFailed");
    put("if-none-match", "\"x\"")
        .await
        .is(501, "NotImplemented");
    let etag = server
        .ask("HEAD", "/mail/k")
        .await
        .header("etag")
        .to_owned();
    assert_eq!(put("if-match", &etag).await.status, 200);
    let delete = |tag: &str| {
        Message::new("DELETE", "/mail/k")
            .header("if-match", tag)
            .signed()
    };
    server
        .send(delete("\"x\""))
        .await
        .is(412, "PreconditionFailed");
    assert_eq!(server.send(delete(&etag)).await.status, 204);
    let message = Message::new("PUT", "/mail/k")
        .header("if-match", "*")
        .body("x");
    server.send(message.signed()).await.is(404, "NoSuchKey");
}

#[tokio::test]
async fn copies_are_made_within_a_bucket_and_across() {
    let server = Server::fixed(settings());
    let put = Message::new("PUT", "/mail/from%2Fa%3F").header("x-amz-meta-a", "1");
    let put = put.header("x-amz-tagging", "t=1").body("abc").signed();
    assert_eq!(server.send(put).await.status, 200);
    let copy = |target: &str, source: &str| {
        Message::new("PUT", target).header("x-amz-copy-source", source)
    };
    for (target, source) in [
        ("/mail/to", "/mail/from/a%3F"),
        ("/other/to", "mail/from%2Fa%3F"),
        ("/other/again", "mail%2Ffrom%2Fa%3F"),
    ] {
        let reply = server.send(copy(target, source).signed()).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        assert!(
            reply
                .element("ETag")
                .contains("900150983cd24fb0d6963f7d28e17f72")
        );
        let reply = server.ask("GET", target).await;
        assert_eq!(
            (reply.text().as_str(), reply.header("x-amz-meta-a")),
            ("abc", "1")
        );
        assert_eq!(reply.header("x-amz-tagging-count"), "1");
    }
    let itself = || copy("/mail/to", "/mail/to");
    server
        .send(itself().signed())
        .await
        .is(400, "InvalidRequest");
    let replaced = itself()
        .header("x-amz-metadata-directive", "REPLACE")
        .header("x-amz-meta-b", "2");
    assert_eq!(server.send(replaced.signed()).await.status, 200);
    let reply = server.ask("HEAD", "/mail/to").await;
    assert_eq!(
        (reply.header("x-amz-meta-a"), reply.header("x-amz-meta-b")),
        ("", "2")
    );
    let check = async |message: Message, status: u16, code: &str| {
        server.send(message.signed()).await.is(status, code);
    };
    check(copy("/mail/x", "/mail/none"), 404, "NoSuchKey").await;
    check(copy("/mail/x", "/none/k"), 404, "NoSuchBucket").await;
    check(copy("/mail/x", "mail"), 400, "InvalidArgument").await;
    let version = copy("/mail/x", "/mail/to?versionId=1");
    check(version, 501, "NotImplemented").await;
    let unmet = copy("/mail/x", "/mail/to").header("x-amz-copy-source-if-match", "\"x\"");
    check(unmet, 412, "PreconditionFailed").await;
    let unmet = copy("/mail/x", "/mail/to").header("x-amz-copy-source-if-none-match", "*");
    check(unmet, 412, "PreconditionFailed").await;
}

#[tokio::test]
async fn listings_go_on_exactly_behind_the_last_item() {
    let server = Server::fixed(settings());
    for key in ["a", "b/1", "b/2", "b0", "c%26%2B/x", "d"] {
        server.put(&format!("/mail/{key}"), "x").await;
    }
    let names = |reply: &Reply| {
        let mut names = reply.elements("Key");
        let prefixes = reply.elements("Prefix");
        names.extend(prefixes.into_iter().filter(|name| !name.is_empty()));
        names
    };
    let all = server.ask("GET", "/mail?list-type=2").await;
    assert_eq!(names(&all), ["a", "b/1", "b/2", "b0", "c&amp;+/x", "d"]);
    assert_eq!(all.element("KeyCount"), "6");
    assert_eq!(all.element("IsTruncated"), "false");
    assert!(!all.text().contains("<Owner>"));
    let (mut seen, mut token) = (Vec::new(), String::new());
    loop {
        let target = format!("/mail?list-type=2&max-keys=2&delimiter=/&encoding-type=url{token}");
        let page = server.ask("GET", &target).await;
        assert_eq!(page.status, 200, "{}", page.text());
        seen.extend(names(&page));
        let next = page.element("NextContinuationToken");
        assert_eq!(next.is_empty(), page.element("IsTruncated") == "false");
        if next.is_empty() {
            break;
        }
        token = format!("&continuation-token={next}");
    }
    seen.sort_unstable();
    assert_eq!(seen, ["a", "b/", "b0", "c%26%2B/", "d"]);
    let target = "/mail?prefix=b&marker=b/1&max-keys=1";
    let page = server.ask("GET", target).await;
    assert_eq!(page.elements("Key"), ["b/2"]);
    assert_eq!(
        (page.element("NextMarker"), page.element("Marker")),
        ("b/2".into(), "b/1".into())
    );
    assert!(page.text().contains("<Owner>"));
    let page = server
        .ask("GET", "/mail?list-type=2&start-after=c&fetch-owner=true")
        .await;
    assert_eq!(page.elements("Key"), ["c&amp;+/x", "d"]);
    assert!(page.text().contains("<Owner>"));
    let page = server.ask("GET", "/mail?max-keys=0").await;
    assert_eq!(
        (page.element("IsTruncated"), page.elements("Key").len()),
        ("false".into(), 0)
    );
    for target in [
        "/mail?max-keys=-1",
        "/mail?max-keys=x",
        "/mail?list-type=2&continuation-token=x",
        "/mail?encoding-type=base64",
    ] {
        server.ask("GET", target).await.is(400, "InvalidArgument");
    }
}

#[tokio::test]
async fn many_objects_are_deleted_at_once() {
    let server = Server::fixed(settings());
    for key in ["a", "b", "c"] {
        server.put(&format!("/mail/{key}"), "x").await;
    }
    let delete = async |document: &str| {
        let message = Message::new("POST", "/mail?delete").body(document);
        server.send(message.signed()).await
    };
    let object = |key: &str| format!("<Object><Key>{key}</Key></Object>");
    let versioned = "<Object><Key>c</Key><VersionId>1</VersionId></Object>";
    let document = format!(
        "<Delete>{}{}{versioned}</Delete>",
        object("a"),
        object("none")
    );
    let reply = delete(&document).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert_eq!(reply.elements("Key"), ["a", "none", "c"]);
    assert_eq!(reply.elements("Code"), ["NotImplemented"]);
    let quiet = format!("<Delete><Quiet>true</Quiet>{}</Delete>", object("b"));
    let reply = delete(&quiet).await;
    assert_eq!((reply.status, reply.elements("Key").len()), (200, 0));
    let left = server.ask("GET", "/mail").await;
    assert_eq!(left.elements("Key"), ["c"]);
    delete("<Delete>").await.is(400, "MalformedXML");
}

#[tokio::test]
async fn tags_are_set_read_and_removed() {
    let server = Server::fixed(settings());
    server.put("/mail/k", "x").await;
    let put = async |tags: &str| {
        let document = format!("<Tagging><TagSet>{tags}</TagSet></Tagging>");
        let message = Message::new("PUT", "/mail/k?tagging").body(document);
        server.send(message.signed()).await
    };
    let tag = |key: &str| format!("<Tag><Key>{key}</Key><Value>1</Value></Tag>");
    assert_eq!(put(&tag("a")).await.status, 200);
    let reply = server.ask("GET", "/mail/k?tagging").await;
    assert_eq!(
        (reply.elements("Key"), reply.element("Value")),
        (vec!["a".to_owned()], "1".into())
    );
    put(&(tag("a") + &tag("a"))).await.is(400, "InvalidTag");
    put(&tag("aws:x")).await.is(400, "InvalidTag");
    let many: String = (0..11).map(|number| tag(&number.to_string())).collect();
    put(&many).await.is(400, "InvalidTag");
    assert_eq!(server.ask("DELETE", "/mail/k?tagging").await.status, 204);
    let reply = server.ask("GET", "/mail/k?tagging").await;
    assert!(reply.elements("Key").is_empty());
    server
        .ask("GET", "/mail/none?tagging")
        .await
        .is(404, "NoSuchKey");
}

#[tokio::test]
async fn fixed_buckets_are_told_of_and_never_changed() {
    let server = Server::fixed(settings());
    let list = server.ask("GET", "/").await;
    assert_eq!(list.elements("Name"), ["mail", "other"]);
    let head = server.ask("HEAD", "/mail").await;
    assert_eq!(
        (head.status, head.header("x-amz-bucket-region")),
        (200, "us-east-1")
    );
    assert_eq!(server.ask("HEAD", "/none").await.status, 404);
    assert_eq!(server.ask("GET", "/mail?location").await.status, 200);
    assert_eq!(server.ask("GET", "/mail?versioning").await.status, 200);
    server
        .ask("PUT", "/mail")
        .await
        .is(409, "BucketAlreadyOwnedByYou");
    server.ask("PUT", "/new").await.is(501, "NotImplemented");
    server
        .ask("DELETE", "/mail")
        .await
        .is(501, "NotImplemented");
    server.ask("DELETE", "/none").await.is(404, "NoSuchBucket");
    server.ask("GET", "/none/k").await.is(404, "NoSuchBucket");
}

#[tokio::test]
async fn what_is_not_offered_is_refused_by_name() {
    let server = Server::fixed(settings());
    let check = async |message: Message, says: &str| {
        let reply = server
            .send(message.signed())
            .await
            .is(501, "NotImplemented");
        let message = reply.element("Message");
        assert!(message.contains(says), "{message}");
    };
    check(Message::new("GET", "/mail?acl"), "GetBucketAcl").await;
    check(Message::new("PUT", "/mail/k?acl").body("x"), "PutObjectAcl").await;
    check(Message::new("GET", "/mail/k?versionId=1"), "Version").await;
    let put =
        |name: &str, value: &str| Message::new("PUT", "/mail/k").header(name, value).body("x");
    check(put("x-amz-acl", "public-read"), "public-read").await;
    check(put("x-amz-storage-class", "GLACIER"), "GLACIER").await;
    let name = "x-amz-server-side-encryption";
    check(put(name, "AES256"), name).await;
    check(put("x-amz-object-lock-mode", "GOVERNANCE"), "object-lock").await;
    check(put("x-amz-grant-read", "id=1"), "grant-read").await;
    server.ask("GET", "/mail/k").await.is(404, "NoSuchKey");
}

#[tokio::test]
async fn virtual_hosts_and_odd_keys_name_what_they_name() {
    let server = Server::fixed(settings());
    let put = |host: &str, target: &str| {
        let message = Message::new("PUT", target).header("host", host);
        message.body("x").signed()
    };
    assert_eq!(
        server
            .send(put("mail.s3.test:9100", "/a//b/../c"))
            .await
            .status,
        200
    );
    let list = server.ask("GET", "/mail").await;
    assert_eq!(list.elements("Key"), ["a//b/../c"]);
    assert_eq!(server.ask("GET", "/mail/a//b/../c").await.status, 200);
    server.ask("GET", "/mail/%ff").await.is(400, "InvalidURI");
    let no_uri = Message::new("GET", "/mail/%zz");
    server.send(no_uri).await.is(400, "InvalidURI");
    let long = format!("/mail/{}", "k".repeat(1025));
    server.ask("GET", &long).await.is(400, "KeyTooLongError");
}

#[tokio::test]
async fn attributes_are_those_that_are_asked_for() {
    let server = Server::fixed(settings());
    server.put("/mail/k", "abc").await;
    let ask = |names: &str| {
        let message = Message::new("GET", "/mail/k?attributes");
        message.header("x-amz-object-attributes", names).signed()
    };
    let reply = server.send(ask("ETag,ObjectSize")).await;
    assert_eq!(reply.element("ETag"), "900150983cd24fb0d6963f7d28e17f72");
    assert_eq!(reply.element("ObjectSize"), "3");
    assert!(reply.element("StorageClass").is_empty());
    server.send(ask("Colour")).await.is(400, "InvalidArgument");
}

#[tokio::test]
async fn requests_are_counted_by_operation_and_outcome() {
    let server = Server::fixed(settings());
    server.put("/mail/k", "x").await;
    server.ask("GET", "/mail/none").await.is(404, "NoSuchKey");
    let text = server.registry.render();
    for series in [
        "command=\"PutObject\",outcome=\"ok\"} 1",
        "command=\"GetObject\",outcome=\"error\"} 1",
    ] {
        assert!(text.contains(series), "{text}");
    }
}
