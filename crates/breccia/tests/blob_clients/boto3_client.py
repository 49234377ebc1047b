"""boto3: URL ACCESS-KEY SECRET-KEY BUCKET KIND FOLDER, as in awscli.sh. The last line says that all was good."""

import hashlib
import io
import os
import sys
import urllib.error
import urllib.request
from datetime import datetime, timezone

import boto3
from boto3.s3.transfer import TransferConfig
from botocore.exceptions import ClientError

url, access_key, secret_key, bucket, kind, folder = sys.argv[1:]
s3 = boto3.client(
    "s3",
    endpoint_url=url,
    region_name="us-east-1",
    aws_access_key_id=access_key,
    aws_secret_access_key=secret_key,
)
PREFIX = "boto3/"
ODD_KEYS = [
    "plain", "a b", "a+b", "a%20b", "a%2Fb", "ü/é", "日本", "a//b", "a/", "dots/./x", "dots/../x", "q?x=1&y=2", "#h",
    "quote\"'<&>", "star*~!()", "back\\slash", "tab\tnew\nline", "$,:;=@[]{}^`|", "x" * 900, "🦀",
]
MIB = 1 << 20


def refused(codes, call, **arguments):
    """The answer must be an error with one of these codes; its status."""
    try:
        call(Bucket=bucket, **arguments)
    except ClientError as error:
        assert error.response["Error"]["Code"] in codes, error
        return error.response["ResponseMetadata"]["HTTPStatusCode"]
    raise AssertionError(f"not refused: {call} {arguments}")


def put(key, body, **arguments):
    return s3.put_object(Bucket=bucket, Key=PREFIX + key, Body=body, **arguments)


def get(key, **arguments):
    return s3.get_object(Bucket=bucket, Key=PREFIX + key, **arguments)


def keys(prefix, **arguments):
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=PREFIX + prefix, **arguments)
    return [item["Key"][len(PREFIX):] for page in pages for item in page.get("Contents", [])]


def buckets():
    if kind == "made":
        s3.create_bucket(Bucket=bucket)
    assert bucket in [item["Name"] for item in s3.list_buckets()["Buckets"]]
    s3.head_bucket(Bucket=bucket)
    assert s3.get_bucket_location(Bucket=bucket)["LocationConstraint"] is None
    missing = boto3.resource("s3", endpoint_url=url, region_name="us-east-1", aws_access_key_id=access_key,
                             aws_secret_access_key=secret_key).Bucket("no-such-bucket-here")
    try:
        list(missing.objects.all())
        raise AssertionError("a bucket that is not there was listed")
    except ClientError as error:
        assert error.response["Error"]["Code"] == "NoSuchBucket", error


def objects():
    for size in [0, 1, 65_536, 1_000_003]:
        body = os.urandom(size)
        answer = put(f"size/{size}", body)
        assert answer["ETag"] == f'"{hashlib.md5(body).hexdigest()}"', answer
        got = get(f"size/{size}")
        assert got["Body"].read() == body and got["ContentLength"] == size
        assert got["ETag"] == answer["ETag"]
    begun = datetime.now(timezone.utc)
    put("meta", b"0123456789", ContentType="text/x-test", CacheControl="no-cache", ContentLanguage="de",
        ContentDisposition="inline", ContentEncoding="x-none", Expires=datetime(2030, 1, 1, tzinfo=timezone.utc),
        Metadata={"colour": "green", "empty": ""})
    head = s3.head_object(Bucket=bucket, Key=PREFIX + "meta")
    assert head["Metadata"] == {"colour": "green", "empty": ""}, head
    assert abs((head["LastModified"] - begun).total_seconds()) < 60, head
    told = [head[name] for name in ["ContentType", "CacheControl", "ContentLanguage", "ContentDisposition",
                                    "ContentEncoding"]]
    assert told == ["text/x-test", "no-cache", "de", "inline", "x-none"], head
    for wanted, ranged in [(b"34", "bytes=3-4"), (b"89", "bytes=-2"), (b"9", "bytes=9-99")]:
        assert get("meta", Range=ranged)["Body"].read() == wanted
    assert get("meta", ResponseContentType="a/b")["ContentType"] == "a/b"
    assert refused(["InvalidRange"], s3.get_object, Key=PREFIX + "meta", Range="bytes=10-") == 416
    assert refused(["304"], s3.get_object, Key=PREFIX + "meta", IfNoneMatch=head["ETag"]) == 304
    assert refused(["PreconditionFailed"], s3.get_object, Key=PREFIX + "meta", IfMatch='"x"') == 412
    assert refused(["NoSuchKey"], s3.get_object, Key=PREFIX + "none") == 404
    assert refused(["404"], s3.head_object, Key=PREFIX + "none") == 404
    s3.delete_object(Bucket=bucket, Key=PREFIX + "none")


