"""asyncpg as programs use it: its own prepared statements, cursors, COPY, pools, cancels."""

import asyncio
import sys

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


asyncio.run(basics())
asyncio.run(without_cache())
asyncio.run(pools())
print("all good")
