"""SQLAlchemy over both generations of psycopg: reflection, ORM sessions, autocommit."""

import sys

import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

place = f"breccia:secret@127.0.0.1:{sys.argv[1]}/{sys.argv[2]}"


class Base(DeclarativeBase):
    pass


class Item(Base):
    __tablename__ = "item"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(sa.String)


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
    engine.dispose()
    plain.dispose()
print("all good")
