"""An event in the shape that its topic asks for: our own, or that of a topic somebody else made."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from streams.settings import TopicSettings

__all__ = ["ROLES", "in_shape_of"]

ROLES = {
    "click": "clicks",
    "purchase": "purchases",
    "impression": "impressions",
    "item": "items",
    "erasure": "erasures",
}


def in_shape_of(topic: TopicSettings, event: Mapping[str, Any]) -> dict[str, Any]:
    """Return the event as this topic's own producers write it: their names, types, unit of time.

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
    shaped: dict[str, Any] = {}
    for ours, value in event.items():
        path = topic.fields.get(ours, ours)
        if path == "@key":
            continue
        if ours == "timestamp":
            value = _in_unit(value, topic.timestamp_unit)
        elif ours == "type":
            value = next((theirs for theirs, our in topic.types.items() if our == value), value)
        *folders, name = path.split(".")
        place = shaped
        for folder in folders:
            place = place.setdefault(folder, {})
        place[name] = value
    return shaped


def _in_unit(seconds: float, unit: str | None) -> float | int | str:
    if unit == "ms":
        return round(seconds * 1000)
    if unit == "iso":
        return datetime.fromtimestamp(seconds, UTC).isoformat()
    return seconds
