"""The functions that rq_queue.py's worker calls. Invariant: nothing here knows of a queue."""

import redis


def add(left, right):
    return left + right


def fails():
    raise ValueError("as wanted")


def third_time(port, key):
    client = redis.Redis(port=port)
    if client.incr(key) < 3:
        raise ValueError("not yet")
    return "done"
