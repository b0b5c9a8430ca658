"""An event in the shape that its topic asks for: our own, or that of a topic somebody else made."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from streams.events import EVENT_TYPES
from streams.mapping import UNITS

if TYPE_CHECKING:
    from streams.settings import TopicSettings

__all__ = ["ROLES", "TIMES", "in_shape_of", "key_of"]

ROLES = {
    "click": "clicks",
    "purchase": "purchases",
    "impression": "impressions",
    "item": "items",
    "erasure": "erasures",
}
KEY = "@key"
TIMES = ("timestamp", "created")
LAST_SECOND = 253_402_300_799.0  # of the year 9999, the last that ISO 8601 writes plainly


def in_shape_of(topic: TopicSettings, event: Mapping[str, Any]) -> dict[str, Any]:
    """Return the event as this topic's own producers write it: their names, types, unit of time.

    A field that is mapped to the message's key is not in it: see `key_of`.

    Examples
    --------
    >>> from streams.settings import TopicSettings
    >>> theirs = TopicSettings(
    ...     name="web", type="click", fields={"user": "visitor.id"}, timestamp_unit="ms"
    ... )
    >>> in_shape_of(theirs, {"user": "u1", "item": "i1", "timestamp": 1.5})
    {'visitor': {'id': 'u1'}, 'item': 'i1', 'timestamp': 1500}
    """
    if not topic.mapped:
        return dict(event)
    paths = {ours: topic.fields.get(ours, ours) for ours in event}
    taken = _single_places(topic) | set(paths.values())
    shaped: dict[str, Any] = {}
    for ours, path in paths.items():
        if path == KEY or (ours == "type" and topic.type != "mixed" and ours not in topic.fields):
            continue
        *folders, name = path.split(".")
        above = {".".join(folders[:n]) for n in range(1, len(folders) + 1)}
        if above & taken:  # a value cannot hold others: the path is one name
            folders, name = [], path
        place = shaped
        for folder in folders:
            place = place.setdefault(folder, {})
        place[name] = _as_theirs(topic, ours, event[ours])
    return shaped


def key_of(topic: TopicSettings, event: Mapping[str, Any]) -> str:
    """Return the key of an event's message: the field that is mapped to it, else user or item.

    An event without the field that is mapped to the key has an empty one.

    >>> from streams.settings import TopicSettings
    >>> theirs = TopicSettings(name="web", type="click", fields={"item": "@key"})
    >>> key_of(theirs, {"user": "u1", "item": "i1", "timestamp": 1.5})
    'i1'
    """
    for ours, path in topic.fields.items():
        if path == KEY:
            value = _as_theirs(topic, ours, event.get(ours))
            return value if isinstance(value, str) else "" if value is None else json.dumps(value)
    return str(event.get("item" if event.get("type", topic.type) == "item" else "user", ""))


def _single_places(topic: TopicSettings) -> set[str]:
    """Where a reader of this topic expects a single value; only `context` holds others."""
    kinds = [kind for name, kind in EVENT_TYPES.items() if topic.type in (name, "mixed")]
    names = {name for kind in kinds for name in kind.__struct_fields__} - {"context"}
    return {topic.fields.get(name, name) for name in names}


def _as_theirs(topic: TopicSettings, ours: str, value: Any) -> Any:
    if value is None:
        return None
    if ours in TIMES:
        return _in_unit(value, topic.timestamp_unit)
    if ours == "type":
        return next((theirs for theirs, our in topic.types.items() if our == value), value)
    return value


def _in_unit(seconds: float, unit: str | None) -> float | int | str:
    if unit == "iso":
        return datetime.fromtimestamp(min(seconds, LAST_SECOND), UTC).isoformat()
    return seconds if unit in (None, "s") else round(seconds * UNITS[unit])
