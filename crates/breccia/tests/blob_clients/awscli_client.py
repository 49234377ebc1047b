"""awscli: URL ACCESS-KEY SECRET-KEY BUCKET KIND, in an empty folder. The last line says that all was good.

KIND is `fixed` (the bucket is there, and stays) or `made` (clients make and remove buckets). The commands run in
one process, since a start of awscli takes longer than what it does; its standard streams are files here.
"""

import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

url, access_key, secret_key, bucket, kind = sys.argv[1:]
os.environ |= {
    "AWS_ACCESS_KEY_ID": access_key,
    "AWS_SECRET_ACCESS_KEY": secret_key,
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}

from awscli.clidriver import create_clidriver  # noqa: E402 (reads the environment)

driver = create_clidriver()
root = f"s3://{bucket}/awscli"


def run(arguments, given=b""):
    """Status, standard output and standard error of one command."""
    Path("stdin").write_bytes(given)
    kept = [os.dup(number) for number in range(3)]
    try:
        for number, name, flags in [(0, "stdin", os.O_RDONLY), (1, "stdout", os.O_CREAT | os.O_TRUNC | os.O_WRONLY),
                                    (2, "stderr", os.O_CREAT | os.O_TRUNC | os.O_WRONLY)]:
            file = os.open(name, flags, 0o600)
            os.dup2(file, number)
            os.close(file)
        try:
            status = driver.main(["--endpoint-url", url, *arguments])
        except SystemExit as end:
            status = end.code
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        for number, file in enumerate(kept):
            os.dup2(file, number)
            os.close(file)
    return status, Path("stdout").read_bytes(), Path("stderr").read_text()


def aws(*arguments, given=b""):
    status, out, error = run(arguments, given)
    assert status == 0, f"{arguments}: {status}\n{out[-2000:]!r}\n{error}"
    return out


def s3(*arguments, given=b""):
    return aws("s3", *arguments, given=given).decode()


def api(call, *arguments):
    out = aws("s3api", call, "--bucket", bucket, "--output", "json", *arguments)
    return json.loads(out) if out.strip() else {}


def refused(wanted, *arguments):
    status, out, error = run(arguments)
    assert status != 0, f"not refused: {arguments}: {out!r}"
    assert re.search(wanted, error), f"{arguments}: refused otherwise than {wanted}: {error}"


def listed(prefix):
    return [line.split(None, 3)[3] for line in s3("ls", "--recursive", f"{root}/{prefix}").splitlines()]


def same_trees(one, other):
    subprocess.run(["diff", "-r", one, other], check=True)


def buckets():
    if kind == "made":
        s3("mb", f"s3://{bucket}")
    # The program itself, once.
    command = [sys.executable, "-m", "awscli", "--endpoint-url", url, "s3", "ls"]
    assert f" {bucket}\n" in subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert api("get-bucket-location") == {"LocationConstraint": None}
    api("head-bucket")


def copies_of_files():
    Path("tree/inner").mkdir(parents=True)
    Path("tree/one").write_text("one")
    Path("tree/inner/two words+ü&.txt").write_text("two")
    body = os.urandom(20 << 20)
    Path("big").write_bytes(body)
    s3("cp", "tree/one", f"{root}/one")
    s3("cp", "--no-progress", "big", f"{root}/big")
    head = api("head-object", "--key", "awscli/big")
    assert head["ETag"].endswith('-3"') and head["ContentLength"] == len(body), head
    s3("cp", "--no-progress", f"{root}/big", "back")
    assert Path("back").read_bytes() == body
    s3("cp", "-", f"{root}/stream", given=body)
    assert aws("s3", "cp", f"{root}/stream", "-") == body
    s3("cp", "--no-progress", f"{root}/big", f"{root}/big.copy")
    assert api("head-object", "--key", "awscli/big.copy")["ContentLength"] == len(body)
    s3("mv", f"{root}/stream", f"{root}/moved")
    refused("404", "s3api", "head-object", "--bucket", bucket, "--key", "awscli/stream")


def sync():
    s3("sync", "tree", f"{root}/tree")
    assert s3("sync", "tree", f"{root}/tree") == ""
    s3("sync", f"{root}/tree", "tree.back")
    same_trees("tree", "tree.back")
    Path("tree/inner/two words+ü&.txt").unlink()
    s3("sync", "--delete", "tree", f"{root}/tree")
    assert listed("tree/") == ["awscli/tree/one"]
    assert "PRE tree/" in s3("ls", f"{root}/")


def checksums():
    for algorithm in ["CRC32", "CRC32C", "CRC64NVME", "SHA1", "SHA256"]:
        key = f"awscli/sum/{algorithm}"
        put = api("put-object", "--key", key, "--body", "tree/one", "--checksum-algorithm", algorithm)
        head = api("head-object", "--key", key, "--checksum-mode", "ENABLED")
        name = f"Checksum{algorithm}"
        # RGW 16 keeps none of them, and this one may be on the shard that is one.
        assert head.get(name, put[name]) == put[name], (put, head)
        got = api("get-object", "--key", key, "--checksum-mode", "ENABLED", "got")
        assert got.get(name, put[name]) == put[name] and Path("got").read_text() == "one"
    refused("BadDigest", "s3api", "put-object", "--bucket", bucket, "--key", "awscli/bad", "--body", "tree/one",
            "--checksum-sha256", "A" * 43 + "=")
    refused("404", "s3api", "head-object", "--bucket", bucket, "--key", "awscli/bad")


