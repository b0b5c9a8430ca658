"""From an event as a client sends it to a Kafka message that every node accepts.

The message is made in the shape that its topic asks for, then shown to the same gate that the
nodes read through: what the API accepts, a node accepts.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple
from uuid import uuid4

import msgspec

from streams.decode import Gate, Rejected
from streams.order import Record
from streams.shapes import ROLES, TIMES, in_shape_of, key_of
from streams.words import shown

if TYPE_CHECKING:
    from streams.settings import Settings

__all__ = ["Message", "Shaper"]


class Message(NamedTuple):
    """What is published."""

    topic: str
    key: bytes
    value: bytes


class Shaper:
    """Makes messages of events.

    Parameters
    ----------
    settings
        Names the topic of each type of event, and its shape if it is somebody else's.
    """

    def __init__(self, settings: Settings) -> None:
        self.topics = {kind: settings.topics[role] for kind, role in ROLES.items()}
        self.gate = Gate(settings.event_topics())

    def message(self, event: object) -> Message | Rejected:
        """The message of one decoded event, or why no node would accept it."""
        if not isinstance(event, dict):
            return Rejected("malformed_json", "an event is a JSON object", None)
        kind = event.get("type")
        topic = self.topics.get(kind) if isinstance(kind, str) else None
        if topic is None:
            known = ", ".join(self.topics)
            return Rejected("unknown_type", f"type must be one of {known}, not {kind!r:.100}", None)
        for name in TIMES:
            seconds = event.get(name, 0)
            if topic.mapped and (isinstance(seconds, bool) or not isinstance(seconds, int | float)):
                return Rejected("bad_field", f"{name} must be a number, not {shown(seconds)}", None)
        now = time.time()
        complete = {"event_id": uuid4().hex, "timestamp": now} | event
        try:
            key = key_of(topic, complete).encode("utf-8", "surrogatepass")
            value = msgspec.json.encode(in_shape_of(topic, complete))
        except (TypeError, ValueError, OverflowError, OSError) as error:
            return Rejected("bad_field", f"not to be written as {topic.name} is: {error}", None)
        record = Record(topic.name, 0, 0, int(now * 1000), key, value, ())
        verdict = self.gate.decode_one(record)
        return verdict if isinstance(verdict, Rejected) else Message(topic.name, key, value)
