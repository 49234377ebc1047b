"""psycopg2 as programs use it: transactions, read-only sessions, COPY, notifications."""

import io
import select
import sys

import psycopg2
import psycopg2.extensions

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

c.cancel()
c.close()
print("all good")
