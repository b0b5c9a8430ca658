"""The broker of a benchmark, in a process of its own: Apache Kafka where Java is, else embedded."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from benchmarks.data import Message
from benchmarks.processes import Part
from learners.errors import BrokerError
from streams.apache import is_available
from streams.importer import EMBEDDED_EVENTS
from streams.publisher import Publisher
from streams.settings import Settings
from streams.topics import create_topics

__all__ = ["Broker", "Kind", "fill", "run_broker"]

Kind = Literal["auto", "apache", "embedded"]
WORDS = {"apache": ("kafka", "--port", "0", "--json"), "embedded": ("broker", "--json")}


@dataclass(frozen=True, slots=True)
class Broker:
    """A running broker; `pid` is the process whose CPU is the broker's."""

    kind: str
    address: str
    pid: int

    def room(self, lead_in: int, events: int) -> int:
        """How many of so many events a topic can hold after the lead-in.

        Raises
        ------
        BrokerError
            There is no room at all.
        """
        if self.kind != "embedded":
            return events
        left = EMBEDDED_EVENTS - lead_in
        if left < EMBEDDED_EVENTS // 10:
            raise BrokerError(
                f"the embedded broker holds {EMBEDDED_EVENTS:,} events of a topic, and {lead_in:,} "
                "are needed to name every user and item: give --users and --items less, or install "
                "Java for an Apache Kafka"
            )
        return min(events, left)


@contextmanager
def run_broker(kind: Kind) -> Iterator[Broker]:
    """Run a broker of this kind while the block runs; `auto` takes Apache Kafka where it can run.

    Raises
    ------
    BrokerError
        Apache Kafka was asked for and cannot run here.
    """
    reason = is_available() if kind != "embedded" else None
    if kind == "apache" and reason:
        raise BrokerError(f"Apache Kafka cannot run here: {reason}; or use --broker embedded")
    chosen = "embedded" if reason or kind == "embedded" else "apache"
    with Part("serving.child", *WORDS[chosen]) as part:
        yield Broker(chosen, part.line()["broker"], part.process.pid)


def fill(settings: Settings, messages: Iterable[tuple[str, Message]]) -> int:
    """Make the topics and publish messages, each with its topic; return how many."""
    create_topics(settings)
    count = 0
    with Publisher(settings.broker, settings, linger_milliseconds=20.0) as publisher:
        for topic, message in messages:
            publisher.put(topic, *message)
            count += 1
        publisher.flush()
    return count
