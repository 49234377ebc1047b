"""SQLAlchemy over psycopg as it is by default: a transaction around everything, mostly reads.

Each thread keeps its connection, writes a row of its own, and must always find what it has written.
"""

import random
import sys
import threading
import time

import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

place, threads, rounds = f"breccia:secret@127.0.0.1:{sys.argv[1]}/{sys.argv[2]}", 6, 150


class Base(DeclarativeBase):
    pass


class Row(Base):
    __tablename__ = "mix"
    id: Mapped[int] = mapped_column(primary_key=True)
    value: Mapped[int]


engine = sa.create_engine(f"postgresql+psycopg://{place}")
stale, failed = [], []


def read(session, number):
    query = sa.select(Row.value).where(Row.id == number).suffix_with(f"/* <{sys.argv[2]}> */")
    return session.execute(query).scalar()


def work(number):
    dice, value = random.Random(number), 0
    with engine.connect() as connection, Session(bind=connection) as session:
        for _ in range(rounds):
            if dice.random() < 0.1:
                value += 1
                row = session.get(Row, number)
                row.value = value
                session.commit()
            else:
                for _ in range(dice.randint(1, 3)):
                    found = read(session, number)
                    if found != value:
                        stale.append((number, found, value))
                session.rollback()
            if dice.random() < 0.3:
                time.sleep(0.005)


def guarded(number):
    try:
        work(number)
    except BaseException as error:
        failed.append(repr(error))


with Session(engine) as session:
    session.add_all([Row(id=number, value=0) for number in range(threads)])
    session.commit()
all = [threading.Thread(target=guarded, args=[number]) for number in range(threads)]
for one in all:
    one.start()
for one in all:
    one.join()
assert not failed, failed
assert not stale, (len(stale), stale[:3])
print("all good")
