"""Celery over Redis as broker and result backend, unchanged but for a prefix with a hash tag.

Argument: port. Starts a worker of its own and ends it. Ends with status 0 when all held.
"""

import os
import subprocess
import sys
import time
from datetime import datetime, timedelta, timezone

os.environ["CELERY_REDIS_PORT"] = sys.argv[1]

import redis
from celery import chain, chord, group

from celery_app import PREFIX, add, app, fails, third_time, total

LIMIT = 30


def start_worker():
    return subprocess.Popen(
        [
            sys.executable, "-m", "celery", "-A", "celery_app", "worker",
            "--pool=threads", "--concurrency=4", "--queues=celery,second",
            "--hostname=worker@test", "--loglevel=WARNING",
        ],
        cwd=os.path.dirname(os.path.abspath(__file__)),
        env=dict(os.environ, PYTHONDONTWRITEBYTECODE="1"),
    )


def check_tasks():
    assert add.delay(2, 3).get(timeout=LIMIT) == 5
    assert add.apply_async((2, 4), queue="second").get(timeout=LIMIT) == 6
    assert add.apply_async((2, 5), priority=9).get(timeout=LIMIT) == 7
    assert third_time.delay().get(timeout=LIMIT) == 2
    begun = time.monotonic()
    assert add.apply_async((1, 1), countdown=1).get(timeout=LIMIT) == 2
    assert time.monotonic() - begun > 0.9
    soon = datetime.now(timezone.utc) + timedelta(seconds=0.5)
    assert add.apply_async((1, 2), eta=soon).get(timeout=LIMIT) == 3
    try:
        fails.delay().get(timeout=LIMIT)
        raise AssertionError("a failed task gave a result")
    except ValueError as error:
        assert "as wanted" in str(error)


def check_canvas():
    assert group(add.s(i, i) for i in range(20))().get(timeout=LIMIT) == [2 * i for i in range(20)]
    assert chain(add.s(1, 2), add.s(3), add.s(4))().get(timeout=LIMIT) == 10
    assert chord((add.s(i, 1) for i in range(10)), total.s())().get(timeout=LIMIT) == 55


def check_results():
    result = add.delay(20, 22)
    assert result.get(timeout=LIMIT) == 42
    assert result.status == "SUCCESS" and result.name == "celery_app.add"
    again = app.AsyncResult(result.id)
    assert again.get(timeout=LIMIT) == 42
    again.forget()
    assert app.AsyncResult(result.id).status == "PENDING"


def check_control():
    inspect = app.control.inspect(timeout=5, limit=1)
    assert inspect.ping() == {"worker@test": {"ok": "pong"}}
    inspect = app.control.inspect(timeout=5, limit=1)
    assert "celery_app.add" in inspect.registered()["worker@test"]
    late = add.apply_async((1, 1), countdown=60)
    inspect = app.control.inspect(timeout=5, limit=1)
    deadline = time.monotonic() + LIMIT
    while not inspect.scheduled()["worker@test"]:
        assert time.monotonic() < deadline, "a task with a countdown is not scheduled"
        time.sleep(0.1)
    late.revoke()
    while late.id not in (app.control.inspect(timeout=5, limit=1).revoked() or {})["worker@test"]:
        assert time.monotonic() < deadline, "a revoked task is not known as revoked"
        time.sleep(0.1)


def check_purge():
    for i in range(5):
        add.apply_async((i, i), queue="nobody")
    with app.connection_for_write() as connection:
        channel = connection.default_channel
        message = channel.basic_get("nobody")
        channel.basic_reject(message.delivery_tag, requeue=True)
        assert channel.queue_purge("nobody") == 5


def main(port):
    client = redis.Redis(port=port)
    client.flushall()
    worker = start_worker()
    try:
        check_tasks()
        check_canvas()
        check_results()
        check_control()
        check_purge()
    finally:
        worker.terminate()
        worker.wait(LIMIT)
    strangers = [key for key in client.scan_iter() if not key.startswith(PREFIX.encode())]
    assert strangers == [], strangers
    # A worker that ended well has given back what it had taken, and only that.
    unacked = client.hlen(PREFIX + "unacked")
    assert unacked == 0, unacked
    print("celery: good")


if __name__ == "__main__":
    main(int(sys.argv[1]))
