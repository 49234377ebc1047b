"""pymemcache and python-memcached, unchanged.

Argument: port. Ends with status 0 when all held.
"""

import sys

import memcache
from pymemcache.client.base import Client, PooledClient


def check_pymemcache(client):
    client.flush_all(noreply=False)
    assert client.set("pm:a", b"1", noreply=False)
    assert client.get("pm:a") == b"1"
    assert not client.add("pm:a", b"2", noreply=False)
    assert client.replace("pm:a", b"10", noreply=False)
    assert client.append("pm:a", b"1", noreply=False) and client.prepend("pm:a", b"1", noreply=False)
    assert client.incr("pm:a", 5) == 1106 and client.decr("pm:a", 6) == 1100
    assert client.incr("pm:none", 1) is None
    value, token = client.gets("pm:a")
    assert client.cas("pm:a", b"new", token) is True
    assert client.cas("pm:a", b"late", token) is False
    assert client.cas("pm:none", b"x", token) is None
    many = {f"pm:m{i}": str(i).encode() for i in range(100)}
    assert client.set_many(many, noreply=False) == []
    assert client.get_many(list(many) + ["pm:none"]) == many
    assert set(client.gets_many(list(many))) == set(many)
    # Nothing comes back for these; the next answer must be the right one all the same.
    for i in range(50):
        client.set(f"pm:q{i}", str(i).encode(), noreply=True)
        client.delete(f"pm:m{i}", noreply=True)
        client.incr("pm:n", 1, noreply=True)
        assert client.get(f"pm:q{i}") == str(i).encode()
    assert client.get_many(list(many)) == {key: many[key] for key in list(many)[50:]}
    assert client.touch("pm:a", 100, noreply=False)
    assert client.delete("pm:a", noreply=False) and not client.delete("pm:a", noreply=False)
    assert client.set("pm:big", b"x" * 500_000, noreply=False)
    assert client.get("pm:big") == b"x" * 500_000
    assert client.version()
    assert client.stats()


def check_python_memcached(port):
    client = memcache.Client([f"127.0.0.1:{port}"])
    assert client.set("mc:a", {"some": ["object", 1]})
    assert client.get("mc:a") == {"some": ["object", 1]}
    assert client.set("mc:n", 5) and client.incr("mc:n", 3) == 8 and client.decr("mc:n") == 7
    assert client.set_multi({f"k{i}": i for i in range(40)}, key_prefix="mc:") == []
    assert client.get_multi([f"k{i}" for i in range(40)], key_prefix="mc:") == {
        f"k{i}": i for i in range(40)
    }
    assert client.gets("mc:n") == 7 and client.cas("mc:n", 9)
    assert client.delete("mc:n") and client.get("mc:n") is None
    assert client.get_stats()
    client.disconnect_all()


def main(port):
    for kind in (Client, PooledClient):
        client = kind(("127.0.0.1", port), timeout=10, default_noreply=False)
        check_pymemcache(client)
        client.close()
        print(f"pymemcache {kind.__name__}: good")
    check_python_memcached(port)
    print("python-memcached: good")


if __name__ == "__main__":
    main(int(sys.argv[1]))