def odd_keys():
    for key in ODD_KEYS:
        put("odd/" + key, key.encode())
    for key in ODD_KEYS:
        assert get("odd/" + key)["Body"].read() == key.encode(), key
    wanted = sorted(("odd/" + key for key in ODD_KEYS), key=str.encode)
    assert keys("odd/") == wanted, keys("odd/")
    assert keys("odd/", PaginationConfig={"PageSize": 3}) == wanted
    pages = s3.get_paginator("list_objects").paginate(
        Bucket=bucket, Prefix=PREFIX + "odd/", Delimiter="/", PaginationConfig={"PageSize": 2})
    found, common = [], []
    for page in pages:
        found += [item["Key"][len(PREFIX):] for item in page.get("Contents", [])]
        common += [item["Prefix"][len(PREFIX):] for item in page.get("CommonPrefixes", [])]
    assert found == [key for key in wanted if "/" not in key[4:]], found
    assert common == ["odd/a/", "odd/dots/", "odd/ü/"], common


def big_objects():
    path, back = os.path.join(folder, "big"), os.path.join(folder, "back")
    body = os.urandom(12 * MIB + 1)
    with open(path, "wb") as file:
        file.write(body)
    config = TransferConfig(multipart_threshold=5 * MIB, multipart_chunksize=5 * MIB)
    s3.upload_file(path, bucket, PREFIX + "big", Config=config, ExtraArgs={"Metadata": {"colour": "red"}})
    s3.upload_fileobj(io.BytesIO(body), bucket, PREFIX + "stream", Config=config)
    for key in ["big", "stream"]:
        s3.download_file(bucket, PREFIX + key, back, Config=config)
        with open(back, "rb") as file:
            assert file.read() == body, key
    head = s3.head_object(Bucket=bucket, Key=PREFIX + "big", PartNumber=3)
    assert (head["PartsCount"], head["ContentLength"]) == (3, 2 * MIB + 1), head
    s3.copy({"Bucket": bucket, "Key": PREFIX + "big"}, bucket, PREFIX + "big.copy", Config=config)
    copied = get("big.copy")
    assert copied["Metadata"] == {"colour": "red"} and copied["Body"].read() == body


def copies():
    put("from here", b"words", Metadata={"colour": "blue"}, ContentType="a/b")
    for number in range(9):  # over all shards
        source = {"Bucket": bucket, "Key": PREFIX + "from here"}
        answer = s3.copy_object(Bucket=bucket, Key=f"{PREFIX}copy/{number}", CopySource=source)
        assert answer["CopyObjectResult"]["ETag"] == f'"{hashlib.md5(b"words").hexdigest()}"'
        got = get(f"copy/{number}")
        assert (got["Body"].read(), got["Metadata"], got["ContentType"]) == (b"words", {"colour": "blue"}, "a/b")
    refused(["NoSuchKey"], s3.copy_object, Key=PREFIX + "copy/x", CopySource={"Bucket": bucket, "Key": "none"})
    refused(["InvalidRequest"], s3.copy_object, Key=PREFIX + "from here",
            CopySource={"Bucket": bucket, "Key": PREFIX + "from here"})


def conditions():
    """RGW honours both conditions on PutObject; a server that does not makes them 501."""
    for number in range(6):
        key = f"condition/{number}"
        try:
            put(key, b"1", IfNoneMatch="*")
        except ClientError as error:
            assert error.response["Error"]["Code"] == "NotImplemented", error
            put(key, b"1")
        refused(["PreconditionFailed", "NotImplemented"], s3.put_object, Key=PREFIX + key, Body=b"2", IfNoneMatch="*")
        refused(["PreconditionFailed", "NotImplemented"], s3.put_object, Key=PREFIX + key, Body=b"2", IfMatch='"x"')
        assert get(key)["Body"].read() == b"1"


def uploads():
    key = PREFIX + "parts"
    upload = s3.create_multipart_upload(Bucket=bucket, Key=key, Metadata={"a": "b"})["UploadId"]
    bodies = [os.urandom(5 * MIB), b"tail"]
    parts = []
    for number, body in enumerate(bodies, 1):
        answer = s3.upload_part(Bucket=bucket, Key=key, UploadId=upload, PartNumber=number, Body=body)
        parts.append({"PartNumber": number, "ETag": answer["ETag"], "ChecksumCRC32": answer["ChecksumCRC32"]})
    listed = s3.list_parts(Bucket=bucket, Key=key, UploadId=upload)
    assert [(part["PartNumber"], part["Size"], part["ETag"]) for part in listed["Parts"]] == [
        (1, 5 * MIB, parts[0]["ETag"]), (2, 4, parts[1]["ETag"])], listed
    page = s3.list_parts(Bucket=bucket, Key=key, UploadId=upload, MaxParts=1)
    assert page["IsTruncated"] and page["NextPartNumberMarker"] == 1, page
    uploads = s3.list_multipart_uploads(Bucket=bucket, Prefix=PREFIX)["Uploads"]
    assert [(item["Key"], item["UploadId"]) for item in uploads] == [(key, upload)], uploads

    def complete(parts):
        return {"Key": key, "UploadId": upload, "MultipartUpload": {"Parts": parts}}

    refused(["InvalidPart"], s3.complete_multipart_upload,
            **complete([{**parts[0], "ETag": '"00000000000000000000000000000000"'}, parts[1]]))
    refused(["InvalidPartOrder"], s3.complete_multipart_upload, **complete(parts[::-1]))
    refused(["InvalidPart"], s3.complete_multipart_upload, **complete(parts + [{"PartNumber": 3, "ETag": '"x"'}]))
    done = s3.complete_multipart_upload(Bucket=bucket, **complete(parts))
    digests = b"".join(hashlib.md5(body).digest() for body in bodies)
    assert done["ETag"] == f'"{hashlib.md5(digests).hexdigest()}-2"', done
    got = get("parts")
    assert got["Body"].read() == b"".join(bodies) and got["Metadata"] == {"a": "b"}
    refused(["NoSuchUpload"], s3.abort_multipart_upload, Key=key, UploadId="none")
    upload = s3.create_multipart_upload(Bucket=bucket, Key=key)["UploadId"]
    s3.upload_part_copy(Bucket=bucket, Key=key, UploadId=upload, PartNumber=1,
                        CopySource={"Bucket": bucket, "Key": PREFIX + "meta"}, CopySourceRange="bytes=2-5")
    s3.abort_multipart_upload(Bucket=bucket, Key=key, UploadId=upload)
    refused(["NoSuchUpload"], s3.list_parts, Key=key, UploadId=upload)


