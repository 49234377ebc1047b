"""psycopg 3 as programs use it: sync, async, pipelines, cursors, COPY, prepared statements, cancels."""

import asyncio
import datetime
import os
import sys
import threading
import time
from decimal import Decimal

import psycopg
from psycopg.types.json import Jsonb

port, database = sys.argv[1], sys.argv[2]
dsn = f"host=127.0.0.1 port={port} user=breccia password=secret dbname={database}"


def connect(**more):
    return psycopg.connect(dsn, autocommit=True, **more)


def basics():
    with connect() as c:
        c.execute("create table if not exists x (id serial primary key, v text)")
        for i in range(50):
            row = c.execute("insert into x (v) values (%s) returning id", (f"v{i}",)).fetchone()
            assert c.execute("select v from x where id = %s", row).fetchone() == (f"v{i}",), i
        with c.transaction():
            c.execute("insert into x (v) values ('t')")
            with c.transaction():
                c.execute("select count(*) from x")
        try:
            with c.transaction():
                c.execute("insert into x (v) values ('gone')")
                c.execute("select 1/0")
        except psycopg.errors.DivisionByZero:
            pass
        assert c.execute("select count(*) from x where v = 'gone'").fetchone() == (0,)
        c.execute("set application_name to 'foo'")
        assert c.info.parameter_status("application_name") == "foo"
        assert c.execute("show application_name").fetchone() == ("foo",)


def pipelines():
    with connect() as c:
        with c.pipeline():
            sent = [
                c.execute("insert into x (v) values (%s) returning id", (f"p{i}",))
                for i in range(100)
            ]
            counted = c.execute("select count(*) from x where v like 'p%'")
            assert len({cursor.fetchone() for cursor in sent}) == 100
            assert counted.fetchone()[0] >= 100
        with c.pipeline() as p:
            a, b = c.execute("select 1"), c.execute("select 2")
            p.sync()
            d = c.execute("select 3")
            assert (a.fetchone(), b.fetchone(), d.fetchone()) == ((1,), (2,), (3,))
        try:
            with c.pipeline() as p:
                c.execute("select 1/0")
                c.execute("select 2")
                p.sync()
            raise AssertionError("no error in a pipeline")
        except psycopg.errors.DivisionByZero:
            pass
        assert c.execute("select 4").fetchone() == (4,)


def cursors():
    with psycopg.connect(dsn) as c:
        with c.cursor("srv") as cursor:
            cursor.execute("select generate_series(1, 5000)")
            assert sum(row[0] for row in cursor) == 5000 * 5001 // 2
        c.commit()
        with c.cursor("hold", withhold=True) as cursor:
            cursor.execute("select generate_series(1, 100)")
            c.commit()
            assert len(cursor.fetchall()) == 100


def copies():
    with psycopg.connect(dsn) as c:
        c.execute("create temp table ct (a int, b text)")
        with c.cursor().copy("copy ct from stdin") as copy:
            for i in range(20000):
                copy.write_row((i, "x" * 50))
        assert c.execute("select count(*) from ct").fetchone() == (20000,)
        with c.cursor().copy("copy ct to stdout") as copy:
            assert sum(1 for _ in copy.rows()) == 20000
        c.commit()
        try:
            with c.cursor().copy("copy ct from stdin") as copy:
                copy.write("bad\n")
        except psycopg.Error:
            c.rollback()
        try:
            with c.cursor().copy("copy ct from stdin"):
                raise KeyError("the program gives up")
        except KeyError:
            c.rollback()
        assert c.execute("select 1").fetchone() == (1,)


def prepared():
    with connect(prepare_threshold=1) as c:
        c.prepared_max = 3
        for r in range(5):
            for i in range(10):
                assert c.execute(f"select {i}, %s::int", (r,)).fetchone() == (i, r)
        c.execute("create table if not exists changes (a int)")
        c.execute("insert into changes values (1)")
        for _ in range(5):
            c.execute("select * from changes")
        c.execute("alter table changes add column b int")
        try:
            c.execute("select * from changes")
        except psycopg.errors.FeatureNotSupported:
            pass  # The server's own answer when a plan changes its columns.
        c.execute("drop table changes")
        c.execute("prepare q as select 5")
        assert c.execute("execute q", prepare=False).fetchone() == (5,)
        c.execute("deallocate q")
        c.execute("deallocate all")


