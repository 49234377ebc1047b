"""The Celery application of celery_redis.py; its worker is a process of its own.

Everything is below one prefix with a hash tag: `{celery}`. The port comes from the environment.
Invariant: broker and result backend are the same server, as most who use Redis have it.
"""

import os

from celery import Celery

PREFIX = "{celery}"
URL = f"redis://127.0.0.1:{os.environ['CELERY_REDIS_PORT']}/0"

app = Celery("breccia", broker=URL, backend=URL)
app.conf.update(
    broker_transport_options={
        "global_keyprefix": PREFIX,
        "visibility_timeout": 3600,
        "queue_order_strategy": "priority",
        "priority_steps": [0, 3, 6, 9],
    },
    result_backend_transport_options={"global_keyprefix": PREFIX},
    broker_connection_retry_on_startup=True,
    task_acks_late=True,
    task_track_started=True,
    result_extended=True,
    worker_prefetch_multiplier=1,
)


@app.task
def add(left, right):
    return left + right


@app.task
def total(numbers):
    return sum(numbers)


@app.task(bind=True, max_retries=3)
def third_time(self):
    if self.request.retries < 2:
        raise self.retry(countdown=0.1)
    return self.request.retries


@app.task
def fails():
    raise ValueError("as wanted")
