//! Tests of the documents. Not here: what a store makes of them.
//!
//! Invariant: a document that is written is read as the same value.

use proptest::prelude::*;

use super::*;
use crate::s3::codec::checksum::Algorithm;

const AWKWARD: &str = " a<b>&\"'\u{1}\r\n\t\0]]>é\u{ffff}\u{85} ";

#[test]
fn completes_are_read_as_clients_write_them() {
    let body = "<?xml version='1.0'?><!-- c --><x:CompleteMultipartUpload xmlns:x='http://s3.amazonaws.com/doc/2006-03-01/'>
        <x:Part><x:PartNumber> 2 </x:PartNumber><x:ETag>&quot;abc&#34;</x:ETag><Other/></x:Part>
        <Part><ETag>d</ETag><PartNumber>10000</PartNumber><ChecksumCRC32>AAAAAA==</ChecksumCRC32></Part>
        </x:CompleteMultipartUpload>";
    let expected = CompleteRequest {
        parts: vec![
            CompletedPart {
                number: 2,
                etag: "\"abc\"".to_owned(),
                checksums: vec![],
            },
            CompletedPart {
                number: 10_000,
                etag: "d".to_owned(),
                checksums: vec![(Algorithm::Crc32, "AAAAAA==".to_owned())],
            },
        ],
    };
    assert_eq!(CompleteRequest::read(body.as_bytes()), Ok(expected.clone()));
    assert_eq!(
        CompleteRequest::read(expected.write().as_bytes()),
        Ok(expected)
    );
    let check = |parts: &str, error: XmlError| {
        let body = format!("<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>");
        assert_eq!(
            CompleteRequest::read(body.as_bytes()),
            Err(error),
            "{parts}"
        );
    };
    let number =
        |number: &str| format!("<Part><PartNumber>{number}</PartNumber><ETag>a</ETag></Part>");
    let element = "PartNumber";
    for wrong in ["0", "10001", "-1", "+1", "", "99999999", "1 2"] {
        check(&number(wrong), XmlError::Value { element });
    }
    check("", XmlError::Missing { element: "Part" });
    check(
        "<Part><PartNumber>1</PartNumber></Part>",
        XmlError::Missing { element: "ETag" },
    );
    let limit = MOST_PARTS;
    check(
        &number("1").repeat(limit + 1),
        XmlError::TooMany {
            element: "Part",
            limit,
        },
    );
}

#[test]
fn a_full_complete_is_within_the_limits() {
    let parts = (1..=10_000).map(|number| CompletedPart {
        number,
        etag: "\"d41d8cd98f00b204e9800998ecf8427e\"".to_owned(),
        checksums: Algorithm::HEADERS.map(|one| (one, "A".repeat(44))).to_vec(),
    });
    let request = CompleteRequest {
        parts: parts.take(7000).collect(),
    };
    assert_eq!(
        CompleteRequest::read(request.write().as_bytes()),
        Ok(request)
    );
}

#[test]
fn what_is_not_plain_xml_is_refused() {
    let check = |body: &str| {
        let seen = Tagging::read(body.as_bytes()).unwrap_err();
        assert!(matches!(seen, XmlError::Malformed { .. }), "{body}: {seen}");
    };
    for body in [
        "",
        "x",
        "<Tagging>",
        "<Tagging></Other>",
        "<Tagging/><Tagging/>",
        "<Tagging/>x",
        "<!DOCTYPE Tagging><Tagging/>",
        "<!DOCTYPE x [<!ENTITY a \"b\">]><Tagging>&a;</Tagging>",
        "<Tagging>&a;</Tagging>",
        "<Tagging>&#xd800;</Tagging>",
        "<Tagging>&#99999999999;</Tagging>",
        "<Tagging>&#+1;</Tagging>",
        "<Tagging>&lt</Tagging>",
    ] {
        check(body);
    }
    assert!(Tagging::read(b"<Tagging>\xff</Tagging>").is_err());
    let root = XmlError::Root {
        expected: "Tagging",
    };
    assert_eq!(Tagging::read(b"<Delete/>"), Err(root));
    let deep = "<Tagging>".repeat(MOST_DEPTH + 1);
    assert_eq!(Tagging::read(deep.as_bytes()), Err(XmlError::TooComplex));
    let many = format!("<Tagging>{}", "<a/>".repeat(MOST_ELEMENTS));
    assert_eq!(Tagging::read(many.as_bytes()), Err(XmlError::TooComplex));
    let long = " ".repeat(MOST_REQUEST_BYTES + 1);
    let limit = MOST_REQUEST_BYTES;
    assert_eq!(
        Tagging::read(long.as_bytes()),
        Err(XmlError::TooLong { limit })
    );
}

