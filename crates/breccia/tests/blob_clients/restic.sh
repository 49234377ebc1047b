#!/bin/sh
# restic: URL ACCESS-KEY SECRET-KEY BUCKET KIND FOLDER, as in awscli.sh.
# The last line says that all steps were good.
set -eu
cd "$6"
export AWS_ACCESS_KEY_ID="$2" AWS_SECRET_ACCESS_KEY="$3" AWS_DEFAULT_REGION=us-east-1
# Where clients make buckets, init makes one.
export RESTIC_REPOSITORY="s3:$1/$4/restic" RESTIC_PASSWORD=password RESTIC_CACHE_DIR="$PWD/cache"

mkdir tree
for folder in a b c d e f; do
    mkdir "tree/$folder"
    for file in $(seq 50); do
        head -c "$((file * 37))" /dev/urandom >"tree/$folder/$file"
    done
done
head -c 25000000 /dev/urandom >tree/big
: >tree/empty

restic init --quiet
restic backup --quiet tree
restic check --quiet --read-data
restic restore --quiet latest --target back
diff -r tree back/tree
rm -r tree/a tree/big
head -c 3000000 /dev/urandom >tree/other
restic backup --quiet tree
restic forget --quiet --keep-last 1 --prune
restic check --quiet --read-data
rm -r back
restic restore --quiet latest --target back
diff -r tree back/tree
[ "$(restic snapshots --quiet --compact | grep -c "^[0-9a-f]\{8\} ")" = 1 ]
restic unlock --quiet
echo "restic: good"
