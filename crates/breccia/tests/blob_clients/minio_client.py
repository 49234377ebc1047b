"""minio: URL ACCESS-KEY SECRET-KEY BUCKET KIND FOLDER, as in awscli.sh. The last line says that all was good."""

import io
import os
import sys
import urllib.request
from datetime import timedelta

from minio import Minio
from minio.commonconfig import REPLACE, ComposeSource, CopySource, Tags
from minio.deleteobjects import DeleteObject
from minio.error import S3Error

url, access_key, secret_key, bucket, kind, folder = sys.argv[1:]
client = Minio(url.removeprefix("http://"), access_key=access_key, secret_key=secret_key, secure=False)
PREFIX = "minio/"
MIB = 1 << 20


def refused(code, call):
    try:
        call()
    except S3Error as error:
        assert error.code == code, error
    else:
        raise AssertionError(f"not refused with {code}")


def read(key, **arguments):
    answer = client.get_object(bucket, PREFIX + key, **arguments)
    try:
        return answer.read()
    finally:
        answer.close()
        answer.release_conn()


def buckets():
    assert client.bucket_exists(bucket) == (kind == "fixed")
    if kind == "made":
        client.make_bucket(bucket)
    assert client.bucket_exists(bucket)
    assert bucket in [item.name for item in client.list_buckets()]
    assert not client.bucket_exists("no-such-bucket-here")


def objects():
    for size in [0, 1, 300_000]:
        body = os.urandom(size)
        client.put_object(bucket, f"{PREFIX}size/{size}", io.BytesIO(body), size, content_type="a/b",
                          metadata={"Colour": "green"})
        assert read(f"size/{size}") == body
        stat = client.stat_object(bucket, f"{PREFIX}size/{size}")
        assert (stat.size, stat.content_type, stat.metadata["x-amz-meta-colour"]) == (size, "a/b", "green"), stat
    body = os.urandom(11 * MIB)
    client.put_object(bucket, PREFIX + "parts", io.BytesIO(body), len(body), part_size=5 * MIB)
    assert client.stat_object(bucket, PREFIX + "parts").etag.endswith("-3")
    client.put_object(bucket, PREFIX + "stream", io.BytesIO(body), -1, part_size=5 * MIB)
    client.put_object(bucket, PREFIX + "short stream", io.BytesIO(b"short"), -1, part_size=5 * MIB)
    assert read("parts") == body and read("stream") == body and read("short stream") == b"short"
    assert read("parts", offset=5 * MIB - 2, length=4) == body[5 * MIB - 2:5 * MIB + 2]
    assert read("parts", offset=11 * MIB - 3) == body[-3:]
    path = os.path.join(folder, "file")
    client.fget_object(bucket, PREFIX + "parts", path)
    with open(path, "rb") as file:
        assert file.read() == body
    client.fput_object(bucket, PREFIX + "file", path, part_size=5 * MIB)
    assert read("file") == body
    refused("NoSuchKey", lambda: read("none"))
    refused("NoSuchKey", lambda: client.stat_object(bucket, PREFIX + "none"))
    refused("NoSuchBucket", lambda: client.get_object("no-such-bucket-here", "none"))


def lists():
    for key in ["a", "b/1", "b/2", "c ü/3"]:
        client.put_object(bucket, f"{PREFIX}list/{key}", io.BytesIO(b"x"), 1)
    prefix = PREFIX + "list/"

    def names(**arguments):
        found = client.list_objects(bucket, prefix=prefix, **arguments)
        return [item.object_name.removeprefix(prefix) for item in found]

    assert names() == ["a", "b/", "c ü/"] or sorted(names()) == ["a", "b/", "c ü/"], names()
    assert names(recursive=True) == ["a", "b/1", "b/2", "c ü/3"]
    assert names(recursive=True, use_api_v1=True) == ["a", "b/1", "b/2", "c ü/3"]
    assert names(recursive=True, start_after=prefix + "b/1") == ["b/2", "c ü/3"]


def copies():
    client.copy_object(bucket, PREFIX + "copy", CopySource(bucket, PREFIX + "size/1"))
    assert read("copy") == read("size/1")
    client.copy_object(bucket, PREFIX + "copy", CopySource(bucket, PREFIX + "size/1"),
                       metadata={"Colour": "red"}, metadata_directive=REPLACE)
    assert client.stat_object(bucket, PREFIX + "copy").metadata["x-amz-meta-colour"] == "red"
    client.compose_object(bucket, PREFIX + "composed", [
        ComposeSource(bucket, PREFIX + "parts"),
        ComposeSource(bucket, PREFIX + "parts", offset=2, length=6 * MIB),
        ComposeSource(bucket, PREFIX + "size/1"),
    ])
    body = read("parts")
    assert read("composed") == body + body[2:6 * MIB + 2] + read("size/1")


def presigned():
    address = client.presigned_put_object(bucket, PREFIX + "signed ü", expires=timedelta(minutes=5))
    request = urllib.request.Request(address, data=b"by url", method="PUT")
    urllib.request.urlopen(request, timeout=60).close()
    with urllib.request.urlopen(client.presigned_get_object(bucket, PREFIX + "signed ü"), timeout=60) as answer:
        assert answer.read() == b"by url"


def tags():
    wanted = Tags.new_object_tags()
    wanted["a"] = "b c"
    client.put_object(bucket, PREFIX + "tagged", io.BytesIO(b"x"), 1, tags=wanted)
    assert client.get_object_tags(bucket, PREFIX + "tagged") == wanted
    wanted["d"] = "e"
    client.set_object_tags(bucket, PREFIX + "tagged", wanted)
    assert client.get_object_tags(bucket, PREFIX + "tagged") == wanted
    client.delete_object_tags(bucket, PREFIX + "tagged")
    assert client.get_object_tags(bucket, PREFIX + "tagged") is None


def deletes():
    client.remove_object(bucket, PREFIX + "copy")
    found = client.list_objects(bucket, prefix=PREFIX, recursive=True)
    names = [DeleteObject(item.object_name) for item in found]
    assert len(names) > 10
    assert list(client.remove_objects(bucket, names)) == []
    assert list(client.list_objects(bucket, prefix=PREFIX, recursive=True)) == []
    if kind == "made":
        client.remove_bucket(bucket)
        assert not client.bucket_exists(bucket)


for step in [buckets, objects, lists, copies, presigned, tags, deletes]:
    step()
print("minio: good")
