"""PyMySQL, mysqlclient and mysql-connector as programs use them; prints what it sees.

Nothing printed differs from run to run, so that a run against a server and one through a gateway can
be held against each other byte by byte.
"""

import datetime
import decimal
import hashlib
import sys
import threading
import time

driver, port, database = sys.argv[1], int(sys.argv[2]), sys.argv[3]
big = "--no-big" not in sys.argv[4:]
who = dict(host="127.0.0.1", port=port, user="breccia", database=database)
MIB = 1 << 20
# One library in C sends the longest: in Python that takes minutes.
SIZES = (16 * MIB - 1, 16 * MIB) + ((64 * MIB,) if driver == "mysqldb" else ())

if driver == "pymysql":
    import pymysql as library
    from pymysql.constants import CLIENT
    from pymysql.cursors import SSCursor

    def connect(**more):
        return library.connect(password="secret", max_allowed_packet=256 * MIB, **(who | more))

    FOUND_ROWS = dict(client_flag=CLIENT.FOUND_ROWS)
    CHANGED_ROWS = dict(client_flag=0)
    MULTI = dict(client_flag=CLIENT.MULTI_STATEMENTS)
elif driver == "mysqldb":
    import MySQLdb as library
    from MySQLdb.constants import CLIENT
    from MySQLdb.cursors import SSCursor

    def connect(**more):
        given = who | dict(charset="utf8mb4") | more
        return library.connect(passwd="secret", **given)

    FOUND_ROWS = dict(client_flag=CLIENT.FOUND_ROWS)
    CHANGED_ROWS = dict(client_flag=CLIENT.MULTI_STATEMENTS)
    MULTI = dict(client_flag=CLIENT.MULTI_STATEMENTS)
elif driver in ("connector", "connector-c"):
    import mysql.connector as library
    from mysql.connector.constants import ClientFlag

    def connect(**more):
        given = dict(charset="utf8mb4", collation="utf8mb4_general_ci") | who | more
        pure = driver == "connector"
        return library.connect(password="secret", use_pure=pure, **given)

    FOUND_ROWS = dict(client_flags=[ClientFlag.FOUND_ROWS])
    CHANGED_ROWS = dict(client_flags=[-ClientFlag.FOUND_ROWS])
    MULTI = dict()
else:
    raise SystemExit(f"unknown driver {driver}")


def plain(value):
    if isinstance(value, (bytes, bytearray)):
        value = bytes(value)
        if len(value) > 80:
            return f"{len(value)} bytes {hashlib.sha256(value).hexdigest()[:16]}"
        return value.hex()
    if isinstance(value, str) and len(value) > 200:
        return f"{len(value)} characters {hashlib.sha256(value.encode()).hexdigest()[:16]}"
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    return value


def show(what, *values):
    print(what, *(repr(plain(value)) for value in values))


def rows(cursor):
    return [tuple(plain(cell) for cell in row) for row in cursor.fetchall()]


def ask(c, sql, *parameters):
    cursor = c.cursor()
    cursor.execute(sql, parameters or None)
    found = rows(cursor) if cursor.description else None
    count = cursor.rowcount
    identity = cursor.lastrowid
    cursor.close()
    return found, count, identity


def fails(what, do):
    try:
        do()
        show(what, "no error")
    except library.Error as error:
        numbers = [it for it in error.args if isinstance(it, (int, str))][:2]
        show(what, type(error).__name__, getattr(error, "errno", None), numbers)


def tables(c):
    for sql in (
        "drop table if exists t",
        "create table t (id int auto_increment primary key, v varchar(200), n int)"
        " default charset utf8mb4",
        "drop table if exists kinds",
        """create table kinds (a tinyint, b smallint unsigned, c mediumint, d int, e bigint unsigned,
           f decimal(20, 6), g float, h double, i bit(10), j date, k datetime(6), l timestamp(3) null,
           m time(6), n year, o char(5), p varchar(20), q binary(4), r varbinary(20), s tinyblob,
           t text, u enum('x', 'y'), w set('p', 'q', 'r'), x json, y longblob)
           default charset utf8mb4""",
        "drop table if exists big",
        "create table big (id int primary key, b longblob, t longtext)",
        "drop table if exists `naïve ☃`",
        "create table `naïve ☃` (`größe` int, `名` varchar(20)) default charset utf8mb4",
        "drop procedure if exists two_results",
        "create procedure two_results(x int) begin select x; select x + 1, 'b'; end",
    ):
        ask(c, sql)


