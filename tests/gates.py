"""A gate over our own topics and some of other people's, and records to show it."""

from __future__ import annotations

import json
from typing import Any

from streams.decode import Gate, Rejected
from streams.events import Event
from streams.order import Record
from streams.settings import Settings, TopicSettings

NOW = 1_750_000_000.0
CLICK_FIELDS: dict[str, Any] = {"event_id": "e", "timestamp": NOW, "user": "u", "item": "i"}
SHOP = TopicSettings(
    name="shop",
    type="mixed",
    fields={"user": "who.id", "item": "skus.0", "type": "kind", "timestamp": "at"},
    types={"view": "click", "order": "purchase", "scroll": "ignore"},
    timestamp_unit="ms",
)
VIEWS = TopicSettings(
    name="views", type="click", fields={"user": "@key", "item": "sku"}, timestamp_unit="iso"
)
TOPICS = Settings(
    topics={
        "shop": SHOP,
        "views": VIEWS,
        "everything": {"name": "everything", "type": "mixed"},
    }
).event_topics()
GATE = Gate(TOPICS, now=lambda: NOW)


def record(
    value: bytes | dict[str, Any] | None,
    topic: str = "everlearn.clicks",
    *,
    offset: int = 0,
    partition: int = 0,
    key: bytes | None = b"k",
    seconds: float = NOW,
) -> Record:
    raw = json.dumps(value).encode() if isinstance(value, dict) else value
    return Record(topic, partition, offset, int(seconds * 1000), key, raw)


def click(**fields: Any) -> dict[str, Any]:
    return CLICK_FIELDS | fields


def decoded(told: Record) -> Event | Rejected:
    """Decode a record alone, which must say the same as a batch of it and of it among others."""
    verdict = GATE.decode_one(told)
    good = record(click())
    for records in ([told], [good, told, good], [told] * 9):
        batch, letters = GATE.decode(records)
        n = records.count(told)
        assert letters == ([verdict] * n if isinstance(verdict, Rejected) else [])
        assert len(batch) == len(records) - len(letters)
    return verdict
