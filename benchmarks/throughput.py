"""How many events a second each way to read the same topic handles."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from benchmarks.brokers import Broker, Kind, fill, run_broker
from benchmarks.data import Crowd, message_of, recorded
from benchmarks.methods import METHODS, settings_of
from benchmarks.processes import run_part
from benchmarks.rows import Row, make_row

__all__ = ["TOPIC", "run"]

TOPIC = "bench.events"
START_SECONDS = 240.0  # more than any method needs besides the measured part


def run(
    *,
    crowd: Crowd | None = None,
    events: int = 1_000_000,
    limit_seconds: float = 20.0,
    methods: Sequence[str] = tuple(METHODS),
    broker: Kind = "auto",
    say: Callable[[str], None] = lambda text: None,
) -> Iterator[Row]:
    """Measure each method in a fresh process, all of them on one topic of 4 partitions.

    Parameters
    ----------
    crowd
        Users and items. The topic begins with an event for each, which nobody's clock counts.
    events
        Events that are measured.
    limit_seconds
        A slow method stops after so many seconds, and says how many events it handled.
    methods
        Which methods, in this order.
    broker
        Which broker holds the topic.
    say
        Told what happens.
    """
    crowd = crowd or Crowd()
    with _filled(crowd, events, broker, say) as (running, total):
        job = {"broker": running.address, "topic": TOPIC, "limit_seconds": limit_seconds}
        job |= {"warm": crowd.lead_in, "total": total, "items": crowd.items}
        for method in methods:
            say(method)
            seconds = START_SECONDS + limit_seconds
            figures = run_part("benchmarks.methods", method, job, seconds=seconds)
            taken = figures.pop("seconds")
            yield make_row("throughput", method, figures | {"broker": running.kind}, taken)


@contextmanager
def _filled(
    crowd: Crowd, events: int, kind: Kind, say: Callable[[str], None]
) -> Iterator[tuple[Broker, int]]:
    """A broker whose topic holds the events; and how many it holds."""
    say("starting the broker")
    with run_broker(kind) as broker:
        events = broker.room(crowd.lead_in, events)
        say(f"publishing {crowd.lead_in + events:,} events")
        messages = ((TOPIC, message_of(event)) for event in recorded(crowd, events))
        yield broker, fill(settings_of(broker.address, TOPIC), messages)
