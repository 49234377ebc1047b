"""SQLAlchemy's ORM over PyMySQL: sessions, eager loads, savepoints. Prints what it sees.

Nothing printed differs from run to run, as in dbapi.py.
"""

import sys

from sqlalchemy import ForeignKey, String, create_engine, exc, func, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship, selectinload

port, database = sys.argv[1], sys.argv[2]
engine = create_engine(
    f"mysql+pymysql://breccia:secret@127.0.0.1:{port}/{database}?charset=utf8mb4",
    isolation_level="READ COMMITTED", pool_size=3, pool_pre_ping=True,
)


class Base(DeclarativeBase):
    pass


class Author(Base):
    __tablename__ = "author"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(50), unique=True)
    books: Mapped[list["Book"]] = relationship(back_populates="author", order_by="Book.id")


class Book(Base):
    __tablename__ = "book"
    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str] = mapped_column(String(50))
    author_id: Mapped[int] = mapped_column(ForeignKey("author.id"))
    author: Mapped[Author] = relationship(back_populates="books")


Base.metadata.drop_all(engine)
Base.metadata.create_all(engine)
for number in range(20):
    with Session(engine) as session:
        session.add(Author(name=f"a{number}", books=[Book(title=f"{number}-{b}") for b in range(3)]))
        session.commit()
    with Session(engine) as session:
        found = session.scalars(
            select(Author).options(selectinload(Author.books)).where(Author.name == f"a{number}")
        ).one()
        print("author", found.id, [book.title for book in found.books])
with Session(engine) as session:
    session.add(Author(name="b"))
    session.flush()
    try:
        with session.begin_nested():
            session.add(Author(name="a1"))
            session.flush()
    except exc.IntegrityError as error:
        print("error", error.orig.args)
    session.commit()
    print("authors", session.scalar(select(func.count()).select_from(Author)))
    print("books", session.scalar(select(func.count()).select_from(Book)))
with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as c:
    print("autocommit", c.exec_driver_sql("select @@autocommit").scalar())
    print("rows", c.exec_driver_sql("update author set name = concat(name, '!')").rowcount)
engine.dispose()
print("all good")
