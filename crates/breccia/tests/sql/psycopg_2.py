"""psycopg2 as programs use it: transactions, read-only sessions, COPY, notifications."""

import hashlib
import io
import select
import sys
import threading

import psycopg2
import psycopg2.extensions
from psycopg2.extras import Json, execute_values

port, database = sys.argv[1], sys.argv[2]
dsn = f"host=127.0.0.1 port={port} user=breccia password=secret dbname={database}"

c = psycopg2.connect(dsn)
cursor = c.cursor()
cursor.execute("create table if not exists x (id serial primary key, v text)")
c.commit()
for i in range(30):
    cursor.execute("insert into x (v) values ('p2') returning id")
    row = cursor.fetchone()
    c.commit()
    cursor.execute("select v from x where id = %s", row)
    assert cursor.fetchone() == ("p2",)
    c.rollback()

c.set_session(readonly=True, autocommit=True)
for i in range(10):
    cursor.execute("select count(*) from x")
    assert cursor.fetchone()[0] >= 30
try:
    cursor.execute("insert into x (v) values ('no')")
    raise AssertionError("a read-only session wrote")
except psycopg2.errors.ReadOnlySqlTransaction:
    pass
c.set_session(readonly=False, autocommit=True)
cursor.execute("insert into x (v) values ('yes')")
c.set_session(isolation_level="SERIALIZABLE", readonly=True, deferrable=True, autocommit=False)
cursor.execute("select count(*) from x")
c.rollback()
c.set_session(isolation_level="READ COMMITTED", readonly=False, deferrable=False, autocommit=True)

cursor.copy_expert("copy x (v) from stdin", io.StringIO("a\nb\n"))
out = io.StringIO()
cursor.copy_expert("copy (select v from x order by id desc limit 2) to stdout", out)
assert out.getvalue() == "b\na\n", out.getvalue()

listener = psycopg2.connect(dsn)
listener.set_isolation_level(psycopg2.extensions.ISOLATION_LEVEL_AUTOCOMMIT)
listener.cursor().execute("listen ch")
for i in range(5):
    cursor.execute(f"notify ch, 'message {i}'")
    assert select.select([listener], [], [], 5) != ([], [], []), "no notification"
    listener.poll()
    assert listener.notifies.pop(0).payload == f"message {i}"
cursor.execute("listen own; notify own, 'hi'")
c.poll()
assert c.notifies, "no notification of its own"

with psycopg2.connect(dsn) as named:
    with named.cursor("srv") as server:
        server.itersize = 100
        server.execute("select generate_series(1, 1000)")
        assert sum(row[0] for row in server) == 500500

# Transactions: errors, savepoints, and what is left when one ends in the middle.
c.autocommit = False
cursor.execute("insert into x (v) values ('kept')")
for i in range(5):
    cursor.execute("savepoint s")
    try:
        cursor.execute("insert into x (v) values ('undone'); select 1 / 0")
        raise AssertionError("no error")
    except psycopg2.errors.DivisionByZero:
        pass
    try:
        cursor.execute("select 1")
        raise AssertionError("a failed transaction went on")
    except psycopg2.errors.InFailedSqlTransaction:
        cursor.execute("rollback to savepoint s")
c.commit()
cursor.execute("select v, count(*) from x where v in ('kept', 'undone') group by v")
assert cursor.fetchall() == [("kept", 1)]
cursor.execute("delete from x where v = 'kept'")
c.commit()
for i in range(6):
    left = psycopg2.connect(dsn)
    left.cursor().execute("insert into x (v) values ('left')")
    if i % 2:
        left.close()
    del left
cursor.execute("select count(*) from x where v = 'left'")
assert cursor.fetchone() == (0,)
c.commit()

# Values of many kinds, and large ones.
c.autocommit = True
cursor.execute("create temp table kinds (i int, b bytea, j json, a int[], s text[])")
rows = [(i, b"\0\x01\xff'", Json({"a": [1, None]}), [i, -1], ["a,b", '"']) for i in range(300)]
execute_values(cursor, "insert into kinds values %s", rows, page_size=70)
cursor.execute("insert into kinds values (%s, %s, %s, %s, %s)", (None,) * 5)
cursor.execute("select * from kinds where i = 7")
row = cursor.fetchone()
assert (bytes(row[1]), row[2:]) == (rows[7][1], ({"a": [1, None]}, [7, -1], ["a,b", '"'])), row
cursor.execute("select * from kinds where i is null")
assert cursor.fetchone() == (None,) * 5
cursor.execute("select md5(%s::bytea), length(%s)", (b"\xff" * (20 << 20), "z" * (20 << 20)))
assert cursor.fetchone() == (hashlib.md5(b"\xff" * (20 << 20)).hexdigest(), 20 << 20)

# Cancels, timeouts, locks, notices, and a connection that its server ends.
for i in range(3):
    threading.Timer(0.3, c.cancel).start()
    try:
        cursor.execute("select pg_sleep(10)")
        raise AssertionError("not cancelled")
    except psycopg2.errors.QueryCanceled:
        pass
cursor.execute("set statement_timeout = 100")
try:
    cursor.execute("select pg_sleep(10)")
    raise AssertionError("no timeout")
except psycopg2.errors.QueryCanceled:
    pass
cursor.execute("reset statement_timeout")
other = psycopg2.connect(dsn, options="-c work_mem=6MB", application_name="zork")
other.autocommit = True
beside = other.cursor()
beside.execute("select current_setting('work_mem'), current_setting('application_name')")
assert beside.fetchone() == ("6MB", "zork")
cursor.execute("select pg_try_advisory_lock(80)")
beside.execute("select pg_try_advisory_lock(80)")
assert (cursor.fetchone(), beside.fetchone()) == ((True,), (False,))
beside.execute("do $$ begin raise notice 'look here'; end $$")
assert other.notices[-1].strip() == "NOTICE:  look here", other.notices
try:
    beside.execute("select pg_terminate_backend(pg_backend_pid())")
    raise AssertionError("its server lived on")
except (psycopg2.OperationalError, psycopg2.errors.AdminShutdown):
    pass
assert other.closed

c.cancel()
c.close()
print("all good")
