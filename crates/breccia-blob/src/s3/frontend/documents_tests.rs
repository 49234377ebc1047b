//! Tests of reading documents.

use super::*;

#[test]
fn parts_of_a_complete_are_read() {
    let document = br#"<?xml version="1.0"?>
        <CompleteMultipartUpload xmlns="http://s3.amazonaws.com/doc/2006-03-01/">
          <Part><PartNumber>1</PartNumber><ETag>"a"</ETag></Part>
          <Part><ETag>&quot;b&quot;</ETag><PartNumber>3</PartNumber>
            <ChecksumCRC32>y/Q5Jg==</ChecksumCRC32></Part>
        </CompleteMultipartUpload>"#;
    let parts = complete(document).expect("parts");
    let seen: Vec<(u16, &str, bool)> = parts
        .iter()
        .map(|part| (part.number, part.etag.as_str(), part.checksum.is_some()))
        .collect();
    assert_eq!(seen, [(1, "a", false), (3, "b", true)]);
}

#[test]
fn keys_are_read_exactly() {
    let document =
        b"<Delete><Quiet>true</Quiet><Object><Key> a&amp;b&#10;&#x41; <![CDATA[<c>]]></Key>\
        </Object><o:Object xmlns:o='x'><Key>k</Key><VersionId>1</VersionId></o:Object></Delete>";
    let found = deletes(document).expect("deletes");
    assert!(found.quiet);
    let keys: Vec<(&str, Option<&str>)> = found
        .entries
        .iter()
        .map(|entry| (entry.key.as_str(), entry.unoffered))
        .collect();
    assert_eq!(keys, [(" a&b\nA <c>", None), ("k", Some("VersionId"))]);
}

#[test]
fn tags_and_places_are_read() {
    let document = b"<Tagging><TagSet><Tag><Key>a</Key><Value/></Tag></TagSet></Tagging>";
    assert_eq!(
        tags(document).ok(),
        Some(vec![("a".to_owned(), String::new())])
    );
    let none = b"<CreateBucketConfiguration/>";
    assert_eq!(location_constraint(none).ok(), Some(None));
    let named = b"<CreateBucketConfiguration><LocationConstraint>eu</LocationConstraint>\
        </CreateBucketConfiguration>";
    assert_eq!(location_constraint(named).ok(), Some(Some("eu".to_owned())));
}

#[test]
fn strange_documents_are_refused() {
    let check = |document: &str| {
        let found = deletes(document.as_bytes());
        assert!(
            matches!(found, Err(Refusal::Xml { .. })),
            "{document}: {found:?}"
        );
    };
    let object = "<Object><Key>k</Key></Object>";
    for document in [
        "",
        "x",
        "<Delete>",
        "<Delete/>",
        "<Other/>",
        "<Delete><Object></Object></Delete>",
        "<!DOCTYPE x [<!ENTITY a 'b'>]><Delete><Object><Key>&a;</Key></Object></Delete>",
        "<Delete><Object><Key>&a;</Key></Object></Delete>",
        "<Delete><Object><Key>k</Object></Key></Delete>",
    ] {
        check(document);
    }
    check(&format!(
        "<Delete>{object}</Delete><Delete>{object}</Delete>"
    ));
    check(&format!(
        "<Delete>{}</Delete>",
        object.repeat(MAX_DELETES + 1)
    ));
    check(&format!(
        "<Delete>{}{}</Delete>",
        "<a>".repeat(9),
        "</a>".repeat(9)
    ));
    let part = "<Part><PartNumber>2</PartNumber><ETag>e</ETag></Part>";
    let twice = format!("<CompleteMultipartUpload>{part}{part}</CompleteMultipartUpload>");
    assert!(complete(twice.as_bytes()).is_err(), "parts out of order");
}
