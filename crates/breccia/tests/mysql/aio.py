"""aiomysql and asyncmy as programs use them: pools, transactions, streams. Prints what it sees.

Nothing printed differs from run to run, as in dbapi.py.
"""

import asyncio
import importlib
import sys

driver, port, database = sys.argv[1], int(sys.argv[2]), sys.argv[3]
library = importlib.import_module(driver)
cursors = importlib.import_module(f"{driver}.cursors")


async def ask(c, sql, *parameters):
    async with c.cursor() as cursor:
        await cursor.execute(sql, parameters or None)
        found = await cursor.fetchall() if cursor.description else None
        return found and [tuple(row) for row in found], cursor.rowcount, cursor.lastrowid


async def worker(pool, number):
    for i in range(20):
        async with pool.acquire() as c:
            _, _, identity = await ask(c, "insert into a (w, v) values (%s, %s)", number, f"{number}-{i}")
            found = await ask(c, "select w, v from a where id = %s", identity)
            assert list(found[0]) == [(number, f"{number}-{i}")], found
    return number


async def main():
    pool = await library.create_pool(
        host="127.0.0.1", port=port, user="breccia", password="secret", db=database,
        minsize=1, maxsize=8, autocommit=True, charset="utf8mb4",
    )
    async with pool.acquire() as c:
        await ask(c, "drop table if exists a")
        await ask(c, "create table a (id int auto_increment primary key, w int, v varchar(50)) default charset utf8mb4")
    print("workers", sorted(await asyncio.gather(*(worker(pool, n) for n in range(8)))))
    async with pool.acquire() as c:
        print("rows", (await ask(c, "select count(*), count(distinct v), min(w), max(w) from a"))[0])
        await c.begin()
        await ask(c, "insert into a (v) values ('gone')")
        await c.rollback()
        await c.begin()
        await ask(c, "insert into a (v) values ('kept ☃')")
        await c.commit()
        print("kept", (await ask(c, "select v from a where w is null"))[0])
        async with c.cursor(cursors.SSCursor) as cursor:
            await cursor.execute("select seq from seq_1_to_5000")
            total = 0
            while row := await cursor.fetchone():
                total += row[0]
            print("streamed", total)
        async with c.cursor(cursors.DictCursor) as cursor:
            await cursor.execute("select 1 as one, null as two, 'x' as three")
            print("named", await cursor.fetchone())
        async with c.cursor() as cursor:
            count = await cursor.executemany(
                "insert into a (w, v) values (%s, %s)", [(100 + n, f"m{n}") for n in range(50)]
            )
            print("many", count)
        try:
            await ask(c, "select * from nothing_like_it")
        except Exception as error:
            print("error", error.args)
        print("after", (await ask(c, "select count(*) from a where w >= 100"))[0])
    pool.close()
    await pool.wait_closed()
    print("all good")


asyncio.run(main())
