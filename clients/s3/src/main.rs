//! Uses an S3 server the way programs do, with two Rust clients: `s3-clients URL ACCESS SECRET BUCKET`.
//!
//! Not a test by itself: the workspace's tests start a gateway and run this. Invariant: exit status
//! 0 means that every answer was right.

use std::error::Error;

use aws_sdk_s3::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart, Delete, ObjectIdentifier};

type Done<T = ()> = Result<T, Box<dyn Error>>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Done {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [url, access_key, secret_key, bucket] = &words[..] else {
        return Err("usage: s3-clients URL ACCESS-KEY SECRET-KEY BUCKET".into());
    };
    aws(url, access_key, secret_key, bucket).await?;
    println!("aws-sdk-s3: good");
    rust_s3(url, access_key, secret_key, bucket).await?;
    println!("rust-s3: good");
    Ok(())
}

fn pattern(size: usize) -> Vec<u8> {
    (0..=250_u8).cycle().take(size).collect()
}

async fn aws(url: &str, access_key: &str, secret_key: &str, bucket: &str) -> Done {
    let config = aws_sdk_s3::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .http_client(aws_smithy_http_client::Builder::new().build_http())
        .endpoint_url(url)
        .region(Region::new("us-east-1"))
        .credentials_provider(Credentials::new(access_key, secret_key, None, None, "test"))
        .force_path_style(true)
        .build();
    let client = aws_sdk_s3::Client::from_conf(config);
    for size in [0, 1, 100_000, 6_000_000] {
        let key = format!("aws/{size}");
        let body = ByteStream::from(pattern(size));
        let put = client.put_object().bucket(bucket).key(&key).body(body);
        put.metadata("colour", "green").send().await?;
        let got = client.get_object().bucket(bucket).key(&key).send().await?;
        assert_eq!(got.metadata().and_then(|all| all.get("colour")).map(String::as_str), Some("green"));
        assert_eq!(got.body.collect().await?.into_bytes(), pattern(size));
    }
    let ranged = client.get_object().bucket(bucket).key("aws/100000").range("bytes=10-19");
    let ranged = ranged.send().await?.body.collect().await?.into_bytes();
    assert_eq!(ranged, &pattern(100_000)[10..20]);
    aws_multipart(&client, bucket).await?;
    let listed = client.list_objects_v2().bucket(bucket).prefix("aws/").send().await?;
    let keys: Vec<&str> = listed.contents().iter().filter_map(|object| object.key()).collect();
    assert_eq!(keys, ["aws/0", "aws/1", "aws/100000", "aws/6000000", "aws/parts"]);
    let missing = client.get_object().bucket(bucket).key("aws/none").send().await;
    assert!(missing.expect_err("it is not there").into_service_error().is_no_such_key());
    let copied = client.copy_object().bucket(bucket).key("aws/copy");
    copied.copy_source(format!("{bucket}/aws/1")).send().await?;
    let twice = client.put_object().bucket(bucket).key("aws/copy").if_none_match("*");
    let twice = twice.body(ByteStream::from_static(b"x")).send().await;
    let status = twice.expect_err("it is there").raw_response().map(|raw| raw.status().as_u16());
    // 501 where a shard's server ignores conditions.
    assert!(matches!(status, Some(412 | 501)), "{status:?}");
    let names = keys.iter().chain(&["aws/copy"]);
    let names = names.map(|key| ObjectIdentifier::builder().key(*key).build());
    let delete = Delete::builder().set_objects(Some(names.collect::<Result<_, _>>()?)).build()?;
    let deleted = client.delete_objects().bucket(bucket).delete(delete).send().await?;
    assert_eq!((deleted.deleted().len(), deleted.errors().len()), (6, 0));
    Ok(())
}

async fn aws_multipart(client: &aws_sdk_s3::Client, bucket: &str) -> Done {
    let begun = client.create_multipart_upload().bucket(bucket).key("aws/parts").send().await?;
    let id = begun.upload_id().ok_or("an upload id")?;
    let mut parts = Vec::new();
    for (number, size) in [(1, 5 << 20), (2, 77)] {
        let part = client.upload_part().bucket(bucket).key("aws/parts").upload_id(id);
        let part = part.part_number(number).body(ByteStream::from(pattern(size))).send().await?;
        parts.push(
            CompletedPart::builder()
                .part_number(number)
                .set_e_tag(part.e_tag().map(str::to_owned))
                .set_checksum_crc32(part.checksum_crc32().map(str::to_owned))
                .build(),
        );
    }
    let parts = CompletedMultipartUpload::builder().set_parts(Some(parts)).build();
    let done = client.complete_multipart_upload().bucket(bucket).key("aws/parts");
    done.upload_id(id).multipart_upload(parts).send().await?;
    let got = client.get_object().bucket(bucket).key("aws/parts").send().await?;
    let wanted = [pattern(5 << 20), pattern(77)].concat();
    assert_eq!(got.body.collect().await?.into_bytes(), wanted);
    Ok(())
}

/// rust-s3 signs headers on DELETE and on ranged GET that it does not send.
async fn rust_s3(url: &str, access_key: &str, secret_key: &str, bucket: &str) -> Done {
    let region = s3::Region::Custom {
        region: "us-east-1".to_owned(),
        endpoint: url.to_owned(),
    };
    let credentials = s3::creds::Credentials::new(Some(access_key), Some(secret_key), None, None, None)?;
    let bucket = s3::Bucket::new(bucket, region, credentials)?.with_path_style();
    for size in [0, 1, 1000, 3_000_000] {
        let path = format!("/rust-s3/{size}");
        let put = bucket.put_object(&path, &pattern(size)).await?;
        assert_eq!(put.status_code(), 200);
        let (_, status) = bucket.head_object(&path).await?;
        assert_eq!(status, 200);
        assert_eq!(bucket.get_object(&path).await?.bytes().to_vec(), pattern(size));
    }
    let ranged = bucket.get_object_range("/rust-s3/1000", 5, Some(14)).await?;
    assert_eq!(ranged.bytes().to_vec(), pattern(1000)[5..15]);
    let listed = bucket.list("rust-s3/".to_owned(), Some("/".to_owned())).await?;
    assert_eq!(listed.iter().map(|page| page.contents.len()).sum::<usize>(), 4);
    for size in [0, 1, 1000, 3_000_000] {
        let deleted = bucket.delete_object(format!("/rust-s3/{size}")).await?;
        assert_eq!(deleted.status_code(), 204);
    }
    let missing = bucket.get_object("/rust-s3/1").await;
    assert!(matches!(missing, Err(s3::error::S3Error::HttpFailWithBody(404, _))), "{missing:?}");
    Ok(())
}
