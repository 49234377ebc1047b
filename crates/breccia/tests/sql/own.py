"""What Breccia shows of itself, as drivers ask: prepared, in transactions, in pipelines."""

import asyncio
import sys

import asyncpg
import psycopg

place = dict(host="127.0.0.1", port=int(sys.argv[1]), user="breccia", password="secret")
database = sys.argv[2]


def psycopg_asks():
    dsn = " ".join(f"{name}={value}" for name, value in place.items()) + f" dbname={database}"
    with psycopg.connect(dsn) as c:
        # Within the transaction that psycopg begins by itself.
        c.execute("insert into t (v) values ('a')")
        token = c.execute("show breccia.token").fetchone()[0]
        assert token.count(":") == 2, token
        c.commit()
        for prepare in (False, True, True):
            row = c.execute("show breccia.token", prepare=prepare).fetchone()
            assert row[0].count(":") == 2, row
            assert c.execute("select 1", prepare=prepare).fetchone() == (1,)
        with psycopg.ClientCursor(c) as cursor:
            cursor.execute("show breccia.servers")
            assert [column.name for column in cursor.description][:2] == ["server", "role"]
            assert len(cursor.fetchall()) == 3 and cursor.statusmessage == "SHOW"
        c.commit()
        try:
            c.execute("show breccia.nonsense", prepare=True)
            raise AssertionError("no error")
        except psycopg.errors.UndefinedObject as error:
            assert "breccia.servers" in error.diag.message_hint
        assert c.info.transaction_status == psycopg.pq.TransactionStatus.INERROR
        c.rollback()
        c.autocommit = True
        with c.pipeline() as p:
            token = c.execute("show breccia.token")
            p.sync()
            version = c.execute("show breccia.version")
            p.sync()
            assert token.fetchone() and version.fetchone()
        c.execute("set breccia.target = 'primary'", prepare=True)
        assert c.execute("show breccia.target", binary=True).fetchone() == ("primary",)
        c.execute("reset breccia.target")
        assert c.execute("show breccia.target").fetchone() == ("auto",)


async def asyncpg_asks():
    c = await asyncpg.connect(**place, database=database)
    for _ in range(3):
        assert (await c.fetchval("show breccia.token")).count(":") == 2
        assert await c.fetchval("select $1::int", 7) == 7
    async with c.transaction():
        await c.execute("insert into t (v) values ('b')")
        servers = await c.fetch("show breccia.servers")
        assert [row["server"] for row in servers] == ["pg0", "pg1", "pg2"], servers
        assert await c.execute("set breccia.target = 'primary'") == "SET"
        assert await c.fetchval("show breccia.target") == "primary"
    assert await c.fetchval("show breccia.pinned") == "target"
    statement = await c.prepare("show breccia.primary")
    assert await statement.fetchval() == "pg0" and await statement.fetchval() == "pg0"
    assert statement.get_attributes()[0].name == "breccia.primary"
    await c.close()


psycopg_asks()
asyncio.run(asyncpg_asks())
print("all good")