#[test]
fn deletes_name_keys_exactly() {
    let body = "<Delete><Object><Key> a&#x1;b </Key></Object><Object><Key><![CDATA[<&>]]></Key>\
        <VersionId>null</VersionId><ETag>e</ETag></Object><Quiet>true</Quiet></Delete>";
    let request = DeleteRequest::read(body.as_bytes()).unwrap();
    assert!(request.quiet);
    assert_eq!(request.objects[0].key, b" a\x01b ");
    let last = DeleteObject {
        key: b"<&>".to_vec(),
        version_id: Some("null".to_owned()),
        etag: Some("e".to_owned()),
    };
    assert_eq!(request.objects[1], last);
    assert_eq!(
        DeleteRequest::read(request.write().unwrap().as_bytes()),
        Ok(request)
    );
    let check = |body: &str, error: XmlError| {
        assert_eq!(DeleteRequest::read(body.as_bytes()), Err(error), "{body}");
    };
    check("<Delete/>", XmlError::Missing { element: "Object" });
    check(
        "<Delete><Object/></Delete>",
        XmlError::Missing { element: "Key" },
    );
    check(
        "<Delete><Object><Key/></Object></Delete>",
        XmlError::Value { element: "Key" },
    );
    let sized = "<Delete><Object><Key>a</Key><Size>1</Size></Object></Delete>";
    check(sized, XmlError::Value { element: "Size" });
    let many = "<Object><Key>a</Key></Object>".repeat(MOST_DELETE_KEYS + 1);
    let limit = MOST_DELETE_KEYS;
    check(
        &format!("<Delete>{many}</Delete>"),
        XmlError::TooMany {
            element: "Object",
            limit,
        },
    );
}

#[test]
fn small_documents_are_read_and_written() {
    let tagging = Tagging {
        tags: vec![
            ("a".to_owned(), AWKWARD.to_owned()),
            ("b".to_owned(), String::new()),
        ],
    };
    assert_eq!(Tagging::read(tagging.write().as_bytes()), Ok(tagging));
    assert_eq!(read_location_constraint(b" \n"), Ok(None));
    let region = write_location_constraint("eu-west-1");
    assert_eq!(
        read_location_constraint(region.as_bytes()),
        Ok(Some("eu-west-1".to_owned()))
    );
    assert!(write_location("us-east-1").ends_with("/\"></LocationConstraint>"));
    assert!(write_location("x").ends_with(">x</LocationConstraint>"));
    assert_eq!(read_versioning(write_no_versioning().as_bytes()), Ok(None));
    let on = b"<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>";
    assert_eq!(read_versioning(on), Ok(Some("Enabled".to_owned())));
    let attributes = ObjectAttributes {
        etag: Some("abc-2".to_owned()),
        checksums: vec![(Algorithm::Crc32, "AAAAAA==".to_owned())],
        checksum_type: Some("COMPOSITE".to_owned()),
        part_count: Some(2),
        storage_class: None,
        size: Some(5),
    };
    let text = attributes.write();
    assert!(text.contains("<Checksum><ChecksumCRC32>AAAAAA==</ChecksumCRC32><ChecksumType>COMPOSITE</ChecksumType></Checksum><ObjectParts><PartsCount>2</PartsCount></ObjectParts><ObjectSize>5</ObjectSize>"));
    let buckets = BucketList {
        owner: Owner {
            id: "1".to_owned(),
            display_name: "one".to_owned(),
        },
        buckets: vec![BucketEntry {
            name: "mail".to_owned(),
            created_ms: 0,
        }],
        ..BucketList::default()
    };
    assert!(buckets.write().contains(
        "<Bucket><Name>mail</Name><CreationDate>1970-01-01T00:00:00.000Z</CreationDate></Bucket>"
    ));
}

fn list(key: &[u8], url_encoded: bool) -> ListBucketResult {
    ListBucketResult {
        bucket: "mail".to_owned(),
        prefix: key.to_vec(),
        delimiter: Some(b"/".to_vec()),
        max_keys: 1000,
        is_truncated: true,
        url_encoded,
        objects: vec![ListedObject {
            key: key.to_vec(),
            modified_ms: 1_767_323_045_678,
            etag: "\"abc\"".to_owned(),
            size: 7,
            owner: Some(Owner::default()),
            checksum_algorithms: vec!["CRC32".to_owned()],
        }],
        common_prefixes: vec![key.to_vec(), b"b/".to_vec()],
        version: ListVersion::Two {
            start_after: Some(key.to_vec()),
            continuation_token: None,
            next_continuation_token: Some("t=&".to_owned()),
        },
    }
}

#[test]
fn keys_are_listed_exactly_or_not_at_all() {
    let good = list(AWKWARD.as_bytes(), false);
    let text = good.write().unwrap();
    assert!(text.contains("&#x1;") && text.contains("<KeyCount>3</KeyCount>"));
    assert_eq!(ListBucketResult::read(text.as_bytes()), Ok(good));
    assert_eq!(list(b"\xff", false).write(), Err(XmlError::KeyNotUtf8));
    let encoded = list(b"a b+/\xff", true);
    let text = encoded.write().unwrap();
    assert!(text.contains("<Key>a%20b%2B/%FF</Key>"));
    assert_eq!(ListBucketResult::read(text.as_bytes()), Ok(encoded));
    let first = ListBucketResult {
        version: ListVersion::One {
            marker: b"m".to_vec(),
            next_marker: Some(b"n".to_vec()),
        },
        ..list(b"k", false)
    };
    let text = first.write().unwrap();
    assert!(
        text.contains("<Marker>m</Marker><NextMarker>n</NextMarker>") && !text.contains("KeyCount")
    );
}

