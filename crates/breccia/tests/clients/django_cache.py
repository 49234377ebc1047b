"""Django's own Redis cache and django-redis, unchanged: values, counters, many keys, locks, patterns, sessions.

Arguments: port, prefix of keys. `set_many` and `delete_pattern` are
transactions: with a hash tag as prefix only. Ends with status 0 when all held.
"""

import sys

import django
import redis
from django.conf import settings
from django.core.cache import caches

URL = f"redis://127.0.0.1:{sys.argv[1]}/0"
PREFIX = sys.argv[2]
TAGGED = PREFIX.startswith("{")

settings.configure(
    CACHES={
        "default": {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": URL, "KEY_PREFIX": PREFIX},
        "other": {
            "BACKEND": "django_redis.cache.RedisCache",
            "LOCATION": URL,
            "KEY_PREFIX": PREFIX + "other",
            "OPTIONS": {"CLIENT_CLASS": "django_redis.client.DefaultClient"},
        },
    },
    SESSION_ENGINE="django.contrib.sessions.backends.cache",
    INSTALLED_APPS=["django.contrib.sessions"],
    USE_TZ=True,
)
django.setup()

from django.contrib.sessions.backends.cache import SessionStore  # noqa: E402


def check_values(cache):
    assert cache.get("none") is None and cache.get("none", 7) == 7
    cache.set("a", {"deep": [1, 2.5, None, "text", b"bytes"]}, timeout=60)
    assert cache.get("a") == {"deep": [1, 2.5, None, "text", b"bytes"]}
    assert cache.add("a", 1) is False and cache.add("b", 1) is True
    assert cache.get_or_set("c", lambda: "made", 60) == "made" and cache.get("c") == "made"
    assert cache.incr("b") == 2 and cache.incr("b", 40) == 42 and cache.decr("b", 2) == 40
    try:
        cache.incr("none")
        raise AssertionError("a key that is not there was counted up")
    except ValueError:
        pass
    assert "a" in cache and cache.has_key("b") and "none" not in cache
    assert cache.touch("a", 100) is True and cache.touch("none", 100) is False
    cache.set("gone", 1, timeout=0)
    assert cache.get("gone") is None
    cache.set("forever", 1, timeout=None)
    assert cache.get("forever") == 1
    cache.set("versioned", 1, version=2)
    assert cache.get("versioned") is None and cache.get("versioned", version=2) == 1
    assert cache.incr_version("versioned", version=2) == 3
    assert cache.get("versioned", version=3) == 1


def set_many(cache, many):
    if TAGGED:
        assert not cache.set_many(many, timeout=60)
    else:
        for key, value in many.items():
            cache.set(key, value, timeout=60)


def check_many(cache):
    many = {f"many{i}": i for i in range(100)}
    set_many(cache, many)
    assert cache.get_many(many) == many
    assert cache.get_many(["many1", "none", "many2"]) == {"many1": 1, "many2": 2}
    cache.delete_many([f"many{i}" for i in range(50)])
    assert len(cache.get_many(many)) == 50
    assert cache.delete("many99") in (True, 1) and not cache.delete("many99")


def check_sessions():
    session = SessionStore()
    session["user"] = "ann"
    session.save()
    assert SessionStore(session.session_key)["user"] == "ann"
    session.cycle_key()
    assert SessionStore(session.session_key)["user"] == "ann"
    session.delete()
    assert not SessionStore().exists(session.session_key)


def check_more(cache):
    """What only django-redis has."""
    set_many(cache, {f"pattern:{i}": i for i in range(200)})
    assert len(set(cache.iter_keys("pattern:*"))) == 200
    assert len(cache.keys("pattern:1*")) == 111
    if TAGGED:
        assert cache.delete_pattern("pattern:1*", itersize=20) == 111
    else:
        cache.delete_many(cache.keys("pattern:1*"))
    assert len(cache.keys("pattern:*")) == 89
    assert cache.set("nx", 1, timeout=60, nx=True) and not cache.set("nx", 2, nx=True)
    assert 0 < cache.ttl("nx") <= 60 and cache.ttl("none") == 0 and cache.persist("nx")
    assert cache.ttl("nx") is None and cache.expire("nx", 50) and cache.pttl("nx") > 40000
    with cache.lock("lock", timeout=5, blocking_timeout=1):
        assert not cache.lock("lock", timeout=5).acquire(blocking=False)
    lock = cache.lock("lock", timeout=5)
    assert lock.acquire(blocking=False)
    lock.release()
    assert cache.sadd("set", "x", "y") == 2 and cache.smembers("set") == {"x", "y"}
    assert cache.hset("hash", "field", {"v": 1}) == 1 and cache.hkeys("hash") == ["field"]
    raw = cache.client.get_client()
    assert isinstance(raw, redis.Redis) and raw.ping()


def main(port):
    client = redis.Redis(port=port)
    client.flushall()
    for name in ("default", "other"):
        cache = caches[name]
        check_values(cache)
        check_many(cache)
        if name == "other":
            check_more(cache)
        else:
            check_sessions()
        cache.clear()
        assert cache.get("a") is None and cache.get("forever") is None
        print(f"Django cache {type(cache).__module__}: good")
    assert client.dbsize() == 0
    print("django: good")


if __name__ == "__main__":
    main(int(sys.argv[1]))
