"""asyncpg as programs use it: its own prepared statements, cursors, COPY, pools, cancels."""

import asyncio
import os
import sys
from decimal import Decimal

import asyncpg

place = dict(
    host="127.0.0.1", port=int(sys.argv[1]), user="breccia", password="secret", database=sys.argv[2]
)


async def basics():
    c = await asyncpg.connect(**place)
    await c.execute("create table if not exists x (id serial primary key, v text)")
    for i in range(30):
        row = await c.fetchval("insert into x (v) values ($1) returning id", f"a{i}")
        assert await c.fetchval("select v from x where id = $1", row) == f"a{i}"
    async with c.transaction():
        total = 0
        async for row in c.cursor("select generate_series(1, 1000)"):
            total += row[0]
        assert total == 500500
    await c.copy_records_to_table("x", records=[(f"c{i}",) for i in range(1000)], columns=["v"])
    async with c.transaction(readonly=True):
        assert await c.fetchval("select count(*) from x") >= 1030
    async with c.transaction(isolation="repeatable_read", readonly=True):
        assert await c.fetchval("select count(*) from x") >= 1030
    await c.executemany("insert into x (v) values ($1)", [(f"m{i}",) for i in range(100)])
    assert await c.fetchval("select count(*) from x where v like 'm%'") >= 100
    await c.set_type_codec("json", encoder=str, decoder=str, schema="pg_catalog")
    assert await c.fetchval("select '{}'::json") == "{}"
    heard = asyncio.Queue()
    await c.add_listener("ch", lambda *words: heard.put_nowait(words[3]))
    await c.execute("notify ch, 'hi'")
    assert await asyncio.wait_for(heard.get(), 5) == "hi"
    await c.reset()
    await c.close()


async def without_cache():
    c = await asyncpg.connect(statement_cache_size=0, **place)
    for i in range(20):
        assert await c.fetchval("select $1::int + 1", i) == i + 1
    waits = asyncio.create_task(c.execute("select pg_sleep(5)"))
    await asyncio.sleep(0.3)
    waits.cancel()
    try:
        await waits
        raise AssertionError("not cancelled")
    except asyncio.CancelledError:
        pass
    assert await c.fetchval("select 7") == 7
    await c.close()


async def pools():
    pool = await asyncpg.create_pool(min_size=5, max_size=20, **place)

    async def work(k):
        for i in range(20):
            async with pool.acquire() as c:
                assert await c.fetchval("select $1::int", k * 100 + i) == k * 100 + i

    await asyncio.gather(*[work(k) for k in range(40)])
    await pool.close()


async def transactions():
    c = await asyncpg.connect(**place)
    async with c.transaction():
        await c.execute("insert into x (v) values ('kept')")
        for _ in range(8):
            try:
                async with c.transaction():
                    await c.execute("insert into x (v) values ('undone')")
                    await c.fetchval("select 1 / $1::int", 0)
            except asyncpg.DivisionByZeroError:
                pass
    count = "select count(*) from x where v = $1"
    assert await c.fetchval(count, "kept") == 1 and await c.fetchval(count, "undone") == 0
    await c.execute("delete from x where v = 'kept'")
    lasting = c.transaction()
    await lasting.start()
    try:
        await c.execute("select 1 / 0")
    except asyncpg.DivisionByZeroError:
        pass
    try:
        await c.fetchval("select 1")
        raise AssertionError("a failed transaction went on")
    except asyncpg.InFailedSQLTransactionError:
        pass
    await lasting.rollback()
    assert await c.fetchval("select 1") == 1
    await c.close()


async def kinds():
    c = await asyncpg.connect(**place)
    await c.execute("create type mood as enum ('sad', 'happy')")
    await c.execute("create table kinds (i int, b bytea, a int[], s text[], m mood, n numeric)")
    rows = [
        (i, b"\0\x01\xff'", [i, None], ["a,b", '"', ""], "happy", Decimal("1234567890.5"))
        for i in range(200)
    ]
    await c.executemany("insert into kinds values ($1, $2, $3, $4, $5, $6)", rows)
    await c.execute("insert into kinds values ($1, $2, $3, $4, $5, $6)", *[None] * 6)
    for i in range(0, 200, 20):
        assert tuple(await c.fetchrow("select * from kinds where i = $1", i)) == rows[i]
    assert tuple(await c.fetchrow("select * from kinds where i is null")) == (None,) * 6
    assert await c.fetchval("select count(*) from kinds where i = any($1)", [3, 5]) == 2
    # A statement kept by the driver whose table changes.
    for _ in range(3):
        await c.fetch("select * from kinds where i = 1")
    await c.execute("alter table kinds add column later int")
    assert len(await c.fetchrow("select * from kinds where i = 1")) == 7
    await c.execute("drop table kinds; drop type mood")
    big = os.urandom(20 << 20)
    assert await c.fetchval("select $1::bytea", big) == big
    await c.close()


async def own_things():
    c = await asyncpg.connect(server_settings={"application_name": "zork", "work_mem": "6MB"}, **place)
    other = await asyncpg.connect(**place)
    for _ in range(5):
        assert await c.fetchval("select current_setting('work_mem')") == "6MB"
        assert await other.fetchval("select current_setting('work_mem')") == "4MB"
        assert await c.fetchval("show application_name") == "zork"
    await c.execute("create temp table mine as select 5 as a")
    assert await c.fetchval("select a from mine") == 5
    try:
        await other.fetchval("select a from mine")
        raise AssertionError("another's temp table")
    except asyncpg.UndefinedTableError:
        pass
    assert await c.fetchval("select pg_try_advisory_lock(79)")
    assert not await other.fetchval("select pg_try_advisory_lock(79)")
    told = []
    c.add_log_listener(lambda _, message: told.append(message.message))
    await c.execute("do $$ begin raise notice 'look here'; end $$")
    await asyncio.sleep(0)
    assert told == ["look here"], told
    await c.reset()
    assert await c.fetchval("show work_mem") == "6MB"
    assert await other.fetchval("select pg_try_advisory_lock(79)")
    try:
        await c.fetchval("select pg_sleep(5)", timeout=0.2)
        raise AssertionError("no timeout")
    except asyncio.TimeoutError:
        pass
    assert await c.fetchval("select 8") == 8
    await c.close()
    await other.close()


async def ends():
    c = await asyncpg.connect(**place)
    try:
        await c.execute("select pg_terminate_backend(pg_backend_pid())")
        raise AssertionError("its server lived on")
    except (asyncpg.AdminShutdownError, asyncpg.ConnectionDoesNotExistError):
        pass
    for i in range(10):
        c = await asyncpg.connect(**place)
        await c.execute("begin; insert into x (v) values ('left')")
        async for row in c.cursor("select generate_series(1, 100000)", prefetch=10):
            break
        if i % 2:
            c.terminate()
        else:
            await c.close()
    c = await asyncpg.connect(**place)
    assert await c.fetchval("select count(*) from x where v = 'left'") == 0
    await c.close()


for work in [basics, without_cache, pools, transactions, kinds, own_things, ends]:
    print(work.__name__)
    asyncio.run(work())
print("all good")