def objects():
    got = api("get-object", "--key", "awscli/one", "--range", "bytes=1-1", "got")
    assert (Path("got").read_text(), got["ContentRange"]) == ("n", "bytes 1-1/3")
    api("copy-object", "--key", "awscli/copy", "--copy-source", f"{bucket}/awscli/one", "--metadata-directive",
        "REPLACE", "--metadata", "colour=green", "--content-type", "text/x-test")
    head = api("head-object", "--key", "awscli/copy")
    assert (head["Metadata"], head["ContentType"]) == ({"colour": "green"}, "text/x-test"), head
    found = api("list-objects-v2", "--prefix", "awscli/sum/", "--page-size", "2")
    assert [item["Key"][11:] for item in found["Contents"]] == ["CRC32", "CRC32C", "CRC64NVME", "SHA1", "SHA256"]
    page = api("list-objects-v2", "--prefix", "awscli/sum/", "--no-paginate", "--max-keys", "2")
    assert page["IsTruncated"] and page["KeyCount"] == 2 and len(page["Contents"]) == 2, page
    tag = ["--key", "awscli/one"]
    api("put-object-tagging", *tag, "--tagging", "TagSet=[{Key=a,Value=b c}]")
    assert api("get-object-tagging", *tag)["TagSet"] == [{"Key": "a", "Value": "b c"}]
    api("delete-object-tagging", *tag)
    assert api("get-object-tagging", *tag)["TagSet"] == []
    # Where one shard's server ignores conditions, 501 says so.
    refused("PreconditionFailed|NotImplemented", "s3api", "put-object", "--bucket", bucket, *tag, "--body", "tree/one",
            "--if-none-match", "*")


def uploads():
    key = ["--key", "awscli/parts"]
    bodies = [os.urandom(5 << 20), b"tail"]
    upload = ["--upload-id", api("create-multipart-upload", *key)["UploadId"]]
    parts = []
    for number, body in enumerate(bodies, 1):
        Path("part").write_bytes(body)
        answer = api("upload-part", *key, *upload, "--part-number", str(number), "--body", "part")
        assert answer["ETag"] == f'"{hashlib.md5(body).hexdigest()}"'
        parts.append({"PartNumber": number, "ETag": answer["ETag"]})
    found = api("list-parts", *key, *upload)["Parts"]
    assert [(part["PartNumber"], part["Size"]) for part in found] == [(1, 5 << 20), (2, 4)], found
    found = api("list-multipart-uploads", "--prefix", "awscli/")["Uploads"]
    assert [item["Key"] for item in found] == ["awscli/parts"], found
    api("complete-multipart-upload", *key, *upload, "--multipart-upload", json.dumps({"Parts": parts}))
    api("get-object", *key, "got")
    assert Path("got").read_bytes() == b"".join(bodies)
    upload = ["--upload-id", api("create-multipart-upload", *key)["UploadId"]]
    api("upload-part-copy", *key, *upload, "--part-number", "1", "--copy-source", f"{bucket}/awscli/big",
        "--copy-source-range", "bytes=0-5242879")
    api("abort-multipart-upload", *key, *upload)
    refused("NoSuchUpload", "s3api", "list-parts", "--bucket", bucket, *key, *upload)


def presigned():
    """awscli 1 presigns with version 2 unless it is told otherwise; that one is refused."""
    old = s3("presign", f"{root}/one").strip()
    told = subprocess.run(["curl", "-sS", old], check=True, capture_output=True, text=True).stdout
    assert "AWS4-HMAC-SHA256" in told, told
    Path("config").write_text("[default]\ns3 =\n  signature_version = s3v4\n")
    command = [sys.executable, "-m", "awscli", "--endpoint-url", url, "s3", "presign", f"{root}/one"]
    environment = {**os.environ, "AWS_CONFIG_FILE": "config"}
    new = subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout.strip()
    assert subprocess.run(["curl", "-fsS", new], check=True, capture_output=True).stdout == b"one"
    assert subprocess.run(["curl", "-fsS", new + "x"], capture_output=True).returncode == 22


def deletes():
    answer = api("delete-objects", "--delete", "Objects=[{Key=awscli/copy},{Key=awscli/none}]")
    assert sorted(item["Key"] for item in answer["Deleted"]) == ["awscli/copy", "awscli/none"], answer
    s3("rm", "--recursive", f"{root}/")
    assert "Contents" not in api("list-objects-v2", "--prefix", "awscli/")
    if kind == "made":
        s3("rb", f"s3://{bucket}")
        refused("NoSuchBucket", "s3api", "list-objects-v2", "--bucket", bucket)


for step in [buckets, copies_of_files, sync, checksums, objects, uploads, presigned, deletes]:
    step()
print("awscli: good")
