"""redis-py, unchanged: strings, pipelines, transactions, locks, scans, publish and subscribe.

Arguments: port, password or "-". Run for RESP2 and RESP3. Ends with status 0 when all held.
"""

import sys
import threading

import redis


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
    script = client.register_script("return redis.call('INCRBY', KEYS[1], ARGV[1])")
    assert script(keys=["py:script"], args=[7]) == 7
    assert len(set(client.scan_iter("py:m*", count=7))) == 50
    assert len(client.keys("py:p*")) == 500
    assert client.dbsize() > 500
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


def main(port, password):
    for protocol in (2, 3):
        def connect():
            return redis.Redis(
                port=port, protocol=protocol, password=password, client_name="py", socket_timeout=10
            )
        client = connect()
        client.flushall()
        check_values(client)
        check_pipelines(client)
        check_watch(client, connect())
        check_locks_and_scans(client)
        check_pubsub(client)
        assert client.info()["redis_version"].startswith("7.")
        assert client.client_getname() == "py"
        print(f"redis-py {redis.__version__}: good in RESP{protocol}")


if __name__ == "__main__":
    main(int(sys.argv[1]), None if sys.argv[2] == "-" else sys.argv[2])