def cancels():
    c = connect()
    for _ in range(3):
        threading.Timer(0.3, c.cancel_safe).start()
        begun = time.time()
        try:
            c.execute("select pg_sleep(10)")
            raise AssertionError("not cancelled")
        except psycopg.errors.QueryCanceled:
            pass
        assert time.time() - begun < 3
        assert c.execute("select 1").fetchone() == (1,)
    c.close()


def large():
    with connect() as c:
        b = os.urandom(20 << 20)
        assert c.execute("select length(%s::bytea)", (b,)).fetchone() == (len(b),)
        assert c.execute("select %s::bytea", (b,), binary=True).fetchone() == (b,)
        assert len(c.execute("select repeat('x', 30000000)").fetchone()[0]) == 30000000
        assert len(c.execute("select '" + "y" * 3000000 + "'").fetchone()[0]) == 3000000


def refusals():
    for wrong, text in [("secret", "password authentication failed"), (database, "does not exist")]:
        try:
            psycopg.connect(dsn.replace(wrong, "wrong"))
            raise AssertionError("let in")
        except psycopg.OperationalError as e:
            assert text in str(e), e


def startup():
    options = "-c statement_timeout=1234ms -c search_path=pg_catalog"
    with connect(options=options, application_name="zork", client_encoding="LATIN1") as c:
        assert c.execute("show statement_timeout").fetchone() == ("1234ms",)
        assert c.execute("show application_name").fetchone() == ("zork",)
        assert c.info.parameter_status("client_encoding") == "LATIN1"
    with connect() as c:
        assert c.execute("show statement_timeout").fetchone() == ("0",)
        c.execute("select set_config('work_mem', '7MB', false)")
        assert c.execute("show work_mem").fetchone() == ("7MB",)
        c.execute("discard all")
        assert c.execute("show work_mem").fetchone() == ("4MB",)


def kinds():
    with connect() as c:
        c.execute("create table kinds (i int, b bytea, j jsonb, a int[], s text[], d date, n numeric)")
        rows = [
            (i, b"\0\x01\xff'\\", Jsonb({"a": [1, None, "x"]}), [i, None], ["a,b", '"', ""],
             datetime.date(2026, 1, 2), Decimal("12345678901234567890.5"))
            for i in range(200)
        ]
        with c.cursor() as cursor:
            cursor.executemany("insert into kinds values (%s, %s, %s, %s, %s, %s, %s)", rows)
            cursor.execute("insert into kinds values (%s, %s, %s, %s, %s, %s, %s)", (None,) * 7)
        for binary in [False, True]:
            for i in range(0, 200, 20):
                found = c.execute(
                    "select * from kinds where i = %s", (i,), binary=binary
                ).fetchone()
                assert found[0:2] == rows[i][0:2] and found[3:] == rows[i][3:], found
                assert found[2] == {"a": [1, None, "x"]}
            assert c.execute("select * from kinds where i is null").fetchone() == (None,) * 7
        some = c.execute("select count(*) from kinds where i = any(%s)", ([3, 5],)).fetchone()
        assert some == (2,)
        c.execute("drop table kinds")


def notices():
    with connect() as heard, connect() as said:
        heard.execute("listen ch")
        for i in range(5):
            said.execute("select pg_notify('ch', %s)", (f"message {i}",))
            found = list(heard.notifies(timeout=5, stop_after=1))
            assert [n.payload for n in found] == [f"message {i}"], found
        told = []
        said.add_notice_handler(lambda d: told.append(d.message_primary))
        said.execute("do $$ begin raise notice 'look here'; end $$")
        assert told == ["look here"], told


