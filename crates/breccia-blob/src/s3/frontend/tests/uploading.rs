//! Uploads in parts.

use super::*;

const PART_BYTES: usize = 5 * 1024 * 1024;

async fn begin(server: &Server, target: &str) -> String {
    let reply = server.ask("POST", &format!("{target}?uploads")).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    reply.element("UploadId")
}

async fn part(server: &Server, target: &str, id: &str, number: u16, body: Vec<u8>) -> String {
    let target = format!("{target}?partNumber={number}&uploadId={id}");
    let message = Message::new("PUT", &target).body(body).signed();
    let reply = server.send(message).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    reply.header("etag").to_owned()
}

fn complete(target: &str, id: &str, parts: &[(u16, &str)]) -> Message {
    let parts: Vec<String> = parts
        .iter()
        .map(|(number, etag)| {
            format!("<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag></Part>")
        })
        .collect();
    let parts = parts.concat();
    let document = format!("<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>");
    Message::new("POST", &format!("{target}?uploadId={id}")).body(document)
}

#[tokio::test]
async fn an_object_is_made_of_parts() {
    let server = Server::fixed(settings());
    let begun = Message::new("POST", "/mail/k?uploads").header("x-amz-meta-a", "1");
    let reply = server.send(begun.signed()).await;
    let id = reply.element("UploadId");
    let first = part(&server, "/mail/k", &id, 1, vec![b'a'; PART_BYTES]).await;
    server.put("/mail/source", "0123456789").await;
    let copy = Message::new("PUT", &format!("/mail/k?partNumber=3&uploadId={id}"))
        .header("x-amz-copy-source", "/mail/source")
        .header("x-amz-copy-source-range", "bytes=2-4");
    let reply = server.send(copy.clone().signed()).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    let third = reply.element("ETag").replace("&quot;", "\"");
    let beyond = copy.header("x-amz-copy-source-range", "bytes=2-40");
    server.send(beyond.signed()).await.is(416, "InvalidRange");
    let list = server
        .ask("GET", &format!("/mail/k?uploadId={id}&max-parts=1"))
        .await;
    assert_eq!(list.elements("PartNumber"), ["1"]);
    assert_eq!(list.element("IsTruncated"), "true");
    let next = format!("/mail/k?uploadId={id}&part-number-marker=1");
    let list = server.ask("GET", &next).await;
    assert_eq!(
        (list.elements("PartNumber"), list.element("Size")),
        (vec!["3".to_owned()], "3".into())
    );
    server.ask("GET", "/mail/k").await.is(404, "NoSuchKey");
    let parts = [(1, first.as_str()), (3, third.as_str())];
    let sized = complete("/mail/k", &id, &parts).header("x-amz-mp-object-size", "7");
    server.send(sized.signed()).await.is(400, "InvalidRequest");
    let size = (PART_BYTES + 3).to_string();
    let sized = complete("/mail/k", &id, &parts).header("x-amz-mp-object-size", &size);
    let reply = server.send(sized.signed()).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    let etag = reply.element("ETag").replace("&quot;", "\"");
    assert!(etag.ends_with("-2\""), "{etag}");
    assert_eq!(reply.element("Location"), "http://127.0.0.1/mail/k");
    // The checksum of a complete is the object's, whatever the document's would be.
    let again = complete("/mail/k", &id, &parts).header("x-amz-checksum-crc32", "AAAAAA==-2");
    let again = again.signed();
    let reply = server.send(again).await;
    assert_eq!(
        reply.element("ETag").replace("&quot;", "\""),
        etag,
        "a repeated complete"
    );
    let reply = server.ask("GET", "/mail/k?partNumber=3").await;
    assert_eq!((reply.status, reply.text().as_str()), (206, "234"));
    assert_eq!(reply.header("x-amz-mp-parts-count"), "2");
    assert_eq!(reply.header("x-amz-meta-a"), "1");
    let attributes = Message::new("GET", "/mail/k?attributes");
    let attributes = attributes.header("x-amz-object-attributes", "ObjectParts");
    let reply = server.send(attributes.signed()).await;
    assert_eq!(reply.element("PartsCount"), "2");
}