def statements(c):
    c.autocommit(True) if callable(getattr(c, "autocommit", None)) else setattr(c, "autocommit", True)
    for i in range(20):
        _, count, identity = ask(c, "insert into t (v, n) values (%s, %s)", f"v{i}", i)
        seen = ask(c, "select id, v from t where id = %s", identity)[0]
        show("insert", count, identity, seen)
    show("last", ask(c, "select last_insert_id()")[0])
    show("explicit", ask(c, "insert into t (id, v) values (500, 'x')")[2])
    show("last", ask(c, "select last_insert_id()")[0])
    show("many", ask(c, "insert into t (v) values ('a'), ('b'), ('c')")[1:])
    show("last", ask(c, "select last_insert_id()")[0])
    show("upsert", ask(c, "insert into t (id, v) values (500, 'y') on duplicate key update v = 'y'")[1])
    show("returned", ask(c, "insert into t (v) values ('r') returning id, v")[0])
    show("after", ask(c, "select count(*) from t where v = 'r'")[0])
    show("update", ask(c, "update t set n = 7 where id < 5")[1])
    show("replace", ask(c, "replace into t (id, v) values (500, 'z')")[1])
    show("delete", ask(c, "delete from t where id = 500")[1])
    show("rows", ask(c, "select count(*), sum(n) from t")[0])
    show("row_count", ask(c, "select row_count()")[0])
    show("calc", ask(c, "select sql_calc_found_rows id from t order by id limit 2")[0])
    show("found", ask(c, "select found_rows()")[0])
    show("warning", ask(c, "select 1 / 0")[0], ask(c, "show warnings")[0])
    show("variable", ask(c, "set @a = 5")[1], ask(c, "select @a + 1")[0])
    show("null", ask(c, "select null, %s, ''", None)[0])
    show("names", ask(c, "insert into `naïve ☃` values (1, '名前😀')")[1])
    show("names", ask(c, "select `größe`, `名` from `naïve ☃`")[0])


def affected():
    for name, flags in (("found", FOUND_ROWS), ("changed", CHANGED_ROWS)):
        c = connect(**flags)
        ask(c, "update t set v = 'same' where id in (1, 2)")
        show(name, ask(c, "update t set v = 'same' where id in (1, 2, 3)")[1])
        c.commit()
        c.close()


def transactions():
    a, b = connect(), connect()
    ask(a, "insert into t (v) values ('held')")
    show("own", ask(a, "select count(*) from t where v = 'held'")[0])
    show("other", ask(b, "select count(*) from t where v = 'held'")[0])
    a.rollback()
    show("rolled back", ask(a, "select count(*) from t where v = 'held'")[0])
    ask(a, "insert into t (v) values ('kept')")
    a.commit()
    b.commit()
    show("committed", ask(b, "select count(*) from t where v = 'kept'")[0])
    ask(a, "set transaction isolation level read committed")
    ask(a, "start transaction read only")
    fails("read only", lambda: ask(a, "insert into t (v) values ('no')"))
    a.rollback()
    ask(a, "savepoint one")
    ask(a, "start transaction")
    ask(a, "insert into t (v) values ('one')")
    ask(a, "savepoint one")
    ask(a, "insert into t (v) values ('two')")
    ask(a, "rollback to one")
    a.commit()
    show("savepoint", ask(a, "select v from t where v in ('one', 'two')")[0])
    a.close()
    b.close()


