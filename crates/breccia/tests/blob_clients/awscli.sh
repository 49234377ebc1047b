#!/bin/sh
# awscli: URL ACCESS-KEY SECRET-KEY BUCKET KIND FOLDER. KIND is `fixed` (the bucket is there, and stays) or
# `made` (clients make and remove buckets). PYTHON names the interpreter that has awscli.
# Every step ends the script when it goes wrong; the last line says that all were good.
set -eu
url=$1 bucket=$4 kind=$5
export AWS_ACCESS_KEY_ID="$2" AWS_SECRET_ACCESS_KEY="$3" AWS_DEFAULT_REGION=us-east-1
export AWS_EC2_METADATA_DISABLED=true AWS_CONFIG_FILE=/dev/null AWS_SHARED_CREDENTIALS_FILE=/dev/null
cd "$6"
root=s3://$bucket/awscli

aws() { "$PYTHON" -m awscli --endpoint-url "$url" --output text "$@"; }
api() { aws s3api "$@"; }
object() { call=$1; shift; api "$call" --bucket "$bucket" "$@"; }
fail() { echo "awscli: $*" >&2; exit 1; }
same() { [ "$2" = "$3" ] || fail "$1: wanted <$2>, got <$3>"; }
refused() { # WANTED-WORDS call…: it must fail, and say one of the words
    wanted=$1; shift
    if said=$("$@" 2>&1); then fail "not refused: $*"; fi
    echo "$said" | grep -Eq "$wanted" || fail "refused otherwise than $wanted: $said"
}

# Buckets.
if [ "$kind" = made ]; then
    aws s3 mb "s3://$bucket"
    aws s3 ls | grep -q " $bucket\$" || fail "the new bucket is not listed"
fi
same location None "$(object get-bucket-location)"
object head-bucket >/dev/null

# cp, small, of two parts and more, and as a stream.
mkdir tree tree/inner
printf 'one' >tree/one
printf 'two' >'tree/inner/two words+ü&.txt'
head -c 20971520 /dev/urandom >big
aws s3 cp --no-progress tree/one "$root/one"
aws s3 cp --no-progress big "$root/big"
aws s3 cp --no-progress "$root/big" big.back
cmp big big.back
etag=$(object head-object --key awscli/big --query ETag)
case $etag in *-3\") ;; *) fail "20 MiB in parts of 8 MiB have the ETag $etag" ;; esac
aws s3 cp --no-progress - "$root/stream" <big
aws s3 cp --no-progress "$root/stream" - | cmp - big
aws s3 cp --no-progress "$root/big" "$root/big.copy"
same "copied size" 20971520 "$(object head-object --key awscli/big.copy --query ContentLength)"

# sync both ways, and nothing to do the second time.
aws s3 sync --no-progress tree "$root/tree" >/dev/null
same "second sync" "" "$(aws s3 sync --no-progress tree "$root/tree")"
aws s3 sync --no-progress "$root/tree" tree.back >/dev/null
diff -r tree tree.back
rm 'tree/inner/two words+ü&.txt'
aws s3 sync --no-progress --delete tree "$root/tree" >/dev/null
same "after sync --delete" 1 "$(aws s3 ls --recursive "$root/tree/" | wc -l | tr -d ' ')"
aws s3 ls "$root/" | grep -q 'PRE tree/' || fail "no common prefix in ls"

# put-object with each checksum, and what is told of it.
for algorithm in CRC32 CRC32C CRC64NVME SHA1 SHA256; do
    object put-object --key "awscli/sum/$algorithm" --body tree/one \
        --checksum-algorithm "$algorithm" >/dev/null
    sum=$(object head-object --key "awscli/sum/$algorithm" --checksum-mode ENABLED \
        --query "Checksum$algorithm")
    [ "$sum" != None ] || fail "no checksum $algorithm"
    object get-object --key "awscli/sum/$algorithm" --checksum-mode ENABLED got >/dev/null
    cmp tree/one got
