"""Events for tests of the node: published fast, with the books that the node's must equal."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from confluent_kafka import KafkaError, Message, Producer
from confluent_kafka.admin import AdminClient, NewTopic
from xxhash import xxh3_64_intdigest

CLICKS, PURCHASES = "everlearn.clicks", "everlearn.purchases"


def clicks(n: int, *, seed: int = 0, start: float = 1_700_000_000.0) -> Iterator[dict[str, Any]]:
    """Events of a small shop, one a second: clicks and every tenth a purchase."""
    draw = np.random.default_rng(seed)
    users, tastes = draw.integers(2000, size=n).tolist(), draw.integers(40, size=n).tolist()
    for i, (user, taste) in enumerate(zip(users, tastes, strict=True)):
        event = {"event_id": f"{seed}-{i}", "timestamp": start + i, "user": f"u{user}"}
        event["item"] = f"i{(user + taste) % 1000}"
        yield event | ({"price": 9.5} if i % 10 == 0 else {})


def topic_of(event: dict[str, Any], prefix: str = "") -> str:
    """The topic an event of `clicks` belongs to."""
    return prefix + (PURCHASES if "price" in event else CLICKS)


def topics(prefix: str) -> dict[str, dict[str, str]]:
    """The `topics` setting of a node of which all topics carry a prefix."""
    roles = ("clicks", "purchases", "impressions", "items", "erasures", "snapshots")
    names = {role: f"{prefix}everlearn.{role}" for role in roles}
    names["dead_letters"] = f"{prefix}everlearn.dead-letters"
    return {role: {"name": name} for role, name in names.items()}


def make_topics(broker: str, prefix: str = "", partitions: int = 4) -> None:
    """Make every topic of a node on an Apache Kafka."""
    admin = AdminClient({"bootstrap.servers": broker})
    new = [NewTopic(topic["name"], partitions) for topic in topics(prefix).values()]
    for made in admin.create_topics(new).values():
        made.result(30)


@dataclass
class Books:
    """Count, xor and sum of event-id hashes per partition, as the broker acknowledged them."""

    ledger: defaultdict[str, dict[str, int]] = field(
        default_factory=lambda: defaultdict(lambda: {"count": 0, "xor": 0, "sum": 0})
    )
    ends: dict[str, int] = field(default_factory=dict)

    def enter(self, label: str, event_id: str) -> None:
        """Enter an event that is to be learnt."""
        book, digest = self.ledger[label], xxh3_64_intdigest(event_id.encode())
        book["count"] += 1
        book["xor"] ^= digest
        book["sum"] = (book["sum"] + digest) % 2**64

    def differences(self, ledger: dict[str, dict[str, int]]) -> dict[str, Any]:
        """Where a node's ledger is not this one."""
        empty = {"count": 0, "xor": 0, "sum": 0}
        names = self.ledger.keys() | ledger.keys()
        pairs = {name: (self.ledger.get(name, empty), ledger.get(name, empty)) for name in names}
        return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


class Traffic:
    """Publishes events and keeps the books."""

    def __init__(self, broker: str, prefix: str = "", **options: Any) -> None:
        self.books = Books()
        self.errors: list[str] = []
        self.prefix = prefix
        self._producer = Producer(
            {
                "bootstrap.servers": broker,
                "linger.ms": 5,
                "partitioner": "murmur2_random",
                "queue.buffering.max.messages": 500_000,
                "log_level": 0,
                **options,
            }
        )

    def send(self, event: dict[str, Any], *, repeated: bool = False) -> None:
        """Publish an event; a repeated one is not entered in the books again."""
        topic, value = topic_of(event, self.prefix), json.dumps(event).encode()
        event_id = None if repeated else event["event_id"]
        self._produce(topic, event["user"].encode(), value, event["timestamp"], event_id)

    def send_raw(self, topic: str, key: bytes | None, value: bytes | None, time: float) -> None:
        """Publish bytes that are no event, with the record time in seconds UTC."""
        self._produce(topic, key, value, time, None)

    def _produce(
        self, topic: str, key: bytes | None, value: bytes | None, time: float, event_id: str | None
    ) -> None:
        def note(error: KafkaError | None, message: Message) -> None:
            if error is not None:
                self.errors.append(str(error))
                return
            label = f"{message.topic()}/{message.partition()}"
            self.books.ends[label] = max(self.books.ends.get(label, 0), message.offset() + 1)
            if event_id is not None:
                self.books.enter(label, event_id)

        while True:
            try:
                self._producer.produce(
                    topic, value, key, timestamp=int(time * 1000), on_delivery=note
                )
                break
            except BufferError:
                self._producer.poll(0.1)
        self._producer.poll(0)

    def flush(self) -> None:
        """Wait until the broker has everything."""
        deadline = time.monotonic() + 60
        while self._producer.flush(1):
            assert time.monotonic() < deadline, "the broker does not acknowledge"
        assert not self.errors, self.errors[:3]
