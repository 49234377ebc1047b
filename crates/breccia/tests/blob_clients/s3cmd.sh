#!/bin/sh
# s3cmd: URL ACCESS-KEY SECRET-KEY BUCKET KIND FOLDER, as in awscli.sh.
# The last line says that all steps were good.
set -eu
address=${1#http://} bucket=$4 kind=$5
cd "$6"
root=s3://$bucket/s3cmd
cat >config <<END
[default]
access_key = $2
secret_key = $3
host_base = $address
host_bucket = $address
use_https = False
bucket_location = us-east-1
END

s3() { s3cmd --config config --no-progress "$@"; }
fail() { echo "s3cmd: $*" >&2; exit 1; }
same() { [ "$2" = "$3" ] || fail "$1: wanted <$2>, got <$3>"; }

[ "$kind" = fixed ] || s3 mb "s3://$bucket"
s3 ls | grep -q "s3://$bucket\$" || fail "the bucket is not listed"

mkdir tree tree/inner
printf 'one' >tree/one
: >tree/empty
printf 'two' >'tree/inner/two words+ü&.txt'
head -c 12582912 /dev/urandom >big

s3 put tree/one "$root/one"
s3 put --multipart-chunk-size-mb=5 big "$root/big"
s3 get "$root/big" big.back
cmp big big.back
s3 put --multipart-chunk-size-mb=5 - "$root/stream" <big
s3 get "$root/stream" - | cmp - big
s3 info "$root/one" | grep -q 'File size: *3$' || fail "info tells another size"
s3 info "s3://$bucket" >/dev/null

# --delete-after and MD5s: the second run has nothing to move.
s3 sync tree/ "$root/tree/"
same "second sync" "" "$(s3cmd --config config --no-progress sync tree/ "$root/tree/" | grep upload: || true)"
mkdir tree.back
s3 sync "$root/tree/" tree.back/
diff -r tree tree.back
rm tree/empty
s3 sync --delete-removed tree/ "$root/tree/"
same "after a delete" 2 "$(s3 ls --recursive "$root/tree/" | wc -l | tr -d ' ')"
s3 ls "$root/" | grep -q "DIR *$root/tree/" || fail "no folder in ls"

s3 cp "$root/one" "$root/copy"
s3 cp --multipart-chunk-size-mb=5 "$root/big" "$root/big.copy"
s3 mv "$root/copy" "$root/moved"
same "after mv" "" "$(s3 ls "$root/copy")"
s3 get "$root/moved" moved
cmp moved tree/one
s3 modify --add-header=x-amz-meta-colour:green "$root/moved"
s3 info "$root/moved" | grep -q 'x-amz-meta-colour: green' || fail "the metadata is not told"
s3 settagging "$root/moved" 'a=b&c=d' 2>/dev/null || fail "no tags"
s3 du "$root/" >/dev/null
curl -fsS "$(s3 signurl "$root/one" +300)" | cmp - tree/one

s3 del "$root/one"
s3 del -r --force "$root/"
same "after del -r" "" "$(s3 ls --recursive "$root/")"
[ "$kind" = fixed ] || s3 rb "s3://$bucket"
echo "s3cmd: good"