done
refused 'BadDigest' object put-object --key awscli/bad --body tree/one \
    --checksum-sha256 AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=
refused '404|NoSuchKey' object head-object --key awscli/bad

# Ranges, metadata, copies.
object get-object --key awscli/one --range bytes=1-1 got >/dev/null
same range n "$(cat got)"
object copy-object --key awscli/copy --copy-source "$bucket/awscli/one" \
    --metadata-directive REPLACE --metadata colour=green --content-type text/x-test >/dev/null
same "metadata of the copy" "green	text/x-test" \
    "$(object head-object --key awscli/copy --query '[Metadata.colour,ContentType]')"

# Pages.
same "keys over pages of two" "CRC32 CRC32C CRC64NVME SHA1 SHA256" "$(object list-objects-v2 \
    --prefix awscli/sum/ --page-size 2 --query 'Contents[].Key' |
    tr '\t' '\n' | sed '/^None$/d; s,.*/,,' | paste -s -d ' ')"
same "one page of two" "True	2" \
    "$(object list-objects-v2 --prefix awscli/sum/ --no-paginate --max-keys 2 --query '[IsTruncated,KeyCount]')"

# Tags.
object put-object-tagging --key awscli/one --tagging 'TagSet=[{Key=a,Value=b c}]'
same tag "a	b c" "$(object get-object-tagging --key awscli/one --query 'TagSet[].[Key,Value]')"
object delete-object-tagging --key awscli/one
same "no tag" "" "$(object get-object-tagging --key awscli/one --query 'TagSet[].[Key,Value]')"

# Multipart by hand, with an upload that is given up.
head -c 5242880 big >part.1
id=$(object create-multipart-upload --key awscli/parts --query UploadId)
first=$(object upload-part --key awscli/parts --upload-id "$id" --part-number 1 --body part.1 --query ETag)
second=$(object upload-part --key awscli/parts --upload-id "$id" --part-number 2 --body tree/one --query ETag)
same parts "1	5242880
2	3" "$(object list-parts --key awscli/parts --upload-id "$id" --query 'Parts[].[PartNumber,Size]')"
object list-multipart-uploads --prefix awscli/ --query 'Uploads[].Key' | grep -q awscli/parts ||
    fail "the upload is not listed"
object complete-multipart-upload --key awscli/parts --upload-id "$id" --multipart-upload \
    "{\"Parts\":[{\"PartNumber\":1,\"ETag\":$first},{\"PartNumber\":2,\"ETag\":$second}]}" >/dev/null
object get-object --key awscli/parts got >/dev/null
cat part.1 tree/one | cmp - got
id=$(object create-multipart-upload --key awscli/parts --query UploadId)
object upload-part-copy --key awscli/parts --upload-id "$id" --part-number 1 \
    --copy-source "$bucket/awscli/big" --copy-source-range bytes=0-5242879 >/dev/null
object abort-multipart-upload --key awscli/parts --upload-id "$id"
refused NoSuchUpload object list-parts --key awscli/parts --upload-id "$id"

# A condition: where one shard's server ignores it, 501 says so.
refused 'PreconditionFailed|NotImplemented' \
    object put-object --key awscli/one --body tree/one --if-none-match '*'

# Presigned.
curl -fsS "$(aws s3 presign "$root/one")" | cmp - tree/one
refused 403 curl -fsS "$(aws s3 presign "$root/one")x"

# Deletes.
same deleted "awscli/copy
awscli/none" "$(object delete-objects --delete 'Objects=[{Key=awscli/copy},{Key=awscli/none}]' \
    --query 'Deleted[].[Key]' | sort)"
aws s3 rm --recursive "$root/" >/dev/null
same "after rm" "" "$(aws s3 ls --recursive "$root/" || true)"
if [ "$kind" = made ]; then
    aws s3 rb "s3://$bucket"
    refused NoSuchBucket object list-objects-v2
fi
echo "awscli: good"
