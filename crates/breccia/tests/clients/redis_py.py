"""redis-py, unchanged: all types, pipelines, transactions, locks, scans, publish and subscribe, asyncio.

Arguments: port, password or "-", and `tagged` where hash tags bring keys together. Runs in RESP2 and RESP3. Ends with status 0 when all held.
"""

import asyncio
import sys
import threading

import redis
import redis.asyncio


def check_values(client):
    assert client.ping()
    assert client.set("py:a", "1") is True
    assert client.get("py:a") == b"1"
    assert client.set("py:a", "2", nx=True) is None
    assert client.set("py:a", "3", get=True) == b"1"
    assert client.incrby("py:n", 41) == 41 and client.incr("py:n") == 42
    assert client.mset({f"py:m{i}": i for i in range(50)})
    assert client.mget([f"py:m{i}" for i in range(50)]) == [str(i).encode() for i in range(50)]
    assert client.exists(*[f"py:m{i}" for i in range(60)]) == 50
    assert client.hset("py:h", mapping={"f": "v", "g": "w"}) == 2
    assert client.hgetall("py:h") == {b"f": b"v", b"g": b"w"}
    assert client.rpush("py:l", "a", "b") == 2 and client.lrange("py:l", 0, -1) == [b"a", b"b"]
    assert client.zadd("py:z", {"one": 1, "two": 2.5}) == 2
    assert client.zscore("py:z", "two") == 2.5
    assert client.sadd("py:s", "x", "y") == 2 and client.smembers("py:s") == {b"x", b"y"}
    assert client.xadd("py:x", {"f": "v"}, id="1-1") == b"1-1"
    assert client.expire("py:a", 100) and 0 < client.ttl("py:a") <= 100
    assert client.blpop("py:none", timeout=0.05) is None
    binary = bytes(range(256))
    assert client.set(binary, binary) and client.get(binary) == binary
    assert client.set("py:big", b"x" * 3_000_000) and len(client.get("py:big")) == 3_000_000
    assert client.geoadd("py:g", (13.361389, 38.115556, "Palermo")) == 1
    assert abs(client.geopos("py:g", "Palermo")[0][0] - 13.361389) < 0.001
    assert client.bitfield("py:b").set("u8", 0, 255).incrby("u8", 0, 1, overflow="SAT").execute()
    assert client.pfadd("py:hll", "a", "b") == 1 and client.pfcount("py:hll") == 2
    assert client.sort("py:l", alpha=True, desc=True) == [b"b", b"a"]
    assert client.object("encoding", "py:n") == b"int"
    assert client.restore("py:copy", 0, client.dump("py:n")) and client.get("py:copy") == b"42"
    try:
        client.lpush("py:a", "x")
        raise AssertionError("a wrong type was taken")
    except redis.ResponseError as error:
        assert "WRONGTYPE" in str(error), error


def check_streams(client):
    for i in range(1, 6):
        client.xadd("py:stream", {"n": i}, id=f"{i}-0")
    assert client.xlen("py:stream") == 5
    assert client.xgroup_create("py:stream", "g", id="0")
    got = client.xreadgroup("g", "me", {"py:stream": ">"}, count=3)
    entries = got[0][1] if isinstance(got, list) else list(got.values())[0]
    assert "1-0" in repr(entries) and "3-0" in repr(entries) and "4-0" not in repr(entries)
    assert client.xack("py:stream", "g", "1-0", "2-0") == 2
    assert client.xpending("py:stream", "g")["pending"] == 1
    assert client.xread({"py:stream": "5-0"}, block=20) in ([], {}, None)
    assert client.xinfo_stream("py:stream")["length"] == 5
    claimed = client.xclaim("py:stream", "g", "you", min_idle_time=0, message_ids=["3-0"])
    assert [entry[0] for entry in claimed] == [b"3-0"]
    taken = client.xautoclaim("py:stream", "g", "she", min_idle_time=0, start_id="0-0")
    assert [entry[0] for entry in taken[1]] == [b"3-0"]
    consumers = {row["name"]: row["pending"] for row in client.xinfo_consumers("py:stream", "g")}
    assert consumers[b"she"] == 1 and consumers[b"you"] == 0, consumers
    assert client.xrevrange("py:stream", count=1) == [(b"5-0", {b"n": b"5"})]
    assert client.xtrim("py:stream", maxlen=2, approximate=False) == 3
    assert client.xgroup_delconsumer("py:stream", "g", "she") == 1
    assert client.xgroup_destroy("py:stream", "g") == 1


