"""Reading the messages of a topic that somebody else made, as its mapping in the settings says."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import msgspec

from streams.events import EVENT_TYPES, Event
from streams.order import KafkaRecord, label
from streams.words import of_bad_json, shown

if TYPE_CHECKING:
    from streams.settings import TopicSettings

__all__ = ["UNITS", "MappedReader", "Unreadable"]

IDS = {"event_id", "user", "item", "session", "impression_id", "category", "snapshot"}
TIMES = {"timestamp", "created"}
# How many of each make a second.
UNITS = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
FIELD = re.compile(r"(?:at `\$\.|required field `)(\w+)")


class Unreadable(ValueError):
    """A message is no event."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


class MappedReader:
    """Reads JSON objects of any shape as events.

    Whole numbers serve as ids, numbers may be written as text, `null` and empty text are fields
    left out. A message without `event_id` is named by its place in Kafka, one without `timestamp`
    happened at its record's time.

    Parameters
    ----------
    topic
        Names the fields, the types and the unit of time.
    """

    def __init__(self, topic: TopicSettings) -> None:
        self.topic = topic
        self._decode = msgspec.json.Decoder().decode
        self._unit = topic.timestamp_unit or "s"
        self._type_place = _Place(topic.fields.get("type", "type"))
        names = EVENT_TYPES if topic.type == "mixed" else [cast(str, topic.type)]
        self._plans = {EVENT_TYPES[name]: self._plan(EVENT_TYPES[name]) for name in names}

    def __call__(self, record: KafkaRecord) -> Event:
        """Return the event of a record.

        Raises
        ------
        Unreadable
            The message is JSON, but no event as the mapping reads it.
        msgspec.DecodeError, UnicodeDecodeError
            The message is not JSON.
        """
        message = self._decode(cast(bytes, record.value))
        if not isinstance(message, dict):
            raise Unreadable("bad_field", f"a message is a JSON object, not {shown(message)}")
        kind = self._kind(message, record)
        given = {}
        for name, place, convert in self._plans[kind]:
            found = place.find(message, record)
            if found is not None and found != "":
                given[name] = convert(found) if convert else found
        if "event_id" not in given:
            given["event_id"] = f"{label(record.topic, record.partition)}/{record.offset}"
        if "timestamp" not in given and record.timestamp >= 0:
            given["timestamp"] = record.timestamp / 1000
        try:
            return msgspec.convert(given, kind, strict=False)
        except msgspec.ValidationError as error:
            raise self._located(str(error), given) from None

    def _plan(self, kind: type[Event]) -> list[tuple[str, _Place, Callable[[Any], Any] | None]]:
        """Each field of a kind of event: its name, its place in a message, how to read it."""
        readers: dict[str, Callable[[Any], Any]] = dict.fromkeys(IDS, _text)
        readers |= {name: partial(_seconds, name, self._unit) for name in TIMES}
        readers["items"] = _texts
        return [
            (name, _Place(self.topic.fields.get(name, name)), readers.get(name))
            for name in kind.__struct_fields__
        ]

    def _kind(self, message: dict[str, Any], record: KafkaRecord) -> type[Event]:
        if self.topic.type != "mixed":
            return EVENT_TYPES[cast(str, self.topic.type)]
        theirs = self._type_place.find(message, record)
        name = theirs if isinstance(theirs, str) else "" if theirs is None else shown(theirs)
        ours = self.topic.types.get(name, name)
        if ours == "ignore":
            raise Unreadable("ignored", f"the settings ignore type {shown(theirs)}")
        if ours not in EVENT_TYPES:
            path = self._type_place.path
            raise Unreadable("unknown_type", f"{path!r} is {shown(theirs)}, not a known type")
        return EVENT_TYPES[ours]

    def _located(self, message: str, given: dict[str, Any]) -> Unreadable:
        """Say where in their message our field comes from."""
        found = FIELD.search(message)
        name = found[1] if found else ""
        path = self.topic.fields.get(name, name)
        origin = f" (read from {path!r})" if path != name else ""
        reason = "id_too_long" if name in IDS and "length <= 128" in message else "bad_field"
        return Unreadable(reason, of_bad_json(message, given) + origin)


class _Place:
    """A place in a message: a key, a path of keys and numbers, or the record's own key."""

    __slots__ = ("parts", "path")

    def __init__(self, path: str) -> None:
        self.path = path
        self.parts = path.split(".") if "." in path else []

    def find(self, message: dict[str, Any], record: KafkaRecord) -> Any:
        """Return what stands there; `None` when nothing does."""
        if self.path == "@key":
            return record.key.decode() if record.key else None
        found: Any = message.get(self.path)
        if found is not None or not self.parts:
            return found
        found = message
        for part in self.parts:
            if isinstance(found, dict):
                found = found.get(part)
            elif isinstance(found, list) and part.isdecimal() and int(part) < len(found):
                found = found[int(part)]
            else:
                return None
        return found


def _text(value: Any) -> Any:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _texts(values: Any) -> Any:
    return [_text(value) for value in values] if isinstance(values, list) else values


def _seconds(name: str, unit: str, value: Any) -> float:
    try:
        if unit == "iso":
            time = datetime.fromisoformat(value)
            return (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()
        seconds = float(value) / UNITS[unit]
        if isinstance(value, bool) or not math.isfinite(seconds):
            raise ValueError
        return seconds
    except (TypeError, ValueError, OverflowError):
        raise Unreadable("bad_field", f"{name} is {shown(value)}, no time in {unit}") from None