#[test]
fn uploads_and_parts_are_read_as_they_were_written() {
    let initiated = Initiated {
        bucket: "b".to_owned(),
        key: b"k".to_vec(),
        upload_id: "u".to_owned(),
    };
    assert_eq!(
        Initiated::read(initiated.write().unwrap().as_bytes()),
        Ok(initiated)
    );
    let parts = ListPartsResult {
        bucket: "b".to_owned(),
        key: b"\xff k".to_vec(),
        upload_id: "u".to_owned(),
        next_part_number_marker: Some(3),
        max_parts: 1,
        is_truncated: true,
        url_encoded: true,
        parts: vec![ListedPart {
            number: 3,
            modified_ms: 5,
            etag: "\"e\"".to_owned(),
            size: 9,
            checksums: vec![(Algorithm::Sha1, "x".to_owned())],
        }],
        ..ListPartsResult::default()
    };
    assert_eq!(
        ListPartsResult::read(parts.write().unwrap().as_bytes()),
        Ok(parts)
    );
    let uploads = ListUploadsResult {
        bucket: "b".to_owned(),
        next_key_marker: Some(b"k".to_vec()),
        next_upload_id_marker: Some("u".to_owned()),
        uploads: vec![ListedUpload {
            key: b"k".to_vec(),
            upload_id: "u".to_owned(),
            initiated_ms: 1,
        }],
        common_prefixes: vec![b"p/".to_vec()],
        ..ListUploadsResult::default()
    };
    assert_eq!(
        ListUploadsResult::read(uploads.write().unwrap().as_bytes()),
        Ok(uploads)
    );
}

#[test]
fn failure_may_come_in_place_of_a_result() {
    let error = ErrorDocument {
        code: "InternalError".to_owned(),
        message: "we <failed>".to_owned(),
        resource: "/b/k".to_owned(),
        request_id: "1".to_owned(),
        extra: vec![],
    };
    let text = format!("\n  {}", error.write());
    assert_eq!(
        ErrorDocument::read(error.write().as_bytes()),
        Ok(error.clone())
    );
    assert_eq!(
        CompleteResult::read(text.as_bytes()),
        Ok(Err(error.clone()))
    );
    assert_eq!(CopyResult::read_part(text.as_bytes()), Ok(Err(error)));
    let complete = CompleteResult {
        location: "http://x/b/k".to_owned(),
        bucket: "b".to_owned(),
        key: b"k".to_vec(),
        etag: "\"e-1\"".to_owned(),
        checksums: vec![(Algorithm::Crc64Nvme, "c".to_owned())],
        checksum_type: Some("FULL_OBJECT".to_owned()),
    };
    let text = complete.write().unwrap();
    assert_eq!(CompleteResult::read(text.as_bytes()), Ok(Ok(complete)));
    let copy = CopyResult {
        etag: "\"e\"".to_owned(),
        modified_ms: 1000,
        checksums: vec![],
    };
    assert_eq!(
        CopyResult::read_object(copy.write_object().as_bytes()),
        Ok(Ok(copy.clone()))
    );
    assert_eq!(
        CopyResult::read_part(copy.write_part().as_bytes()),
        Ok(Ok(copy.clone()))
    );
    assert!(CopyResult::read_part(copy.write_object().as_bytes()).is_err());
    let result = DeleteResult {
        deleted: vec![Deleted {
            key: b"a".to_vec(),
            version_id: None,
        }],
        failures: vec![DeleteFailure {
            key: b"b".to_vec(),
            version_id: Some("1".to_owned()),
            code: "InternalError".to_owned(),
            message: "m".to_owned(),
        }],
    };
    assert_eq!(
        DeleteResult::read(result.write().unwrap().as_bytes()),
        Ok(result)
    );
}

proptest! {
    #[test]
    fn any_text_is_a_key(key in "\\PC*|[\\x00-\\x20<&\\]>]{1,9}") {
        let result = list(key.as_bytes(), false);
        let read = ListBucketResult::read(result.write().unwrap().as_bytes()).unwrap();
        prop_assert_eq!(&read.objects[0].key, key.as_bytes());
    }

    #[test]
    fn any_bytes_are_a_key_when_encoded(key in proptest::collection::vec(any::<u8>(), 1..30)) {
        let result = list(&key, true);
        prop_assert_eq!(ListBucketResult::read(result.write().unwrap().as_bytes()), Ok(result));
    }

    #[test]
    fn any_bytes_are_answered(body in "(<Delete>|<Object>|<Key>|</Key>|</Object>|</Delete>|&amp;|&|x|<!--|\\]){0,12}") {
        let _answer = DeleteRequest::read(body.as_bytes());
    }
}