VALUES = (
    -128, 65535, -8388608, 2147483647, 18446744073709551615, decimal.Decimal("12345.678901"),
    1.5, 2.25, 513, datetime.date(2024, 2, 29), datetime.datetime(2024, 2, 29, 23, 59, 59, 123456),
    datetime.datetime(2024, 2, 29, 1, 2, 3), datetime.timedelta(hours=-30, seconds=1), 2024, "äöü",
    "naïve ☃😀", b"\0\1\2\3", b"\xff\xfe", b"tiny", "a text", "y", "p,r", '{"a": [1, null]}', b"\0" * 300,
)


def kinds(c):
    marks = ", ".join(["%s"] * len(VALUES))
    show("kinds", ask(c, f"insert into kinds values ({marks})", *VALUES)[1])
    nulls = ", ".join(["null"] * len(VALUES))
    show("kinds", ask(c, f"insert into kinds values ({nulls})")[1])
    for row in ask(c, "select * from kinds order by a is null")[0]:
        show("kind", *row)
    c.commit()


def multi():
    c = connect(**MULTI)
    cursor = c.cursor()
    text = "select 1, 2; insert into t (v) values ('multi'); select 'three'; do 0"
    if driver.startswith("connector"):
        for one in cursor.execute(text, multi=True) if MULTI_KEY else iterate(cursor, text):
            show("result", rows(one) if one.description else None, one.rowcount)
    else:
        cursor.execute(text)
        while True:
            show("result", rows(cursor) if cursor.description else None, cursor.rowcount)
            if not cursor.nextset():
                break
    cursor.close()
    c.commit()
    call(c)
    fails("second is wrong", lambda: drain(c, "select 1; select nothing_like_it"))
    c.close()


MULTI_KEY = driver.startswith("connector") and tuple(map(int, library.__version__.split(".")[:2])) < (9, 2)


def iterate(cursor, text):
    cursor.execute(text)
    yield cursor
    while cursor.nextset():
        yield cursor


def drain(c, text):
    cursor = c.cursor()
    try:
        cursor.execute(text)
        cursor.fetchall()
        while cursor.nextset():
            cursor.fetchall()
    finally:
        cursor.close()


def call(c):
    cursor = c.cursor()
    cursor.callproc("two_results", (4,))
    if driver.startswith("connector"):
        for one in cursor.stored_results():
            show("call", rows(one))
    else:
        while cursor.description:
            show("call", rows(cursor))
            if not cursor.nextset():
                break
    cursor.close()
    show("after call", ask(c, "select 5")[0])


def prepared(c):
    """Only mysql-connector has the binary protocol."""
    if driver != "connector":
        return
    cursor = c.cursor(prepared=True)
    for i in range(30):
        cursor.execute("select id, v, n from t where id = %s", (i,))
        show("prepared", rows(cursor))
    cursor.close()
    cursor = c.cursor(prepared=True)
    for i in range(5):
        cursor.execute("insert into t (v, n) values (%s, %s)", (f"p{i}", None if i % 2 else i))
        show("prepared", cursor.rowcount, cursor.lastrowid)
    c.commit()
    cursor.close()
    cursor = c.cursor(prepared=True)
    cursor.execute("select * from kinds where a = %s", (-128,))
    for row in rows(cursor):
        show("binary", *row)
    cursor.close()
    if big:
        cursor = c.cursor(prepared=True)
        for number, size in enumerate(SIZES):
            cursor.execute("insert into big (id, b) values (%s, %s)", (100 + number, bytes(size)))
        cursor.close()
        cursor = c.cursor(prepared=True)
        for number in range(len(SIZES)):
            cursor.execute("select length(b), b from big where id = %s", (100 + number,))
            show("big binary", rows(cursor))
        cursor.close()
        c.commit()


def streams(c):
    if driver.startswith("connector"):
        cursor = c.cursor(buffered=False)
    else:
        cursor = c.cursor(SSCursor)
    cursor.execute("select seq, repeat('x', 100) from seq_1_to_20000")
    total = 0
    for row in cursor:
        total += row[0] + len(row[1])
    show("streamed", total)
    cursor.close()


