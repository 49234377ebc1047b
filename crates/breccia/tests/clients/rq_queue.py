"""RQ, unchanged but for a prefix with a hash tag: `{rq}`. Jobs, results, retries, dependencies, schedules.

Argument: port. Ends with status 0 when all held.
"""

import os
import sys
from datetime import timedelta

os.environ["RQ_KEY_PREFIX"] = "{rq}"

import redis
from rq import Queue, Retry, SimpleWorker
from rq.job import Job
from rq.registry import FailedJobRegistry, FinishedJobRegistry, ScheduledJobRegistry

import rq_tasks


def main(port):
    client = redis.Redis(port=port)
    client.flushall()
    high, low = Queue("high", connection=client), Queue("low", connection=client)

    def work(**options):
        worker = SimpleWorker([high, low], connection=client)
        worker.work(burst=True, logging_level="ERROR", **options)

    job = high.enqueue(rq_tasks.add, 2, 3)
    many = low.enqueue_many([Queue.prepare_data(rq_tasks.add, (i, i)) for i in range(20)])
    assert len(low) == 20 and low.job_ids == [one.id for one in many]
    work()
    assert job.return_value(refresh=True) == 5 and job.get_status() == "finished"
    assert [one.return_value(refresh=True) for one in many] == [2 * i for i in range(20)]
    assert len(FinishedJobRegistry(queue=low)) == 20 and len(low) == 0

    failed = high.enqueue(rq_tasks.fails)
    retried = high.enqueue(rq_tasks.third_time, port, "{rq}:tries", retry=Retry(max=3))
    first = high.enqueue(rq_tasks.add, 1, 1)
    second = high.enqueue(rq_tasks.add, 2, 2, depends_on=first)
    assert second.get_status() == "deferred"
    work()
    assert failed.is_failed and failed.id in FailedJobRegistry(queue=high)
    assert retried.return_value(refresh=True) == "done"
    assert second.return_value(refresh=True) == 4
    assert high.enqueue(rq_tasks.add, 1, 2, job_id="known").id == "known"
    assert Job.fetch("known", connection=client).args == (1, 2)
    Job.fetch("known", connection=client).cancel()
    assert "known" not in high.job_ids

    later = low.enqueue_in(timedelta(hours=1), rq_tasks.add, 1, 1)
    assert later.id in ScheduledJobRegistry(queue=low)
    later.delete()
    soon = low.enqueue_in(timedelta(seconds=-1), rq_tasks.add, 4, 4)
    work(with_scheduler=True)
    assert soon.return_value(refresh=True) in (8, None)
    low.empty()
    strangers = [key for key in client.scan_iter() if not key.startswith(b"{rq}")]
    assert strangers == [], strangers
    print("rq: good")


if __name__ == "__main__":
    main(int(sys.argv[1]))
