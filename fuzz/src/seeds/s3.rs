//! Seeds of the S3 targets.
//!
//! Readable, one for each thing the wire can say. Invariant: none needs more than a few hundred bytes.

/// The first byte: signed, trailer, length.
pub(super) const CHUNKED: [&[u8]; 6] = [
    b"\x0c3\r\nabc\r\n0\r\n\r\n",
    b"\x0e3\r\nabc\r\n0\r\nx-amz-checksum-crc32:AAAAAA==\r\n\r\n",
    b"\x0da\r\n0123456789\r\n0\r\n\r\n",
    b"\x0d3;chunk-signature=0000000000000000000000000000000000000000000000000000000000000000\r\nabc\r\n0;chunk-signature=0000000000000000000000000000000000000000000000000000000000000000\r\n\r\n",
    b"\x030;chunk-signature=0000000000000000000000000000000000000000000000000000000000000000\r\nx-amz-checksum-crc32:AAAAAA==\r\nx-amz-trailer-signature:0000000000000000000000000000000000000000000000000000000000000000\r\n\r\n",
    b"\x00ffffffffffffffff\r\n",
];

/// The header, then the size.
pub(super) const RANGES: [&[u8]; 6] = [
    b"bytes=0-9\n100",
    b"bytes=5-\n5",
    b"bytes=-3\n0",
    b"bytes=0-1, 3-4\n9",
    b"bytes 0-1/9",
    b"bytes=18446744073709551614-18446744073709551615\n18446744073709551615",
];

pub(super) const DOCUMENTS: [&[u8]; 8] = [
    b"<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>&quot;a&quot;</ETag><ChecksumCRC32>AAAAAA==</ChecksumCRC32></Part></CompleteMultipartUpload>",
    b"<?xml version=\"1.0\"?><Delete xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Object><Key>a&#x1;</Key><VersionId>v</VersionId></Object><Quiet>true</Quiet></Delete>",
    b"<Tagging><TagSet><Tag><Key>k</Key><Value><![CDATA[<&>]]></Value></Tag></TagSet></Tagging>",
    b"<CreateBucketConfiguration><LocationConstraint>eu</LocationConstraint></CreateBucketConfiguration>",
    b"<ListBucketResult><Name>b</Name><Prefix>p%2B</Prefix><EncodingType>url</EncodingType><IsTruncated>true</IsTruncated><NextContinuationToken>t</NextContinuationToken><Contents><Key>a+b</Key><LastModified>2026-01-02T03:04:05.678Z</LastModified><ETag>e</ETag><Size>1</Size></Contents><CommonPrefixes><Prefix>c/</Prefix></CommonPrefixes></ListBucketResult>",
    b"<Error><Code>NoSuchKey</Code><Message>m</Message></Error>",
    b"<CompleteMultipartUploadResult><Key>k</Key><ETag>e</ETag></CompleteMultipartUploadResult>",
    b"<DeleteResult><Deleted><Key>a</Key></Deleted><Error><Key>b</Key><Code>c</Code></Error></DeleteResult>",
];

pub(super) const KEYS: [&[u8]; 5] = [
    b"hello",
    b"cpnmuoj1e8",
    b"p/nbswy9dp",
    b"\x00\xff\x00\xff\x80",
    b"//a/../b",
];

pub(super) const HEADS: [&[u8]; 4] = [
    b"GET /b/k x=1\nhost: a\nx-amz-date: 20130524T000000Z\nx-amz-content-sha256: UNSIGNED-PAYLOAD\nauthorization: AWS4-HMAC-SHA256 Credential=AKIA/20130524/us-east-1/s3/aws4_request, SignedHeaders=host;x-amz-content-sha256;x-amz-date, Signature=0000000000000000000000000000000000000000000000000000000000000000",
    b"GET /b/k X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIA%2F20130524%2Fus-east-1%2Fs3%2Faws4_request&X-Amz-Date=20130524T000000Z&X-Amz-Expires=60&X-Amz-SignedHeaders=host&X-Amz-Signature=0000000000000000000000000000000000000000000000000000000000000000\nhost: a",
    b"PUT /b//k%20 \nhost: a\ndate: Fri, 24 May 2013 00:00:00 GMT\nauthorization: AWS a:b",
    b"GET / AWSAccessKeyId=a&Signature=b&Expires=1",
];
