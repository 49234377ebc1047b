# psql, pg_dump and pg_restore as people use them: meta commands, variables, \copy, cursors, errors.
set -eu
port=$1 database=$2
export PGHOST=127.0.0.1 PGPORT="$port" PGUSER=breccia PGPASSWORD=secret PGDATABASE="$database"
export PSQL_PAGER= LC_ALL=C.UTF-8
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# The last line that psql prints of its standard input must be the one given.
check() {
    found=$(psql -X -q -A -t -v ON_ERROR_STOP=1 "$@" | tail -n 1)
    [ "$found" = "$wanted" ] || { echo "$wanted expected, not $found" >&2; exit 1; }
}

wanted=2000
check <<'END'
CREATE TABLE IF NOT EXISTS x (id serial PRIMARY KEY, v text);
CREATE TABLE many (a int PRIMARY KEY, b text);
INSERT INTO many SELECT g, 'b' || g FROM generate_series(1, 2000) g;
SELECT count(*) FROM many;
END

# \gset, \gexec, \if, variables in three kinds of quotes, and a result taken in portions.
wanted="done 2000 many O'Reilly"
check <<'END'
\set FETCH_COUNT 100
SELECT * FROM many \g /dev/null
SELECT count(*) AS n, count(*) > 1000 AS enough FROM many \gset
\set name many
\set who 'O\'Reilly'
SELECT format('CREATE TEMP TABLE t%s (a int)', g) FROM generate_series(1, 3) g \gexec
INSERT INTO t3 VALUES (1);
\if :enough
SELECT 'done ' || :n || ' ' || relname || ' ' || :'who' FROM pg_class WHERE oid = :'name'::regclass;
\endif
END

# What a catalogue's meta commands ask.
for command in '\d' '\dt+' '\d+ many' '\df' '\dn' '\du' '\l' '\dp' '\dx' '\sf upper(text)' '\conninfo' '\encoding'; do
    psql -X -q -v ON_ERROR_STOP=1 -c "$command" > "$work/meta" 2> "$work/errors" || {
        cat "$work/errors" >&2
        exit 1
    }
done
psql -X -c '\d many' | grep -q 'many_pkey'

# Errors: each in a savepoint of psql's own, and a transaction that ends with one.
wanted=1
check -v ON_ERROR_STOP=0 -v ON_ERROR_ROLLBACK=on 2> "$work/errors" <<'END'
BEGIN;
INSERT INTO x (v) VALUES ('rolled on');
SELECT 1 / 0;
SELECT nothing FROM nowhere;
COMMIT;
SELECT count(*) FROM x WHERE v = 'rolled on';
END
[ "$(grep -c ERROR "$work/errors")" = 2 ]
psql -X -q -1 -v ON_ERROR_STOP=1 > "$work/out" 2>&1 <<'END' && { echo "no error" >&2; exit 1; }
INSERT INTO x (v) VALUES ('undone');
SELECT 1 / 0;
END
wanted=0
check -c "SELECT count(*) FROM x WHERE v = 'undone'"

# COPY by the client, both ways, with data in the script, and with an error in them.
psql -X -q -c "\\copy many TO '$work/many.csv' CSV HEADER"
[ "$(wc -l < "$work/many.csv")" = 2001 ]
wanted=2003
check <<END
CREATE TEMP TABLE again (LIKE many);
\\copy again FROM '$work/many.csv' CSV HEADER
COPY again FROM stdin;
2001	in the
2002	script
2003	itself
\\.
SELECT count(*) FROM again;
END
printf 'no number\tx\n' | psql -X -q -c 'COPY many FROM stdin' 2> "$work/errors" && exit 1
grep -q 22P02 "$work/errors" || grep -q 'invalid input syntax' "$work/errors"

# A new connection in the middle, settings, notifications and notices.
found=$(psql -X -q <<'END' 2>&1
SET work_mem = '6MB';
\c
LISTEN ch;
SELECT pg_notify('ch', 'hi');
DO $$ BEGIN RAISE NOTICE 'look here'; END $$;
SHOW work_mem;
END
)
for part in 'Asynchronous notification "ch" with payload "hi"' 'NOTICE:  look here' 4MB; do
    echo "$found" | grep -qF "$part" || { echo "no $part in $found" >&2; exit 1; }
done

# Interrupted as by a person at the keyboard.
begun=$(date +%s)
timeout -s INT 1 psql -X -q -c 'SELECT pg_sleep(30)' 2> "$work/errors" || true
grep -q 'canceling statement due to user request' "$work/errors"
[ $(($(date +%s) - begun)) -lt 10 ]

# A dump, whole and in parallel, is what it should be, and comes back.
pg_dump -Fd -j 3 -f "$work/dump" -t many
psql -X -q -c 'DROP TABLE many'
pg_restore -j 2 -d "$database" "$work/dump"
pg_dump -t many --data-only --inserts | grep -c '^INSERT INTO' | grep -qx 2000
psql -X -q -c 'DROP TABLE many'
echo "all good"