def check_group_waits(connect):
    """A consumer that waits gets what comes, once, while another group has its own copy."""
    client, other = connect(), connect()
    client.xgroup_create("py:events", "one", mkstream=True)
    client.xgroup_create("py:events", "two")
    got = []

    def consume():
        while len(got) < 10:
            answer = client.xreadgroup("one", "me", {"py:events": ">"}, count=3, block=5000)
            stream = answer[0][1] if isinstance(answer, list) else list(answer.values())[0]
            entries = stream if stream and isinstance(stream[0], tuple) else stream[0]
            for number, fields in entries:
                got.append(fields[b"n"])
                assert client.xack("py:events", "one", number) == 1

    thread = threading.Thread(target=consume)
    thread.start()
    for i in range(10):
        other.xadd("py:events", {"n": i})
    thread.join(10)
    assert got == [str(i).encode() for i in range(10)], got
    assert other.xpending("py:events", "one")["pending"] == 0
    groups = {row["name"]: row for row in other.xinfo_groups("py:events")}
    assert groups[b"one"]["lag"] == 0 and groups[b"two"]["lag"] == 10, groups


def check_tags(client):
    """What a hash tag brings together may be asked for at once."""
    assert client.mset({"{py}a": 1, "{py}b": 2}) and client.msetnx({"{py}c": 3, "{py}d": 4})
    pipe = client.pipeline(transaction=True)
    pipe.incr("{py}a").incr("{py}b").rename("{py}c", "{py}e").get("{py}e")
    assert pipe.execute() == [2, 3, True, b"3"]
    client.rpush("{py}from", "x", "y")
    assert client.lmove("{py}from", "{py}to", "LEFT", "RIGHT") == b"x"
    assert client.brpoplpush("{py}from", "{py}to", timeout=1) == b"y"
    key, value = client.blpop(["{py}none", "{py}to"], timeout=1)
    assert (key, value) == (b"{py}to", b"y")
    client.sadd("{py}s1", "a", "b")
    client.sadd("{py}s2", "b", "c")
    assert client.sinter("{py}s1", "{py}s2") == {b"b"}
    assert client.sunionstore("{py}s3", "{py}s1", "{py}s2") == 3
    client.zadd("{py}z1", {"a": 1, "b": 2})
    client.zadd("{py}z2", {"b": 3})
    assert client.zunionstore("{py}z3", ["{py}z1", "{py}z2"]) == 2
    assert client.zscore("{py}z3", "b") == 5
    both = "return {redis.call('GET', KEYS[1]), redis.call('GET', KEYS[2])}"
    assert client.eval(both, 2, "{py}a", "{py}b") == [b"2", b"3"]
    assert client.bitop("OR", "{py}bits", "{py}a", "{py}b") == 1
    assert client.copy("{py}a", "{py}f") and client.get("{py}f") == b"2"
    client.pfadd("{py}h1", "a")
    client.pfadd("{py}h2", "b")
    assert client.pfmerge("{py}h3", "{py}h1", "{py}h2") and client.pfcount("{py}h3") == 2


def check_waiting(connect):
    client, other = connect(), connect()
    got = []
    waiter = threading.Thread(target=lambda: got.append(client.blpop("py:queue", timeout=10)))
    waiter.start()
    other.rpush("py:queue", "job")
    waiter.join(10)
    assert [tuple(pair) for pair in got] == [(b"py:queue", b"job")], got


def check_pool(port, password, protocol):
    pool = redis.BlockingConnectionPool(
        port=port, password=password, protocol=protocol, max_connections=4, decode_responses=True
    )
    client = redis.Redis(connection_pool=pool)

    def work(name):
        for i in range(50):
            key = f"py:pool:{name}:{i}"
            client.set(key, i)
            assert client.get(key) == str(i)
            client.incr("py:pool:all")

    threads = [threading.Thread(target=work, args=(name,)) for name in range(8)]
    [thread.start() for thread in threads]
    [thread.join(30) for thread in threads]
    assert client.get("py:pool:all") == "400"


def check_pipelines(client):
    pipe = client.pipeline(transaction=False)
    for i in range(500):
        pipe.set(f"py:p{i}", i)
        pipe.get(f"py:p{i}")
    answers = pipe.execute()
    assert answers[1::2] == [str(i).encode() for i in range(500)]
    pipe = client.pipeline(transaction=True)
    pipe.incrby("py:tx", 5).expire("py:tx", 60)
    assert pipe.execute() == [5, True]
    pipe = client.pipeline(transaction=False)
    pipe.set("py:text", "abc").incr("py:text").get("py:text")
    answers = pipe.execute(raise_on_error=False)
    assert isinstance(answers[1], redis.ResponseError) and answers[2] == b"abc"
    pipe = client.pipeline(transaction=True)
    pipe.set("py:text", "abc").incr("py:text").get("py:text")
    answers = pipe.execute(raise_on_error=False)
    assert isinstance(answers[1], redis.ResponseError) and answers[2] == b"abc"
    pipe = client.pipeline(transaction=True)
    pipe.set("py:text", "never").execute_command("NOSUCH")
    try:
        pipe.execute()
        raise AssertionError("an unknown command was queued")
    except redis.ResponseError:
        pass
    assert client.get("py:text") == b"abc"


