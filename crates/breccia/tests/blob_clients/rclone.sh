#!/bin/sh
# rclone: URL ACCESS-KEY SECRET-KEY BUCKET KIND FOLDER, as in awscli.sh.
# The last line says that all steps were good.
set -eu
bucket=$4 kind=$5
cd "$6"
: >rclone.conf
export RCLONE_CONFIG="$PWD/rclone.conf" RCLONE_CONFIG_GATE_TYPE=s3 RCLONE_CONFIG_GATE_ENDPOINT="$1"
export RCLONE_CONFIG_GATE_ACCESS_KEY_ID="$2" RCLONE_CONFIG_GATE_SECRET_ACCESS_KEY="$3"
export RCLONE_RETRIES=1 RCLONE_LOW_LEVEL_RETRIES=1 RCLONE_S3_CHUNK_SIZE=5M RCLONE_S3_UPLOAD_CUTOFF=5M
export RCLONE_S3_COPY_CUTOFF=5M

fail() { echo "rclone: $*" >&2; exit 1; }
same() { [ "$2" = "$3" ] || fail "$1: wanted <$2>, got <$3>"; }

mkdir tree tree/inner
printf 'one' >tree/one
: >tree/empty
printf 'two' >'tree/inner/two words+ü&.txt'
head -c 12582912 /dev/urandom >tree/big

for provider in Other Ceph; do
    export RCLONE_CONFIG_GATE_PROVIDER=$provider
    root=gate:$bucket/rclone-$provider
    [ "$kind" = fixed ] || rclone mkdir "gate:$bucket"
    rclone lsd gate: | grep -q " $bucket\$" || fail "$provider: the bucket is not listed"
    rclone sync tree "$root/tree"
    rclone check tree "$root/tree"
    rclone check --download tree "$root/tree"
    same "$provider: lsf" "big
empty
inner/
inner/two words+ü&.txt
one" "$(rclone lsf -R "$root/tree" | LC_ALL=C sort)"
    same "$provider: cat" ne "$(rclone cat --offset 1 "$root/tree/one")"
    rclone copy "$root/tree" back-$provider
    diff -r tree back-$provider
    rclone copyto "$root/tree/big" "$root/copy/big"
    rclone cat "$root/copy/big" | cmp - tree/big
    rclone moveto "$root/copy/big" "$root/moved/big"
    same "$provider: after moveto" "" "$(rclone lsf "$root/copy" 2>/dev/null || true)"
    printf 'from a pipe' | rclone rcat "$root/piped"
    same "$provider: rcat" 'from a pipe' "$(rclone cat "$root/piped")"
    touch -d '2001-02-03T04:05:06Z' tree/one
    rclone sync tree "$root/tree"
    same "$provider: time" 2001-02-03 "$(TZ=UTC rclone lsf --format t "$root/tree/one" | cut -d' ' -f1)"
    rclone delete --rmdirs "$root/moved"
    rclone size "$root" | grep -q 'Total objects: 5' || fail "$provider: $(rclone size "$root")"
    if [ "$kind" = fixed ]; then
        rclone purge "$root"
        same "$provider: after purge" "" "$(rclone lsf "$root" 2>/dev/null || true)"
    else
        rclone delete "gate:$bucket"
        rclone rmdir "gate:$bucket"
    fi
done
echo "rclone: good"
