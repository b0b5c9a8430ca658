"""Reading the messages of a topic that somebody else made, as its mapping in the settings says."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, cast

import msgspec

from streams.events import EVENT_TYPES, Event
from streams.order import KafkaRecord, label

if TYPE_CHECKING:
    from streams.settings import TopicSettings

__all__ = ["MappedReader", "Unreadable"]

IDS = {"event_id", "user", "item", "session", "impression_id", "category", "snapshot"}
TIMES = {"timestamp", "created"}
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
        self._paths = {name: topic.fields.get(name, name) for name in topic.field_names()}
        self._decode = msgspec.json.Decoder().decode

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
            raise Unreadable("bad_field", f"a message is a JSON object, not {_shown(message)}")
        kind = self._kind(message, record)
        given = {
            name: self._value(name, found)
            for name in kind.__struct_fields__
            if (found := self._find(name, message, record)) is not None and found != ""
        }
        given.setdefault("event_id", f"{label(record.topic, record.partition)}/{record.offset}")
        if record.timestamp >= 0:
            given.setdefault("timestamp", record.timestamp / 1000)
        try:
            return msgspec.convert(given, kind, strict=False)
        except msgspec.ValidationError as error:
            raise self._located(str(error)) from None

    def _kind(self, message: dict[str, Any], record: KafkaRecord) -> type[Event]:
        if self.topic.type != "mixed":
            return EVENT_TYPES[cast(str, self.topic.type)]
        theirs = self._find("type", message, record)
        # JSON has no other scalars: true and 1 are one key of a dict, but not one type of event.
        name = theirs if isinstance(theirs, str) else "" if theirs is None else _shown(theirs)
        ours = self.topic.types.get(name, name)
        if ours == "ignore":
            raise Unreadable("ignored", f"the settings ignore type {_shown(theirs)}")
        if ours not in EVENT_TYPES:
            where = self._paths["type"]
            raise Unreadable("unknown_type", f"{where!r} is {_shown(theirs)}, not a known type")
        return EVENT_TYPES[ours]

    def _find(self, name: str, message: dict[str, Any], record: KafkaRecord) -> Any:
        path = self._paths[name]
        if path == "@key":
            return record.key.decode() if record.key else None
        if path in message:
            return message[path]
        found: Any = message
        for part in path.split("."):
            if isinstance(found, dict):
                found = found.get(part)
            elif isinstance(found, list) and part.isdecimal() and int(part) < len(found):
                found = found[int(part)]
            else:
                return None
        return found

    def _value(self, name: str, value: Any) -> Any:
        if name in IDS:
            return _text(value)
        if name == "items" and isinstance(value, list):
            return [_text(item) for item in value]
        return self._seconds(name, value) if name in TIMES else value

    def _seconds(self, name: str, value: Any) -> float:
        unit = self.topic.timestamp_unit or "s"
        try:
            if unit == "iso":
                time = datetime.fromisoformat(value)
                return (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()
            seconds = float(value) / (1000 if unit == "ms" else 1)
            if isinstance(value, bool) or not math.isfinite(seconds):
                raise ValueError
            return seconds
        except (TypeError, ValueError, OverflowError):
            raise Unreadable("bad_field", f"{name} is {_shown(value)}, no time in {unit}") from None

    def _located(self, message: str) -> Unreadable:
        """Say where in their message our field comes from."""
        found = FIELD.search(message)
        name = found[1] if found else ""
        path = self._paths.get(name, name)
        origin = f" (read from {path!r})" if path != name else ""
        reason = "id_too_long" if name in IDS and "length <= 128" in message else "bad_field"
        return Unreadable(reason, message + origin)


def _text(value: Any) -> Any:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _shown(value: Any) -> str:
    text = msgspec.json.encode(value).decode()
    return text if len(text) <= 60 else text[:57] + "..."