def check_watch(client, other):
    with client.pipeline() as pipe:
        pipe.watch("py:w")
        pipe.get("py:w")
        pipe.multi()
        pipe.set("py:w", "mine")
        assert pipe.execute() == [True]
    with client.pipeline() as pipe:
        pipe.watch("py:w")
        other.set("py:w", "theirs")
        pipe.multi()
        pipe.set("py:w", "lost")
        try:
            pipe.execute()
            raise AssertionError("a conflict was missed")
        except redis.WatchError:
            pass
    assert client.get("py:w") == b"theirs"

    def count(pipe):
        pipe.multi()
        pipe.incr("py:t")

    assert client.transaction(count, "py:t") == [1]


def check_locks_and_scans(client):
    with client.lock("py:lock", timeout=5, blocking_timeout=1):
        assert client.exists("py:lock") == 1
        assert not client.lock("py:lock", timeout=5).acquire(blocking=False)
    assert client.exists("py:lock") == 0
    lock = client.lock("py:lock2", timeout=5)
    assert lock.acquire() and lock.extend(20) and lock.reacquire() and lock.owned()
    client.set("py:lock2", "stolen")
    try:
        lock.release()
        raise AssertionError("a lock of another was released")
    except redis.exceptions.LockError:
        pass
    script = client.register_script("return redis.call('INCRBY', KEYS[1], ARGV[1])")
    assert script(keys=["py:script"], args=[7]) == 7
    assert len(set(client.scan_iter("py:m[0-9]*", count=7))) == 50
    assert len(client.keys("py:p*")) == 500
    assert client.dbsize() > 500
    client.hset("py:manyf", mapping={f"f{i}": i for i in range(300)})
    assert len(dict(client.hscan_iter("py:manyf", count=20))) == 300
    client.sadd("py:manym", *range(300))
    assert len(set(client.sscan_iter("py:manym", count=20))) == 300
    client.zadd("py:manyz", {f"m{i}": i for i in range(300)})
    assert len(dict(client.zscan_iter("py:manyz", count=20))) == 300
    assert set(client.scan_iter("py:m*", count=50, _type="hash")) == {b"py:manyf"}
    assert client.delete(*[f"py:m{i}" for i in range(50)]) == 50


def check_pubsub(client):
    pubsub = client.pubsub()
    pubsub.subscribe("py:news")
    pubsub.psubscribe("py:n*")
    heard = []
    done = threading.Event()

    def listen():
        for message in pubsub.listen():
            heard.append((message["type"], message["data"]))
            if len(heard) == 4:
                done.set()
                return

    thread = threading.Thread(target=listen, daemon=True)
    thread.start()
    deadline = threading.Event()
    while len(heard) < 2 and not deadline.wait(0.05):
        pass
    client.publish("py:news", "hello")
    assert done.wait(5), heard
    assert ("message", b"hello") in heard and ("pmessage", b"hello") in heard, heard
    pubsub.close()


async def check_asyncio(port, password, protocol):
    client = redis.asyncio.Redis(port=port, password=password, protocol=protocol)
    await asyncio.gather(*(client.set(f"py:async{i}", i) for i in range(100)))
    values = await client.mget([f"py:async{i}" for i in range(100)])
    assert values == [str(i).encode() for i in range(100)]
    async with client.pipeline(transaction=True) as pipe:
        assert await pipe.incrby("py:asynctx", 5).expire("py:asynctx", 60).execute() == [5, True]
    async with client.pubsub() as pubsub:
        await pubsub.subscribe("py:asyncnews")
        assert (await pubsub.get_message(timeout=5))["type"] == "subscribe"
        await client.publish("py:asyncnews", "hello")
        assert (await pubsub.get_message(timeout=5))["data"] == b"hello"
    found = {key async for key in client.scan_iter("py:async[0-9]*", count=10)}
    assert len(found) == 100
    await client.aclose()


def main(port, password, tagged):
    for protocol in (2, 3):
        def connect(**options):
            return redis.Redis(
                port=port,
                protocol=protocol,
                password=password,
                client_name="py",
                socket_timeout=10,
                **options,
            )
        client = connect()
        client.flushall()
        check_values(client)
        check_streams(client)
        check_group_waits(connect)
        if tagged:
            check_tags(client)
        check_pipelines(client)
        check_watch(client, connect())
        check_locks_and_scans(client)
        check_waiting(connect)
        check_pubsub(connect(health_check_interval=1))
        check_pool(port, password, protocol)
        assert client.info()["redis_version"].startswith("7.")
        assert client.client_getname() in ("py", b"py")
        assert client.client_id() > 0 and client.echo("x") == b"x" and client.time()
        print(f"redis-py {redis.__version__}: good in RESP{protocol}")
        asyncio.run(check_asyncio(port, password, protocol))
    print("asyncio: good")


if __name__ == "__main__":
    main(int(sys.argv[1]), None if sys.argv[2] == "-" else sys.argv[2], sys.argv[3:] == ["tagged"])