def blobs():
    c = connect()
    pattern = bytes(range(256)) * (MIB // 256)
    for number, size in enumerate(SIZES):
        value = (pattern * 64)[:size]
        ask(c, "insert into big (id, b) values (%s, %s)", number, value)
        show("big", ask(c, "select length(b), b from big where id = %s", number)[0])
    for size in (16 * MIB - 1, 16 * MIB, 16 * MIB + 1):
        show("made", ask(c, f"select repeat('x', {size})")[0])
        # The packet of a row is longer than its value, so the edges lie a few bytes lower.
        for less in (5, 4, 3):
            show("made", ask(c, f"select repeat('x', {size - less})")[0])
    c.commit()
    c.close()


def mistakes(c):
    fails("syntax", lambda: ask(c, "selec 1"))
    fails("table", lambda: ask(c, "select * from nothing_like_it"))
    fails("duplicate", lambda: ask(c, "insert into t (id, v) values (1, 'x')"))
    fails("null", lambda: ask(c, "insert into big values (null, null, null)"))
    fails("function", lambda: ask(c, "select nothing_like_it(1)"))
    fails("division", lambda: ask(c, "signal sqlstate '45000' set message_text = 'mine', mysql_errno = 4711"))
    show("well after", ask(c, "select 1")[0])
    fails("schema", lambda: ask(c, "use nothing_like_it"))
    show("schema", ask(c, "select database()")[0] == ((database,),) or ask(c, "select database()")[0])
    c.rollback()


def sessions():
    c = connect()
    ask(c, "set session group_concat_max_len = 4321")
    ask(c, "set names latin1")
    ask(c, "set time_zone = '+03:00'")
    ask(c, "set sql_mode = 'ANSI_QUOTES'")
    show("settings", ask(c, "select @@group_concat_max_len, @@character_set_client, @@time_zone, @@sql_mode")[0])
    for _ in range(3):
        show("quotes", ask(c, 'select "v" from t order by id limit 1')[0])
    ask(c, "create temporary table mine (a int)")
    ask(c, "insert into mine values (1)")
    show("temporary", ask(c, "select * from mine")[0])
    show("lock", ask(c, "select get_lock('l', 0)")[0], ask(c, "select release_lock('l')")[0])
    if driver.startswith("connector"):
        c.cmd_reset_connection()
        show("reset", ask(c, "select @@group_concat_max_len, @@sql_mode = 'ANSI_QUOTES'")[0])
        c.cmd_change_user("breccia", "secret", database)
        show("changed user", ask(c, "select database() is not null, current_user()")[0])
    elif driver == "mysqldb":
        c.change_user("breccia", "secret", database)
        show("changed user", ask(c, "select @@group_concat_max_len, current_user()")[0])
    c.ping()
    show("pinged", ask(c, "select 1")[0])
    c.close()


def kills():
    victim, killer = connect(), connect()
    number = victim.connection_id if driver.startswith("connector") else victim.thread_id()
    show("number", ask(victim, "select connection_id()")[0] == [(number,)])
    ended = []

    def sleeps():
        try:
            ended.append(ask(victim, "select sleep(20)")[0])
        except library.Error as error:
            ended.append(error.args[0])

    thread = threading.Thread(target=sleeps)
    thread.start()
    begun = time.monotonic()
    while thread.is_alive() and time.monotonic() - begun < 10:
        time.sleep(0.3)
        ask(killer, f"kill query {number}")
        thread.join(0.3)
    thread.join()
    show("killed", time.monotonic() - begun < 15, ended)
    show("lives", ask(victim, "select 2")[0])
    ask(killer, f"kill {number}")
    time.sleep(0.2)
    try:
        ask(victim, "select 3")
        show("killed connection", "lives")
    except library.Error as error:
        show("killed connection", type(error).__name__)
    killer.close()


c = connect()
tables(c)
for part in (statements, kinds, prepared, streams, mistakes):
    print("--", part.__name__)
    part(c)
c.close()
for part in (affected, transactions, multi, sessions, kills) + ((blobs,) if big else ()):
    print("--", part.__name__)
    part()
fails_login = dict(user="nobody_like_it")
print("-- login")
fails("login", lambda: connect(**fails_login))
print("all good")