def fetch(method, address, body=None, headers=None):
    request = urllib.request.Request(address, data=body, method=method, headers=headers or {})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return answer.read()


def presigned():
    name = {"Bucket": bucket, "Key": PREFIX + "signed ü"}
    fetch("PUT", s3.generate_presigned_url("put_object", Params=name), b"by url")
    address = s3.generate_presigned_url("get_object", Params={**name, "ResponseContentType": "a/b"})
    assert fetch("GET", address) == b"by url"
    fetch("DELETE", s3.generate_presigned_url("delete_object", Params=name))
    try:
        fetch("GET", address)
        raise AssertionError("a deleted object was read")
    except urllib.error.HTTPError as error:
        assert error.code == 404, error
    form = s3.generate_presigned_post(bucket, PREFIX + "posted")
    lines = [f'--b\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
             for name, value in {**form["fields"], "file": "words"}.items()]
    try:
        fetch("POST", form["url"], ("".join(lines) + "--b--\r\n").encode(),
              {"Content-Type": "multipart/form-data; boundary=b"})
        raise AssertionError("a form upload was taken")
    except urllib.error.HTTPError as error:
        assert error.code == 501 and b"NotImplemented" in error.read(), error


def tags():
    for number in range(6):
        key = f"tags/{number}"
        put(key, b"1", Tagging="a=b%20c&d=")
        assert get(key)["TagCount"] == 2
        name = {"Bucket": bucket, "Key": PREFIX + key}
        found = s3.get_object_tagging(**name)["TagSet"]
        assert sorted((tag["Key"], tag["Value"]) for tag in found) == [("a", "b c"), ("d", "")], found
        s3.put_object_tagging(**name, Tagging={"TagSet": [{"Key": "x", "Value": "y"}]})
        assert s3.get_object_tagging(**name)["TagSet"] == [{"Key": "x", "Value": "y"}]
        s3.delete_object_tagging(**name)
        assert s3.get_object_tagging(**name)["TagSet"] == []
        assert get(key)["Body"].read() == b"1"


def not_implemented():
    for call in [s3.get_bucket_policy, s3.get_bucket_lifecycle_configuration, s3.get_bucket_website]:
        refused(["NotImplemented"], call)
    refused(["NotImplemented"], s3.put_object, Key="x", Body=b"", ServerSideEncryption="aws:kms")
    refused(["NotImplemented"], s3.put_bucket_versioning, VersioningConfiguration={"Status": "Enabled"})
    wrong = boto3.client("s3", endpoint_url=url, region_name="us-east-1", aws_access_key_id=access_key,
                         aws_secret_access_key="wrong-secret-key-of-some-length")
    refused(["SignatureDoesNotMatch"], wrong.list_objects_v2)
    nobody = boto3.client("s3", endpoint_url=url, region_name="us-east-1", aws_access_key_id="NOBODY",
                          aws_secret_access_key=secret_key)
    refused(["InvalidAccessKeyId"], nobody.list_objects_v2)


def deletes():
    everything = keys("")
    for start in range(0, len(everything), 20):
        names = [{"Key": PREFIX + key} for key in everything[start:start + 20]]
        answer = s3.delete_objects(Bucket=bucket, Delete={"Objects": names})
        assert len(answer["Deleted"]) == len(names) and "Errors" not in answer, answer
    assert keys("") == []
    if kind == "made":
        put("left", b"")
        refused(["BucketNotEmpty"], s3.delete_bucket)
        s3.delete_object(Bucket=bucket, Key=PREFIX + "left")
        s3.delete_bucket(Bucket=bucket)
        refused(["404"], s3.head_bucket)


for step in [buckets, objects, odd_keys, big_objects, copies, conditions, uploads, presigned, tags, not_implemented,
             deletes]:
    step()
print("boto3: good")