def own_things():
    with connect() as c, connect() as other:
        c.execute("create temp table mine as select 5 as a")
        assert c.execute("select a from mine").fetchone() == (5,)
        try:
            other.execute("select a from mine")
            raise AssertionError("another's temp table")
        except psycopg.errors.UndefinedTable:
            pass
        lock = "select pg_try_advisory_lock(78)"
        assert c.execute(lock).fetchone() == (True,)
        assert other.execute(lock).fetchone() == (False,)
        assert c.execute("select pg_advisory_unlock(78)").fetchone() == (True,)
        c.execute("set statement_timeout = 400")
        for _ in range(3):
            try:
                c.execute("select pg_sleep(10)")
                raise AssertionError("no timeout")
            except psycopg.errors.QueryCanceled:
                pass
            assert c.execute("select 1").fetchone() == (1,)
        c.execute("discard all")
        assert c.execute("show statement_timeout").fetchone() == ("0",)
    # A pipeline in which the driver lets go of what it has prepared, and prepares again.
    with connect(prepare_threshold=0) as c:
        for i in range(5):
            assert c.execute("select %s::int", (i,)).fetchone() == (i,)
        with c.pipeline():
            c.execute("begin")
            a = c.execute("select %s::int", (7,))
            c.execute("rollback")
            b = c.execute("select %s::int", (8,))
            assert (a.fetchone(), b.fetchone()) == ((7,), (8,))
        assert c.execute("select %s::int", (9,)).fetchone() == (9,)


def two_phases():
    with psycopg.connect(dsn) as c:
        for end in ["commit", "rollback"]:
            xid = c.xid(1, f"{database} {port} {end}", "branch")
            c.tpc_begin(xid)
            c.execute("insert into x (v) values (%s)", (f"two {end}",))
            c.tpc_prepare()
            (c.tpc_commit if end == "commit" else c.tpc_rollback)()
        found = c.execute("select v from x where v like 'two %'").fetchall()
        assert found == [("two commit",)], found
        c.execute("delete from x where v = 'two commit'")


def ends():
    c = connect()
    try:
        c.execute("select pg_terminate_backend(pg_backend_pid())")
        raise AssertionError("its server lived on")
    except psycopg.OperationalError:
        pass
    for i in range(10):
        c = psycopg.connect(dsn)
        c.execute("insert into x (v) values ('left')")
        cursor = c.cursor("srv")
        cursor.execute("select generate_series(1, 100000)")
        assert cursor.fetchone() == (1,)
        if i % 2:
            c.pgconn.finish()
        else:
            c.close()
    with connect() as c:
        assert c.execute("select count(*) from x where v = 'left'").fetchone() == (0,)


async def asynchronous():
    c = await psycopg.AsyncConnection.connect(dsn, autocommit=True)
    for _ in range(20):
        row = await (await c.execute("insert into x (v) values ('a') returning id")).fetchone()
        found = await c.execute("select id from x where id = %s", row)
        assert await found.fetchone() == row
    async with c.pipeline():
        sent = [await c.execute("select %s::int", (i,)) for i in range(50)]
        assert [(await s.fetchone())[0] for s in sent] == list(range(50))
    waits = asyncio.create_task(c.execute("select pg_sleep(10)"))
    await asyncio.sleep(0.3)
    waits.cancel()
    try:
        await waits
    except (asyncio.CancelledError, psycopg.errors.QueryCanceled):
        pass
    await c.close()

    async def work(k):
        async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as c:
            for i in range(20):
                found = await c.execute("select %s::int", (k * 100 + i,))
                assert await found.fetchone() == (k * 100 + i,)

    await asyncio.gather(*[work(k) for k in range(16)])


for work in [
    basics, pipelines, cursors, copies, prepared, cancels, large, refusals, startup, kinds,
    notices, own_things, two_phases, ends,
]:
    print(work.__name__)
    work()
asyncio.run(asynchronous())
print("all good")
