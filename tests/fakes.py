"""Stand-ins for the parts of a node, so that tests of the API decide what they do and when."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from learners.base import Recommendation, UserView
from learners.errors import DeliveryError

__all__ = ["FakeEngine", "FakeLive", "FakePublisher"]

FIGURES = {"hr@10": 0.3, "hr@20": 0.4, "mrr@20": 0.1, "ndcg@20": 0.2, "coverage@20": 0.5, "n": 10}


class FakeEngine:
    """Answers fixed lists; remembers what it was asked."""

    def __init__(self, items: int = 20) -> None:
        self.clock = 1000.0
        self.positions: dict[str, int] = {}
        self.items = [f"item-{place}" for place in range(items)]
        self.users: dict[str, UserView] = {}
        self.asked: dict[str, Any] = {}
        self.fingerprints = 0

    def recommend(
        self,
        user: str | None = None,
        *,
        events: Sequence[tuple[str, str, float]] = (),
        k: int = 10,
        exclude: Collection[str] = (),
    ) -> list[Recommendation]:
        self.asked = {"user": user, "events": list(events), "k": k, "exclude": set(exclude)}
        return self.trending(k)

    def similar(self, item: str, k: int) -> list[Recommendation]:
        return [entry for entry in self.trending(k) if entry.item != item]

    def trending(self, k: int) -> list[Recommendation]:
        return [
            Recommendation(item, 1 / (place + 1), {"popularity": 1.0})
            for place, item in enumerate(self.items[:k])
        ]

    def user(self, user: str) -> UserView | None:
        return self.users.get(user)

    def knows_item(self, item: str) -> bool:
        return item in self.items

    def fingerprint(self) -> str:
        self.fingerprints += 1
        return "00c0ffee00c0ffee"

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
            "alarms": [{"where": "overall", "event": 5, "time": 3.0, "before": 0.4, "after": 0.1}],
        }


class FakePublisher:
    """Acknowledges everything on partition 0, or refuses when told to."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, bytes | None, bytes]] = []
        self.shown: list[tuple[str, bytes | None, bytes]] = []
        self.refuse_after: int | None = None
        self.full = False

    async def publish(
        self, topic: str, key: bytes | None, value: bytes, **_: object
    ) -> tuple[int, int]:
        await asyncio.sleep(0)
        if self.refuse_after is not None and len(self.sent) >= self.refuse_after:
            raise DeliveryError("the broker is away")
        self.sent.append((topic, key, value))
        return 0, len(self.sent) - 1

    def publish_nowait(self, topic: str, key: bytes | None, value: bytes, **_: object) -> bool:
        if not self.full:
            self.shown.append((topic, key, value))
        return not self.full


class FakeLive:
    """A node that is ready until told otherwise, and has learnt what it is told it has."""

    def __init__(self) -> None:
        self.health: dict[str, Any] = {
            "ready": True,
            "reasons": [],
            "lag": 0,
            "positions": {"everlearn.clicks/0": 3},
            "last_checkpoint": 999.0,
        }
        self.positions: dict[str, int] = {}

    def ready(self) -> Mapping[str, Any]:
        return self.health

    async def learnt(self, positions: Mapping[str, int]) -> None:
        while any(self.positions.get(label, 0) <= offset for label, offset in positions.items()):
            await asyncio.sleep(0.001)
