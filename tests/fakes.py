"""What stands in for Kafka and for the running node in tests of the API: memory, no threads.

The engine is a real one everywhere. What a stand-in does wrong, it does because it was told to.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from learners.base import EngineConfig
from learners.engine import Engine
from learners.errors import DeliveryError
from streams.decode import Gate
from streams.order import Record
from streams.settings import Settings

__all__ = [
    "SMALL",
    "START",
    "EngineWithFigures",
    "LogInMemory",
    "NodeInMemory",
    "learn",
]

SMALL = EngineConfig(users=64, items=64, sessions=64, dedupe_events=4096, evaluate_one_in=1)
START = 1_750_000_000.0  # event time, seconds
FIGURES = {"hr@10": 0.3, "hr@20": 0.4, "mrr@20": 0.1, "ndcg@20": 0.2, "coverage@20": 0.5, "n": 10}

Message = tuple[str, bytes | None, bytes]


class EngineWithFigures(Engine):
    """Reports known figures, for tests of what shows figures."""

    def __init__(self) -> None:
        super().__init__(SMALL)

    def report(self) -> dict[str, Any]:
        figures = {"blend": FIGURES, "popularity": FIGURES | {"hr@20": 0.2}}
        return {
            "events": 12,
            "learnt": {"click": 10, "purchase": 2},
            "duplicates": 1,
            "rejected": {"malformed_json": 3},
            "users": 4,
            "items": 5,
            "clock": self.clock,
            "metrics": figures,
            "clicks": figures,
            "purchases": {},
            "recent": {"blend": {"hr@20": 0.6}},
            "alarms_raised": {"overall": 1},
        }


class LogInMemory:
    """Keeps what is published, each topic one partition; fails when told to.

    Attributes
    ----------
    refuse_after : int or None
        Acknowledge no more than so many messages.
    full : bool
        Take no more messages that nobody waits for.
    """

    def __init__(self) -> None:
        self.sent: list[Message] = []
        self.shown: list[Message] = []
        self.refuse_after: int | None = None
        self.full = False

    async def publish(
        self, topic: str, key: bytes | None, value: bytes, **_: object
    ) -> tuple[int, int]:
        await asyncio.sleep(0)
        if self.refuse_after is not None and len(self.sent) >= self.refuse_after:
            raise DeliveryError("the broker is away")
        self.sent.append((topic, key, value))
        return 0, sum(other == topic for other, *_ in self.sent) - 1

    def publish_nowait(self, topic: str, key: bytes | None, value: bytes, **_: object) -> bool:
        if not self.full:
            self.shown.append((topic, key, value))
        return not self.full


class NodeInMemory:
    """A node that is ready until told otherwise (`health`), and learns when a test says so."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.waiting = 0
        self.health: dict[str, Any] = {
            "ready": True,
            "reasons": [],
            "lag": 0,
            "last_checkpoint": 999.0,
        }

    def ready(self) -> Mapping[str, Any]:
        return self.health | {"positions": dict(self.engine.positions)}

    async def learnt(self, positions: Mapping[str, int]) -> None:
        stands = self.engine.positions
        self.waiting += 1
        try:
            while any(stands.get(label, 0) <= offset for label, offset in positions.items()):
                await asyncio.sleep(0.001)
        finally:
            self.waiting -= 1


def learn(engine: Engine, messages: list[Message], settings: Settings) -> None:
    """Let an engine learn the messages of a log that it has not learnt yet, as a node does."""
    fresh: list[Record] = []
    offsets: dict[str, int] = {}
    for topic, key, value in messages:
        offset = offsets.get(topic, 0)
        offsets[topic] = offset + 1
        if offset >= engine.positions.get(f"{topic}/0", 0):
            fresh.append(Record(topic, 0, offset, -1, key, value))
    batch, rejected = Gate(settings.event_topics()).decode(fresh)
    assert rejected == []
    engine.learn(batch)