#[tokio::test]
async fn a_complete_that_names_wrong_parts_makes_nothing() {
    let server = Server::fixed(settings());
    let id = begin(&server, "/mail/k").await;
    let first = part(&server, "/mail/k", &id, 1, b"a".to_vec()).await;
    let second = part(&server, "/mail/k", &id, 2, b"b".to_vec()).await;
    let check = async |parts: &[(u16, &str)], code: &str| {
        let message = complete("/mail/k", &id, parts).signed();
        server.send(message).await.is(400, code);
        server.ask("GET", "/mail/k").await.is(404, "NoSuchKey");
    };
    check(&[(1, &first), (2, &second)], "EntityTooSmall").await;
    check(&[(2, &second), (1, &first)], "InvalidPartOrder").await;
    check(&[(1, &second)], "InvalidPart").await;
    check(&[(9, &first)], "InvalidPart").await;
    check(&[], "MalformedXML").await;
    let target = "/mail/k?uploadId=none";
    let none = complete("/mail/k", "none", &[(1, &first)]).signed();
    server.send(none).await.is(404, "NoSuchUpload");
    server.ask("GET", target).await.is(404, "NoSuchUpload");
    server.ask("DELETE", target).await.is(404, "NoSuchUpload");
    let zero = format!("/mail/k?partNumber=0&uploadId={id}");
    let message = Message::new("PUT", &zero).body("x").signed();
    server.send(message).await.is(400, "InvalidArgument");
    let target = format!("/mail/k?uploadId={id}");
    assert_eq!(server.ask("DELETE", &target).await.status, 204);
    server.ask("GET", &target).await.is(404, "NoSuchUpload");
}

#[tokio::test]
async fn an_upload_tells_its_checksum_and_refuses_what_s3_has_not() {
    let server = Server::fixed(settings());
    let begin = |algorithm: &str, kind: Option<&str>| {
        let message = Message::new("POST", "/mail/k?uploads");
        let message = message.header("x-amz-checksum-algorithm", algorithm);
        match kind {
            None => message.signed(),
            Some(kind) => message.header("x-amz-checksum-type", kind).signed(),
        }
    };
    let check = async |algorithm: &str, kind: Option<&str>, expected: &str| {
        let reply = server.send(begin(algorithm, kind)).await;
        assert_eq!(
            reply.header("x-amz-checksum-type"),
            expected,
            "{}",
            reply.text()
        );
    };
    check("CRC32", None, "COMPOSITE").await;
    check("CRC64NVME", None, "FULL_OBJECT").await;
    check("CRC32C", Some("FULL_OBJECT"), "FULL_OBJECT").await;
    check("SHA256", Some("COMPOSITE"), "COMPOSITE").await;
    for (algorithm, kind) in [("SHA1", "FULL_OBJECT"), ("CRC64NVME", "COMPOSITE")] {
        let message = begin(algorithm, Some(kind));
        server.send(message).await.is(400, "InvalidRequest");
    }
    server
        .send(begin("BLAKE3", None))
        .await
        .is(501, "NotImplemented");
}

#[tokio::test]
async fn uploads_are_listed_with_common_prefixes_and_markers() {
    let server = Server::fixed(settings());
    for key in ["a", "a", "b/1", "b/2", "c/x", "d"] {
        begin(&server, &format!("/mail/{key}")).await;
    }
    let (mut keys, mut prefixes, mut marker) = (Vec::new(), Vec::new(), String::new());
    loop {
        let target = format!("/mail?uploads&delimiter=/&max-uploads=1{marker}");
        let page = server.ask("GET", &target).await;
        assert_eq!(page.status, 200, "{}", page.text());
        keys.extend(page.elements("Key"));
        let found = page.elements("Prefix");
        prefixes.extend(found.into_iter().filter(|prefix| !prefix.is_empty()));
        if page.element("IsTruncated") == "false" {
            break;
        }
        let (key, id) = (
            page.element("NextKeyMarker"),
            page.element("NextUploadIdMarker"),
        );
        marker = format!("&key-marker={key}&upload-id-marker={id}");
    }
    assert_eq!(keys, ["a", "a", "d"]);
    assert_eq!(prefixes, ["b/", "c/"]);
    let page = server
        .ask("GET", "/mail?uploads&prefix=b/&key-marker=b/1")
        .await;
    assert_eq!(page.elements("Key"), ["b/2"]);
}
