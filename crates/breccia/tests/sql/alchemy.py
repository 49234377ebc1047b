"""SQLAlchemy over both generations of psycopg: reflection, ORM sessions, autocommit."""

import asyncio
import sys
from concurrent.futures import ThreadPoolExecutor

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, insert
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

place = f"breccia:secret@127.0.0.1:{sys.argv[1]}/{sys.argv[2]}"


class Base(DeclarativeBase):
    pass


class Item(Base):
    __tablename__ = "item"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(sa.String, unique=True)
    about: Mapped[dict | None] = mapped_column(JSONB)
    some: Mapped[list | None] = mapped_column(ARRAY(sa.Integer))


for driver in ["psycopg", "psycopg2"]:
    engine = sa.create_engine(f"postgresql+{driver}://{place}")
    Base.metadata.drop_all(engine)
    Base.metadata.create_all(engine)
    assert sa.inspect(engine).has_table("item")
    with Session(engine) as session:
        session.add_all([Item(name=str(i)) for i in range(500)])
        session.commit()
        assert session.scalar(sa.select(sa.func.count()).select_from(Item)) == 500
        item = session.scalars(sa.select(Item).where(Item.name == "7")).one()
        item.name = "seven"
        session.commit()
        assert session.get(Item, item.id).name == "seven"
        session.delete(item)
        session.rollback()
    with Session(engine) as session:
        names = session.scalars(sa.select(Item.name).execution_options(yield_per=50)).all()
        assert len(names) == 500
    plain = sa.create_engine(f"postgresql+{driver}://{place}", isolation_level="AUTOCOMMIT")
    with plain.connect() as c:
        for i in range(20):
            c.execute(sa.update(Item).where(Item.id == 1).values(name=f"n{i}"))
            assert c.execute(sa.select(Item.name).where(Item.id == 1)).scalar() == f"n{i}"
    with Session(engine) as session:
        session.add(Item(name="rich", about={"a": [1, None]}, some=[1, None, 3]))
        session.commit()
        rich = session.scalars(sa.select(Item).where(Item.name == "rich")).one()
        assert (rich.about, rich.some) == ({"a": [1, None]}, [1, None, 3])
        try:
            with session.begin_nested():
                session.add(Item(name="rich"))
                session.flush()
            raise AssertionError("one name twice")
        except sa.exc.IntegrityError:
            pass
        again = insert(Item).values(name="rich", some=[7])
        session.execute(again.on_conflict_do_update(index_elements=["name"], set_={"some": [7]}))
        session.commit()
        assert session.scalar(sa.select(Item.some).where(Item.name == "rich")) == [7]
        held = session.scalars(sa.select(Item).where(Item.id == rich.id).with_for_update()).one()
        assert held is rich
        session.rollback()
    # A server connection that ends is found out before the next use.
    watched = sa.create_engine(f"postgresql+{driver}://{place}", pool_pre_ping=True, pool_size=1)
    with watched.connect() as c:
        try:
            c.scalar(sa.text("select pg_terminate_backend(pg_backend_pid())"))
            raise AssertionError("its server lived on")
        except sa.exc.OperationalError:
            pass
    with watched.connect() as c:
        assert c.scalar(sa.text("select 5")) == 5
    strict = engine.execution_options(isolation_level="SERIALIZABLE", postgresql_readonly=True)
    with strict.connect() as c:
        assert c.scalar(sa.select(sa.func.count()).select_from(Item)) == 501
    with ThreadPoolExecutor(16) as threads:
        def one(number):
            with engine.connect() as c:
                return c.scalar(sa.text("select :n + 1"), {"n": number})

        assert list(threads.map(one, range(300))) == list(range(1, 301))
    for some in [engine, plain, watched]:
        some.dispose()


async def asynchronous(driver):
    engine = create_async_engine(f"postgresql+{driver}://{place}")
    async with AsyncSession(engine) as session:
        session.add_all([Item(name=f"{driver} {i}", some=[i]) for i in range(200)])
        await session.commit()
        names = sa.select(Item.name).where(Item.name.like(f"{driver} %"))
        assert len((await session.scalars(names)).all()) == 200
        await session.rollback()
        found = 0
        async for _ in await session.stream_scalars(names):
            found += 1
        assert found == 200
    async with engine.begin() as c:
        await c.execute(sa.delete(Item).where(Item.name.like(f"{driver} %")))
    await engine.dispose()


for driver in ["psycopg", "asyncpg"]:
    asyncio.run(asynchronous(driver))
print("all good")
