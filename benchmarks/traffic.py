"""A paced publisher: so many events a second of a shop that is open now.

`python -m benchmarks.traffic JOB` publishes until it is stopped, and prints a line once it flows.
"""

from __future__ import annotations

import json
import sys
import time
from itertools import islice
from typing import Any

from benchmarks.data import Crowd, live_events, message_of
from benchmarks.processes import job_of
from streams.events import Purchase
from streams.publisher import Publisher
from streams.settings import Settings

__all__ = ["publish"]

TICK_SECONDS = 0.002
LINGER_MILLISECONDS = 5.0  # what producers on librdkafka wait for others unless told otherwise
FLOWS_SECONDS = 1.0


def publish(job: dict[str, Any]) -> None:
    """Publish clicks and purchases to their topics, each at its time."""
    topics = Settings().topics
    clicks, purchases = topics["clicks"].name, topics["purchases"].name
    events = live_events(Crowd(**job["crowd"]), job["skip"])
    next(events)  # the shop is open before the first event is due
    with Publisher(job["broker"], linger_milliseconds=LINGER_MILLISECONDS) as publisher:
        started, sent, told = time.monotonic(), 0, False
        while True:
            passed = time.monotonic() - started
            due = int(passed * job["rate"])
            for event in islice(events, due - sent):
                event.timestamp = time.time()
                topic = purchases if isinstance(event, Purchase) else clicks
                publisher.put(topic, *message_of(event))
            sent = due
            if not told and passed > FLOWS_SECONDS:
                told = True
                print(json.dumps({"published": publisher.delivered}), flush=True)
            time.sleep(TICK_SECONDS)


if __name__ == "__main__":
    publish(job_of(sys.argv[1:])[0])
